// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include <atomic>
#include <thread>

#include "kevent/vm/tests/fixture.h"

namespace kevent::raw {
namespace {

class SignalTest : public QueueTest,
                   public testing::WithParamInterface<Reading> {
 protected:
  void SetUp() override {
    sigset_t mask;
    sigemptyset(&mask);
    for (int signo : {SIGUSR1, SIGUSR2, SIGRTMIN + 1, SIGCHLD}) {
      sigaddset(&mask, signo);
    }
    pthread_sigmask(SIG_BLOCK, &mask, &before_);
    QueueTest::SetUp();
    Reopen({}, GetParam());
  }
  void TearDown() override {
    QueueTest::TearDown();
    const timespec none = {0, 0};
    sigset_t all;
    sigfillset(&all);
    while (sigtimedwait(&all, nullptr, &none) > 0) {
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  kevent_entry ExpectSignal(uint64_t handle, int signo) {
    kevent_entry entry = Next();
    EXPECT_EQ(handle, entry.handle) << Describe(entry);
    EXPECT_EQ(uint16_t{KEVENT_SOURCE_SIGNAL}, entry.source);
    EXPECT_EQ(static_cast<uint32_t>(signo), entry.events);
    return entry;
  }
  static bool IsPending(int signo) {
    sigset_t pending;
    sigpending(&pending);
    return sigismember(&pending, signo);
  }

 private:
  sigset_t before_;
};

INSTANTIATE_TEST_SUITE_P(Readings, SignalTest,
                         testing::Values(Reading::kRing, Reading::kCopies),
                         [](const auto& info) {
                           return std::string(ReadingName(info.param));
                         });

TEST_P(SignalTest, IsTakenByEnter) {
  const uint64_t handle = MustAdd(AddSignal(SIGUSR1, 0, 11));
  ExpectNothing();
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(queue().Pending());
    ASSERT_EQ(0, kill(getpid(), SIGUSR1));
    EXPECT_TRUE(queue().Pending());
    EXPECT_EQ(0u, queue().Unread());
    EXPECT_TRUE(IsPending(SIGUSR1));
    EXPECT_TRUE(PollNow(queue().fd(), POLLIN) & POLLIN);
    kevent_entry entry = ExpectSignal(handle, SIGUSR1);
    EXPECT_EQ(11u, entry.user_data);
    EXPECT_EQ(SI_USER, entry.result);
    EXPECT_EQ(static_cast<uint32_t>(getpid()),
              static_cast<uint32_t>(entry.data[0] >> 32));
    EXPECT_EQ(getuid(), static_cast<uint32_t>(entry.data[0]));
    EXPECT_EQ(0u, entry.data[1]);
    EXPECT_TRUE(entry.flags & KEVENT_ENTRY_MORE);
    EXPECT_FALSE(IsPending(SIGUSR1));
    ExpectNothing();
    EXPECT_FALSE(queue().Pending());
  }
}

TEST_P(SignalTest, QueuedValuesInTheirOrder) {
  const int signo = SIGRTMIN + 1;
  const uint64_t handle = MustAdd(AddSignal(signo));
  for (uint64_t i = 1; i <= 20; ++i) {
    sigval value;
    value.sival_ptr = reinterpret_cast<void*>(i * 0x100000001);
    ASSERT_EQ(0, sigqueue(getpid(), signo, value));
  }
  for (uint64_t i = 1; i <= 20; ++i) {
    kevent_entry entry = ExpectSignal(handle, signo);
    EXPECT_EQ(i * 0x100000001, entry.data[1]);
    EXPECT_EQ(SI_QUEUE, entry.result);
  }
  ExpectNothing();
  EXPECT_FALSE(IsPending(signo));
}

TEST_P(SignalTest, PendingBeforeItIsAdded) {
  ASSERT_EQ(0, kill(getpid(), SIGUSR1));
  kevent_sqe add = AddSignal(SIGUSR1, KEVENT_ALWAYS_QUEUE);
  ASSERT_EQ(0, queue().Make(&add));
  ExpectSignal(add.handle, SIGUSR1);
}

TEST_P(SignalTest, FromAnotherProcess) {
  const uint64_t handle = MustAdd(AddSignal(SIGUSR2));
  const pid_t us = getpid();
  Child child([us] { CHILD_CHECK(kill(us, SIGUSR2) == 0); });
  kevent_entry entry = ExpectSignal(handle, SIGUSR2);
  EXPECT_EQ(static_cast<uint32_t>(child.pid()),
            static_cast<uint32_t>(entry.data[0] >> 32));
  EXPECT_CHILD_OK(child);
}

TEST_P(SignalTest, WakesAWaitingThread) {
  const uint64_t handle = MustAdd(AddSignal(SIGUSR1));
  std::thread sender([] { kill(getpid(), SIGUSR1); });
  ExpectSignal(handle, SIGUSR1);
  sender.join();
}

TEST_P(SignalTest, EachHasItsOwnInterest) {
  const uint64_t one = MustAdd(AddSignal(SIGUSR1));
  const uint64_t two = MustAdd(AddSignal(SIGUSR2));
  ASSERT_EQ(0, kill(getpid(), SIGUSR2));
  ExpectSignal(two, SIGUSR2);
  ASSERT_EQ(0, kill(getpid(), SIGUSR1));
  ExpectSignal(one, SIGUSR1);
  EXPECT_EQ(0, queue().Remove(one));
  ASSERT_EQ(0, kill(getpid(), SIGUSR1));
  ExpectNothing();
  EXPECT_TRUE(IsPending(SIGUSR1)) << "it is the caller's again";
}

TEST_P(SignalTest, OneShotDispatchAndDisabled) {
  const uint64_t once = MustAdd(AddSignal(SIGUSR1, KEVENT_ONESHOT));
  ASSERT_EQ(0, kill(getpid(), SIGUSR1));
  EXPECT_TRUE(ExpectSignal(once, SIGUSR1).flags & KEVENT_ENTRY_DONE);
  EXPECT_EQ(-ENOENT, queue().Remove(once));
  ASSERT_EQ(0, kill(getpid(), SIGUSR1));
  ExpectNothing();
  EXPECT_TRUE(IsPending(SIGUSR1));
  const uint64_t quiet = MustAdd(AddSignal(SIGUSR2, KEVENT_DISPATCH));
  ASSERT_EQ(0, kill(getpid(), SIGUSR2));
  ExpectSignal(quiet, SIGUSR2);
  EXPECT_GE(queue().Enable(quiet), 0);
  ASSERT_EQ(0, kill(getpid(), SIGUSR2));
  ExpectSignal(quiet, SIGUSR2);
}

TEST_P(SignalTest, SignalsOfATimerOfThePosixKind) {
  const uint64_t handle = MustAdd(AddSignal(SIGRTMIN + 1));
  sigevent event = {};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGRTMIN + 1;
  event.sigev_value.sival_int = 42;
  timer_t timer;
  ASSERT_EQ(0, timer_create(CLOCK_MONOTONIC, &event, &timer));
  itimerspec spec = {};
  spec.it_value.tv_nsec = kMs;
  ASSERT_EQ(0, timer_settime(timer, 0, &spec, nullptr));
  kevent_entry entry = ExpectSignal(handle, SIGRTMIN + 1);
  EXPECT_EQ(SI_TIMER, entry.result);
  EXPECT_EQ(42u, static_cast<uint32_t>(entry.data[1]));
  EXPECT_EQ(0, timer_delete(timer));
}

TEST_P(SignalTest, ARemovedInterestLeavesNothingToDo) {
  const uint64_t handle = MustAdd(AddSignal(SIGUSR1));
  EXPECT_EQ(0, queue().Remove(handle));
  // Not for ever on the way to find out.
  EXPECT_EQ(0, queue().Wait(1, 20 * kMs));
  EXPECT_FALSE(queue().Pending());
  EXPECT_EQ(0, PollNow(queue().fd(), POLLIN) & POLLIN);
}

TEST_P(SignalTest, ArrivedWhileItWasSilent) {
  const uint64_t handle = MustAdd(AddSignal(SIGUSR1, KEVENT_DISPATCH));
  ASSERT_EQ(0, kill(getpid(), SIGUSR1));
  ExpectSignal(handle, SIGUSR1);
  ASSERT_EQ(0, kill(getpid(), SIGUSR1));
  ExpectNothing();
  EXPECT_TRUE(IsPending(SIGUSR1));
  // It waits with the process, and is taken once it may be told.
  EXPECT_GE(queue().Enable(handle), 0);
  ExpectSignal(handle, SIGUSR1);
  EXPECT_FALSE(IsPending(SIGUSR1));
}

TEST_P(SignalTest, OfOneThread) {
  // Two wait. Only the one it is sent to can take the signal, whoever is woken
  // first; the entry is then anybody's.
  const uint64_t handle = MustAdd(AddSignal(SIGUSR1));
  const uint64_t user = MustAdd(AddUser());
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> signals = 0, users = 0;
    auto body = [&] {
      kevent_entry entry = {};
      ASSERT_EQ(1, queue().Copy({&entry, 1}, 1, PatienceNs()));
      if (entry.handle == handle) {
        EXPECT_EQ(SI_TKILL, entry.result);
        ++signals;
      } else {
        EXPECT_EQ(user, entry.handle) << Describe(entry);
        ++users;
      }
    };
    std::thread one(body);
    std::thread two(body);
    for (int i = 0; i < round % 4; ++i) sched_yield();
    ASSERT_EQ(0,
              pthread_kill((round % 2 ? one : two).native_handle(), SIGUSR1));
    const int64_t deadline = NowNs() + PatienceNs() / 2;
    while (signals == 0 && NowNs() < deadline) sched_yield();
    EXPECT_EQ(1, signals);
    EXPECT_EQ(0, queue().Ready(user));
    if (signals == 0) {
      EXPECT_EQ(0, queue().Ready(user));
    }
    one.join();
    two.join();
    EXPECT_EQ(2, signals + users);
    if (HasFailure()) break;
  }
}

}  // namespace
}  // namespace kevent::raw
