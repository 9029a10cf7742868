// SPDX-License-Identifier: Apache-2.0
#include "server/kevctl/format.h"

#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/time_util.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <vector>

#include "server/kevctl/table.h"

namespace kevent::kevctl {
namespace {

using google::protobuf::util::TimeUtil;

constexpr uint64_t kLongest = uint64_t{1} << 36;
// Nanoseconds. The bucket of the longest times has no upper end.

std::string Line(const char* name, const std::string& value) {
  char text[40];
  snprintf(text, sizeof text, "%-12s", name);
  return text + value + "\n";
}

std::string Uptime(const google::protobuf::Duration& uptime) {
  return Time(static_cast<uint64_t>(
      std::max<int64_t>(TimeUtil::DurationToNanoseconds(uptime), 0)));
}

// The rows of a table: each worker, and the total if there are several.
template <typename Fn>
void ForEach(const v1::Stats& stats, Fn fn) {
  for (const v1::WorkerStats& worker : stats.workers()) {
    fn(std::to_string(worker.worker()) + (worker.stale() ? " (stale)" : ""),
       worker);
  }
  if (stats.workers_size() > 1) fn("total", stats.total());
}

std::string Lower(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (c == '_') c = ' ';
  }
  return text;
}

google::protobuf::Timestamp Seconds(google::protobuf::Timestamp time) {
  time.set_nanos(0);
  return time;
}

// Local time of day.
std::string ClockTime(const google::protobuf::Timestamp& time) {
  const time_t seconds = time.seconds();
  tm local = {};
  localtime_r(&seconds, &local);
  char text[20];
  strftime(text, sizeof text, "%H:%M:%S", &local);
  return text;
}

uint64_t Since(uint64_t before, uint64_t now) {
  return now > before ? now - before : 0;
}

}  // namespace

std::string ToJson(const google::protobuf::Message& message, bool one_line) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = !one_line;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string text;
  if (!google::protobuf::util::MessageToJsonString(message, &text, options)
           .ok()) {
    return "{}\n";
  }
  if (text.empty() || text.back() != '\n') text += '\n';
  return text;
}

std::string Format(const v1::GetInfoResponse& info) {
  std::string text;
  text += Line("server", Printable(info.name() + " " + info.version()) +
                             ", pid " + std::to_string(info.pid()));
  text +=
      Line("state", info.state() == v1::GetInfoResponse::DRAINING ? "draining"
                                                                  : "serving");
  for (const std::string& address : info.addresses()) {
    text += Line("address", Printable(address));
  }
  text += Line("workers", std::to_string(info.workers()));
  text += Line("engine", Printable(info.engine_reason()));
  text += Line("kernel", Printable(info.kernel()));
  if (info.log_level() != v1::LOG_LEVEL_UNSPECIFIED) {
    text += Line("log level", Lower(v1::LogLevel_Name(info.log_level())));
  }
  text += Line("started", TimeUtil::ToString(info.start_time()));
  text += Line("uptime", Uptime(info.uptime()));
  if (!info.config_digest().empty()) {
    text += Line("config", Printable(info.config_digest()));
  }
  return text;
}

std::string Format(const v1::Stats& stats) {
  Table http({"worker", "open", "accepted", "requests", "2xx", "3xx", "4xx",
              "5xx", "sent", "aborted", "timeouts", "p50", "p99", "p99.9"});
  Table queue({"worker", "entries", "batches", "waits", "sleeps", "wakes",
               "operations", "inline", "in flight", "interests", "ring",
               "deferred", "cold", "cold time"});
  Table operations({"worker", "accept", "recv", "send", "sendfile", "connect",
                    "shutdown", "close", "post"});
  Table cache({"worker", "entries", "negative", "hits", "misses", "revalidated",
               "replaced", "invalidated", "evicted", "memory", "files",
               "watches"});
  bool any_cache = false;
  ForEach(stats, [&](const std::string& name, const v1::WorkerStats& w) {
    const v1::HttpStats& h = w.http();
    http.Add({name, Count(h.connections()), Count(h.accepted()),
              Count(h.requests()), Count(h.responses_2xx()),
              Count(h.responses_3xx()), Count(h.responses_4xx()),
              Count(h.responses_5xx()), Bytes(h.bytes_sent()),
              Count(h.aborted()), Count(h.timeouts()),
              Time(w.latency().p50_ns()), Time(w.latency().p99_ns()),
              Time(w.latency().p999_ns())});
    const v1::QueueStats& q = w.queue();
    queue.Add({name, Count(q.entries()), Count(q.enters()), Count(q.waits()),
               Count(q.sleeps()), Count(q.wakes()), Count(q.submitted()),
               Count(q.completed_inline()), Count(q.in_flight()),
               Count(q.interests()), Count(q.ring_high_water()),
               Count(q.overflow_deferred()), Count(q.cold_sendfiles()),
               Time(q.populate_ns())});
    std::vector<std::string> row = {name};
    for (const char* kind : {"accept", "recv", "send", "sendfile", "connect",
                             "shutdown", "close", "post"}) {
      const auto found = q.operations().find(kind);
      row.push_back(Count(found == q.operations().end() ? 0 : found->second));
    }
    operations.Add(std::move(row));
    if (!w.has_cache()) return;
    any_cache = true;
    const v1::FileCacheStats& c = w.cache();
    cache.Add({name, Count(c.entries()), Count(c.negative_entries()),
               Count(c.hits()), Count(c.misses()), Count(c.revalidations()),
               Count(c.replacements()), Count(c.invalidations()),
               Count(c.evictions()), Bytes(c.body_bytes()),
               Count(c.descriptors()), Count(c.watches())});
  });
  std::string text = "up " + Uptime(stats.uptime()) + "\n\nHTTP\n" +
                     http.ToString() + "\nEvent queues\n" + queue.ToString() +
                     "\nOperations\n" + operations.ToString();
  if (any_cache) text += "\nFile caches\n" + cache.ToString();
  if (stats.metrics_size() > 0) {
    text += "\nThe service's own\n";
    Table own({"name", "value"});
    for (const v1::Metric& metric : stats.metrics()) {
      std::string value;
      char number[40];
      switch (metric.value_case()) {
        case v1::Metric::kCounter:
          value = std::to_string(metric.counter());
          break;
        case v1::Metric::kGauge:
          snprintf(number, sizeof number, "%g", metric.gauge());
          value = number;
          break;
        case v1::Metric::kHistogram:
          value = std::to_string(metric.histogram().count()) + ", p50 " +
                  Time(metric.histogram().p50_ns()) + ", p99 " +
                  Time(metric.histogram().p99_ns());
          break;
        default:
          value = "-";
      }
      own.Add({Printable(metric.name()), value});
    }
    text += own.ToString();
  }
  return text;
}

std::string Format(const v1::ListConnectionsResponse& list) {
  Table table({"id", "worker", "peer", "state", "age", "fd", "response"});
  for (const v1::Connection& c : list.connections()) {
    std::string response;
    if (c.state() == v1::Connection::RESPONSE) {
      response =
          std::to_string(c.status()) + " " + c.method() + " " + c.target();
    }
    table.Add({Printable(c.id()), std::to_string(c.worker()),
               Printable(c.peer()),
               Lower(v1::Connection::State_Name(c.state())), Uptime(c.age()),
               std::to_string(c.fd()), Printable(response)});
  }
  return table.ToString();
}

std::string Format(const v1::CloseConnectionResponse&) { return "closed\n"; }

std::string Format(const v1::DrainResponse& drain) {
  if (drain.drained()) return "drained\n";
  return "draining, " + std::to_string(drain.connections()) +
         (drain.connections() == 1 ? " connection" : " connections") +
         " left\n";
}

std::string Format(const v1::UndrainResponse&) { return "serving\n"; }

std::string Format(const v1::SetLogLevelResponse& level) {
  return "was " + Lower(v1::LogLevel_Name(level.previous())) + "\n";
}

std::string Format(const v1::TailLogResponse& lines) {
  std::string text;
  if (lines.dropped() > 0) {
    text += "(" + std::to_string(lines.dropped()) + " lines lost)\n";
  }
  for (const v1::TailLogResponse::Line& line : lines.lines()) {
    // The log has escaped what is odd: it is not to be escaped twice.
    std::string clean;
    for (char c : line.text()) clean += c >= ' ' && c < 0x7f ? c : '?';
    if (line.source() == v1::TailLogRequest::ACCESS) {
      text += std::to_string(line.worker()) + " " + clean + "\n";
    } else {
      text += ClockTime(line.time()) + " " +
              Lower(v1::LogLevel_Name(line.level())) + " " + clean + "\n";
    }
  }
  return text;
}

std::string Format(const v1::ListCacheResponse& list) {
  Table table(
      {"worker", "kind", "size", "modified", "memory", "watched", "path"});
  for (const v1::CacheEntry& e : list.entries()) {
    const bool missing = e.kind() == v1::CacheEntry::MISSING;
    std::string path = Printable(e.path());
    if (missing) path += " (" + Printable(e.error()) + ")";
    table.Add({std::to_string(e.worker()),
               Lower(v1::CacheEntry::Kind_Name(e.kind())),
               missing ? "-" : Bytes(e.size()),
               missing ? "-" : TimeUtil::ToString(Seconds(e.modified())),
               e.in_memory() ? "yes" : "no", e.watched() ? "yes" : "no", path});
  }
  return table.ToString();
}

std::string Format(const v1::PurgeCacheResponse& purged) {
  return std::to_string(purged.dropped()) +
         (purged.dropped() == 1 ? " entry" : " entries") + " dropped\n";
}

std::string Format(const v1::ListQueuesResponse& list) {
  Table table({"worker", "engine", "interests", "in flight", "ring", "deferred",
               "turns", "entries", "posts", "timers"});
  for (const auto& queue : list.queues()) {
    table.Add(
        {std::to_string(queue.worker()) + (queue.stale() ? " (stale)" : ""),
         Printable(queue.engine()), Count(queue.stats().interests()),
         Count(queue.stats().in_flight()),
         Count(queue.stats().ring_high_water()),
         Count(queue.stats().overflow_deferred()), Count(queue.loop().turns()),
         Count(queue.loop().entries()), Count(queue.loop().posts()),
         Count(queue.loop().timers())});
  }
  return table.ToString();
}

std::string Format(const v1::ListInterestsResponse& list) {
  Table table({"id", "source", "what", "events", "flags"});
  for (const v1::Interest& i : list.interests()) {
    std::string what;
    switch (i.source()) {
      case v1::Interest::POLL:
        what = "fd " + std::to_string(i.fd()) + " " + i.file();
        break;
      case v1::Interest::SIGNAL:
        what = "signal " + std::to_string(i.signal());
        break;
      case v1::Interest::TIMER:
        what = i.interval().seconds() + i.interval().nanos() > 0
                   ? "every " + Uptime(i.interval())
                   : "once";
        break;
      default:
        break;
    }
    std::string flags;
    for (const std::string& flag : i.flags()) {
      flags += (flags.empty() ? "" : ",") + flag;
    }
    if (i.unread()) flags += flags.empty() ? "unread" : ",unread";
    char events[20];
    snprintf(events, sizeof events, "%#x", i.events());
    table.Add({Printable(i.id()), Lower(v1::Interest::Source_Name(i.source())),
               Printable(what), events, Printable(flags)});
  }
  return table.ToString();
}

std::string Format(const v1::GetConfigResponse& config) {
  std::string text;
  for (const v1::ConfigVersion& v : config.versions()) {
    text += "# version " + std::to_string(v.version()) + ", " +
            TimeUtil::ToString(Seconds(v.time())) + ", " +
            Printable(v.origin()) + ", " + Printable(v.digest().substr(0, 12)) +
            (v.version() == config.config().version() ? ": this one\n" : "\n");
  }
  // As it is, to be edited and applied again, but for what steers a terminal.
  for (char c : config.config().text()) {
    text += (c >= ' ' && c < 0x7f) || c == '\n' ? c : '?';
  }
  return text;
}

std::string Format(const v1::ValidateConfigResponse& check) {
  std::string fields;
  for (const std::string& field : check.needs_restart()) {
    fields += (fields.empty() ? "" : ", ") + Printable(field);
  }
  if (!fields.empty()) return "valid, after a restart (" + fields + ")\n";
  return check.changes() ? "valid\n" : "valid, and in force\n";
}

std::string Format(const v1::ApplyConfigResponse& applied) {
  return "version " + std::to_string(applied.version()) + " is in force\n";
}

std::string Format(const v1::RollbackConfigResponse& applied) {
  return "version " + std::to_string(applied.version()) + " is in force\n";
}

uint64_t Percentile(const v1::Histogram& before, const v1::Histogram& now,
                    double fraction) {
  std::map<uint64_t, uint64_t> counts;
  for (const auto& bucket : now.buckets()) {
    counts[bucket.upper_ns()] += bucket.count();
  }
  for (const auto& bucket : before.buckets()) {
    uint64_t& count = counts[bucket.upper_ns()];
    count = Since(bucket.count(), count);
  }
  uint64_t all = 0;
  for (const auto& [upper, count] : counts) all += count;
  const auto wanted =
      static_cast<uint64_t>(fraction * static_cast<double>(all));
  uint64_t seen = 0;
  for (const auto& [upper, count] : counts) {
    seen += count;
    if (seen > 0 && seen >= wanted) return std::min(upper, kLongest);
  }
  return 0;
}

Rates RatesOf(const v1::WorkerStats& before, const v1::WorkerStats& now,
              double seconds) {
  auto rate = [seconds](uint64_t b, uint64_t n) {
    return static_cast<double>(Since(b, n)) / seconds;
  };
  Rates r;
  r.requests = rate(before.http().requests(), now.http().requests());
  r.bytes = rate(before.http().bytes_sent(), now.http().bytes_sent());
  r.errors = rate(before.http().responses_5xx() + before.http().aborted(),
                  now.http().responses_5xx() + now.http().aborted());
  r.entries = rate(before.queue().entries(), now.queue().entries());
  r.wakes = rate(before.queue().wakes(), now.queue().wakes());
  r.p50_ns = Percentile(before.latency(), now.latency(), 0.5);
  r.p99_ns = Percentile(before.latency(), now.latency(), 0.99);
  return r;
}

double SecondsBetween(const v1::Stats& before, const v1::Stats& now) {
  const auto ns = static_cast<double>(
      TimeUtil::DurationToNanoseconds(now.uptime() - before.uptime()));
  return std::max(ns / 1e9, 1e-3);
}

std::string FormatTop(const v1::GetInfoResponse& info, const v1::Stats& before,
                      const v1::Stats& now) {
  const double seconds = SecondsBetween(before, now);
  std::string text = Printable(info.name()) + " " + Printable(info.version()) +
                     "  pid " + std::to_string(info.pid()) + "  engine " +
                     Printable(info.engine()) + "  up " + Uptime(now.uptime()) +
                     "  " + ClockTime(now.time()) + "\n\n";
  Table http({"worker", "requests/s", "sent/s", "errors/s", "open", "p50",
              "p99", "p99.9"});
  Table queue({"worker", "entries/s", "batches/s", "sleeps/s", "wakes/s",
               "entries/batch", "inline", "in flight", "interests", "ring",
               "cold/s", "cache hits"});
  auto add = [&](const std::string& name, const v1::WorkerStats& b,
                 const v1::WorkerStats& n) {
    const Rates r = RatesOf(b, n, seconds);
    auto rate = [seconds](uint64_t from, uint64_t to) {
      return static_cast<double>(Since(from, to)) / seconds;
    };
    auto whole = [](double value) {
      return Count(static_cast<uint64_t>(value + 0.5));
    };
    auto share = [](uint64_t part, uint64_t all) {
      return all == 0 ? std::string("-")
                      : std::to_string(part * 100 / all) + " %";
    };
    http.Add({name, whole(r.requests), Bytes(static_cast<uint64_t>(r.bytes)),
              whole(r.errors), Count(n.http().connections()), Time(r.p50_ns),
              Time(r.p99_ns),
              Time(Percentile(b.latency(), n.latency(), 0.999))});
    const v1::QueueStats& q = n.queue();
    const v1::QueueStats& p = b.queue();
    const uint64_t batches = Since(p.enters(), q.enters());
    char per_batch[20] = "-";
    if (batches > 0) {
      snprintf(per_batch, sizeof per_batch, "%.1f",
               static_cast<double>(Since(p.entries(), q.entries())) /
                   static_cast<double>(batches));
    }
    const uint64_t hits = Since(b.cache().hits(), n.cache().hits());
    const uint64_t lookups =
        hits + Since(b.cache().misses(), n.cache().misses()) +
        Since(b.cache().revalidations(), n.cache().revalidations());
    queue.Add({name, whole(r.entries), whole(rate(p.enters(), q.enters())),
               whole(rate(p.sleeps(), q.sleeps())), whole(r.wakes), per_batch,
               share(Since(p.completed_inline(), q.completed_inline()),
                     Since(p.submitted(), q.submitted())),
               Count(q.in_flight()), Count(q.interests()),
               Count(q.ring_high_water()),
               whole(rate(p.cold_sendfiles(), q.cold_sendfiles())),
               share(hits, lookups)});
  };
  for (int i = 0; i < now.workers_size() && i < before.workers_size(); ++i) {
    const v1::WorkerStats& worker = now.workers(i);
    add(std::to_string(worker.worker()) + (worker.stale() ? " (stale)" : ""),
        before.workers(i), worker);
  }
  if (now.workers_size() > 1) add("total", before.total(), now.total());
  return text + http.ToString() + "\n" + queue.ToString();
}

std::string RatesHead() {
  char text[200];
  snprintf(text, sizeof text, "%8s %10s %12s %8s %9s %10s %10s %10s\n", "time",
           "requests/s", "sent/s", "errors/s", "open", "p50", "p99",
           "entries/s");
  return text;
}

std::string FormatRates(const v1::Stats& before, const v1::Stats& now) {
  const Rates r =
      RatesOf(before.total(), now.total(), SecondsBetween(before, now));
  char text[200];
  snprintf(text, sizeof text, "%8s %10.0f %12s %8.0f %9llu %10s %10s %10.0f\n",
           ClockTime(now.time()).c_str(), r.requests,
           Bytes(static_cast<uint64_t>(r.bytes)).c_str(), r.errors,
           static_cast<unsigned long long>(now.total().http().connections()),
           Time(r.p50_ns).c_str(), Time(r.p99_ns).c_str(), r.entries);
  return text;
}

}  // namespace kevent::kevctl
