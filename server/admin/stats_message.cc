// SPDX-License-Identifier: Apache-2.0
#include "server/admin/stats_message.h"

#include <google/protobuf/io/coded_stream.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <optional>
#include <string_view>

namespace kevent::admin {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

constexpr std::array<const char*, kOpcodes> kOpcodeNames = {
    "accept",   "connect",  "recv",  "send",
    "sendfile", "shutdown", "close", "post"};
// In the order of Opcode.
static_assert(static_cast<size_t>(Opcode::kPost) == kOpcodes - 1);

// https://protobuf.dev/programming-guides/encoding
class Writer {
 public:
  explicit Writer(std::string* to) : to_(to) {}

  // Fields that hold their default are left out, but for those of a oneof.
  void Number(int field, uint64_t value) {
    if (value != 0) NumberOfOneof(field, value);
  }
  void NumberOfOneof(int field, uint64_t value) {
    Tag(field, kVarint);
    Varint(value);
  }
  void DoubleOfOneof(int field, double value) {
    Tag(field, kFixed64);
    const auto bits = std::bit_cast<uint64_t>(value);
    for (int i = 0; i < 8; ++i) {
      to_->push_back(static_cast<char>(bits >> (8 * i)));
    }
  }
  void Text(int field, std::string_view text) {
    Tag(field, kLengthDelimited);
    Varint(text.size());
    to_->append(text);
  }
  // What `fill` writes is its content.
  template <typename Fn>
  void Message(int field, Fn fill) {
    Tag(field, kLengthDelimited);
    const size_t begin = to_->size();
    fill();
    uint8_t length[kVarintBytes];
    const uint8_t* end =
        Coded::WriteVarint64ToArray(to_->size() - begin, length);
    to_->insert(begin, reinterpret_cast<const char*>(length),
                static_cast<size_t>(end - length));
  }
  // A Timestamp or a Duration, which are alike.
  void Time(int field, int64_t seconds, int64_t nanos) {
    Message(field, [&] {
      Number(1, static_cast<uint64_t>(seconds));
      Number(2, static_cast<uint64_t>(nanos));
    });
  }
  void Nanoseconds(int field, int64_t ns) {
    Time(field, ns / kSecond, ns % kSecond);
  }
  // Numbers by the number of their field.
  template <size_t kSize>
  void Numbers(const std::array<uint64_t, kSize>& values) {
    for (size_t i = 1; i < kSize; ++i) Number(static_cast<int>(i), values[i]);
  }

 private:
  using Coded = google::protobuf::io::CodedOutputStream;
  static constexpr size_t kVarintBytes = 10;
  static constexpr uint32_t kVarint = 0;
  static constexpr uint32_t kFixed64 = 1;
  static constexpr uint32_t kLengthDelimited = 2;

  void Tag(int field, uint32_t type) {
    Varint(static_cast<uint32_t>(field) << 3 | type);
  }
  void Varint(uint64_t value) {
    uint8_t bytes[kVarintBytes];
    const uint8_t* end = Coded::WriteVarint64ToArray(value, bytes);
    to_->append(reinterpret_cast<const char*>(bytes),
                static_cast<size_t>(end - bytes));
  }

  std::string* const to_;
};

using Http = std::array<uint64_t, v1::HttpStats::kTimeoutsFieldNumber + 1>;
using Queues = std::array<uint64_t, v1::QueueStats::kPopulateNsFieldNumber + 1>;
using Loops = std::array<uint64_t, v1::LoopStats::kPostsFieldNumber + 1>;
using Caches =
    std::array<uint64_t, v1::FileCacheStats::kWatchesFieldNumber + 1>;
// By the number of the field.

struct Figures {
  Http http = {};
  std::optional<stats::HistogramSnapshot> latency;
  bool asked = false;  // there are figures of the loop's own
  bool stale = false;
  int64_t age_ns = 0;
  Queues queue = {};
  std::array<uint64_t, kOpcodes> operations = {};
  Loops loop = {};
  std::optional<Caches> cache;

  void Add(const Figures& other);
};
// Of a worker, or of all.

template <size_t kSize>
void AddNumbers(const std::array<uint64_t, kSize>& from,
                std::array<uint64_t, kSize>* to) {
  for (size_t i = 0; i < kSize; ++i) (*to)[i] += from[i];
}

void Figures::Add(const Figures& other) {
  AddNumbers(other.http, &http);
  if (other.latency) {
    if (!latency) latency.emplace();
    latency->Add(*other.latency);
  }
  asked = asked || other.asked;
  stale = stale || other.stale;
  age_ns = std::max(age_ns, other.age_ns);
  constexpr int kHighWater = v1::QueueStats::kRingHighWaterFieldNumber;
  const uint64_t high_water =
      std::max(queue[kHighWater], other.queue[kHighWater]);
  AddNumbers(other.queue, &queue);
  queue[kHighWater] = high_water;
  AddNumbers(other.operations, &operations);
  AddNumbers(other.loop, &loop);
  if (other.cache) {
    if (!cache) cache.emplace();
    AddNumbers(*other.cache, &*cache);
  }
}

Http Of(const stats::HttpCounters& from) {
  using H = v1::HttpStats;
  Http to = {};
  to[H::kAcceptedFieldNumber] = from.accepted.value();
  to[H::kConnectionsFieldNumber] = from.connections.value();
  to[H::kAcceptFailuresFieldNumber] = from.accept_failures.value();
  to[H::kRequestsFieldNumber] = from.requests.value();
  to[H::kResponsesOtherFieldNumber] = from.by_class[0].value();
  to[H::kResponses1XxFieldNumber] = from.by_class[1].value();
  to[H::kResponses2XxFieldNumber] = from.by_class[2].value();
  to[H::kResponses3XxFieldNumber] = from.by_class[3].value();
  to[H::kResponses4XxFieldNumber] = from.by_class[4].value();
  to[H::kResponses5XxFieldNumber] = from.by_class[5].value();
  to[H::kBytesSentFieldNumber] = from.bytes_sent.value();
  to[H::kAbortedFieldNumber] = from.aborted.value();
  to[H::kTimeoutsFieldNumber] = from.timeouts.value();
  return to;
}

Queues Of(const Queue::Stats& from) {
  using Q = v1::QueueStats;
  Queues to = {};
  to[Q::kEntriesFieldNumber] = from.entries;
  to[Q::kEntersFieldNumber] = from.enters;
  to[Q::kWaitsFieldNumber] = from.waits;
  to[Q::kSleepsFieldNumber] = from.sleeps;
  to[Q::kWakesFieldNumber] = from.wakes;
  to[Q::kSubmittedFieldNumber] = from.submitted;
  to[Q::kCompletedInlineFieldNumber] = from.completed_inline;
  to[Q::kInFlightFieldNumber] = from.operations;
  to[Q::kInterestsFieldNumber] = from.interests;
  to[Q::kRingHighWaterFieldNumber] = from.ring_high_water;
  to[Q::kOverflowDeferredFieldNumber] = from.overflow_deferred;
  to[Q::kColdSendfilesFieldNumber] = from.cold_sendfiles;
  to[Q::kPopulateNsFieldNumber] = from.populate_ns;
  return to;
}

Loops Of(const loop::Loop::Stats& from) {
  using L = v1::LoopStats;
  Loops to = {};
  to[L::kTurnsFieldNumber] = from.turns;
  to[L::kEntriesFieldNumber] = from.entries;
  to[L::kTimersFieldNumber] = from.timers;
  to[L::kPostsFieldNumber] = from.posts;
  return to;
}

Caches Of(const files::FileCache::Stats& from) {
  using C = v1::FileCacheStats;
  Caches to = {};
  to[C::kEntriesFieldNumber] = from.entries;
  to[C::kNegativeEntriesFieldNumber] = from.negative_entries;
  to[C::kHitsFieldNumber] = from.hits;
  to[C::kMissesFieldNumber] = from.misses;
  to[C::kRevalidationsFieldNumber] = from.revalidations;
  to[C::kReplacementsFieldNumber] = from.replacements;
  to[C::kInvalidationsFieldNumber] = from.invalidations;
  to[C::kEvictionsFieldNumber] = from.evictions;
  to[C::kBodyBytesFieldNumber] = from.body_bytes;
  to[C::kDescriptorsFieldNumber] = from.descriptors;
  to[C::kWatchesFieldNumber] = from.watches;
  return to;
}

Figures Of(const Worker& worker, const WorkerSample& own, int64_t now_ns) {
  Figures to;
  if (worker.server) {
    const stats::HttpCounters& counters = worker.server->counters();
    to.http = Of(counters);
    to.latency = counters.latency.snapshot();
  }
  to.stale = own.stale;
  if (own.at_ns == 0) return to;
  to.asked = true;
  to.age_ns = std::max<int64_t>(now_ns - own.at_ns, 0);
  to.queue = Of(own.queue);
  to.operations = own.queue.submitted_by_opcode;
  to.loop = Of(own.loop);
  if (own.cache) to.cache = Of(*own.cache);
  return to;
}

void WriteHistogram(const stats::HistogramSnapshot& snapshot, Writer* to) {
  using H = v1::Histogram;
  const auto percentile = [&](int field, double fraction) {
    to->Number(field, static_cast<uint64_t>(snapshot.PercentileNs(fraction)));
  };
  to->Number(H::kCountFieldNumber, snapshot.count);
  to->Number(H::kSumNsFieldNumber, snapshot.sum_ns);
  percentile(H::kP50NsFieldNumber, 0.5);
  percentile(H::kP90NsFieldNumber, 0.9);
  percentile(H::kP99NsFieldNumber, 0.99);
  percentile(H::kP999NsFieldNumber, 0.999);
  for (size_t i = 0; i < stats::HistogramSnapshot::kBuckets; ++i) {
    if (snapshot.counts[i] == 0) continue;
    to->Message(H::kBucketsFieldNumber, [&] {
      to->Number(H::Bucket::kUpperNsFieldNumber,
                 static_cast<uint64_t>(stats::HistogramSnapshot::UpperNs(i)));
      to->Number(H::Bucket::kCountFieldNumber, snapshot.counts[i]);
    });
  }
}

void WriteFigures(uint32_t number, const Figures& from, Writer* to) {
  using W = v1::WorkerStats;
  using Q = v1::QueueStats;
  to->Number(W::kWorkerFieldNumber, number);
  to->Message(W::kHttpFieldNumber, [&] { to->Numbers(from.http); });
  if (from.latency) {
    to->Message(W::kLatencyFieldNumber,
                [&] { WriteHistogram(*from.latency, to); });
  }
  to->Number(W::kStaleFieldNumber, from.stale ? 1 : 0);
  if (!from.asked) return;
  to->Nanoseconds(W::kAgeFieldNumber, from.age_ns);
  to->Message(W::kQueueFieldNumber, [&] {
    to->Numbers(from.queue);
    for (size_t i = 0; i < kOpcodes; ++i) {
      to->Message(Q::kOperationsFieldNumber, [&] {
        // An entry of a map: the key, and the value.
        to->Text(1, kOpcodeNames[i]);
        to->Number(2, from.operations[i]);
      });
    }
  });
  to->Message(W::kLoopFieldNumber, [&] { to->Numbers(from.loop); });
  if (from.cache) {
    to->Message(W::kCacheFieldNumber, [&] { to->Numbers(*from.cache); });
  }
}

void WriteMetric(const stats::Registry::Metric& from, Writer* to) {
  using M = v1::Metric;
  to->Text(M::kNameFieldNumber, from.name);
  to->Text(M::kHelpFieldNumber, from.help);
  if (from.gauge) {
    to->DoubleOfOneof(M::kGaugeFieldNumber, from.gauge());
  } else if (!from.histograms.empty()) {
    stats::HistogramSnapshot sum;
    for (const stats::Histogram* h : from.histograms) sum.Add(h->snapshot());
    to->Message(M::kHistogramFieldNumber, [&] { WriteHistogram(sum, to); });
  } else {
    uint64_t sum = 0;
    for (const stats::Counter* counter : from.counters) sum += counter->value();
    to->NumberOfOneof(M::kCounterFieldNumber, sum);
  }
}

}  // namespace

void EncodeStats(const Target& target, const Sample& sample, int64_t start_ns,
                 int64_t now_ns, std::string* to) {
  using S = v1::Stats;
  to->clear();
  Writer writer(to);
  timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  writer.Time(S::kTimeFieldNumber, time.tv_sec, time.tv_nsec);
  writer.Nanoseconds(S::kUptimeFieldNumber, now_ns - start_ns);
  Figures total;
  total.latency.emplace();
  for (size_t i = 0; i < target.workers.size(); ++i) {
    const Figures worker = Of(target.workers[i], sample[i], now_ns);
    writer.Message(S::kWorkersFieldNumber, [&] {
      WriteFigures(static_cast<uint32_t>(i), worker, &writer);
    });
    total.Add(worker);
  }
  writer.Message(S::kTotalFieldNumber,
                 [&] { WriteFigures(0, total, &writer); });
  if (!target.registry) return;
  for (const auto& metric : target.registry->metrics()) {
    writer.Message(S::kMetricsFieldNumber,
                   [&] { WriteMetric(metric, &writer); });
  }
}

void FillStats(const Target& target, const Sample& sample, int64_t start_ns,
               int64_t now_ns, v1::Stats* to) {
  std::string bytes;
  EncodeStats(target, sample, start_ns, now_ns, &bytes);
  to->ParseFromString(bytes);
}

void FillHistogram(const stats::HistogramSnapshot& snapshot,
                   v1::Histogram* to) {
  std::string bytes;
  Writer writer(&bytes);
  WriteHistogram(snapshot, &writer);
  to->ParseFromString(bytes);
}

}  // namespace kevent::admin
