// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <map>

#include "kevent/queue/conformance/conformance.h"

namespace kevent::conformance {
namespace {

class CloseTest : public QueueTest {
 protected:
  static bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

  Handle Watch(int fd, uint32_t events, uint32_t flags = 0) {
    Interest interest;
    interest.fd = fd;
    interest.events = events;
    interest.flags = flags;
    return MustAdd(interest);
  }
};
KEVENT_CONFORMANCE(CloseTest);

TEST_P(CloseTest, IdleDescriptor) {
  Pair pair = TcpPair();
  EXPECT_EQ(0, CloseByQueue(pair.ours));
  EXPECT_FALSE(IsOpen(pair.ours));
  EXPECT_EQ("", PeerReadToEnd(pair.peer));
  int event = eventfd(0, EFD_CLOEXEC);
  EXPECT_EQ(0, queue().Close(event));
  EXPECT_FALSE(IsOpen(event));
}

TEST_P(CloseTest, WhatIsNotOpen) {
  EXPECT_EQ(-EBADF, queue().Close(-1));
  int closed = Pipe().first;
  CloseOwned(closed);
  EXPECT_EQ(-EBADF, queue().Close(closed));
}

TEST_P(CloseTest, EndsEverythingInFlight) {
  Pair pair = TcpPair(16 << 10);
  const std::string& bytes = *Bytes(Pattern(1 << 20));
  SendOp* send = NewSend(pair.ours, bytes);
  SendOp* queued = NewSend(pair.ours, "never");
  SendfileOp* sendfile = NewSendfile(pair.ours, File("never"), 0, 5);
  ShutdownOp* shutdown = New<ShutdownOp>(pair.ours);
  RecvOp* recv = NewRecv(pair.ours, Room(1));
  RecvOp* recv_queued = NewRecv(pair.ours, Room(1));
  std::vector<Operation*> all = {send,     queued, sendfile,
                                 shutdown, recv,   recv_queued};
  for (Operation* op : all) MustSubmit(op);
  const Handle level = Watch(pair.ours, POLLIN | POLLRDHUP);
  const Handle edge = Watch(pair.ours, POLLIN | POLLOUT, kEdge);
  Look();
  taken_.clear();  // the edge of being writable, at most
  ASSERT_TRUE(send->in_flight());

  EXPECT_EQ(0, CloseByQueue(pair.ours));
  EXPECT_EQ(-ENOENT, queue().Remove(level));
  EXPECT_EQ(-ENOENT, queue().Remove(edge));
  std::map<Operation*, int64_t> results;
  for (const Entry& e : WaitFor(all.size())) {
    EXPECT_EQ(Source::kOperation, e.source) << Describe(e);
    EXPECT_FALSE(results.contains(e.operation));
    results[e.operation] = e.result;
  }
  EXPECT_GT(results[send], 0);
  EXPECT_LT(results[send], 1 << 20);
  for (Operation* op : all) {
    if (op != send) {
      EXPECT_EQ(results[op], -ECANCELED) << static_cast<int>(op->opcode);
    }
  }
  ExpectNothing();
  EXPECT_FALSE(IsOpen(pair.ours));
  std::string got = PeerReadToEnd(pair.peer);
  EXPECT_EQ(static_cast<size_t>(results[send]), got.size());
  EXPECT_TRUE(bytes.substr(0, got.size()) == got);
}

TEST_P(CloseTest, PeerSeesTheEndAtOnce) {
  for (uint16_t flags : {uint16_t{0}, uint16_t{kOpMultishot}}) {
    auto pool = queue().AddBufferPool(2, 16);
    ASSERT_TRUE(pool.ok());
    Pair pair = TcpPair();
    RecvOp* recv = New<RecvOp>(pair.ours);
    recv->pool = *pool;
    recv->flags = flags;
    MustSubmit(recv);
    Watch(pair.ours, POLLIN);
    Watch(pair.ours, POLLRDHUP, kEdge);
    Look();
    EXPECT_EQ(0, CloseByQueue(pair.ours));
    EXPECT_EQ(-ECANCELED, ResultOf(recv));
    EXPECT_EQ("", PeerReadToEnd(pair.peer));
  }
}

TEST_P(CloseTest, PeerSeesTheEndOfAWatchedSocket) {
  Pair pair = TcpPair();
  Watch(pair.ours, POLLIN);
  Watch(pair.ours, POLLIN, kEdge);
  Watch(pair.ours, POLLRDHUP, kOneShot);
  Look();
  EXPECT_EQ(0, CloseByQueue(pair.ours));
  EXPECT_EQ("", PeerReadToEnd(pair.peer));
  ExpectNothing();
  EXPECT_EQ(queue().stats().interests, 0u);
}

TEST_P(CloseTest, ListenerWithAccepts) {
  TestListener listener = Listen();
  AcceptOp* accept = New<AcceptOp>(listener.fd);
  accept->flags = kOpMultishot;
  AcceptOp* queued = New<AcceptOp>(listener.fd);
  MustSubmit(accept);
  MustSubmit(queued);
  Look();
  EXPECT_EQ(0, CloseByQueue(listener.fd));
  for (const Entry& e : WaitFor(2)) EXPECT_EQ(e.result, -ECANCELED);
  int late = Own(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(-1, connect(late, reinterpret_cast<sockaddr*>(&listener.address),
                        sizeof listener.address));
  EXPECT_EQ(ECONNREFUSED, errno);
}

TEST_P(CloseTest, LinksAreCancelledAcrossSockets) {
  Pair one = TcpPair();
  Pair two = TcpPair();
  RecvOp* recv = NewRecv(one.ours, Room(1));
  SendOp* linked = NewSend(two.ours, "never");
  recv->link = linked;
  MustSubmit(recv);
  EXPECT_EQ(0, CloseByQueue(one.ours));
  EXPECT_EQ(-ECANCELED, ResultOf(recv));
  EXPECT_EQ(-ECANCELED, ResultOf(linked));
  SendOp* after = NewSend(two.ours, "x");
  MustSubmit(after);
  EXPECT_EQ(1, ResultOf(after));
}

TEST_P(CloseTest, OfTheSocketOfALink) {
  Pair one = TcpPair();
  Pair two = TcpPair();
  RecvOp* recv = NewRecv(one.ours, Room(1));
  SendOp* linked = NewSend(two.ours, "never");
  recv->link = linked;
  MustSubmit(recv);
  EXPECT_EQ(0, CloseByQueue(two.ours));
  EXPECT_EQ(-ECANCELED, ResultOf(linked));
  EXPECT_TRUE(recv->in_flight());
  PeerSend(one.peer, "x");
  EXPECT_EQ(1, ResultOf(recv));
  EXPECT_EQ("", PeerReadToEnd(two.peer));
}

TEST_P(CloseTest, ReusedDescriptorNumberStartsAnew) {
  int reused = 0;
  for (int i = 0; i < 96; ++i) {
    // Leave behind what could be mistaken for the next tenant's: poison,
    // readiness, an unread entry, an operation, interests.
    Pair old = TcpPair(16 << 10);
    Pair next = TcpPair();
    const std::string& bytes = *Bytes(Pattern(200'000));
    SendOp* cut = NewSend(old.ours, bytes);
    RecvOp* waits = NewRecv(old.ours, Room(1));
    MustSubmit(cut);
    MustSubmit(waits);
    PeerRead(old.peer, 1000);
    size_t left = 2;
    if (i % 2) {
      ASSERT_EQ(0, queue().Cancel(cut));
      EXPECT_GT(ResultOf(cut), 0);
      left = 1;
    }
    const Handle level = Watch(old.ours, POLLOUT | POLLIN);
    const Handle edge = Watch(old.ours, POLLIN, kEdge);
    PeerSend(old.peer, "xy");
    PeerRoundTrip(old);
    Wait look;
    look.min = 0;
    if (i % 3) queue().Enter({}, look);
    if (i % 5 == 0) CloseOwned(old.peer);
    EXPECT_EQ(0, CloseByQueue(old.ours));
    auto expect_old = [&](const Entry& e) {
      EXPECT_TRUE(e.operation == cut || e.operation == waits) << Describe(e);
      EXPECT_TRUE(e.result > 0 || e.result == -ECANCELED) << e.result;
    };
    if (i % 4 > 1) {
      for (const Entry& e : WaitFor(left)) expect_old(e);
      left = 0;
    }

    const int fd = Own(fcntl(next.ours, F_DUPFD_CLOEXEC, old.ours));
    CloseOwned(next.ours);
    reused += fd == old.ours;
    SendOp* send = NewSend(fd, "new");
    std::string* buffer = Room(5);
    RecvOp* recv = NewRecv(fd, buffer);
    MustSubmit(send);
    MustSubmit(recv);
    const Handle fresh = Watch(fd, POLLIN, kEdge | kDisabled);
    EXPECT_NE(fresh, level);
    EXPECT_NE(fresh, edge);
    EXPECT_EQ("new", PeerRead(next.peer, 3));
    PeerSend(next.peer, "hello");
    for (const Entry& e : WaitFor(left + 2)) {
      if (e.operation == send) {
        EXPECT_EQ(3, e.result);
      } else if (e.operation == recv) {
        EXPECT_EQ(5, e.result);
        EXPECT_EQ("hello", *buffer);
      } else {
        expect_old(e);
      }
    }
    ExpectNothing(0);
    EXPECT_EQ(-ENOENT, queue().Modify(level, POLLIN, 0));
    EXPECT_EQ(0, CloseByQueue(fd));
    EXPECT_EQ(-ENOENT, queue().Remove(fresh));
    if (HasFailure()) FAIL() << "turn " << i;
  }
  EXPECT_GE(reused, 48);
}

TEST_P(CloseTest, ReusedNumberOfAnAcceptedSocket) {
  TestListener listener = Listen();
  AcceptOp* accept = New<AcceptOp>(listener.fd);
  accept->flags = kOpMultishot;
  MustSubmit(accept);
  for (int i = 0; i < 50; ++i) {
    int peer = ConnectTo(listener);
    Entry e = One();
    ASSERT_GE(e.result, 0);
    int fd = static_cast<int>(e.result);
    RecvOp* recv = NewRecv(fd, Room(4));
    MustSubmit(recv);
    PeerSend(peer, "ping");
    EXPECT_EQ(4, ResultOf(recv));
    SendOp* send = NewSend(fd, "pong");
    MustSubmit(send);
    EXPECT_EQ(4, ResultOf(send));
    EXPECT_EQ("pong", PeerRead(peer, 4));
    MustSubmit(recv);
    if (i % 2) Look();
    EXPECT_EQ(0, queue().Close(fd));
    EXPECT_EQ(-ECANCELED, ResultOf(recv));
    EXPECT_EQ("", PeerReadToEnd(peer));
    CloseOwned(peer);
  }
  EXPECT_EQ(0, queue().Cancel(accept));
  EXPECT_EQ(-ECANCELED, ResultOf(accept));
}

// --- Two entries of one connection in one batch: what the first one's handler
// does must not be undone, or met again, by the second.

struct Connection {
  RecvOp recv;
  char byte = 0;
  Handle interest;
};

TEST_P(CloseTest, ConnectionEndsWhileAnEventOfItIsUnread) {
  for (int first = 0; first < 2; ++first) {
    Pair pair = TcpPair();
    auto* c = new Connection;
    c->recv.fd = pair.ours;
    c->recv.buffer = &c->byte;
    c->recv.size = 1;
    c->recv.user_data = reinterpret_cast<uintptr_t>(c);
    Interest interest;
    interest.fd = pair.ours;
    interest.events = POLLIN | POLLRDHUP;
    interest.user_data = reinterpret_cast<uintptr_t>(c);
    if (first == 0) c->interest = MustAdd(interest);
    MustSubmit(&c->recv);
    if (first == 1) c->interest = MustAdd(interest);
    Look();
    PeerSend(pair.peer, "xyz");
    PeerRoundTrip(pair);
    // Both events come in, one entry is taken.
    Wait look;
    look.min = 0;
    for (int i = 0; i < 3; ++i) queue().Enter({}, look);
    Entry e;
    look.min = 1;
    look.timeout_ns = PatienceNs();
    ASSERT_EQ(1, queue().Enter({&e, 1}, look));
    Note(e);
    EXPECT_EQ(e.user_data, reinterpret_cast<uintptr_t>(c));
    EXPECT_EQ(0, queue().Remove(c->interest));
    EXPECT_EQ(0, CloseByQueue(pair.ours));
    if (e.source == Source::kPoll && c->recv.in_flight()) {
      int64_t r = ResultOf(&c->recv);
      EXPECT_TRUE(r == 1 || r == -ECANCELED) << r;
    }
    ASSERT_FALSE(c->recv.in_flight());
    delete c;
    ExpectNothing();
  }
}

TEST_P(CloseTest, ConnectionEndsInABatchThatHoldsBothItsEvents) {
  // Both are in the caller's hands: the handle of the second is refused, its
  // generation tells that it is of the past.
  Pair pair = TcpPair();
  const Handle one = Watch(pair.ours, POLLIN);
  const Handle two = Watch(pair.ours, POLLOUT);
  PeerSend(pair.peer, "x");
  PeerRoundTrip(pair);
  std::vector<Entry> batch = WaitFor(2);
  EXPECT_EQ(0, CloseByQueue(pair.ours));
  for (const Entry& e : batch) {
    EXPECT_TRUE(e.handle == one || e.handle == two);
    EXPECT_EQ(-ENOENT, queue().Enable(e.handle));
  }
  ExpectNothing();
}

TEST_P(CloseTest, SubmitToADescriptorThatIsBeingClosed) {
  Pair pair = TcpPair();
  RecvOp* recv = NewRecv(pair.ours, Room(1));
  MustSubmit(recv);
  Look();
  EXPECT_EQ(0, CloseByQueue(pair.ours));
  RecvOp* late = NewRecv(pair.ours, Room(1));
  int r = Submit(late);
  EXPECT_TRUE(r == 0 || r == -EBADF) << r;
  for (const Entry& e : WaitFor(r == 0 ? 2 : 1)) {
    EXPECT_EQ(e.result, e.operation == late ? -EBADF : -ECANCELED);
  }
  r = queue().Close(pair.ours);
  EXPECT_EQ(-EBADF, r);
}

}  // namespace
}  // namespace kevent::conformance
