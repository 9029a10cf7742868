// SPDX-License-Identifier: Apache-2.0
#include "server/admin/metrics.h"

#include <google/protobuf/util/time_util.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/admin/stats_message.h"
#include "server/stats/histogram.h"

namespace kevent::admin {
namespace {

using google::protobuf::util::TimeUtil;
using testing::HasSubstr;
using testing::Not;

v1::Stats Example() {
  v1::Stats stats;
  *stats.mutable_uptime() = TimeUtil::MillisecondsToDuration(1500);
  for (uint32_t i = 0; i < 2; ++i) {
    v1::WorkerStats* worker = stats.add_workers();
    worker->set_worker(i);
    worker->mutable_http()->set_responses_2xx(10 + i);
    worker->mutable_queue()->set_populate_ns(2'500'000'000);
    (*worker->mutable_queue()->mutable_operations())["send"] = 5;
    worker->mutable_cache()->set_hits(7);
    stats::Histogram latency;
    for (int64_t ns : {500, 3'000, 5'000, 900'000}) latency.Record(ns);
    latency.Record(INT64_MAX / 4);
    FillHistogram(latency.snapshot(), worker->mutable_latency());
  }
  stats.mutable_workers(1)->set_stale(true);
  stats.mutable_total()->mutable_cache();
  v1::Metric* own = stats.add_metrics();
  own->set_name("orders_total");
  own->set_help("Orders \\ with a\nnewline.");
  own->set_counter(3);
  own = stats.add_metrics();
  own->set_name("depth");
  own->set_help("Depth.");
  own->set_gauge(2.5);
  return stats;
}

TEST(MetricsTest, HasWhatWasCounted) {
  const std::string text = MetricsText(Example(), true);
  for (const char* line :
       {"# TYPE kevent_http_responses_total counter\n",
        "kevent_http_responses_total{worker=\"0\",class=\"2xx\"} 10\n",
        "kevent_http_responses_total{worker=\"1\",class=\"2xx\"} 11\n",
        "# TYPE kevent_http_response_duration_seconds histogram\n",
        "kevent_http_response_duration_seconds_count{worker=\"0\"} 5\n",
        "kevent_queue_operations_total{worker=\"1\",kind=\"send\"} 5\n",
        "kevent_queue_populate_seconds_total{worker=\"0\"} 2.5\n",
        "kevent_worker_stale{worker=\"0\"} 0\n",
        "kevent_worker_stale{worker=\"1\"} 1\n",
        "kevent_cache_hits_total{worker=\"0\"} 7\n", "kevent_draining 1\n",
        "kevent_uptime_seconds 1.5\n", "orders_total 3\n", "depth 2.5\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(text, HasSubstr("# HELP orders_total Orders \\\\ with a\\nnew"));
}

TEST(MetricsTest, WithoutACacheItHasNone) {
  v1::Stats stats = Example();
  stats.mutable_total()->clear_cache();
  EXPECT_THAT(MetricsText(stats, false), Not(HasSubstr("kevent_cache")));
}

// Buckets are cumulative, in order, and end with everything.
TEST(MetricsTest, HistogramsAreWellFormed) {
  std::istringstream text(MetricsText(Example(), false));
  std::string line;
  double last_bound = -1;
  double last_count = -1;
  int buckets = 0;
  const std::string prefix =
      "kevent_http_response_duration_seconds_bucket{worker=\"0\",le=\"";
  std::map<double, double> counts;
  while (std::getline(text, line)) {
    if (!line.starts_with(prefix)) continue;
    const double bound = std::strtod(line.c_str() + prefix.size(), nullptr);
    const double count = std::strtod(line.c_str() + line.rfind(' '), nullptr);
    EXPECT_GT(bound, last_bound);
    EXPECT_GE(count, last_count);
    last_bound = bound;
    last_count = count;
    counts[bound] = count;
    ++buckets;
  }
  EXPECT_EQ(buckets, 26);
  EXPECT_EQ(last_count, 5);
  EXPECT_GT(last_bound, 1e300) << "+Inf";
  // 500 ns and 3 us lie below 4.096 us, 5 us below 8.192 us.
  EXPECT_EQ(counts.lower_bound(4e-6)->second, 2);
  EXPECT_EQ(counts.lower_bound(8e-6)->second, 3);
}

// By Prometheus' own tool, where it is installed.
TEST(MetricsTest, PromtoolFindsNothing) {
  if (system("command -v promtool >/dev/null") != 0) {
    GTEST_SKIP() << "promtool is not here: it comes with Debian's prometheus";
  }
  v1::Stats stats = Example();
  const std::string path = testing::TempDir() + "/metrics.txt";
  std::ofstream(path) << MetricsText(stats, false);
  EXPECT_EQ(system(("promtool check metrics < " + path).c_str()), 0);
}

}  // namespace
}  // namespace kevent::admin
