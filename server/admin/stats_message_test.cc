// SPDX-License-Identifier: Apache-2.0
#include "server/admin/stats_message.h"

#include <google/protobuf/text_format.h>

#include <cstdint>
#include <string>

#include "gtest/gtest.h"
#include "server/stats/histogram.h"

namespace kevent::admin {
namespace {

constexpr int64_t kStart = 1'000'000'000;
constexpr int64_t kNow = 6'000'000'007;

std::string Text(const google::protobuf::Message& message) {
  google::protobuf::TextFormat::Printer printer;
  printer.SetSingleLineMode(true);
  std::string text;
  printer.PrintToString(message, &text);
  return text;
}

// Every number is another one.
WorkerSample Numbered(uint64_t from) {
  WorkerSample s;
  s.at_ns = kNow - 3;
  uint64_t next = from;
  for (uint64_t* number :
       {&s.queue.entries, &s.queue.enters, &s.queue.waits, &s.queue.sleeps,
        &s.queue.wakes, &s.queue.submitted, &s.queue.completed_inline}) {
    *number = next++;
  }
  for (uint64_t& number : s.queue.submitted_by_opcode) number = next++;
  for (uint32_t* number :
       {&s.queue.operations, &s.queue.interests, &s.queue.ring_high_water}) {
    *number = static_cast<uint32_t>(next++);
  }
  files::FileCache::Stats cache;
  for (uint64_t* number :
       {&s.queue.overflow_deferred, &s.queue.cold_sendfiles,
        &s.queue.populate_ns, &s.loop.turns, &s.loop.entries, &s.loop.timers,
        &s.loop.posts, &cache.entries, &cache.negative_entries, &cache.hits,
        &cache.misses, &cache.revalidations, &cache.replacements,
        &cache.invalidations, &cache.evictions, &cache.body_bytes,
        &cache.descriptors, &cache.watches}) {
    *number = next++;
  }
  s.cache = cache;
  return s;
}

v1::Stats Message(const Target& target, const Sample& sample) {
  v1::Stats stats;
  FillStats(target, sample, kStart, kNow, &stats);
  return stats;
}

TEST(StatsMessageTest, EveryNumberHasItsField) {
  Target target;
  target.workers.resize(1);
  const v1::Stats stats = Message(target, {Numbered(1)});
  const v1::WorkerStats& worker = stats.workers(0);
  EXPECT_EQ(
      Text(worker.queue()),
      "entries: 1 enters: 2 waits: 3 sleeps: 4 wakes: 5 submitted: 6 "
      "completed_inline: 7 operations { key: \"accept\" value: 8 } "
      "operations { key: \"close\" value: 14 } "
      "operations { key: \"connect\" value: 9 } "
      "operations { key: \"post\" value: 15 } "
      "operations { key: \"recv\" value: 10 } "
      "operations { key: \"send\" value: 11 } "
      "operations { key: \"sendfile\" value: 12 } "
      "operations { key: \"shutdown\" value: 13 } in_flight: 16 interests: 17 "
      "ring_high_water: 18 overflow_deferred: 19 cold_sendfiles: 20 "
      "populate_ns: 21 ");
  EXPECT_EQ(Text(worker.loop()), "turns: 22 entries: 23 timers: 24 posts: 25 ");
  EXPECT_EQ(Text(worker.cache()),
            "entries: 26 negative_entries: 27 hits: 28 misses: 29 "
            "revalidations: 30 replacements: 31 invalidations: 32 "
            "evictions: 33 body_bytes: 34 descriptors: 35 watches: 36 ");
  EXPECT_EQ(Text(worker.age()), "nanos: 3 ");
  EXPECT_EQ(Text(stats.uptime()), "seconds: 5 nanos: 7 ");
  EXPECT_GT(stats.time().seconds(), 0);
}

// A field that is new in admin.proto and is not written shows up here.
TEST(StatsMessageTest, NoFieldIsForgotten) {
  Target target;
  target.workers.resize(1);
  const v1::Stats stats = Message(target, {Numbered(1)});
  for (const google::protobuf::Message* part :
       {static_cast<const google::protobuf::Message*>(
            &stats.workers(0).queue()),
        static_cast<const google::protobuf::Message*>(&stats.workers(0).loop()),
        static_cast<const google::protobuf::Message*>(
            &stats.workers(0).cache())}) {
    const auto* descriptor = part->GetDescriptor();
    for (int i = 0; i < descriptor->field_count(); ++i) {
      const auto* field = descriptor->field(i);
      if (field->is_repeated()) continue;
      EXPECT_TRUE(part->GetReflection()->GetUInt64(*part, field) > 0)
          << field->full_name();
    }
  }
  EXPECT_EQ(v1::HttpStats::descriptor()->field_count(), 13);
  EXPECT_EQ(v1::WorkerStats::descriptor()->field_count(), 8);
  EXPECT_EQ(v1::Stats::descriptor()->field_count(), 5);
}

TEST(StatsMessageTest, TotalAddsUpButForHighWaters) {
  Target target;
  target.workers.resize(2);
  Sample sample = {Numbered(1), Numbered(100)};
  sample[0].at_ns -= 50;
  sample[1].stale = true;
  const v1::WorkerStats total = Message(target, sample).total();
  EXPECT_EQ(total.queue().entries(), 1u + 100);
  EXPECT_EQ(total.queue().populate_ns(), 21u + 120);
  EXPECT_EQ(total.queue().ring_high_water(), 117u);
  EXPECT_EQ(total.queue().operations().at("send"), 11u + 110);
  EXPECT_EQ(total.loop().posts(), 25u + 124);
  EXPECT_EQ(total.cache().watches(), 36u + 135);
  EXPECT_EQ(total.age().nanos(), 53) << "the oldest";
  EXPECT_TRUE(total.stale());
}

TEST(StatsMessageTest, LoopThatHasNeverAnsweredHasNoFigures) {
  Target target;
  target.workers.resize(1);
  WorkerSample never;
  never.stale = true;
  const v1::Stats stats = Message(target, {never});
  EXPECT_EQ(Text(stats.workers(0)), "http { } stale: true ");
  EXPECT_FALSE(stats.total().has_queue());
  EXPECT_FALSE(stats.total().has_cache());
}

TEST(StatsMessageTest, MetricsOfZeroHaveTheirKind) {
  stats::Counter none;
  stats::Histogram empty;
  stats::Registry registry;
  ASSERT_TRUE(registry.AddCounter("orders", "Orders.", {&none}).ok());
  ASSERT_TRUE(registry.AddGauge("depth", "Depth.", [] { return 0.0; }).ok());
  ASSERT_TRUE(registry.AddGauge("cold", "Cold.", [] { return -1.5; }).ok());
  ASSERT_TRUE(registry.AddHistogram("times", "Times.", {&empty}).ok());
  Target target;
  target.registry = &registry;
  const v1::Stats stats = Message(target, {});
  ASSERT_EQ(stats.metrics_size(), 4);
  EXPECT_TRUE(stats.metrics(0).has_counter());
  EXPECT_TRUE(stats.metrics(1).has_gauge());
  EXPECT_EQ(stats.metrics(2).gauge(), -1.5);
  EXPECT_EQ(stats.metrics(2).name(), "cold");
  EXPECT_EQ(stats.metrics(2).help(), "Cold.");
  EXPECT_TRUE(stats.metrics(3).has_histogram());
}

TEST(StatsMessageTest, HistogramHasItsBuckets) {
  stats::Histogram histogram;
  for (int64_t ns : {500, 3'000, 3'000, 900'000}) histogram.Record(ns);
  histogram.Record(INT64_MAX / 4);
  v1::Histogram to;
  FillHistogram(histogram.snapshot(), &to);
  EXPECT_EQ(to.count(), 5u);
  EXPECT_EQ(to.sum_ns(), 906'500u + INT64_MAX / 4);
  EXPECT_EQ(to.p50_ns(), 3072u);
  EXPECT_GT(to.p99_ns(), to.p90_ns() - 1);
  ASSERT_EQ(to.buckets_size(), 4);
  EXPECT_EQ(Text(to.buckets(0)), "upper_ns: 1024 count: 1 ");
  EXPECT_EQ(Text(to.buckets(1)), "upper_ns: 3072 count: 2 ");
  EXPECT_EQ(to.buckets(3).upper_ns(), static_cast<uint64_t>(INT64_MAX));
}

}  // namespace
}  // namespace kevent::admin
