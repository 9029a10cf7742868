// SPDX-License-Identifier: Apache-2.0
//
// KEVENT_SETUP and the mapping: every field, with what must be refused.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>

#include <cstddef>

#include "kevent/vm/tests/fixture.h"
#include "kevent/vm/tests/hostile.h"

namespace kevent::raw {
namespace {

class SetupTest : public testing::Test {
 protected:
  void SetUp() override {
    fd_ = Fd(OpenDevice());
    ASSERT_TRUE(fd_) << "/dev/kevent: " << strerror(-fd_.get());
  }
  int Setup(kevent_setup* setup) {
    return Ioctl(fd_.get(), KEVENT_SETUP, setup);
  }
  void ExpectStillPossible() {
    kevent_setup setup = MakeSetup();
    EXPECT_EQ(0, Setup(&setup));
  }

  Fd fd_;
};

TEST_F(SetupTest, TheHeaderIsWhatItSays) {
  static_assert(sizeof(kevent_sqe) == 64 && sizeof(kevent_entry) == 64);
  static_assert(sizeof(kevent_setup) == KEVENT_SETUP_SIZE_V1);
  static_assert(sizeof(kevent_control) == KEVENT_CONTROL_SIZE_V1);
  static_assert(sizeof(kevent_enter) == KEVENT_ENTER_SIZE_V1);
  static_assert(sizeof(kevent_register) == KEVENT_REGISTER_SIZE_V1);
  static_assert(offsetof(kevent_ring, cq_head) == 64);
  static_assert(offsetof(kevent_ring, cq_entries) == 128);
  static_assert(sizeof(kevent_ring) == 192);
}

TEST_F(SetupTest, TellsWhatItChose) {
  kevent_setup setup = MakeSetup();
  ASSERT_EQ(0, Setup(&setup));
  EXPECT_EQ(uint32_t{KEVENT_ABI_VERSION}, setup.abi_version);
  EXPECT_EQ(uint32_t{KEVENT_DEFAULT_CQ}, setup.cq_entries);
  EXPECT_EQ(uint32_t{KEVENT_DEFAULT_SQ}, setup.sq_entries);
  EXPECT_EQ(1u << 20, setup.max_interests);
  EXPECT_EQ(0u, setup.features & ~uint32_t{KEVENT_FEATURE_NAIO |
                                           KEVENT_FEATURE_PINNED_POOLS |
                                           KEVENT_FEATURE_REFERENCE});
  EXPECT_EQ(0u, setup.ring_bytes % kPage);
  EXPECT_GE(setup.ring_bytes, sizeof(kevent_ring) +
                                  KEVENT_DEFAULT_CQ * sizeof(kevent_entry) +
                                  KEVENT_DEFAULT_SQ * sizeof(kevent_sqe));
}

TEST_F(SetupTest, RingsOfEverySize) {
  for (uint32_t cq : {1u, 2u, 64u, uint32_t{KEVENT_MAX_RING}}) {
    for (uint32_t sq : {1u, 4u, 1024u}) {
      Queue queue;
      ASSERT_EQ(0, queue.Open({cq, sq, 10})) << cq << " " << sq;
      EXPECT_EQ(cq, queue.setup().cq_entries);
      EXPECT_EQ(sq, queue.setup().sq_entries);
      EXPECT_EQ(10u, queue.setup().max_interests);
      const kevent_ring* ring = queue.ring();
      EXPECT_EQ(cq, ring->cq_entries);
      EXPECT_EQ(sq, ring->sq_entries);
      EXPECT_EQ(0u, ring->cq_tail);
      EXPECT_EQ(0u, ring->sq_head);
      EXPECT_EQ(0u, ring->flags);
      EXPECT_EQ(0u, ring->cq_offset % alignof(kevent_entry));
      EXPECT_GE(ring->cq_offset, sizeof(kevent_ring));
      EXPECT_GE(ring->sq_offset, sizeof(kevent_ring));
      EXPECT_LE(ring->cq_offset + cq * sizeof(kevent_entry),
                queue.ring_bytes());
      EXPECT_LE(ring->sq_offset + sq * sizeof(kevent_sqe), queue.ring_bytes());
      EXPECT_TRUE(ring->cq_offset + cq * sizeof(kevent_entry) <=
                      ring->sq_offset ||
                  ring->sq_offset + sq * sizeof(kevent_sqe) <= ring->cq_offset);
    }
  }
}

TEST_F(SetupTest, RefusesRingSizes) {
  for (uint32_t size : {3u, 5u, 48u, 4095u, 4097u, 2u * KEVENT_MAX_RING,
                        1u << 31, 0xffffffffu, 0x80000001u}) {
    kevent_setup setup = MakeSetup();
    setup.cq_entries = size;
    EXPECT_EQ(-EINVAL, Setup(&setup)) << "cq " << size;
    setup = MakeSetup();
    setup.sq_entries = size;
    EXPECT_EQ(-EINVAL, Setup(&setup)) << "sq " << size;
  }
  for (uint32_t limit : {KEVENT_MAX_INTERESTS + 1, 0xffffffffu}) {
    kevent_setup setup = MakeSetup();
    setup.max_interests = limit;
    EXPECT_EQ(-EINVAL, Setup(&setup)) << limit;
  }
  ExpectStillPossible();
}

TEST_F(SetupTest, RefusesVersionsFlagsAndReservedFields) {
  for (int field = 0; field < 5 + 32; ++field) {
    kevent_setup setup = MakeSetup();
    switch (field) {
      case 0:
        setup.abi_version = KEVENT_ABI_VERSION + 1;
        break;
      case 1:
        setup.reserved0 = 1;
        break;
      case 2:
        setup.reserved[0] = 1;
        break;
      case 3:
        setup.reserved[1] = uint64_t{1} << 63;
        break;
      case 4:
        setup.reserved[2] = 1;
        break;
      default:
        setup.flags = 1u << (field - 5);
    }
    EXPECT_EQ(-EINVAL, Setup(&setup)) << field;
  }
  ExpectStillPossible();
}

TEST_F(SetupTest, Sizes) {
  for (uint32_t size : {0u, 1u, 4u, KEVENT_SETUP_SIZE_V1 - 1u}) {
    kevent_setup setup = MakeSetup();
    setup.size = size;
    EXPECT_EQ(-EINVAL, Setup(&setup)) << size;
  }
  struct {
    kevent_setup setup;
    char tail[kPage - sizeof(kevent_setup)];
  } larger = {};
  for (size_t at : {size_t{0}, size_t{7}, sizeof larger.tail - 1}) {
    larger.setup = MakeSetup();
    larger.setup.size = sizeof larger;
    larger.tail[at] = 1;
    EXPECT_EQ(-E2BIG, Setup(&larger.setup)) << at;
    larger.tail[at] = 0;
  }
  for (uint32_t size : {0x7fffffffu, 0x80000000u, 0xffffffffu}) {
    PageEnd end;
    kevent_setup* setup = end.Last<kevent_setup>(1);
    *setup = MakeSetup();
    setup->size = size;
    const int r = Setup(setup);
    EXPECT_TRUE(r == -E2BIG || r == -EFAULT || r == -EINVAL) << r;
  }
  // Not a multiple of anything, and beyond it the end of memory.
  PageEnd end;
  void* memory = end.Before(sizeof(kevent_setup) + 1);
  memset(memory, 0, sizeof(kevent_setup) + 1);
  kevent_setup setup = MakeSetup();
  setup.size = sizeof setup + 1;
  memcpy(memory, &setup, sizeof setup);
  EXPECT_EQ(0, Ioctl(fd_.get(), KEVENT_SETUP, memory));
}

TEST_F(SetupTest, LargerWithNothingInItIsFine) {
  struct {
    kevent_setup setup = MakeSetup();
    char tail[200] = {};
  } larger;
  larger.setup.size = sizeof larger;
  EXPECT_EQ(0, Setup(&larger.setup));
  EXPECT_NE(0u, larger.setup.ring_bytes);
}

TEST_F(SetupTest, BadAddresses) {
  for (uint64_t address : kBadAddresses) {
    EXPECT_EQ(-EFAULT, Ioctl(fd_.get(), KEVENT_SETUP, address)) << address;
  }
  PageEnd end;
  // Its size can be read, the rest cannot.
  kevent_setup setup = MakeSetup();
  memcpy(end.Before(8), &setup, 8);
  EXPECT_EQ(-EFAULT, Ioctl(fd_.get(), KEVENT_SETUP, end.Before(8)));
  kevent_setup* last = end.Last<kevent_setup>(1);
  *last = MakeSetup();
  end.Protect(PROT_READ);
  EXPECT_EQ(-EFAULT, Setup(last));
  // The caller does not know how large the rings are: there are none.
  ExpectStillPossible();
}

TEST_F(SetupTest, OnlyOnce) {
  kevent_setup setup = MakeSetup();
  ASSERT_EQ(0, Setup(&setup));
  setup = MakeSetup();
  EXPECT_EQ(-EBUSY, Setup(&setup));
}

TEST_F(SetupTest, NothingGoesBeforeIt) {
  kevent_control control = {};
  control.size = sizeof control;
  EXPECT_EQ(-ENXIO, Ioctl(fd_.get(), KEVENT_CONTROL, &control));
  kevent_enter enter = MakeEnter();
  EXPECT_EQ(-ENXIO, Ioctl(fd_.get(), KEVENT_ENTER, &enter));
  EXPECT_EQ(MAP_FAILED, mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED,
                             fd_.get(), 0));
  EXPECT_EQ(ENXIO, errno);
  // Not ready for anything, and poll(2) does not fall over it.
  EXPECT_EQ(0, PollNow(fd_.get(), POLLIN) & POLLIN);
  ExpectStillPossible();
}

TEST_F(SetupTest, UnknownCalls) {
  kevent_setup setup = MakeSetup();
  ASSERT_EQ(0, Setup(&setup));
  char block[256] = {};
  for (unsigned long request :
       {static_cast<unsigned long>(_IO(KEVENT_IOC_MAGIC, 4)),
        static_cast<unsigned long>(_IO(KEVENT_IOC_MAGIC, 255)),
        static_cast<unsigned long>(_IOWR(KEVENT_IOC_MAGIC, 0, kevent_setup)),
        static_cast<unsigned long>(_IO(0xba, 0)),
        static_cast<unsigned long>(TCGETS), 0xffffffffUL}) {
    EXPECT_EQ(-ENOTTY, Ioctl(fd_.get(), request, block)) << request;
  }
  if (!(setup.features & KEVENT_FEATURE_NAIO)) {
    kevent_register registration = {};
    registration.size = sizeof registration;
    registration.opcode = KEVENT_REGISTER_POOL;
    EXPECT_EQ(-ENOTTY, Ioctl(fd_.get(), KEVENT_REGISTER, &registration));
  }
}

TEST_F(SetupTest, ReadAndWriteAreNotForIt) {
  kevent_setup setup = MakeSetup();
  ASSERT_EQ(0, Setup(&setup));
  char block[64] = {};
  EXPECT_EQ(-1, read(fd_.get(), block, sizeof block));
  EXPECT_EQ(-1, write(fd_.get(), block, sizeof block));
}

TEST_F(SetupTest, Mappings) {
  kevent_setup setup = MakeSetup();
  ASSERT_EQ(0, Setup(&setup));
  const size_t bytes = setup.ring_bytes;
  struct {
    const char* name;
    size_t bytes;
    int protection, flags;
    off_t offset;
  } bad[] = {
      {"larger", bytes + kPage, PROT_READ | PROT_WRITE, MAP_SHARED, 0},
      {"smaller", bytes - kPage, PROT_READ | PROT_WRITE, MAP_SHARED, 0},
      {"far larger", bytes * 1024, PROT_READ | PROT_WRITE, MAP_SHARED, 0},
      {"a page on", bytes, PROT_READ | PROT_WRITE, MAP_SHARED, kPage},
      {"far on", bytes, PROT_READ | PROT_WRITE, MAP_SHARED, off_t{1} << 40},
      {"the end of offsets", bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
       off_t{0x7ffffffffffff000}},
      {"private", bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0},
      {"private to read", bytes, PROT_READ, MAP_PRIVATE, 0},
      {"executable", bytes, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED, 0},
  };
  for (const auto& b : bad) {
    void* map =
        mmap(nullptr, b.bytes, b.protection, b.flags, fd_.get(), b.offset);
    EXPECT_EQ(MAP_FAILED, map) << b.name;
    if (map != MAP_FAILED) {
      munmap(map, b.bytes);
    } else {
      EXPECT_TRUE(errno == EINVAL || errno == EPERM || errno == EACCES ||
                  errno == EOVERFLOW)
          << b.name << ": " << strerror(errno);
    }
  }
  void* map =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
  ASSERT_NE(MAP_FAILED, map) << strerror(errno);
  EXPECT_EQ(-1, mprotect(map, bytes, PROT_READ | PROT_EXEC));
  // It may grow no more, nor be split where pages end.
  EXPECT_EQ(MAP_FAILED, mremap(map, bytes, bytes + kPage, MREMAP_MAYMOVE));
  volatile char* last = static_cast<char*>(map) + bytes - 1;
  *last = *last;
  EXPECT_EQ(0, munmap(map, bytes));
}

TEST_F(SetupTest, TheMappingOutlivesTheDescriptor) {
  Queue queue;
  ASSERT_EQ(0, queue.Open());
  kevent_sqe user = AddUser();
  ASSERT_EQ(0, queue.Make(&user));
  ASSERT_EQ(0, queue.Ready(user.handle, 7));
  close(queue.ReleaseFd());
  kevent_entry entry = {};
  ASSERT_TRUE(queue.Take(&entry));
  EXPECT_EQ(7u, entry.data[0]);
}

TEST_F(SetupTest, TheQueueOutlivesItsMapping) {
  Queue queue;
  ASSERT_EQ(0, queue.Open());
  kevent_sqe user = AddUser();
  ASSERT_EQ(0, queue.Make(&user));
  ASSERT_EQ(0, queue.Unmap());
  ASSERT_EQ(0, queue.Ready(user.handle, 9));
  kevent_entry entry = {};
  EXPECT_EQ(1, queue.Copy({&entry, 1}, 1, PatienceNs()));
  EXPECT_EQ(9u, entry.data[0]);
}

TEST_F(SetupTest, ManyQueues) {
  std::vector<Queue> queues(100);
  for (Queue& queue : queues) ASSERT_EQ(0, queue.Open({8, 8, 8}));
}

TEST_F(SetupTest, ChargesTheMemoryThatIsLocked) {
  Child child([] {
    BecomeUser();
    // Root's capability is gone with its uid, and it is not charged before.
    const rlimit limit = {1 << 20, 1 << 20};
    CHILD_CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
    Fd fd(OpenDevice());
    CHILD_CHECK(fd);
    kevent_setup setup = MakeSetup();
    setup.cq_entries = KEVENT_MAX_RING;  // 2 MiB
    CHILD_CHECK(Ioctl(fd.get(), KEVENT_SETUP, &setup) == -ENOMEM);
    setup = MakeSetup();
    setup.sq_entries = KEVENT_MAX_RING;
    CHILD_CHECK(Ioctl(fd.get(), KEVENT_SETUP, &setup) == -ENOMEM);
    setup = MakeSetup();
    CHILD_CHECK(Ioctl(fd.get(), KEVENT_SETUP, &setup) == 0);
    // The limit is that of all queues together, and what ends is given back.
    for (int round = 0; round < 5; ++round) {
      std::vector<Queue> queues;
      int r = 0;
      while (r == 0 && queues.size() < 100) {
        Queue queue;
        r = queue.Open();
        if (r == 0) queues.push_back(std::move(queue));
      }
      CHILD_CHECK(r == -ENOMEM);
      CHILD_CHECK(!queues.empty());
      queues.clear();
      const int64_t deadline = NowNs() + PatienceNs();
      for (;;) {
        Queue queue;
        r = queue.Open();
        if (r != -ENOMEM || NowNs() > deadline) break;
        sched_yield();
      }
      CHILD_CHECK(r == 0);
    }
  });
  EXPECT_CHILD_OK(child);
}

TEST_F(SetupTest, AskedForRightsAtOpen) {
  // An address space of its own is what it belongs to, not a descriptor.
  Fd other(open("/dev/kevent", O_RDONLY | O_CLOEXEC));
  if (!other) GTEST_SKIP() << "not to be opened for reading alone";
  kevent_setup setup = MakeSetup();
  ASSERT_EQ(0, Ioctl(other.get(), KEVENT_SETUP, &setup));
  EXPECT_EQ(MAP_FAILED, mmap(nullptr, setup.ring_bytes, PROT_READ | PROT_WRITE,
                             MAP_SHARED, other.get(), 0));
}

}  // namespace
}  // namespace kevent::raw
