// SPDX-License-Identifier: Apache-2.0
#include "server/admin/metrics.h"

#include <google/protobuf/util/time_util.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "server/stats/histogram.h"

namespace kevent::admin {
namespace {

using google::protobuf::util::TimeUtil;
using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

constexpr double kNs = 1e-9;

// The library leaves that to us.
std::string EscapeHelp(const std::string& help) {
  std::string text;
  for (char c : help) {
    if (c == '\n') {
      text += "\\n";
    } else if (c == '\\') {
      text += "\\\\";
    } else {
      text += c;
    }
  }
  return text;
}

class Families {
 public:
  explicit Families(const v1::Stats& stats) : stats_(stats) {}

  template <typename Get>
  void ForWorkers(const char* name, const char* help, MetricType type,
                  Get get) {
    MetricFamily& family = Add(name, help, type);
    for (const v1::WorkerStats& worker : stats_.workers()) {
      Put(&family, {{"worker", std::to_string(worker.worker())}}, get(worker));
    }
  }

  MetricFamily& Add(const char* name, const char* help, MetricType type) {
    MetricFamily& family = families_.emplace_back();
    family.name = name;
    family.help = help;
    family.type = type;
    return family;
  }

  static void Put(MetricFamily* family, Labels labels, double value) {
    ClientMetric& metric = family->metric.emplace_back();
    metric.label = std::move(labels);
    if (family->type == MetricType::Counter) {
      metric.counter.value = value;
    } else {
      metric.gauge.value = value;
    }
  }

  static void Put(MetricFamily* family, Labels labels,
                  const v1::Histogram& histogram) {
    using stats::HistogramSnapshot;
    ClientMetric& metric = family->metric.emplace_back();
    metric.label = std::move(labels);
    metric.histogram.sample_count = histogram.count();
    metric.histogram.sample_sum = static_cast<double>(histogram.sum_ns()) * kNs;
    uint64_t count = 0;
    int next = 0;
    // Four buckets of ours make one.
    for (size_t i = 3; i + 1 < HistogramSnapshot::kBuckets; i += 4) {
      const auto upper = static_cast<uint64_t>(HistogramSnapshot::UpperNs(i));
      while (next < histogram.buckets_size() &&
             histogram.buckets(next).upper_ns() <= upper) {
        count += histogram.buckets(next++).count();
      }
      metric.histogram.bucket.push_back(
          {count, static_cast<double>(upper) * kNs});
    }
    metric.histogram.bucket.push_back(
        {histogram.count(), std::numeric_limits<double>::infinity()});
  }

  std::string ToString() const {
    return prometheus::TextSerializer().Serialize(families_);
  }

 private:
  const v1::Stats& stats_;
  std::vector<MetricFamily> families_;
};

constexpr MetricType kCounter = MetricType::Counter;
constexpr MetricType kGauge = MetricType::Gauge;

void AddHttp(const v1::Stats& stats, Families* all) {
  using W = v1::WorkerStats;
  MetricFamily& responses = all->Add("kevent_http_responses_total",
                                     "Responses by class of status.", kCounter);
  for (const W& worker : stats.workers()) {
    const v1::HttpStats& http = worker.http();
    for (auto [name, count] : {std::pair{"1xx", http.responses_1xx()},
                               {"2xx", http.responses_2xx()},
                               {"3xx", http.responses_3xx()},
                               {"4xx", http.responses_4xx()},
                               {"5xx", http.responses_5xx()},
                               {"other", http.responses_other()}}) {
      Families::Put(
          &responses,
          {{"worker", std::to_string(worker.worker())}, {"class", name}},
          static_cast<double>(count));
    }
  }
  MetricFamily& latency = all->Add(
      "kevent_http_response_duration_seconds",
      "From the last byte of a request's head until all of its response was "
      "handed to the kernel.",
      MetricType::Histogram);
  for (const W& worker : stats.workers()) {
    Families::Put(&latency, {{"worker", std::to_string(worker.worker())}},
                  worker.latency());
  }
  all->ForWorkers("kevent_http_sent_bytes_total",
                  "Bytes of responses, their heads included.", kCounter,
                  [](const W& w) { return w.http().bytes_sent(); });
  all->ForWorkers("kevent_http_responses_aborted_total",
                  "Responses that did not go out whole.", kCounter,
                  [](const W& w) { return w.http().aborted(); });
  all->ForWorkers("kevent_http_connections", "Connections open now.", kGauge,
                  [](const W& w) { return w.http().connections(); });
  all->ForWorkers("kevent_http_connections_accepted_total",
                  "Connections accepted.", kCounter,
                  [](const W& w) { return w.http().accepted(); });
  all->ForWorkers("kevent_http_connections_timed_out_total",
                  "Connections that a time-out ended.", kCounter,
                  [](const W& w) { return w.http().timeouts(); });
  all->ForWorkers("kevent_http_accept_failures_total",
                  "Times that accepting had to pause.", kCounter,
                  [](const W& w) { return w.http().accept_failures(); });
}

void AddQueue(const v1::Stats& stats, Families* all) {
  using W = v1::WorkerStats;
  all->ForWorkers("kevent_worker_stale",
                  "1 if the loop did not answer in time: its queue, loop and "
                  "cache are shown as they were.",
                  kGauge, [](const W& w) { return w.stale() ? 1.0 : 0.0; });
  all->ForWorkers("kevent_queue_entries_total", "Entries taken.", kCounter,
                  [](const W& w) { return w.queue().entries(); });
  all->ForWorkers("kevent_queue_batches_total", "Calls that took entries.",
                  kCounter, [](const W& w) { return w.queue().enters(); });
  all->ForWorkers("kevent_queue_waits_total",
                  "System calls that looked for events.", kCounter,
                  [](const W& w) { return w.queue().waits(); });
  all->ForWorkers("kevent_queue_sleeps_total",
                  "Of the waits, those that were allowed to sleep.", kCounter,
                  [](const W& w) { return w.queue().sleeps(); });
  all->ForWorkers("kevent_queue_wakes_total",
                  "Waits that another thread's post cut short.", kCounter,
                  [](const W& w) { return w.queue().wakes(); });
  MetricFamily& operations = all->Add("kevent_queue_operations_total",
                                      "Operations by kind.", kCounter);
  for (const W& worker : stats.workers()) {
    for (const auto& [kind, count] : worker.queue().operations()) {
      Families::Put(
          &operations,
          {{"worker", std::to_string(worker.worker())}, {"kind", kind}},
          static_cast<double>(count));
    }
  }
  all->ForWorkers("kevent_queue_operations_inline_total",
                  "Operations done within the call that submitted them.",
                  kCounter,
                  [](const W& w) { return w.queue().completed_inline(); });
  all->ForWorkers("kevent_queue_in_flight", "Operations in flight now.", kGauge,
                  [](const W& w) { return w.queue().in_flight(); });
  all->ForWorkers("kevent_queue_interests", "Interests now.", kGauge,
                  [](const W& w) { return w.queue().interests(); });
  all->ForWorkers("kevent_queue_ring_high_water",
                  "Most entries that stood in the ring.", kGauge,
                  [](const W& w) { return w.queue().ring_high_water(); });
  all->ForWorkers("kevent_queue_deferred_total",
                  "Entries that found the ring full.", kCounter,
                  [](const W& w) { return w.queue().overflow_deferred(); });
  all->ForWorkers("kevent_queue_cold_sendfiles_total",
                  "Pieces of files that were read off the loop.", kCounter,
                  [](const W& w) { return w.queue().cold_sendfiles(); });
  all->ForWorkers("kevent_queue_populate_seconds_total",
                  "How long reading them took, added up.", kCounter,
                  [](const W& w) {
                    return static_cast<double>(w.queue().populate_ns()) * kNs;
                  });
  all->ForWorkers("kevent_loop_turns_total", "Turns of the loop.", kCounter,
                  [](const W& w) { return w.loop().turns(); });
}

void AddCache(const v1::Stats& stats, Families* all) {
  using W = v1::WorkerStats;
  if (!stats.total().has_cache()) return;
  all->ForWorkers("kevent_cache_entries", "Files and directories now.", kGauge,
                  [](const W& w) { return w.cache().entries(); });
  all->ForWorkers("kevent_cache_hits_total",
                  "Lookups answered with no system call.", kCounter,
                  [](const W& w) { return w.cache().hits(); });
  all->ForWorkers("kevent_cache_misses_total", "Lookups of what was not there.",
                  kCounter, [](const W& w) { return w.cache().misses(); });
  all->ForWorkers("kevent_cache_revalidations_total",
                  "Entries that were looked up again.", kCounter,
                  [](const W& w) { return w.cache().revalidations(); });
  all->ForWorkers("kevent_cache_evictions_total",
                  "Entries dropped for want of room.", kCounter,
                  [](const W& w) { return w.cache().evictions(); });
  all->ForWorkers("kevent_cache_memory_bytes",
                  "Memory of files kept in memory.", kGauge,
                  [](const W& w) { return w.cache().body_bytes(); });
  all->ForWorkers("kevent_cache_descriptors", "Files held open.", kGauge,
                  [](const W& w) { return w.cache().descriptors(); });
}

void AddOwn(const v1::Stats& stats, Families* all) {
  for (const v1::Metric& metric : stats.metrics()) {
    switch (metric.value_case()) {
      case v1::Metric::kCounter:
        Families::Put(&all->Add(metric.name().c_str(),
                                EscapeHelp(metric.help()).c_str(), kCounter),
                      {}, static_cast<double>(metric.counter()));
        break;
      case v1::Metric::kGauge:
        Families::Put(&all->Add(metric.name().c_str(),
                                EscapeHelp(metric.help()).c_str(), kGauge),
                      {}, metric.gauge());
        break;
      case v1::Metric::kHistogram:
        Families::Put(
            &all->Add(metric.name().c_str(), EscapeHelp(metric.help()).c_str(),
                      MetricType::Histogram),
            {}, metric.histogram());
        break;
      default:
        break;
    }
  }
}

}  // namespace

std::string MetricsText(const v1::Stats& stats, bool draining) {
  Families all(stats);
  Families::Put(
      &all.Add("kevent_uptime_seconds", "Since the start.", kGauge), {},
      static_cast<double>(TimeUtil::DurationToMilliseconds(stats.uptime())) *
          1e-3);
  Families::Put(
      &all.Add("kevent_draining", "1 while it is out of service.", kGauge), {},
      draining ? 1.0 : 0.0);
  AddHttp(stats, &all);
  AddQueue(stats, &all);
  AddCache(stats, &all);
  AddOwn(stats, &all);
  return all.ToString();
}

}  // namespace kevent::admin
