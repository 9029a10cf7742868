// SPDX-License-Identifier: Apache-2.0
// Those who watch the counters, many at a time.

#include <google/protobuf/util/time_util.h>
#include <sched.h>

#include <chrono>
#include <filesystem>
#include <future>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/admin/admin_fixture.h"
#include "server/admin/stats_stream.h"
#include "server/stats/registry.h"

namespace kevent::admin {
namespace {

using google::protobuf::util::TimeUtil;
using Clock = std::chrono::steady_clock;

class Watcher {
 public:
  Watcher(v1::Admin::Stub* stub, std::unique_ptr<grpc::ClientContext> context,
          int64_t interval_ms, uint32_t count = 0)
      : context_(std::move(context)) {
    v1::WatchStatsRequest request;
    *request.mutable_interval() = TimeUtil::MillisecondsToDuration(interval_ms);
    request.set_count(count);
    reader_ = stub->WatchStats(context_.get(), request);
  }
  ~Watcher() {
    context_->TryCancel();
    End();
  }

  bool Read() { return reader_->Read(&stats_); }
  const v1::Stats& stats() const { return stats_; }
  int64_t uptime_ns() const {
    return TimeUtil::DurationToNanoseconds(stats_.uptime());
  }
  grpc::Status End() {
    if (ended_) return grpc::Status::OK;
    while (Read()) {
    }
    ended_ = true;
    return reader_->Finish();
  }

 private:
  const std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientReader<v1::Stats>> reader_;
  v1::Stats stats_;
  bool ended_ = false;
};

class AdminWatchTest : public AdminTest {
 protected:
  AdminWatchTest() {
    // One message is more than a client takes unread.
    EXPECT_TRUE(
        registry_.AddGauge("g", std::string(200'000, 'x'), [] { return 1.0; })
            .ok());
  }

  void StartWithLargeMessages() {
    Target target = service_.target();
    target.registry = &registry_;
    Start(std::move(target), {});
  }

  stats::Registry registry_;
};

TEST(StatsStreamsTest, MessagesFallDueAtMultiples) {
  EXPECT_EQ(StatsStreams::NextDue(1000, 100), 1100);
  EXPECT_EQ(StatsStreams::NextDue(1001, 100), 1100);
  EXPECT_EQ(StatsStreams::NextDue(1049, 100), 1100);
  EXPECT_EQ(StatsStreams::NextDue(1050, 100), 1200);
  EXPECT_EQ(StatsStreams::NextDue(1099, 100), 1200);
  for (int64_t now = 5000; now < 5300; ++now) {
    const int64_t pause = StatsStreams::NextDue(now, 100) - now;
    EXPECT_GT(pause, 49);
    EXPECT_LE(pause, 150);
  }
}

TEST_F(AdminWatchTest, EachHasItsInterval) {
  Start();
  struct Case {
    int64_t interval_ms;
    uint32_t count;
  };
  const std::vector<Case> cases = {{10, 30}, {30, 10}, {70, 5}, {150, 3}};
  std::vector<std::thread> threads;
  for (size_t i = 0; i < 5 * cases.size(); ++i) {
    threads.emplace_back([&, c = cases[i % cases.size()]] {
      auto stub = Stub();
      Watcher watcher(stub.get(), Context(), c.interval_ms, c.count);
      int64_t first_ns = 0;
      int64_t last_ns = 0;
      for (uint32_t n = 0; n < c.count; ++n) {
        ASSERT_TRUE(watcher.Read());
        EXPECT_GT(watcher.uptime_ns(), last_ns);
        EXPECT_EQ(watcher.stats().workers_size(), 2);
        last_ns = watcher.uptime_ns();
        if (n == 0) first_ns = last_ns;
      }
      EXPECT_FALSE(watcher.Read());
      EXPECT_TRUE(watcher.End().ok());
      // Not faster than it asked for. The first pause may be half of the
      // interval, and the first message may have been made late.
      EXPECT_GE(last_ns - first_ns,
                c.interval_ms * 1'000'000 * (int64_t{c.count} - 3));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// What is made once for all says the same to all.
TEST_F(AdminWatchTest, MessagesOfAnIntervalAreShared) {
  Start();
  constexpr size_t kWatchers = 20;
  constexpr int kMessages = 12;
  auto stub = Stub();
  std::vector<std::unique_ptr<Watcher>> watchers;
  for (size_t i = 0; i < kWatchers; ++i) {
    watchers.push_back(
        std::make_unique<Watcher>(stub.get(), Context(), 50, kMessages));
  }
  std::set<int64_t> made;
  size_t received = 0;
  for (int n = 0; n < kMessages; ++n) {
    for (auto& watcher : watchers) {
      ASSERT_TRUE(watcher->Read());
      ++received;
      made.insert(watcher->uptime_ns());
    }
  }
  EXPECT_EQ(received, kWatchers * kMessages);
  // Each may have had its first for itself.
  EXPECT_LT(made.size(), kWatchers + 3 * kMessages);
}

TEST_F(AdminWatchTest, WhoDoesNotReadDelaysNobody) {
  StartWithLargeMessages();
  // One that takes no more unread, however fast it came.
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  auto stub = v1::Admin::NewStub(grpc::CreateCustomChannel(
      address(), grpc::InsecureChannelCredentials(), arguments));
  auto other = Stub();
  Watcher slow(stub.get(), Context(), 10);
  ASSERT_TRUE(slow.Read());
  Watcher fast(other.get(), Context(), 10);
  ASSERT_TRUE(fast.Read());
  const int64_t begin_ns = fast.uptime_ns();
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(fast.Read());
  EXPECT_GE(fast.uptime_ns() - begin_ns, 350'000'000);
  const int64_t now_ns = fast.uptime_ns();
  // What it finds: those that were on their way, and then what is new. Nothing
  // was kept for it.
  int old = 0;
  do {
    ASSERT_TRUE(slow.Read());
    if (slow.uptime_ns() < now_ns) ++old;
  } while (slow.uptime_ns() < now_ns);
  EXPECT_LE(old, 5);
}

TEST_F(AdminWatchTest, EndsWithWatchersWhoDoNotRead) {
  StartWithLargeMessages();
  std::vector<std::unique_ptr<v1::Admin::Stub>> stubs;
  std::vector<std::unique_ptr<Watcher>> watchers;
  for (int i = 0; i < 30; ++i) {
    stubs.push_back(Stub());
    watchers.push_back(
        std::make_unique<Watcher>(stubs.back().get(), Context(), 10 + i));
    if (i % 2 == 0) {
      ASSERT_TRUE(watchers.back()->Read());
    }
  }
  // One that reads all the time, while it ends.
  std::thread reader([&] {
    while (watchers[0]->Read()) {
    }
  });
  const auto start = Clock::now();
  admin_.reset();
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(10));
  reader.join();
  for (auto& watcher : watchers) EXPECT_FALSE(watcher->End().ok());
}

// Its watchers come and go in the middle of a message's making.
TEST_F(AdminWatchTest, GoingAwayWhileALoopHangs) {
  Start();
  auto stub = Stub();
  Watcher stays(stub.get(), Context(), 10);
  ASSERT_TRUE(stays.Read());
  std::promise<void> release;
  std::promise<void> blocked;
  service_.loop(0)->Post([&] {
    blocked.set_value();
    release.get_future().wait();
  });
  blocked.get_future().wait();
  for (int i = 0; i < 20; ++i) Watcher(stub.get(), Context(), 10 + i);
  while (!stays.stats().workers(0).stale()) ASSERT_TRUE(stays.Read());
  EXPECT_FALSE(stays.stats().workers(1).stale());
  release.set_value();
  while (stays.stats().workers(0).stale()) ASSERT_TRUE(stays.Read());
}

TEST_F(AdminWatchTest, RefusesBytesThatAreNoRequest) {
  Start();
  std::string response;
  EXPECT_EQ(CallRaw(Channel(), "/kevent.admin.v1.Admin/WatchStats",
                    "\xff\xff\xff", &response)
                .error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

std::set<pid_t> Threads() {
  std::set<pid_t> ids;
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc/self/task")) {
    ids.insert(static_cast<pid_t>(std::stol(entry.path().filename())));
  }
  return ids;
}

TEST_F(AdminWatchTest, ItsThreadsDoNotPushWorkersAside) {
  const std::set<pid_t> before = Threads();
  Start();
  size_t own = 0;
  for (pid_t thread : Threads()) {
    const int policy = sched_getscheduler(thread);
    if (before.contains(thread) || policy < 0) continue;
    ++own;
    EXPECT_EQ(policy, SCHED_BATCH) << thread;
  }
  EXPECT_GE(own, 1u);
  EXPECT_EQ(sched_getscheduler(0), SCHED_OTHER);
  for (size_t i = 0; i < 2; ++i) {
    int policy = -1;
    service_.Call(i, [&] { policy = sched_getscheduler(0); });
    EXPECT_EQ(policy, SCHED_OTHER) << i;
  }
}

}  // namespace
}  // namespace kevent::admin
