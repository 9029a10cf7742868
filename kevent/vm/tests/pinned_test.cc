// SPDX-License-Identifier: Apache-2.0
//
// Pools whose memory is pinned: which memory, what is charged, until when.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "kevent/vm/tests/pool_fixture.h"

namespace kevent::raw {
namespace {

// Rings of two pages: they are charged to RLIMIT_MEMLOCK too, but elsewhere.
constexpr Options kSmall = {16, 16, 0};

class PinnedTest : public NaioTest {
 protected:
  int Register(kevent_register g) {
    const int r = Ioctl(queue().fd(), KEVENT_REGISTER, &g);
    id_ = g.id;
    return r;
  }
  uint32_t id_ = 0;
};

TEST_F(PinnedTest, TheFeatureIsAnnounced) {
  EXPECT_TRUE(queue().setup().features & KEVENT_FEATURE_PINNED_POOLS);
}

// ---- Which memory ----

TEST_F(PinnedTest, PagesAreCountedFromTheFirstBytesPage) {
  const struct {
    size_t offset;
    uint32_t buffers, each;
    size_t ring_offset;
    uint64_t pages;
  } cases[] = {
      {0, 1, kPage, 0, 1 + 1},         {1, 1, kPage, 0, 2 + 1},
      {kPage - 1, 1, 1, 0, 1 + 1},     {kPage - 1, 1, 2, 0, 2 + 1},
      {kPage - 1, 2, kPage, 0, 3 + 1}, {kPage - 1, 4, 3 * kPage / 4, 0, 4 + 1},
      {100, 4, 3 * kPage, 0, 13 + 1},  {0, 1, 8, kPage - 12, 1 + 1},
      {0, 1, 8, kPage - 8, 1 + 2},     {0, 2, 8, kPage - 12, 1 + 1},
      {0, 4, 8, kPage - 12, 1 + 2},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(testing::Message() << c.offset << " " << c.buffers << " x "
                                    << c.each << ", ring " << c.ring_offset);
    Reopen({});
    TestPool pool(c.buffers, c.each, c.offset);
    TestPool rings(1, 2 * kPage);
    auto* ring =
        reinterpret_cast<kevent_pool_ring*>(rings.map() + c.ring_offset);
    ASSERT_EQ(0, Register(PoolOf(Pool::kPinned, pool.map() + c.offset,
                                 uint64_t{c.buffers} * c.each, c.each, ring)));
    EXPECT_EQ(c.pages, PinnedPages(queue()));
    // Each buffer is where it belongs, and nothing else is written.
    Pair pair = TcpPair();
    kevent_sqe recv = Operation(KEVENT_OP_RECV, pair.ours.get(), 1, id_);
    recv.events = KEVENT_RECV_POOL;
    recv.flags = KEVENT_MULTISHOT;
    memset(pool.map(), '.', pool.map_bytes());
    std::string expected(pool.map_bytes(), '.');
    for (uint32_t i = 0; i < c.buffers; ++i) {
      const uint32_t buffer = c.buffers - 1 - i;
      ring->id[i] = static_cast<uint16_t>(buffer);
      const std::string text = Content(c.each, i);
      expected.replace(c.offset + size_t{buffer} * c.each, c.each, text);
    }
    __atomic_store_n(&ring->tail, c.buffers, __ATOMIC_RELEASE);
    Submit(recv);
    for (uint32_t i = 0; i < c.buffers; ++i) {
      Send(pair.peer.get(), Content(c.each, i));
      for (size_t got = 0; got < c.each;) {
        const kevent_entry entry = Next();
        ASSERT_GT(entry.result, 0) << Describe(entry);
        EXPECT_EQ(c.buffers - 1 - i, entry.data[0]);
        got += static_cast<size_t>(entry.result);
        // TCP may have cut it: then the rest has no buffer, and is not this
        // test's.
        if (got < c.each) GTEST_SKIP() << "it came in pieces";
      }
    }
    EXPECT_TRUE(expected == std::string(pool.map(), pool.map_bytes()));
    EXPECT_GT(Copied(queue()), 0u);
  }
}

TEST_F(PinnedTest, KindsOfMemory) {
  TestPool rings(4, 64);
  auto map = [](int fd, int flags, int protection = PROT_READ | PROT_WRITE) {
    void* p = mmap(nullptr, 2 * kPage, protection, flags, fd, 0);
    EXPECT_NE(MAP_FAILED, p) << strerror(errno);
    return p;
  };
  TestFile file(TempFolder(), std::string(2 * kPage, 'f'));
  Fd memory(memfd_create("pool", MFD_CLOEXEC));
  ASSERT_EQ(0, ftruncate(memory.get(), 2 * kPage));
  struct {
    const char* name;
    void* memory;
    int result;
  } kinds[] = {
      {"anonymous", map(-1, MAP_PRIVATE | MAP_ANONYMOUS), 0},
      {"shared", map(-1, MAP_SHARED | MAP_ANONYMOUS), 0},
      {"memfd", map(memory.get(), MAP_SHARED), 0},
      {"a file's copy", map(file.fd(), MAP_PRIVATE), 0},
      {"to be read", map(-1, MAP_PRIVATE | MAP_ANONYMOUS, PROT_READ), -EFAULT},
      {"nothing", map(-1, MAP_PRIVATE | MAP_ANONYMOUS, PROT_NONE), -EFAULT},
  };
  for (const auto& k : kinds) {
    SCOPED_TRACE(k.name);
    EXPECT_EQ(k.result, Register(PoolOf(Pool::kPinned, k.memory, 2 * kPage,
                                        kPage / 2, rings.ring())));
    EXPECT_EQ(k.result, Register(PoolOf(Pool::kPinned, rings.map(), 64, 16,
                                        static_cast<char*>(k.memory) + 8)));
    munmap(k.memory, 2 * kPage);
  }
  // The page cache of a disk: what writes there must tell the file system.
  // Newer kernels refuse before we are asked.
  void* disk = map(file.fd(), MAP_SHARED);
  struct stat about;
  ASSERT_EQ(0, fstat(file.fd(), &about));
  const int r =
      Register(PoolOf(Pool::kPinned, disk, 2 * kPage, kPage / 2, rings.ring()));
  // TempFolder() may be on a tmpfs, when instructions are counted.
  EXPECT_TRUE(r == -EOPNOTSUPP || r == -EFAULT) << r;
  munmap(disk, 2 * kPage);
  // The queue's own rings.
  const int own = Register(
      PoolOf(Pool::kPinned, queue().ring(), kPage, kPage / 4, rings.ring()));
  EXPECT_TRUE(own == -EOPNOTSUPP || own == -EFAULT) << own;
  for (uint64_t address : kBadAddresses) {
    kevent_register g =
        PoolOf(Pool::kPinned, rings.map(), 64, 16, rings.ring());
    g.address = address;
    EXPECT_EQ(-EFAULT, Register(g)) << address;
    g.address = Address(rings.map());
    g.ring = address;
    EXPECT_EQ(-EFAULT, Register(g)) << address;
  }
  EXPECT_EQ(4 * 3u + 4 * 2u, PinnedPages(queue()));
}

TEST_F(PinnedTest, Sizes) {
  TestPool pool(4, 64);
  kevent_register g = PoolOf(Pool::kPinned, pool.map(), 256, 64, pool.ring());
  g.bytes = 192;
  EXPECT_EQ(-EINVAL, Register(g));
  g.bytes = 2ull * KEVENT_MAX_PINNED;
  g.buffer_bytes = KEVENT_MAX_PINNED / 4;
  EXPECT_EQ(-EINVAL, Register(g));
  g = PoolOf(Pool::kPinned, pool.map(), 256, 64, pool.ring());
  g.ring += 2;
  EXPECT_EQ(-EINVAL, Register(g));
  g.ring -= 2;
  g.id = 1;
  EXPECT_EQ(-EINVAL, Register(g));
  g.id = 0;
  for (int i = 0; i < KEVENT_MAX_POOLS; ++i) EXPECT_EQ(0, Register(g));
  EXPECT_EQ(-ENOSPC, Register(g));
  EXPECT_EQ(2u * KEVENT_MAX_POOLS, PinnedPages(queue()));
}

TEST_F(PinnedTest, WhatIsMappedInItsPlaceIsNotThePool) {
  for (bool buffers : {true, false}) {
    Reopen({});
    TestPool pool(4, 64);
    ASSERT_EQ(0, pool.Register(queue()));
    pool.ProvideAll();
    Pair pair = TcpPair();
    Submit(pool.Recv(pair.ours.get(), KEVENT_MULTISHOT, 1));
    char* place = buffers ? pool.map() : reinterpret_cast<char*>(pool.ring());
    ASSERT_EQ(0, munmap(place, kPage));
    ASSERT_EQ(place, mmap(place, kPage, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    for (uint64_t i = 0; i < 4; ++i) {
      Send(pair.peer.get(), "unseen");
      EXPECT_EQ(i, ExpectResult(1, 6, true).data[0]);
    }
    if (buffers) {
      EXPECT_TRUE(std::string(kPage, '\0') == std::string(place, kPage));
    }
    // There is no fifth buffer, whatever is written there now.
    if (!buffers) pool.ring()->tail = 100;
    Send(pair.peer.get(), "more");
    ExpectNothing();
  }
}

TEST_F(PinnedTest, AChildHasCopies) {
  TestPool pool(4, 64);
  ASSERT_EQ(0, pool.Register(queue()));
  pool.ProvideAll();
  Pair pair = TcpPair();
  Submit(pool.Recv(pair.ours.get(), KEVENT_MULTISHOT, 1));
  Pair told = PipePair();
  Child child([&] {
    memset(pool.map(), 'c', kPage);
    pool.ring()->tail = 0;
    char c;
    CHILD_CHECK(read(told.ours.get(), &c, 1) == 1);
    CHILD_CHECK(std::string(kPage, 'c') == std::string(pool.map(), kPage));
  });
  // What we write after the fork lands in the pages that are pinned, too.
  pool.Provide(2);
  for (int i = 0; i < 5; ++i) {
    const std::string text = "piece " + std::to_string(i);
    Send(pair.peer.get(), text);
    EXPECT_EQ(text, pool.Text(ExpectResult(1, static_cast<int64_t>(text.size()),
                                           true)));
  }
  Send(told.peer.get(), "x");
  EXPECT_CHILD_OK(child);
  EXPECT_GT(Copied(queue()), 0u);
}

// ---- What is charged, and until when ----

// Buffers of so many pages, and a ring in one more.
kevent_register Pages(const TestPool& pool, uint32_t pages) {
  return PoolOf(Pool::kPinned, pool.map(), uint64_t{pages} * kPage, kPage,
                pool.ring());
}

void SetLimit(uint64_t pages) {
  rlimit limit = {};
  CHILD_CHECK(getrlimit(RLIMIT_MEMLOCK, &limit) == 0);
  limit.rlim_cur = pages * kPage;
  CHILD_CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
}

TEST(PinnedLimitTest, IsTheUsers) {
  Child child([] {
    BecomeUser();
    TestPool pool(16, kPage);
    Queue queue, other;
    CHILD_CHECK(queue.Open(kSmall) == 0);
    CHILD_CHECK(other.Open(kSmall) == 0);
    SetLimit(9);
    kevent_register g = Pages(pool, 16);
    CHILD_CHECK(Ioctl(queue.fd(), KEVENT_REGISTER, &g) == -ENOMEM);
    g = Pages(pool, 8);
    // One page more than it seems.
    g.address += 8;
    CHILD_CHECK(Ioctl(queue.fd(), KEVENT_REGISTER, &g) == -ENOMEM);
    g.address -= 8;
    for (int i = 0; i < 1000; ++i) {
      g = Pages(pool, 8);
      CHILD_CHECK(Ioctl(queue.fd(), KEVENT_REGISTER, &g) == 0);
      const uint32_t id = g.id;
      // Of all his queues, and processes.
      g = Pages(pool, 1);
      CHILD_CHECK(Ioctl(other.fd(), KEVENT_REGISTER, &g) == -ENOMEM);
      if (i % 100 == 0) {
        Child another([&] {
          Queue own;
          TestPool small(1, kPage);
          CHILD_CHECK(own.Open({2, 2, 0}) == 0);
          CHILD_CHECK(small.Register(own) == -ENOMEM);
        });
        CHILD_CHECK(another.Wait() == 0);
      }
      if (i % 3 == 0) {
        queue.Close();
        CHILD_CHECK(queue.Open(kSmall) == 0);
      } else {
        g = Unregister(id);
        CHILD_CHECK(Ioctl(queue.fd(), KEVENT_REGISTER, &g) == 0);
      }
    }
    // What is refused later gives back what it has.
    for (int i = 0; i < 1000; ++i) {
      g = Pages(pool, 8);
      g.ring = 8;
      CHILD_CHECK(Ioctl(queue.fd(), KEVENT_REGISTER, &g) == -EFAULT);
      g = Pages(pool, 8);
      munmap(pool.map() + 7 * kPage, kPage);
      CHILD_CHECK(Ioctl(queue.fd(), KEVENT_REGISTER, &g) == -EFAULT);
      CHILD_CHECK(mmap(pool.map() + 7 * kPage, kPage, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                       0) != MAP_FAILED);
    }
    CHILD_CHECK(PinnedPages(queue) == 0);
    g = Pages(pool, 8);
    CHILD_CHECK(Ioctl(queue.fd(), KEVENT_REGISTER, &g) == 0);
  });
  EXPECT_CHILD_OK(child);
}

TEST(PinnedLimitTest, TheDefaultIsEnough) {
  Child child([] {
    BecomeUser();
    Queue queue;
    CHILD_CHECK(queue.Open() == 0);
    TestPool pool(256, 4096);
    CHILD_CHECK(pool.Register(queue) == 0);
  });
  EXPECT_CHILD_OK(child);
}

TEST(PinnedLimitTest, IsReleasedByDeath) {
  Child child([] {
    BecomeUser();
    SetLimit(9);
    for (int i = 0; i < 40; ++i) {
      Pair ready = PipePair();
      Pair pair = TcpPair();
      Child victim([&] {
        Queue queue;
        TestPool pool(8, kPage);
        CHILD_CHECK(queue.Open(kSmall) == 0);
        CHILD_CHECK(pool.Register(queue) == 0);
        pool.ProvideAll();
        CHILD_CHECK(queue.Put(pool.Recv(pair.ours.get(), KEVENT_MULTISHOT, 1)));
        CHILD_CHECK(queue.Submit(1) >= 0);
        CHILD_CHECK(write(ready.peer.get(), "x", 1) == 1);
        if (i % 4 == 0) _exit(0);
        if (i % 4 == 1) execl("/bin/true", "true", nullptr);
        for (;;) queue.Wait(1, -1);
      });
      ReadExactly(ready.ours.get(), 1);
      // In the middle of what arrives.
      for (int k = 0; k < i % 7; ++k) Send(pair.peer.get(), "data");
      victim.Kill(SIGKILL);
      victim.Wait();
      Queue queue;
      TestPool pool(8, kPage);
      CHILD_CHECK(queue.Open(kSmall) == 0);
      // A worker may have held the memory for a moment.
      CHILD_CHECK(Until([&] { return pool.Register(queue) == 0; }));
    }
  });
  EXPECT_CHILD_OK(child);
}

TEST(PinnedLimitTest, AChildThatKeepsTheQueueKeepsNoPage) {
  Child child([] {
    BecomeUser();
    SetLimit(9);
    for (bool runs_on : {false, true}) {
      Pair hold = PipePair(), ready = PipePair();
      Pair pair = TcpPair();
      Child opener([&] {
        auto* queue = new Queue;
        auto* pool = new TestPool(8, kPage);
        CHILD_CHECK(queue->Open(kSmall) == 0);
        CHILD_CHECK(pool->Register(*queue) == 0);
        pool->ProvideAll();
        CHILD_CHECK(
            queue->Put(pool->Recv(pair.ours.get(), KEVENT_MULTISHOT, 1)));
        CHILD_CHECK(queue->Submit(1) >= 0);
        if (fork() == 0) {
          // It keeps the descriptor until it is told to end.
          hold.peer.Reset();
          char c;
          CHILD_CHECK(write(ready.peer.get(), "x", 1) == 1);
          CHILD_CHECK(read(hold.ours.get(), &c, 1) == 0);
          _exit(0);
        }
        if (!runs_on) _exit(0);
        close(queue->ReleaseFd());
        CHILD_CHECK(write(ready.peer.get(), "x", 1) == 1);
        pause();
      });
      ReadExactly(ready.ours.get(), runs_on ? 2 : 1);
      if (!runs_on) CHILD_CHECK(opener.Wait() == 0);
      Send(pair.peer.get(), "data");
      Queue queue;
      TestPool pool(8, kPage);
      CHILD_CHECK(queue.Open(kSmall) == 0);
      CHILD_CHECK(Until([&] { return pool.Register(queue) == 0; }));
      hold.peer.Reset();
      if (runs_on) {
        opener.Kill(SIGKILL);
        opener.Wait();
      }
    }
  });
  EXPECT_CHILD_OK(child);
}

}  // namespace
}  // namespace kevent::raw
