// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "kevent/queue/conformance/conformance.h"

namespace kevent::conformance {
namespace {

constexpr uint32_t kRing = 8;  // entries

class RingTest : public QueueTest {
 protected:
  void SetUp() override {
    QueueTest::SetUp();
    if (IsSkipped()) return;
    Queue::Options options;
    options.ring_entries = kRing;
    Reopen(options);
  }

  void LookOnly() {
    Wait look;
    look.min = 0;
    EXPECT_EQ(0, queue().Enter({}, look));
  }

  BufferPool* Pool(uint32_t buffers, uint32_t bytes) {
    auto pool = queue().AddBufferPool(buffers, bytes);
    EXPECT_TRUE(pool.ok()) << pool.status();
    return pool.ok() ? *pool : nullptr;
  }

  static std::string Contents(const Entry& e) {
    if (!(e.flags & kEntryBuffer) || e.result < 0) return "";
    return std::string(reinterpret_cast<char*>(e.data[0]),
                       static_cast<size_t>(e.result));
  }

  int Unread(int fd) {
    int bytes = -1;
    EXPECT_EQ(0, ioctl(fd, FIONREAD, &bytes));
    return bytes;
  }
};
KEVENT_CONFORMANCE(RingTest);

TEST_P(RingTest, MoreCompletionsThanEntries) {
  Pair pair = TcpPair();
  std::vector<SendOp*> sends;
  std::string all;
  for (int i = 0; i < 100; ++i) {
    const std::string& text = *Bytes(std::to_string(i) + ",");
    sends.push_back(NewSend(pair.ours, text));
    all += text;
    MustSubmit(sends.back());
    if (i % 10 == 0) LookOnly();
  }
  EXPECT_EQ(all, PeerRead(pair.peer, all.size()));
  std::vector<Entry> entries = WaitFor(sends.size());
  for (size_t i = 0; i < sends.size(); ++i) {
    EXPECT_EQ(entries[i].operation, sends[i]);
  }
  ExpectNothing();
  EXPECT_LE(queue().stats().ring_high_water, kRing);
}

TEST_P(RingTest, MorePostsThanEntries) {
  std::vector<PostOp*> posts;
  for (uint64_t i = 0; i < 500; ++i) {
    posts.push_back(New<PostOp>());
    posts.back()->user_data = i;
    ASSERT_EQ(0, queue().Post(posts.back()));
  }
  LookOnly();
  size_t next = 0;
  // In bites of all sizes.
  for (size_t bite = 1; next < posts.size(); bite = bite % 20 + 1) {
    std::vector<Entry> out(std::min(bite, posts.size() - next));
    Wait wait;
    wait.min = out.size();
    wait.timeout_ns = PatienceNs();
    const int64_t start = NowNs();
    int r = queue().Enter(out, wait);
    ASSERT_EQ(static_cast<int>(out.size()), r);
    ASSERT_LT(NowNs() - start, PatienceNs() / 2)
        << "it waited, though " << out.size() << " entries were there";
    for (const Entry& e : out) {
      ASSERT_EQ(e.operation, posts[next]);
      ASSERT_EQ(e.user_data, next);
      EXPECT_EQ(e.result, 0);
      ++next;
    }
  }
  Entry e;
  EXPECT_EQ(0u, queue().Take({&e, 1}));
  EXPECT_GT(queue().stats().overflow_deferred, 0u);
  EXPECT_LE(queue().stats().ring_high_water, kRing);
}

TEST_P(RingTest, MoreInterestsThanEntries) {
  std::map<uint64_t, int> seen;
  for (uint64_t i = 0; i < 50; ++i) {
    Interest interest;
    interest.fd = Own(eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK));
    interest.events = POLLIN;
    interest.flags = i % 3 == 0   ? uint32_t{kEdge}
                     : i % 3 == 1 ? uint32_t{kOneShot}
                                  : uint32_t{kDispatch};
    interest.user_data = i;
    MustAdd(interest);
  }
  for (int i = 0; i < 3; ++i) LookOnly();
  for (const Entry& e : WaitFor(50)) ++seen[e.user_data];
  EXPECT_EQ(seen.size(), 50u) << "one each";
  ExpectNothing();
}

TEST_P(RingTest, LevelInterestsAreNotStarved) {
  std::map<uint64_t, int> seen;
  for (uint64_t i = 0; i < 30; ++i) {
    Interest interest;
    interest.fd = Own(eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK));
    interest.events = POLLIN;
    interest.user_data = i;
    MustAdd(interest);
  }
  EXPECT_TRUE(RunUntil([&] {
    for (const Entry& e : taken_) ++seen[e.user_data];
    taken_.clear();
    return seen.size() == 30;
  }));
  // They stay ready; nothing else is to be said of them.
  Destroy();
}

TEST_P(RingTest, MoreTimersThanEntries) {
  std::map<uint64_t, int> seen;
  for (uint64_t i = 0; i < 50; ++i) {
    Interest interest;
    interest.source = Source::kTimer;
    interest.user_data = i;
    MustAdd(interest);
  }
  LookOnly();
  for (const Entry& e : WaitFor(50)) {
    EXPECT_EQ(1, ++seen[e.user_data]);
    EXPECT_EQ(1u, e.data[0]);
  }
  ExpectNothing();
  EXPECT_EQ(queue().stats().interests, 0u);
}

TEST_P(RingTest, SignalsWaitInOrder) {
  const int signo = SIGRTMIN + 3;
  sigset_t mask, before;
  sigemptyset(&mask);
  sigaddset(&mask, signo);
  ASSERT_EQ(0, pthread_sigmask(SIG_BLOCK, &mask, &before));
  Interest interest;
  interest.source = Source::kSignal;
  interest.signo = signo;
  const Handle handle = MustAdd(interest);
  for (int i = 0; i < 40; ++i) {
    sigval value;
    value.sival_ptr = reinterpret_cast<void*>(static_cast<intptr_t>(i));
    ASSERT_EQ(0, sigqueue(getpid(), signo, value));
    if (i % 10 == 0) LookOnly();
  }
  uint64_t next = 0;
  for (const Entry& e : WaitFor(40)) EXPECT_EQ(next++, e.data[1]);
  EXPECT_EQ(0, queue().Remove(handle));
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

TEST_P(RingTest, MultishotAcceptStopsAndGoesOn) {
  TestListener listener = Listen(64);
  AcceptOp* accept = New<AcceptOp>(listener.fd);
  accept->flags = kOpMultishot;
  MustSubmit(accept);
  constexpr int kConnections = 40;
  for (int i = 0; i < kConnections; ++i) {
    ConnectTo(listener);
    if (i % 7 == 0) LookOnly();
  }
  for (int i = 0; i < 5; ++i) LookOnly();
  EXPECT_LE(queue().stats().ring_high_water, kRing);
  for (const Entry& e : WaitFor(kConnections)) {
    EXPECT_TRUE(e.flags & kEntryMore);
    ASSERT_GE(e.result, 0);
    Own(static_cast<int>(e.result));
  }
  ExpectNothing();
  EXPECT_EQ(0, queue().Cancel(accept));
  EXPECT_EQ(-ECANCELED, ResultOf(accept));
}

TEST_P(RingTest, MultishotAcceptCancelledWithTheRingFull) {
  TestListener listener = Listen(64);
  AcceptOp* accept = New<AcceptOp>(listener.fd);
  accept->flags = kOpMultishot;
  MustSubmit(accept);
  constexpr int kConnections = 20;
  for (int i = 0; i < kConnections; ++i) ConnectTo(listener);
  for (int i = 0; i < 5; ++i) LookOnly();
  EXPECT_EQ(0, queue().Cancel(accept));
  int accepted = 0;
  for (;;) {
    Entry e = One();
    if (!(e.flags & kEntryMore)) {
      EXPECT_EQ(-ECANCELED, e.result);
      break;
    }
    Own(static_cast<int>(e.result));
    ++accepted;
  }
  pollfd p = {listener.fd, POLLIN, 0};
  for (; poll(&p, 1, 0) > 0; ++accepted) {
    Own(accept4(listener.fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  }
  EXPECT_EQ(kConnections, accepted) << "each was delivered or waits";
}

TEST_P(RingTest, MultishotRecvStopsAndGoesOn) {
  BufferPool* pool = Pool(64, 16);
  Pair pair = TcpPair();
  RecvOp* recv = New<RecvOp>(pair.ours);
  recv->pool = pool;
  recv->flags = kOpMultishot;
  MustSubmit(recv);
  const std::string bytes = Pattern(10'000);
  PeerSend(pair.peer, bytes);
  ASSERT_EQ(0, shutdown(pair.peer, SHUT_WR));
  for (int i = 0; i < 5; ++i) LookOnly();
  EXPECT_LE(queue().stats().ring_high_water, kRing);
  std::string got;
  for (;;) {
    Entry e = One();
    if (!(e.flags & kEntryMore)) {
      EXPECT_EQ(0, e.result);
      break;
    }
    ASSERT_GT(e.result, 0);
    got += Contents(e);
    pool->Release(static_cast<uint16_t>(e.data[1]));
  }
  EXPECT_TRUE(bytes == got);
}

// Fewer buffers than receives that could fill them at once.
TEST_P(RingTest, EachOfManyGetsABuffer) {
  for (int receives : {3, 4, 5, 6, 8}) {
    SCOPED_TRACE(receives);
    BufferPool* pool = Pool(2, 16);
    std::map<Operation*, int> entries;
    std::vector<Pair> pairs;
    for (int i = 0; i < receives; ++i) {
      pairs.push_back(TcpPair());
      PeerSend(pairs.back().peer, Pattern(100 * 16));
    }
    for (const Pair& pair : pairs) {
      RecvOp* recv = New<RecvOp>(pair.ours);
      recv->pool = pool;
      recv->flags = kOpMultishot;
      MustSubmit(recv);
      entries[recv] = 0;
    }
    for (int taken = 0; taken < 20 * receives; taken += 2) {
      const std::vector<Entry> both = WaitFor(2);
      for (const Entry& e : both) {
        ASSERT_EQ(16, e.result);
        ++entries[e.operation];
        pool->Release(static_cast<uint16_t>(e.data[1]));
      }
    }
    for (const auto& [recv, count] : entries) EXPECT_GT(count, 0);
    for (const Pair& pair : pairs) EXPECT_EQ(0, CloseByQueue(pair.ours));
    std::set<Operation*> open;
    for (const auto& [recv, count] : entries) open.insert(recv);
    while (!open.empty()) {
      const Entry e = One();
      if (e.flags & kEntryBuffer) {
        pool->Release(static_cast<uint16_t>(e.data[1]));
      }
      if (!(e.flags & kEntryMore)) open.erase(e.operation);
    }
  }
}

TEST_P(RingTest, EverythingAtOnceOnceEach) {
  std::mt19937 random(Seed());
  Pair pair = TcpPair();
  std::map<uint64_t, int> seen;
  uint64_t id = 0;
  size_t open = 0;
  auto take = [&](size_t room) {
    std::vector<Entry> out(room);
    Wait wait;
    wait.min = 0;
    int r = random() % 2 ? queue().Enter(out, wait)
                         : static_cast<int>(queue().Take(out));
    ASSERT_GE(r, 0);
    for (int i = 0; i < r; ++i) {
      Note(out[static_cast<size_t>(i)]);
      EXPECT_EQ(1, ++seen[out[static_cast<size_t>(i)].user_data]);
      --open;
    }
  };
  for (int i = 0; i < 2000; ++i) {
    switch (random() % 5) {
      case 0: {
        Interest interest;
        interest.source = Source::kTimer;
        interest.user_data = ++id;
        MustAdd(interest);
        ++open;
        break;
      }
      case 1: {
        SendOp* send = NewSend(pair.ours, "x");
        send->user_data = ++id;
        MustSubmit(send);
        ++open;
        break;
      }
      case 2: {
        PeerSend(pair.peer, "y");
        RecvOp* recv = NewRecv(pair.ours, Room(1));
        recv->user_data = ++id;
        MustSubmit(recv);
        ++open;
        break;
      }
      case 3: {
        Interest interest;
        interest.fd = pair.ours;
        interest.events = POLLOUT;
        interest.flags = kOneShot;
        interest.user_data = ++id;
        MustAdd(interest);
        ++open;
        break;
      }
      default:
        take(random() % 12);
    }
  }
  for (int64_t end = NowNs() + PatienceNs(); open > 0 && NowNs() < end;) {
    take(1 + random() % 12);
    for (const Entry& e : taken_) {
      EXPECT_EQ(1, ++seen[e.user_data]);
      --open;
    }
    taken_.clear();
  }
  EXPECT_EQ(open, 0u);
  EXPECT_EQ(seen.size(), id);
  EXPECT_LE(queue().stats().ring_high_water, kRing);
}

// --- Buffer pools.

TEST_P(RingTest, PoolOfAnImpossibleSize) {
  using absl::StatusCode;
  for (auto [buffers, bytes] :
       {std::pair<uint32_t, uint32_t>{0, 16}, {3, 16}, {65536, 16}, {4, 0}}) {
    EXPECT_EQ(queue().AddBufferPool(buffers, bytes).status().code(),
              StatusCode::kInvalidArgument)
        << buffers << " of " << bytes;
  }
}

TEST_P(RingTest, PoolEmptyStopsAndGoesOn) {
  Queue::Options options;
  Reopen(options);
  BufferPool* pool = Pool(4, 16);
  Pair pair = TcpPair();
  RecvOp* recv = New<RecvOp>(pair.ours);
  recv->pool = pool;
  recv->flags = kOpMultishot;
  MustSubmit(recv);
  const std::string bytes = Pattern(1000);
  PeerSend(pair.peer, bytes);
  PeerRoundTrip(pair);
  std::vector<Entry> entries = WaitFor(4);
  std::string got;
  for (const Entry& e : entries) got += Contents(e);
  EXPECT_EQ(64u, got.size());
  ExpectNothing();
  EXPECT_TRUE(recv->in_flight());
  EXPECT_EQ(1000 - 64, Unread(pair.ours)) << "the data stays in the socket";
  for (const Entry& e : entries) {
    pool->Release(static_cast<uint16_t>(e.data[1]));
  }
  while (got.size() < bytes.size()) {
    Entry e = One();
    ASSERT_GT(e.result, 0);
    got += Contents(e);
    pool->Release(static_cast<uint16_t>(e.data[1]));
  }
  EXPECT_TRUE(bytes == got);
  EXPECT_EQ(0, queue().Cancel(recv));
  EXPECT_EQ(-ECANCELED, ResultOf(recv));
}

TEST_P(RingTest, PoolEmptyHoldsBackSingleRecvs) {
  BufferPool* pool = Pool(1, 16);
  std::vector<Pair> pairs;
  std::vector<RecvOp*> recvs;
  for (int i = 0; i < 5; ++i) {
    pairs.push_back(TcpPair());
    recvs.push_back(New<RecvOp>(pairs.back().ours));
    recvs.back()->pool = pool;
    recvs.back()->user_data = static_cast<uint64_t>(i);
    MustSubmit(recvs.back());
  }
  Look();
  EXPECT_TRUE(taken_.empty()) << "five wait and none holds the buffer";
  for (int i = 0; i < 5; ++i) PeerSend(pairs[i].peer, std::to_string(i));
  std::map<uint64_t, int> seen;
  for (int i = 0; i < 5; ++i) {
    Entry e = One();
    ASSERT_EQ(1, e.result);
    EXPECT_EQ(Contents(e), std::to_string(e.user_data));
    ++seen[e.user_data];
    ExpectNothing();
    pool->Release(static_cast<uint16_t>(e.data[1]));
  }
  EXPECT_EQ(5u, seen.size());
}

TEST_P(RingTest, PoolEmptyAndCancelled) {
  BufferPool* pool = Pool(1, 16);
  Pair pair = TcpPair();
  PeerSend(pair.peer, Pattern(100));
  PeerRoundTrip(pair);
  for (uint16_t flags : {uint16_t{kOpMultishot}, uint16_t{0}}) {
    RecvOp* holder = New<RecvOp>(pair.ours);
    holder->pool = pool;
    MustSubmit(holder);
    Entry e = One();
    EXPECT_EQ(16, e.result);
    RecvOp* recv = New<RecvOp>(pair.ours);
    recv->pool = pool;
    recv->flags = flags;
    MustSubmit(recv);
    ExpectNothing();
    EXPECT_EQ(0, queue().Cancel(recv));
    EXPECT_EQ(-ECANCELED, ResultOf(recv));
    pool->Release(static_cast<uint16_t>(e.data[1]));
    ExpectNothing();
  }
}

TEST_P(RingTest, PoolEmptyAndClosed) {
  BufferPool* pool = Pool(1, 16);
  Pair one = TcpPair();
  Pair two = TcpPair();
  RecvOp* first = New<RecvOp>(one.ours);
  RecvOp* second = New<RecvOp>(two.ours);
  first->pool = second->pool = pool;
  first->flags = second->flags = kOpMultishot;
  MustSubmit(first);
  PeerSend(one.peer, "x");
  Entry held = One();
  MustSubmit(second);
  PeerSend(two.peer, "y");
  ExpectNothing();
  EXPECT_EQ(0, CloseByQueue(two.ours));
  EXPECT_EQ(-ECANCELED, ResultOf(second));
  pool->Release(static_cast<uint16_t>(held.data[1]));
  PeerSend(one.peer, "z");
  Entry e = One();
  EXPECT_EQ("z", Contents(e));
  EXPECT_EQ(0, queue().Cancel(first));
  EXPECT_EQ(-ECANCELED, ResultOf(first));
}

using RingDeathTest = RingTest;
KEVENT_CONFORMANCE(RingDeathTest);

TEST_P(RingDeathTest, ReleasingABufferThatIsNotLentOutAborts) {
  if (kThreadSanitizer) GTEST_SKIP() << "no death tests with ThreadSanitizer";
  BufferPool* pool = Pool(2, 16);
  EXPECT_DEATH(pool->Release(0), "not lent out");
  EXPECT_DEATH(pool->Release(99), "not lent out");
}

}  // namespace
}  // namespace kevent::conformance
