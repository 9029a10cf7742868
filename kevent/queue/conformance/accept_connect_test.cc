// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <set>

#include "kevent/queue/conformance/conformance.h"

namespace kevent::conformance {
namespace {

class AcceptTest : public QueueTest {
 protected:
  // What the peer says arrives at the accepted descriptor.
  void ExpectConnected(int accepted, int peer) {
    PeerSend(peer, "x");
    std::string* buffer = Room(1);
    RecvOp* recv = NewRecv(accepted, buffer);
    MustSubmit(recv);
    EXPECT_EQ(1, ResultOf(recv));
    EXPECT_EQ("x", *buffer);
  }

  int PortOf(int fd, bool of_peer) {
    sockaddr_in address = {};
    socklen_t length = sizeof address;
    auto* a = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(
        0, of_peer ? getpeername(fd, a, &length) : getsockname(fd, a, &length));
    return ntohs(address.sin_port);
  }
};
KEVENT_CONFORMANCE(AcceptTest);

TEST_P(AcceptTest, TakesAConnectionThatComes) {
  TestListener listener = Listen();
  AcceptOp* accept = New<AcceptOp>(listener.fd);
  accept->user_data = 77;
  MustSubmit(accept);
  EXPECT_TRUE(accept->in_flight());
  ExpectNothing();

  int peer = ConnectTo(listener);
  int64_t fd = ResultOf(accept);
  ASSERT_GE(fd, 0);
  Own(static_cast<int>(fd));
  EXPECT_FALSE(accept->in_flight());
  EXPECT_TRUE(fcntl(static_cast<int>(fd), F_GETFD) & FD_CLOEXEC);
  EXPECT_EQ(PortOf(peer, false), PortOf(static_cast<int>(fd), true));
  ExpectConnected(static_cast<int>(fd), peer);
}

TEST_P(AcceptTest, TakesAConnectionThatWaits) {
  TestListener listener = Listen();
  int peer = ConnectTo(listener);
  AcceptOp* accept = New<AcceptOp>(listener.fd);
  MustSubmit(accept);
  int fd = Own(static_cast<int>(ResultOf(accept)));
  ExpectConnected(fd, peer);
}

TEST_P(AcceptTest, TakesOneOnly) {
  TestListener listener = Listen();
  ConnectTo(listener);
  ConnectTo(listener);
  AcceptOp* accept = New<AcceptOp>(listener.fd);
  MustSubmit(accept);
  Own(static_cast<int>(ResultOf(accept)));
  ExpectNothing();
  MustSubmit(accept);
  Own(static_cast<int>(ResultOf(accept)));
}

TEST_P(AcceptTest, MultishotTakesAllUntilItIsCancelled) {
  TestListener listener = Listen();
  AcceptOp* accept = New<AcceptOp>(listener.fd);
  accept->flags = kOpMultishot;
  accept->user_data = 78;
  ConnectTo(listener);
  MustSubmit(accept);
  for (int i = 0; i < 4; ++i) ConnectTo(listener);
  std::set<int64_t> fds;
  for (const Entry& e : WaitFor(5)) {
    EXPECT_EQ(e.operation, accept);
    EXPECT_EQ(e.user_data, 78u);
    EXPECT_TRUE(e.flags & kEntryMore);
    if (e.result >= 0) Own(static_cast<int>(e.result));
    fds.insert(e.result);
  }
  EXPECT_EQ(fds.size(), 5u);
  EXPECT_GE(*fds.begin(), 0);
  ConnectTo(listener);
  Own(static_cast<int>(One().result));

  EXPECT_TRUE(accept->in_flight());
  EXPECT_EQ(0, queue().Cancel(accept));
  EXPECT_EQ(-ECANCELED, ResultOf(accept));
  ConnectTo(listener);
  ExpectNothing();
}

TEST_P(AcceptTest, WhatNobodyTookIsClosedWithTheQueue) {
  TestListener listener = Listen();
  AcceptOp* accept = New<AcceptOp>(listener.fd);
  accept->flags = kOpMultishot;
  ASSERT_EQ(0, queue().Submit(accept));
  int peers[3];
  for (int& peer : peers) peer = ConnectTo(listener);
  Entry taken;
  Wait wait;
  wait.timeout_ns = PatienceNs();
  ASSERT_EQ(1, queue().Enter({&taken, 1}, wait));
  Own(static_cast<int>(taken.result));
  // The others are in one ring or another, or in the backlog.
  Destroy();
  CloseOwned(listener.fd);
  CloseOwned(static_cast<int>(taken.result));
  for (int peer : peers) {
    pollfd p = {peer, POLLIN, 0};
    EXPECT_EQ(1, poll(&p, 1, static_cast<int>(PatienceNs() / kMs)));
  }
}

TEST_P(AcceptTest, FailsOnASocketThatDoesNotListen) {
  Pair pair = TcpPair();
  AcceptOp* accept = New<AcceptOp>(pair.ours);
  MustSubmit(accept);
  EXPECT_EQ(-EINVAL, ResultOf(accept));
  accept->flags = kOpMultishot;
  MustSubmit(accept);
  EXPECT_EQ(-EINVAL, ResultOf(accept));
}

// Takes every descriptor number of the process but a few for the engine, until
// it is destroyed.
class DescriptorsExhausted {
 public:
  DescriptorsExhausted() {
    getrlimit(RLIMIT_NOFILE, &before_);
    int lowest = dup(0);
    rlimit less = before_;
    less.rlim_cur = static_cast<rlim_t>(lowest) + 32;
    setrlimit(RLIMIT_NOFILE, &less);
    close(lowest);
  }
  // The limit is low. Takes what it leaves.
  void Take() {
    for (int fd; (fd = dup(0)) >= 0;) taken_.push_back(fd);
  }
  void GiveBack() {
    for (int fd : taken_) close(fd);
    taken_.clear();
  }
  ~DescriptorsExhausted() {
    GiveBack();
    setrlimit(RLIMIT_NOFILE, &before_);
  }

 private:
  rlimit before_ = {};
  std::vector<int> taken_;
};

TEST_P(AcceptTest, ConnectionStaysInTheBacklogWithoutADescriptor) {
  TestListener listener = Listen();
  for (uint16_t flags : {uint16_t{0}, uint16_t{kOpMultishot}}) {
    SCOPED_TRACE(flags);
    AcceptOp* accept = New<AcceptOp>(listener.fd);
    accept->flags = flags;
    int peer = Own(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    Look();  // whatever an engine opens late is open now
    DescriptorsExhausted exhausted;
    MustSubmit(accept);
    Look();
    exhausted.Take();
    ASSERT_EQ(0, connect(peer, reinterpret_cast<sockaddr*>(&listener.address),
                         sizeof listener.address));
    EXPECT_EQ(-EMFILE, ResultOf(accept));
    MustSubmit(accept);
    EXPECT_EQ(-EMFILE, ResultOf(accept));

    exhausted.GiveBack();
    MustSubmit(accept);
    Entry e = One();
    ASSERT_GE(e.result, 0);
    int fd = Own(static_cast<int>(e.result));
    EXPECT_EQ(PortOf(peer, false), PortOf(fd, true));
    if (flags) {
      EXPECT_EQ(0, queue().Cancel(accept));
      EXPECT_EQ(-ECANCELED, ResultOf(accept));
    }
  }
}

TEST_P(AcceptTest, PassesOverConnectionsThatDiedInTheBacklog) {
  TestListener listener = Listen();
  int dead = ConnectTo(listener);
  ResetPeer(dead);
  CloseOwned(dead);
  int peer = ConnectTo(listener);
  AcceptOp* accept = New<AcceptOp>(listener.fd);
  accept->flags = kOpMultishot;
  MustSubmit(accept);
  // The dead one may show as a connection that is at its end.
  for (;;) {
    Entry e = One();
    ASSERT_GE(e.result, 0);
    int fd = Own(static_cast<int>(e.result));
    sockaddr_in address;
    socklen_t length = sizeof address;
    if (getpeername(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0 &&
        address.sin_port == htons(static_cast<uint16_t>(PortOf(peer, false)))) {
      break;
    }
  }
  EXPECT_EQ(0, queue().Cancel(accept));
  EXPECT_EQ(-ECANCELED, ResultOf(accept));
}

class ConnectTest : public QueueTest {
 protected:
  ConnectOp* NewConnect(int fd, const sockaddr_in& to) {
    ConnectOp* op = New<ConnectOp>(fd);
    memcpy(&op->address, &to, sizeof to);
    op->address_length = sizeof to;
    return op;
  }
  int Socket(int flags = 0) {
    return Own(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0));
  }
};
KEVENT_CONFORMANCE(ConnectTest);

TEST_P(ConnectTest, Connects) {
  TestListener listener = Listen();
  for (int flags : {0, int{SOCK_NONBLOCK}}) {
    ConnectOp* op = NewConnect(Socket(flags), listener.address);
    MustSubmit(op);
    EXPECT_EQ(0, ResultOf(op));
    int accepted = Own(accept(listener.fd, nullptr, nullptr));
    SendOp* send = NewSend(op->fd, "hello");
    MustSubmit(send);
    EXPECT_EQ(5, ResultOf(send));
    EXPECT_EQ("hello", PeerRead(accepted, 5));
  }
}

TEST_P(ConnectTest, SendsQueuedBehindItGoOutAfterIt) {
  TestListener listener = Listen();
  ConnectOp* op = NewConnect(Socket(), listener.address);
  SendOp* send = NewSend(op->fd, "hello");
  MustSubmit(op);
  MustSubmit(send);
  EXPECT_EQ(0, ResultOf(op));
  EXPECT_EQ(5, ResultOf(send));
  int accepted = Own(accept(listener.fd, nullptr, nullptr));
  EXPECT_EQ("hello", PeerRead(accepted, 5));
}

TEST_P(ConnectTest, IsRefused) {
  // Bound, so that nobody else gets the port, but nobody listens.
  int bound = Socket();
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* a = reinterpret_cast<sockaddr*>(&address);
  ASSERT_EQ(0, bind(bound, a, length));
  ASSERT_EQ(0, getsockname(bound, a, &length));
  ConnectOp* op = NewConnect(Socket(), address);
  SendOp* linked = NewSend(op->fd, "never");
  op->link = linked;
  MustSubmit(op);
  EXPECT_EQ(-ECONNREFUSED, ResultOf(op));
  EXPECT_EQ(-ECANCELED, ResultOf(linked));
}

TEST_P(ConnectTest, FailsWhenConnectedAlready) {
  TestListener listener = Listen();
  Pair pair = TcpPair();
  ConnectOp* op = NewConnect(pair.ours, listener.address);
  MustSubmit(op);
  EXPECT_EQ(-EISCONN, ResultOf(op));
}

TEST_P(ConnectTest, IsCancelledWhileItWaits) {
  TestListener listener = Listen(0);
  // The first fills the backlog; those behind it wait for an answer.
  std::vector<ConnectOp*> ops;
  for (int i = 0; i < 4; ++i) {
    ops.push_back(NewConnect(Socket(), listener.address));
    MustSubmit(ops.back());
  }
  EXPECT_EQ(0, ResultOf(ops[0]));
  Turn();
  ConnectOp* last = ops.back();
  if (!last->in_flight()) GTEST_SKIP() << "the backlog takes them all";
  EXPECT_EQ(0, queue().Cancel(last));
  EXPECT_TRUE(RunUntil([&] { return !last->in_flight(); }));
  ASSERT_FALSE(taken_.empty());
  EXPECT_EQ(taken_.back().operation, last);
  EXPECT_EQ(-ECANCELED, taken_.back().result);
  taken_.clear();
}

TEST_P(ConnectTest, RefusesAMalformedAddress) {
  ConnectOp* op = New<ConnectOp>(Socket());
  EXPECT_EQ(-EINVAL, Submit(op));
  op->address_length = sizeof op->address + 1;
  EXPECT_EQ(-EINVAL, Submit(op));
  EXPECT_FALSE(op->in_flight());
}

}  // namespace
}  // namespace kevent::conformance
