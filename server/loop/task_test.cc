// SPDX-License-Identifier: Apache-2.0
#include "server/loop/task.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/loop/cancel.h"
#include "server/loop/proactor.h"
#include "server/loop/test_util.h"

namespace kevent::loop {
namespace {

using ::testing::ElementsAre;

class TaskTest : public testing::TestWithParam<EngineKind> {
 protected:
  std::unique_ptr<Loop> loop_ = MakeLoop(GetParam());
};

INSTANTIATE_FOR_ENGINES(TaskTest);

Task<int> Number(int n) { co_return n; }

Task<int> Sum(int to) {
  int sum = 0;
  for (int i = 1; i <= to; ++i) sum += co_await Number(i);
  co_return sum;
}

Task<void> Store(Task<int> task, int* out) { *out = co_await task; }

TEST_P(TaskTest, ATaskIsLazy) {
  int result = 0;
  Task<void> task = Store(Sum(10), &result);
  EXPECT_EQ(result, 0);
  EXPECT_EQ(loop_->tasks(), 0u);
  loop_->Spawn(std::move(task));
  EXPECT_EQ(result, 55);
  EXPECT_EQ(loop_->tasks(), 0u);
  EXPECT_FALSE(task);  // NOLINT: moved from
}

TEST_P(TaskTest, TasksThatNeverWaitDoNotGrowTheStack) {
  int result = 0;
  loop_->Spawn(Store(Sum(60000), &result));
  EXPECT_EQ(result, 1800030000);
}

Task<std::unique_ptr<std::string>> Text(std::string text) {
  co_return std::make_unique<std::string>(std::move(text));
}

TEST_P(TaskTest, ResultsMayBeMoveOnly) {
  std::string result;
  loop_->Spawn([](std::string* out) -> Task<void> {
    std::unique_ptr<std::string> text = co_await Text("moved");
    *out = *text;
  }(&result));
  EXPECT_EQ(result, "moved");
}

Task<int> YieldingSum(Loop* loop, int to) {
  int sum = 0;
  for (int i = 1; i <= to; ++i) {
    co_await Proactor(loop).Yield();
    sum += co_await Number(i);
  }
  co_return sum;
}

Task<int> Deep(Loop* loop, int depth) {
  if (depth == 0) {
    co_await Proactor(loop).Yield();
    co_return 0;
  }
  co_return 1 + co_await Deep(loop, depth - 1);
}

TEST_P(TaskTest, AWaitingTaskGoesOnWhereItWas) {
  int sum = 0;
  int depth = 0;
  loop_->Spawn(Store(YieldingSum(loop_.get(), 100), &sum));
  loop_->Spawn(Store(Deep(loop_.get(), 200), &depth));
  EXPECT_EQ(loop_->tasks(), 2u);
  EXPECT_EQ(sum, 0);
  RunUntil(loop_.get(), [&] { return loop_->tasks() == 0; });
  EXPECT_EQ(sum, 5050);
  EXPECT_EQ(depth, 200);
}

Task<int> After(Loop* loop, int turns, int result, std::vector<int>* order) {
  for (int i = 0; i < turns; ++i) co_await Proactor(loop).Yield();
  order->push_back(result);
  co_return result;
}

TEST_P(TaskTest, WhenAllGivesResultsInTheOrderOfItsTasks) {
  std::vector<int> order;
  std::vector<int> results;
  loop_->Spawn([](Loop* loop, std::vector<int>* seen,
                  std::vector<int>* out) -> Task<void> {
    std::vector<Task<int>> tasks;
    tasks.push_back(After(loop, 3, 1, seen));
    tasks.push_back(After(loop, 0, 2, seen));
    tasks.push_back(After(loop, 1, 3, seen));
    *out = co_await WhenAll(std::move(tasks));
  }(loop_.get(), &order, &results));
  RunUntil(loop_.get(), [&] { return loop_->tasks() == 0; });
  EXPECT_THAT(order, ElementsAre(2, 3, 1));
  EXPECT_THAT(results, ElementsAre(1, 2, 3));
}

TEST_P(TaskTest, WhenAllOfNothingAndOfTasksThatDoNotWait) {
  size_t none = 9;
  int done = 0;
  loop_->Spawn([](size_t* none_out, int* done_out) -> Task<void> {
    auto one = [](int* n) -> Task<void> {
      ++*n;
      co_return;
    };
    *none_out = (co_await WhenAll(std::vector<Task<int>>())).size();
    std::vector<Task<void>> tasks;
    for (int i = 0; i < 5; ++i) tasks.push_back(one(done_out));
    co_await WhenAll(std::move(tasks));
    ++*done_out;
  }(&none, &done));
  EXPECT_EQ(none, 0u);
  EXPECT_EQ(done, 6);
  EXPECT_EQ(loop_->tasks(), 0u);
}

struct Count {
  explicit Count(int* n) : n(n) { ++*n; }
  Count(const Count&) = delete;
  ~Count() { --*n; }
  int* n;
};

Task<int64_t> Receive(Loop* loop, int fd, int* alive) {
  Count count(alive);
  std::byte buffer[64];
  co_return co_await Proactor(loop).Recv(fd, buffer);
}

Task<void> ReceiveTwice(Loop* loop, int a, int b, int* alive) {
  Count count(alive);
  std::vector<Task<int64_t>> tasks;
  tasks.push_back(Receive(loop, a, alive));
  tasks.push_back(Receive(loop, b, alive));
  co_await WhenAll(std::move(tasks));
}

TEST_P(TaskTest, TheLoopsEndDestroysSuspendedTasks) {
  SocketPair pair;
  int alive = 0;
  loop_->Spawn(ReceiveTwice(loop_.get(), pair.fds[0], pair.fds[1], &alive));
  loop_->Spawn([](Loop* loop, int* n) -> Task<void> {
    Count count(n);
    co_await Proactor(loop).Sleep(int64_t{3600} * 1000000000);
  }(loop_.get(), &alive));
  loop_->RunOnce(0);
  EXPECT_EQ(alive, 4);
  EXPECT_EQ(loop_->tasks(), 2u);
  loop_.reset();
  EXPECT_EQ(alive, 0);
}

TEST_P(TaskTest, DestroyingATaskThatWaitsAborts) {
  SocketPair pair;
  int alive = 0;
  // A loop is its process's own.
  EXPECT_DEATH(
      {
        auto loop = MakeLoop(GetParam());
        auto* task =
            new Task<int64_t>(Receive(loop.get(), pair.fds[0], &alive));
        // Stands in for a parent that goes away.
        task->operator co_await().await_suspend(std::noop_coroutine());
        delete task;
      },
      "destroyed (in flight|while it waits)");
  EXPECT_DEATH(
      {
        auto sleep = [](Loop* loop) -> Task<void> {
          co_await Proactor(loop).Sleep(1000000000);
        };
        auto loop = MakeLoop(GetParam());
        auto* task = new Task<void>(sleep(loop.get()));
        task->operator co_await().await_suspend(std::noop_coroutine());
        delete task;
      },
      "cancel it instead");
}

TEST_P(TaskTest, ATaskThatWasNeverStartedMayGo) {
  int alive = 0;
  { Task<int64_t> task = Receive(loop_.get(), 0, &alive); }
  EXPECT_EQ(alive, 0);
}

TEST_P(TaskTest, FramesComeFromTheCache) {
  int result = 0;
  loop_->Spawn(Store(Sum(3), &result));
  size_t cached = FramePool::cached_bytes();
  EXPECT_GT(cached, 0u);
  for (int i = 0; i < 100; ++i) loop_->Spawn(Store(Sum(3), &result));
  EXPECT_EQ(FramePool::cached_bytes(), cached);
}

}  // namespace
}  // namespace kevent::loop
