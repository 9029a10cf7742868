// SPDX-License-Identifier: Apache-2.0
//
// Several threads at one queue.
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

#include <array>
#include <atomic>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "kevent/vm/tests/fixture.h"

namespace kevent::raw {
namespace {

int64_t Duration() { return (Full() ? 60 : 5) * kSecond; }

class ThreadsTest : public QueueTest {
 protected:
  void SetUp() override {
    signal(SIGPIPE, SIG_IGN);
    QueueTest::SetUp();
  }
};

// ---- Each entry goes to one ----

class CopiesTest : public ThreadsTest,
                   public testing::WithParamInterface<int> {};

INSTANTIATE_TEST_SUITE_P(Threads, CopiesTest, testing::Values(2, 4));

TEST_P(CopiesTest, EachEntryGoesToOne) {
  constexpr uint64_t kEvents = 10'000;
  Queue own;
  ASSERT_EQ(0, own.Open({256, 0, 0}));
  std::vector<kevent_sqe> adds;
  for (uint64_t i = 0; i < kEvents; ++i)
    adds.push_back(AddUser(KEVENT_ONESHOT, i));
  ASSERT_EQ(static_cast<int>(kEvents), own.Control(adds));
  kevent_sqe last = AddUser(0, kEvents);  // for the end, once for each thread
  ASSERT_EQ(0, own.Make(&last));

  std::vector<std::atomic<int>> seen(kEvents);
  std::atomic<uint64_t> total = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < GetParam(); ++i) {
    threads.emplace_back([&, i] {
      std::array<kevent_entry, 16> entries;
      while (total < kEvents) {
        const size_t room = 1 + (static_cast<size_t>(i) * 5) % 16;
        const int r = own.Copy({entries.data(), room}, 1, PatienceNs());
        ASSERT_GT(r, 0) << total;
        for (int k = 0; k < r; ++k) {
          const kevent_entry& entry = entries[static_cast<size_t>(k)];
          if (entry.user_data >= kEvents) continue;
          EXPECT_EQ(0, seen[entry.user_data]++) << Describe(entry);
          if (++total == kEvents) {
            // Those that wait shall know.
            for (int n = 0; n < GetParam(); ++n) own.Ready(last.handle);
          }
        }
      }
      own.Ready(last.handle);
    });
  }
  std::vector<std::thread> makers;
  for (uint64_t m = 0; m < 2; ++m) {
    makers.emplace_back([&, m] {
      for (uint64_t i = m; i < kEvents; i += 2) {
        EXPECT_EQ(0, own.Ready(adds[i].handle));
      }
    });
  }
  for (std::thread& thread : makers) thread.join();
  for (std::thread& thread : threads) thread.join();
  for (uint64_t i = 0; i < kEvents; ++i) ASSERT_EQ(1, seen[i]) << i;
}

TEST_P(CopiesTest, LevelFilesAreServedOnce) {
  // Each byte is one event's; whoever gets the entry reads it.
  constexpr int kPipes = 20, kBytes = 100;
  Queue own;
  ASSERT_EQ(0, own.Open({8, 0, 0}));
  std::vector<Pair> pipes;
  for (uint64_t i = 0; i < kPipes; ++i) {
    pipes.push_back(PipePair());
    SetNonBlocking(pipes.back().ours.get());
    kevent_sqe add =
        AddPoll(pipes.back().ours.get(), KEVENT_IN, KEVENT_DISPATCH, i);
    ASSERT_EQ(0, own.Make(&add));
  }
  kevent_sqe end = AddUser(0, kPipes);
  ASSERT_EQ(0, own.Make(&end));
  std::array<std::atomic<int>, kPipes> inside = {};
  std::atomic<int> total = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < GetParam(); ++i) {
    threads.emplace_back([&] {
      while (total < kPipes * kBytes) {
        kevent_entry entry;
        ASSERT_EQ(1, own.Copy({&entry, 1}, 1, PatienceNs())) << total;
        if (entry.user_data == kPipes) continue;
        // Dispatch: nobody else is told until it is enabled again.
        const size_t pipe = entry.user_data;
        EXPECT_EQ(0, inside[pipe]++);
        char byte;
        while (read(pipes[pipe].ours.get(), &byte, 1) == 1) ++total;
        --inside[pipe];
        kevent_sqe enable = Change(KEVENT_OP_ENABLE, entry.handle);
        while (own.Make(&enable) == KEVENT_READY) {
          enable = Change(KEVENT_OP_ENABLE, entry.handle);
          EXPECT_EQ(0, inside[pipe]++);
          while (read(pipes[pipe].ours.get(), &byte, 1) == 1) ++total;
          --inside[pipe];
        }
      }
      for (int n = 0; n < GetParam(); ++n) own.Ready(end.handle);
    });
  }
  for (int k = 0; k < kBytes; ++k) {
    for (Pair& pipe : pipes) Send(pipe.peer.get(), "x");
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(kPipes * kBytes, total);
}

// ---- Who is woken ----

TEST_F(ThreadsTest, WakeAllWakesAll) {
  constexpr int kThreads = 4;
  const uint64_t user = MustAdd(AddUser(KEVENT_WAKE_ALL));
  std::vector<std::thread> threads;
  std::atomic<int> woken = 0;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      // Entries stay in the ring: what wakes one satisfies all.
      EXPECT_EQ(1, queue().Wait(1, PatienceNs()));
      ++woken;
    });
  }
  EXPECT_EQ(0, queue().Ready(user));
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(kThreads, woken);
}

TEST_F(ThreadsTest, OneEntryWakesOneOfThoseThatWait) {
  constexpr int kThreads = 4;
  const uint64_t user = MustAdd(AddUser());
  std::vector<std::thread> threads;
  std::atomic<int> done = 0;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      kevent_entry entry;
      EXPECT_EQ(1, queue().Copy({&entry, 1}, 1, PatienceNs()));
      EXPECT_EQ(user, entry.handle);
      ++done;
    });
  }
  // One at a time: nobody is left behind.
  for (int i = 1; i <= kThreads; ++i) {
    EXPECT_EQ(0, queue().Ready(user));
    const int64_t deadline = NowNs() + PatienceNs();
    while (done < i && NowNs() < deadline) sched_yield();
    EXPECT_EQ(i, done);
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(ThreadsTest, WaitersForManyDoNotSwallowTheWakeUp) {
  const uint64_t user = MustAdd(AddUser());
  // This one waits for more than there will be.
  std::thread greedy([&] {
    kevent_enter enter = MakeEnter();
    enter.min = 100;
    enter.timeout_ns = PatienceNs();
    EXPECT_GE(queue().Enter(&enter), 100);
  });
  for (int i = 0; i < 50; ++i) {
    std::thread modest([&] { EXPECT_GE(queue().Wait(1, PatienceNs()), 1); });
    EXPECT_EQ(0, queue().Ready(user));
    modest.join();
    kevent_entry entry;
    ASSERT_TRUE(queue().Take(&entry));
  }
  for (int i = 0; i < 100; ++i) EXPECT_EQ(0, queue().Ready(user));
  greedy.join();
}

TEST_F(ThreadsTest, PollAndEnterAtOnce) {
  const uint64_t user = MustAdd(AddUser());
  for (int i = 0; i < 20; ++i) {
    std::thread poller([&] { EXPECT_TRUE(WaitPoll(queue().fd(), POLLIN)); });
    std::thread waiter([&] { EXPECT_EQ(1, queue().Wait(1, PatienceNs())); });
    EXPECT_EQ(0, queue().Ready(user));
    poller.join();
    waiter.join();
    kevent_entry entry;
    ASSERT_TRUE(queue().Take(&entry));
  }
}

// ---- A thread that dies ----

void Nothing(int) {}

TEST_F(ThreadsTest, AnInterruptedWaiterLosesNothing) {
  // Interrupted while entries come: each entry is got by somebody.
  struct sigaction action = {}, before;
  action.sa_handler = Nothing;
  ASSERT_EQ(0, sigaction(SIGUSR1, &action, &before));
  constexpr uint64_t kEvents = 2000;
  Queue own;
  ASSERT_EQ(0, own.Open());
  kevent_sqe user = AddUser();
  ASSERT_EQ(0, own.Make(&user));
  std::atomic<bool> stop = false;
  std::atomic<uint64_t> got = 0;
  std::array<std::thread, 2> victims;
  for (std::thread& victim : victims) {
    victim = std::thread([&] {
      while (!stop) {
        kevent_entry entry;
        const int r = own.Copy({&entry, 1}, 1, 10 * kMs);
        ASSERT_TRUE(r == 1 || r == 0 || r == -EINTR) << r;
        if (r == 1) got += entry.data[1];
      }
    });
  }
  for (uint64_t i = 0; i < kEvents; ++i) {
    EXPECT_EQ(0, own.Ready(user.handle));
    pthread_kill(victims[i % 2].native_handle(), SIGUSR1);
  }
  for (int64_t deadline = NowNs() + PatienceNs();
       got < kEvents && NowNs() < deadline;) {
    sched_yield();
  }
  stop = true;
  for (std::thread& victim : victims) victim.join();
  EXPECT_EQ(kEvents, got);
  sigaction(SIGUSR1, &before, nullptr);
}

TEST_F(ThreadsTest, AThreadThatExitsLosesNothing) {
  struct sigaction action = {}, before;
  action.sa_handler = Nothing;
  ASSERT_EQ(0, sigaction(SIGUSR2, &action, &before));
  const uint64_t user = MustAdd(AddUser());
  for (int round = 0; round < 50; ++round) {
    std::atomic<int> got = 0;
    std::atomic<bool> gone = false;
    // Ends with its call, whether it got the entry or was interrupted.
    std::thread doomed([&] {
      kevent_entry entry;
      if (queue().Copy({&entry, 1}, 1, PatienceNs()) == 1) ++got;
      gone = true;
    });
    std::thread heir([&] {
      kevent_entry entry;
      EXPECT_EQ(1, queue().Copy({&entry, 1}, 1, PatienceNs()));
      ++got;
    });
    for (int i = 0; i < round % 5; ++i) sched_yield();
    EXPECT_EQ(0, queue().Ready(user));
    while (!gone) {
      pthread_kill(doomed.native_handle(), SIGUSR2);
      sched_yield();
    }
    doomed.join();
    // Unless the doomed one has got the entry the heir gets it, though the
    // other may be the one that was woken.
    if (got > 0) {
      EXPECT_EQ(0, queue().Ready(user));
    }
    heir.join();
    EXPECT_GE(got, 1);
    kevent_entry entry;
    while (queue().Copy({&entry, 1}, 0, 0) == 1) {
    }
  }
  sigaction(SIGUSR2, &before, nullptr);
}

TEST_F(ThreadsTest, AKilledProcessWithManyWaiters) {
  for (int round = 0; round < 10; ++round) {
    Pair report = PipePair();
    Child child([&] {
      Queue own;
      CHILD_CHECK(own.Open() == 0);
      kevent_sqe timer = AddTimer(kMs, 100'000);
      CHILD_CHECK(own.Make(&timer) == 0);
      std::vector<std::thread> threads;
      for (int i = 0; i < 6; ++i) {
        threads.emplace_back([&] {
          for (uint64_t n = 0;; ++n) {
            kevent_entry entries[4];
            CHILD_CHECK(own.Copy(entries, 1, -1) >= 1);
            if (n == 3) CHILD_CHECK(write(report.peer.get(), "x", 1) == 1);
          }
        });
      }
      for (std::thread& thread : threads) thread.join();
    });
    ReadExactly(report.ours.get(), 1);
    child.Kill(SIGKILL);
    const int status = child.Wait();
    EXPECT_TRUE(WIFSIGNALED(status)) << status;
  }
}

// ---- KEVENT_LAST_CHECK against a thief ----

class ThiefTest : public ThreadsTest,
                  public testing::WithParamInterface<uint16_t> {};

INSTANTIATE_TEST_SUITE_P(Modes, ThiefTest,
                         testing::Values(0, KEVENT_EDGE, KEVENT_DISPATCH,
                                         KEVENT_ONESHOT));

TEST_P(ThiefTest, ADroppedEntryIsNotTheLast) {
  // Somebody else reads what an entry tells of, at any moment. Whatever he
  // leaves is told to the one who waits.
  Queue own;
  ASSERT_EQ(0, own.Open());
  const uint16_t flags = static_cast<uint16_t>(GetParam() | KEVENT_LAST_CHECK);
  const int64_t end = NowNs() + Duration() / 5;
  int rounds = 0;
  while (NowNs() < end) {
    const int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    kevent_sqe add = AddPoll(event, KEVENT_IN, flags);
    ASSERT_EQ(0, own.Make(&add));
    std::thread waiter([&] {
      kevent_entry entry = {};
      ASSERT_EQ(1, own.Copy({&entry, 1}, 1, PatienceNs())) << rounds;
      EXPECT_EQ(add.handle, entry.handle);
    });
    for (int i = 0; i < 20; ++i) {
      eventfd_write(event, 1);
      eventfd_t value;
      eventfd_read(event, &value);
    }
    eventfd_write(event, 1);
    waiter.join();
    if (HasFailure()) break;
    own.Remove(add.handle);
    close(event);
    // An entry may still lie in the ring, of what was written last.
    kevent_entry entry = {};
    while (own.Copy({&entry, 1}, 0, 0) == 1)
      EXPECT_EQ(add.handle, entry.handle);
    ++rounds;
  }
  printf("%d rounds\n", rounds);
}

// ---- Races: bounded in time, with a seed ----

TEST_F(ThreadsTest, RemovalAgainstDelivery) {
  // After KEVENT_OP_REMOVE has returned and the ring has been emptied, that
  // handle never appears again, whatever the source does.
  std::mt19937 random(Seed());
  std::atomic<bool> stop = false;
  constexpr int kSources = 4;
  std::vector<Pair> pipes, sockets;
  std::vector<int> events;
  for (int i = 0; i < kSources; ++i) {
    // Several threads read them: they must not change their flags.
    pipes.push_back(PipePair());
    SetNonBlocking(pipes.back().ours.get());
    sockets.push_back(TcpPair());
    SetNonBlocking(sockets.back().ours.get());
    events.push_back(Own(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)));
  }
  std::vector<std::thread> writers;
  for (uint32_t w = 0; w < 2; ++w) {
    writers.emplace_back([&, seed = random()] {
      std::mt19937 own(seed);
      while (!stop) {
        const size_t i = own() % kSources;
        switch (own() % 3) {
          case 0:
            Send(pipes[i].peer.get(), "x");
            Drain(pipes[i].ours.get());
            break;
          case 1:
            Send(sockets[i].peer.get(), "x");
            Drain(sockets[i].ours.get());
            break;
          default: {
            eventfd_write(events[i], 1);
            eventfd_t value;
            eventfd_read(events[i], &value);
          }
        }
      }
    });
  }
  std::set<uint64_t> dead;
  kevent_entry entry;
  const int64_t end = NowNs() + Duration();
  int removed = 0;
  while (NowNs() < end) {
    std::vector<kevent_sqe> adds;
    for (int k = 0; k < 8; ++k) {
      const size_t i = random() % kSources;
      const uint16_t flags = std::array<uint16_t, 4>{
          0, KEVENT_EDGE, KEVENT_DISPATCH, KEVENT_ONESHOT}[random() % 4];
      switch (random() % 5) {
        case 0:
          adds.push_back(AddPoll(pipes[i].ours.get(), KEVENT_IN, flags));
          break;
        case 1:
          adds.push_back(AddSocket(sockets[i].ours.get(), KEVENT_IN, flags));
          break;
        case 2:
          adds.push_back(AddPoll(events[i], KEVENT_IN, flags));
          break;
        case 3:
          adds.push_back(
              AddTimer(static_cast<int64_t>(random() % kMs), 100'000, flags));
          break;
        default:
          adds.push_back(AddUser(flags));
      }
    }
    ASSERT_EQ(8, queue().Control(adds));
    for (const kevent_sqe& add : adds) {
      ASSERT_GE(add.result, 0) << int{add.source};
      if (add.source == KEVENT_SOURCE_USER) queue().Ready(add.handle);
    }
    if (random() % 2) queue().Look();
    for (uint32_t i = random() % 200; i > 0 && queue().Take(&entry); --i) {
      ASSERT_FALSE(dead.contains(entry.handle)) << Describe(entry);
    }
    for (const kevent_sqe& add : adds) {
      const int r = queue().Remove(add.handle);
      ASSERT_TRUE(r == 0 || r == -ENOENT) << r;
      ++removed;
    }
    while (queue().Take(&entry)) {
      ASSERT_FALSE(dead.contains(entry.handle)) << Describe(entry);
    }
    // Emptied after their removal: from now on they must not appear.
    if (dead.size() > 10'000) dead.clear();
    for (const kevent_sqe& add : adds) dead.insert(add.handle);
  }
  stop = true;
  for (std::thread& writer : writers) writer.join();
  while (queue().Take(&entry)) EXPECT_FALSE(dead.contains(entry.handle));
  EXPECT_GT(removed, 100);
  AllowGaps();
  ExpectNothing();
}

TEST_F(ThreadsTest, ChangesOfOneInterestByAll) {
  std::mt19937 random(Seed());
  Pair pipe = PipePair();
  kevent_sqe add = AddPoll(pipe.ours.get(), KEVENT_IN);
  ASSERT_EQ(0, queue().Make(&add));
  const uint64_t timer = MustAdd(AddTimer(100'000, 100'000));
  std::atomic<bool> stop = false;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&, seed = random()] {
      std::mt19937 own(seed);
      while (!stop) {
        const uint64_t handle = own() % 2 ? add.handle : timer;
        kevent_sqe change = Change(KEVENT_OP_MODIFY, handle);
        switch (own() % 4) {
          case 0:
            change.opcode = KEVENT_OP_DISABLE;
            break;
          case 1:
            change.opcode = KEVENT_OP_ENABLE;
            break;
          default:
            change.flags = own() % 2 ? KEVENT_EDGE : KEVENT_DISPATCH;
            if (handle == timer) {
              change.arg[0] = own() % kMs;
              change.arg[1] = 100'000;
            } else {
              change.events = own() % 2 ? KEVENT_IN : KEVENT_PRI;
            }
        }
        const int r = queue().Make(&change);
        EXPECT_TRUE(r == 0 || r == KEVENT_READY) << r;
      }
    });
  }
  const int64_t end = NowNs() + Duration() / 2;
  kevent_entry entry;
  while (NowNs() < end) {
    Send(pipe.peer.get(), "x");
    queue().Look();
    while (queue().Take(&entry)) {
      EXPECT_TRUE(entry.handle == add.handle || entry.handle == timer);
    }
    Drain(pipe.ours.get());
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  // It still works as told.
  EXPECT_EQ(0, queue().Remove(timer));
  kevent_sqe change = Change(KEVENT_OP_MODIFY, add.handle);
  change.events = KEVENT_IN;
  EXPECT_EQ(0, queue().Make(&change));
  queue().Look();
  while (queue().Take(&entry)) {
  }
  Send(pipe.peer.get(), "x");
  ASSERT_GE(queue().Wait(1, PatienceNs()), 1);
  ASSERT_TRUE(queue().Take(&entry));
  EXPECT_EQ(add.handle, entry.handle);
}

TEST_F(ThreadsTest, StormOfDescriptors) {
  // Sockets and pipes come, are watched, get data, and go in any order.
  std::mt19937 random(Seed());
  std::atomic<bool> stop = false;
  std::atomic<uint64_t> cycles = 0, entries = 0;
  Queue own;
  ASSERT_EQ(0, own.Open({64, 64, 0}));
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&, seed = random()] {
      std::mt19937 dice(seed);
      while (!stop) {
        Pair pair;
        bool is_socket = true;
        switch (dice() % 4) {
          case 0:
            pair = TcpPair(dice() % 2 ? AF_INET : AF_INET6);
            break;
          case 1:
            pair = SocketPair(SOCK_STREAM);
            break;
          case 2:
            pair = SocketPair(SOCK_DGRAM);
            break;
          default:
            pair = PipePair();
            is_socket = false;
        }
        std::vector<kevent_sqe> adds;
        for (uint32_t n = 1 + dice() % 3; n > 0; --n) {
          const uint16_t flags = std::array<uint16_t, 4>{
              0, KEVENT_EDGE, KEVENT_DISPATCH, KEVENT_ONESHOT}[dice() % 4];
          adds.push_back(AddPoll(pair.ours.get(), KEVENT_IN, flags));
        }
        own.Control(adds);
        if (dice() % 4) {
          EXPECT_EQ(1, write(pair.peer.get(), "x", 1));
        }
        switch (dice() % 3) {
          case 0:
            pair.peer.Reset();
            break;
          case 1:
            // The queue still knows it, and hears more.
            if (is_socket) pair.ours.Reset();
            break;
          default:
            break;
        }
        for (const kevent_sqe& add : adds) {
          if (add.result < 0) {
            ADD_FAILURE() << "result " << add.result;
            continue;
          }
          const int r = own.Remove(add.handle);
          EXPECT_TRUE(r == 0 || r == -ENOENT) << r;
        }
        ++cycles;
      }
    });
  }
  std::thread taker([&] {
    while (!stop) {
      kevent_entry copies[16];
      const int r = own.Copy(copies, 1, 10 * kMs);
      ASSERT_GE(r, 0);
      entries += static_cast<uint64_t>(r);
    }
  });
  const int64_t end = NowNs() + Duration();
  while (NowNs() < end) sched_yield();
  stop = true;
  for (std::thread& thread : threads) thread.join();
  taker.join();
  EXPECT_GT(cycles, 50u);
  EXPECT_GT(entries, 20u);
}

TEST_F(ThreadsTest, QueuesComeAndGo) {
  std::mt19937 random(Seed());
  Pair tcp = TcpPair();
  std::atomic<bool> stop = false;
  std::atomic<int> opened = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&, seed = random()] {
      std::mt19937 dice(seed);
      while (!stop) {
        Queue own;
        ASSERT_EQ(0, own.Open({8, 8, 0}));
        std::array<kevent_sqe, 3> adds = {
            AddSocket(tcp.ours.get(), KEVENT_IN, dice() % 2 ? KEVENT_EDGE : 0),
            AddTimer(static_cast<int64_t>(dice() % 100'000), 50'000),
            AddUser()};
        ASSERT_EQ(3, own.Control(adds));
        if (dice() % 2) own.Wait(1, 100'000);
        ++opened;
      }
    });
  }
  const int64_t end = NowNs() + Duration() / 2;
  while (NowNs() < end) {
    Send(tcp.peer.get(), "x");
    Drain(tcp.ours.get());
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(opened, 20);
}

}  // namespace
}  // namespace kevent::raw
