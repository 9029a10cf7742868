// SPDX-License-Identifier: Apache-2.0
//
// Queue::pollable_fd: readable whenever Enter would find something.
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "kevent/queue/conformance/conformance.h"

namespace kevent::conformance {
namespace {

class PollableTest : public QueueTest {
 protected:
  void SetUp() override {
    QueueTest::SetUp();
    if (!IsSkipped()) OpenPollable();
  }
  void OpenPollable() {
    fd_ = queue().pollable_fd();
    ASSERT_GE(fd_, 0) << strerror(-fd_);
    EXPECT_EQ(fd_, queue().pollable_fd());
  }
  PostOp* Post(uint64_t user_data = 0) {
    PostOp* post = New<PostOp>();
    post->user_data = user_data;
    EXPECT_EQ(0, queue().Post(post));
    return post;
  }
  static Wait Until(int64_t timeout_ns, size_t min = 1) {
    Wait wait;
    wait.min = min;
    wait.timeout_ns = timeout_ns;
    return wait;
  }
  bool Readable(int64_t within_ns = 0) {
    const int64_t end = NowNs() + within_ns;
    for (;;) {
      pollfd p = {fd_, POLLIN, 0};
      int64_t left = std::max<int64_t>(end - NowNs(), 0);
      timespec ts = {left / 1'000'000'000, left % 1'000'000'000};
      int r = ppoll(&p, 1, &ts, nullptr);
      if (r > 0) return true;
      if (NowNs() >= end) return false;
    }
  }
  // An Enter that takes all there is leaves it silent, soon: a kernel may
  // signal late what was found already.
  void ExpectSilent() {
    const int64_t end = NowNs() + PatienceNs();
    while (Readable() && NowNs() < end) {
      Entry out[8];
      ASSERT_EQ(0, queue().Enter(out, Until(-1, 0)));
    }
    EXPECT_FALSE(Readable()) << "there is nothing, but it does not say so";
  }
  Entry ExpectOne() {
    EXPECT_TRUE(Readable(PatienceNs()));
    Entry out[2];
    int r = 0;
    // It may speak of news that are not yet an entry.
    const int64_t end = NowNs() + PatienceNs();
    while (r == 0 && NowNs() < end) r = queue().Enter(out, Until(-1, 0));
    EXPECT_EQ(1, r);
    return out[0];
  }
  int fd_ = -1;
};
KEVENT_CONFORMANCE(PollableTest);

TEST_P(PollableTest, Posts) {
  ExpectSilent();
  for (uint64_t i = 0; i < 5; ++i) {
    Post(i);
    EXPECT_EQ(ExpectOne().user_data, i);
    ExpectSilent();
  }
}

TEST_P(PollableTest, PostsOfAnotherThread) {
  for (int i = 0; i < 20; ++i) {
    PostOp* post = New<PostOp>();
    std::thread thread([&] { EXPECT_EQ(0, queue().Post(post)); });
    EXPECT_EQ(ExpectOne().operation, post);
    thread.join();
    ExpectSilent();
  }
}

TEST_P(PollableTest, Timers) {
  for (clockid_t clock : {CLOCK_MONOTONIC, CLOCK_REALTIME}) {
    Interest interest;
    interest.source = Source::kTimer;
    interest.first_ns = 10 * kMs;
    interest.clock = clock;
    MustAdd(interest);
    ExpectSilent();
    EXPECT_EQ(ExpectOne().source, Source::kTimer);
    ExpectSilent();
  }
}

TEST_P(PollableTest, CompletionsWithinSubmitAndLater) {
  Pair pair = TcpPair();
  SendOp* send = NewSend(pair.ours, "x");
  ASSERT_EQ(0, queue().Submit(send));
  EXPECT_EQ(ExpectOne().operation, send);
  ExpectSilent();
  RecvOp* recv = NewRecv(pair.ours, Room(1));
  ASSERT_EQ(0, queue().Submit(recv));
  ExpectSilent();
  PeerSend(pair.peer, "");
  ASSERT_EQ(1, ::send(pair.peer, "y", 1, MSG_NOSIGNAL));
  EXPECT_EQ(ExpectOne().operation, recv);
  ExpectSilent();
  ASSERT_EQ(0, queue().Submit(recv));
  EXPECT_EQ(0, queue().Cancel(recv));
  EXPECT_EQ(ExpectOne().result, -ECANCELED);
  ExpectSilent();
}

TEST_P(PollableTest, Interests) {
  const int event = Own(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  Interest interest;
  interest.fd = event;
  interest.events = POLLIN;
  const Handle handle = MustAdd(interest);
  ExpectSilent();
  // More than once: kernels forgot to tell of all but the first.
  for (int i = 0; i < 5; ++i) {
    uint64_t value = 1;
    ASSERT_EQ(8, write(event, &value, 8));
    ASSERT_EQ(ExpectOne().handle, handle);
    EXPECT_EQ(ExpectOne().handle, handle) << "level";
    ASSERT_EQ(8, read(event, &value, 8));
    ExpectSilent();
  }
}

TEST_P(PollableTest, WhatAnEnterLeftBehind) {
  for (uint64_t i = 0; i < 3; ++i) Post(i);
  Entry e;
  EXPECT_EQ(1, queue().Enter({&e, 1}, Until(-1)));
  EXPECT_TRUE(Readable());
  Entry rest[4];
  EXPECT_EQ(2u, queue().Take(rest));
  ExpectSilent();
}

TEST_P(PollableTest, ABufferGivenBack) {
  for (uint16_t flags : {uint16_t{0}, uint16_t{kOpMultishot}}) {
    SCOPED_TRACE(flags);
    Pair pair = TcpPair();
    BufferPool* pool = queue().AddBufferPool(1, 64).value();
    RecvOp* recv = New<RecvOp>(pair.ours);
    recv->pool = pool;
    recv->flags = flags;
    ASSERT_EQ(0, queue().Submit(recv));
    ASSERT_EQ(1, ::send(pair.peer, "a", 1, MSG_NOSIGNAL));
    Entry first = ExpectOne();
    ASSERT_TRUE(first.flags & kEntryBuffer);
    if (!flags) {
      ASSERT_EQ(0, queue().Submit(recv));
    }
    for (int i = 0; i < 3; ++i) {
      ASSERT_EQ(1, ::send(pair.peer, "b", 1, MSG_NOSIGNAL));
      ExpectSilent();
      pool->Release(static_cast<uint16_t>(first.data[1]));
      first = ExpectOne();
      ASSERT_TRUE(first.flags & kEntryBuffer);
      EXPECT_EQ(first.result, 1);
      if (!flags) {
        ASSERT_EQ(0, queue().Submit(recv));
      }
    }
    EXPECT_EQ(0, queue().Cancel(recv));
    EXPECT_EQ(-ECANCELED, ExpectOne().result);
    pool->Release(static_cast<uint16_t>(first.data[1]));
    ExpectSilent();
  }
}

class BlockedSignal {
 public:
  explicit BlockedSignal(int signo) {
    sigemptyset(&mask_);
    sigaddset(&mask_, signo);
    pthread_sigmask(SIG_BLOCK, &mask_, &before_);
  }
  ~BlockedSignal() {
    const timespec none = {};
    while (sigtimedwait(&mask_, nullptr, &none) > 0) {
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  sigset_t mask_;
  sigset_t before_;
};
// Of this thread; what is pending at the end is dropped.

// The sources keep what the ring has no room for.
class PollableSmallRingTest : public PollableTest {
 protected:
  void SetUp() override {
    PollableTest::SetUp();
    if (IsSkipped()) return;
    Queue::Options options;
    options.ring_entries = 2;
    Reopen(options);
    OpenPollable();
  }
  // Takes `n` entries, no more in one call than the ring holds.
  void ExpectAll(int n) {
    for (int got = 0; got < n;) {
      ASSERT_TRUE(Readable(PatienceNs())) << n - got << " are missing";
      Entry out[2];
      const int r = queue().Enter(out, Until(-1, 0));
      for (int i = 0; i < r; ++i) {
        if (out[i].operation && out[i].result >= 0) {
          CloseByQueue(static_cast<int>(out[i].result));
        }
      }
      got += std::max(r, 0);
    }
    ExpectSilent();
  }
};
KEVENT_CONFORMANCE(PollableSmallRingTest);

TEST_P(PollableSmallRingTest, Signals) {
  const int signo = SIGRTMIN + 1;
  const BlockedSignal blocked(signo);
  Interest interest;
  interest.source = Source::kSignal;
  interest.signo = signo;
  MustAdd(interest);
  ExpectSilent();
  for (int i = 0; i < 9; ++i) {
    ASSERT_EQ(0, sigqueue(getpid(), signo, sigval()));
  }
  ExpectAll(9);
}

TEST_P(PollableSmallRingTest, Inodes) {
  const int file = File("");
  const std::string path = "/proc/self/fd/" + std::to_string(file);
  Interest interest;
  interest.source = Source::kInode;
  interest.path = path.c_str();
  interest.events = IN_MODIFY | IN_ATTRIB;
  MustAdd(interest);
  ExpectSilent();
  // The kernel makes one of two in a row that are alike.
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(1, write(file, "x", 1));
    ASSERT_EQ(0, fchmod(file, i % 2 ? 0600 : 0644));
  }
  ExpectAll(10);
}

TEST_P(PollableSmallRingTest, Connections) {
  const TestListener listener = Listen();
  AcceptOp* accept = New<AcceptOp>(listener.fd);
  accept->flags = kOpMultishot;
  ASSERT_EQ(0, queue().Submit(accept));
  ExpectSilent();
  for (int i = 0; i < 9; ++i) ConnectTo(listener);
  ExpectAll(9);
  EXPECT_EQ(0, queue().Cancel(accept));
  EXPECT_EQ(-ECANCELED, ExpectOne().result);
}

TEST_P(PollableTest, Wake) {
  queue().Wake();
  EXPECT_TRUE(Readable(PatienceNs()));
  ExpectSilent();
}

}  // namespace
}  // namespace kevent::conformance
