// SPDX-License-Identifier: Apache-2.0
#include "server/kevctl/format.h"

#include <google/protobuf/util/time_util.h>

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kevent::kevctl {
namespace {

using google::protobuf::util::TimeUtil;
using testing::HasSubstr;
using testing::Not;

v1::Histogram Histogram(
    std::initializer_list<std::pair<uint64_t, uint64_t>> buckets) {
  v1::Histogram h;
  for (auto [upper, count] : buckets) {
    auto* bucket = h.add_buckets();
    bucket->set_upper_ns(upper);
    bucket->set_count(count);
  }
  return h;
}

TEST(FormatTest, PercentileOfWhatCameBetween) {
  const v1::Histogram before = Histogram({{1000, 1'000'000}, {5000, 10}});
  const v1::Histogram now =
      Histogram({{1000, 1'000'000}, {5000, 100}, {9000, 10}});
  EXPECT_EQ(Percentile(before, now, 0.5), 5000u);
  EXPECT_EQ(Percentile(before, now, 0.99), 9000u);
  EXPECT_EQ(Percentile({}, now, 0.5), 1000u);
  EXPECT_EQ(Percentile(now, now, 0.5), 0u);
  EXPECT_EQ(Percentile({}, {}, 0.99), 0u);
  EXPECT_LT(Percentile({}, Histogram({{INT64_MAX, 1}}), 0.5),
            uint64_t{100} * 1'000'000'000);
}

TEST(FormatTest, RatesAreDifferences) {
  v1::WorkerStats before;
  v1::WorkerStats now;
  before.mutable_http()->set_requests(100);
  now.mutable_http()->set_requests(300);
  before.mutable_http()->set_bytes_sent(1000);
  now.mutable_http()->set_bytes_sent(5000);
  now.mutable_http()->set_responses_5xx(2);
  now.mutable_http()->set_aborted(4);
  const Rates rates = RatesOf(before, now, 2.0);
  EXPECT_EQ(rates.requests, 100.0);
  EXPECT_EQ(rates.bytes, 2000.0);
  EXPECT_EQ(rates.errors, 3.0);
  EXPECT_EQ(RatesOf(now, before, 1.0).requests, 0.0) << "it began anew";
}

TEST(FormatTest, RatesOfAServersTime) {
  v1::Stats before;
  v1::Stats now;
  *before.mutable_uptime() = TimeUtil::MillisecondsToDuration(1000);
  *now.mutable_uptime() = TimeUtil::MillisecondsToDuration(1500);
  EXPECT_EQ(SecondsBetween(before, now), 0.5);
  EXPECT_GT(SecondsBetween(now, before), 0.0);
  now.mutable_total()->mutable_http()->set_requests(50);
  EXPECT_THAT(FormatRates(before, now), HasSubstr(" 100 "));
}

TEST(FormatTest, TopShowsRatesOfEachWorker) {
  v1::GetInfoResponse info;
  info.set_name("keventd");
  info.set_engine("uring");
  v1::Stats before;
  v1::Stats now;
  *now.mutable_uptime() = TimeUtil::SecondsToDuration(2);
  for (uint32_t i = 0; i < 2; ++i) {
    before.add_workers()->set_worker(i);
    v1::WorkerStats* worker = now.add_workers();
    worker->set_worker(i);
    worker->mutable_http()->set_requests(1000 * (i + 1));
    worker->mutable_queue()->set_submitted(10);
    worker->mutable_queue()->set_completed_inline(7);
    worker->mutable_cache()->set_hits(3);
    worker->mutable_cache()->set_misses(1);
  }
  now.mutable_total()->mutable_http()->set_requests(3000);
  const std::string text = FormatTop(info, before, now);
  for (const char* part : {"keventd", "engine uring", " 500 ", " 1000 ",
                           " 1500 ", "total", "70 %", "75 %", "p99.9"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
}

TEST(FormatTest, StatsShowEveryWorkerAndTheTotal) {
  v1::Stats stats;
  for (uint32_t i = 0; i < 2; ++i) {
    auto* worker = stats.add_workers();
    worker->set_worker(i);
    worker->mutable_http()->set_requests(1000 + i);
    worker->mutable_queue()->set_interests(77 + i);
    (*worker->mutable_queue()->mutable_operations())["sendfile"] = 55 + i;
  }
  stats.mutable_workers(1)->set_stale(true);
  stats.mutable_total()->mutable_http()->set_requests(2001);
  std::string text = Format(stats);
  for (const char* part :
       {"1000", "1001", "2001", "77", "78", "55", "56", "total", "1 (stale)"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
  EXPECT_THAT(text, Not(HasSubstr("File caches")));
  stats.mutable_workers(0)->mutable_cache()->set_hits(4711);
  v1::Metric* metric = stats.add_metrics();
  metric->set_name("or\nders");
  metric->set_counter(42);
  text = Format(stats);
  EXPECT_THAT(text, HasSubstr("4711"));
  EXPECT_THAT(text, HasSubstr("or\\x0Aders"));
}

TEST(FormatTest, InfoEscapesWhatTheServerSays) {
  v1::GetInfoResponse info;
  info.set_name("key\x1b[31mventd");
  info.set_version("9");
  info.set_state(v1::GetInfoResponse::DRAINING);
  info.add_addresses("127.0.0.1:80");
  const std::string text = Format(info);
  EXPECT_THAT(text, HasSubstr("key\\x1B[31mventd 9"));
  EXPECT_THAT(text, HasSubstr("draining"));
  EXPECT_THAT(text, HasSubstr("127.0.0.1:80"));
}

TEST(FormatTest, ListsShowWhatIsThereAndNothingElse) {
  v1::ListConnectionsResponse connections;
  v1::Connection* c = connections.add_connections();
  c->set_id("1-ff");
  c->set_peer("192.0.2.7:1");
  c->set_state(v1::Connection::RESPONSE);
  c->set_status(200);
  c->set_method("GET");
  c->set_target("/x\x1b");
  std::string text = Format(connections);
  EXPECT_THAT(text, HasSubstr("1-ff"));
  EXPECT_THAT(text, HasSubstr("response"));
  EXPECT_THAT(text, HasSubstr("200 GET /x\\x1B"));

  v1::ListCacheResponse cache;
  v1::CacheEntry* e = cache.add_entries();
  e->set_kind(v1::CacheEntry::MISSING);
  e->set_path("/none");
  e->set_error("No such file");
  EXPECT_THAT(Format(cache), HasSubstr("/none (No such file)"));

  v1::ListInterestsResponse interests;
  v1::Interest* i = interests.add_interests();
  i->set_source(v1::Interest::TIMER);
  *i->mutable_interval() = TimeUtil::SecondsToDuration(5);
  i->add_flags("edge");
  i->set_unread(true);
  text = Format(interests);
  EXPECT_THAT(text, HasSubstr("every 5.00 s"));
  EXPECT_THAT(text, HasSubstr("edge,unread"));

  v1::TailLogResponse log;
  log.set_dropped(7);
  log.add_lines()->set_text("a\nb \\x41");
  text = Format(log);
  EXPECT_THAT(text, HasSubstr("(7 lines lost)\n"));
  EXPECT_THAT(text, HasSubstr("a?b \\x41\n"));

  v1::DrainResponse drain;
  drain.set_connections(1);
  EXPECT_EQ(Format(drain), "draining, 1 connection left\n");
}

TEST(FormatTest, JsonHasAllFieldsByTheirNames) {
  v1::GetInfoResponse info;
  info.set_engine_reason("because");
  const std::string text = ToJson(info, true);
  EXPECT_EQ(text.find('\n'), text.size() - 1);
  EXPECT_THAT(text, HasSubstr("\"engine_reason\":\"because\""));
  EXPECT_THAT(text, HasSubstr("\"workers\":0"));
}

}  // namespace
}  // namespace kevent::kevctl
