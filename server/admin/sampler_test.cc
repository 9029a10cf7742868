// SPDX-License-Identifier: Apache-2.0
#include "server/admin/sampler.h"

#include <future>
#include <memory>
#include <utility>

#include "gtest/gtest.h"
#include "server/admin/stats_message.h"
#include "server/admin/test_service.h"
#include "server/http/test_client.h"
#include "server/loop/runtime.h"

namespace kevent::admin {
namespace {

using http::TestClient;

class SamplerTest : public testing::Test {
 protected:
  SamplerTest() {
    loop::Runtime::Options options;
    options.loops = 1;
    options.pin = false;
    options.loop.queue.engine = EngineKind::kEpoll;
    runtime_ = loop::Runtime::Create(options).value();
    mailbox_ = std::make_shared<Mailbox>(&runtime_->loop(0));
    target_ = std::make_shared<const Target>(service_.target());
    sampler_ = std::make_unique<Sampler>(&runtime_->loop(0), mailbox_, target_);
    EXPECT_TRUE(runtime_->Start().ok());
  }
  ~SamplerTest() override {
    mailbox_->Close();
    runtime_->Stop();
    runtime_->Join();
    sampler_.reset();
  }

  std::future<Sample> Ask() {
    auto promise = std::make_shared<std::promise<Sample>>();
    mailbox_->Post([this, promise] {
      sampler_->Collect([promise](const Sample& s) { promise->set_value(s); });
    });
    return promise->get_future();
  }

  TestService service_{2};
  std::unique_ptr<loop::Runtime> runtime_;
  std::shared_ptr<Mailbox> mailbox_;
  std::shared_ptr<const Target> target_;
  std::unique_ptr<Sampler> sampler_;
};

TEST_F(SamplerTest, GathersFromEveryLoop) {
  TestClient client(service_.port(1));
  EXPECT_EQ(client.Get("/hello").body, "hello");
  const Sample sample = Ask().get();
  ASSERT_EQ(sample.size(), 2u);
  for (const WorkerSample& worker : sample) {
    EXPECT_NE(worker.at_ns, 0);
    EXPECT_FALSE(worker.stale);
    EXPECT_GT(worker.loop.turns, 0u);
    EXPECT_FALSE(worker.cache);
  }
  const auto recv = static_cast<size_t>(Opcode::kRecv);
  EXPECT_EQ(sample[0].queue.submitted_by_opcode[recv], 0u);
  EXPECT_GT(sample[1].queue.submitted_by_opcode[recv], 0u);
}

TEST_F(SamplerTest, ManyWhoAskShareRounds) {
  const uint64_t before = Ask().get()[0].loop.posts;
  std::vector<std::future<Sample>> asked;
  for (int i = 0; i < 200; ++i) asked.push_back(Ask());
  uint64_t last = 0;
  for (auto& future : asked) last = future.get()[0].loop.posts;
  // Two rounds if they came at once; never one for each.
  EXPECT_LT(last - before, 100u);
}

// One loop is busy for long: the others' figures come all the same, and its own
// as soon as it is back.
TEST_F(SamplerTest, DoesNotWaitForABusyLoop) {
  const Sample first = Ask().get();
  std::promise<void> release;
  std::promise<void> blocked;
  service_.loop(0)->Post([&] {
    blocked.set_value();
    release.get_future().wait();
  });
  blocked.get_future().wait();
  for (int i = 0; i < 2; ++i) {
    const Sample sample = Ask().get();
    EXPECT_TRUE(sample[0].stale);
    EXPECT_EQ(sample[0].at_ns, first[0].at_ns);
    EXPECT_FALSE(sample[1].stale);
    EXPECT_GT(sample[1].at_ns, first[1].at_ns);
  }
  release.set_value();
  const Sample after = Ask().get();
  EXPECT_FALSE(after[0].stale);
  EXPECT_GT(after[0].at_ns, first[0].at_ns);
}

// The one who asked is gone when a busy loop answers.
TEST_F(SamplerTest, LateAnswersAreDropped) {
  std::promise<void> release;
  std::promise<void> blocked;
  service_.loop(0)->Post([&] {
    blocked.set_value();
    release.get_future().wait();
  });
  blocked.get_future().wait();
  EXPECT_TRUE(Ask().get()[0].stale);
  mailbox_->Close();
  runtime_->Stop();
  runtime_->Join();
  sampler_.reset();
  release.set_value();
  service_.Call(0, [] {});
}

TEST_F(SamplerTest, MessageAddsUp) {
  TestClient zero(service_.port(0));
  TestClient one(service_.port(1));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(zero.Get("/hello").status, 200);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(one.Get("/missing").status, 404);
  for (size_t i = 0; i < 2; ++i) {
    ASSERT_TRUE(service_.Await(i, [&] {
      return service_.server(i)->counters().requests.value() == 3 + i;
    }));
  }
  v1::Stats stats;
  constexpr int64_t kStart = 1;
  const int64_t now = kStart + 5'000'000'000;
  FillStats(*target_, Ask().get(), kStart, now, &stats);
  EXPECT_EQ(stats.uptime().seconds(), 5);
  ASSERT_EQ(stats.workers_size(), 2);
  EXPECT_EQ(stats.workers(0).worker(), 0u);
  EXPECT_EQ(stats.workers(0).http().responses_2xx(), 3u);
  EXPECT_EQ(stats.workers(0).http().responses_4xx(), 0u);
  EXPECT_EQ(stats.workers(1).worker(), 1u);
  EXPECT_EQ(stats.workers(1).http().responses_4xx(), 4u);
  EXPECT_EQ(stats.workers(1).latency().count(), 4u);
  const v1::WorkerStats& total = stats.total();
  EXPECT_EQ(total.http().requests(), 7u);
  EXPECT_EQ(total.http().connections(), 2u);
  EXPECT_EQ(total.http().accepted(), 2u);
  EXPECT_EQ(total.latency().count(), 7u);
  EXPECT_GT(total.latency().p50_ns(), 0u);
  EXPECT_GE(total.latency().p999_ns(), total.latency().p50_ns());
  uint64_t in_buckets = 0;
  for (const auto& bucket : total.latency().buckets()) {
    in_buckets += bucket.count();
  }
  EXPECT_EQ(in_buckets, 7u);
  for (const char* name : {"accept", "recv", "send"}) {
    EXPECT_EQ(total.queue().operations().at(name),
              stats.workers(0).queue().operations().at(name) +
                  stats.workers(1).queue().operations().at(name))
        << name;
    EXPECT_GT(total.queue().operations().at(name), 0u) << name;
  }
  EXPECT_EQ(total.queue().entries(), stats.workers(0).queue().entries() +
                                         stats.workers(1).queue().entries());
  EXPECT_FALSE(total.has_cache());
}

TEST_F(SamplerTest, MessageHasTheServicesOwnMetrics) {
  stats::Counter one;
  stats::Counter two;
  stats::Histogram times;
  one.Add(3);
  two.Add(4);
  times.Record(5'000'000);
  stats::Registry registry;
  ASSERT_TRUE(registry.AddCounter("orders", "Orders.", {&one, &two}).ok());
  ASSERT_TRUE(registry.AddGauge("depth", "Depth.", [] { return 2.5; }).ok());
  ASSERT_TRUE(registry.AddHistogram("times", "Times.", {&times}).ok());
  Target target = service_.target();
  target.registry = &registry;
  v1::Stats stats;
  FillStats(target, Ask().get(), 0, 1, &stats);
  ASSERT_EQ(stats.metrics_size(), 3);
  EXPECT_EQ(stats.metrics(0).name(), "orders");
  EXPECT_EQ(stats.metrics(0).counter(), 7u);
  EXPECT_EQ(stats.metrics(1).gauge(), 2.5);
  EXPECT_EQ(stats.metrics(2).histogram().count(), 1u);
}

}  // namespace
}  // namespace kevent::admin
