// SPDX-License-Identifier: Apache-2.0
#include "server/loop/runtime.h"

#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/loop/proactor.h"
#include "server/loop/task.h"
#include "server/loop/test_util.h"

namespace kevent::loop {
namespace {

using ::testing::HasSubstr;

class RuntimeTest : public testing::TestWithParam<EngineKind> {
 protected:
  std::unique_ptr<Runtime> Make(size_t loops, bool pin = true) {
    Runtime::Options options;
    options.loops = loops;
    options.pin = pin;
    options.loop.queue.engine = GetParam();
    absl::StatusOr<std::unique_ptr<Runtime>> runtime = Runtime::Create(options);
    EXPECT_TRUE(runtime.ok()) << runtime.status();
    return *std::move(runtime);
  }
};

INSTANTIATE_FOR_ENGINES(RuntimeTest);

TEST_P(RuntimeTest, ForEachReachesEveryLoopInItsOwnThread) {
  auto runtime = Make(3);
  ASSERT_EQ(runtime->size(), 3u);
  ASSERT_TRUE(runtime->Start().ok());
  EXPECT_FALSE(runtime->Start().ok());
  std::mutex mu;
  std::set<std::thread::id> threads;
  std::set<size_t> indices;
  std::atomic<int> left{3};
  runtime->ForEach([&](Loop& loop, size_t index) {
    {
      std::lock_guard lock(mu);
      threads.insert(std::this_thread::get_id());
      indices.insert(index);
      EXPECT_TRUE(loop.InLoopThread());
      EXPECT_EQ(&loop, &runtime->loop(index));
    }
    if (left.fetch_sub(1) == 1) runtime->Stop();
  });
  runtime->Join();
  EXPECT_EQ(threads.size(), 3u);
  EXPECT_EQ(indices, (std::set<size_t>{0, 1, 2}));
  EXPECT_EQ(threads.count(std::this_thread::get_id()), 0u);
}

TEST_P(RuntimeTest, ThreadsArePinnedUnlessToldOtherwise) {
  cpu_set_t all;
  ASSERT_EQ(sched_getaffinity(0, sizeof all, &all), 0);
  for (bool pin : {true, false}) {
    auto runtime = Make(0, pin);
    EXPECT_EQ(runtime->size(), static_cast<size_t>(CPU_COUNT(&all)));
    std::mutex mu;
    std::multiset<int> counts;
    std::set<int> cpus;
    size_t left = runtime->size();
    runtime->ForEach([&](Loop&, size_t) {
      cpu_set_t own;
      sched_getaffinity(0, sizeof own, &own);
      std::lock_guard lock(mu);
      counts.insert(CPU_COUNT(&own));
      for (int i = 0; pin && i < CPU_SETSIZE; ++i) {
        if (CPU_ISSET(i, &own)) cpus.insert(i);
      }
      if (--left == 0) runtime->Stop();
    });
    ASSERT_TRUE(runtime->Start().ok());
    runtime->Join();
    if (pin) {
      EXPECT_EQ(counts.count(1), runtime->size());
      EXPECT_EQ(cpus.size(), runtime->size()) << "each on one of its own";
    } else {
      EXPECT_EQ(counts.count(CPU_COUNT(&all)), runtime->size());
    }
  }
}

TEST_P(RuntimeTest, LoopsPostToEachOther) {
  auto runtime = Make(2);
  ASSERT_TRUE(runtime->Start().ok());
  int hops = 0;  // handed from loop to loop
  struct Bounce {
    static void Go(Runtime* runtime, size_t at, int* n) {
      if (++*n == 2000) {
        runtime->Stop();
        return;
      }
      runtime->loop(1 - at).Post([=] { Go(runtime, 1 - at, n); });
    }
  };
  runtime->loop(0).Post([&] { Bounce::Go(runtime.get(), 0, &hops); });
  runtime->Join();
  EXPECT_EQ(hops, 2000);
}

TEST_P(RuntimeTest, TheEndTakesWhatIsInFlightWithIt) {
  SocketPair pairs[2];
  std::atomic<int> waiting{0};
  std::atomic<int> alive{0};
  struct Count {
    explicit Count(std::atomic<int>* n) : n(n) { ++*n; }
    ~Count() { --*n; }
    std::atomic<int>* n;
  };
  auto runtime = Make(2);
  ASSERT_TRUE(runtime->Start().ok());
  runtime->ForEach([&](Loop& loop, size_t index) {
    loop.Spawn([](Loop* l, int fd, std::atomic<int>* n,
                  std::atomic<int>* w) -> Task<void> {
      Count count(n);
      Proactor io(l);
      std::byte buffer[16];
      EXPECT_EQ(co_await io.Recv(fd, buffer), 1);
      ++*w;
      co_await io.Recv(fd, buffer);
    }(&loop, pairs[index].fds[0], &alive, &waiting));
  });
  for (SocketPair& pair : pairs) WriteAll(pair.fds[1], "x");
  while (waiting.load() < 2) std::this_thread::yield();
  EXPECT_EQ(alive.load(), 2);
  runtime.reset();
  EXPECT_EQ(alive.load(), 0);
}

TEST_P(RuntimeTest, SignalsGoToTheOtherThreads) {
  auto runtime = Make(2);
  std::atomic<int> blocked{0};
  std::atomic<int> left{2};
  runtime->ForEach([&](Loop&, size_t) {
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, nullptr, &mask);
    blocked += sigismember(&mask, SIGTERM) && !sigismember(&mask, SIGSEGV);
    if (--left == 0) runtime->Stop();
  });
  sigset_t before;
  sigset_t after;
  pthread_sigmask(SIG_BLOCK, nullptr, &before);
  ASSERT_TRUE(runtime->Start().ok());
  pthread_sigmask(SIG_BLOCK, nullptr, &after);
  runtime->Join();
  EXPECT_EQ(blocked.load(), 2);
  EXPECT_EQ(sigismember(&before, SIGTERM), sigismember(&after, SIGTERM));
}

TEST_P(RuntimeTest, ARuntimeThatWasNeverStartedMayGo) {
  auto runtime = Make(2);
  bool ran = false;
  runtime->ForEach([&](Loop&, size_t) { ran = true; });
  runtime.reset();
  EXPECT_FALSE(ran);
}

TEST(RuntimeCreateTest, AnErrorIsToldBeforeAnyThreadRuns) {
  Runtime::Options options;
  options.loops = 2;
  options.loop.queue.engine = EngineKind::kModule;
  if (access("/dev/kevent", F_OK) == 0) GTEST_SKIP() << "the module is there";
  absl::Status error = Runtime::Create(options).status();
  EXPECT_EQ(error.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(error.message()),
              HasSubstr("cannot create loop 1 of 2"));
}

}  // namespace
}  // namespace kevent::loop
