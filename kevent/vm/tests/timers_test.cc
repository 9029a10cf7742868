// SPDX-License-Identifier: Apache-2.0
//
// Timers, and events that the user makes.
#include <errno.h>
#include <time.h>

#include <map>
#include <thread>
#include <tuple>

#include "kevent/vm/tests/fixture.h"

namespace kevent::raw {
namespace {

// ---- Timers ----

using TimerCase = std::tuple<int, Reading>;

class TimerTest : public QueueTest,
                  public testing::WithParamInterface<TimerCase> {
 protected:
  void SetUp() override {
    QueueTest::SetUp();
    Reopen({}, std::get<1>(GetParam()));
  }
  int clock() const { return std::get<0>(GetParam()); }
  int64_t Now() const { return NowNs(clock()); }
  kevent_sqe Timer(int64_t time, int64_t period = 0, uint16_t flags = 0,
                   uint64_t user_data = 3) const {
    return AddTimer(time, period, flags, user_data, clock());
  }
  kevent_entry ExpectTimer(uint64_t handle) {
    kevent_entry entry = Next();
    EXPECT_EQ(handle, entry.handle) << Describe(entry);
    EXPECT_EQ(uint16_t{KEVENT_SOURCE_TIMER}, entry.source);
    EXPECT_EQ(0u, entry.events);
    EXPECT_GE(entry.data[0], 1u);
    EXPECT_EQ(0, entry.result);
    return entry;
  }
  // Waits that long by another queue: this one's entries stay unread.
  static void PassUnread(int64_t ns) {
    Queue other;
    ASSERT_EQ(0, other.Open({8, 8, 0}));
    kevent_sqe timer = AddTimer(ns);
    ASSERT_EQ(0, other.Make(&timer));
    EXPECT_EQ(1, other.Wait(1, PatienceNs()));
  }
  // Waits until `time` of this clock has come, by another timer of the queue
  // with nothing before it.
  void PassUntil(int64_t time) {
    const uint64_t handle = MustAdd(
        AddTimer(time, 0, KEVENT_ABSOLUTE | KEVENT_ALWAYS_QUEUE, 99, clock()));
    kevent_entry entry = Next();
    EXPECT_EQ(handle, entry.handle) << "unexpected " << Describe(entry);
  }
};

INSTANTIATE_TEST_SUITE_P(
    Clocks, TimerTest,
    testing::Combine(testing::Values(CLOCK_MONOTONIC, CLOCK_REALTIME,
                                     CLOCK_BOOTTIME),
                     testing::Values(Reading::kRing, Reading::kCopies)),
    [](const auto& info) {
      const int clock = std::get<0>(info.param);
      return std::string(clock == CLOCK_MONOTONIC  ? "monotonic_"
                         : clock == CLOCK_REALTIME ? "realtime_"
                                                   : "boottime_") +
             ReadingName(std::get<1>(info.param));
    });

TEST_P(TimerTest, FiresOnce) {
  const int64_t start = Now();
  const uint64_t handle = MustAdd(Timer(20 * kMs));
  kevent_entry entry = ExpectTimer(handle);
  EXPECT_GE(Now(), start + 20 * kMs);
  EXPECT_EQ(1u, entry.data[0]);
  EXPECT_EQ(3u, entry.user_data);
  EXPECT_TRUE(entry.flags & KEVENT_ENTRY_DONE);
  EXPECT_EQ(-ENOENT, queue().Remove(handle));
  ExpectNothing();
}

TEST_P(TimerTest, FiresAtATime) {
  const int64_t time = Now() + 20 * kMs;
  const uint64_t handle = MustAdd(Timer(time, 0, KEVENT_ABSOLUTE));
  EXPECT_TRUE(ExpectTimer(handle).flags & KEVENT_ENTRY_DONE);
  EXPECT_GE(Now(), time);
}

TEST_P(TimerTest, TimesThatAreOver) {
  for (auto [time, flags] : {std::pair<int64_t, uint16_t>{0, 0},
                             {0, KEVENT_ABSOLUTE},
                             {1, KEVENT_ABSOLUTE},
                             {Now() - kSecond, KEVENT_ABSOLUTE}}) {
    const uint64_t handle = MustAdd(
        Timer(time, 0, static_cast<uint16_t>(flags | KEVENT_ALWAYS_QUEUE)));
    kevent_entry entry = ExpectTimer(handle);
    EXPECT_EQ(1u, entry.data[0]);
    EXPECT_TRUE(entry.flags & KEVENT_ENTRY_DONE);
  }
  ExpectNothing();
}

TEST_P(TimerTest, InTheOrderOfTheirTimes) {
  const int64_t base = Now() + 30 * kMs;
  std::vector<uint64_t> handles(10);
  for (int i = 9; i >= 0; --i) {
    handles[i] = MustAdd(Timer(base + i * 5 * kMs, 0, KEVENT_ABSOLUTE));
  }
  for (int i = 0; i < 10; ++i) ExpectTimer(handles[i]);
  ExpectNothing();
}

TEST_P(TimerTest, PeriodsAreCounted) {
  constexpr int64_t kPeriod = 5 * kMs;
  const int64_t before = Now();
  const uint64_t handle = MustAdd(Timer(kPeriod, kPeriod));
  const int64_t after = Now();
  uint64_t fired = 0;
  for (int i = 0; i < 5; ++i) {
    kevent_entry entry = ExpectTimer(handle);
    EXPECT_TRUE(entry.flags & KEVENT_ENTRY_MORE);
    fired += entry.data[0];
    const int64_t possible = (Now() - before) / kPeriod;
    EXPECT_LE(fired, static_cast<uint64_t>(possible));
  }
  EXPECT_GE(fired, 5u);
  // Those while an entry is unread come with the next one.
  kevent_sqe other =
      AddTimer(after + 100 * kPeriod, 0, KEVENT_ABSOLUTE, 7, clock());
  ASSERT_EQ(0, queue().Make(&other));
  for (;;) {
    ASSERT_GT(queue().Wait(2, PatienceNs()), 1) << "one of each";
    kevent_entry entry = Next();
    if (entry.handle == handle) {
      fired += entry.data[0];
      entry = Next();
    }
    if (entry.handle == other.handle) break;
    ASSERT_EQ(handle, entry.handle);
    fired += entry.data[0];
  }
  EXPECT_GE(Now(), after + 100 * kPeriod);
  EXPECT_EQ(0, queue().Disable(handle));
  EXPECT_LE(fired, static_cast<uint64_t>((Now() - before) / kPeriod));
}

TEST_P(TimerTest, NoneIsLostWhileUnread) {
  constexpr int64_t kPeriod = kMs;
  const int64_t base = Now();
  const uint64_t handle =
      MustAdd(Timer(base + kPeriod, kPeriod, KEVENT_ABSOLUTE));
  // Its own queue waits, so that this one's entry stays unread.
  Queue other;
  ASSERT_EQ(0, other.Open());
  kevent_sqe late =
      AddTimer(base + 100 * kPeriod, 0, KEVENT_ABSOLUTE, 0, clock());
  ASSERT_EQ(0, other.Make(&late));
  ASSERT_EQ(1, other.Wait(1, PatienceNs()));
  uint64_t fired = 0;
  int entries = 0;
  for (int64_t deadline = NowNs() + PatienceNs(); fired < 100; ++entries) {
    ASSERT_LT(NowNs(), deadline) << fired;
    fired += ExpectTimer(handle).data[0];
  }
  EXPECT_LE(fired, static_cast<uint64_t>((Now() - base) / kPeriod));
  EXPECT_EQ(0, queue().Remove(handle));
}

TEST_P(TimerTest, OneShotWithAPeriod) {
  const uint64_t handle = MustAdd(Timer(kMs, kMs, KEVENT_ONESHOT));
  EXPECT_TRUE(ExpectTimer(handle).flags & KEVENT_ENTRY_DONE);
  EXPECT_EQ(-ENOENT, queue().Remove(handle));
  PassUntil(Now() + 10 * kMs);
}

TEST_P(TimerTest, DispatchSilencesIt) {
  const uint64_t handle = MustAdd(Timer(kMs, kMs, KEVENT_DISPATCH));
  EXPECT_TRUE(ExpectTimer(handle).flags & KEVENT_ENTRY_MORE);
  PassUntil(Now() + 10 * kMs);
  const int enabled = queue().Enable(handle);
  EXPECT_EQ(0, enabled);
  ExpectTimer(handle);
  PassUntil(Now() + 10 * kMs);
}

TEST_P(TimerTest, DisableAndEnable) {
  const uint64_t handle = MustAdd(Timer(20 * kMs, 5 * kMs));
  EXPECT_EQ(0, queue().Disable(handle));
  PassUntil(Now() + 50 * kMs);
  EXPECT_EQ(0, queue().Enable(handle));
  ExpectTimer(handle);
}

TEST_P(TimerTest, Removed) {
  const int64_t time = Now() + 20 * kMs;
  std::vector<uint64_t> handles;
  for (int i = 0; i < 20; ++i) {
    handles.push_back(MustAdd(Timer(time + i * 10'000, 0, KEVENT_ABSOLUTE)));
  }
  handles.push_back(MustAdd(Timer(20 * kMs, KEVENT_TIMER_MIN_NS * 1000)));
  if (Now() >= time) GTEST_SKIP() << "this machine is too slow for it";
  for (uint64_t handle : handles) {
    // The last one may be firing at this moment.
    EXPECT_EQ(0, queue().Remove(handle));
  }
  if (queue().Unread() > 0) GTEST_SKIP() << "this machine is too slow for it";
  PassUntil(time + 30 * kMs);
  ExpectNothing();
}

TEST_P(TimerTest, Modified) {
  const uint64_t handle = MustAdd(Timer(3600 * kSecond));
  kevent_sqe change = Change(KEVENT_OP_MODIFY, handle);
  change.arg[0] = 10 * kMs;
  change.user_data = 4;
  const int64_t start = Now();
  EXPECT_EQ(0, queue().Make(&change));
  EXPECT_EQ(4u, ExpectTimer(handle).user_data);
  EXPECT_GE(Now(), start + 10 * kMs);
  const uint64_t soon = MustAdd(Timer(kSecond));
  change = Change(KEVENT_OP_MODIFY, soon);
  change.arg[0] = 3600 * kSecond;
  EXPECT_EQ(0, queue().Make(&change));
  change.arg[0] = 0;
  change.result = 0;
  change.arg[1] = 1;
  EXPECT_EQ(-EINVAL, queue().Make(&change));
  PassUntil(Now() + kSecond);
  EXPECT_EQ(0, queue().Remove(soon));
}

TEST_P(TimerTest, AModifyThatFailsChangesNothing) {
  const uint64_t handle = MustAdd(Timer(kMs, kMs));
  ASSERT_GE(queue().Wait(1, PatienceNs()), 1);
  PassUnread(20 * kMs);
  for (auto [time, period] : {std::pair<uint64_t, uint64_t>{0, 1},
                              {0, uint64_t{1} << 63},
                              {uint64_t{1} << 63, 0}}) {
    kevent_sqe change = Change(KEVENT_OP_MODIFY, handle);
    change.arg[0] = time;
    change.arg[1] = period;
    change.user_data = 8;
    ASSERT_EQ(-EINVAL, queue().Make(&change));
  }
  for (int i = 0; i < 3; ++i) EXPECT_EQ(3u, ExpectTimer(handle).user_data);
  EXPECT_EQ(0, queue().Remove(handle));
}

TEST_P(TimerTest, TheShortestPeriod) {
  const uint64_t handle = MustAdd(Timer(0, KEVENT_TIMER_MIN_NS));
  // It must not keep a processor from everything else.
  ASSERT_GE(queue().Wait(1, PatienceNs()), 1);
  EXPECT_EQ(0, queue().Remove(handle));
  kevent_entry entry;
  ASSERT_GE(queue().Look(), 0);
  while (queue().Unread() > 0) {
    entry = Next();
    EXPECT_EQ(handle, entry.handle);
  }
  ExpectNothing();
}

// ---- User events ----

class UserTest : public QueueTest, public testing::WithParamInterface<Reading> {
 protected:
  void SetUp() override {
    QueueTest::SetUp();
    Reopen({}, GetParam());
  }
};

INSTANTIATE_TEST_SUITE_P(Readings, UserTest,
                         testing::Values(Reading::kRing, Reading::kCopies),
                         [](const auto& info) {
                           return std::string(ReadingName(info.param));
                         });

TEST_P(UserTest, Happens) {
  const uint64_t handle = MustAdd(AddUser(0, 17));
  ExpectNothing();
  for (uint64_t i = 1; i <= 3; ++i) {
    EXPECT_EQ(0, queue().Ready(handle, i << 40));
    kevent_entry entry = Expect(handle, 0);
    EXPECT_EQ(uint16_t{KEVENT_SOURCE_USER}, entry.source);
    EXPECT_EQ(17u, entry.user_data);
    EXPECT_EQ(i << 40, entry.data[0]);
    EXPECT_EQ(1u, entry.data[1]);
    EXPECT_EQ(0u, entry.data[2]);
    EXPECT_TRUE(entry.flags & KEVENT_ENTRY_MORE);
    ExpectNothing();
  }
}

TEST_P(UserTest, NoneIsLost) {
  const uint64_t handle = MustAdd(AddUser());
  for (uint64_t i = 1; i <= 100; ++i) EXPECT_EQ(0, queue().Ready(handle, i));
  uint64_t count = 0, last = 0;
  while (count < 100) {
    kevent_entry entry = Expect(handle, 0);
    ASSERT_GE(entry.data[1], 1u);
    count += entry.data[1];
    EXPECT_EQ(count, entry.data[0]) << "the last one it stands for";
    last = entry.data[0];
  }
  EXPECT_EQ(100u, last);
  ExpectNothing();
}

TEST_P(UserTest, OneShotDispatchAndDisabled) {
  const uint64_t once = MustAdd(AddUser(KEVENT_ONESHOT));
  EXPECT_EQ(0, queue().Ready(once));
  EXPECT_TRUE(Expect(once, 0).flags & KEVENT_ENTRY_DONE);
  EXPECT_EQ(-ENOENT, queue().Ready(once));
  const uint64_t quiet = MustAdd(AddUser(KEVENT_DISPATCH));
  EXPECT_EQ(0, queue().Ready(quiet, 1));
  EXPECT_EQ(1u, Expect(quiet, 0).data[0]);
  EXPECT_EQ(0, queue().Ready(quiet, 2));
  ExpectNothing();
  EXPECT_EQ(0, queue().Enable(quiet));
  ExpectNothing();
  EXPECT_EQ(0, queue().Ready(quiet, 3));
  EXPECT_EQ(3u, Expect(quiet, 0).data[0]);
  const uint64_t silent = MustAdd(AddUser(KEVENT_DISABLED));
  EXPECT_EQ(0, queue().Ready(silent, 4));
  ExpectNothing();
  EXPECT_EQ(0, queue().Enable(silent));
  EXPECT_EQ(0, queue().Ready(silent, 5));
  EXPECT_EQ(5u, Expect(silent, 0).data[0]);
}

TEST_P(UserTest, ModifyChangesWhatItSays) {
  const uint64_t handle = MustAdd(AddUser(0, 1));
  kevent_sqe change = Change(KEVENT_OP_MODIFY, handle);
  change.user_data = 2;
  EXPECT_EQ(0, queue().Make(&change));
  EXPECT_EQ(0, queue().Ready(handle));
  EXPECT_EQ(2u, Expect(handle, 0).user_data);
}

TEST_P(UserTest, FromOtherThreads) {
  constexpr int kThreads = 4;
  constexpr uint64_t kEach = 200;
  std::vector<uint64_t> handles;
  for (int i = 0; i < kThreads; ++i) {
    handles.push_back(MustAdd(AddUser(0, static_cast<uint64_t>(i))));
  }
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([this, handle = handles[i]] {
      for (uint64_t k = 1; k <= kEach; ++k) {
        EXPECT_EQ(0, queue().Ready(handle, k));
      }
    });
  }
  std::map<uint64_t, uint64_t> counts;
  for (uint64_t total = 0; total < kThreads * kEach;) {
    kevent_entry entry = Next();
    if (entry.handle == kNoHandle) break;
    counts[entry.handle] += entry.data[1];
    total += entry.data[1];
    EXPECT_EQ(counts[entry.handle], entry.data[0]) << "out of order";
  }
  for (std::thread& thread : threads) thread.join();
  for (uint64_t handle : handles) EXPECT_EQ(kEach, counts[handle]);
  ExpectNothing();
}

}  // namespace
}  // namespace kevent::raw
