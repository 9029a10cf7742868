// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/tcp.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "kevent/queue/conformance/conformance.h"

namespace kevent::conformance {
namespace {

class RecvTest : public QueueTest {};
KEVENT_CONFORMANCE(RecvTest);

TEST_P(RecvTest, TakesWhatIsThere) {
  Pair pair = TcpPair();
  std::string* buffer = Room(100);
  RecvOp* recv = NewRecv(pair.ours, buffer);
  recv->user_data = 5;
  PeerSend(pair.peer, "hello");
  PeerRoundTrip(pair);
  MustSubmit(recv);
  EXPECT_EQ(5, ResultOf(recv));
  EXPECT_EQ("hello", buffer->substr(0, 5));
}

TEST_P(RecvTest, WaitsForWhatComes) {
  Pair pair = TcpPair();
  std::string* buffer = Room(3);
  RecvOp* recv = NewRecv(pair.ours, buffer);
  for (uint16_t flags : {uint16_t{0}, uint16_t{kOpPollFirst}}) {
    recv->flags = flags;
    MustSubmit(recv);
    ExpectNothing();
    EXPECT_TRUE(recv->in_flight());
    PeerSend(pair.peer, "abcdef");
    EXPECT_EQ(3, ResultOf(recv));
    EXPECT_EQ("abc", *buffer);
    // What is left is not lost, even if nothing is expected.
    MustSubmit(recv);
    EXPECT_EQ(3, ResultOf(recv));
    EXPECT_EQ("def", *buffer);
  }
}

TEST_P(RecvTest, EndOfStream) {
  Pair pair = TcpPair();
  std::string* buffer = Room(10);
  RecvOp* recv = NewRecv(pair.ours, buffer);
  MustSubmit(recv);
  Look();
  PeerSend(pair.peer, "bye");
  ASSERT_EQ(0, shutdown(pair.peer, SHUT_WR));
  EXPECT_EQ(3, ResultOf(recv));
  for (int i = 0; i < 2; ++i) {
    MustSubmit(recv);
    EXPECT_EQ(0, ResultOf(recv));
  }
  SendOp* send = NewSend(pair.ours, "still open");
  MustSubmit(send);
  EXPECT_EQ(10, ResultOf(send));
  EXPECT_EQ("still open", PeerRead(pair.peer, 10));
}

TEST_P(RecvTest, Reset) {
  Pair pair = TcpPair();
  RecvOp* recv = NewRecv(pair.ours, Room(10));
  MustSubmit(recv);
  Look();
  ResetPeer(pair.peer);
  CloseOwned(pair.peer);
  EXPECT_EQ(-ECONNRESET, ResultOf(recv));
}

TEST_P(RecvTest, FailsOnWhatIsNoSocket) {
  auto [out, in] = Pipe();
  RecvOp* recv = NewRecv(out, Room(10));
  MustSubmit(recv);
  EXPECT_EQ(-ENOTSOCK, ResultOf(recv));
  int closed = Pipe().first;
  CloseOwned(closed);
  recv->fd = closed;
  MustSubmit(recv);
  EXPECT_EQ(-EBADF, ResultOf(recv));
}

TEST_P(RecvTest, PoolLendsABuffer) {
  auto pool = queue().AddBufferPool(4, 16);
  ASSERT_TRUE(pool.ok()) << pool.status();
  EXPECT_EQ((*pool)->size(), 4u);
  EXPECT_EQ((*pool)->buffer_size(), 16u);
  Pair pair = TcpPair();
  RecvOp* recv = New<RecvOp>(pair.ours);
  recv->pool = *pool;
  // More often than there are buffers.
  for (int turn = 0; turn < 10; ++turn) {
    MustSubmit(recv);
    Look();
    PeerSend(pair.peer, "in a buffer");
    Entry e = One();
    EXPECT_EQ(e.operation, recv);
    ASSERT_EQ(e.result, 11);
    ASSERT_EQ(e.flags, uint32_t{kEntryBuffer});
    ASSERT_LT(e.data[1], 4u);
    auto id = static_cast<uint16_t>(e.data[1]);
    auto* data = reinterpret_cast<std::byte*>(e.data[0]);
    EXPECT_EQ(data, (*pool)->data(id));
    EXPECT_EQ("in a buffer", std::string(reinterpret_cast<char*>(data), 11));
    (*pool)->Release(id);
  }
  ASSERT_EQ(0, shutdown(pair.peer, SHUT_WR));
  MustSubmit(recv);
  Entry e = One();
  EXPECT_EQ(e.result, 0);
  EXPECT_EQ(e.flags, 0u) << "no buffer is held without data";
}

// Nothing more may be pinned meanwhile.
class NoLockedMemory {
 public:
  NoLockedMemory() {
    EXPECT_EQ(0, getrlimit(RLIMIT_MEMLOCK, &limit_));
    const rlimit none = {0, limit_.rlim_max};
    EXPECT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &none));
    // Of this thread: who may lock any amount has no limit.
    EXPECT_EQ(0, syscall(SYS_capget, &header_, data_));
    __user_cap_data_struct less[2] = {data_[0], data_[1]};
    less[CAP_TO_INDEX(CAP_IPC_LOCK)].effective &= ~CAP_TO_MASK(CAP_IPC_LOCK);
    EXPECT_EQ(0, syscall(SYS_capset, &header_, less));
  }
  ~NoLockedMemory() {
    EXPECT_EQ(0, syscall(SYS_capset, &header_, data_));
    EXPECT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &limit_));
  }

 private:
  rlimit limit_ = {};
  __user_cap_header_struct header_ = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data_[2] = {};
};

TEST_P(RecvTest, PoolWhereNothingMayBePinned) {
  if (queue().engine() == EngineKind::kUring) {
    GTEST_SKIP() << "newer kernels charge its pools, and have no others";
  }
  absl::StatusOr<BufferPool*> pool;
  {
    NoLockedMemory none;
    pool = queue().AddBufferPool(4, 16);
  }
  ASSERT_TRUE(pool.ok()) << pool.status();
  Pair pair = TcpPair();
  RecvOp* recv = New<RecvOp>(pair.ours);
  recv->pool = *pool;
  MustSubmit(recv);
  Look();
  PeerSend(pair.peer, "ordinary");
  Entry e = One();
  ASSERT_EQ(e.result, 8);
  EXPECT_EQ("ordinary", std::string(reinterpret_cast<char*>(e.data[0]), 8));
  (*pool)->Release(static_cast<uint16_t>(e.data[1]));
}

TEST_P(RecvTest, MultishotDeliversUntilTheEndOfTheStream) {
  auto pool = queue().AddBufferPool(8, 64);
  ASSERT_TRUE(pool.ok()) << pool.status();
  Pair pair = TcpPair();
  RecvOp* recv = New<RecvOp>(pair.ours);
  recv->pool = *pool;
  recv->flags = kOpMultishot;
  recv->user_data = 9;
  MustSubmit(recv);
  const std::string sent = Pattern(5000);
  PeerSend(pair.peer, sent);
  ASSERT_EQ(0, shutdown(pair.peer, SHUT_WR));
  std::string got;
  for (;;) {
    Entry e = One();
    ASSERT_EQ(e.operation, recv);
    EXPECT_EQ(e.user_data, 9u);
    if (!(e.flags & kEntryMore)) {
      EXPECT_EQ(e.result, 0);
      EXPECT_FALSE(e.flags & kEntryBuffer);
      break;
    }
    ASSERT_GT(e.result, 0);
    ASSERT_LE(e.result, 64);
    ASSERT_TRUE(e.flags & kEntryBuffer);
    got.append(reinterpret_cast<char*>(e.data[0]),
               static_cast<size_t>(e.result));
    (*pool)->Release(static_cast<uint16_t>(e.data[1]));
  }
  EXPECT_EQ(sent, got);
  EXPECT_FALSE(recv->in_flight());
}

TEST_P(RecvTest, ManyAtOnceComeSomeAtATime) {
  constexpr size_t kPairs = 100;
  std::vector<Pair> pairs;
  std::vector<RecvOp*> receives;
  for (size_t i = 0; i < kPairs; ++i) {
    pairs.push_back(TcpPair());
    receives.push_back(NewRecv(pairs[i].ours, Room(1)));
  }
  for (int round = 0; round < 3; ++round) {
    for (RecvOp* recv : receives) MustSubmit(recv);
    Look();
    for (const Pair& pair : pairs) PeerSend(pair.peer, "x");
    PeerRoundTrip(pairs.back());
    size_t most = 0;
    ASSERT_TRUE(RunUntil([&, before = size_t{0}]() mutable {
      most = std::max(most, taken_.size() - before);
      before = taken_.size();
      return before == kPairs;
    }));
    for (const Entry& e : WaitFor(kPairs)) EXPECT_EQ(1, e.result);
    // The first round has told it that receives are what comes.
    if (GetParam() == "epoll" && round > 0) {
      EXPECT_LE(most, 24u);
    }
  }
}

TEST_P(RecvTest, MultishotEndsWithTheError) {
  auto pool = queue().AddBufferPool(8, 64);
  ASSERT_TRUE(pool.ok()) << pool.status();
  Pair pair = TcpPair();
  RecvOp* recv = New<RecvOp>(pair.ours);
  recv->pool = *pool;
  recv->flags = kOpMultishot;
  MustSubmit(recv);
  Look();
  ResetPeer(pair.peer);
  CloseOwned(pair.peer);
  EXPECT_EQ(-ECONNRESET, ResultOf(recv));
}

class SendTest : public QueueTest {
 protected:
  SendOp* NewGather(int fd, std::vector<iovec>* pieces) {
    SendOp* op = New<SendOp>(fd);
    op->pieces = *pieces;
    return op;
  }
};
KEVENT_CONFORMANCE(SendTest);

TEST_P(SendTest, Sends) {
  Pair pair = TcpPair();
  SendOp* send = NewSend(pair.ours, "hello");
  send->user_data = 6;
  MustSubmit(send);
  EXPECT_EQ(5, ResultOf(send));
  EXPECT_EQ("hello", PeerRead(pair.peer, 5));
}

TEST_P(SendTest, SendsMoreThanTheSocketTakes) {
  Pair pair = TcpPair(16 << 10);
  const std::string& bytes = *Bytes(Pattern(1 << 20));
  SendOp* send = NewSend(pair.ours, bytes);
  MustSubmit(send);
  Look();
  EXPECT_TRUE(send->in_flight()) << "the peer does not read yet";
  EXPECT_LT(send->progress(), static_cast<int64_t>(bytes.size()));
  EXPECT_TRUE(bytes == PeerRead(pair.peer, bytes.size()));
  EXPECT_EQ(static_cast<int64_t>(bytes.size()), ResultOf(send));
}

TEST_P(SendTest, GathersAnyNumberOfPieces) {
  for (size_t count : {2u, 17u, 64u, 65u, 300u, 1024u}) {
    for (int buffer : {0, 16 << 10}) {
      SCOPED_TRACE(testing::Message() << count << " pieces, " << buffer);
      Pair pair = TcpPair(buffer);
      std::string& bytes = *Bytes(Pattern(count * 500));
      std::vector<iovec> pieces;
      // Of all sizes, and none at all.
      size_t at = 0;
      for (size_t i = 0; i < count; ++i) {
        size_t size = i % 5 == 3       ? 0
                      : i + 1 == count ? bytes.size() - at
                                       : (i * 37) % 1000;
        size = std::min(size, bytes.size() - at);
        pieces.push_back({bytes.data() + at, size});
        at += size;
      }
      SendOp* send = NewGather(pair.ours, &pieces);
      MustSubmit(send);
      EXPECT_TRUE(bytes.substr(0, at) == PeerRead(pair.peer, at));
      EXPECT_EQ(static_cast<int64_t>(at), ResultOf(send));
    }
  }
}

TEST_P(SendTest, RefusesTooManyPieces) {
  Pair pair = TcpPair();
  char byte = 'x';
  std::vector<iovec> pieces(kMaxGather + 1, iovec{&byte, 1});
  SendOp* send = NewGather(pair.ours, &pieces);
  EXPECT_EQ(-EINVAL, Submit(send));
  EXPECT_FALSE(send->in_flight());
  pieces.pop_back();
  send->pieces = pieces;
  MustSubmit(send);
  EXPECT_EQ(1024, ResultOf(send));
}

TEST_P(SendTest, EmptySendsSucceed) {
  Pair pair = TcpPair();
  SendOp* nothing = NewSend(pair.ours, "");
  SendOp* no_pieces = New<SendOp>(pair.ours);
  std::vector<iovec> empty(3, iovec{nullptr, 0});
  SendOp* empty_pieces = NewGather(pair.ours, &empty);
  SendOp* after = NewSend(pair.ours, "x");
  nothing->link = no_pieces;
  no_pieces->link = empty_pieces;
  empty_pieces->link = after;
  MustSubmit(nothing);
  EXPECT_EQ(0, ResultOf(nothing));
  EXPECT_EQ(0, ResultOf(no_pieces));
  EXPECT_EQ(0, ResultOf(empty_pieces));
  EXPECT_EQ(1, ResultOf(after));
  EXPECT_EQ("x", PeerRead(pair.peer, 1));
}

TEST_P(SendTest, MoreJoinsTheNextSend) {
  // A machine that stops for a fifth of a second may send them apart.
  for (int attempt = 0; attempt < 5; ++attempt) {
    Pair pair = TcpPair();
    SendOp* first = NewSend(pair.ours, "header");
    first->more = true;
    SendOp* second = NewSend(pair.ours, "body");
    MustSubmit(first);
    MustSubmit(second);
    EXPECT_EQ(6, ResultOf(first));
    EXPECT_EQ(4, ResultOf(second));
    EXPECT_EQ("headerbody", PeerRead(pair.peer, 10));
    tcp_info info = {};
    socklen_t length = sizeof info;
    ASSERT_EQ(0, getsockopt(pair.ours, IPPROTO_TCP, TCP_INFO, &info, &length));
    if (info.tcpi_data_segs_out == 1) return;
  }
  FAIL() << "they are never sent in one segment";
}

TEST_P(SendTest, MoreThanTheSocketTakesWithMoreToFollow) {
  const std::string& bytes = *Bytes(Pattern(100 << 10));
  const auto size = static_cast<int64_t>(bytes.size());
  for (size_t count : {1u, 3u}) {
    for (bool cancelled : {false, true}) {
      SCOPED_TRACE(testing::Message() << count << " pieces, " << cancelled);
      Pair pair = TcpPair(16 << 10);
      std::vector<iovec> pieces;
      for (size_t i = 0; i < count; ++i) {
        const size_t at = i * bytes.size() / count;
        const size_t end = (i + 1) * bytes.size() / count;
        pieces.push_back({const_cast<char*>(bytes.data()) + at, end - at});
      }
      SendOp* first = NewGather(pair.ours, &pieces);
      first->more = true;
      first->flags = kOpSkipInline;
      ASSERT_EQ(0, Submit(first)) << "the peer does not read yet";
      SendOp* second = NewSend(pair.ours, "end");
      MustSubmit(second);
      Look();
      if (cancelled) {
        ASSERT_EQ(0, queue().Cancel(first));
        const int64_t sent = ResultOf(first);
        EXPECT_GT(sent, 0);
        EXPECT_LT(sent, size);
        EXPECT_EQ(-ECANCELED, ResultOf(second));
        ASSERT_EQ(0, CloseByQueue(pair.ours));
        EXPECT_TRUE(bytes.substr(0, static_cast<size_t>(sent)) ==
                    PeerReadToEnd(pair.peer));
      } else {
        EXPECT_TRUE(bytes + "end" == PeerRead(pair.peer, bytes.size() + 3));
        EXPECT_EQ(size, ResultOf(first));
        EXPECT_EQ(3, ResultOf(second));
      }
    }
  }
}

TEST_P(SendTest, FailsWhenThePeerHasReset) {
  Pair pair = TcpPair();
  ResetPeer(pair.peer);
  CloseOwned(pair.peer);
  SendOp* send = NewSend(pair.ours, "x");
  MustSubmit(send);
  int64_t r = ResultOf(send);
  EXPECT_TRUE(r == -ECONNRESET || r == -EPIPE) << r;
  MustSubmit(send);
  EXPECT_EQ(-EPIPE, ResultOf(send));
}

TEST_P(SendTest, EndsShortWhenThePeerResets) {
  Pair pair = TcpPair(16 << 10);
  const std::string& bytes = *Bytes(Pattern(1 << 20));
  SendOp* send = NewSend(pair.ours, bytes);
  MustSubmit(send);
  EXPECT_TRUE(bytes.substr(0, 1000) == PeerRead(pair.peer, 1000));
  ASSERT_TRUE(send->in_flight());
  ResetPeer(pair.peer);
  CloseOwned(pair.peer);
  int64_t r = ResultOf(send);
  EXPECT_GE(r, 1000);
  EXPECT_LT(r, static_cast<int64_t>(bytes.size()));
}

TEST_P(SendTest, ShutdownWaitsForTheSendsBeforeIt) {
  Pair pair = TcpPair(16 << 10);
  const std::string& bytes = *Bytes(Pattern(1 << 20));
  SendOp* send = NewSend(pair.ours, bytes);
  ShutdownOp* shutdown = New<ShutdownOp>(pair.ours);
  MustSubmit(send);
  MustSubmit(shutdown);
  EXPECT_TRUE(bytes == PeerReadToEnd(pair.peer));
  EXPECT_EQ(static_cast<int64_t>(bytes.size()), ResultOf(send));
  EXPECT_EQ(0, ResultOf(shutdown));
  // The other direction still works.
  PeerSend(pair.peer, "x");
  RecvOp* recv = NewRecv(pair.ours, Room(1));
  MustSubmit(recv);
  EXPECT_EQ(1, ResultOf(recv));
}

TEST_P(SendTest, ShutdownFails) {
  ShutdownOp* shutdown =
      New<ShutdownOp>(Own(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  MustSubmit(shutdown);
  EXPECT_EQ(-ENOTCONN, ResultOf(shutdown));
}

TEST_P(SendTest, CloseLinkedBehindASend) {
  Pair pair = TcpPair(16 << 10);
  const std::string& bytes = *Bytes(Pattern(1 << 20));
  SendOp* send = NewSend(pair.ours, bytes);
  CloseOp* close = New<CloseOp>(pair.ours);
  send->link = close;
  MustSubmit(send);
  Disown(pair.ours);
  EXPECT_TRUE(bytes == PeerReadToEnd(pair.peer));
  EXPECT_EQ(static_cast<int64_t>(bytes.size()), ResultOf(send));
  EXPECT_EQ(0, ResultOf(close));
  EXPECT_EQ(-1, fcntl(pair.ours, F_GETFD));
  EXPECT_EQ(EBADF, errno);
}

TEST_P(SendTest, CloseCancelsWhatIsNotBeforeItInItsChain) {
  Pair pair = TcpPair(16 << 10);
  const std::string& bytes = *Bytes(Pattern(1 << 20));
  SendOp* send = NewSend(pair.ours, bytes);
  RecvOp* recv = NewRecv(pair.ours, Room(10));
  CloseOp* close = New<CloseOp>(pair.ours);
  MustSubmit(recv);
  MustSubmit(send);
  Look();
  Disown(pair.ours);
  MustSubmit(close);
  for (const Entry& e : WaitFor(3)) {
    if (e.operation == send) {
      EXPECT_GT(e.result, 0);
      EXPECT_LT(e.result, static_cast<int64_t>(bytes.size()));
    } else if (e.operation == recv) {
      EXPECT_EQ(-ECANCELED, e.result);
    } else {
      EXPECT_EQ(close, e.operation);
      EXPECT_EQ(0, e.result);
      EXPECT_EQ(-1, fcntl(pair.ours, F_GETFD));
    }
  }
  PeerReadToEnd(pair.peer);
}

TEST_P(SendTest, CloseOfADescriptorThatIsNotOpen) {
  int closed = Pipe().first;
  CloseOwned(closed);
  CloseOp* close = New<CloseOp>(closed);
  MustSubmit(close);
  EXPECT_EQ(-EBADF, ResultOf(close));
}

class SubmitTest : public QueueTest {
 protected:
  void ExpectRefused(int error, Operation* op) {
    EXPECT_EQ(error, Submit(op));
    EXPECT_FALSE(op->in_flight());
  }
};
KEVENT_CONFORMANCE(SubmitTest);

TEST_P(SubmitTest, WhatHasItsResultInTheEntryIsNotSilent) {
  Pair pair = TcpPair();
  BufferPool* pool = *queue().AddBufferPool(2, 64);
  for (uint16_t flag : {kOpSkipSuccess, kOpSkipInline}) {
    AcceptOp accept;
    accept.fd = pair.ours;
    accept.flags = flag;
    EXPECT_EQ(-EINVAL, queue().Submit(&accept));
    RecvOp recv;
    recv.fd = pair.ours;
    recv.pool = pool;
    recv.flags = flag;
    EXPECT_EQ(-EINVAL, queue().Submit(&recv));
  }
}

TEST_P(SubmitTest, RefusesMalformedRequests) {
  Pair pair = TcpPair();
  ExpectRefused(-EINVAL, New<PostOp>());
  ExpectRefused(-EBADF, NewSend(-1, "x"));

  SendOp* send = NewSend(pair.ours, "x");
  send->flags = kOpMultishot;
  ExpectRefused(-EINVAL, send);
  send->flags = 1u << 15;
  ExpectRefused(-EINVAL, send);

  RecvOp* recv = NewRecv(pair.ours, Room(1));
  recv->flags = kOpMultishot;
  ExpectRefused(-EINVAL, recv);

  AcceptOp* accept = New<AcceptOp>(Listen().fd);
  for (uint16_t quiet : {kOpSkipSuccess, kOpSkipInline}) {
    accept->flags = kOpMultishot | quiet;
    ExpectRefused(-EINVAL, accept);
  }
  accept->flags = kOpMultishot;
  send->flags = 0;
  accept->link = send;
  ExpectRefused(-EINVAL, accept);
  EXPECT_FALSE(send->in_flight());

  int file = File("x");
  ExpectRefused(-EINVAL, NewSendfile(pair.ours, file, -1, 1));
  ExpectRefused(-EINVAL, NewSendfile(pair.ours, file, 0, -1));
  ExpectRefused(-EINVAL, NewSendfile(pair.ours, file, INT64_MAX, INT64_MAX));
  ExpectRefused(-EBADF, NewSendfile(pair.ours, -1, 0, 1));
  EXPECT_EQ(queue().stats().operations, 0u);
}

TEST_P(SubmitTest, RefusesWhatIsInFlight) {
  Pair pair = TcpPair();
  RecvOp* recv = NewRecv(pair.ours, Room(1));
  MustSubmit(recv);
  EXPECT_EQ(-EINVAL, queue().Submit(recv));
  SendOp* send = NewSend(pair.ours, "x");
  send->link = recv;
  EXPECT_EQ(-EINVAL, queue().Submit(send));
  EXPECT_FALSE(send->in_flight());
  PeerSend(pair.peer, "x");
  EXPECT_EQ(1, ResultOf(recv));
}

TEST_P(SubmitTest, RefusesAChainThatMeetsItself) {
  Pair pair = TcpPair();
  SendOp* a = NewSend(pair.ours, "a");
  SendOp* b = NewSend(pair.ours, "b");
  a->link = a;
  ExpectRefused(-EINVAL, a);
  a->link = b;
  b->link = a;
  ExpectRefused(-EINVAL, a);
  EXPECT_FALSE(b->in_flight());
  b->link = nullptr;
  MustSubmit(a);
  EXPECT_EQ(1, ResultOf(a));
  EXPECT_EQ(1, ResultOf(b));
  EXPECT_EQ("ab", PeerRead(pair.peer, 2));
}

TEST_P(SubmitTest, SkipInlineSaysDoneOrMakesAnEntry) {
  Pair pair = TcpPair();
  SendOp* send = NewSend(pair.ours, "x");
  send->flags = kOpSkipInline;
  for (int i = 0; i < 10; ++i) {
    int r = Submit(send);
    if (r == Queue::kDone) {
      EXPECT_FALSE(send->in_flight());
      ExpectNothing(0);
    } else {
      EXPECT_EQ(0, r);
      EXPECT_EQ(1, ResultOf(send));
    }
  }
  EXPECT_EQ("xxxxxxxxxx", PeerRead(pair.peer, 10));
}

TEST_P(SubmitTest, SkipInlineMakesAnEntryForWhatWaits) {
  Pair pair = TcpPair(16 << 10);
  const std::string& bytes = *Bytes(Pattern(1 << 20));
  SendOp* send = NewSend(pair.ours, bytes);
  send->flags = kOpSkipInline;
  EXPECT_EQ(0, Submit(send));
  EXPECT_TRUE(bytes == PeerRead(pair.peer, bytes.size()));
  EXPECT_EQ(static_cast<int64_t>(bytes.size()), ResultOf(send));
}

TEST_P(SubmitTest, SkipSuccessMakesNoEntry) {
  Pair pair = TcpPair(16 << 10);
  for (size_t size : {1u, 1u << 20}) {
    const std::string& bytes = *Bytes(Pattern(size));
    SendOp* send = NewSend(pair.ours, bytes);
    send->flags = kOpSkipSuccess;
    EXPECT_EQ(0, Submit(send));
    EXPECT_TRUE(bytes == PeerRead(pair.peer, bytes.size()));
    EXPECT_TRUE(RunUntil([&] { return !send->in_flight(); }));
    ExpectNothing(0);
  }
  EXPECT_EQ(queue().stats().operations, 0u);
}

TEST_P(SubmitTest, SkipSuccessMakesAnEntryForAFailure) {
  Pair pair = TcpPair();
  RecvOp* recv = NewRecv(pair.ours, Room(10));
  recv->flags = kOpSkipSuccess;
  MustSubmit(recv);
  PeerSend(pair.peer, "short");
  EXPECT_EQ(5, ResultOf(recv)) << "not its full length";

  SendOp* send = NewSend(pair.ours, "x");
  send->flags = kOpSkipSuccess | kOpSkipInline;
  ASSERT_EQ(0, shutdown(pair.ours, SHUT_WR));
  MustSubmit(send);
  EXPECT_EQ(-EPIPE, ResultOf(send));
}

TEST_P(SubmitTest, SkipSuccessWithinAChain) {
  Pair pair = TcpPair();
  SendOp* a = NewSend(pair.ours, "a");
  SendOp* b = NewSend(pair.ours, "b");
  SendOp* c = NewSend(pair.ours, "c");
  a->flags = b->flags = kOpSkipSuccess;
  a->link = b;
  b->link = c;
  MustSubmit(a);
  EXPECT_EQ(1, ResultOf(c));
  EXPECT_FALSE(a->in_flight());
  EXPECT_FALSE(b->in_flight());
  EXPECT_EQ("abc", PeerRead(pair.peer, 3));
}

TEST_P(SubmitTest, RefusesAboveTheLimitOfOperations) {
  Queue::Options options;
  options.max_operations = 4;
  Reopen(options);
  Pair pair = TcpPair();
  std::vector<RecvOp*> recvs;
  for (int i = 0; i < 3; ++i) {
    recvs.push_back(NewRecv(pair.ours, Room(1)));
    MustSubmit(recvs.back());
  }
  SendOp* a = NewSend(pair.ours, "a");
  SendOp* b = NewSend(pair.ours, "b");
  a->link = b;
  EXPECT_EQ(-EAGAIN, queue().Submit(a)) << "room for one, not for two";
  EXPECT_FALSE(a->in_flight());
  EXPECT_FALSE(b->in_flight());
  recvs.push_back(NewRecv(pair.ours, Room(1)));
  MustSubmit(recvs.back());
  EXPECT_EQ(-EAGAIN, queue().Submit(b));
  EXPECT_EQ(queue().stats().operations, 4u);

  PeerSend(pair.peer, "1");
  EXPECT_EQ(1, ResultOf(recvs[0]));
  MustSubmit(b);
  EXPECT_EQ(1, ResultOf(b));
  PeerSend(pair.peer, "234");
  for (int i = 1; i < 4; ++i) EXPECT_EQ(1, ResultOf(recvs[i]));
  EXPECT_EQ(queue().stats().operations, 0u);
  EXPECT_EQ("b", PeerRead(pair.peer, 1));
}

TEST_P(SubmitTest, AnOperationMayBeUsedAgain) {
  Pair pair = TcpPair();
  std::string* buffer = Room(8);
  RecvOp* recv = NewRecv(pair.ours, buffer);
  SendOp* send = New<SendOp>(pair.ours);
  for (int i = 0; i < 200; ++i) {
    std::string text = std::to_string(i);
    PeerSend(pair.peer, text);
    MustSubmit(recv);
    ASSERT_EQ(static_cast<int64_t>(text.size()), ResultOf(recv));
    send->Set(buffer->data(), text.size());
    MustSubmit(send);
    ASSERT_EQ(static_cast<int64_t>(text.size()), ResultOf(send));
    ASSERT_EQ(text, PeerRead(pair.peer, text.size()));
  }
  const Queue::Stats stats = queue().stats();
  EXPECT_EQ(stats.submitted, 400u);
  for (size_t i = 0; i < kOpcodes; ++i) {
    const auto opcode = static_cast<Opcode>(i);
    EXPECT_EQ(stats.submitted_by_opcode[i],
              opcode == Opcode::kRecv || opcode == Opcode::kSend ? 200u : 0u);
  }
  EXPECT_EQ(queue().stats().operations, 0u);
  EXPECT_EQ(queue().stats().entries, 400u);
}

}  // namespace
}  // namespace kevent::conformance
