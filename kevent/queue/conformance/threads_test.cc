// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <random>
#include <thread>

#include "kevent/queue/conformance/conformance.h"

namespace kevent::conformance {
namespace {

constexpr size_t kPosts = kThreadSanitizer ? 2000 : 10'000;

// The suite's own threads wait for each other without the queue.
template <typename F>
bool Until(F done) {
  for (const int64_t end = NowNs() + PatienceNs(); !done();) {
    if (NowNs() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

void Await(const std::atomic<int>& value, int at_least) {
  Until([&] { return value.load() >= at_least; });
}

Wait Patiently(size_t min = 1) {
  Wait wait;
  wait.min = min;
  wait.timeout_ns = PatienceNs();
  return wait;
}

// Enter again after an interruption by nobody's handler.
int EnterToItsEnd(Queue* queue, std::span<Entry> out, const Wait& wait) {
  int r;
  do {
    r = queue->Enter(out, wait);
  } while (r == -EINTR);
  return r;
}

// Ends a thread that waits in a queue, however the test ends.
class Ender {
 public:
  Ender(std::atomic<bool>* stop, Queue* queue, std::thread* thread)
      : stop_(stop), queue_(queue), thread_(thread) {}
  ~Ender() { End(); }
  void End() {
    if (!thread_->joinable()) return;
    stop_->store(true);
    queue_->Wake();
    thread_->join();
  }

 private:
  std::atomic<bool>* const stop_;
  Queue* const queue_;
  std::thread* const thread_;
};

// --- One thread's queue, others post.

class PostTest : public QueueTest {};
KEVENT_CONFORMANCE(PostTest);

TEST_P(PostTest, FromManyThreadsInTheOrderOfEach) {
  constexpr size_t kThreads = 4;
  std::vector<std::unique_ptr<PostOp[]>> posts;
  for (size_t t = 0; t < kThreads; ++t) {
    posts.emplace_back(new PostOp[kPosts]);
  }
  std::atomic<int> go{0};
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      Await(go, 1);
      for (size_t i = 0; i < kPosts; ++i) {
        posts[t][i].user_data = t << 32 | i;
        EXPECT_EQ(0, queue().Post(&posts[t][i]));
      }
    });
  }
  size_t next[kThreads] = {};
  size_t taken = 0;
  go.store(1);
  while (taken < kThreads * kPosts) {
    Entry out[32];
    int r = EnterToItsEnd(&queue(), out, Patiently());
    if (r <= 0) {
      ADD_FAILURE() << "Enter: " << r << " after " << taken;
      break;
    }
    for (int i = 0; i < r; ++i) {
      const size_t t = out[i].user_data >> 32;
      EXPECT_EQ(out[i].user_data & 0xffffffff, next[t]++);
    }
    taken += static_cast<size_t>(r);
  }
  for (std::thread& thread : threads) thread.join();
  Destroy();
  for (size_t t = 0; t < kThreads; ++t) EXPECT_EQ(kPosts, next[t]);
}

TEST_P(PostTest, WhileTheQueueIsAboutToWait) {
  std::mt19937 random(Seed());
  const int turns = kThreadSanitizer ? 1000 : 5000;
  auto posts = std::make_unique<PostOp[]>(static_cast<size_t>(turns));
  std::atomic<int> turn{-1};
  std::atomic<uint32_t> delay{0};
  std::thread poster([&] {
    for (int i = 0; i < turns; ++i) {
      while (turn.load() < i) std::this_thread::yield();
      if (turn.load() >= turns) return;
      Spin(delay.load());
      queue().Post(&posts[static_cast<size_t>(i)]);
    }
  });
  for (int i = 0; i < turns; ++i) {
    delay.store(random() % (random() % 2 ? 2000 : 60'000));
    turn.store(i);
    Entry e;
    const int64_t start = NowNs();
    int r = EnterToItsEnd(&queue(), {&e, 1}, Patiently());
    if (r != 1 || NowNs() - start >= PatienceNs()) {
      ADD_FAILURE() << "turn " << i << ": nobody woke the queue";
      break;
    }
    EXPECT_EQ(e.operation, &posts[static_cast<size_t>(i)]);
  }
  turn.store(turns);
  poster.join();
  Destroy();
}

TEST_P(PostTest, BetweenTwoThreadsBackAndForth) {
  // Each is asleep when it is posted to.
  auto other = Create({});
  ASSERT_TRUE(other.ok());
  const int turns = kThreadSanitizer ? 500 : 3000;
  auto pings = std::make_unique<PostOp[]>(static_cast<size_t>(turns));
  auto pongs = std::make_unique<PostOp[]>(static_cast<size_t>(turns));
  std::atomic<bool> failed{false};
  std::thread thread([&] {
    for (int i = 0; i < turns && !failed; ++i) {
      Entry e;
      if (EnterToItsEnd(other->get(), {&e, 1}, Patiently()) != 1) {
        failed = true;
        return;
      }
      queue().Post(&pongs[static_cast<size_t>(i)]);
    }
  });
  for (int i = 0; i < turns && !failed; ++i) {
    (*other)->Post(&pings[static_cast<size_t>(i)]);
    Entry e;
    const int64_t start = NowNs();
    if (EnterToItsEnd(&queue(), {&e, 1}, Patiently()) != 1 ||
        NowNs() - start >= PatienceNs()) {
      failed = true;
    }
  }
  EXPECT_FALSE(failed);
  thread.join();
  Destroy();
  other->reset();
}

TEST_P(PostTest, WakeOfAnotherThread) {
  std::mt19937 random(Seed());
  const int turns = kThreadSanitizer ? 300 : 2000;
  std::atomic<int> turn{-1};
  std::atomic<uint32_t> delay{0};
  std::thread waker([&] {
    for (int i = 0; i < turns; ++i) {
      while (turn.load() < i) std::this_thread::yield();
      if (turn.load() >= turns) return;
      Spin(delay.load());
      queue().Wake();
    }
  });
  for (int i = 0; i < turns; ++i) {
    delay.store(random() % (random() % 2 ? 2000 : 60'000));
    turn.store(i);
    Entry e;
    const int64_t start = NowNs();
    EXPECT_EQ(0, EnterToItsEnd(&queue(), {&e, 1}, Patiently()));
    if (NowNs() - start >= PatienceNs()) {
      ADD_FAILURE() << "turn " << i << ": nobody woke the queue";
      break;
    }
  }
  turn.store(turns);
  waker.join();
}

// --- Several threads wait.

class ThreadsTest : public QueueTest {
 protected:
  void SetUp() override {
    QueueTest::SetUp();
    if (IsSkipped()) return;
    Queue::Options options;
    options.sharing = Queue::Sharing::kManyThreads;
    options.ring_entries = 64;
    Reopen(options);
  }
  static void SendByte(int peer) {
    EXPECT_EQ(1, send(peer, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT));
  }
  int Event() { return Own(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }
  static void Raise(int event) {
    uint64_t one = 1;
    EXPECT_EQ(8, write(event, &one, 8));
  }
  Handle Watch(int fd, uint32_t flags, uint64_t user_data = 0) {
    Interest interest;
    interest.fd = fd;
    interest.events = POLLIN;
    interest.flags = flags;
    interest.user_data = user_data;
    return MustAdd(interest);
  }
};
KEVENT_CONFORMANCE(ThreadsTest);

TEST_P(ThreadsTest, EachPostGoesToOneOfThem) {
  constexpr int kWaiters = 4;
  constexpr int kPosters = 2;
  const size_t total = kPosters * kPosts;
  auto posts = std::make_unique<PostOp[]>(total);
  auto seen = std::make_unique<std::atomic<int>[]>(total);
  std::atomic<size_t> taken{0};
  std::vector<std::thread> threads;
  for (int w = 0; w < kWaiters; ++w) {
    threads.emplace_back([&] {
      Wait wait;
      wait.timeout_ns = 100 * kMs;
      const int64_t end = NowNs() + PatienceNs();
      while (taken.load() < total && NowNs() < end) {
        Entry out[8];
        int r = queue().Enter(out, wait);
        for (int i = 0; i < r; ++i) ++seen[out[i].user_data];
        if (r > 0) taken += static_cast<size_t>(r);
      }
    });
  }
  for (size_t p = 0; p < kPosters; ++p) {
    threads.emplace_back([&, p] {
      for (size_t i = 0; i < kPosts; ++i) {
        PostOp* post = &posts[p * kPosts + i];
        post->user_data = p * kPosts + i;
        EXPECT_EQ(0, queue().Post(post));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(total, taken.load());
  size_t once = 0;
  for (size_t i = 0; i < total; ++i) once += seen[i].load() == 1;
  EXPECT_EQ(total, once);
  Destroy();
}

TEST_P(ThreadsTest, SocketsEchoedByAnyThread) {
  constexpr int kWaiters = 3;
  constexpr int kSockets = 8;
  const int rounds = kThreadSanitizer ? 50 : 300;
  struct Echo {
    RecvOp recv;
    SendOp send;
    char byte = 0;
    int peer = -1;
  };
  std::vector<std::unique_ptr<Echo>> echoes;
  for (int i = 0; i < kSockets; ++i) {
    Pair pair = TcpPair();
    auto echo = std::make_unique<Echo>();
    echo->peer = pair.peer;
    echo->recv.fd = echo->send.fd = pair.ours;
    echo->recv.buffer = &echo->byte;
    echo->recv.size = 1;
    echo->send.Set(&echo->byte, 1);
    echo->recv.user_data = echo->send.user_data =
        reinterpret_cast<uintptr_t>(echo.get());
    ASSERT_EQ(0, queue().Submit(&echo->recv));
    echoes.push_back(std::move(echo));
  }
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int w = 0; w < kWaiters; ++w) {
    threads.emplace_back([&] {
      while (!stop.load()) {
        Entry out[4];
        int r = queue().Enter(out, Patiently());
        for (int i = 0; i < r; ++i) {
          auto* echo = reinterpret_cast<Echo*>(out[i].user_data);
          EXPECT_EQ(1, out[i].result);
          EXPECT_EQ(0, queue().Submit(out[i].operation == &echo->recv
                                          ? static_cast<Operation*>(&echo->send)
                                          : &echo->recv));
        }
      }
    });
  }
  bool lost = false;
  for (int round = 0; round < rounds && !lost; ++round) {
    for (auto& echo : echoes) {
      char byte = static_cast<char>(round);
      EXPECT_EQ(1, send(echo->peer, &byte, 1, MSG_NOSIGNAL));
    }
    for (auto& echo : echoes) {
      pollfd p = {echo->peer, POLLIN, 0};
      char byte = 0;
      if (poll(&p, 1, static_cast<int>(PatienceNs() / kMs)) != 1) {
        ADD_FAILURE() << "an echo was lost in round " << round;
        lost = true;
        break;
      }
      EXPECT_EQ(1, recv(echo->peer, &byte, 1, 0));
      EXPECT_EQ(byte, static_cast<char>(round));
    }
  }
  stop.store(true);
  for (int w = 0; w < kWaiters; ++w) queue().Wake();
  // A wake-up ends one wait, and threads may be between two.
  std::atomic<int> joined{0};
  std::thread waker([&] {
    while (joined.load() == 0) {
      queue().Wake();
      std::this_thread::yield();
    }
  });
  for (std::thread& thread : threads) thread.join();
  joined.store(1);
  waker.join();
  Destroy();
}

TEST_P(ThreadsTest, WaiterThatLeavesEarlyLosesNothing) {
  const int event = Event();
  Watch(event, kEdge);
  for (int turn = 0; turn < 20; ++turn) {
    std::atomic<int> started{0};
    std::atomic<int> got{0};
    std::thread stays([&] {
      Entry e;
      ++started;
      got = EnterToItsEnd(&queue(), {&e, 1}, Patiently());
    });
    // This one waits in the kernel for both, and goes away.
    std::thread leaves([&] {
      Entry e;
      Wait wait;
      wait.timeout_ns = (turn % 5) * kMs;
      ++started;
      EXPECT_EQ(0, EnterToItsEnd(&queue(), {&e, 1}, wait));
    });
    Await(started, 2);
    leaves.join();
    Raise(event);
    stays.join();
    ASSERT_EQ(1, got.load()) << "turn " << turn;
  }
}

TEST_P(ThreadsTest, OneEventWakesOneWaiterAndAllEventsAll) {
  for (uint32_t flags : {uint32_t{kOneShot}, uint32_t{kOneShot | kWakeAll}}) {
    constexpr int kWaiters = 4;
    std::vector<int> events;
    for (int i = 0; i < kWaiters; ++i) {
      events.push_back(Event());
      Watch(events.back(), flags, static_cast<uint64_t>(i));
    }
    std::atomic<int> returned{0};
    std::atomic<int> entries{0};
    std::atomic<uint32_t> ids{0};
    std::vector<std::thread> threads;
    for (int w = 0; w < kWaiters; ++w) {
      threads.emplace_back([&] {
        Entry out[kWaiters];
        Wait wait = Patiently();
        int r;
        // Woken for nothing it goes on waiting by itself.
        do {
          r = EnterToItsEnd(&queue(), {out, 1}, wait);
        } while (r == 0 && (flags & kWakeAll));
        entries += r;
        if (r == 1) ids |= 1u << out[0].user_data;
        ++returned;
      });
    }
    for (int i = 0; i < kWaiters; ++i) {
      Raise(events[static_cast<size_t>(i)]);
      Await(returned, i + 1);
      EXPECT_EQ(i + 1, returned.load());
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(kWaiters, entries.load());
    EXPECT_EQ((1u << kWaiters) - 1, ids.load());
  }
}

TEST_P(ThreadsTest, ManyEventsAtOnceReachAllWaiters) {
  // One wake-up must hand over to the next as long as entries are left.
  constexpr int kWaiters = 4;
  for (int turn = 0; turn < (kThreadSanitizer ? 20 : 100); ++turn) {
    std::atomic<int> waiting{0};
    std::atomic<int> entries{0};
    std::vector<std::thread> threads;
    for (int w = 0; w < kWaiters; ++w) {
      threads.emplace_back([&] {
        Entry e;
        ++waiting;
        int r = EnterToItsEnd(&queue(), {&e, 1}, Patiently());
        EXPECT_EQ(1, r);
        entries += r;
      });
    }
    Await(waiting, kWaiters);
    auto posts = std::make_unique<PostOp[]>(kWaiters);
    for (int i = 0; i < kWaiters; ++i) queue().Post(&posts[i]);
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(kWaiters, entries.load());
    if (HasFailure()) {
      Destroy();
      return;
    }
  }
}

TEST_P(ThreadsTest, CallsOfOneThreadReachTheOneThatWaits) {
  Pair pair = TcpPair();
  std::atomic<int> taken{0};
  std::atomic<bool> stop{false};
  std::vector<Entry> entries;
  std::mutex mutex;
  std::thread waiter([&] {
    while (!stop.load()) {
      Entry out[8];
      int r = queue().Enter(out, Patiently());
      if (r > 0) {
        std::lock_guard lock(mutex);
        entries.insert(entries.end(), out, out + r);
        taken += r;
      }
    }
  });
  Ender ender(&stop, &queue(), &waiter);
  auto last = [&] {
    std::lock_guard lock(mutex);
    return entries.empty() ? Entry() : entries.back();
  };
  int expected = 0;
  for (int turn = 0; turn < 20; ++turn) {
    SCOPED_TRACE(turn);
    RecvOp* recv = NewRecv(pair.ours, Room(1));
    ASSERT_EQ(0, queue().Submit(recv));
    SendByte(pair.peer);
    Await(taken, ++expected);
    EXPECT_EQ(last().operation, recv);
    EXPECT_EQ(last().result, 1);

    ASSERT_EQ(0, queue().Submit(recv));
    EXPECT_EQ(0, queue().Cancel(recv));
    Await(taken, ++expected);
    EXPECT_EQ(last().operation, recv);
    EXPECT_EQ(last().result, -ECANCELED);

    // Earlier than what it waits for.
    Interest interest;
    interest.source = Source::kTimer;
    interest.first_ns = 3600 * 1000 * kMs;
    const Handle late = MustAdd(interest);
    interest.first_ns = 2 * kMs;
    const Handle early = MustAdd(interest);
    Await(taken, ++expected);
    EXPECT_EQ(last().handle, early);
    EXPECT_EQ(0, queue().SetTimer(late, kMs, 0, false));
    Await(taken, ++expected);
    EXPECT_EQ(last().handle, late);

    const int event = Event();
    const Handle handle = Watch(event, kEdge);
    Raise(event);
    Await(taken, ++expected);
    EXPECT_EQ(last().handle, handle);
    EXPECT_EQ(0, queue().Close(event));
    Disown(event);
    ASSERT_EQ(expected, taken.load());
  }
}

TEST_P(ThreadsTest, TheOneThatWaitsGoesOnWithWhatAnotherHasBegun) {
  // More than one turn sends.
  constexpr size_t kSize = 24 << 20;
  Pair pair = TcpPair();
  const int file = File(std::string(kSize, 's'));
  SendfileOp* op = NewSendfile(pair.ours, file, 0, kSize);
  std::atomic<bool> stop{false};
  std::atomic<int64_t> result{kNoResult};
  std::thread waiter([&] {
    while (!stop.load()) {
      Entry e;
      Wait wait;
      if (queue().Enter({&e, 1}, wait) == 1) result.store(e.result);
    }
  });
  Ender ender(&stop, &queue(), &waiter);
  EXPECT_TRUE(Until([&] { return queue().stats().sleeps >= 1; }));
  ASSERT_EQ(0, queue().Submit(op));
  size_t got = 0;
  std::string buffer(1 << 20, '\0');
  pollfd p = {pair.peer, POLLIN, 0};
  while (got < kSize &&
         poll(&p, 1, static_cast<int>(PatienceNs() / kMs)) == 1) {
    const ssize_t n = read(pair.peer, buffer.data(), buffer.size());
    if (n <= 0) break;
    got += static_cast<size_t>(n);
  }
  EXPECT_EQ(got, kSize);
  EXPECT_TRUE(Until([&] { return result.load() != kNoResult; }));
  EXPECT_EQ(result.load(), static_cast<int64_t>(kSize));
}

TEST_P(ThreadsTest, AWaiterThatASignalEndsLeavesItsPlace) {
  WithHandler handler(SIGUSR2);
  const int event = Event();
  Watch(event, kEdge);
  std::atomic<bool> stop{false}, left{false}, found{false};
  // Waits without an end, and goes at the first interruption.
  std::thread first([&] {
    Entry e;
    Wait wait;
    EXPECT_EQ(-EINTR, queue().Enter({&e, 1}, wait));
    left.store(true);
  });
  EXPECT_TRUE(Until([&] { return queue().stats().sleeps >= 1; }));
  std::thread second([&] {
    while (!stop.load()) {
      Entry e;
      Wait wait;
      if (queue().Enter({&e, 1}, wait) == 1) found.store(true);
    }
  });
  Ender ender(&stop, &queue(), &second);
  EXPECT_TRUE(Until([&] { return queue().stats().enters >= 2; }));
  EXPECT_TRUE(Until([&] {
    if (!left.load()) pthread_kill(first.native_handle(), SIGUSR2);
    return left.load();
  }));
  first.join();
  Raise(event);
  EXPECT_TRUE(Until([&] { return found.load(); }));
}

TEST_P(ThreadsTest, BufferGivenBackByAnotherThread) {
  auto pool = queue().AddBufferPool(1, 16);
  ASSERT_TRUE(pool.ok());
  Pair pair = TcpPair();
  RecvOp* recv = New<RecvOp>(pair.ours);
  recv->pool = *pool;
  recv->flags = kOpMultishot;
  ASSERT_EQ(0, queue().Submit(recv));
  for (int i = 0; i < 50; ++i) SendByte(pair.peer);
  int bytes = 0;
  while (bytes < 50) {
    Entry e;
    ASSERT_EQ(1, EnterToItsEnd(&queue(), {&e, 1}, Patiently()));
    ASSERT_GT(e.result, 0);
    bytes += static_cast<int>(e.result);
    std::atomic<int> waiting{0};
    std::thread waiter([&] {
      // Waits while no buffer is free; there may be nothing left for it.
      Entry next;
      Wait wait = Patiently();
      if (bytes == 50) wait.timeout_ns = 0;
      waiting = 1;
      int r = EnterToItsEnd(&queue(), {&next, 1}, wait);
      EXPECT_EQ(r, bytes == 50 ? 0 : 1);
      if (r == 1) {
        bytes += static_cast<int>(next.result);
        (*pool)->Release(static_cast<uint16_t>(next.data[1]));
      }
    });
    Await(waiting, 1);
    (*pool)->Release(static_cast<uint16_t>(e.data[1]));
    waiter.join();
    ASSERT_FALSE(HasFailure());
  }
  EXPECT_EQ(bytes, 50);
  Destroy();
}

TEST_P(ThreadsTest, CancelAndCloseRacingCompletion) {
  std::mt19937 random(Seed());
  const int turns = kThreadSanitizer ? 200 : 1000;
  std::atomic<int> terminal{0};
  std::atomic<bool> stop{false};
  std::thread waiter([&] {
    while (!stop.load()) {
      Entry out[8];
      int r = queue().Enter(out, Patiently());
      for (int i = 0; i < r; ++i) {
        if (!(out[i].flags & kEntryMore)) ++terminal;
      }
    }
  });
  Ender ender(&stop, &queue(), &waiter);
  for (int i = 0; i < turns; ++i) {
    Pair pair = TcpPair();
    RecvOp* recv = NewRecv(pair.ours, Room(1));
    SendOp* send = NewSend(pair.ours, "x");
    ASSERT_EQ(0, queue().Submit(recv));
    ASSERT_EQ(0, queue().Submit(send));
    SendByte(pair.peer);
    Spin(random() % 5000);
    if (random() % 2) queue().Cancel(recv);
    EXPECT_EQ(0, CloseByQueue(pair.ours));
    Await(terminal, 2 * (i + 1));
    ASSERT_EQ(2 * (i + 1), terminal.load()) << "turn " << i;
    CloseOwned(pair.peer);
  }
  ender.End();
  EXPECT_EQ(2 * turns, terminal.load());
}

}  // namespace
}  // namespace kevent::conformance
