// SPDX-License-Identifier: Apache-2.0
//
// Sends by reference (SendOp::by_reference). An engine that copies passes all
// but the proof that it does not.
#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "kevent/queue/conformance/conformance.h"

namespace kevent::conformance {
namespace {

// Memory that is never used again.
class Pages {
 public:
  explicit Pages(std::string_view contents, size_t offset = 0)
      : size_(contents.size() + offset + 1),
        map_(static_cast<char*>(mmap(nullptr, size_, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))),
        bytes_(map_ + offset, contents.size()) {
    memcpy(map_ + offset, contents.data(), contents.size());
  }
  Pages(Pages&& other) noexcept
      : size_(other.size_),
        map_(std::exchange(other.map_, nullptr)),
        bytes_(other.bytes_) {}
  ~Pages() { Unmap(); }

  void Unmap() {
    if (map_ != nullptr) munmap(map_, size_);
    map_ = nullptr;
  }
  std::string_view bytes() const { return bytes_; }
  char* data() { return map_; }

 private:
  size_t size_;
  char* map_;
  std::string_view bytes_;
};

class ReferenceTest : public QueueTest {
 protected:
  SendOp* NewReference(int fd, std::string_view bytes) {
    SendOp* op = NewSend(fd, bytes);
    op->by_reference = true;
    return op;
  }
  // Each by a connection of its own.
  std::vector<SendOp*> SubmitReferences(int n, std::string_view bytes) {
    std::vector<SendOp*> sends;
    for (int i = 0; i < n; ++i) {
      sends.push_back(NewReference(TcpPair().ours, bytes));
      MustSubmit(sends.back());
    }
    return sends;
  }
  // One that its peer does not read: part of it is on its way.
  SendOp* Stalled(int fd, std::string_view bytes, bool more = false) {
    SendOp* op = NewReference(fd, bytes);
    op->more = more;
    MustSubmit(op);
    Look();
    EXPECT_TRUE(op->in_flight());
    return op;
  }
};
KEVENT_CONFORMANCE(ReferenceTest);

TEST_P(ReferenceTest, SendsTheVeryPages) {
  if (!queue().sends_by_reference()) GTEST_SKIP() << "this engine copies";
  Pages pages(std::string(64 << 10, 'a'));
  Pair pair = TcpPair();
  SendOp* send = NewReference(pair.ours, pages.bytes());
  MustSubmit(send);
  EXPECT_EQ(64 << 10, ResultOf(send));
  // What nobody must do shows that nothing was copied.
  memset(pages.data(), 'b', 64 << 10);
  EXPECT_TRUE(std::string(64 << 10, 'b') == PeerRead(pair.peer, 64 << 10));
}

TEST_P(ReferenceTest, UnmappedMemoryArrives) {
  const std::string contents = Pattern(64 << 10);
  Pair pair = TcpPair();
  for (int turn = 0; turn < 10; ++turn) {
    Pages pages(contents);
    SendOp* send = NewReference(pair.ours, pages.bytes());
    MustSubmit(send);
    ASSERT_EQ(64 << 10, ResultOf(send));
    pages.Unmap();
    const Pages next(std::string(64 << 10, 'x'));  // likely in its place
    EXPECT_TRUE(contents == PeerRead(pair.peer, contents.size()));
  }
}

TEST_P(ReferenceTest, AnySizeAndPlace) {
  for (int buffer : {0, 16 << 10}) {
    for (size_t size : {1u, 4096u, 6143u, 6144u, 65536u, 65537u, 262144u,
                        300000u, 1u << 20}) {
      for (size_t offset : {0u, 1u, 4095u}) {
        SCOPED_TRACE(testing::Message()
                     << size << " at " << offset << ", " << buffer);
        Pair pair = TcpPair(buffer);
        const Pages pages(Pattern(size), offset);
        SendOp* send = NewReference(pair.ours, pages.bytes());
        MustSubmit(send);
        EXPECT_TRUE(pages.bytes() == PeerRead(pair.peer, size));
        EXPECT_EQ(static_cast<int64_t>(size), ResultOf(send));
        CloseByQueue(pair.ours);
      }
    }
  }
}

TEST_P(ReferenceTest, LargerThanTheSocketAndLongerThanATurn) {
  constexpr int kSize = 12 << 20;
  const Pages pages(Pattern(kSize));
  for (int buffer : {0, 64 << 10}) {
    Pair pair = TcpPair(buffer);
    SendOp* send = NewReference(pair.ours, pages.bytes());
    MustSubmit(send);
    EXPECT_TRUE(pages.bytes() == PeerRead(pair.peer, kSize));
    EXPECT_EQ(kSize, ResultOf(send));
  }
}

// An acknowledgement on the way would make a part of a segment leave. What is
// sent next must not be held back, unless the user wants it to be.
TEST_P(ReferenceTest, LargeOnesFillSegments) {
  if (queue().engine() == EngineKind::kModule) {
    GTEST_SKIP() << "that sends in the kernel";
  }
  constexpr int kSize = 12 << 20;
  const Pages pages(Pattern(kSize));
  for (int before : {0, 1}) {
    SCOPED_TRACE(before);
    Pair pair = TcpPair();
    ASSERT_EQ(0, setsockopt(pair.ours, IPPROTO_TCP, TCP_CORK, &before,
                            sizeof before));
    SendOp* send = Stalled(pair.ours, pages.bytes());
    EXPECT_EQ(queue().sends_by_reference() || before, Corked(pair.ours));
    EXPECT_TRUE(pages.bytes() == PeerRead(pair.peer, kSize));
    EXPECT_EQ(kSize, ResultOf(send));
    EXPECT_EQ(before, Corked(pair.ours));

    SendOp* cancelled = Stalled(pair.ours, pages.bytes());
    queue().Cancel(cancelled);
    EXPECT_LT(ResultOf(cancelled), kSize);
    EXPECT_EQ(before, Corked(pair.ours));
  }
}

// To take the cork away would send what is to wait for the next one.
TEST_P(ReferenceTest, WhatAnotherFollowsIsNotCorked) {
  const Pages pages(Pattern(12 << 20));
  const Pair pair = TcpPair();
  Stalled(pair.ours, pages.bytes(), /*more=*/true);
  EXPECT_EQ(0, Corked(pair.ours));
}

TEST_P(ReferenceTest, TheQueuesEndLeavesNoCork) {
  const Pages pages(Pattern(12 << 20));
  const Pair pair = TcpPair();
  Stalled(pair.ours, pages.bytes());
  Destroy();
  EXPECT_EQ(0, Corked(pair.ours));
}

// However much the socket takes, others have their turn.
TEST_P(ReferenceTest, SendsSomeAtATime) {
  constexpr int kSize = 20 << 20;
  const Pages pages(Pattern(kSize));
  for (bool by_reference : {true, false}) {
    SCOPED_TRACE(by_reference);
    // Those send in the kernel.
    if (queue().engine() == EngineKind::kModule) GTEST_SKIP();
    if (queue().engine() == EngineKind::kUring && !by_reference) continue;
    Pair pair = TcpPair();
    if (!MakeRoom(pair.ours, 4 * kSize)) GTEST_SKIP() << "no room for it";
    SendOp* send = by_reference ? NewReference(pair.ours, pages.bytes())
                                : NewSend(pair.ours, pages.bytes());
    Look();
    MustSubmit(send);
    EXPECT_GT(send->progress(), 0);
    EXPECT_LE(send->progress(), by_reference ? 16 << 20 : 2 << 20);
    EXPECT_TRUE(pages.bytes() == PeerRead(pair.peer, kSize));
    EXPECT_EQ(kSize, ResultOf(send));
  }
}

// None has its second turn before all have had their first, and what is short
// waits for none of them.
TEST_P(ReferenceTest, LargeOnesTakeTurns) {
  if (queue().engine() == EngineKind::kModule) {
    GTEST_SKIP() << "that sends in the kernel";
  }
  constexpr int kSize = 24 << 20;
  constexpr int kOneTurn = 16 << 20;
  const Pages pages(Pattern(kSize));
  SendOp* large[3];
  for (SendOp*& send : large) {
    const Pair pair = TcpPair();
    if (!MakeRoom(pair.ours, 4 * kSize)) GTEST_SKIP() << "no room for it";
    send = NewReference(pair.ours, pages.bytes());
    MustSubmit(send);
  }
  SendOp* small = NewSend(TcpPair().ours, "small");
  MustSubmit(small);
  EXPECT_EQ(large[0]->progress(), kOneTurn);
  EXPECT_EQ(large[1]->progress(), 0);
  EXPECT_EQ(large[2]->progress(), 0);

  // The first asked again before the others came.
  std::set<Operation*> done;
  for (const Entry& e : WaitFor(2)) done.insert(e.operation);
  EXPECT_EQ(done, (std::set<Operation*>{large[0], small}));
  EXPECT_EQ(large[1]->progress(), 0);
  EXPECT_EQ(large[2]->progress(), 0);

  Look();
  EXPECT_EQ(large[1]->progress(), kOneTurn);
  EXPECT_EQ(large[2]->progress(), 0);
  Look();
  EXPECT_EQ(large[1]->progress(), kOneTurn);
  EXPECT_EQ(large[2]->progress(), kOneTurn);
  Look();
  EXPECT_EQ(large[2]->progress(), kOneTurn);
  EXPECT_EQ(kSize, ResultOf(large[1]));
  EXPECT_EQ(kSize, ResultOf(large[2]));
}

// After 4 MiB the kernel is looked at; what is short need not wait for that.
TEST_P(ReferenceTest, LooksAtTheKernelBetweenMany) {
  if (queue().engine() == EngineKind::kModule) {
    GTEST_SKIP() << "that sends in the kernel";
  }
  const Pages pages(Pattern(1 << 20));
  std::vector<SendOp*> sends = SubmitReferences(15, pages.bytes());
  SendOp* small = NewSend(TcpPair().ours, "small");
  MustSubmit(small);
  // Four went out when they were submitted, and four after each look.
  for (int expected : {4, 8, 12, 16}) {
    Look();
    std::set<Operation*> done;
    for (const Entry& e : taken_) done.insert(e.operation);
    EXPECT_TRUE(done.contains(small));
    done.erase(small);
    EXPECT_EQ(done,
              std::set<Operation*>(sends.begin(), sends.begin() + expected));
    if (expected > 4) continue;
    // It would find room now, but the others were there before.
    sends.push_back(NewReference(TcpPair().ours, pages.bytes()));
    MustSubmit(sends.back());
  }
  for (const Entry& e : WaitFor(17)) {
    EXPECT_EQ(e.result, e.operation == small ? 5 : 1 << 20) << Describe(e);
  }
}

// When the byte that is read from `fd`, or one that was merged with it, had
// come, or 0: the kernel takes a moment to begin with noting it.
int64_t ArrivedNs(int fd) {
  char byte;
  iovec piece = {&byte, 1};
  alignas(cmsghdr) char control[256];
  msghdr message = {};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  pollfd readable = {fd, POLLIN, 0};
  poll(&readable, 1, -1);
  EXPECT_EQ(1, recvmsg(fd, &message, 0)) << strerror(errno);
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (!header || header->cmsg_type != SCM_TIMESTAMPNS) return 0;
  timespec time;
  memcpy(&time, CMSG_DATA(header), sizeof time);
  return time.tv_sec * 1'000'000'000 + time.tv_nsec;
}

TEST_P(ReferenceTest, WhatIsShortGoesBeforeThoseThatHadToWait) {
  if (queue().engine() == EngineKind::kModule) {
    GTEST_SKIP() << "that sends in the kernel";
  }
  // The kernel rewrites its code when the first socket wants the time, and
  // QEMU's emulation has been seen to run what was there in between: "Oops:
  // int3" in ip_local_deliver_finish().
  if (getenv("KEVENT_GUEST") != nullptr) {
    GTEST_SKIP() << "an emulated processor may not survive it";
  }
  const Pair beside = TcpPair();
  Pair large;
  const Pages pages(Pattern(1 << 20));
  std::vector<SendOp*> sends;
  for (int i = 0; i < 5; ++i) {
    large = TcpPair();
    sends.push_back(NewReference(large.ours, pages.bytes()));
  }
  for (int fd : {beside.peer, large.peer}) {
    const int on = 1;
    ASSERT_EQ(0, setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on));
  }
  do {
    ASSERT_EQ(1, send(beside.ours, "w", 1, MSG_NOSIGNAL));
  } while (ArrivedNs(beside.peer) == 0);
  for (SendOp* send : sends) MustSubmit(send);
  Look();
  EXPECT_TRUE(sends.back()->in_flight());
  MustSubmit(NewSend(beside.ours, "s"));
  Look();
  ASSERT_FALSE(sends.back()->in_flight());
  EXPECT_LT(ArrivedNs(beside.peer), ArrivedNs(large.peer));
  WaitFor(6);
}

TEST_P(ReferenceTest, AShortRestAwaitsNoTurn) {
  constexpr int kSize = (16 << 20) + (100 << 10);
  const Pages pages(Pattern(kSize));
  const Pair pair = TcpPair();
  if (!MakeRoom(pair.ours, 4 * kSize)) GTEST_SKIP() << "no room for it";
  SendOp* send = NewReference(pair.ours, pages.bytes());
  MustSubmit(send);
  Look();
  EXPECT_EQ(1u, taken_.size());
  EXPECT_EQ(kSize, ResultOf(send));
}

// One that waits for its turn can be cancelled as any can.
TEST_P(ReferenceTest, CancelsWhatAwaitsItsTurn) {
  if (queue().engine() == EngineKind::kModule) {
    GTEST_SKIP() << "that sends in the kernel";
  }
  const Pages pages(Pattern(1 << 20));
  std::vector<SendOp*> sends = SubmitReferences(40, pages.bytes());
  std::set<Operation*> cancelled;
  const auto cancel = [&](std::initializer_list<int> which) {
    for (int i : which) {
      EXPECT_EQ(sends[i]->progress(), 0);
      cancelled.insert(sends[i]);
      EXPECT_EQ(0, queue().Cancel(sends[i]));
    }
  };
  // From both ends and from within.
  cancel({39, 38, 4, 5, 6, 20, 21, 22, 23, 24, 25, 8, 30});
  Look();
  cancel({37, 35, 16, 17, 12, 13, 14, 33, 32, 31, 29, 28, 27});
  std::vector<Operation*> done;
  for (const Entry& e : WaitFor(sends.size())) {
    const bool was_cancelled = cancelled.contains(e.operation);
    EXPECT_EQ(e.result, was_cancelled ? -ECANCELED : 1 << 20) << Describe(e);
    if (!was_cancelled) done.push_back(e.operation);
  }
  std::erase_if(sends, [&](SendOp* op) { return cancelled.contains(op); });
  EXPECT_TRUE(std::equal(done.begin(), done.end(), sends.begin(), sends.end()))
      << "not in the order they came";
}

TEST_P(ReferenceTest, WhatAwaitedItsTurnCanBeDestroyed) {
  if (queue().engine() == EngineKind::kModule) {
    GTEST_SKIP() << "that sends in the kernel";
  }
  const Pages pages(Pattern(1 << 20));
  for (int i = 0; i < 4; ++i) {
    MustSubmit(NewReference(TcpPair().ours, pages.bytes()));
  }
  auto waits = std::make_unique<SendOp>();
  waits->fd = TcpPair().ours;
  waits->Set(pages.bytes().data(), pages.bytes().size());
  waits->by_reference = true;
  MustSubmit(waits.get());
  queue().Cancel(waits.get());
  Entry entries[6];
  ASSERT_EQ(5u, queue().Take(entries));
  for (int i = 0; i < 5; ++i) Note(entries[i]);
  waits.reset();
  Look();
}

TEST_P(ReferenceTest, GathersAnyNumberOfPieces) {
  for (size_t count : {2u, 17u, 65u, 300u, 1024u}) {
    for (int buffer : {0, 16 << 10}) {
      SCOPED_TRACE(testing::Message() << count << " pieces, " << buffer);
      Pair pair = TcpPair(buffer);
      Pages pages(Pattern(count * 5000));
      std::vector<iovec> pieces;
      size_t at = 0;
      for (size_t i = 0; i < count; ++i) {
        const size_t size = i % 5 == 3 ? 0 : (i * 7919) % 5000;
        pieces.push_back({pages.data() + at, size});
        at += size;
      }
      SendOp* send = New<SendOp>(pair.ours);
      send->pieces = pieces;
      send->by_reference = true;
      MustSubmit(send);
      EXPECT_TRUE(pages.bytes().substr(0, at) == PeerRead(pair.peer, at));
      EXPECT_EQ(static_cast<int64_t>(at), ResultOf(send));
      CloseByQueue(pair.ours);
    }
  }
}

TEST_P(ReferenceTest, AHeadBeforeMoreThanThePipeHolds) {
  const Pages pages(Pattern(3 << 20));
  for (size_t head : {1u, 251u, 6143u, 6144u}) {
    for (size_t body : {(1u << 20) - 251, 1u << 20, (1u << 20) + 1, 2u << 20}) {
      for (int buffer : {0, 4 << 10, 64 << 10}) {
        SCOPED_TRACE(testing::Message()
                     << head << " + " << body << ", " << buffer);
        Pair pair = TcpPair(buffer);
        char* const data = const_cast<char*>(pages.bytes().data());
        // Bodies are at the beginning of a page.
        std::vector<iovec> pieces = {{data, head}, {data + 8192, body}};
        SendOp* send = New<SendOp>(pair.ours);
        send->pieces = pieces;
        send->by_reference = true;
        MustSubmit(send);
        std::string sent(pages.bytes().substr(0, head));
        sent += pages.bytes().substr(8192, body);
        EXPECT_TRUE(sent == PeerRead(pair.peer, sent.size()));
        EXPECT_EQ(static_cast<int64_t>(sent.size()), ResultOf(send));
        CloseByQueue(pair.ours);
      }
    }
  }
}

TEST_P(ReferenceTest, WhatOneSocketDoesNotTakeGoesToNoOther) {
  const Pages slow(std::string(1 << 20, 's'));
  const Pages quick(std::string(32 << 10, 'q'));
  Pair stalled = TcpPair(16 << 10);
  SendOp* waits = Stalled(stalled.ours, slow.bytes());
  for (int turn = 0; turn < 3; ++turn) {
    Pair pair = TcpPair();
    SendOp* send = NewReference(pair.ours, quick.bytes());
    MustSubmit(send);
    EXPECT_EQ(32 << 10, ResultOf(send));
    EXPECT_TRUE(quick.bytes() == PeerRead(pair.peer, quick.bytes().size()));
  }
  EXPECT_TRUE(slow.bytes() == PeerRead(stalled.peer, slow.bytes().size()));
  EXPECT_EQ(1 << 20, ResultOf(waits));
}

TEST_P(ReferenceTest, ManySocketsAtOnce) {
  std::vector<Pair> pairs;
  std::vector<Pages> pages;
  for (size_t i = 0; i < 10; ++i) {
    pages.emplace_back(Pattern((1 << 20) + i * 1000).substr(i * 1000));
  }
  for (size_t i = 0; i < pages.size(); ++i) {
    pairs.push_back(TcpPair(64 << 10));
    SendOp* send = NewReference(pairs.back().ours, pages[i].bytes());
    MustSubmit(send);
  }
  for (size_t i = 0; i < pairs.size(); ++i) {
    EXPECT_TRUE(pages[i].bytes() ==
                PeerRead(pairs[i].peer, pages[i].bytes().size()));
  }
  for (const Entry& e : WaitFor(pairs.size())) EXPECT_EQ(e.result, 1 << 20);
}

TEST_P(ReferenceTest, KeepsItsPlaceAmongOtherSends) {
  const std::string contents = Pattern(200'000);
  const Pages pages(contents);
  const int file = File(contents);
  Pair pair = TcpPair(16 << 10);
  const std::string& bytes = *Bytes(contents);
  std::vector<Operation*> operations;
  for (int turn = 0; turn < 3; ++turn) {
    operations.push_back(NewReference(pair.ours, pages.bytes()));
    operations.push_back(NewSend(pair.ours, bytes));
    operations.push_back(NewReference(pair.ours, pages.bytes()));
    operations.push_back(NewSendfile(pair.ours, file, 0, 200'000));
  }
  for (Operation* op : operations) MustSubmit(op);
  ShutdownOp* shutdown = New<ShutdownOp>(pair.ours);
  MustSubmit(shutdown);
  std::string whole;
  for (size_t i = 0; i < operations.size(); ++i) whole += contents;
  EXPECT_TRUE(whole == PeerReadToEnd(pair.peer));
  for (Operation* op : operations) EXPECT_EQ(200'000, ResultOf(op));
  EXPECT_EQ(0, ResultOf(shutdown));
}

TEST_P(ReferenceTest, OverAUnixSocket) {
  int ends[2];
  ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
  const int ours = Own(ends[0]);
  const int peer = Own(ends[1]);
  const Pages pages(Pattern(1 << 20));
  SendOp* send = NewReference(ours, pages.bytes());
  MustSubmit(send);
  EXPECT_TRUE(pages.bytes() == PeerRead(peer, pages.bytes().size()));
  EXPECT_EQ(1 << 20, ResultOf(send));
}

TEST_P(ReferenceTest, MoreJoinsTheNextSend) {
  const Pages pages(Pattern(16 << 10));
  // A machine that stops for a fifth of a second may send them apart.
  for (int attempt = 0; attempt < 5; ++attempt) {
    Pair pair = TcpPair();
    SendOp* first = NewReference(pair.ours, pages.bytes());
    first->more = true;
    SendOp* second = NewSend(pair.ours, "end");
    MustSubmit(first);
    MustSubmit(second);
    EXPECT_EQ(16 << 10, ResultOf(first));
    EXPECT_EQ(3, ResultOf(second));
    EXPECT_TRUE(std::string(pages.bytes()) + "end" ==
                PeerRead(pair.peer, (16 << 10) + 3));
    tcp_info info = {};
    socklen_t length = sizeof info;
    ASSERT_EQ(0, getsockopt(pair.ours, IPPROTO_TCP, TCP_INFO, &info, &length));
    if (info.tcpi_data_segs_out == 1) return;
  }
  FAIL() << "they are never sent in one segment";
}

TEST_P(ReferenceTest, FailsWhenThePeerHasReset) {
  const Pages pages(Pattern(16 << 10));
  Pair pair = TcpPair();
  ResetPeer(pair.peer);
  CloseOwned(pair.peer);
  SendOp* send = NewReference(pair.ours, pages.bytes());
  MustSubmit(send);
  const int64_t r = ResultOf(send);
  EXPECT_TRUE(r == -ECONNRESET || r == -EPIPE) << r;
  MustSubmit(send);
  EXPECT_EQ(-EPIPE, ResultOf(send));
}

TEST_P(ReferenceTest, EndsShortWhenThePeerResets) {
  const Pages pages(Pattern(1 << 20));
  Pair pair = TcpPair(16 << 10);
  SendOp* send = Stalled(pair.ours, pages.bytes());
  EXPECT_TRUE(pages.bytes().substr(0, 1000) == PeerRead(pair.peer, 1000));
  ResetPeer(pair.peer);
  CloseOwned(pair.peer);
  const int64_t r = ResultOf(send);
  EXPECT_GE(r, 1000);
  EXPECT_LT(r, 1 << 20);
}

TEST_P(ReferenceTest, CancelledInTheMiddle) {
  const Pages pages(Pattern(1 << 20));
  Pair pair = TcpPair(16 << 10);
  SendOp* send = Stalled(pair.ours, pages.bytes());
  ASSERT_EQ(0, queue().Cancel(send));
  const int64_t r = ResultOf(send);
  EXPECT_GT(r, 0);
  EXPECT_LT(r, 1 << 20);
  CloseByQueue(pair.ours);
  EXPECT_TRUE(pages.bytes().substr(0, static_cast<size_t>(r)) ==
              PeerReadToEnd(pair.peer));
}

TEST_P(ReferenceTest, MemoryThatIsNotThere) {
  Pages pages(std::string(64 << 10, 'g'));
  Pages gone(std::string(64 << 10, 'b'));
  const std::string_view bad = gone.bytes();
  ASSERT_EQ(0, mprotect(gone.data(), bad.size(), PROT_NONE));
  Pair pair = TcpPair();
  SendOp* fails = NewReference(pair.ours, bad);
  MustSubmit(fails);
  EXPECT_EQ(-EFAULT, ResultOf(fails));
  // Nothing went out: the stream is as it was.
  SendOp* send = NewReference(pair.ours, pages.bytes());
  MustSubmit(send);
  EXPECT_EQ(64 << 10, ResultOf(send));
  EXPECT_TRUE(pages.bytes() == PeerRead(pair.peer, pages.bytes().size()));
}

TEST_P(ReferenceTest, WithoutDescriptorsToSpare) {
  constexpr size_t kSize = 600'000;
  const Pages pages(Pattern(kSize));
  Pair pair = TcpPair(16 << 10);
  rlimit old;
  ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &old));
  // Two are not enough, and UBSan needs as many to look at memory.
  const int first = dup(pair.ours);
  const int second = dup(pair.ours);
  ASSERT_GT(second, first);
  close(first);
  close(second);
  const rlimit full = {static_cast<rlim_t>(second) + 1, old.rlim_max};
  ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &full));
  SendOp* send = NewReference(pair.ours, pages.bytes());
  MustSubmit(send);
  EXPECT_EQ(0, Corked(pair.ours));  // a copy is not corked
  EXPECT_TRUE(pages.bytes() == PeerRead(pair.peer, kSize));
  EXPECT_EQ(int64_t{kSize}, ResultOf(send));
  ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &old));
}

}  // namespace
}  // namespace kevent::conformance
