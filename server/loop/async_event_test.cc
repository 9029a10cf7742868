// SPDX-License-Identifier: Apache-2.0
#include "server/loop/async_event.h"

#include <errno.h>

#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/loop/proactor.h"
#include "server/loop/task.h"
#include "server/loop/test_util.h"

namespace kevent::loop {
namespace {

using ::testing::ElementsAre;

constexpr int64_t kMs = 1000000;

class AsyncEventTest : public testing::TestWithParam<EngineKind> {
 protected:
  void RunAll() {
    RunUntil(loop_.get(), [&] { return loop_->tasks() == 0; });
  }

  std::unique_ptr<Loop> loop_ = MakeLoop(GetParam());
  std::vector<int64_t> log_;
};

INSTANTIATE_FOR_ENGINES(AsyncEventTest);

Task<void> WaitFor(AsyncEvent* event, AwaitOptions options,
                   std::vector<int64_t>* log) {
  log->push_back(co_await event->Wait(options));
}

TEST_P(AsyncEventTest, SetLetsAllGoInTheNextTurn) {
  AsyncEvent event(loop_.get());
  loop_->Spawn(WaitFor(&event, {}, &log_));
  loop_->Spawn(WaitFor(&event, {}, &log_));
  event.Set();
  EXPECT_TRUE(log_.empty());
  RunAll();
  EXPECT_THAT(log_, ElementsAre(0, 0));
  loop_->Spawn(WaitFor(&event, {}, &log_));
  EXPECT_EQ(log_.size(), 3u) << "set already";
  event.Reset();
  loop_->Spawn(WaitFor(&event, {}, &log_));
  EXPECT_EQ(loop_->tasks(), 1u);
  event.Set();
  RunAll();
}

TEST_P(AsyncEventTest, DeadlineAndCancelEndTheWait) {
  AsyncEvent event(loop_.get());
  CancelSource source;
  AwaitOptions deadline;
  deadline.deadline_ns = loop_->UpdateNow() + 2 * kMs;
  AwaitOptions cancel;
  cancel.cancel = source.token();
  loop_->Spawn(WaitFor(&event, cancel, &log_));
  loop_->Spawn(WaitFor(&event, deadline, &log_));
  source.Cancel();
  EXPECT_TRUE(log_.empty()) << "Cancel resumes nobody by itself";
  RunAll();
  EXPECT_THAT(log_, ElementsAre(-ECANCELED, -ETIMEDOUT));
  event.Set();
  loop_->RunOnce(0);
  EXPECT_EQ(log_.size(), 2u);
}

TEST_P(AsyncEventTest, ASetThatCameFirstWins) {
  AsyncEvent event(loop_.get());
  CancelSource source;
  AwaitOptions cancel;
  cancel.cancel = source.token();
  loop_->Spawn(WaitFor(&event, cancel, &log_));
  event.Set();
  source.Cancel();
  RunAll();
  EXPECT_THAT(log_, ElementsAre(0));
}

Task<void> Use(Loop* loop, AsyncSemaphore* semaphore, int id, int* inside,
               std::vector<int64_t>* log) {
  EXPECT_EQ(co_await semaphore->Acquire(), 0);
  EXPECT_LE(++*inside, 2);
  log->push_back(id);
  co_await Proactor(loop).Yield();
  --*inside;
  semaphore->Release();
}

TEST_P(AsyncEventTest, ASemaphoreLetsSoManyInInTheirOrder) {
  AsyncSemaphore semaphore(loop_.get(), 2);
  int inside = 0;
  for (int i = 0; i < 6; ++i) {
    loop_->Spawn(Use(loop_.get(), &semaphore, i, &inside, &log_));
  }
  RunAll();
  EXPECT_THAT(log_, ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_EQ(semaphore.available(), 2u);
}

TEST_P(AsyncEventTest, ACancelledAcquireTakesNoPermit) {
  AsyncSemaphore semaphore(loop_.get(), 0);
  CancelSource source;
  loop_->Spawn([](AsyncSemaphore* s, CancelToken token,
                  std::vector<int64_t>* log) -> Task<void> {
    AwaitOptions options;
    options.cancel = token;
    log->push_back(co_await s->Acquire(options));
  }(&semaphore, source.token(), &log_));
  source.Cancel();
  semaphore.Release();
  RunAll();
  EXPECT_THAT(log_, ElementsAre(-ECANCELED));
  EXPECT_EQ(semaphore.available(), 1u);
}

TEST_P(AsyncEventTest, GoingAwayWithWaitersAborts) {
  EXPECT_DEATH(
      {
        AsyncEvent event(loop_.get());
        loop_->Spawn(WaitFor(&event, {}, &log_));
      },
      "while a coroutine waits");
  EXPECT_DEATH(
      {
        AsyncEvent* event = new AsyncEvent(loop_.get());
        CancelSource source;
        AwaitOptions options;
        options.cancel = source.token();
        loop_->Spawn(WaitFor(event, options, &log_));
      },
      "CancelSource was destroyed");
}

}  // namespace
}  // namespace kevent::loop
