// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kevent/queue/conformance/conformance.h"

namespace kevent::conformance {
namespace {

class EnterTest : public QueueTest {
 protected:
  PostOp* Post(uint64_t user_data = 0) {
    PostOp* post = New<PostOp>();
    post->user_data = user_data;
    EXPECT_EQ(0, queue().Post(post));
    return post;
  }
  Handle Timer(int64_t delay) {
    Interest interest;
    interest.source = Source::kTimer;
    interest.first_ns = delay;
    return MustAdd(interest);
  }
  // Enter with room for `max`; the entries are left in `out_`.
  int Enter(size_t max, const Wait& wait) {
    out_.assign(max, Entry());
    int r = queue().Enter(out_, wait);
    if (r >= 0) out_.resize(static_cast<size_t>(r));
    return r;
  }
  static Wait Until(int64_t timeout_ns, size_t min = 1) {
    Wait wait;
    wait.min = min;
    wait.timeout_ns = timeout_ns;
    return wait;
  }
  // The end of another io_uring of the process may interrupt a wait.
  int EnterToItsEnd(size_t max, const Wait& wait) {
    int r;
    do {
      r = Enter(max, wait);
    } while (r == -EINTR);
    return r;
  }

  // It may also make it return early with what is there.
  template <typename F>
  void ExpectOnce(F succeeds) {
    for (int attempt = 0; attempt < 5; ++attempt) {
      if (succeeds()) return;
      Entry rest[16];
      while (queue().Enter(rest, Until(50 * kMs)) != 0) {
      }
    }
    FAIL() << "in none of five attempts";
  }

  std::vector<Entry> out_;
};
KEVENT_CONFORMANCE(EnterTest);

TEST_P(EnterTest, MinZeroDoesNotWait) {
  const int64_t start = NowNs();
  EXPECT_EQ(0, Enter(4, Until(-1, 0)));
  EXPECT_EQ(0, Enter(4, Until(PatienceNs(), 0)));
  Post();
  EXPECT_EQ(1, Enter(4, Until(-1, 0)));
  EXPECT_LT(NowNs() - start, PatienceNs());
}

TEST_P(EnterTest, TimeoutRelativeAndAbsolute) {
  constexpr int64_t kDelay = 20 * kMs;
  int64_t start = NowNs();
  EXPECT_EQ(0, EnterToItsEnd(4, Until(kDelay)));
  EXPECT_GE(NowNs(), start + kDelay);
  for (clockid_t clock : {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME}) {
    Wait wait = Until(NowNs(clock) + kDelay);
    wait.absolute = true;
    wait.clock = clock;
    EXPECT_EQ(0, EnterToItsEnd(4, wait));
    EXPECT_GE(NowNs(clock), wait.timeout_ns);
    // Over already.
    wait.timeout_ns = 1;
    EXPECT_EQ(0, EnterToItsEnd(4, wait));
  }
  EXPECT_EQ(0, Enter(4, Until(0)));
}

TEST_P(EnterTest, RefusesAnUnknownClock) {
  Wait wait = Until(kMs);
  wait.clock = CLOCK_PROCESS_CPUTIME_ID;
  EXPECT_EQ(-EINVAL, Enter(4, wait));
}

TEST_P(EnterTest, WaitsForMin) {
  ExpectOnce([&] {
    const int64_t start = NowNs();
    for (int i = 1; i <= 3; ++i) Timer(i * 8 * kMs);
    return EnterToItsEnd(8, Until(PatienceNs(), 3)) == 3 &&
           NowNs() >= start + 24 * kMs;
  });
}

TEST_P(EnterTest, ReturnsFewerWhenTimeIsOver) {
  Post();
  EXPECT_EQ(1, EnterToItsEnd(8, Until(10 * kMs, 3)));
}

TEST_P(EnterTest, CopiesNoMoreThanThereIsRoomFor) {
  for (uint64_t i = 0; i < 10; ++i) Post(i);
  EXPECT_EQ(4, Enter(4, Until(PatienceNs())));
  for (uint64_t i = 0; i < 4; ++i) EXPECT_EQ(out_[i].user_data, i);
  EXPECT_EQ(3, Enter(3, Until(PatienceNs(), 8))) << "min is clipped";
  EXPECT_EQ(0, Enter(0, Until(-1, 5))) << "to nothing at all";
  Entry rest[8];
  EXPECT_EQ(3u, queue().Take(rest));
  EXPECT_EQ(rest[0].user_data, 7u);
  EXPECT_EQ(0u, queue().Take(rest));
}

TEST_P(EnterTest, OldestFirst) {
  Pair pair = TcpPair();
  for (uint64_t i = 0; i < 100; ++i) Post(i);
  Enter(0, Until(-1, 0));
  SendOp* send = NewSend(pair.ours, "x");
  send->user_data = 100;
  ASSERT_EQ(0, queue().Submit(send));
  EXPECT_EQ(101, EnterToItsEnd(200, Until(PatienceNs(), 101)));
  for (uint64_t i = 0; i < out_.size(); ++i) EXPECT_EQ(out_[i].user_data, i);
}

TEST_P(EnterTest, MinWaitSettlesForOne) {
  Wait wait = Until(PatienceNs(), 5);
  wait.min_wait_ns = 30 * kMs;
  int64_t start;
  ExpectOnce([&] {
    start = NowNs();
    Post();
    return EnterToItsEnd(8, wait) == 1 && NowNs() >= start + wait.min_wait_ns &&
           NowNs() < start + PatienceNs();
  });
  // It has passed before the first comes: that one is enough then.
  wait.min_wait_ns = 5 * kMs;
  start = NowNs();
  Timer(20 * kMs);
  EXPECT_EQ(1, EnterToItsEnd(8, wait));
  EXPECT_GE(NowNs(), start + 20 * kMs);
  EXPECT_LT(NowNs(), start + PatienceNs());
  // All are there: nothing is waited for.
  wait.min_wait_ns = PatienceNs();
  for (int i = 0; i < 5; ++i) Post();
  EXPECT_EQ(5, EnterToItsEnd(8, wait));
  EXPECT_LT(NowNs(), start + PatienceNs());
}

TEST_P(EnterTest, SubmitsAndWaitsInOne) {
  Pair pair = TcpPair();
  RecvOp* recv = NewRecv(pair.ours, Room(5));
  SendOp* send = NewSend(pair.ours, "x");
  PeerSend(pair.peer, "hello");
  ASSERT_EQ(0, queue().Submit(recv));
  ASSERT_EQ(0, queue().Submit(send));
  EXPECT_EQ(2, EnterToItsEnd(8, Until(PatienceNs(), 2)));
  EXPECT_EQ("x", PeerRead(pair.peer, 1));
}

TEST_P(EnterTest, PostedOperationIsInFlightUntilItIsTaken) {
  PostOp* post = New<PostOp>();
  post->user_data = 5;
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(0, queue().Post(post));
    EXPECT_TRUE(post->in_flight());
    EXPECT_EQ(-EINVAL, queue().Post(post));
    EXPECT_EQ(1, Enter(4, Until(PatienceNs())));
    EXPECT_EQ(out_[0].operation, post);
    EXPECT_EQ(out_[0].user_data, 5u);
    EXPECT_EQ(out_[0].result, 0);
    EXPECT_EQ(out_[0].flags, 0u);
    EXPECT_FALSE(post->in_flight());
  }
}

TEST_P(EnterTest, WakeEndsOneWait) {
  queue().Wake();
  EXPECT_EQ(0, EnterToItsEnd(4, Until(-1)));
  const int64_t start = NowNs();
  EXPECT_EQ(0, EnterToItsEnd(4, Until(20 * kMs)));
  EXPECT_GE(NowNs(), start + 20 * kMs) << "once only";
  queue().Wake();
  Post();
  EXPECT_EQ(1, EnterToItsEnd(4, Until(-1, 3))) << "early, with what is there";
  EXPECT_EQ(2u, queue().stats().wakes);
  EXPECT_GE(queue().stats().sleeps, 1u);
}

TEST_P(EnterTest, SignalMaskIsInPlaceForTheWaitAlone) {
  WithHandler handler(SIGUSR2);
  sigset_t blocked, before, open;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR2);
  ASSERT_EQ(0, pthread_sigmask(SIG_BLOCK, &blocked, &before));
  open = before;
  sigdelset(&open, SIGUSR2);
  for (int i = 0; i < 3; ++i) {
    WithHandler::ran = 0;
    ASSERT_EQ(0, raise(SIGUSR2));
    EXPECT_EQ(0, EnterToItsEnd(4, Until(5 * kMs)));
    EXPECT_EQ(0, WithHandler::ran) << "still blocked";
    Wait wait = Until(PatienceNs());
    wait.signal_mask = &open;
    int r;
    do {
      r = Enter(4, wait);
    } while (r == -EINTR && WithHandler::ran == 0);
    EXPECT_EQ(-EINTR, r);
    EXPECT_EQ(1, WithHandler::ran);
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, nullptr, &now);
    EXPECT_TRUE(sigismember(&now, SIGUSR2)) << "the mask is back";
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

TEST_P(EnterTest, SignalMaskDoesNotKeepEntriesBack) {
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  Wait wait = Until(PatienceNs());
  wait.signal_mask = &mask;
  Post(1);
  EXPECT_EQ(1, EnterToItsEnd(4, wait));
  Timer(5 * kMs);
  EXPECT_EQ(1, EnterToItsEnd(4, wait));
}

TEST_P(EnterTest, SignalHandlerInterruptsTheWait) {
  // With something to submit in the same call, and without.
  for (int turn = 0; turn < 3; ++turn) {
    WithHandler handler(SIGALRM);
    if (turn == 2) MustSubmit(NewRecv(TcpPair().ours, Room(1)));
    // Again and again: the first may come before the wait.
    itimerval each_10_ms = {{0, 10'000}, {0, 10'000}};
    ASSERT_EQ(0, setitimer(ITIMER_REAL, &each_10_ms, nullptr));
    int r;
    const int64_t end = NowNs() + PatienceNs();
    do {
      r = Enter(4, Until(PatienceNs()));
    } while (r == -EINTR && WithHandler::ran == 0 && NowNs() < end);
    const itimerval none = {};
    ASSERT_EQ(0, setitimer(ITIMER_REAL, &none, nullptr));
    EXPECT_EQ(-EINTR, r) << "turn " << turn;
    EXPECT_GE(WithHandler::ran, 1);
  }
}

// --- Take.

// Not _exit(3), where sanitizers have work to do.
[[noreturn]] void End(int status) {
  for (;;) syscall(SYS_exit_group, status);
}

// From now on any system call but the end of the process is fatal.
void ForbidSystemCalls() {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
  };
  sock_fprog program = {sizeof filter / sizeof *filter, filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0) {
    End(77);
  }
}

TEST_P(EnterTest, TakeMakesNoSystemCall) {
  if (kThreadSanitizer) GTEST_SKIP() << "ThreadSanitizer makes its own";
  for (auto sharing :
       {Queue::Sharing::kOneThread, Queue::Sharing::kManyThreads}) {
    fflush(stdout);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      Queue::Options options;
      options.sharing = sharing;
      options.ring_entries = 8;
      auto queue = Create(options);
      if (!queue.ok()) End(78);
      Pair pair = TcpPair();
      static PostOp posts[20];
      for (PostOp& post : posts) (*queue)->Post(&post);
      Interest interest;
      interest.fd = pair.ours;
      interest.events = POLLOUT;
      Handle handle;
      (*queue)->Add(interest, &handle);
      Entry out[64];
      Wait wait;
      wait.min = 0;
      for (int i = 0; i < 3; ++i) (*queue)->Enter({}, wait);
      ForbidSystemCalls();
      size_t n = (*queue)->Take({out, 5});
      if (n != 5) End(79);
      n += (*queue)->Take(out);
      n += (*queue)->Take(out);
      End(n == 21 ? 0 : 80);
    }
    int status = 0;
    ASSERT_EQ(child, waitpid(child, &status, 0));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
      GTEST_SKIP() << "no seccomp filters here";
    }
    EXPECT_TRUE(WIFEXITED(status))
        << "killed by signal " << WTERMSIG(status) << ": a system call";
    EXPECT_EQ(0, WEXITSTATUS(status));
  }
}

}  // namespace
}  // namespace kevent::conformance
