// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kevent/queue/conformance/conformance.h"

namespace kevent::conformance {
namespace {

class OrderTest : public QueueTest {
 protected:
  void ExpectInOrder(const std::vector<std::pair<Operation*, int64_t>>& all) {
    std::vector<Entry> entries = WaitFor(all.size());
    for (size_t i = 0; i < all.size(); ++i) {
      EXPECT_EQ(entries[i].operation, all[i].first) << "entry " << i;
      EXPECT_EQ(entries[i].result, all[i].second) << "entry " << i;
    }
  }
};
KEVENT_CONFORMANCE(OrderTest);

// --- Links.

TEST_P(OrderTest, LinksRunOneAfterTheOther) {
  Pair pair = TcpPair();
  SendOp* a = NewSend(pair.ours, "first ");
  SendfileOp* b = NewSendfile(pair.ours, File("second "), 0, 7);
  SendOp* c = NewSend(pair.ours, "third");
  ShutdownOp* d = New<ShutdownOp>(pair.ours);
  a->link = b;
  b->link = c;
  c->link = d;
  MustSubmit(a);
  ExpectInOrder({{a, 6}, {b, 7}, {c, 5}, {d, 0}});
  EXPECT_EQ("first second third", PeerReadToEnd(pair.peer));
}

TEST_P(OrderTest, LinkWaitsForItsPredecessor) {
  Pair one = TcpPair();
  Pair two = TcpPair();
  RecvOp* recv = NewRecv(one.ours, Room(4));
  SendOp* send = NewSend(two.ours, "answer");
  recv->link = send;
  MustSubmit(recv);
  ExpectNothing();
  EXPECT_TRUE(send->in_flight());
  char byte;
  EXPECT_EQ(-1, ::recv(two.peer, &byte, 1, MSG_DONTWAIT));
  PeerSend(one.peer, "ping");
  ExpectInOrder({{recv, 4}, {send, 6}});
  EXPECT_EQ("answer", PeerRead(two.peer, 6));
}

TEST_P(OrderTest, LinkHoldsItsPlaceOnItsSocket) {
  Pair one = TcpPair();
  Pair two = TcpPair();
  RecvOp* recv = NewRecv(one.ours, Room(4));
  SendOp* linked = NewSend(two.ours, "linked ");
  SendOp* later = NewSend(two.ours, "later");
  recv->link = linked;
  MustSubmit(recv);
  MustSubmit(later);
  ExpectNothing();
  PeerSend(one.peer, "ping");
  ExpectInOrder({{recv, 4}, {linked, 7}, {later, 5}});
  EXPECT_EQ("linked later", PeerRead(two.peer, 12));
}

TEST_P(OrderTest, LinkBrokenByAFailure) {
  Pair one = TcpPair();
  Pair two = TcpPair();
  ASSERT_EQ(0, shutdown(one.ours, SHUT_WR));
  SendOp* a = NewSend(one.ours, "fails");
  SendOp* b = NewSend(two.ours, "b");
  SendOp* c = NewSend(two.ours, "c");
  a->link = b;
  b->link = c;
  MustSubmit(a);
  ExpectInOrder({{a, -EPIPE}, {b, -ECANCELED}, {c, -ECANCELED}});
  SendOp* after = NewSend(two.ours, "only this");
  MustSubmit(after);
  EXPECT_EQ(9, ResultOf(after));
  EXPECT_EQ("only this", PeerRead(two.peer, 9));
}

TEST_P(OrderTest, LinkBrokenInTheMiddleByAShortTransfer) {
  Pair pair = TcpPair();
  SendOp* a = NewSend(pair.ours, "a");
  RecvOp* b = NewRecv(pair.ours, Room(10));
  SendOp* c = NewSend(pair.ours, "c");
  ShutdownOp* d = New<ShutdownOp>(pair.ours);
  a->link = b;
  b->link = c;
  c->link = d;
  MustSubmit(a);
  EXPECT_EQ(1, ResultOf(a));
  PeerSend(pair.peer, "short");
  ExpectInOrder({{b, 5}, {c, -ECANCELED}, {d, -ECANCELED}});
  SendOp* after = NewSend(pair.ours, "z");
  MustSubmit(after);
  EXPECT_EQ(1, ResultOf(after));
  EXPECT_EQ("az", PeerRead(pair.peer, 2));
}

TEST_P(OrderTest, LinkBrokenByTheEndOfTheStream) {
  Pair pair = TcpPair();
  RecvOp* a = NewRecv(pair.ours, Room(10));
  SendOp* b = NewSend(pair.ours, "b");
  a->link = b;
  MustSubmit(a);
  ASSERT_EQ(0, shutdown(pair.peer, SHUT_WR));
  ExpectInOrder({{a, 0}, {b, -ECANCELED}});
}

TEST_P(OrderTest, LongChain) {
  Pair pair = TcpPair();
  std::string all;
  std::vector<SendOp*> sends;
  for (int i = 0; i < 500; ++i) {
    const std::string& text = *Bytes(std::to_string(i) + " ");
    sends.push_back(NewSend(pair.ours, text));
    all += text;
    if (i > 0) sends[static_cast<size_t>(i) - 1]->link = sends.back();
  }
  MustSubmit(sends[0]);
  std::vector<Entry> entries = WaitFor(sends.size());
  for (size_t i = 0; i < sends.size(); ++i) {
    EXPECT_EQ(entries[i].operation, sends[i]);
  }
  EXPECT_EQ(all, PeerRead(pair.peer, all.size()));
}

// Each is cancelled by the one before it, and none on the stack of that one.
TEST_P(OrderTest, LongChainIsCancelled) {
  Pair pair = TcpPair();
  RecvOp* recv = NewRecv(pair.ours, Room(10));
  std::vector<Operation*> chain = {recv};
  // The module's operations, which have no such stack, are not ended here.
  const size_t count = GetParam() == "module" ? 2'000 : 200'000;
  for (size_t i = 0; i < count; ++i) {
    SendOp* send = NewSend(pair.ours, "never");
    chain.back()->link = send;
    chain.push_back(send);
  }
  MustSubmit(recv);
  ASSERT_EQ(0, shutdown(pair.peer, SHUT_WR));
  const std::vector<Entry> entries = WaitFor(chain.size());
  size_t in_order = 0;
  for (size_t i = 0; i < chain.size(); ++i) {
    in_order += entries[i].operation == chain[i] &&
                entries[i].result == (i > 0 ? -ECANCELED : 0);
  }
  EXPECT_EQ(chain.size(), in_order);
}

// --- Sockets and directions.

TEST_P(OrderTest, SendsQueuedOnAStalledPeer) {
  Pair pair = TcpPair(16 << 10);
  std::vector<std::pair<Operation*, int64_t>> order;
  std::string all;
  for (uint32_t i = 0; i < 6; ++i) {
    const std::string& bytes = *Bytes(Pattern(50'000 + i * 30'000, i));
    SendOp* send = NewSend(pair.ours, bytes);
    MustSubmit(send);
    all += bytes;
    order.push_back({send, static_cast<int64_t>(bytes.size())});
    Look();
  }
  EXPECT_TRUE(taken_.empty()) << "not even the first fits";
  EXPECT_TRUE(all == PeerRead(pair.peer, all.size()));
  ExpectInOrder(order);
}

TEST_P(OrderTest, SendfileIsOneUnitAmongSends) {
  Pair pair = TcpPair(16 << 10);
  std::vector<std::pair<Operation*, int64_t>> order;
  std::string all;
  for (uint32_t i = 0; i < 4; ++i) {
    const std::string& bytes = *Bytes(Pattern(60'000, i));
    const std::string& header = *Bytes("<header " + std::to_string(i) + ">");
    const std::string& trailer = *Bytes("<trailer>");
    const std::string contents = Pattern(150'000, i + 100);
    SendOp* send = NewSend(pair.ours, bytes);
    SendfileOp* sendfile = NewSendfile(pair.ours, File(contents), 10, 100'000);
    sendfile->header = std::as_bytes(std::span(header));
    sendfile->trailer = std::as_bytes(std::span(trailer));
    MustSubmit(send);
    MustSubmit(sendfile);
    std::string unit = header + contents.substr(10, 100'000) + trailer;
    all += bytes + unit;
    order.push_back({send, 60'000});
    order.push_back({sendfile, static_cast<int64_t>(unit.size())});
  }
  EXPECT_TRUE(all == PeerRead(pair.peer, all.size()));
  ExpectInOrder(order);
}

TEST_P(OrderTest, RecvsQueuedOnASilentPeer) {
  Pair pair = TcpPair();
  std::vector<std::string*> buffers;
  std::vector<std::pair<Operation*, int64_t>> order;
  for (int i = 0; i < 4; ++i) {
    buffers.push_back(Room(3));
    RecvOp* recv = NewRecv(pair.ours, buffers.back());
    MustSubmit(recv);
    order.push_back({recv, 3});
  }
  PeerSend(pair.peer, "abcdefghijkl");
  ExpectInOrder(order);
  EXPECT_EQ("abc", *buffers[0]);
  EXPECT_EQ("def", *buffers[1]);
  EXPECT_EQ("ghi", *buffers[2]);
  EXPECT_EQ("jkl", *buffers[3]);
}

TEST_P(OrderTest, DirectionsDoNotWaitForEachOther) {
  Pair pair = TcpPair(16 << 10);
  const std::string& bytes = *Bytes(Pattern(1 << 20));
  SendOp* send = NewSend(pair.ours, bytes);
  RecvOp* recv = NewRecv(pair.ours, Room(5));
  MustSubmit(send);
  MustSubmit(recv);
  PeerSend(pair.peer, "hello");
  EXPECT_EQ(5, ResultOf(recv)) << "while the send is stalled";
  EXPECT_TRUE(bytes == PeerRead(pair.peer, bytes.size()));
  EXPECT_EQ(1 << 20, ResultOf(send));
}

TEST_P(OrderTest, SocketsDoNotWaitForEachOther) {
  Pair stalled = TcpPair(16 << 10);
  Pair free = TcpPair();
  const std::string& bytes = *Bytes(Pattern(1 << 20));
  SendOp* slow = NewSend(stalled.ours, bytes);
  SendOp* fast = NewSend(free.ours, "fast");
  MustSubmit(slow);
  MustSubmit(fast);
  EXPECT_EQ(4, ResultOf(fast));
  EXPECT_TRUE(bytes == PeerRead(stalled.peer, bytes.size()));
  EXPECT_EQ(1 << 20, ResultOf(slow));
}

// --- After a send that ended short.

TEST_P(OrderTest, PoisonedUntilShutdown) {
  Pair pair = TcpPair(16 << 10);
  const std::string& bytes = *Bytes(Pattern(1 << 20));
  SendOp* cut = NewSend(pair.ours, bytes);
  SendOp* queued = NewSend(pair.ours, "never");
  SendfileOp* file = NewSendfile(pair.ours, File("never"), 0, 5);
  MustSubmit(cut);
  MustSubmit(queued);
  MustSubmit(file);
  PeerRead(pair.peer, 5000);
  ASSERT_TRUE(cut->in_flight());
  EXPECT_EQ(0, queue().Cancel(cut));
  std::vector<Entry> entries = WaitFor(3);
  EXPECT_EQ(entries[0].operation, cut);
  const int64_t sent = entries[0].result;
  EXPECT_GE(sent, 5000);
  EXPECT_LT(sent, 1 << 20);
  EXPECT_EQ(entries[1].operation, queued);
  EXPECT_EQ(entries[1].result, -ECANCELED);
  EXPECT_EQ(entries[2].operation, file);
  EXPECT_EQ(entries[2].result, -ECANCELED);

  SendOp* later = NewSend(pair.ours, "never");
  later->flags = kOpSkipSuccess;
  MustSubmit(later);
  EXPECT_EQ(-ECANCELED, ResultOf(later));
  ShutdownOp* shutdown = New<ShutdownOp>(pair.ours);
  MustSubmit(shutdown);
  EXPECT_EQ(0, ResultOf(shutdown));
  std::string rest = PeerReadToEnd(pair.peer);
  EXPECT_EQ(static_cast<size_t>(sent), 5000 + rest.size())
      << "the result tells exactly what the peer got";
  EXPECT_TRUE(bytes.substr(5000, rest.size()) == rest);
  MustSubmit(later);
  EXPECT_EQ(-EPIPE, ResultOf(later)) << "the socket's own answer again";
}

TEST_P(OrderTest, PoisonedByACutSendfile) {
  Pair pair = TcpPair(16 << 10);
  const std::string contents = Pattern(4 << 20);
  SendfileOp* cut = NewSendfile(pair.ours, File(contents), 0, 4 << 20);
  SendOp* queued = NewSend(pair.ours, "never");
  MustSubmit(cut);
  MustSubmit(queued);
  PeerRead(pair.peer, 5000);
  ASSERT_TRUE(cut->in_flight());
  EXPECT_EQ(0, queue().Cancel(cut));
  int64_t sent = ResultOf(cut);
  EXPECT_EQ(-ECANCELED, ResultOf(queued));
  EXPECT_EQ(0, CloseByQueue(pair.ours));
  std::string rest = PeerReadToEnd(pair.peer);
  EXPECT_EQ(static_cast<size_t>(sent), 5000 + rest.size());
  EXPECT_TRUE(contents.substr(5000, rest.size()) == rest);
}

TEST_P(OrderTest, PoisonIsOfOneSocketAndDirection) {
  Pair pair = TcpPair(16 << 10);
  Pair other = TcpPair();
  const std::string& bytes = *Bytes(Pattern(1 << 20));
  SendOp* cut = NewSend(pair.ours, bytes);
  MustSubmit(cut);
  PeerRead(pair.peer, 1000);
  EXPECT_EQ(0, queue().Cancel(cut));
  EXPECT_GT(ResultOf(cut), 0);
  SendOp* elsewhere = NewSend(other.ours, "x");
  MustSubmit(elsewhere);
  EXPECT_EQ(1, ResultOf(elsewhere));
  RecvOp* recv = NewRecv(pair.ours, Room(1));
  MustSubmit(recv);
  PeerSend(pair.peer, "x");
  EXPECT_EQ(1, ResultOf(recv));
}

TEST_P(OrderTest, NoPoisonWithoutAByte) {
  Pair pair = TcpPair(16 << 10);
  Fill(pair.ours);
  SendOp* first = NewSend(pair.ours, "not sent");
  SendOp* second = NewSend(pair.ours, "sent");
  MustSubmit(first);
  MustSubmit(second);
  Look();
  ASSERT_TRUE(first->in_flight());
  EXPECT_EQ(0, first->progress());
  EXPECT_EQ(0, queue().Cancel(first));
  EXPECT_EQ(-ECANCELED, ResultOf(first));
  ShutdownOp* shutdown = New<ShutdownOp>(pair.ours);
  MustSubmit(shutdown);
  std::string got = PeerReadToEnd(pair.peer);
  EXPECT_EQ(4, ResultOf(second));
  EXPECT_EQ(0, ResultOf(shutdown));
  EXPECT_EQ("sent", got.substr(got.find_first_not_of('f')));
}

TEST_P(OrderTest, ShortRecvPoisonsNothing) {
  Pair pair = TcpPair();
  RecvOp* first = NewRecv(pair.ours, Room(10));
  RecvOp* second = NewRecv(pair.ours, Room(1));
  MustSubmit(first);
  MustSubmit(second);
  PeerSend(pair.peer, "ab");
  EXPECT_EQ(2, ResultOf(first));
  PeerSend(pair.peer, "c");
  EXPECT_EQ(1, ResultOf(second));
}

}  // namespace
}  // namespace kevent::conformance
