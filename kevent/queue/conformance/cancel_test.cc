// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "kevent/queue/conformance/conformance.h"

namespace kevent::conformance {
namespace {

class CancelTest : public QueueTest {};
KEVENT_CONFORMANCE(CancelTest);

TEST_P(CancelTest, RecvThatWaits) {
  Pair pair = TcpPair();
  RecvOp* recv = NewRecv(pair.ours, Room(5));
  for (bool look : {false, true}) {
    MustSubmit(recv);
    if (look) Look();
    EXPECT_EQ(0, queue().Cancel(recv));
    EXPECT_EQ(-ECANCELED, ResultOf(recv));
    ExpectNothing();
  }
  PeerSend(pair.peer, "later");
  MustSubmit(recv);
  EXPECT_EQ(5, ResultOf(recv));
}

TEST_P(CancelTest, RecvFromAPool) {
  auto pool = queue().AddBufferPool(2, 16);
  ASSERT_TRUE(pool.ok());
  Pair pair = TcpPair();
  for (uint16_t flags : {uint16_t{0}, uint16_t{kOpMultishot}}) {
    RecvOp* recv = New<RecvOp>(pair.ours);
    recv->pool = *pool;
    recv->flags = flags;
    MustSubmit(recv);
    Look();
    EXPECT_EQ(0, queue().Cancel(recv));
    Entry e = One();
    EXPECT_EQ(e.result, -ECANCELED);
    EXPECT_EQ(e.flags, 0u);
  }
}

TEST_P(CancelTest, AcceptThatWaits) {
  TestListener listener = Listen();
  for (uint16_t flags : {uint16_t{0}, uint16_t{kOpMultishot}}) {
    AcceptOp* accept = New<AcceptOp>(listener.fd);
    accept->flags = flags;
    MustSubmit(accept);
    Look();
    EXPECT_EQ(0, queue().Cancel(accept));
    EXPECT_EQ(-ECANCELED, ResultOf(accept));
  }
}

// Engines have rings of 1,024 or so: the cancel may find one just full.
TEST_P(CancelTest, OneOfAsManyAsARingHolds) {
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 8192);
  setrlimit(RLIMIT_NOFILE, &limit);
  std::vector<RecvOp*> recvs;
  for (size_t n = 1020; n <= 1026; ++n) {
    while (recvs.size() < n) {
      const int fd = Own(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
      ASSERT_GE(fd, 0);
      recvs.push_back(NewRecv(fd, Room(1)));
    }
    for (RecvOp* recv : recvs) MustSubmit(recv);
    EXPECT_EQ(0, queue().Cancel(recvs[7]));
    EXPECT_EQ(-ECANCELED, ResultOf(recvs[7])) << n;
    for (RecvOp* recv : recvs) {
      if (recv == recvs[7]) continue;
      EXPECT_EQ(0, queue().Cancel(recv));
    }
    for (const Entry& e : WaitFor(n - 1)) EXPECT_EQ(-ECANCELED, e.result);
  }
}

TEST_P(CancelTest, TwiceMakesOneEntry) {
  Pair pair = TcpPair();
  RecvOp* recv = NewRecv(pair.ours, Room(5));
  MustSubmit(recv);
  Look();
  EXPECT_EQ(0, queue().Cancel(recv));
  int r = queue().Cancel(recv);
  EXPECT_TRUE(r == 0 || r == -ENOENT) << r;
  EXPECT_EQ(-ECANCELED, ResultOf(recv));
  EXPECT_EQ(-ENOENT, queue().Cancel(recv));
  ExpectNothing();
}

TEST_P(CancelTest, WhatIsNotInFlight) {
  Pair pair = TcpPair();
  SendOp* send = NewSend(pair.ours, "x");
  EXPECT_EQ(-ENOENT, queue().Cancel(send));
  PostOp* post = New<PostOp>();
  EXPECT_EQ(-ENOENT, queue().Cancel(post));
  MustSubmit(send);
  EXPECT_EQ(1, ResultOf(send));
  EXPECT_EQ(-ENOENT, queue().Cancel(send));
}

TEST_P(CancelTest, WhatIsCompleteAndUnread) {
  Pair pair = TcpPair();
  SendOp* send = NewSend(pair.ours, "x");
  MustSubmit(send);
  // Looks without room for the entry.
  Wait wait;
  wait.min = 0;
  EXPECT_EQ(0, queue().Enter({}, wait));
  EXPECT_EQ("x", PeerRead(pair.peer, 1));
  queue().Enter({}, wait);
  EXPECT_EQ(-ENOENT, queue().Cancel(send));
  EXPECT_EQ(1, ResultOf(send));
}

TEST_P(CancelTest, SendThatIsQueuedAndSendThatHasBegun) {
  Pair pair = TcpPair(16 << 10);
  const std::string& bytes = *Bytes(Pattern(1 << 20));
  SendOp* begun = NewSend(pair.ours, bytes);
  SendOp* queued = NewSend(pair.ours, "queued");
  SendOp* last = NewSend(pair.ours, "last");
  MustSubmit(begun);
  MustSubmit(queued);
  MustSubmit(last);
  Look();
  EXPECT_EQ(0, queue().Cancel(queued));
  EXPECT_EQ(-ECANCELED, ResultOf(queued));
  std::string got = PeerRead(pair.peer, bytes.size() + 4);
  EXPECT_EQ("last", got.substr(bytes.size()));
  EXPECT_EQ(1 << 20, ResultOf(begun));
  EXPECT_EQ(4, ResultOf(last));

  MustSubmit(begun);
  Look();
  ASSERT_TRUE(begun->in_flight());
  EXPECT_EQ(0, queue().Cancel(begun));
  const int64_t sent = ResultOf(begun);
  EXPECT_GT(sent, 0);
  EXPECT_LT(sent, 1 << 20);
  ASSERT_EQ(0, shutdown(pair.ours, SHUT_WR));
  EXPECT_TRUE(bytes.substr(0, static_cast<size_t>(sent)) ==
              PeerReadToEnd(pair.peer));
}

TEST_P(CancelTest, SendBeforeItsFirstByte) {
  Pair pair = TcpPair(16 << 10);
  Fill(pair.ours);
  SendOp* send = NewSend(pair.ours, "never");
  SendfileOp* sendfile = NewSendfile(pair.ours, File("never"), 0, 5);
  MustSubmit(send);
  MustSubmit(sendfile);
  Look();
  EXPECT_EQ(0, queue().Cancel(sendfile));
  EXPECT_EQ(-ECANCELED, ResultOf(sendfile));
  EXPECT_EQ(0, queue().Cancel(send));
  EXPECT_EQ(-ECANCELED, ResultOf(send));
  MustSubmit(sendfile);
  Look();
  EXPECT_EQ(0, queue().Cancel(sendfile));
  EXPECT_EQ(-ECANCELED, ResultOf(sendfile));
  ASSERT_EQ(0, shutdown(pair.ours, SHUT_WR));
  std::string got = PeerReadToEnd(pair.peer);
  EXPECT_EQ(std::string::npos, got.find_first_not_of('f'));
}

TEST_P(CancelTest, OneOfAChain) {
  Pair one = TcpPair();
  Pair two = TcpPair();
  RecvOp* a = NewRecv(one.ours, Room(1));
  SendOp* b = NewSend(two.ours, "b");
  SendOp* c = NewSend(two.ours, "c");
  a->link = b;
  b->link = c;
  MustSubmit(a);
  Look();
  EXPECT_EQ(0, queue().Cancel(b));
  EXPECT_EQ(-ECANCELED, ResultOf(b));
  EXPECT_EQ(-ECANCELED, ResultOf(c));
  EXPECT_TRUE(a->in_flight());
  PeerSend(one.peer, "x");
  EXPECT_EQ(1, ResultOf(a));
  ExpectNothing();
  MustSubmit(a);
  Look();
  EXPECT_EQ(0, queue().Cancel(a));
  EXPECT_EQ(-ECANCELED, ResultOf(a));
  EXPECT_EQ(-ECANCELED, ResultOf(b));
  EXPECT_EQ(-ECANCELED, ResultOf(c));
}

TEST_P(CancelTest, FirstOfTheQueuedLetsTheOthersGoOn) {
  Pair pair = TcpPair();
  std::string* buffer = Room(1);
  RecvOp* a = NewRecv(pair.ours, Room(1));
  RecvOp* b = NewRecv(pair.ours, buffer);
  MustSubmit(a);
  MustSubmit(b);
  Look();
  EXPECT_EQ(0, queue().Cancel(a));
  EXPECT_EQ(-ECANCELED, ResultOf(a));
  PeerSend(pair.peer, "b");
  EXPECT_EQ(1, ResultOf(b));
  EXPECT_EQ("b", *buffer);
}

TEST_P(CancelTest, RacingCompletion) {
  std::mt19937 random(Seed());
  const int turns = kThreadSanitizer ? 300 : 2000;
  Pair pair = TcpPair();
  std::atomic<int> turn{-1};
  std::atomic<int> peers_turn{-1};
  std::atomic<uint32_t> delay{0};
  std::thread peer([&] {
    for (int i = 0; i < turns; ++i) {
      while (turn.load() < i) std::this_thread::yield();
      peers_turn.store(i);
      Spin(delay.load());
      ASSERT_EQ(1, send(pair.peer, "x", 1, MSG_NOSIGNAL));
    }
  });
  std::string* buffer = Room(1);
  RecvOp* recv = NewRecv(pair.ours, buffer);
  int received = 0;
  for (int i = 0; i < turns; ++i) {
    MustSubmit(recv);
    delay.store(random() % 60'000);
    turn.store(i);
    while (peers_turn.load() < i) std::this_thread::yield();
    Spin(random() % 50'000);
    if (random() % 2) Look();
    int r = queue().Cancel(recv);
    EXPECT_TRUE(r == 0 || r == -ENOENT) << r;
    int64_t result = ResultOf(recv);
    if (result == -ECANCELED) {
      // The byte was left for the next one.
      MustSubmit(recv);
      result = ResultOf(recv);
    } else {
      ++received;
    }
    EXPECT_EQ(1, result) << "turn " << i;
    if (HasFailure()) break;
  }
  turn.store(turns);
  peer.join();
  if (HasFailure()) return;
  ExpectNothing();
  printf("%d of %d completed before they were cancelled\n", received, turns);
}

TEST_P(CancelTest, SendRacingItsPeer) {
  std::mt19937 random(Seed());
  const std::string& bytes = *Bytes(Pattern(300'000));
  for (int i = 0; i < 40; ++i) {
    Pair pair = TcpPair(16 << 10);
    SendOp* send = NewSend(pair.ours, bytes);
    SendOp* after = NewSend(pair.ours, "!");
    MustSubmit(send);
    MustSubmit(after);
    std::string got = PeerRead(pair.peer, random() % 300'000);
    int r = queue().Cancel(send);
    EXPECT_TRUE(r == 0 || r == -ENOENT) << r;
    const int64_t sent = ResultOf(send);
    const int64_t then = ResultOf(after);
    ASSERT_EQ(0, CloseByQueue(pair.ours));
    got += PeerReadToEnd(pair.peer);
    EXPECT_EQ(then, sent == 300'000 ? 1 : -ECANCELED);
    ASSERT_EQ(static_cast<size_t>(sent + (then > 0)), got.size());
    got.resize(static_cast<size_t>(sent));
    EXPECT_TRUE(bytes.substr(0, got.size()) == got);
  }
}

TEST_P(CancelTest, MultishotAcceptRacingConnections) {
  std::mt19937 random(Seed());
  for (int i = 0; i < 30; ++i) {
    TestListener listener = Listen();
    AcceptOp* accept = New<AcceptOp>(listener.fd);
    accept->flags = kOpMultishot;
    MustSubmit(accept);
    const int before = static_cast<int>(random() % 4);
    for (int c = 0; c < before; ++c) CloseOwned(ConnectTo(listener));
    if (random() % 2) Look();
    EXPECT_EQ(0, queue().Cancel(accept));
    int accepted = 0;
    for (;;) {
      Entry e = One();
      if (!(e.flags & kEntryMore)) {
        EXPECT_EQ(-ECANCELED, e.result);
        break;
      }
      ASSERT_GE(e.result, 0);
      ++accepted;
      close(static_cast<int>(e.result));
    }
    // Each connection was either delivered or is still in the backlog.
    pollfd p = {listener.fd, POLLIN, 0};
    for (; poll(&p, 1, 0) > 0; ++accepted) {
      close(accept4(listener.fd, nullptr, nullptr, SOCK_NONBLOCK));
    }
    EXPECT_EQ(before, accepted);
    EXPECT_EQ(0, CloseByQueue(listener.fd));
  }
}

// --- Operations must end before they are destroyed.

using CancelDeathTest = CancelTest;
KEVENT_CONFORMANCE(CancelDeathTest);

TEST_P(CancelDeathTest, DestroyingAnOperationInFlightAborts) {
  if (kThreadSanitizer) GTEST_SKIP() << "no death tests with ThreadSanitizer";
  Pair pair = TcpPair();
  // A queue is its process's own.
  EXPECT_DEATH(
      {
        auto own = Create({});
        RecvOp recv;
        recv.fd = pair.ours;
        char byte;
        recv.buffer = &byte;
        recv.size = 1;
        (*own)->Submit(&recv);
      },
      "destroyed in flight");
  EXPECT_DEATH(
      {
        auto own = Create({});
        PostOp post;
        (*own)->Post(&post);
      },
      "destroyed in flight");
}

TEST_P(CancelTest, DestroyingTheQueueForgetsWhatIsInFlight) {
  auto pool = queue().AddBufferPool(2, 16);
  ASSERT_TRUE(pool.ok());
  TestListener listener = Listen();
  Pair stalled = TcpPair(16 << 10);
  Pair silent = TcpPair();
  Pair pooled = TcpPair();
  const std::string& bytes = *Bytes(Pattern(1 << 20));
  std::vector<Operation*> all;
  AcceptOp* accept = New<AcceptOp>(listener.fd);
  accept->flags = kOpMultishot;
  all.push_back(accept);
  all.push_back(NewSend(stalled.ours, bytes));
  all.push_back(NewSendfile(stalled.ours, File("x"), 0, 1));
  all.push_back(NewRecv(stalled.ours, Room(1)));
  RecvOp* recv = NewRecv(silent.ours, Room(1));
  recv->link = NewSend(silent.ours, "linked");
  all.push_back(recv);
  RecvOp* from_pool = New<RecvOp>(pooled.ours);
  from_pool->pool = *pool;
  from_pool->flags = kOpMultishot;
  all.push_back(from_pool);
  for (Operation* op : all) MustSubmit(op);
  all.push_back(recv->link);
  PostOp* post = New<PostOp>();
  EXPECT_EQ(0, queue().Post(post));
  all.push_back(post);
  Interest interest;
  interest.fd = silent.ours;
  interest.events = POLLIN | POLLOUT;
  MustAdd(interest);
  interest.source = Source::kTimer;
  interest.events = 0;
  MustAdd(interest);
  PeerSend(pooled.peer, Pattern(100));
  // Some of it is unread, some not even looked at.
  Wait wait;
  wait.min = 0;
  queue().Enter({}, wait);
  PostOp* late = New<PostOp>();
  EXPECT_EQ(0, queue().Post(late));
  all.push_back(late);

  Destroy();
  for (Operation* op : all) {
    EXPECT_FALSE(op->in_flight()) << static_cast<int>(op->opcode);
  }
  // Descriptors stay open and work.
  char byte = 'y';
  EXPECT_EQ(1, send(silent.ours, &byte, 1, MSG_NOSIGNAL));
  EXPECT_EQ("y", PeerRead(silent.peer, 1));
}

}  // namespace
}  // namespace kevent::conformance
