// SPDX-License-Identifier: Apache-2.0
//
// The rings: full, hostile; submission.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include <array>
#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "kevent/vm/tests/fixture.h"
#include "kevent/vm/tests/hostile.h"

namespace kevent::raw {
namespace {

constexpr uint32_t kSmall = 8;  // entries of a small ring

// ---- A full ring ----

class FullTest : public QueueTest {
 protected:
  void SetUp() override { Reopen({kSmall, 64, 0}); }

  std::vector<uint64_t> Users(int n, uint16_t flags = 0) {
    std::vector<uint64_t> handles;
    for (int i = 0; i < n; ++i) {
      handles.push_back(MustAdd(AddUser(flags, static_cast<uint64_t>(i))));
    }
    return handles;
  }
  // Everything until PENDING is clear, by the rule of the header: empties the
  // ring, and calls KEVENT_ENTER if the flag says so.
  std::vector<kevent_entry> TakeAll() {
    std::vector<kevent_entry> all;
    for (int64_t deadline = NowNs() + PatienceNs(); NowNs() < deadline;) {
      EXPECT_LE(queue().Unread(), kSmall);
      kevent_entry entry;
      while (queue().Take(&entry)) all.push_back(entry);
      if (!queue().Pending()) {
        if (queue().Unread() == 0) return all;
        continue;
      }
      EXPECT_GE(queue().Look(), 0);
    }
    ADD_FAILURE() << "KEVENT_RING_PENDING is not cleared";
    return all;
  }
};

TEST_F(FullTest, KeepsAllAndTheirOrder) {
  for (uint16_t flags : {0, KEVENT_ONESHOT}) {
    std::vector<uint64_t> users = Users(100, flags);
    for (uint64_t user : users) ASSERT_EQ(0, queue().Ready(user, user));
    EXPECT_EQ(kSmall, queue().Unread());
    EXPECT_TRUE(queue().Pending());
    std::vector<kevent_entry> all = TakeAll();
    ASSERT_EQ(users.size(), all.size());
    for (size_t i = 0; i < users.size(); ++i) {
      EXPECT_EQ(users[i], all[i].handle) << i;
      EXPECT_EQ(users[i], all[i].data[0]);
    }
    EXPECT_FALSE(queue().Pending());
    for (uint64_t user : users) {
      EXPECT_EQ(flags ? -ENOENT : 0, queue().Remove(user));
    }
  }
}

TEST_F(FullTest, NothingUnreadIsOverwritten) {
  std::vector<uint64_t> users = Users(20);
  for (uint64_t user : users) ASSERT_EQ(0, queue().Ready(user));
  const uint32_t head = queue().head();
  std::array<kevent_entry, kSmall> before;
  for (uint32_t i = 0; i < kSmall; ++i) before[i] = queue().At(head + i);
  for (int turn = 0; turn < 5; ++turn) {
    for (uint64_t user : users) ASSERT_EQ(0, queue().Ready(user, 77));
    EXPECT_EQ(static_cast<int>(kSmall), queue().Look());
    for (uint32_t i = 0; i < kSmall; ++i) {
      EXPECT_EQ(0, memcmp(&before[i], &queue().At(head + i), 64)) << i;
    }
  }
  std::map<uint64_t, uint64_t> counts;
  for (const kevent_entry& entry : TakeAll()) {
    counts[entry.handle] += entry.data[1];
    EXPECT_EQ(entry.data[1] > 1, (entry.flags & KEVENT_ENTRY_MERGED) != 0)
        << Describe(entry);
  }
  for (uint64_t user : users) EXPECT_EQ(6u, counts[user]);
}

TEST_F(FullTest, ASlotIsFreeWhenTheHeadHasPassedIt) {
  std::vector<uint64_t> users = Users(30);
  for (uint64_t user : users) ASSERT_EQ(0, queue().Ready(user));
  for (size_t i = 0; i < users.size(); ++i) {
    kevent_entry entry = {};
    if (!queue().Take(&entry)) {
      ASSERT_TRUE(queue().Pending());
      ASSERT_GT(queue().Look(), 0);
      ASSERT_TRUE(queue().Take(&entry));
    }
    EXPECT_EQ(users[i], entry.handle);
    if (i % 3 == 0) {
      ASSERT_GE(queue().Look(), 0);
    }
  }
  EXPECT_TRUE(TakeAll().empty());
}

TEST_F(FullTest, OfOneEntry) {
  Reopen({1, 1, 0});
  std::vector<uint64_t> users = Users(10);
  for (uint64_t user : users) ASSERT_EQ(0, queue().Ready(user));
  for (uint64_t user : users) EXPECT_EQ(user, Next().handle);
  ExpectNothing();
}

TEST_F(FullTest, CopiesGetMoreThanTheRingHolds) {
  std::vector<uint64_t> users = Users(100);
  for (uint64_t user : users) ASSERT_EQ(0, queue().Ready(user));
  std::vector<kevent_entry> all(100);
  size_t got = 0;
  while (got < all.size()) {
    const int r =
        queue().Copy({all.data() + got, all.size() - got}, 1, PatienceNs());
    ASSERT_GT(r, 0);
    got += static_cast<size_t>(r);
  }
  for (size_t i = 0; i < users.size(); ++i) {
    EXPECT_EQ(users[i], all[i].handle) << i;
  }
  EXPECT_FALSE(queue().Pending());
}

TEST_F(FullTest, FilesThatWait) {
  for (uint16_t flags : {0, KEVENT_EDGE, KEVENT_ONESHOT, KEVENT_DISPATCH}) {
    std::map<uint64_t, Pair> pipes;
    for (int i = 0; i < 40; ++i) {
      Pair pipe = PipePair();
      const uint64_t handle =
          MustAdd(AddPoll(pipe.ours.get(), KEVENT_IN, flags));
      pipes[handle] = std::move(pipe);
    }
    for (auto& [handle, pipe] : pipes) Send(pipe.peer.get(), "x");
    EXPECT_EQ(kSmall, queue().Unread());
    EXPECT_TRUE(queue().Pending());
    std::map<uint64_t, int> seen;
    for (size_t i = 0; i < pipes.size(); ++i) {
      kevent_entry entry = Next();
      ++seen[entry.handle];
      ASSERT_TRUE(pipes.contains(entry.handle));
      Drain(pipes[entry.handle].ours.get());
    }
    EXPECT_EQ(pipes.size(), seen.size()) << "one each";
    ExpectNothing();
    for (auto& [handle, pipe] : pipes) {
      EXPECT_EQ(flags == KEVENT_ONESHOT ? -ENOENT : 0, queue().Remove(handle));
    }
  }
}

TEST_F(FullTest, LevelInterestsAreNotStarved) {
  std::map<uint64_t, int> seen;
  std::vector<int> fds;
  for (int i = 0; i < 30; ++i) {
    fds.push_back(Own(eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK)));
    MustAdd(AddPoll(fds.back(), KEVENT_IN, KEVENT_ALWAYS_QUEUE));
  }
  // All stay ready; in a few rounds each has had its turn.
  for (int i = 0; i < 300 && seen.size() < 30; ++i) ++seen[Next().handle];
  EXPECT_EQ(30u, seen.size());
}

TEST_F(FullTest, EdgesWhileItIsFullAreMerged) {
  std::vector<uint64_t> users = Users(kSmall);
  const int fd = Own(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  const uint64_t edge = MustAdd(AddPoll(fd, KEVENT_IN, KEVENT_EDGE));
  for (uint64_t user : users) ASSERT_EQ(0, queue().Ready(user));
  for (int i = 0; i < 5; ++i) ASSERT_EQ(0, eventfd_write(fd, 1));
  for (uint64_t user : users) EXPECT_EQ(user, Next().handle);
  Expect(edge, KEVENT_IN);
  ExpectNothing();
}

TEST_F(FullTest, TimersThatWait) {
  std::map<uint64_t, int> seen;
  const int64_t time = NowNs() + 20 * kMs;
  for (int i = 0; i < 50; ++i) MustAdd(AddTimer(time, 0, KEVENT_ABSOLUTE));
  const uint64_t period = MustAdd(AddTimer(kMs, kMs));
  for (int once = 0; once < 50;) {
    kevent_entry entry = Next();
    ASSERT_NE(kNoHandle, entry.handle);
    if (entry.handle == period) continue;
    EXPECT_EQ(1, ++seen[entry.handle]);
    EXPECT_EQ(1u, entry.data[0]);
    ++once;
  }
  EXPECT_EQ(0, queue().Remove(period));
}

TEST_F(FullTest, InodesSayThatTheyWereMerged) {
  std::string folder = TempFolder() + "/ring_XXXXXX";
  ASSERT_NE(nullptr, mkdtemp(folder.data()));
  Fd fd(open(folder.c_str(), O_PATH | O_CLOEXEC));
  const uint64_t inode =
      MustAdd(AddInode(fd.get(), KEVENT_INODE_CREATE | KEVENT_INODE_REMOVE));
  std::vector<uint64_t> users = Users(kSmall);
  for (uint64_t user : users) ASSERT_EQ(0, queue().Ready(user));
  for (int i = 0; i < 5; ++i) {
    const std::string name = folder + "/" + std::to_string(i);
    Fd file(open(name.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    ASSERT_TRUE(file);
    ASSERT_EQ(0, unlink(name.c_str()));
  }
  for (uint64_t user : users) EXPECT_EQ(user, Next().handle);
  uint32_t events = 0;
  size_t entries = 0;
  bool merged = false;
  for (const kevent_entry& entry : TakeAll()) {
    EXPECT_EQ(inode, entry.handle);
    events |= entry.events;
    merged |= (entry.flags & KEVENT_ENTRY_MERGED) != 0;
    ++entries;
  }
  EXPECT_EQ(uint32_t{KEVENT_INODE_CREATE | KEVENT_INODE_REMOVE}, events);
  EXPECT_TRUE(merged || entries == 10) << entries;
  rmdir(folder.c_str());
}

TEST_F(FullTest, SignalsWaitWhereTheyAre) {
  const int signo = SIGRTMIN + 3;
  sigset_t mask, before;
  sigemptyset(&mask);
  sigaddset(&mask, signo);
  ASSERT_EQ(0, pthread_sigmask(SIG_BLOCK, &mask, &before));
  const uint64_t handle = MustAdd(AddSignal(signo));
  for (int i = 0; i < 40; ++i) {
    sigval value;
    value.sival_ptr = reinterpret_cast<void*>(static_cast<intptr_t>(i));
    ASSERT_EQ(0, sigqueue(getpid(), signo, value));
    if (i % 10 == 0) {
      ASSERT_GE(queue().Look(), 0);
    }
  }
  for (uint64_t i = 0; i < 40; ++i) {
    kevent_entry entry = Next();
    EXPECT_EQ(handle, entry.handle);
    EXPECT_EQ(i, entry.data[1]);
  }
  ExpectNothing();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

TEST_F(FullTest, ChangesDoNotTakeWhatWaits) {
  // What happened before the change, and found no room, is told.
  std::vector<uint64_t> users = Users(kSmall);
  for (uint64_t user : users) ASSERT_EQ(0, queue().Ready(user));
  std::vector<uint64_t> late = Users(4);
  for (uint64_t user : late) ASSERT_EQ(0, queue().Ready(user, 50));
  kevent_sqe modify = Change(KEVENT_OP_MODIFY, late[0]);
  modify.user_data = 9;
  EXPECT_EQ(0, queue().Make(&modify));
  EXPECT_EQ(0, queue().Disable(late[1]));
  EXPECT_EQ(0, queue().Disable(late[2]));
  EXPECT_EQ(0, queue().Enable(late[2]));
  EXPECT_EQ(0, queue().Enable(late[3]));
  for (uint64_t user : users) EXPECT_EQ(user, Next().handle);
  std::map<uint64_t, int> seen;
  for (const kevent_entry& entry : TakeAll()) {
    ++seen[entry.handle];
    EXPECT_EQ(50u, entry.data[0]);
  }
  for (uint64_t user : late) EXPECT_EQ(1, seen[user]);
  // And silent it is, where it was told to be.
  EXPECT_EQ(0, queue().Ready(late[1]));
  EXPECT_TRUE(TakeAll().empty());
}

TEST_F(FullTest, TheEndOfAnInodeIsToldThoughItWasSilenced) {
  const std::string name = TempFolder() + "/ends";
  Fd fd(open(name.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  const uint64_t inode = MustAdd(AddInode(fd.get(), KEVENT_INODE_MODIFY));
  std::vector<uint64_t> users = Users(kSmall);
  for (uint64_t user : users) ASSERT_EQ(0, queue().Ready(user));
  fd.Reset();
  ASSERT_EQ(0, unlink(name.c_str()));
  const int r = queue().Disable(inode);
  EXPECT_TRUE(r == 0 || r == -ENOENT) << r;
  for (uint64_t user : users) EXPECT_EQ(user, Next().handle);
  std::vector<kevent_entry> rest = TakeAll();
  ASSERT_EQ(1u, rest.size());
  EXPECT_EQ(inode, rest[0].handle);
  EXPECT_TRUE(rest[0].flags & KEVENT_ENTRY_BROKEN);
  EXPECT_TRUE(rest[0].flags & KEVENT_ENTRY_DONE);
}

TEST_F(FullTest, RemovedWhileTheyWait) {
  std::vector<uint64_t> users = Users(40);
  for (uint64_t user : users) ASSERT_EQ(0, queue().Ready(user));
  for (size_t i = kSmall; i < users.size(); i += 2) {
    EXPECT_EQ(0, queue().Remove(users[i]));
  }
  std::map<uint64_t, int> seen;
  for (const kevent_entry& entry : TakeAll()) ++seen[entry.handle];
  for (size_t i = 0; i < users.size(); ++i) {
    const bool removed = i >= kSmall && (i - kSmall) % 2 == 0;
    EXPECT_EQ(removed ? 0 : 1, seen[users[i]]) << i;
  }
}

TEST_F(FullTest, ClosedWhileTheyWait) {
  std::vector<uint64_t> users = Users(40);
  for (uint64_t user : users) ASSERT_EQ(0, queue().Ready(user));
  Reopen({});
  ExpectNothing();
}

TEST_F(FullTest, EverythingAtRandomOnceEach) {
  std::mt19937 random(Seed());
  Pair tcp = TcpPair();
  std::map<uint64_t, int> seen;  // by user_data
  uint64_t id = 0;
  size_t open = 0;
  auto take = [&](uint32_t most) {
    ASSERT_GE(queue().Look(), 0);
    kevent_entry entry;
    while (most-- > 0 && queue().Take(&entry)) {
      EXPECT_EQ(1, ++seen[entry.user_data]) << Describe(entry);
      EXPECT_TRUE(entry.flags & KEVENT_ENTRY_DONE);
      --open;
    }
  };
  for (int i = 0; i < 3000; ++i) {
    switch (random() % 4) {
      case 0:
        MustAdd(AddTimer(static_cast<int64_t>(random() % (2 * kMs)), 0,
                         KEVENT_ALWAYS_QUEUE, ++id));
        ++open;
        break;
      case 1: {
        const uint64_t handle = MustAdd(AddUser(KEVENT_ONESHOT, ++id));
        ASSERT_EQ(0, queue().Ready(handle));
        ++open;
        break;
      }
      case 2:
        MustAdd(AddSocket(tcp.ours.get(), KEVENT_OUT,
                          KEVENT_ONESHOT | KEVENT_ALWAYS_QUEUE, ++id));
        ++open;
        break;
      default:
        take(random() % 12);
    }
  }
  for (int64_t deadline = NowNs() + PatienceNs();
       open > 0 && NowNs() < deadline;) {
    take(12);
  }
  EXPECT_EQ(0u, open);
  EXPECT_EQ(id, seen.size());
}

// ---- A hostile ring ----

class HostileTest : public QueueTest {
 protected:
  void SetUp() override {
    Reopen({kSmall, kSmall, 0});
    user_ = MustAdd(AddUser());
  }
  void ExpectWorks() {
    EXPECT_GE(queue().Look(), 0);
    kevent_entry entry;
    for (int64_t deadline = NowNs() + PatienceNs(); NowNs() < deadline;) {
      while (queue().Take(&entry)) {
      }
      if (!queue().Pending()) break;
      ASSERT_GE(queue().Look(), 0);
    }
    ASSERT_EQ(0, queue().Ready(user_, 123));
    ASSERT_TRUE(queue().Take(&entry));
    EXPECT_EQ(user_, entry.handle);
    EXPECT_EQ(123u, entry.data[0]);
  }

  uint64_t user_ = 0;
};

TEST_F(HostileTest, CompletionHead) {
  // Some entries first, so that there is a past and a future.
  kevent_entry entry;
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(0, queue().Ready(user_));
    if (i < 15) {
      ASSERT_TRUE(queue().Take(&entry));
    }
  }
  const uint32_t head = queue().head(), tail = queue().tail();
  for (uint32_t bad : {tail + 1, tail + kSmall, tail + 0x7fffffff,
                       tail + 0x80000000, tail - kSmall - 1, head - 100}) {
    queue().set_head(bad);
    EXPECT_EQ(-EINVAL, queue().Look()) << bad - tail;
    kevent_entry copies[4];
    EXPECT_EQ(-EINVAL, queue().Copy(copies, 1, kSecond)) << bad - tail;
    // It looks full: what happens waits.
    const uint32_t before = queue().tail();
    EXPECT_EQ(0, queue().Ready(user_, 5));
    EXPECT_EQ(before, queue().tail());
    EXPECT_TRUE(queue().Pending());
    EXPECT_GE(PollNow(queue().fd(), POLLIN), 0);
    queue().set_head(head);
    uint64_t count = 0;
    EXPECT_GE(queue().Look(), 0);
    for (int64_t deadline = NowNs() + PatienceNs(); NowNs() < deadline;) {
      while (queue().Take(&entry)) count += entry.data[1];
      if (!queue().Pending()) break;
      ASSERT_GE(queue().Look(), 0);
    }
    EXPECT_GE(count, 1u);
    ExpectWorks();
    // As before.
    for (int i = 0; i < 5; ++i) ASSERT_EQ(0, queue().Ready(user_));
    if (queue().tail() - head > kSmall) break;
  }
  ExpectWorks();
}

TEST_F(HostileTest, CompletionHeadAtRandom) {
  std::mt19937 random(Seed());
  for (int i = 0; i < 500; ++i) {
    const uint32_t good = queue().head();
    queue().set_head(random() % 2 ? random() : good + random() % 32 - 16);
    const int r = queue().Look();
    const uint32_t unread = queue().tail() - queue().head();
    EXPECT_EQ(unread > kSmall, r == -EINVAL) << r << " " << unread;
    EXPECT_EQ(0, queue().Ready(user_));
    if (r == -EINVAL) queue().set_head(good);
    ASSERT_GE(queue().Look(), 0);
    kevent_entry entry;
    if (random() % 2) queue().Take(&entry);
  }
  ExpectWorks();
}

TEST_F(HostileTest, TheKernelsWordsAreItsOwn) {
  kevent_ring* ring = queue().ring();
  const uint32_t tail = ring->cq_tail, sq_head = ring->sq_head;
  for (uint32_t value : {0u, 1u, 1000u, 0x80000000u, 0xffffffffu}) {
    ring->cq_tail = value;
    ring->sq_head = value;
    ring->flags = value;
    ring->cq_entries = value;
    ring->sq_entries = value;
    ring->cq_offset = value;
    ring->sq_offset = value;
    memset(ring->reserved0, 0xff, sizeof ring->reserved0);
    EXPECT_EQ(0, queue().Ready(user_));
    uint32_t submitted = 0;
    queue().Submit(1, &submitted);
    queue().Look();
  }
  ring->cq_tail = tail;
  ring->sq_head = sq_head;
  ring->cq_entries = ring->sq_entries = kSmall;
  // It goes on with numbers of its own. Its tail appears with the next entry.
  kevent_entry copies[kSmall];
  int got;
  for (int i = 0; i < 20 && (got = queue().Copy(copies, 0, 0)) != 0; ++i) {
    ASSERT_GT(got, 0);
    for (int k = 0; k < got; ++k) EXPECT_EQ(user_, copies[k].handle);
  }
  ASSERT_EQ(0, queue().Ready(user_, 8));
  ASSERT_EQ(1, queue().Copy(copies, 1, PatienceNs()));
  EXPECT_EQ(8u, copies[0].data[0]);
}

TEST_F(HostileTest, EntriesOverwrittenByTheUser) {
  ASSERT_EQ(0, queue().Ready(user_, 5));
  // The entry is the user's; a copy of it says what it says.
  auto* entry = const_cast<kevent_entry*>(&queue().At(queue().head()));
  memset(entry, 0xff, sizeof *entry);
  kevent_entry copy = {};
  const int r = queue().Copy({&copy, 1}, 0, 0);
  EXPECT_TRUE(r == 1 || r == 0 || r == -EINVAL) << r;
  for (int i = 0; i < 50; ++i) {
    ASSERT_EQ(0, queue().Ready(user_, 5));
    ASSERT_EQ(1, queue().Copy({&copy, 1}, 1, PatienceNs()));
    EXPECT_EQ(user_, copy.handle);
  }
}

TEST_F(HostileTest, SubmissionTail) {
  const uint32_t tail = queue().sq_tail();
  for (uint32_t bad : {tail + kSmall + 1, tail + 0x7fffffff, tail + 0x80000000,
                       tail - 1, tail - kSmall}) {
    queue().set_sq_tail(bad);
    uint32_t submitted = 77;
    EXPECT_EQ(-EINVAL, queue().Submit(1, &submitted)) << bad - tail;
    EXPECT_EQ(0u, submitted);
    // Without submission it is of no concern.
    EXPECT_GE(queue().Look(), 0);
    queue().set_sq_tail(tail);
  }
  kevent_sqe nop = Change(KEVENT_OP_NOP);
  nop.user_data = 3;
  ASSERT_TRUE(queue().Put(nop));
  ASSERT_GE(queue().Submit(1), 0);
  EXPECT_EQ(3u, Next().user_data);
  ExpectWorks();
}

TEST_F(HostileTest, AnotherThreadScribbles) {
  std::mt19937 random(Seed());
  std::atomic<bool> stop = false;
  const uint32_t seed = random();
  std::thread scribbler([&] {
    std::mt19937 own(seed);
    auto* words = reinterpret_cast<volatile uint32_t*>(queue().ring());
    const size_t count = queue().ring_bytes() / 4;
    while (!stop) words[own() % 3 ? own() % 48 : own() % count] = own();
  });
  for (int i = 0; i < 3000; ++i) {
    kevent_entry copies[4];
    switch (random() % 4) {
      case 0:
        EXPECT_EQ(0, queue().Ready(user_));
        break;
      case 1:
        queue().Copy(copies, random() % 2, 0);
        break;
      case 2:
        queue().Submit(random() % 16);
        break;
      default:
        queue().Look();
    }
  }
  stop = true;
  scribbler.join();
  // Whatever the submissions were: the queue can be closed.
}

// ---- The submission ring ----

class SubmissionTest : public QueueTest {
 protected:
  void SetUp() override { Reopen({64, kSmall, 0}); }
  void MustSubmit(uint32_t count) {
    uint32_t submitted = 0;
    ASSERT_GE(queue().Submit(count, &submitted), 0);
    ASSERT_EQ(count, submitted);
  }
  kevent_entry ExpectResult(uint64_t user_data, int64_t result) {
    kevent_entry entry = Next();
    EXPECT_EQ(uint16_t{KEVENT_SOURCE_OPERATION}, entry.source)
        << Describe(entry);
    EXPECT_EQ(user_data, entry.user_data);
    EXPECT_EQ(result, entry.result) << Describe(entry);
    EXPECT_FALSE(entry.flags & KEVENT_ENTRY_MORE);
    return entry;
  }
};

TEST_F(SubmissionTest, NopsInOrder) {
  for (uint64_t round = 0; round < 20; ++round) {  // the ring wraps
    for (uint64_t i = 0; i < 5; ++i) {
      kevent_sqe nop = Change(KEVENT_OP_NOP);
      nop.user_data = round * 10 + i;
      ASSERT_TRUE(queue().Put(nop));
    }
    const uint32_t head = queue().sq_head();
    MustSubmit(5);
    EXPECT_EQ(head + 5, queue().sq_head());
    for (uint64_t i = 0; i < 5; ++i) ExpectResult(round * 10 + i, 0);
    ExpectNothing();
  }
}

TEST_F(SubmissionTest, TakesNoMoreThanThereIs) {
  kevent_sqe nop = Change(KEVENT_OP_NOP);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(queue().Put(nop));
  uint32_t submitted = 0;
  ASSERT_GE(queue().Submit(1, &submitted), 0);
  EXPECT_EQ(1u, submitted);
  ASSERT_GE(queue().Submit(1000, &submitted), 0);
  EXPECT_EQ(2u, submitted);
  ASSERT_GE(queue().Submit(1, &submitted), 0);
  EXPECT_EQ(0u, submitted);
  for (int i = 0; i < 3; ++i) ExpectResult(0, 0);
}

TEST_F(SubmissionTest, FullAndEmptyAgain) {
  kevent_sqe nop = Change(KEVENT_OP_NOP);
  for (int round = 0; round < 3; ++round) {
    for (uint32_t i = 0; i < kSmall; ++i) {
      nop.user_data = i;
      ASSERT_TRUE(queue().Put(nop));
    }
    ASSERT_FALSE(queue().Put(nop));
    MustSubmit(kSmall);
    for (uint32_t i = 0; i < kSmall; ++i) ExpectResult(i, 0);
  }
}

TEST_F(SubmissionTest, ChangesWithTheirResults) {
  Pair pipe = PipePair();
  kevent_sqe add = AddPoll(pipe.ours.get(), KEVENT_IN, KEVENT_EDGE, 1);
  ASSERT_TRUE(queue().Put(add));
  MustSubmit(1);
  const uint64_t handle = ExpectResult(1, 0).handle;
  EXPECT_NE(0u, KEVENT_HANDLE_GENERATION(handle));
  Send(pipe.peer.get(), "x");
  kevent_entry entry = Expect(handle, KEVENT_IN);
  EXPECT_EQ(uint16_t{KEVENT_SOURCE_POLL}, entry.source);
  EXPECT_EQ(1u, entry.user_data);
  struct {
    kevent_sqe sqe;
    int result;
  } const changes[] = {
      {Change(KEVENT_OP_DISABLE, handle), 0},
      {Change(KEVENT_OP_REMOVE, handle), 0},
      {Change(KEVENT_OP_REMOVE, handle), -ENOENT},
      {AddPoll(-1, KEVENT_IN), -EBADF},
      {Change(99), -EINVAL},
      {Change(KEVENT_OP_NOP), 0},
  };
  uint64_t id = 100;
  for (const auto& change : changes) {
    kevent_sqe sqe = change.sqe;
    sqe.user_data = id++;
    ASSERT_TRUE(queue().Put(sqe));
  }
  MustSubmit(std::size(changes));
  id = 100;
  for (const auto& change : changes) ExpectResult(id++, change.result);
  ExpectNothing();
}

TEST_F(SubmissionTest, WhatIsReadyAtOnceMakesAnEntry) {
  Pair pipe = PipePair();
  Send(pipe.peer.get(), "x");
  ASSERT_TRUE(queue().Put(AddPoll(pipe.ours.get(), KEVENT_IN, KEVENT_EDGE, 6)));
  MustSubmit(1);
  uint64_t of_result = 0, of_event = 0;
  for (int i = 0; i < 2; ++i) {
    kevent_entry entry = Next();
    EXPECT_EQ(6u, entry.user_data);
    (entry.source == KEVENT_SOURCE_OPERATION ? of_result : of_event) =
        entry.handle;
    if (entry.source == KEVENT_SOURCE_OPERATION) {
      EXPECT_EQ(0, entry.result);
    } else {
      EXPECT_EQ(uint32_t{KEVENT_IN}, entry.events);
    }
  }
  EXPECT_NE(0u, of_result);
  EXPECT_EQ(of_result, of_event);
  ExpectNothing();
}

TEST_F(SubmissionTest, SkipSuccess) {
  kevent_sqe nop = Change(KEVENT_OP_NOP);
  nop.flags = KEVENT_SKIP_SUCCESS;
  kevent_sqe bad = Change(KEVENT_OP_REMOVE, kNoHandle);
  bad.flags = KEVENT_SKIP_SUCCESS;
  bad.user_data = 9;
  kevent_sqe user = AddUser(KEVENT_SKIP_SUCCESS, 4);
  ASSERT_TRUE(queue().Put(nop));
  ASSERT_TRUE(queue().Put(user));
  ASSERT_TRUE(queue().Put(bad));
  ASSERT_TRUE(queue().Put(nop));
  MustSubmit(4);
  ExpectResult(9, -ENOENT);
  ExpectNothing();
}

TEST_F(SubmissionTest, ReservedFlagsAndOperations) {
  const bool naio = queue().setup().features & KEVENT_FEATURE_NAIO;
  if (naio) GTEST_SKIP() << "they mean something here";
  for (uint16_t flags : {KEVENT_LINK, KEVENT_MULTISHOT, 0x0800, 0x8000}) {
    kevent_sqe nop = Change(KEVENT_OP_NOP);
    nop.flags = flags;
    ASSERT_TRUE(queue().Put(nop));
    MustSubmit(1);
    ExpectResult(0, -EINVAL);
  }
  for (uint8_t opcode = KEVENT_OP_ACCEPT; opcode <= KEVENT_OP_CANCEL;
       ++opcode) {
    kevent_sqe sqe = Change(opcode);
    sqe.user_data = opcode;
    ASSERT_TRUE(queue().Put(sqe));
    MustSubmit(1);
    ExpectResult(opcode, -EOPNOTSUPP);
  }
}

TEST_F(SubmissionTest, MoreResultsThanTheRingHolds) {
  Reopen({kSmall, 64, 0});
  for (uint64_t i = 0; i < 64; ++i) {
    kevent_sqe nop = Change(KEVENT_OP_NOP);
    nop.user_data = i;
    ASSERT_TRUE(queue().Put(nop));
  }
  uint32_t left = 64;
  for (uint64_t next = 0; next < 64;) {
    // It may take all at once, or only what it has room for.
    uint32_t submitted = 0;
    const int r = queue().Submit(left, &submitted);
    ASSERT_TRUE(r >= 0 || (r == -EAGAIN && queue().Unread() > 0)) << r;
    ASSERT_LE(submitted, left);
    left -= submitted;
    ASSERT_GT(queue().Unread(), 0u) << "no progress";
    kevent_entry entry;
    while (queue().Take(&entry)) {
      EXPECT_EQ(next++, entry.user_data);
      EXPECT_EQ(0, entry.result);
    }
  }
  EXPECT_EQ(0u, left);
}

TEST_F(SubmissionTest, SubmitsChangesAndWaitsInOneCall) {
  Pair pipe = PipePair();
  kevent_sqe sqe = AddPoll(pipe.ours.get(), KEVENT_IN,
                           KEVENT_SKIP_SUCCESS | KEVENT_ONESHOT, 1);
  ASSERT_TRUE(queue().Put(sqe));
  kevent_sqe change = AddTimer(5 * kMs, 0, 0, 2);
  kevent_entry entries[8];
  kevent_enter enter = MakeEnter();
  enter.to_submit = 1;
  enter.changes = Address(&change);
  enter.nr_changes = 1;
  enter.entries = Address(entries);
  enter.max = 8;
  enter.min = 2;
  enter.timeout_ns = PatienceNs();
  std::thread writer([&] { Send(pipe.peer.get(), "x"); });
  const int r = queue().Enter(&enter);
  writer.join();
  ASSERT_EQ(2, r);
  EXPECT_EQ(1u, enter.submitted);
  EXPECT_EQ(1u, enter.changed);
  EXPECT_EQ(0, change.result);
  EXPECT_EQ(3u, entries[0].user_data + entries[1].user_data);
}

TEST_F(SubmissionTest, SubmittedIsToldOnFailureToo) {
  ASSERT_TRUE(queue().Put(Change(KEVENT_OP_NOP)));
  kevent_enter enter = MakeEnter();
  enter.to_submit = 1;
  enter.entries = 8;  // an address that is not there
  enter.max = 1;
  EXPECT_EQ(-EFAULT, queue().Enter(&enter));
  EXPECT_EQ(1u, enter.submitted);
  ExpectResult(0, 0);
}

}  // namespace
}  // namespace kevent::raw
