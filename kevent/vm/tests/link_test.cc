// SPDX-License-Identifier: Apache-2.0
//
// Linked operations (KEVENT_LINK): each begins when the one before it has
// transferred its full length, or ends without having begun.
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "kevent/vm/tests/naio_fixture.h"

namespace kevent::raw {
namespace {

kevent_sqe Linked(kevent_sqe sqe) {
  sqe.flags |= KEVENT_LINK;
  return sqe;
}

kevent_sqe Silent(kevent_sqe sqe) {
  sqe.flags |= KEVENT_SKIP_SUCCESS;
  return sqe;
}

bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

class LinkTest : public NaioTest {
 protected:
  void SubmitAll(const std::vector<kevent_sqe>& sqes) {
    for (const kevent_sqe& sqe : sqes) ASSERT_TRUE(queue().Put(sqe));
    uint32_t submitted = 0;
    ASSERT_GE(queue().Submit(static_cast<uint32_t>(sqes.size()), &submitted),
              0);
    ASSERT_EQ(sqes.size(), submitted);
  }
  // They come in any order; those that are not named do not come.
  void ExpectResults(std::map<uint64_t, int64_t> results) {
    while (!results.empty() && !HasFailure()) {
      const kevent_entry entry = Next();
      auto at = results.find(entry.user_data);
      ASSERT_NE(results.end(), at) << Describe(entry);
      EXPECT_EQ(at->second, entry.result) << Describe(entry);
      EXPECT_TRUE(entry.flags & KEVENT_ENTRY_DONE);
      results.erase(at);
    }
  }
  kevent_sqe CancelOf(int fd, uint64_t whom, uint64_t user_data) {
    return Operation(KEVENT_OP_CANCEL, fd, user_data, whom);
  }
  kevent_sqe CancelAll(uint64_t user_data) {
    kevent_sqe sqe = Operation(KEVENT_OP_CANCEL, -1, user_data);
    sqe.events = KEVENT_CANCEL_ANY;
    return sqe;
  }
  char buffer_[16] = {};
};

// ---- In order ----

TEST_F(LinkTest, AcrossSocketsAndInTheOrderOfEach) {
  Pair one = TcpPair(), two = TcpPair();
  const std::string linked = "linked ", later = "later";
  SubmitAll({Linked(Recv(one.ours.get(), buffer_, 4, 1)),
             SendOf(two.ours.get(), linked, 2),
             SendOf(two.ours.get(), later, 3)});
  ExpectNothing();
  Send(one.peer.get(), "ping");
  ExpectResult(1, 4);
  ExpectResult(2, 7);
  ExpectResult(3, 5);
  EXPECT_EQ(linked + later, ReadAll(two.peer.get(), 12));
}

TEST_F(LinkTest, WhatCanBeDoneIsDoneByTheCallThatSubmits) {
  for (Pair& pair : std::array{TcpPair(), SocketPair(SOCK_STREAM)}) {
    const int fd = pair.ours.Release();
    const std::string a = "a", b = "bc";
    SubmitAll({Linked(SendOf(fd, a, 1)), Linked(SendOf(fd, b, 2)),
               Linked(Operation(KEVENT_OP_SHUTDOWN, fd, 3, SHUT_WR)),
               Operation(KEVENT_OP_CLOSE, fd, 4)});
    EXPECT_EQ(4u, queue().Unread());
    ExpectResult(1, 1);
    ExpectResult(2, 2);
    ExpectResult(3, 0);
    ExpectResult(4, 0);
    EXPECT_FALSE(IsOpen(fd));
    EXPECT_EQ("abc", ReadAll(pair.peer.get(), 4));
  }
}

TEST_F(LinkTest, AWorkerGoesOnWithIt) {
  Pair pair = TcpPair();
  const std::string answer = "answer";
  SubmitAll({Linked(Recv(pair.ours.get(), buffer_, 4, 1)),
             Linked(SendOf(pair.ours.get(), answer, 2)),
             Operation(KEVENT_OP_SHUTDOWN, pair.ours.get(), 3, SHUT_WR)});
  Send(pair.peer.get(), "ping");
  // Nobody enters.
  EXPECT_EQ(answer, ReadAll(pair.peer.get(), answer.size() + 1));
  ExpectResult(1, 4);
  ExpectResult(2, 6);
  ExpectResult(3, 0);
}

TEST_F(LinkTest, Silently) {
  Pair pair = TcpPair();
  const int fd = pair.ours.Release();
  const std::string text = "text";
  SubmitAll({Silent(Linked(SendOf(fd, text, 1))),
             Silent(Linked(Operation(KEVENT_OP_SHUTDOWN, fd, 2, SHUT_WR))),
             Silent(Operation(KEVENT_OP_CLOSE, fd, 3))});
  EXPECT_EQ(0u, queue().Unread());
  EXPECT_FALSE(IsOpen(fd));
  ExpectNothing();
  // Of one that is not done it is told.
  Pair other = TcpPair();
  SubmitAll({Silent(Linked(Recv(other.ours.get(), buffer_, 8, 4))),
             Silent(SendOf(other.ours.get(), text, 5))});
  Send(other.peer.get(), "short");
  ExpectResult(4, 5);
  ExpectResult(5, -ECANCELED);
  ExpectNothing();
}

TEST_F(LinkTest, ACloseThatIsNotToldIsNotWaitedFor) {
  // The peer sees the end although the call was to wait for an entry.
  Pair pair = TcpPair();
  const int fd = pair.ours.Release();
  const std::string text = "bye";
  ASSERT_TRUE(queue().Put(Silent(Linked(SendOf(fd, text, 1)))));
  ASSERT_TRUE(queue().Put(Silent(Operation(KEVENT_OP_CLOSE, fd, 2))));
  kevent_enter enter = MakeEnter();
  enter.to_submit = 2;
  enter.min = 1;
  EXPECT_EQ(0, queue().Enter(&enter));
  EXPECT_EQ(text, ReadAll(pair.peer.get(), 4));
  // The same behind something that is waited for.
  Pair next = TcpPair();
  const int closed = next.ours.Release();
  SubmitAll({Silent(Linked(Recv(closed, buffer_, 1, 3))),
             Silent(Operation(KEVENT_OP_CLOSE, closed, 4))});
  std::thread waiter([&] { EXPECT_EQ(0, queue().Wait(1, -1)); });
  Send(next.peer.get(), "x");
  EXPECT_TRUE(AtEnd(next.peer.get()));
  waiter.join();
}

TEST_F(LinkTest, AChainEndsWithTheCall) {
  Pair one = TcpPair(), two = TcpPair();
  const std::string text = "not linked";
  SubmitAll({Linked(Recv(one.ours.get(), buffer_, 4, 1))});
  SubmitAll({SendOf(two.ours.get(), text, 2)});
  ExpectResult(2, 10);
  Send(one.peer.get(), "ping");
  ExpectResult(1, 4);
}

TEST_F(LinkTest, MoreResultsThanTheRingHolds) {
  Reopen({8, 64, 0});
  Pair pair = TcpPair();
  const std::string text = "x";
  std::vector<kevent_sqe> sqes;
  for (uint64_t i = 0; i < 50; ++i) {
    sqes.push_back(Linked(SendOf(pair.ours.get(), text, i)));
  }
  SubmitAll(sqes);
  for (uint64_t i = 0; i < 50; ++i) ExpectResult(i, 1);
  ExpectNothing();
  EXPECT_EQ(50u, ReadAll(pair.peer.get(), 50).size());
}

// ---- Broken ----

TEST_F(LinkTest, ByAFailure) {
  Pair one = TcpPair(), two = TcpPair();
  ASSERT_EQ(0, shutdown(one.ours.get(), SHUT_WR));
  const std::string text = "never", after = "only this";
  SubmitAll({Linked(SendOf(one.ours.get(), text, 1)),
             Linked(SendOf(two.ours.get(), text, 2)),
             SendOf(two.ours.get(), text, 3),
             SendOf(two.ours.get(), after, 4)});
  ExpectResults({{1, -EPIPE}, {2, -ECANCELED}, {3, -ECANCELED}, {4, 9}});
  EXPECT_EQ(after, ReadAll(two.peer.get(), after.size()));
}

TEST_F(LinkTest, ByAShortTransferAndByTheEnd) {
  Pair pair = TcpPair();
  const std::string a = "a", c = "c";
  SubmitAll({Linked(SendOf(pair.ours.get(), a, 1)),
             Linked(Recv(pair.ours.get(), buffer_, 10, 2)),
             Linked(SendOf(pair.ours.get(), c, 3)),
             Operation(KEVENT_OP_SHUTDOWN, pair.ours.get(), 4, SHUT_WR)});
  ExpectResult(1, 1);
  Send(pair.peer.get(), "short");
  ExpectResult(2, 5);
  ExpectResult(3, -ECANCELED);
  ExpectResult(4, -ECANCELED);
  ASSERT_EQ(0, shutdown(pair.peer.get(), SHUT_WR));
  SubmitAll({Linked(Recv(pair.ours.get(), buffer_, 10, 5)),
             SendOf(pair.ours.get(), c, 6)});
  ExpectResult(5, 0);
  ExpectResult(6, -ECANCELED);
  SubmitAll({SendOf(pair.ours.get(), c, 7)});
  ExpectResult(7, 1);
  EXPECT_EQ("ac", ReadAll(pair.peer.get(), 2));
}

class PoolLinkTest : public LinkTest,
                     public testing::WithParamInterface<Pool> {};

INSTANTIATE_TEST_SUITE_P(Pools, PoolLinkTest,
                         testing::Values(Pool::kOrdinary, Pool::kPinned),
                         PoolName);

TEST_P(PoolLinkTest, OfAPoolAnyLengthIsFullButForNone) {
  char memory[64];
  struct {
    uint32_t tail = 1, reserved = 0;
    uint16_t id[1] = {};
  } ring;
  kevent_register g =
      PoolOf(GetParam(), memory, sizeof memory, sizeof memory, &ring);
  ASSERT_EQ(0, Ioctl(queue().fd(), KEVENT_REGISTER, &g));
  Pair pair = TcpPair();
  kevent_sqe recv = Linked(Operation(KEVENT_OP_RECV, pair.ours.get(), 1, g.id));
  recv.events = KEVENT_RECV_POOL;
  const std::string text = "x";
  SubmitAll({recv, SendOf(pair.ours.get(), text, 2)});
  Send(pair.peer.get(), "abc");
  ExpectResult(1, 3);
  ExpectResult(2, 1);
  __atomic_store_n(&ring.tail, 2, __ATOMIC_RELEASE);
  SubmitAll({recv, SendOf(pair.ours.get(), text, 2)});
  ASSERT_EQ(0, shutdown(pair.peer.get(), SHUT_WR));
  ExpectResult(1, 0);
  ExpectResult(2, -ECANCELED);
}

TEST_F(LinkTest, WhatIsWrongIsToldInItsTurn) {
  Pair pair = TcpPair();
  const std::string text = "x";
  kevent_sqe bad = Linked(SendOf(pair.ours.get(), text, 2));
  bad.arg[3] = 1;
  for (int64_t error : {-EINVAL, -EBADF}) {
    if (error == -EBADF) bad = Linked(SendOf(9999, text, 2));
    SubmitAll({Linked(Recv(pair.ours.get(), buffer_, 4, 1)), bad,
               Linked(SendOf(pair.ours.get(), text, 3)),
               Operation(KEVENT_OP_CLOSE, pair.ours.get(), 4)});
    ExpectNothing();
    Send(pair.peer.get(), "ping");
    ExpectResult(1, 4);
    ExpectResult(2, error);
    ExpectResult(3, -ECANCELED);
    ExpectResult(4, -ECANCELED);
    EXPECT_TRUE(IsOpen(pair.ours.get()));
  }
  // The first of the chain.
  SubmitAll({bad, SendOf(pair.ours.get(), text, 3)});
  ExpectResult(2, -EBADF);
  ExpectResult(3, -ECANCELED);
  // A multishot one has no end that others could wait for.
  kevent_sqe accept = Linked(Operation(KEVENT_OP_ACCEPT, Listen().get(), 4));
  accept.flags |= KEVENT_MULTISHOT;
  SubmitAll({accept, SendOf(pair.ours.get(), text, 5)});
  ExpectResult(4, -EINVAL);
  ExpectResult(5, -ECANCELED);
}

TEST_F(LinkTest, WhatCannotFollow) {
  Pair pair = TcpPair();
  const std::string text = "x";
  kevent_sqe add = AddUser(0, 2);
  SubmitAll({Linked(SendOf(pair.ours.get(), text, 1)), add,
             SendOf(pair.ours.get(), text, 3)});
  ExpectResults({{1, 1}, {2, -EINVAL}, {3, 1}});
  // A cancel is not done, and what follows it does not begin.
  SubmitAll(
      {Linked(Recv(pair.ours.get(), buffer_, 4, 4)), Linked(CancelOf(-1, 4, 5)),
       Linked(SendOf(pair.ours.get(), text, 6)),
       SendOf(pair.ours.get(), text, 7), SendOf(pair.ours.get(), text, 8)});
  ExpectResult(5, -EINVAL);
  ExpectResult(6, -ECANCELED);
  ExpectResult(7, -ECANCELED);
  ExpectResult(8, 1);
  ExpectNothing();
  Send(pair.peer.get(), "ping");
  ExpectResult(4, 4);
  EXPECT_EQ("xxx", ReadAll(pair.peer.get(), 3));
}

TEST_F(LinkTest, ByTheLimitOfOperations) {
  // Of root, who may set it: the third of a chain is one too many.
  const char* knob = "/sys/module/kevent/parameters/max_user_interests";
  Fd limit(open(knob, O_RDWR | O_CLOEXEC));
  if (!limit) GTEST_SKIP() << "only root sets the limit";
  char before[32] = {};
  ASSERT_GT(read(limit.get(), before, sizeof before - 1), 0);
  Pair pair = TcpPair();
  // With the fence of ExpectNothing it is three.
  ExpectNothing();
  const std::string text = "x";
  ASSERT_EQ(1, pwrite(limit.get(), "3", 1, 0));
  SubmitAll({Linked(Recv(pair.ours.get(), buffer_, 4, 1)),
             Linked(SendOf(pair.ours.get(), text, 2)),
             Linked(SendOf(pair.ours.get(), text, 3)),
             Linked(SendOf(pair.ours.get(), text, 4)),
             SendOf(pair.ours.get(), text, 5)});
  ASSERT_EQ(static_cast<ssize_t>(strlen(before)),
            pwrite(limit.get(), before, strlen(before), 0));
  ExpectResult(3, -EAGAIN);
  ExpectResult(4, -ECANCELED);
  ExpectResult(5, -ECANCELED);
  ExpectNothing();
  Send(pair.peer.get(), "ping");
  ExpectResult(1, 4);
  ExpectResult(2, 1);
}

TEST_F(LinkTest, ByWhatComesBeforeItOnItsSocket) {
  // A send that ends short ends those behind it, whatever they wait for.
  Pair one = TcpPair(), two = TcpPair();
  const std::string big = Content(12 << 20), text = "x";
  SubmitAll({SendOf(two.ours.get(), big, 1),
             Linked(Recv(one.ours.get(), buffer_, 4, 2)),
             Linked(SendOf(two.ours.get(), text, 3)),
             Linked(SendOf(one.ours.get(), text, 4)),
             Operation(KEVENT_OP_CLOSE, two.ours.get(), 5)});
  SubmitAll({CancelOf(two.ours.get(), 1, 6)});
  const kevent_entry entry = Next();
  EXPECT_EQ(1u, entry.user_data);
  EXPECT_GT(entry.result, 0);
  ExpectResult(3, -ECANCELED);
  ExpectResult(6, 1);
  ExpectResult(4, -ECANCELED);
  ExpectResult(5, -ECANCELED);
  ExpectNothing();
  Send(one.peer.get(), "ping");
  ExpectResult(2, 4);
  EXPECT_TRUE(IsOpen(two.ours.get()));
}

// ---- Cancelled ----

TEST_F(LinkTest, CancelOfOneThatHasNotBegun) {
  Pair pair = TcpPair();
  const std::string text = "x";
  SubmitAll({Linked(Recv(pair.ours.get(), buffer_, 4, 1)),
             Linked(SendOf(pair.ours.get(), text, 2)),
             Linked(SendOf(pair.ours.get(), text, 3)),
             Operation(KEVENT_OP_CLOSE, pair.ours.get(), 4)});
  SubmitAll({CancelOf(pair.ours.get(), 2, 9)});
  ExpectResults({{9, 1}, {2, -ECANCELED}, {3, -ECANCELED}, {4, -ECANCELED}});
  ExpectNothing();
  Send(pair.peer.get(), "ping");
  ExpectResult(1, 4);
  // The same lets those behind it on its socket go on.
  SubmitAll({Linked(Recv(pair.ours.get(), buffer_, 4, 1)),
             SendOf(pair.ours.get(), text, 2),
             SendOf(pair.ours.get(), text, 3)});
  ExpectNothing();
  SubmitAll({CancelOf(pair.ours.get(), 2, 9)});
  ExpectResults({{9, 1}, {2, -ECANCELED}, {3, 1}});
}

TEST_F(LinkTest, CancelOfTheFirst) {
  Pair pair = TcpPair();
  const std::string text = "x";
  SubmitAll({Linked(Recv(pair.ours.get(), buffer_, 4, 1)),
             Linked(Operation(KEVENT_OP_CLOSE, pair.ours.get(), 2)),
             SendOf(pair.ours.get(), text, 3)});
  SubmitAll({CancelOf(pair.ours.get(), 1, 9)});
  ExpectResult(1, -ECANCELED);
  ExpectResult(9, 1);
  ExpectResult(2, -ECANCELED);
  ExpectResult(3, -ECANCELED);
  EXPECT_TRUE(IsOpen(pair.ours.get()));
}

TEST_F(LinkTest, CancelOfACloseAndOfAll) {
  Pair pair = TcpPair();
  const std::string text = "x";
  const std::vector<kevent_sqe> chain = {
      Linked(Recv(pair.ours.get(), buffer_, 4, 1)),
      Linked(Operation(KEVENT_OP_CLOSE, pair.ours.get(), 2)),
      Linked(SendOf(pair.ours.get(), text, 3)),
      Operation(KEVENT_OP_CLOSE, pair.ours.get(), 4)};
  SubmitAll(chain);
  SubmitAll({CancelOf(pair.ours.get(), 2, 8)});
  ExpectResult(8, -ENOENT);  // it is of no socket
  SubmitAll({CancelOf(-1, 2, 9)});
  ExpectResults({{9, 1}, {2, -ECANCELED}, {3, -ECANCELED}, {4, -ECANCELED}});
  Send(pair.peer.get(), "ping");
  ExpectResult(1, 4);
  SubmitAll(chain);
  SubmitAll({CancelAll(9)});
  ExpectResults({{9, 4},
                 {1, -ECANCELED},
                 {2, -ECANCELED},
                 {3, -ECANCELED},
                 {4, -ECANCELED}});
  ExpectNothing();
  EXPECT_TRUE(IsOpen(pair.ours.get()));
}

// ---- Many, and the end ----

TEST_F(LinkTest, LongChains) {
  constexpr uint64_t kCount = KEVENT_MAX_RING;
  Reopen({KEVENT_MAX_RING, KEVENT_MAX_RING, 0});
  Pair pair = SocketPair(SOCK_STREAM);
  std::vector<kevent_sqe> sqes;
  for (uint64_t i = 1; i < kCount; ++i) {
    sqes.push_back(Silent(
        Linked(Operation(KEVENT_OP_SHUTDOWN, pair.ours.get(), i, SHUT_WR))));
  }
  sqes.push_back(Operation(KEVENT_OP_SHUTDOWN, pair.ours.get(), 0, SHUT_WR));
  SubmitAll(sqes);
  ExpectResult(0, 0);
  ExpectNothing();
  // One that breaks at its beginning, across sockets.
  Pair other = TcpPair();
  sqes[0] = Linked(Recv(other.ours.get(), buffer_, 4, kCount));
  for (uint64_t i = 1; i + 1 < kCount; i += 3) {
    sqes[i].fd = other.ours.get();
    if (i % 2) {
      sqes[i] = Linked(Operation(KEVENT_OP_CLOSE, other.ours.get(), i + 1));
    }
  }
  SubmitAll(sqes);
  ExpectNothing();
  SubmitAll({CancelOf(other.ours.get(), kCount, kCount + 1)});
  ExpectResult(kCount, -ECANCELED);
  ExpectResult(kCount + 1, 1);
  for (uint64_t i = 1; i < kCount && !HasFailure(); ++i) {
    ExpectResult((i + 1) % kCount, -ECANCELED);
  }
  ExpectNothing();
  EXPECT_TRUE(IsOpen(other.ours.get()));
}

TEST_F(LinkTest, TheQueueEndsWithChains) {
  Pair pair = TcpPair(), other = TcpPair();
  const std::string text = "x";
  const std::vector<kevent_sqe> chain = {
      Linked(Recv(pair.ours.get(), buffer_, 4, 1)),
      Linked(SendOf(other.ours.get(), text, 2)),
      Linked(Operation(KEVENT_OP_CLOSE, other.ours.get(), 3)),
      Linked(SendOf(pair.ours.get(), text, 4)),
      Operation(KEVENT_OP_CLOSE, pair.ours.get(), 5)};
  SubmitAll(chain);
  SubmitAll(chain);
  Reopen({});
  // The rest of it goes on while the last descriptor is closed by one of it.
  const int own = queue().fd();
  for (const kevent_sqe& sqe :
       {Linked(Operation(KEVENT_OP_CLOSE, own, 1)),
        Linked(Recv(pair.ours.get(), buffer_, 4, 2)),
        Operation(KEVENT_OP_CLOSE, other.ours.get(), 3)}) {
    ASSERT_TRUE(queue().Put(sqe));
  }
  EXPECT_GE(queue().Submit(3), 0);
  EXPECT_FALSE(IsOpen(own));
  queue().ReleaseFd();
  Reopen({});
  EXPECT_TRUE(IsOpen(other.ours.get()));
  // Killed with some.
  Child child([&] {
    Queue killed;
    CHILD_CHECK(killed.Open() == 0);
    for (int i = 0; i < 20; ++i) {
      for (const kevent_sqe& sqe : chain) CHILD_CHECK(killed.Put(sqe));
    }
    CHILD_CHECK(killed.Submit(100) >= 0);
    CHILD_CHECK(write(other.ours.get(), "r", 1) == 1);
    killed.Wait(1, -1);
  });
  ReadExactly(other.peer.get(), 1);
  child.Kill(SIGKILL);
  child.Wait();
  Send(pair.peer.get(), "ping");
  ReadExactly(pair.ours.get(), 4);
}

TEST_F(LinkTest, ACloseIsOfTheSubmittersDescriptors) {
  // A thread with a table of its own runs what is before it, and not the close.
  Pair pair = TcpPair();
  const int fd = pair.ours.get();
  SubmitAll(
      {Linked(Recv(fd, buffer_, 4, 1)), Operation(KEVENT_OP_CLOSE, fd, 2)});
  std::thread other([&] {
    ASSERT_EQ(0, unshare(CLONE_FILES));
    Send(pair.peer.get(), "ping");
    EXPECT_GE(queue().Wait(1, PatienceNs()), 1);
    EXPECT_GE(queue().Look(), 1);
    EXPECT_TRUE(IsOpen(fd));
  });
  other.join();
  EXPECT_TRUE(IsOpen(fd));
  ExpectResult(1, 4);
  ExpectResult(2, 0);
  EXPECT_FALSE(IsOpen(fd));
  pair.ours.Release();
}

TEST_F(LinkTest, ManyThreadsWithChains) {
  // Each answers on its own pair; all of them run whatever is ready.
  constexpr int kThreads = 3, kRounds = 300;
  std::vector<Pair> pairs;
  for (int i = 0; i < kThreads; ++i) pairs.push_back(TcpPair());
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      while (!stop.load()) queue().Wait(1, 1'000'000);
    });
  }
  const std::string answer = "answer";
  std::vector<std::array<char, 4>> buffers(kThreads);
  for (int round = 0; round < kRounds && !HasFailure(); ++round) {
    std::vector<kevent_sqe> sqes;
    std::vector<int> copies;
    for (size_t i = 0; i < pairs.size(); ++i) {
      const int fd = pairs[i].ours.get();
      copies.push_back(dup(fd));
      sqes.push_back(Linked(Recv(fd, buffers[i].data(), 4, 1)));
      sqes.push_back(Linked(SendOf(fd, answer, 2)));
      sqes.push_back(Operation(KEVENT_OP_CLOSE, copies.back(), 3));
    }
    SubmitAll(sqes);
    for (Pair& pair : pairs) Send(pair.peer.get(), "ping");
    for (Pair& pair : pairs) {
      EXPECT_EQ(answer, ReadAll(pair.peer.get(), answer.size()));
    }
    std::map<uint64_t, int64_t> sums;
    for (size_t i = 0; i < sqes.size(); ++i) {
      const kevent_entry entry = Next();
      sums[entry.user_data] += entry.result;
    }
    EXPECT_EQ((std::map<uint64_t, int64_t>{
                  {1, 4 * kThreads}, {2, 6 * kThreads}, {3, 0}}),
              sums);
    for (int copy : copies) EXPECT_FALSE(IsOpen(copy));
  }
  stop.store(true);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace kevent::raw
