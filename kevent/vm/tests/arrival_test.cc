// SPDX-License-Identifier: Apache-2.0
//
// What arrives for a pinned pool is copied by its arrival: without any thread
// of ours, and whatever else happens to the socket meanwhile.
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kevent/vm/tests/pool_fixture.h"

#ifndef TCP_ULP
#define TCP_ULP 31
#endif

namespace kevent::raw {
namespace {

class ArrivalTest : public NaioTest {
 protected:
  static constexpr uint32_t kBuffers = 64, kEach = 4096;

  void SetUp() override {
    NaioTest::SetUp();
    Renew({});
  }
  void Renew(const Options& options, uint32_t buffers = kBuffers,
             uint32_t each = kEach) {
    Reopen(options);
    pool_ = std::make_unique<TestPool>(buffers, each);
    ASSERT_EQ(0, pool_->Register(queue()));
  }
  TestPool& pool() { return *pool_; }
  void Arm(int fd, uint16_t flags = KEVENT_MULTISHOT, uint64_t user_data = 1) {
    Submit(pool_->Recv(fd, flags, user_data));
  }
  // The bytes of an entry, whose buffer goes back.
  std::string Consume(const kevent_entry& entry) {
    const std::string text = pool_->Text(entry);
    pool_->Provide(static_cast<uint16_t>(entry.data[0]));
    return text;
  }
  // Entries of `user_data` until so many bytes, or the end, have come.
  std::string Gather(size_t size, uint64_t user_data = 1) {
    std::string got;
    while (got.size() < size) {
      const kevent_entry entry = Next();
      EXPECT_EQ(user_data, entry.user_data) << Describe(entry);
      if (entry.result <= 0 || HasFailure()) break;
      got += Consume(entry);
    }
    return got;
  }

 private:
  std::unique_ptr<TestPool> pool_;
};

// ---- Without a thread ----

// Shared with a process whose only thread makes no system call.
struct Spun {
  std::atomic<bool> ready = false;
  std::atomic<bool> stop = false;
  std::atomic<uint32_t> entries = 0;
  std::atomic<uint32_t> wrong = 0;
  std::atomic<int> fd = -1;
};

// Spins until it is told to end, and compares what comes with Content().
void SpinOnRing(Queue* queue, TestPool* pool, bool again, Spun* spun) {
  constexpr uint32_t kPiece = 1000;
  char expected[kPiece];
  // Nothing of libc that might call the kernel from here on.
  ForbidCalls();
  spun->ready = true;
  while (!spun->stop) {
    kevent_entry entry;
    if (!queue->Take(&entry)) continue;
    const uint32_t number = spun->entries;
    for (uint32_t i = 0; i < kPiece; ++i) {
      expected[i] = static_cast<char>((i + i / 4096 * 7 + number) % 251);
    }
    if (entry.result != kPiece || !(entry.flags & KEVENT_ENTRY_BUFFER) ||
        !(entry.flags & (again ? KEVENT_ENTRY_MORE : KEVENT_ENTRY_DONE)) ||
        memcmp(expected, pool->Data(entry), kPiece) != 0) {
      ++spun->wrong;
    }
    pool->Provide(static_cast<uint16_t>(entry.data[0]));
    ++spun->entries;
  }
  EndThread();
}

class ArrivalSpinTest : public testing::TestWithParam<bool> {};

INSTANTIATE_TEST_SUITE_P(Operations, ArrivalSpinTest, testing::Bool(),
                         [](const auto& info) {
                           return std::string(info.param ? "multishot"
                                                         : "single");
                         });

TEST_P(ArrivalSpinTest, WhileTheOnlyThreadSpins) {
  constexpr uint32_t kPieces = 100;
  const bool again = GetParam();
  void* map = mmap(nullptr, kPage, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(MAP_FAILED, map);
  auto* spun = new (map) Spun;
  std::vector<Pair> pairs;
  for (uint32_t i = 0; i < (again ? 1 : kPieces); ++i) {
    pairs.push_back(TcpPair(i % 2 ? AF_INET6 : AF_INET));
  }
  Child child([&] {
    Queue queue;
    TestPool pool(8, 2048);
    CHILD_CHECK(queue.Open() == 0);
    CHILD_CHECK(pool.Register(queue) == 0);
    pool.ProvideAll();
    for (Pair& pair : pairs) {
      CHILD_CHECK(queue.Put(
          pool.Recv(pair.ours.get(), again ? KEVENT_MULTISHOT : 0, 1)));
    }
    CHILD_CHECK(queue.Submit(kPieces) >= 0);
    spun->fd = queue.fd();
    SpinOnRing(&queue, &pool, again, spun);
  });
  ASSERT_TRUE(Until([&] { return spun->ready.load(); }));
  auto counter = [&](const char* name) {
    const std::string path = "/proc/" + std::to_string(child.pid()) +
                             "/fdinfo/" + std::to_string(spun->fd.load());
    return Counter(path, name);
  };
  EXPECT_EQ(0u, counter("worker-runs"));
  for (uint32_t i = 0; i < kPieces; ++i) {
    Send(pairs[again ? 0 : i].peer.get(), Content(1000, i));
    ASSERT_TRUE(Until([&] { return spun->entries > i; })) << i;
  }
  EXPECT_EQ(0u, spun->wrong);
  EXPECT_EQ(kPieces, counter("copied-in-softirq"));
  // Those that have ended are put away by a worker, afterwards.
  if (again) {
    EXPECT_EQ(0u, counter("worker-runs"));
  }
  EXPECT_TRUE(
      Until([&] { return counter("operations") == (again ? 1u : 0u); }));
  spun->stop = true;
  child.Wait();
  munmap(map, kPage);
}

TEST_F(ArrivalTest, AWaiterSleepsUntilThereIsEnough) {
  constexpr uint32_t kPieces = 50;
  Pair pair = TcpPair();
  pool().ProvideAll();
  Arm(pair.ours.get());
  const uint64_t before = Copied(queue());
  std::atomic<pid_t> tid = 0;
  std::atomic<int64_t> switches = -1;
  // How often the calling thread has slept.
  auto slept = [&] {
    FILE* file = fopen("/proc/thread-self/status", "re");
    char line[256];
    long count = -1;
    while (file && fgets(line, sizeof line, file)) {
      sscanf(line, "voluntary_ctxt_switches: %ld", &count);
    }
    if (file) fclose(file);
    return count;
  };
  std::thread waiter([&] {
    const int64_t start = slept();
    tid = static_cast<pid_t>(syscall(SYS_gettid));
    EXPECT_EQ(static_cast<int>(kPieces), queue().Wait(kPieces, PatienceNs()));
    switches = slept() - start;
  });
  EXPECT_TRUE(Until([&] { return tid != 0; }));
  for (uint32_t i = 0; i < kPieces; ++i) {
    Send(pair.peer.get(), "x");
    EXPECT_TRUE(Until([&] { return Copied(queue()) > before + i; })) << i;
    if (HasFailure()) break;
  }
  waiter.join();
  EXPECT_GE(switches, 0);
  EXPECT_LT(switches, static_cast<int64_t>(kPieces) / 2);
  EXPECT_EQ(std::string(kPieces, 'x'), Gather(kPieces));
}

// ---- Streams ----

TEST_F(ArrivalTest, ALongStream) {
  for (size_t each : {size_t{1} << 20, size_t{5000}, size_t{1}}) {
    Pair pair = TcpPair();
    Renew({});
    pool().ProvideAll();
    Arm(pair.ours.get());
    const std::string text = Content(std::min(size_t{4} << 20, 2000 * each));
    std::thread sender([&] {
      for (size_t at = 0; at < text.size(); at += each) {
        Send(pair.peer.get(), std::string_view(text).substr(at, each));
      }
    });
    EXPECT_TRUE(text == Gather(text.size())) << each;
    sender.join();
    EXPECT_GT(Copied(queue()), 0u);
    ExpectNothing();
  }
}

TEST_F(ArrivalTest, ManySocketsAndTwoQueues) {
  constexpr int kPairs = 40, kRounds = 20;
  Queue other;
  ASSERT_EQ(0, other.Open());
  TestPool theirs(kBuffers, kEach);
  ASSERT_EQ(0, theirs.Register(other));
  theirs.ProvideAll();
  pool().ProvideAll();
  std::vector<Pair> pairs;
  for (int i = 0; i < kPairs; ++i) {
    pairs.push_back(TcpPair());
    const auto data = static_cast<uint64_t>(i);
    Arm(pairs.back().ours.get(), KEVENT_MULTISHOT, data);
    if (i % 2) continue;
    // Whoever is first gets it.
    ASSERT_TRUE(other.Put(
        theirs.Recv(pairs.back().ours.get(), KEVENT_MULTISHOT, data)));
    ASSERT_GE(other.Submit(1), 0);
  }
  std::vector<size_t> got(kPairs);
  for (size_t round = 1; round <= kRounds; ++round) {
    for (Pair& pair : pairs) Send(pair.peer.get(), "0123456789");
    EXPECT_TRUE(Until([&] {
      kevent_entry entry;
      queue().Look();
      other.Look();
      while (queue().Take(&entry))
        got[entry.user_data] += Consume(entry).size();
      while (other.Take(&entry)) {
        got[entry.user_data] += theirs.Text(entry).size();
        theirs.Provide(static_cast<uint16_t>(entry.data[0]));
      }
      return std::all_of(got.begin(), got.end(),
                         [&](size_t n) { return n >= 10 * round; });
    }));
  }
  for (size_t n : got) EXPECT_EQ(10u * kRounds, n);
  EXPECT_GT(Copied(queue()) + Copied(other), 0u);
}

// ---- Somebody else is at the socket ----

TEST_F(ArrivalTest, AThreadInCallsOnTheSameSocket) {
  Pair pair = TcpPair();
  pool().ProvideAll();
  Arm(pair.ours.get());
  const std::string text = Content(3 << 20);
  std::atomic<bool> stop = false;
  std::thread hammer([&] {
    char byte;
    int n, one = 1;
    for (int i = 0; !stop; ++i) {
      // Each holds the socket, and the last one for long.
      switch (i % 4) {
        case 0:
          setsockopt(pair.ours.get(), IPPROTO_TCP, TCP_NODELAY, &one,
                     sizeof one);
          break;
        case 1:
          recv(pair.ours.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
          break;
        case 2:
          ioctl(pair.ours.get(), FIONREAD, &n);
          break;
        case 3:
          send(pair.ours.get(), "back", 4, MSG_DONTWAIT | MSG_NOSIGNAL);
          break;
      }
    }
  });
  std::thread sender([&] {
    for (size_t at = 0; at < text.size(); at += 3000) {
      Send(pair.peer.get(), std::string_view(text).substr(at, 3000));
      Drain(pair.peer.get());
    }
  });
  const std::string got = Gather(text.size());
  stop = true;
  sender.join();
  hammer.join();
  EXPECT_TRUE(text == got);
  ExpectNothing();
}

TEST_F(ArrivalTest, AThreadThatReceivesAsWell) {
  // Each byte goes to one of both, and in order.
  Pair pair = TcpPair();
  pool().ProvideAll();
  Arm(pair.ours.get());
  std::string text(1 << 20, '\0');
  for (size_t i = 0; i < text.size(); ++i) {
    text[i] = static_cast<char>(i * 2654435761u >> 13);
  }
  std::string stolen, got;
  std::thread thief([&] {
    char block[700];
    for (;;) {
      const ssize_t n = recv(pair.ours.get(), block, sizeof block, 0);
      if (n <= 0) break;
      stolen.append(block, static_cast<size_t>(n));
    }
  });
  std::thread sender([&] {
    for (size_t at = 0; at < text.size(); at += 1000) {
      Send(pair.peer.get(), std::string_view(text).substr(at, 1000));
    }
    shutdown(pair.peer.get(), SHUT_WR);
  });
  for (;;) {
    const kevent_entry entry = Next();
    if (entry.result <= 0) {
      EXPECT_EQ(0, entry.result);
      break;
    }
    got += Consume(entry);
  }
  sender.join();
  thief.join();
  EXPECT_EQ(text.size(), stolen.size() + got.size());
  std::array<size_t, 256> sent = {}, received = {};
  for (char c : text) ++sent[static_cast<unsigned char>(c)];
  for (char c : stolen + got) ++received[static_cast<unsigned char>(c)];
  EXPECT_TRUE(sent == received);
}

TEST_F(ArrivalTest, CancelRacesWithArrival) {
  std::mt19937 dice(Seed());
  std::atomic<uint32_t> turn = 0, sent = 0;
  std::atomic<int> peer = -1;
  std::atomic<bool> stop = false;
  std::thread sender([&] {
    for (uint32_t seen = 0; !stop;) {
      if (turn == seen) continue;
      seen = turn;
      Send(peer, "first");
      Send(peer, "second");
      sent = seen;
    }
  });
  int cancelled = 0, copied = 0;
  for (uint32_t i = 1; i <= 400 && !HasFailure(); ++i) {
    Pair pair = TcpPair();
    const bool again = dice() % 2;
    if (i % 50 == 1) {
      Renew({});
      pool().ProvideAll();
    }
    Arm(pair.ours.get(), again ? KEVENT_MULTISHOT : 0, 1);
    peer = pair.peer.get();
    turn = i;
    for (uint32_t spin = dice() % 150'000; spin > 0; --spin) asm volatile("");
    kevent_sqe cancel = Operation(KEVENT_OP_CANCEL, pair.ours.get(), 9, 1);
    if (dice() % 4 == 0) cancel.fd = -1;
    Submit(cancel);
    std::string got;
    int last = 0, answers = 0;
    int64_t result = 0, answer = 0;
    while (!last || !answers) {
      const kevent_entry entry = Next();
      if (HasFailure()) break;
      if (entry.user_data == 9) {
        ++answers;
        answer = entry.result;
        continue;
      }
      EXPECT_EQ(0, last) << Describe(entry);
      if (entry.result > 0) got += Consume(entry);
      if (entry.flags & KEVENT_ENTRY_DONE) {
        ++last;
        result = entry.result;
      }
    }
    EXPECT_TRUE(Until([&] { return sent == i; }));
    // Exactly what it has not told is still there.
    const std::string rest = ReadAll(pair.ours.get(), 11 - got.size());
    EXPECT_EQ("firstsecond", got + rest);
    if (again) {
      EXPECT_EQ(-ECANCELED, result);
      EXPECT_EQ(1, answer);
    } else {
      EXPECT_TRUE(result == -ECANCELED || result > 0) << result;
      EXPECT_TRUE(answer == 1 || (answer == -ENOENT && result > 0)) << answer;
    }
    cancelled += result == -ECANCELED;
    copied += !got.empty();
    ExpectNothing();
  }
  stop = true;
  sender.join();
  printf("%d cancelled, %d with data\n", cancelled, copied);
  EXPECT_GT(cancelled, 0);
  EXPECT_GT(copied, 0);
}

// ---- Ends ----

TEST_F(ArrivalTest, FinBehindData) {
  for (bool in_one_segment : {false, true}) {
    for (int i = 0; i < 20; ++i) {
      Pair pair = TcpPair();
      pool().Provide(0);
      pool().Provide(1);
      Arm(pair.ours.get());
      send(pair.peer.get(), "last", 4, in_one_segment ? MSG_MORE : 0);
      pair.peer.Reset();
      EXPECT_EQ("last", pool().Text(ExpectResult(1, 4, true)));
      ExpectResult(1, 0);
      Renew({});
    }
  }
}

TEST_F(ArrivalTest, ResetBehindData) {
  for (int i = 0; i < 20; ++i) {
    Pair pair = TcpPair();
    pool().ProvideAll();
    Arm(pair.ours.get());
    Send(pair.peer.get(), "last");
    const linger hard = {1, 0};
    setsockopt(pair.peer.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    pair.peer.Reset();
    kevent_entry entry = Next();
    // A reset throws away what has not been received.
    if (entry.result > 0) {
      EXPECT_EQ("last", pool().Text(entry));
      entry = Next();
    }
    EXPECT_EQ(-ECONNRESET, entry.result) << Describe(entry);
    EXPECT_TRUE(entry.flags & KEVENT_ENTRY_DONE);
    Renew({});
  }
}

TEST_F(ArrivalTest, HalfClosed) {
  Pair pair = TcpPair();
  pool().ProvideAll();
  Arm(pair.ours.get());
  ASSERT_EQ(0, shutdown(pair.ours.get(), SHUT_WR));
  for (int i = 0; i < 10; ++i) {
    Send(pair.peer.get(), "still here");
    EXPECT_EQ("still here", Gather(10));
  }
  EXPECT_GT(Copied(queue()), 0u);
  ASSERT_EQ(0, shutdown(pair.ours.get(), SHUT_RD));
  ExpectResult(1, 0);
}

TEST_F(ArrivalTest, UrgentDataIsLeftToRecvmsg) {
  Pair pair = TcpPair();
  pool().ProvideAll();
  Arm(pair.ours.get());
  Send(pair.peer.get(), "ab");
  EXPECT_EQ("ab", Gather(2));
  ASSERT_EQ(1, send(pair.peer.get(), "!", 1, MSG_OOB));
  Send(pair.peer.get(), "cd");
  EXPECT_EQ("cd", Gather(2));
  // It is behind us.
  const uint64_t before = Copied(queue());
  Send(pair.peer.get(), "ef");
  EXPECT_EQ("ef", Gather(2));
  EXPECT_EQ(before + 1, Copied(queue()));
}

TEST_F(ArrivalTest, TheSocketIsClosedUnderneath) {
  for (uint16_t flags : {uint16_t{0}, uint16_t{KEVENT_MULTISHOT}}) {
    Pair pair = TcpPair();
    pool().ProvideAll();
    Arm(pair.ours.get(), flags);
    const int fd = pair.ours.get();
    pair.ours.Reset();
    // The operation holds it.
    Send(pair.peer.get(), "open");
    EXPECT_EQ("open", pool().Text(ExpectResult(1, 4, flags != 0)));
    if (flags) {
      kevent_sqe cancel = Operation(KEVENT_OP_CANCEL, -1, 9, 1);
      Submit(cancel);
      ExpectResult(1, -ECANCELED);
      ExpectResult(9, 1);
    }
    EXPECT_TRUE(AtEnd(pair.peer.get())) << fd;
    Renew({});
  }
}

TEST_F(ArrivalTest, TheQueueIsClosedInMidStream) {
  std::mt19937 dice(Seed());
  std::vector<Pair> pairs;
  for (int i = 0; i < 4; ++i) pairs.push_back(TcpPair());
  std::atomic<bool> stop = false;
  std::vector<std::thread> senders;
  for (Pair& pair : pairs) {
    senders.emplace_back([&] {
      const std::string text = Content(2000);
      while (!stop) {
        send(pair.peer.get(), text.data(), text.size(), MSG_DONTWAIT);
      }
    });
  }
  for (int i = 0; i < 200 && !HasFailure(); ++i) {
    Renew({64, 64, 0});
    pool().ProvideAll();
    for (Pair& pair : pairs) {
      Arm(pair.ours.get(), i % 2 ? KEVENT_MULTISHOT : 0);
    }
    if (dice() % 2) Next();
    for (uint32_t spin = dice() % 50'000; spin > 0; --spin) asm volatile("");
    queue().Close();
  }
  stop = true;
  for (std::thread& sender : senders) sender.join();
  Reopen({});
}

TEST_F(ArrivalTest, KilledInMidStream) {
  std::mt19937 dice(Seed());
  for (int i = 0; i < 25; ++i) {
    std::vector<Pair> pairs;
    for (int k = 0; k < 8; ++k) pairs.push_back(TcpPair());
    Pair ready = PipePair();
    Child child([&] {
      Queue own;
      CHILD_CHECK(own.Open() == 0);
      TestPool memory(kBuffers, kEach);
      CHILD_CHECK(memory.Register(own) == 0);
      memory.ProvideAll();
      for (Pair& pair : pairs) {
        CHILD_CHECK(own.Put(
            memory.Recv(pair.ours.get(), i % 2 ? KEVENT_MULTISHOT : 0, 1)));
        pair.peer.Reset();
      }
      CHILD_CHECK(own.Submit(8) >= 0);
      CHILD_CHECK(write(ready.peer.get(), "x", 1) == 1);
      for (kevent_entry entry;;) {
        while (own.Take(&entry)) {
          if (entry.flags & KEVENT_ENTRY_BUFFER) {
            memory.Provide(static_cast<uint16_t>(entry.data[0]));
          }
        }
        own.Wait(1, -1);
      }
    });
    for (Pair& pair : pairs) pair.ours.Reset();
    ReadExactly(ready.ours.get(), 1);
    const std::string text = Content(3000);
    for (uint32_t k = 8 + dice() % 200; k > 0; --k) {
      send(pairs[k % 8].peer.get(), text.data(), text.size(),
           MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    child.Kill(SIGKILL);
    child.Wait();
    for (Pair& pair : pairs) EXPECT_TRUE(AtEnd(pair.peer.get()));
  }
}

// ---- No buffer, no room ----

TEST_F(ArrivalTest, AnEmptyPoolIsFilledAgain) {
  Renew({}, 2, 100);
  Pair pair = TcpPair();
  pool().ProvideAll();
  Arm(pair.ours.get());
  const std::string text = Content(1050);
  Send(pair.peer.get(), text);
  std::string got;
  std::deque<kevent_entry> kept;
  while (got.size() < text.size() && !HasFailure()) {
    kevent_entry entry = Next();
    got += pool().Text(entry);
    kept.push_back(entry);
    if (kept.size() < 2 && got.size() < text.size()) continue;
    // Nothing is free: it tells so, and loses nothing.
    EXPECT_TRUE(Until([&] {
      queue().Look();
      return queue().Starved() || got.size() == text.size();
    }));
    while (!kept.empty()) {
      pool().Provide(static_cast<uint16_t>(kept.front().data[0]));
      kept.pop_front();
    }
  }
  EXPECT_TRUE(text == got);
  const uint64_t before = Copied(queue());
  Send(pair.peer.get(), "and on");
  EXPECT_EQ("and on", Gather(6));
  EXPECT_EQ(before + 1, Copied(queue()));
}

TEST_F(ArrivalTest, TheRingIsFull) {
  Renew({8, 64, 0});
  Pair pair = TcpPair();
  pool().ProvideAll();
  Arm(pair.ours.get());
  std::string text;
  for (int i = 0; i < 40; ++i) {
    const std::string piece = std::to_string(i) + " ";
    Send(pair.peer.get(), piece);
    text += piece;
  }
  EXPECT_TRUE(Until([&] {
    queue().Look();
    return queue().Unread() == 8;
  }));
  EXPECT_EQ(text, Gather(text.size()));
  // Those of one each wait for room as well.
  std::vector<Pair> pairs;
  for (uint64_t i = 0; i < 40; ++i) {
    pairs.push_back(TcpPair());
    Arm(pairs.back().ours.get(), 0, 100 + i);
  }
  for (Pair& one : pairs) Send(one.peer.get(), "y");
  std::vector<int> seen(40);
  for (int i = 0; i < 40; ++i) {
    const kevent_entry entry = Next();
    EXPECT_EQ("y", Consume(entry));
    ASSERT_GE(entry.user_data, 100u);
    ++seen[entry.user_data - 100];
  }
  EXPECT_EQ(std::vector<int>(40, 1), seen);
}

TEST_F(ArrivalTest, HostileRing) {
  Pair pair = TcpPair();
  Arm(pair.ours.get());
  pool().Provide(0xffff);
  Send(pair.peer.get(), "x");
  ExpectResult(1, -EINVAL);
  for (uint32_t tail : {0x80000000u, 0xffffffffu}) {
    Renew({});
    __atomic_store_n(&pool().ring()->tail, tail, __ATOMIC_RELEASE);
    Arm(pair.ours.get());
    Send(pair.peer.get(), "y");
    EXPECT_GT(Next().result, 0);
  }
}

// ---- What comes after, and what is not for it ----

TEST_F(ArrivalTest, WhatWaitsBehindItBegins) {
  Pair pair = TcpPair();
  pool().ProvideAll();
  const std::string reply = "reply";
  kevent_sqe recv = pool().Recv(pair.ours.get(), KEVENT_LINK, 1);
  ASSERT_TRUE(queue().Put(recv));
  ASSERT_TRUE(queue().Put(SendOf(pair.ours.get(), reply, 2)));
  // Another one of the same socket.
  ASSERT_TRUE(queue().Put(pool().Recv(pair.ours.get(), 0, 3)));
  ASSERT_GE(queue().Submit(3), 0);
  Send(pair.peer.get(), "ask");
  // Nobody is in KEVENT_ENTER.
  EXPECT_EQ(reply, ReadAll(pair.peer.get(), reply.size()));
  EXPECT_EQ("ask", pool().Text(ExpectResult(1, 3)));
  ExpectResult(2, 5);
  Send(pair.peer.get(), "more");
  EXPECT_EQ("more", pool().Text(ExpectResult(3, 4)));
  EXPECT_GT(Copied(queue()), 0u);
  EXPECT_EQ(0, pool().Unregister(queue()));
}

TEST_F(ArrivalTest, UnregisterWaitsForTheLast) {
  Pair pair = TcpPair();
  for (int i = 0; i < 100; ++i) {
    Renew({});
    pool().ProvideAll();
    Arm(pair.ours.get(), 0);
    EXPECT_EQ(-EBUSY, pool().Unregister(queue()));
    Send(pair.peer.get(), "x");
    EXPECT_EQ("x", pool().Text(ExpectResult(1, 1)));
    // At the latest when KEVENT_ENTER has seen it.
    queue().Look();
    EXPECT_EQ(0, pool().Unregister(queue()));
    EXPECT_EQ(0u, PinnedPages(queue()));
  }
}

TEST_F(ArrivalTest, SocketsThatAreNotPlainTcp) {
  for (Pair& pair :
       std::array{SocketPair(SOCK_STREAM), SocketPair(SOCK_DGRAM)}) {
    Renew({});
    pool().ProvideAll();
    Arm(pair.ours.get());
    for (int i = 0; i < 5; ++i) {
      Send(pair.peer.get(), "unix");
      EXPECT_EQ("unix", Gather(4));
    }
    EXPECT_EQ(0u, Copied(queue()));
  }
  Pair pair = TcpPair();
  Renew({});
  pool().ProvideAll();
  Arm(pair.ours.get());
  if (setsockopt(pair.ours.get(), IPPROTO_TCP, TCP_ULP, "tls", 4) != 0) {
    GTEST_SKIP() << "no kTLS";
  }
  // It was plain when the operation began.
  for (int i = 0; i < 5; ++i) {
    Send(pair.peer.get(), "bare");
    EXPECT_EQ("bare", Gather(4));
  }
  EXPECT_EQ(0u, Copied(queue()));
}

}  // namespace
}  // namespace kevent::raw
