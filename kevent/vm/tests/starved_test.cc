// SPDX-License-Identifier: Apache-2.0
//
// Receives that share a pool with fewer buffers than they could fill: each has
// one in its turn, and no buffer is left lying while one waits.
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kevent/vm/tests/pool_fixture.h"

namespace kevent::raw {
namespace {

class StarvedTest : public NaioTest, public testing::WithParamInterface<Pool> {
 protected:
  static constexpr uint32_t kBytes = 64;

  void Renew(uint32_t buffers, const Options& options = {}) {
    Reopen(options);
    pool_ = std::make_unique<TestPool>(buffers, kBytes);
    // A worker does not bring pages in.
    memset(pool_->map(), 0, pool_->map_bytes());
    ASSERT_EQ(0, pool_->Register(queue(), GetParam()));
  }
  TestPool& pool() { return *pool_; }
  // A receive from a socket that has `bytes` to be read, from 1 on.
  void Hungry(const Pair& pair, size_t bytes, uint16_t flags) {
    Send(pair.peer.get(), Content(bytes));
    ASSERT_TRUE(WaitPoll(pair.ours.get(), POLLIN));
    Submit(pool().Recv(pair.ours.get(), flags, ++last_));
  }
  uint64_t Taker() {
    const kevent_entry entry = Next();
    EXPECT_EQ(kBytes, entry.result) << Describe(entry);
    return entry.user_data;
  }

 private:
  std::unique_ptr<TestPool> pool_;
  uint64_t last_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Pools, StarvedTest,
                         testing::Values(Pool::kOrdinary, Pool::kPinned),
                         PoolName);

TEST_P(StarvedTest, EachHasOneInItsTurn) {
  constexpr int kRounds = 10;
  for (uint64_t receives : {3u, 4u, 5u, 8u}) {
    Renew(2);
    pool().ProvideAll();
    std::vector<Pair> pairs;
    std::map<uint64_t, int> taken;
    for (uint64_t i = 0; i < receives; ++i) {
      pairs.push_back(TcpPair());
      Hungry(pairs.back(), 4 * kRounds * kBytes, KEVENT_MULTISHOT);
    }
    for (uint64_t i = 0; i < kRounds * receives; ++i) {
      const kevent_entry entry = Next();
      ASSERT_EQ(kBytes, entry.result) << Describe(entry);
      ++taken[entry.user_data];
      pool().Provide(static_cast<uint16_t>(entry.data[0]));
    }
    EXPECT_EQ(receives, taken.size());
    for (const auto& [user_data, count] : taken) {
      EXPECT_NEAR(kRounds, count, 2) << user_data << " of " << receives;
    }
  }
}

TEST_P(StarvedTest, ANewOneQueuesBehind) {
  Renew(1);
  Pair first = TcpPair(), second = TcpPair();
  Hungry(first, kBytes, 0);
  EXPECT_TRUE(queue().Starved());
  // The kernel hears of the buffer and the new one by the same call.
  pool().Provide(0);
  Hungry(second, kBytes, 0);
  EXPECT_EQ(1u, Taker());
  pool().Provide(0);
  EXPECT_EQ(2u, Taker());
  queue().Look();
  EXPECT_FALSE(queue().Starved());
}

TEST_P(StarvedTest, OneWithoutDataLeavesItToTheNext) {
  Renew(1);
  Pair first = TcpPair(), second = TcpPair();
  Hungry(first, kBytes, 0);
  Hungry(second, kBytes, 0);
  ReadAll(first.ours.get(), kBytes);
  pool().Provide(0);
  // One call; what it leaves a worker does.
  queue().Look();
  EXPECT_TRUE(Until([&] { return queue().Unread() == 1; }));
  EXPECT_EQ(2u, Taker());
  // It waits for its socket now.
  pool().Provide(0);
  Send(first.peer.get(), Content(kBytes));
  EXPECT_EQ(1u, Taker());
}

TEST_P(StarvedTest, OneThatIsCancelledLeavesItToTheNext) {
  Renew(1);
  Pair first = TcpPair(), second = TcpPair();
  Hungry(first, kBytes, 0);
  Hungry(second, kBytes, 0);
  pool().Provide(0);
  Submit(Operation(KEVENT_OP_CANCEL, -1, 9, 1));
  EXPECT_EQ(-ECANCELED, Next().result);
  EXPECT_EQ(1, Next().result);
  EXPECT_TRUE(Until([&] { return queue().Unread() == 1; }));
  EXPECT_EQ(2u, Taker());
}

// Those that have starved together go on as fast as others once there are
// buffers.
TEST_P(StarvedTest, ManyBuffersAreTakenAtOnce) {
  Renew(64);
  Pair first = TcpPair(), second = TcpPair();
  Hungry(first, 20 * kBytes, KEVENT_MULTISHOT);
  Hungry(second, 20 * kBytes, KEVENT_MULTISHOT);
  pool().ProvideAll();
  queue().Look();
  queue().Look();
  EXPECT_EQ(40u, queue().Unread());
}

TEST_P(StarvedTest, RoomInTheRingIsSharedToo) {
  constexpr int kRounds = 10;
  Renew(64, {4, 64, 0});
  pool().ProvideAll();
  std::vector<Pair> pairs;
  std::map<uint64_t, int> taken;
  for (int i = 0; i < 5; ++i) {
    pairs.push_back(TcpPair());
    Hungry(pairs.back(), 40 * kRounds * kBytes, KEVENT_MULTISHOT);
  }
  for (int i = 0; i < 5 * 4 * kRounds && !HasFailure();) {
    queue().Look();
    EXPECT_EQ(4u, queue().Unread());
    for (kevent_entry entry; queue().Take(&entry); ++i) {
      ++taken[entry.user_data];
      pool().Provide(static_cast<uint16_t>(entry.data[0]));
    }
  }
  EXPECT_EQ(5u, taken.size());
  for (const auto& [user_data, count] : taken) {
    EXPECT_NEAR(4 * kRounds, count, 8) << user_data;
  }
}

TEST_P(StarvedTest, ANewOneQueuesBehindThoseThatWaitForRoom) {
  Renew(64, {4, 64, 0});
  pool().ProvideAll();
  Pair first = TcpPair();
  Hungry(first, 400 * kBytes, KEVENT_MULTISHOT);
  queue().Look();
  std::vector<Pair> others;
  bool waited = false;
  for (int i = 0; i < 8 && !HasFailure(); ++i) {
    ASSERT_EQ(4u, queue().Unread());
    for (kevent_entry entry; queue().Take(&entry);) {
      waited |= i > 0 && entry.user_data == 1;
      pool().Provide(static_cast<uint16_t>(entry.data[0]));
    }
    others.push_back(TcpPair());
    Hungry(others.back(), 10 * kBytes, KEVENT_MULTISHOT);
    queue().Look();
  }
  EXPECT_TRUE(waited);
}

// Who looks at the ring alone learns by its flag that something waits for room.
TEST_P(StarvedTest, TheFlagTellsOfWhatWaitsForRoom) {
  Renew(64, {4, 64, 0});
  pool().ProvideAll();
  Pair pair = TcpPair();
  Hungry(pair, 10 * kBytes, KEVENT_MULTISHOT);
  int taken = 0;
  EXPECT_TRUE(Until([&] {
    for (kevent_entry entry; queue().Take(&entry); ++taken) {
      EXPECT_EQ(kBytes, entry.result) << Describe(entry);
    }
    if (queue().Pending()) queue().Look();
    return taken == 10;
  }));
  queue().Look();
  EXPECT_FALSE(queue().Pending());
}

// No call but these sees the buffer.
TEST_P(StarvedTest, WhoSeesABufferLeavesNobodyBehind) {
  for (bool by_poll : {false, true}) {
    Renew(1);
    Pair first = TcpPair(), second = TcpPair(), idle = TcpPair();
    TestPool other(1, kBytes);
    ASSERT_EQ(0, other.Register(queue()));
    Submit(other.Recv(idle.ours.get(), 0, 100));
    Hungry(first, kBytes, 0);
    Hungry(second, kBytes, 0);
    ReadAll(first.ours.get(), kBytes);
    pool().Provide(0);
    if (by_poll) {
      PollNow(queue().fd(), POLLOUT);
    } else {
      EXPECT_EQ(-EBUSY, other.Unregister(queue()));
    }
    EXPECT_TRUE(Until([&] { return queue().Unread() == 1; }));
    EXPECT_EQ(by_poll ? 4u : 2u, Taker());
  }
}

TEST_P(StarvedTest, EverythingArrivesWhateverHappens) {
  constexpr size_t kSockets = 12, kTotal = 20'000;
  std::mt19937 dice(Seed());
  Renew(4);
  std::vector<Pair> pairs;
  for (size_t i = 0; i < kSockets; ++i) pairs.push_back(TcpPair());

  std::thread sender([&, seed = dice()] {
    std::mt19937 own(seed);
    std::vector<size_t> sent(kSockets, 0);
    const std::string text = Content(kTotal);
    for (size_t left = kSockets; left > 0;) {
      const size_t i = own() % kSockets;
      if (sent[i] == kTotal) continue;
      const size_t n = std::min<size_t>(1 + own() % 300, kTotal - sent[i]);
      Send(pairs[i].peer.get(), std::string_view(text).substr(sent[i], n));
      sent[i] += n;
      if (sent[i] < kTotal) continue;
      shutdown(pairs[i].peer.get(), SHUT_WR);
      --left;
    }
  });

  // Gives them back while this thread sleeps.
  std::mutex mutex;
  std::deque<uint16_t> used = {0, 1, 2, 3};
  std::atomic<bool> stop = false;
  std::thread giver([&, seed = dice()] {
    std::mt19937 own(seed);
    while (!stop) {
      for (uint32_t spin = own() % 5'000; spin > 0; --spin) asm volatile("");
      size_t n = 1 + own() % 4;
      {
        std::lock_guard lock(mutex);
        for (n = std::min(n, used.size()); n > 0; --n) {
          pool().Provide(used.front());
          used.pop_front();
        }
      }
      std::atomic_thread_fence(std::memory_order_seq_cst);
      if (queue().Starved()) queue().Look();
      sched_yield();
    }
  });

  std::vector<std::string> got(kSockets);
  auto start = [&](size_t i) {
    Submit(
        pool().Recv(pairs[i].ours.get(), dice() % 2 ? KEVENT_MULTISHOT : 0, i));
  };
  for (size_t i = 0; i < kSockets; ++i) start(i);
  size_t open = kSockets;
  int cancelled = 0;
  while (open > 0 && !HasFailure()) {
    if (dice() % 16 == 0) {
      Submit(Operation(KEVENT_OP_CANCEL, -1, 1000, dice() % kSockets));
    }
    const kevent_entry entry = Next();
    if (entry.user_data == 1000 || HasFailure()) continue;
    const size_t i = entry.user_data;
    if (entry.result > 0) {
      got[i] += pool().Text(entry);
      std::lock_guard lock(mutex);
      used.push_back(static_cast<uint16_t>(entry.data[0]));
    }
    if (!(entry.flags & KEVENT_ENTRY_DONE)) continue;
    cancelled += entry.result == -ECANCELED;
    EXPECT_TRUE(entry.result >= 0 || entry.result == -ECANCELED)
        << Describe(entry);
    if (entry.result == 0) {
      --open;
    } else {
      start(i);
    }
  }
  stop = true;
  // A sender that waits for room.
  if (HasFailure()) {
    for (Pair& pair : pairs) shutdown(pair.ours.get(), SHUT_RDWR);
  }
  giver.join();
  sender.join();
  for (const std::string& one : got) EXPECT_TRUE(one == Content(kTotal));
  printf("%d cancelled\n", cancelled);
}

}  // namespace
}  // namespace kevent::raw
