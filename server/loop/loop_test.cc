// SPDX-License-Identifier: Apache-2.0
#include "server/loop/loop.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/loop/test_util.h"

namespace kevent::loop {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int64_t kMs = 1000000;

// What an idle connection is made of leaves room in its 160 bytes.
static_assert(sizeof(RecvOp) + sizeof(Timer) <= 112);

class LoopTest : public testing::TestWithParam<EngineKind> {
 protected:
  std::unique_ptr<Loop> loop_ = MakeLoop(GetParam());
};

INSTANTIATE_FOR_ENGINES(LoopTest);

Interest Poll(int fd, uint32_t events, uint32_t flags) {
  Interest interest;
  interest.fd = fd;
  interest.events = events;
  interest.flags = flags;
  return interest;
}

TEST_P(LoopTest, RunOnceReturnsWhenItsTimeIsOver) {
  int64_t before = loop_->UpdateNow();
  EXPECT_EQ(loop_->RunOnce(3 * kMs), 0);
  EXPECT_GE(loop_->now_ns(), before + 3 * kMs);
  EXPECT_EQ(loop_->RunOnce(0), 0);
  EXPECT_EQ(loop_->stats().turns, 2u);
}

struct Reader : RecvOp {
  char data[16] = {};
  std::vector<int64_t>* results = nullptr;

  static void Done(Loop*, Operation* op, const Entry& entry) {
    auto* self = static_cast<Reader*>(op);
    self->results->push_back(entry.result);
  }
};

TEST_P(LoopTest, CompletionsReachTheirFunction) {
  SocketPair pair;
  std::vector<int64_t> results;
  Reader reader;
  reader.results = &results;
  reader.fd = pair.fds[0];
  reader.buffer = reader.data;
  reader.size = sizeof reader.data;
  ASSERT_EQ(loop_->Submit(&reader, Reader::Done), 0);
  EXPECT_THAT(results, IsEmpty());
  WriteAll(pair.fds[1], "hello");
  RunUntil(loop_.get(), [&] { return !results.empty(); });
  EXPECT_THAT(results, ElementsAre(5));
  EXPECT_EQ(std::string(reader.data), "hello");
  EXPECT_EQ(loop_->stats().entries, 1u);
}

// The trap: one entry's handler ends the object that another entry of the same
// batch belongs to.
struct Pair {
  struct One : RecvOp {
    Pair* owner = nullptr;
    char byte = 0;
  };
  One ops[2];
  int callbacks = 0;
  int* callbacks_seen = nullptr;
  int* destroyed = nullptr;

  ~Pair() { ++*destroyed; }

  static void Done(Loop* loop, Operation* op, const Entry&) {
    Pair* self = static_cast<One*>(op)->owner;
    ++self->callbacks;
    *self->callbacks_seen = self->callbacks;
    bool idle = !self->ops[0].in_flight() && !self->ops[1].in_flight();
    if (idle && self->callbacks == 1) loop->DeleteSoon(self);
    if (!idle) self->callbacks = 0;  // separate batches: try the second alone
  }
};

TEST_P(LoopTest, AnObjectDeletedSoonOutlivesTheRestOfItsBatch) {
  SocketPair a;
  SocketPair b;
  int destroyed = 0;
  int callbacks = 0;
  auto* pair = new Pair;
  pair->destroyed = &destroyed;
  pair->callbacks_seen = &callbacks;
  WriteAll(a.fds[1], "x");
  WriteAll(b.fds[1], "y");
  int fds[2] = {a.fds[0], b.fds[0]};
  for (int i = 0; i < 2; ++i) {
    pair->ops[i].owner = pair;
    pair->ops[i].fd = fds[i];
    pair->ops[i].buffer = &pair->ops[i].byte;
    pair->ops[i].size = 1;
    ASSERT_EQ(loop_->Submit(&pair->ops[i], Pair::Done), 0);
  }
  RunUntil(loop_.get(), [&] { return destroyed == 1; });
  EXPECT_EQ(callbacks, 2) << "both entries came in one batch";
}

class LoopWatchTrapTest : public LoopTest {
 protected:
  LoopWatchTrapTest() {
    for (int i = 0; i < 2; ++i) WriteAll(pairs_[i].fds[1], "x");
  }

  // Both are readable; whichever is called first does `action` to the other.
  template <typename Action>
  void Run(uint32_t flags, Action action) {
    for (int i = 0; i < 2; ++i) {
      auto owned = std::make_unique<int>(i);
      ASSERT_EQ(
          loop_->Watch(
              Poll(pairs_[i].fds[0], POLLIN, flags),
              [this, action, owned = std::move(owned)](const Entry& entry) {
                EXPECT_TRUE(entry.events & POLLIN);
                ++calls_[*owned];
                if (std::exchange(acted_, true)) return;
                action(1 - *owned);
              },
              &ids_[i]),
          0);
    }
    RunUntil(loop_.get(), [&] { return calls_[0] + calls_[1] > 0; });
    EXPECT_EQ(loop_->stats().entries, 2u) << "both came in one batch";
    EXPECT_EQ(loop_->stats().dropped, 1u);
    EXPECT_EQ(calls_[0] + calls_[1], 1);
  }

  SocketPair pairs_[2];
  WatchId ids_[2];
  int calls_[2] = {0, 0};
  bool acted_ = false;
};

INSTANTIATE_FOR_ENGINES(LoopWatchTrapTest);

TEST_P(LoopWatchTrapTest, Remove) {
  Run(kEdge, [this](int other) {
    EXPECT_EQ(loop_->Unwatch(ids_[other]), 0);
    EXPECT_EQ(loop_->Unwatch(ids_[other]), -ENOENT);
  });
}

TEST_P(LoopWatchTrapTest, RemoveOfAOneShot) {
  Run(kOneShot, [this](int other) { loop_->Unwatch(ids_[other]); });
  EXPECT_FALSE(loop_->watching(ids_[0]));
  EXPECT_FALSE(loop_->watching(ids_[1]));
}

TEST_P(LoopWatchTrapTest, RemoveAndReuseOfTheSlot) {
  int fresh = 0;
  Run(kEdge, [&](int other) {
    loop_->Unwatch(ids_[other]);
    WatchId id;
    ASSERT_EQ(loop_->Watch(
                  Poll(pairs_[other].fds[0], POLLOUT, 0),
                  [&fresh](const Entry&) { ++fresh; }, &id),
              0);
    ids_[other] = id;
  });
  EXPECT_EQ(fresh, 0);
  RunUntil(loop_.get(), [&] { return fresh > 0; });
}

TEST_P(LoopWatchTrapTest, Disable) {
  int other = -1;
  Run(0, [&](int o) {
    other = o;
    EXPECT_EQ(loop_->Disable(ids_[o]), 0);
  });
  ASSERT_GE(other, 0);
  for (int i = 0; i < 3; ++i) loop_->RunOnce(0);
  EXPECT_EQ(calls_[other], 0);
  EXPECT_EQ(loop_->Enable(ids_[other]), 0);
  RunUntil(loop_.get(), [&] { return calls_[other] > 0; });
}

TEST_P(LoopWatchTrapTest, Modify) {
  int other = -1;
  Run(0, [&](int o) {
    other = o;
    EXPECT_EQ(loop_->Modify(ids_[o], POLLPRI, 0), 0);
  });
  for (int i = 0; i < 3; ++i) loop_->RunOnce(0);
  EXPECT_EQ(calls_[other], 0);
}

TEST_P(LoopWatchTrapTest, Close) {
  Run(kEdge, [this](int other) {
    EXPECT_EQ(loop_->Close(std::exchange(pairs_[other].fds[0], -1)), 0);
  });
}

TEST_P(LoopTest, AWatchMayEndItselfWithinItsCallback) {
  SocketPair pair;
  WriteAll(pair.fds[1], "x");
  auto token = std::make_shared<int>(7);
  std::weak_ptr<int> weak = token;
  WatchId id;
  int calls = 0;
  ASSERT_EQ(loop_->Watch(
                Poll(pair.fds[0], POLLIN, 0),
                [&, token = std::move(token)](const Entry&) {
                  ++calls;
                  loop_->Unwatch(id);
                  EXPECT_EQ(*token, 7) << "the callback outlives itself";
                },
                &id),
            0);
  RunUntil(loop_.get(), [&] { return calls > 0; });
  EXPECT_TRUE(weak.expired());
  loop_->RunOnce(0);
  EXPECT_EQ(calls, 1);
}

// --- Timers.

struct Countdown : Timer {
  Countdown() : Timer(Fire) {}
  static void Fire(Loop* loop, Timer* timer) {
    auto* self = static_cast<Countdown*>(timer);
    EXPECT_FALSE(timer->pending());
    EXPECT_GE(loop->now_ns(), timer->deadline_ns);
    ++self->fired;
    if (self->again_ns >= 0) {
      loop->SetTimer(timer, loop->now_ns() + self->again_ns);
    }
  }
  int fired = 0;
  int64_t again_ns = -1;
};

TEST_P(LoopTest, ATimerEndsTheWaitAndDoesNotSpin) {
  Countdown timer;
  int64_t start = loop_->UpdateNow();
  loop_->SetTimer(&timer, start + 5 * kMs);
  RunUntil(loop_.get(), [&] { return timer.fired > 0; });
  EXPECT_GE(loop_->now_ns(), start + 5 * kMs);
  // A few, where signals of the system interrupt the wait.
  EXPECT_LE(loop_->stats().turns, 50u);
  EXPECT_FALSE(timer.pending());
}

TEST_P(LoopTest, ACancelledTimerDoesNotFire) {
  Countdown timer;
  loop_->SetTimer(&timer, loop_->now_ns());
  loop_->CancelTimer(&timer);
  loop_->CancelTimer(&timer);
  loop_->RunOnce(0);
  EXPECT_EQ(timer.fired, 0);
}

TEST_P(LoopTest, TimersOfOneTurnAreBounded) {
  Countdown timer;
  timer.again_ns = 0;
  loop_->SetTimer(&timer, loop_->now_ns());
  loop_->RunOnce(0);
  EXPECT_EQ(timer.fired, static_cast<int>(Loop::kTimersPerTurn));
  bool posted = false;
  loop_->Post([&] { posted = true; });
  loop_->RunOnce(-1);
  EXPECT_TRUE(posted);
  loop_->CancelTimer(&timer);
}

struct ModelTimer : Timer {
  ModelTimer() : Timer(Fire) {}
  static void Fire(Loop* loop, Timer* timer);
  std::vector<ModelTimer*>* fired = nullptr;
};

void ModelTimer::Fire(Loop*, Timer* timer) {
  auto* self = static_cast<ModelTimer*>(timer);
  self->fired->push_back(self);
}

TEST_P(LoopTest, TimersFollowAModel) {
  std::mt19937_64 random(TestSeed());
  std::vector<ModelTimer*> fired;
  std::vector<std::unique_ptr<ModelTimer>> timers;
  for (int i = 0; i < 200; ++i) {
    timers.push_back(std::make_unique<ModelTimer>());
    timers.back()->fired = &fired;
  }
  std::map<ModelTimer*, int64_t> model;
  for (int round = 0; round < 400; ++round) {
    for (int i = 0; i < 20; ++i) {
      ModelTimer* timer = timers[random() % timers.size()].get();
      if (random() % 4 == 0) {
        loop_->CancelTimer(timer);
        model.erase(timer);
      } else {
        int64_t deadline =
            loop_->now_ns() + static_cast<int64_t>(random() % (2 * kMs));
        loop_->SetTimer(timer, deadline);
        model[timer] = deadline;
      }
    }
    fired.clear();
    ASSERT_GE(loop_->RunOnce(static_cast<int64_t>(random() % (kMs / 4))), 0);
    int64_t now = loop_->now_ns();
    int64_t last = 0;
    for (ModelTimer* timer : fired) {
      auto it = model.find(timer);
      ASSERT_NE(it, model.end()) << "fired without having been set";
      EXPECT_LE(it->second, now) << "fired early";
      EXPECT_GE(it->second, last) << "fired out of order";
      last = it->second;
      model.erase(it);
    }
    for (auto& [timer, deadline] : model) {
      ASSERT_TRUE(timer->pending());
      ASSERT_TRUE(deadline > now) << "did not fire";
    }
  }
  for (auto& timer : timers) loop_->CancelTimer(timer.get());
}

// The pattern that SetTimer's comment describes.
struct Lazy : Timer {
  Lazy() : Timer(Fire) {}
  static void Fire(Loop* loop, Timer* timer) {
    auto* self = static_cast<Lazy*>(timer);
    ++self->heap_fired;
    if (self->deadline > loop->now_ns()) {
      loop->SetTimer(timer, self->deadline);
    } else {
      self->expired_at = loop->now_ns();
    }
  }
  void Extend(Loop* loop, int64_t to) {
    deadline = to;
    if (!pending() || deadline_ns > to) loop->SetTimer(this, to);
  }
  int64_t deadline = 0;
  int64_t expired_at = 0;
  int heap_fired = 0;
};

TEST_P(LoopTest, ALazyDeadlineExpiresAtItsLastValue) {
  Lazy lazy;
  int64_t start = loop_->UpdateNow();
  lazy.Extend(loop_.get(), start + 2 * kMs);
  lazy.Extend(loop_.get(), start + 4 * kMs);
  lazy.Extend(loop_.get(), start + 7 * kMs);
  RunUntil(loop_.get(), [&] { return lazy.expired_at > 0; });
  EXPECT_GE(lazy.expired_at, start + 7 * kMs);
  EXPECT_LE(lazy.heap_fired, 2) << "not once for each extension";
}

TEST_P(LoopTest, DestroyingAPendingTimerAborts) {
  EXPECT_DEATH(
      {
        Countdown timer;
        loop_->SetTimer(&timer, loop_->now_ns() + kMs);
      },
      "destroyed while pending");
}

TEST_P(LoopTest, TheLoopsEndMakesTimersIdle) {
  Countdown timer;
  loop_->SetTimer(&timer, loop_->now_ns() + kMs);
  loop_.reset();
  EXPECT_FALSE(timer.pending());
  EXPECT_EQ(timer.fired, 0);
}

// --- Posts, Stop.

TEST_P(LoopTest, PostsOfEachThreadRunInOrder) {
  constexpr int kThreads = 4;
  constexpr int kPosts = 5000;
  std::vector<int> next(kThreads, 0);
  int out_of_order = 0;
  int total = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kPosts; ++i) {
        loop_->Post([&, t, i] {
          if (next[t]++ != i) ++out_of_order;
          if (++total == kThreads * kPosts) loop_->Stop();
        });
      }
    });
  }
  loop_->Run();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(total, kThreads * kPosts);
  EXPECT_EQ(out_of_order, 0);
  EXPECT_EQ(loop_->stats().posts, static_cast<uint64_t>(total));
}

TEST_P(LoopTest, EveryPostWakesAWaitingLoop) {
  // Ping-pong, so that each post finds the loop about to wait, or waiting.
  std::atomic<int> answered{0};
  std::thread peer([&] {
    for (int i = 0; i < 2000; ++i) {
      loop_->Post([&] { answered.fetch_add(1, std::memory_order_release); });
      while (answered.load(std::memory_order_acquire) == i) {
        std::this_thread::yield();
      }
    }
    loop_->Stop();
  });
  loop_->Run();
  peer.join();
  EXPECT_EQ(answered.load(), 2000);
}

TEST_P(LoopTest, PostsFromTheLoopsOwnThreadAreNotSleptOver) {
  loop_->RunOnce(0);
  int runs = 0;
  loop_->Post([&] {
    ++runs;
    loop_->Post([&] { ++runs; });
  });
  EXPECT_EQ(loop_->RunOnce(-1), 1);
  EXPECT_EQ(runs, 1) << "what a post posts runs a turn later";
  EXPECT_EQ(loop_->RunOnce(-1), 1);
  EXPECT_EQ(runs, 2);
}

TEST_P(LoopTest, StopEndsRunFromAnotherThread) {
  for (int i = 0; i < 300; ++i) {
    std::thread stopper([&] { loop_->Stop(); });
    loop_->Run();
    stopper.join();
  }
}

TEST_P(LoopTest, StopBeforeRunEndsItAtOnce) {
  loop_->Stop();
  loop_->Run();
  EXPECT_EQ(loop_->stats().turns, 0u);
}

TEST_P(LoopTest, PostsLeftOverAreDestroyedUnrun) {
  auto token = std::make_shared<int>(0);
  bool ran = false;
  for (int i = 0; i < 3; ++i) {
    loop_->Post([&ran, token] { ran = true; });
  }
  EXPECT_EQ(token.use_count(), 4);
  loop_.reset();
  EXPECT_EQ(token.use_count(), 1);
  EXPECT_FALSE(ran);
}

TEST_P(LoopTest, TheLoopKnowsItsThread) {
  loop_->RunOnce(0);
  EXPECT_TRUE(loop_->InLoopThread());
  bool elsewhere = true;
  std::thread([&] { elsewhere = loop_->InLoopThread(); }).join();
  EXPECT_FALSE(elsewhere);
}

// --- Deferred.

struct Chain {
  Loop* loop;
  int left;
  int runs = 0;
  static void Again(void* p) {
    auto* self = static_cast<Chain*>(p);
    ++self->runs;
    if (--self->left > 0) self->loop->Defer(Again, self);
  }
};

TEST_P(LoopTest, WhatADeferredFunctionDefersRunsATurnLater) {
  Chain chain{loop_.get(), 5};
  loop_->Defer(Chain::Again, &chain);
  for (int turn = 1; turn <= 3; ++turn) {
    loop_->RunOnce(-1);
    EXPECT_EQ(chain.runs, turn);
  }
  loop_.reset();
  EXPECT_EQ(chain.runs, 5) << "the loop's end runs the rest";
}

TEST_P(LoopTest, RunningFromWithinACallbackAborts) {
  // A loop is its process's own.
  EXPECT_DEATH(
      {
        auto loop = MakeLoop(GetParam());
        loop->Post([&] { loop->RunOnce(0); });
        loop->RunOnce(0);
      },
      "within its own callback");
}

TEST_P(LoopTest, OperationsLeftInFlightAreForgottenByTheLoopsEnd) {
  SocketPair pair;
  std::vector<int64_t> results;
  Reader reader;
  reader.results = &results;
  reader.fd = pair.fds[0];
  reader.buffer = reader.data;
  reader.size = sizeof reader.data;
  ASSERT_EQ(loop_->Submit(&reader, Reader::Done), 0);
  loop_->RunOnce(0);
  EXPECT_TRUE(reader.in_flight());
  loop_.reset();
  EXPECT_FALSE(reader.in_flight());
  EXPECT_THAT(results, IsEmpty());
}

TEST_P(LoopTest, WakeEntriesGathersABatchForSomeTime) {
  Loop::Options options;
  options.queue.engine = GetParam();
  options.wake_entries = 4;
  options.wake_delay_ns = 5 * kMs;
  auto loop = *Loop::Create(options);
  SocketPair pair;
  std::vector<int64_t> results;
  // A signal of the system may end a wait early, but not all of them.
  int64_t longest = 0;
  for (size_t i = 0; i < 20 && longest < 5 * kMs; ++i) {
    Reader reader;
    reader.results = &results;
    reader.fd = pair.fds[0];
    reader.buffer = reader.data;
    reader.size = sizeof reader.data;
    ASSERT_EQ(loop->Submit(&reader, Reader::Done), 0);
    WriteAll(pair.fds[1], "x");
    int64_t start = loop->UpdateNow();
    RunUntil(loop.get(), [&] { return results.size() > i; });
    longest = std::max(longest, loop->now_ns() - start);
  }
  EXPECT_GE(longest, 5 * kMs) << "one entry waits for three more";
  EXPECT_THAT(results, testing::Each(1));
}

}  // namespace
}  // namespace kevent::loop
