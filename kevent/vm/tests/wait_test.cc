// SPDX-License-Identifier: Apache-2.0
//
// How entries reach who waits for them: by the mapped ring without any call, by
// poll(2), by KEVENT_ENTER.
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "kevent/vm/tests/fixture.h"
#include "kevent/vm/tests/hostile.h"

namespace kevent::raw {
namespace {

// ---- Proof (a): no call delivers ----

class SpinTest : public QueueTest,
                 public testing::WithParamInterface<uint16_t> {};

INSTANTIATE_TEST_SUITE_P(Modes, SpinTest, testing::Values(0, KEVENT_EDGE),
                         [](const auto& info) {
                           return std::string(info.param ? "edge" : "level");
                         });

struct Spinner {
  Queue* queue;
  std::atomic<bool> running = false;
  std::atomic<bool> stop = false;
  std::array<std::atomic<uint32_t>, 5> seen = {};  // by user_data
};

void* Spin(void* argument) {
  auto* spinner = static_cast<Spinner*>(argument);
  ForbidCalls();
  spinner->running = true;
  kevent_entry entry;
  while (!spinner->stop) {
    while (spinner->queue->Take(&entry)) {
      if (entry.user_data < spinner->seen.size()) {
        ++spinner->seen[entry.user_data];
      }
    }
  }
  EndThread();
}

TEST_P(SpinTest, EntriesComeWithoutAnyCall) {
  enum { kTimer, kTcp, kPipe, kUser, kListener, kKinds };
  Pair tcp = TcpPair();
  Pair pipe = PipePair();
  Fd listener = Listen();
  const uint16_t flags = GetParam();
  // Not a period: that one goes on only with KEVENT_ENTER.
  for (int i = 1; i <= 3; ++i)
    MustAdd(AddTimer(i * 10 * kMs, 0, flags, kTimer));
  MustAdd(AddSocket(tcp.ours.get(), KEVENT_SOCKET_RECV, flags, kTcp));
  MustAdd(AddPoll(pipe.ours.get(), KEVENT_IN, flags, kPipe));
  const uint64_t user = MustAdd(AddUser(flags, kUser));
  MustAdd(AddSocket(listener.get(), KEVENT_SOCKET_ACCEPT, flags, kListener));

  Spinner spinner;
  spinner.queue = &queue();
  pthread_t thread;
  ASSERT_EQ(0, pthread_create(&thread, nullptr, Spin, &spinner));
  const int64_t deadline = NowNs() + PatienceNs();
  auto until = [&](auto condition) {
    while (!condition()) {
      if (NowNs() > deadline) return false;
      sched_yield();
    }
    return true;
  };
  EXPECT_TRUE(until([&] { return spinner.running.load(); }));
  std::vector<Fd> clients;
  for (uint32_t round = 1; round <= 3; ++round) {
    Send(tcp.peer.get(), "x");
    Send(pipe.peer.get(), "x");
    clients.push_back(ConnectTo(listener));
    std::thread other([&] { EXPECT_EQ(0, queue().Ready(user)); });
    other.join();
    for (uint32_t kind = 0; kind < kKinds; ++kind) {
      EXPECT_TRUE(until([&] { return spinner.seen[kind] >= round; }))
          << "kind " << kind << ", round " << round;
    }
  }
  spinner.stop = true;
  EXPECT_EQ(0, pthread_join(thread, nullptr));
}

TEST(SpinFilterTest, Kills) {
  for (long call : {SYS_ioctl, SYS_read, SYS_poll, SYS_futex}) {
    Child child([&] {
      ForbidCalls();
      syscall(call, -1, 0, 0, 0, 0, 0);
    });
    const int status = child.Wait();
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) << call;
  }
}

// ---- poll(2) on the queue ----

class PollTest : public QueueTest {
 protected:
  void SetUp() override {
    QueueTest::SetUp();
    user_ = MustAdd(AddUser());
  }
  uint64_t user_ = 0;
};

TEST_F(PollTest, ShowsWhetherThereIsAnything) {
  EXPECT_EQ(0, PollNow(queue().fd(), POLLIN));
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(0, queue().Ready(user_));
    EXPECT_EQ(POLLIN, PollNow(queue().fd(), POLLIN) & POLLIN);
    Next();
    EXPECT_EQ(0, PollNow(queue().fd(), POLLIN) & POLLIN);
  }
}

TEST_F(PollTest, Wakes) {
  for (int i = 0; i < 5; ++i) {
    std::thread other([&] { EXPECT_EQ(0, queue().Ready(user_)); });
    EXPECT_TRUE(WaitPoll(queue().fd(), POLLIN));
    other.join();
    Next();
  }
  MustAdd(AddTimer(10 * kMs));
  EXPECT_TRUE(WaitPoll(queue().fd(), POLLIN));
  Next();
}

TEST_F(PollTest, LevelInterestThatIsToBeTested) {
  Pair pipe = PipePair();
  const uint64_t handle = MustAdd(AddPoll(pipe.ours.get(), KEVENT_IN));
  Send(pipe.peer.get(), "x");
  Expect(handle, KEVENT_IN);
  // Its entry has been read, and nobody has looked since.
  EXPECT_TRUE(queue().Pending());
  EXPECT_TRUE(WaitPoll(queue().fd(), POLLIN));
  Expect(handle, KEVENT_IN);
  Drain(pipe.ours.get());
  ExpectNothing();
  EXPECT_FALSE(queue().Pending());
  EXPECT_EQ(0, PollNow(queue().fd(), POLLIN) & POLLIN);
}

TEST_F(PollTest, InsideEpoll) {
  for (uint32_t flags : {0u, uint32_t{EPOLLET}}) {
    Fd epoll(epoll_create1(EPOLL_CLOEXEC));
    epoll_event event = {};
    event.events = EPOLLIN | flags;
    ASSERT_EQ(0, epoll_ctl(epoll.get(), EPOLL_CTL_ADD, queue().fd(), &event));
    EXPECT_EQ(0, epoll_wait(epoll.get(), &event, 1, 0));
    const int patience = static_cast<int>(PatienceNs() / kMs);
    for (int i = 0; i < 3; ++i) {
      std::thread other([&] { EXPECT_EQ(0, queue().Ready(user_)); });
      EXPECT_EQ(1, epoll_wait(epoll.get(), &event, 1, patience));
      other.join();
      Next();
      ExpectNothing();
      // An edge of the entries just read may be left.
      while (flags && epoll_wait(epoll.get(), &event, 1, 0) == 1) {
      }
    }
  }
}

TEST_F(PollTest, AskedByAsynchronousIo) {
  // Each completion signals an eventfd that the very queue watches.
  aio_context_t context = 0;
  if (syscall(SYS_io_setup, 8, &context) != 0) {
    GTEST_SKIP() << "no aio: " << strerror(errno);
  }
  const int event = Own(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  const uint64_t handle = MustAdd(AddPoll(event, KEVENT_IN));
  std::array<iocb, 3> blocks = {};
  for (iocb& block : blocks) {
    block.aio_lio_opcode = IOCB_CMD_POLL;
    block.aio_fildes = static_cast<uint32_t>(queue().fd());
    block.aio_buf = POLLIN;
    block.aio_flags = IOCB_FLAG_RESFD;
    block.aio_resfd = static_cast<uint32_t>(event);
    iocb* pointer = &block;
    ASSERT_EQ(1, syscall(SYS_io_submit, context, 1, &pointer))
        << strerror(errno);
  }
  EXPECT_EQ(0, queue().Ready(user_));
  std::array<io_event, 3> events;
  timespec patience = {};
  patience.tv_sec = PatienceNs() / kSecond;
  EXPECT_EQ(3,
            syscall(SYS_io_getevents, context, 3, 3, events.data(), &patience));
  EXPECT_EQ(user_, Next().handle);
  Expect(handle, KEVENT_IN);
  EXPECT_EQ(0, syscall(SYS_io_destroy, context));
}

TEST_F(PollTest, TwoQueuesWatchedByEpollsOfEachOther) {
  // A queue in an epoll is not watched by another queue, not through it either.
  Fd epoll(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event = {};
  event.events = EPOLLIN;
  ASSERT_EQ(0, epoll_ctl(epoll.get(), EPOLL_CTL_ADD, queue().fd(), &event));
  Queue other;
  ASSERT_EQ(0, other.Open());
  kevent_sqe add = AddPoll(epoll.get(), KEVENT_IN);
  EXPECT_EQ(-EINVAL, other.Make(&add));
  EXPECT_EQ(-EINVAL, queue().Make(&add));
}

// ---- KEVENT_ENTER: waiting ----

class WaitTest : public QueueTest {
 protected:
  void SetUp() override {
    QueueTest::SetUp();
    user_ = MustAdd(AddUser());
  }
  static int64_t Elapsed(int64_t start) { return NowNs() - start; }

  uint64_t user_ = 0;
};

TEST_F(WaitTest, ZeroDoesNotWait) {
  EXPECT_EQ(0, queue().Wait(0, -1));
  EXPECT_EQ(0, queue().Wait(1, 0));
  EXPECT_EQ(0, queue().Wait(5, 0));
  ASSERT_EQ(0, queue().Ready(user_));
  EXPECT_EQ(1, queue().Wait(0, -1));
  EXPECT_EQ(1, queue().Wait(5, 0));
}

TEST_F(WaitTest, RelativeTimeout) {
  for (int clock : {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME}) {
    kevent_enter enter = MakeEnter();
    enter.min = 1;
    enter.timeout_ns = 30 * kMs;
    enter.clock = static_cast<uint32_t>(clock);
    const int64_t start = NowNs(clock);
    EXPECT_EQ(0, queue().Enter(&enter));
    EXPECT_GE(NowNs(clock) - start, 30 * kMs) << clock;
    EXPECT_LT(NowNs(clock) - start, PatienceNs()) << clock;
  }
}

TEST_F(WaitTest, AbsoluteTimeout) {
  for (int clock : {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME}) {
    kevent_enter enter = MakeEnter();
    enter.min = 1;
    enter.flags = KEVENT_ENTER_ABSOLUTE;
    enter.clock = static_cast<uint32_t>(clock);
    enter.timeout_ns = NowNs(clock) + 30 * kMs;
    EXPECT_EQ(0, queue().Enter(&enter));
    EXPECT_GE(NowNs(clock), enter.timeout_ns) << clock;
    for (int64_t past : {int64_t{0}, int64_t{1}, NowNs(clock) - kSecond}) {
      enter.timeout_ns = past;
      const int64_t start = NowNs();
      EXPECT_EQ(0, queue().Enter(&enter));
      EXPECT_LT(Elapsed(start), PatienceNs() / 2);
    }
  }
}

// Its clocks are ahead of the kernel's, or behind.
TEST_F(WaitTest, AbsoluteTimesInATimeNamespace) {
  if (getuid() != 0) GTEST_SKIP() << "namespaces need root";
  for (const char* offset : {"1000 0", "-1 0"}) {
    Child outer([&] {
      if (unshare(CLONE_NEWTIME) != 0) _exit(2);
      Fd offsets(open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC));
      const std::string text =
          std::string("monotonic ") + offset + "\nboottime " + offset + "\n";
      if (write(offsets.get(), text.data(), text.size()) < 0) _exit(3);
      Child inner([] {
        Queue own;
        if (own.Open() != 0) _exit(4);
        for (int clock : {CLOCK_MONOTONIC, CLOCK_BOOTTIME}) {
          kevent_enter enter = MakeEnter();
          enter.min = 1;
          enter.flags = KEVENT_ENTER_ABSOLUTE;
          enter.clock = static_cast<uint32_t>(clock);
          enter.timeout_ns = NowNs(clock) + 30 * kMs;
          if (own.Enter(&enter) != 0) _exit(5);
          if (NowNs(clock) < enter.timeout_ns) _exit(6);
          if (NowNs(clock) > enter.timeout_ns + 10 * kSecond) _exit(7);
          const int64_t at = NowNs(clock) + 30 * kMs;
          kevent_sqe timer = AddTimer(at, 0, KEVENT_ABSOLUTE, 1, clock);
          if (own.Make(&timer) != 0) _exit(8);
          if (own.Wait(1, 10 * kSecond) != 1) _exit(9);
          if (NowNs(clock) < at) _exit(10);
          kevent_entry entry;
          if (!own.Take(&entry)) _exit(11);
        }
      });
      const int status = inner.Wait();
      _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 12);
    });
    const int status = outer.Wait();
    ASSERT_TRUE(WIFEXITED(status));
    if (WEXITSTATUS(status) == 2) GTEST_SKIP() << "no time namespaces";
    EXPECT_EQ(0, WEXITSTATUS(status)) << offset;
  }
}

TEST_F(WaitTest, ATimeoutIsNoReasonToForget) {
  for (int i = 0; i < 2; ++i) ASSERT_EQ(0, queue().Ready(user_));
  const uint64_t other = MustAdd(AddUser());
  ASSERT_EQ(0, queue().Ready(other));
  const uint32_t there = queue().Unread();
  const int64_t start = NowNs();
  kevent_entry entries[8];
  EXPECT_EQ(static_cast<int>(there), queue().Copy(entries, 8, 30 * kMs));
  EXPECT_GE(Elapsed(start), 30 * kMs);
}

TEST_F(WaitTest, WaitsForTheMinimum) {
  for (int i = 1; i <= 5; ++i) MustAdd(AddTimer(i * 10 * kMs));
  const int64_t start = NowNs();
  EXPECT_GE(queue().Wait(5, PatienceNs()), 5);
  EXPECT_GE(Elapsed(start), 40 * kMs);
  kevent_entry entries[8];
  EXPECT_EQ(5, queue().Copy(entries, 5, PatienceNs()));
}

TEST_F(WaitTest, CopiesAtMostTheMaximum) {
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(0, queue().Ready(MustAdd(AddUser(0, static_cast<uint64_t>(i)))));
  }
  kevent_entry entries[3];
  EXPECT_EQ(2, queue().Copy({entries, 2}, 1, 0));
  EXPECT_EQ(0u, entries[0].user_data);
  EXPECT_EQ(1u, entries[1].user_data);
  EXPECT_EQ(3, queue().Copy(entries, 1, 0));
  EXPECT_EQ(4u, entries[2].user_data);
}

TEST_F(WaitTest, MinWaitIsEnoughOfIt) {
  ASSERT_EQ(0, queue().Ready(user_));
  kevent_enter enter = MakeEnter();
  enter.min = 10;
  enter.timeout_ns = PatienceNs();
  enter.min_wait_ns = 30 * kMs;
  int64_t start = NowNs();
  EXPECT_EQ(1, queue().Enter(&enter));
  EXPECT_GE(Elapsed(start), 30 * kMs);
  EXPECT_LT(Elapsed(start), PatienceNs() / 2);
  // At once.
  enter.min_wait_ns = 0;
  start = NowNs();
  EXPECT_EQ(1, queue().Enter(&enter));
  EXPECT_LT(Elapsed(start), PatienceNs() / 2);
}

TEST_F(WaitTest, AfterMinWaitTheFirstOneEndsIt) {
  MustAdd(AddTimer(60 * kMs));
  MustAdd(AddTimer(3600 * kSecond));
  kevent_enter enter = MakeEnter();
  enter.min = 2;
  enter.timeout_ns = PatienceNs();
  enter.min_wait_ns = 20 * kMs;
  const int64_t start = NowNs();
  EXPECT_EQ(1, queue().Enter(&enter));
  EXPECT_LT(Elapsed(start), PatienceNs() / 2);
}

TEST_F(WaitTest, TheMinimumBeforeMinWait) {
  for (int i = 1; i <= 3; ++i) MustAdd(AddTimer(i * 5 * kMs));
  kevent_enter enter = MakeEnter();
  enter.min = 3;
  enter.timeout_ns = PatienceNs();
  enter.min_wait_ns = PatienceNs();
  const int64_t start = NowNs();
  EXPECT_EQ(3, queue().Enter(&enter));
  EXPECT_LT(Elapsed(start), PatienceNs() / 2);
}

TEST_F(WaitTest, TheTimeoutBeforeMinWait) {
  kevent_enter enter = MakeEnter();
  enter.min = 3;
  enter.timeout_ns = 20 * kMs;
  enter.min_wait_ns = PatienceNs();
  const int64_t start = NowNs();
  EXPECT_EQ(0, queue().Enter(&enter));
  EXPECT_LT(Elapsed(start), PatienceNs() / 2);
}

// The queue's alarm goes on when a wait is over (deadline.c): it must neither
// end a later one nor keep it from ending.
TEST_F(WaitTest, DeadlinesAfterAWaitThatEndedEarly) {
  std::mt19937 dice(Seed());
  auto below = [&](int64_t ns) { return static_cast<int64_t>(dice()) % ns; };
  for (int turn = 0; turn < 60; ++turn) {
    MustAdd(AddTimer(below(kMs)));
    const int64_t far = turn % 3 == 0 ? 3600 * kSecond : below(12 * kMs);
    int r = queue().Wait(1, far);
    ASSERT_TRUE(r == 1 || (r == 0 && far < 3600 * kSecond));
    ASSERT_EQ(1, queue().Wait(1, PatienceNs()));
    kevent_entry entry;
    ASSERT_TRUE(queue().Take(&entry));
    const int64_t span = below(12 * kMs);
    const int64_t start = NowNs();
    ASSERT_EQ(0, queue().Wait(1, span));
    EXPECT_GE(Elapsed(start), span) << "turn " << turn << ", after " << far;
    EXPECT_LT(Elapsed(start), PatienceNs() / 2);
  }
}

TEST_F(WaitTest, DeadlinesOfManyThreads) {
  const uint32_t seed = Seed();
  std::atomic<int> wrong = 0, in_time = 0, woken = 0;
  MustAdd(AddTimer(kMs / 2, kMs / 2));
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < 6; ++i) {
    threads.emplace_back([&, i] {
      std::mt19937 dice(seed + i);
      for (int turn = 0; turn < 100; ++turn) {
        const int64_t span = static_cast<int64_t>(dice()) % (4 * kMs);
        const int64_t start = NowNs();
        kevent_entry entry;
        // Half of them are woken early, again and again.
        const int r = i % 2 == 0 ? queue().Wait(queue().cq_entries(), span)
                                 : queue().Copy({&entry, 1}, 1, span);
        if (i % 2 == 1 && r == 1) {
          ++woken;
          continue;
        }
        if (r < 0 || Elapsed(start) < span) ++wrong;
        if (Elapsed(start) < PatienceNs() / 2) ++in_time;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(0, wrong);
  EXPECT_GE(in_time, 300);
  EXPECT_GT(woken, 0);
}

TEST_F(WaitTest, ClosedWithItsAlarmSet) {
  std::mt19937 dice(Seed());
  for (int turn = 0; turn < 100; ++turn) {
    Queue other;
    ASSERT_EQ(0, other.Open());
    kevent_sqe timer = AddTimer(static_cast<int64_t>(dice()) % (kMs / 4));
    ASSERT_EQ(0, other.Make(&timer));
    EXPECT_GE(other.Wait(1, static_cast<int64_t>(dice()) % (2 * kMs)), 0);
  }
}

TEST_F(WaitTest, HugeTimeouts) {
  MustAdd(AddTimer(10 * kMs));
  for (int64_t timeout : {INT64_MAX, INT64_MAX - 1, INT64_MIN}) {
    kevent_enter enter = MakeEnter();
    enter.min = 1;
    enter.timeout_ns = timeout;
    EXPECT_EQ(1, queue().Enter(&enter));
    if (timeout > 0) {
      enter.flags = KEVENT_ENTER_ABSOLUTE;
      EXPECT_EQ(1, queue().Enter(&enter));
    }
    enter.flags = 0;
    enter.min = 2;
    enter.min_wait_ns = 10 * kMs;
    EXPECT_EQ(1, queue().Enter(&enter));
  }
}

TEST_F(WaitTest, LevelInterestsAreTestedBeforeWaiting) {
  Pair pipe = PipePair();
  const uint64_t handle = MustAdd(AddPoll(pipe.ours.get(), KEVENT_IN));
  Send(pipe.peer.get(), "x");
  Expect(handle, KEVENT_IN);
  // Nothing new happens; what is there is enough.
  const int64_t start = NowNs();
  EXPECT_EQ(1, queue().Wait(1, PatienceNs()));
  EXPECT_LT(Elapsed(start), PatienceNs() / 2);
}

// ---- KEVENT_ENTER: signals ----

std::atomic<int> handled = 0;
void Handler(int) { ++handled; }

class InterruptTest : public WaitTest {
 protected:
  void SetUp() override {
    WaitTest::SetUp();
    struct sigaction action = {};
    action.sa_handler = Handler;
    ASSERT_EQ(0, sigaction(SIGUSR1, &action, &action_));
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    ASSERT_EQ(0, pthread_sigmask(SIG_BLOCK, &mask, &mask_));
    handled = 0;
  }
  void TearDown() override {
    const timespec none = {0, 0};
    sigset_t usr1;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    while (sigtimedwait(&usr1, nullptr, &none) > 0) {
    }
    sigaction(SIGUSR1, &action_, nullptr);
    pthread_sigmask(SIG_SETMASK, &mask_, nullptr);
    WaitTest::TearDown();
  }
  // With SIGUSR1 let through while it waits.
  int Enter(uint32_t min, int64_t timeout_ns) {
    uint64_t none = 0;
    kevent_enter enter = MakeEnter();
    enter.sigmask = Address(&none);
    enter.sigmask_size = 8;
    enter.min = min;
    enter.timeout_ns = timeout_ns;
    return queue().Enter(&enter);
  }
  static bool IsBlocked() {
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    return sigismember(&mask, SIGUSR1) == 1;
  }

 private:
  struct sigaction action_;
  sigset_t mask_;
};

TEST_F(InterruptTest, ASignalThatCameBefore) {
  const int64_t start = NowNs();
  ASSERT_EQ(0, pthread_kill(pthread_self(), SIGUSR1));
  EXPECT_EQ(0, handled);
  EXPECT_EQ(-EINTR, Enter(1, PatienceNs()));
  EXPECT_EQ(1, handled);
  EXPECT_TRUE(IsBlocked());
  EXPECT_LT(Elapsed(start), PatienceNs() / 2);
}

TEST_F(InterruptTest, ASignalThatComesMeanwhile) {
  const pthread_t self = pthread_self();
  for (int i = 0; i < 5; ++i) {
    handled = 0;
    std::thread other([self] { pthread_kill(self, SIGUSR1); });
    EXPECT_EQ(-EINTR, Enter(1, PatienceNs()));
    other.join();
    EXPECT_EQ(1, handled);
    EXPECT_TRUE(IsBlocked());
  }
}

TEST_F(InterruptTest, ABlockedOneWaits) {
  ASSERT_EQ(0, pthread_kill(pthread_self(), SIGUSR1));
  EXPECT_EQ(0, queue().Wait(1, 20 * kMs));
  EXPECT_EQ(0, handled);
  // Blocked during the wait alone.
  sigset_t unblock, old;
  sigemptyset(&unblock);
  sigaddset(&unblock, SIGUSR1);
  ASSERT_EQ(0, pthread_sigmask(SIG_UNBLOCK, &unblock, &old));
  EXPECT_EQ(1, handled);
  uint64_t all = ~uint64_t{0};
  kevent_enter enter = MakeEnter();
  enter.sigmask = Address(&all);
  enter.sigmask_size = 8;
  enter.min = 1;
  enter.timeout_ns = 50 * kMs;
  std::thread other([self = pthread_self()] { pthread_kill(self, SIGUSR1); });
  const int r = queue().Enter(&enter);
  other.join();
  EXPECT_TRUE(r == 0 || r == -EINTR) << r;
  EXPECT_EQ(2, handled) << "handled before or after the wait";
  EXPECT_FALSE(IsBlocked());
}

TEST_F(InterruptTest, EntriesComeFirst) {
  ASSERT_EQ(0, queue().Ready(user_));
  ASSERT_EQ(0, pthread_kill(pthread_self(), SIGUSR1));
  EXPECT_EQ(1, Enter(1, PatienceNs()));
  EXPECT_TRUE(IsBlocked());
  // Fewer than asked for: those that are there, or a clear answer.
  const int r = Enter(2, PatienceNs());
  EXPECT_TRUE(r == 1 || r == -EINTR) << r;
  EXPECT_LE(handled, 1);
  EXPECT_EQ(1u, queue().Unread());
}

// As epoll_wait(2) with a timeout of 0.
TEST_F(InterruptTest, ALookIsNotInterrupted) {
  sigset_t unblock;
  sigemptyset(&unblock);
  sigaddset(&unblock, SIGUSR1);
  ASSERT_EQ(0, pthread_sigmask(SIG_UNBLOCK, &unblock, nullptr));
  std::atomic<bool> stop = false;
  std::thread other([&, self = pthread_self()] {
    while (!stop) {
      pthread_kill(self, SIGUSR1);
      queue().Look();
    }
  });
  int interrupted = 0;
  // All of it may be over before a CPU has begun with the other thread.
  const int64_t start = NowNs();
  for (int i = 0; i < 2'000 || (handled < 50 && Elapsed(start) < PatienceNs());
       ++i) {
    kevent_enter enter = MakeEnter();
    enter.min = i % 2;
    enter.timeout_ns = i % 2 ? 0 : -1;
    kevent_sqe change = Change(KEVENT_OP_REMOVE, kNoHandle);
    enter.changes = Address(&change);
    enter.nr_changes = i % 4 / 2;
    interrupted += queue().Enter(&enter) == -EINTR;
  }
  stop = true;
  other.join();
  EXPECT_GE(handled, 50);
  EXPECT_EQ(0, interrupted);
}

TEST_F(InterruptTest, TheMaskIsRestoredAfterTimeoutsAndFailures) {
  EXPECT_EQ(0, Enter(1, 5 * kMs));
  EXPECT_TRUE(IsBlocked());
  queue().set_head(queue().head() + 100);
  EXPECT_EQ(-EINVAL, Enter(1, 5 * kMs));
  queue().set_head(queue().head() - 100);
  EXPECT_TRUE(IsBlocked());
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  EXPECT_EQ(0, sigismember(&mask, SIGUSR2));
}

TEST_F(InterruptTest, KillEndsAWait) {
  Child child([] {
    Queue own;
    CHILD_CHECK(own.Open() == 0);
    CHILD_CHECK(own.Wait(1, -1) >= 0);
  });
  child.Kill(SIGKILL);
  const int status = child.Wait();
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

TEST_F(InterruptTest, StopAndContinueDoNotLoseTheTimeout) {
  Child child([] {
    Queue own;
    CHILD_CHECK(own.Open() == 0);
    const int64_t start = NowNs();
    int r;
    do {
      r = own.Wait(1, 100 * kMs);
    } while (r == -EINTR);
    CHILD_CHECK(r == 0);
    CHILD_CHECK(NowNs() - start >= 100 * kMs);
  });
  child.Kill(SIGSTOP);
  int status = 0;
  ASSERT_EQ(child.pid(), waitpid(child.pid(), &status, WUNTRACED));
  child.Kill(SIGCONT);
  EXPECT_CHILD_OK(child);
}

}  // namespace
}  // namespace kevent::raw
