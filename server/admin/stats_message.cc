// SPDX-License-Identifier: Apache-2.0
#include "server/admin/stats_message.h"

#include <google/protobuf/util/time_util.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <string>

namespace kevent::admin {
namespace {

using google::protobuf::util::TimeUtil;

constexpr std::array<const char*, kOpcodes> kOpcodeNames = {
    "accept",   "connect",  "recv",  "send",
    "sendfile", "shutdown", "close", "post"};
// In the order of Opcode.
static_assert(static_cast<size_t>(Opcode::kPost) == kOpcodes - 1);

void FillHttp(const stats::HttpCounters& from, v1::HttpStats* to) {
  to->set_accepted(from.accepted.value());
  to->set_connections(from.connections.value());
  to->set_accept_failures(from.accept_failures.value());
  to->set_requests(from.requests.value());
  to->set_responses_other(from.by_class[0].value());
  to->set_responses_1xx(from.by_class[1].value());
  to->set_responses_2xx(from.by_class[2].value());
  to->set_responses_3xx(from.by_class[3].value());
  to->set_responses_4xx(from.by_class[4].value());
  to->set_responses_5xx(from.by_class[5].value());
  to->set_bytes_sent(from.bytes_sent.value());
  to->set_aborted(from.aborted.value());
  to->set_timeouts(from.timeouts.value());
}

void FillQueue(const Queue::Stats& from, v1::QueueStats* to) {
  to->set_entries(from.entries);
  to->set_enters(from.enters);
  to->set_waits(from.waits);
  to->set_sleeps(from.sleeps);
  to->set_wakes(from.wakes);
  to->set_submitted(from.submitted);
  to->set_completed_inline(from.completed_inline);
  for (size_t i = 0; i < kOpcodes; ++i) {
    (*to->mutable_operations())[kOpcodeNames[i]] = from.submitted_by_opcode[i];
  }
  to->set_in_flight(from.operations);
  to->set_interests(from.interests);
  to->set_ring_high_water(from.ring_high_water);
  to->set_overflow_deferred(from.overflow_deferred);
  to->set_cold_sendfiles(from.cold_sendfiles);
  to->set_populate_ns(from.populate_ns);
}

void FillLoop(const loop::Loop::Stats& from, v1::LoopStats* to) {
  to->set_turns(from.turns);
  to->set_entries(from.entries);
  to->set_timers(from.timers);
  to->set_posts(from.posts);
}

void FillCache(const files::FileCache::Stats& from, v1::FileCacheStats* to) {
  to->set_entries(from.entries);
  to->set_negative_entries(from.negative_entries);
  to->set_hits(from.hits);
  to->set_misses(from.misses);
  to->set_revalidations(from.revalidations);
  to->set_replacements(from.replacements);
  to->set_invalidations(from.invalidations);
  to->set_evictions(from.evictions);
  to->set_body_bytes(from.body_bytes);
  to->set_descriptors(from.descriptors);
  to->set_watches(from.watches);
}

// Adds every number in `from` to its namesake, whatever fields there are.
void AddNumbers(const google::protobuf::Message& from,
                google::protobuf::Message* to) {
  using google::protobuf::FieldDescriptor;
  const auto* reflection = from.GetReflection();
  for (int i = 0; i < from.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = from.GetDescriptor()->field(i);
    if (field->is_repeated() ||
        field->cpp_type() != FieldDescriptor::CPPTYPE_UINT64) {
      continue;
    }
    reflection->SetUInt64(
        to, field,
        reflection->GetUInt64(*to, field) + reflection->GetUInt64(from, field));
  }
}

void AddWorker(const v1::WorkerStats& from, v1::WorkerStats* to) {
  AddNumbers(from.http(), to->mutable_http());
  if (from.has_queue()) {
    v1::QueueStats* queue = to->mutable_queue();
    const uint64_t high_water =
        std::max(queue->ring_high_water(), from.queue().ring_high_water());
    AddNumbers(from.queue(), queue);
    queue->set_ring_high_water(high_water);
    for (const auto& [name, count] : from.queue().operations()) {
      (*queue->mutable_operations())[name] += count;
    }
    AddNumbers(from.loop(), to->mutable_loop());
  }
  if (from.has_cache()) AddNumbers(from.cache(), to->mutable_cache());
  to->set_stale(to->stale() || from.stale());
  if (from.age() > to->age()) *to->mutable_age() = from.age();
}

void FillMetric(const stats::Registry::Metric& from, v1::Metric* to) {
  to->set_name(from.name);
  to->set_help(from.help);
  if (from.gauge) {
    to->set_gauge(from.gauge());
  } else if (!from.histograms.empty()) {
    stats::HistogramSnapshot sum;
    for (const stats::Histogram* h : from.histograms) sum.Add(h->snapshot());
    FillHistogram(sum, to->mutable_histogram());
  } else {
    uint64_t sum = 0;
    for (const stats::Counter* counter : from.counters) sum += counter->value();
    to->set_counter(sum);
  }
}

}  // namespace

void FillHistogram(const stats::HistogramSnapshot& snapshot,
                   v1::Histogram* to) {
  to->set_count(snapshot.count);
  to->set_sum_ns(snapshot.sum_ns);
  to->set_p50_ns(static_cast<uint64_t>(snapshot.PercentileNs(0.5)));
  to->set_p90_ns(static_cast<uint64_t>(snapshot.PercentileNs(0.9)));
  to->set_p99_ns(static_cast<uint64_t>(snapshot.PercentileNs(0.99)));
  to->set_p999_ns(static_cast<uint64_t>(snapshot.PercentileNs(0.999)));
  for (size_t i = 0; i < stats::HistogramSnapshot::kBuckets; ++i) {
    if (snapshot.counts[i] == 0) continue;
    v1::Histogram::Bucket* bucket = to->add_buckets();
    bucket->set_upper_ns(
        static_cast<uint64_t>(stats::HistogramSnapshot::UpperNs(i)));
    bucket->set_count(snapshot.counts[i]);
  }
}

void FillStats(const Target& target, const Sample& sample, int64_t start_ns,
               int64_t now_ns, v1::Stats* to) {
  timespec time;  // TimeUtil's current time has seconds only
  clock_gettime(CLOCK_REALTIME, &time);
  to->mutable_time()->set_seconds(time.tv_sec);
  to->mutable_time()->set_nanos(static_cast<int32_t>(time.tv_nsec));
  *to->mutable_uptime() = TimeUtil::NanosecondsToDuration(now_ns - start_ns);
  v1::WorkerStats* total = to->mutable_total();
  stats::HistogramSnapshot latencies;
  for (size_t i = 0; i < target.workers.size(); ++i) {
    v1::WorkerStats* worker = to->add_workers();
    worker->set_worker(static_cast<uint32_t>(i));
    if (const http::HttpServer* server = target.workers[i].server) {
      const stats::HttpCounters& counters = server->counters();
      FillHttp(counters, worker->mutable_http());
      const stats::HistogramSnapshot latency = counters.latency.snapshot();
      FillHistogram(latency, worker->mutable_latency());
      latencies.Add(latency);
    }
    const WorkerSample& own = sample[i];
    worker->set_stale(own.stale);
    if (own.at_ns != 0) {
      *worker->mutable_age() = TimeUtil::NanosecondsToDuration(
          std::max<int64_t>(now_ns - own.at_ns, 0));
      FillQueue(own.queue, worker->mutable_queue());
      FillLoop(own.loop, worker->mutable_loop());
      if (own.cache) FillCache(*own.cache, worker->mutable_cache());
    }
    AddWorker(*worker, total);
  }
  FillHistogram(latencies, total->mutable_latency());
  if (target.registry) {
    for (const auto& metric : target.registry->metrics()) {
      FillMetric(metric, to->add_metrics());
    }
  }
}

}  // namespace kevent::admin
