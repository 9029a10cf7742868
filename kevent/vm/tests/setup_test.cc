// SPDX-License-Identifier: Apache-2.0
//
// Every field of the ioctls and of the mapping, with what must be refused.
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <array>
#include <cstddef>

#include "kevent/vm/tests/fixture.h"

namespace kevent::raw {
namespace {

constexpr size_t kPage = 4096;

// Addresses that no user may name: NULL, one without a page, the kernel's, and
// one outside the address space.
constexpr std::array<uint64_t, 5> kBadAddresses = {
    0, 8, 0xffff888000000000, 0xffffffff81000000, 0x8000000000000000};

int Ioctl(int fd, unsigned long request, void* argument) {
  return ioctl(fd, request, argument) < 0 ? -errno : 0;
}
int Ioctl(int fd, unsigned long request, uint64_t address) {
  return ioctl(fd, request, address) < 0 ? -errno : 0;
}

uint64_t Address(const void* p) { return reinterpret_cast<uintptr_t>(p); }

// Two pages, the second of which cannot be touched.
class PageEnd {
 public:
  PageEnd() {
    void* map = mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(MAP_FAILED, map);
    base_ = static_cast<char*>(map);
    EXPECT_EQ(0, mprotect(base_ + kPage, kPage, PROT_NONE));
  }
  ~PageEnd() { munmap(base_, 2 * kPage); }
  // So that `bytes` fit and the next one does not.
  void* Before(size_t bytes) { return base_ + kPage - bytes; }
  template <typename T>
  T* Last(size_t count) {
    return static_cast<T*>(Before(count * sizeof(T)));
  }
  void Protect(int protection) {
    ASSERT_EQ(0, mprotect(base_, kPage, protection));
  }

 private:
  char* base_ = nullptr;
};

// ---- KEVENT_SETUP ----

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
  EXPECT_EQ(0u, setup.features & ~uint32_t{KEVENT_FEATURE_NAIO});
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
    registration.opcode = KEVENT_REGISTER_BUFFERS;
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

// ---- KEVENT_CONTROL ----

class ControlTest : public QueueTest {
 protected:
  int Control(kevent_control* control) {
    int r = ioctl(queue().fd(), KEVENT_CONTROL, control);
    return r < 0 ? -errno : r;
  }
  int Result(kevent_sqe sqe) { return queue().Make(&sqe); }
  // Of a change that must fail, and leave nothing behind.
  void ExpectRefused(int error, const kevent_sqe& sqe,
                     const std::string& what) {
    kevent_sqe change = sqe;
    EXPECT_EQ(error, queue().Make(&change)) << what;
    if (change.result == 0 && change.opcode == KEVENT_OP_ADD) {
      queue().Remove(change.handle);
    }
  }
};

TEST_F(ControlTest, Sizes) {
  kevent_sqe nop = Change(KEVENT_OP_NOP);
  struct {
    kevent_control control;
    char tail[100];
  } larger = {};
  larger.control.count = 1;
  larger.control.changes = Address(&nop);
  for (uint32_t size : {0u, 8u, KEVENT_CONTROL_SIZE_V1 - 1u}) {
    larger.control.size = size;
    EXPECT_EQ(-EINVAL, Control(&larger.control)) << size;
  }
  larger.control.size = sizeof larger;
  EXPECT_EQ(1, Control(&larger.control));
  larger.tail[99] = 1;
  EXPECT_EQ(-E2BIG, Control(&larger.control));
  larger.tail[99] = 0;
  larger.tail[0] = 1;
  EXPECT_EQ(-E2BIG, Control(&larger.control));
}

TEST_F(ControlTest, FlagsReservedFieldsAndCount) {
  kevent_sqe nop = Change(KEVENT_OP_NOP);
  kevent_control good = {};
  good.size = sizeof good;
  good.count = 1;
  good.changes = Address(&nop);
  for (int bit = 0; bit < 32; ++bit) {
    kevent_control control = good;
    control.flags = 1u << bit;
    EXPECT_EQ(-EINVAL, Control(&control)) << bit;
    control = good;
    control.reserved = 1u << bit;
    EXPECT_EQ(-EINVAL, Control(&control)) << bit;
  }
  for (uint32_t count : {KEVENT_MAX_CHANGES + 1u, 0x80000000u, 0xffffffffu}) {
    kevent_control control = good;
    control.count = count;
    EXPECT_EQ(-EINVAL, Control(&control)) << count;
  }
  kevent_control none = good;
  none.count = 0;
  none.changes = 0;
  EXPECT_EQ(0, Control(&none));
  EXPECT_EQ(1, Control(&good));
}

TEST_F(ControlTest, BadAddresses) {
  for (uint64_t address : kBadAddresses) {
    EXPECT_EQ(-EFAULT, Ioctl(queue().fd(), KEVENT_CONTROL, address));
    kevent_control control = {};
    control.size = sizeof control;
    control.count = 1;
    control.changes = address;
    EXPECT_EQ(-EFAULT, Control(&control)) << address;
    control.count = KEVENT_MAX_CHANGES;
    EXPECT_EQ(-EFAULT, Control(&control)) << address;
  }
}

TEST_F(ControlTest, WhatWasMadeBeforeMemoryEndsIsKept) {
  PageEnd end;
  kevent_sqe* changes = end.Last<kevent_sqe>(3);
  for (int i = 0; i < 3; ++i) changes[i] = AddUser(0, 40 + i);
  kevent_control control = {};
  control.size = sizeof control;
  control.count = 5;
  control.changes = Address(changes);
  ASSERT_EQ(3, Control(&control));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(0, changes[i].result);
    EXPECT_EQ(0, queue().Ready(changes[i].handle, i));
    EXPECT_EQ(40u + i, Expect(changes[i].handle, 0).user_data);
  }
  // The second half of an element is missing.
  control.count = 1;
  control.changes = Address(end.Before(32));
  EXPECT_EQ(-EFAULT, Control(&control));
}

TEST_F(ControlTest, AResultThatCannotBeToldIsNotMade) {
  Reopen({8, 8, 2});  // one is the fixture's
  PageEnd end;
  kevent_sqe* change = end.Last<kevent_sqe>(1);
  *change = AddUser();
  end.Protect(PROT_READ);
  kevent_control control = {};
  control.size = sizeof control;
  control.count = 1;
  control.changes = Address(change);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(-EFAULT, Control(&control));
  // Otherwise there would be an interest that nobody can name.
  MustAdd(AddUser());
}

TEST_F(ControlTest, EveryChangeHasItsOwnResult) {
  std::array<kevent_sqe, 6> changes = {
      AddUser(0, 1),
      Change(KEVENT_OP_REMOVE, kNoHandle),
      AddPoll(-1, KEVENT_IN),
      Change(KEVENT_OP_NOP),
      Change(200),
      AddUser(0, 2),
  };
  EXPECT_EQ(6, queue().Control(changes));
  const int expected[] = {0, -ENOENT, -EBADF, 0, -EINVAL, 0};
  for (size_t i = 0; i < changes.size(); ++i) {
    EXPECT_EQ(expected[i], changes[i].result) << i;
  }
  EXPECT_NE(changes[0].handle, changes[5].handle);
  EXPECT_EQ(0, queue().Remove(changes[0].handle));
  EXPECT_EQ(0, queue().Remove(changes[5].handle));
}

TEST_F(ControlTest, TheMostChangesInOneCall) {
  std::vector<kevent_sqe> changes(KEVENT_MAX_CHANGES,
                                  Change(KEVENT_OP_REMOVE, kNoHandle));
  EXPECT_EQ(KEVENT_MAX_CHANGES, queue().Control(changes));
  for (const kevent_sqe& change : changes) ASSERT_EQ(-ENOENT, change.result);
}

TEST_F(ControlTest, UnknownOpcodes) {
  for (int opcode = 0; opcode < 256; ++opcode) {
    kevent_sqe change = Change(static_cast<uint8_t>(opcode));
    int expected = -EINVAL;
    if (opcode == KEVENT_OP_NOP) expected = 0;
    if (opcode >= KEVENT_OP_MODIFY && opcode <= KEVENT_OP_READY) {
      expected = -ENOENT;
    }
    if (opcode >= KEVENT_OP_ACCEPT && opcode <= KEVENT_OP_CANCEL) {
      if (queue().setup().features & KEVENT_FEATURE_NAIO) continue;
      expected = -EOPNOTSUPP;
    }
    EXPECT_EQ(expected, queue().Make(&change)) << opcode;
  }
}

TEST_F(ControlTest, UnknownSources) {
  for (int source = 0; source < 256; ++source) {
    if (source >= KEVENT_SOURCE_SOCKET && source <= KEVENT_SOURCE_USER) {
      continue;
    }
    kevent_sqe add = AddUser();
    add.source = static_cast<uint8_t>(source);
    ExpectRefused(-EINVAL, add, std::to_string(source));
  }
}

TEST_F(ControlTest, UnknownFlags) {
  Pair pipe = PipePair();
  const int file = Own(open(TempFolder().c_str(), O_PATH | O_CLOEXEC));
  const kevent_sqe adds[] = {
      AddPoll(pipe.ours.get(), KEVENT_IN),
      AddUser(),
      AddTimer(kSecond),
      AddSignal(SIGUSR1),
      AddInode(file, KEVENT_INODE_CREATE),
  };
  for (const kevent_sqe& add : adds) {
    for (int bit = 8; bit < 16; ++bit) {
      if (1 << bit == KEVENT_SKIP_SUCCESS) continue;
      kevent_sqe change = add;
      change.flags = static_cast<uint16_t>(1 << bit);
      ExpectRefused(-EINVAL, change,
                    std::to_string(add.source) + " " + std::to_string(bit));
    }
  }
  const uint64_t handle = MustAdd(AddUser());
  for (uint8_t opcode :
       {KEVENT_OP_NOP, KEVENT_OP_MODIFY, KEVENT_OP_REMOVE, KEVENT_OP_DISABLE,
        KEVENT_OP_ENABLE, KEVENT_OP_READY}) {
    kevent_sqe change = Change(opcode, handle);
    change.flags = 0x8000;
    EXPECT_EQ(-EINVAL, Result(change)) << int{opcode};
  }
  EXPECT_EQ(0, queue().Remove(handle));
}

TEST_F(ControlTest, UnknownEvents) {
  Pair pipe = PipePair();
  Pair tcp = TcpPair();
  const int file = Own(open(TempFolder().c_str(), O_PATH | O_CLOEXEC));
  for (int bit = 0; bit < 32; ++bit) {
    const uint32_t events = 1u << bit;
    const std::string what = std::to_string(bit);
    if (!(events & KEVENT_POLL_EVENTS)) {
      ExpectRefused(-EINVAL, AddPoll(pipe.ours.get(), events), what);
      ExpectRefused(-EINVAL, AddSocket(tcp.ours.get(), events), what);
    }
    if (!(events & KEVENT_INODE_EVENTS)) {
      ExpectRefused(-EINVAL, AddInode(file, events), what);
    }
    kevent_sqe add = AddUser();
    add.events = events;
    ExpectRefused(-EINVAL, add, "user " + what);
    add = AddTimer(kSecond);
    add.events = events;
    ExpectRefused(-EINVAL, add, "timer " + what);
    add = AddSignal(SIGUSR1);
    add.events = events;
    ExpectRefused(-EINVAL, add, "signal " + what);
  }
  ExpectRefused(-EINVAL, AddInode(file, 0), "no event of an inode");
}

TEST_F(ControlTest, FieldsThatMeanNothingMustBeZero) {
  Pair pipe = PipePair();
  Pair tcp = TcpPair();
  const int file = Own(open(TempFolder().c_str(), O_PATH | O_CLOEXEC));
  struct {
    kevent_sqe add;
    int args;  // that mean something
  } const adds[] = {
      {AddPoll(pipe.ours.get(), KEVENT_IN), 0},
      {AddSocket(tcp.ours.get(), KEVENT_IN), 0},
      {AddInode(file, KEVENT_INODE_CREATE), 0},
      {AddTimer(kSecond), 2},
      {AddSignal(SIGUSR1), 0},
      {AddUser(), 0},
  };
  for (const auto& a : adds) {
    for (int arg = a.args; arg < 4; ++arg) {
      kevent_sqe add = a.add;
      add.arg[arg] = 1;
      ExpectRefused(-EINVAL, add,
                    std::to_string(add.source) + " arg " + std::to_string(arg));
    }
    kevent_sqe add = a.add;
    add.result = 1;
    ExpectRefused(-EINVAL, add, std::to_string(add.source) + " result");
  }
  kevent_sqe add = AddUser();
  add.fd = 1;
  ExpectRefused(-EINVAL, add, "the user source's fd");
  kevent_sqe nop = Change(KEVENT_OP_NOP);
  nop.arg[3] = 1;
  EXPECT_EQ(-EINVAL, Result(nop));
  const uint64_t handle = MustAdd(AddUser());
  kevent_sqe ready = Change(KEVENT_OP_READY, handle);
  ready.arg[1] = 1;
  EXPECT_EQ(-EINVAL, Result(ready));
  for (uint8_t opcode :
       {KEVENT_OP_REMOVE, KEVENT_OP_DISABLE, KEVENT_OP_ENABLE}) {
    kevent_sqe change = Change(opcode, handle);
    change.arg[0] = 1;
    EXPECT_EQ(-EINVAL, Result(change)) << int{opcode};
  }
  EXPECT_EQ(0, queue().Remove(handle));
  ExpectNothing();
}

TEST_F(ControlTest, Descriptors) {
  Pair pipe = PipePair();
  const int closed = pipe.peer.get();
  pipe.peer.Reset();
  for (int fd : {-1, closed, 1 << 20, INT32_MIN, INT32_MAX}) {
    ExpectRefused(-EBADF, AddPoll(fd, KEVENT_IN), std::to_string(fd));
    ExpectRefused(-EBADF, AddSocket(fd, KEVENT_IN), std::to_string(fd));
    ExpectRefused(-EBADF, AddInode(fd, KEVENT_INODE_MODIFY),
                  std::to_string(fd));
  }
  const std::string name = TempFolder() + "/regular";
  const int file = Own(open(name.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  ExpectRefused(-EPERM, AddPoll(file, KEVENT_IN), "a regular file");
  ExpectRefused(-ENOTSOCK, AddSocket(file, KEVENT_IN), "a regular file");
  ExpectRefused(-ENOTSOCK, AddSocket(pipe.ours.get(), KEVENT_IN), "a pipe");
  const int folder = Own(open(TempFolder().c_str(), O_RDONLY | O_CLOEXEC));
  ExpectRefused(-EPERM, AddPoll(folder, KEVENT_IN), "a folder");
  const int null = Own(open("/dev/null", O_RDWR | O_CLOEXEC));
  ExpectRefused(-EPERM, AddPoll(null, KEVENT_IN), "/dev/null");
  const int path = Own(open(name.c_str(), O_PATH | O_CLOEXEC));
  ExpectRefused(-EBADF, AddPoll(path, KEVENT_IN), "a path");
  MustAdd(AddInode(path, KEVENT_INODE_MODIFY));
  unlink(name.c_str());
}

TEST_F(ControlTest, RefusesCircles) {
  const int epoll = Own(epoll_create1(EPOLL_CLOEXEC));
  ExpectRefused(-EINVAL, AddPoll(epoll, KEVENT_IN), "epoll");
  ExpectRefused(-EINVAL, AddPoll(queue().fd(), KEVENT_IN), "itself");
  Queue other;
  ASSERT_EQ(0, other.Open());
  ExpectRefused(-EINVAL, AddPoll(other.fd(), KEVENT_IN), "another queue");
  Fd bare(OpenDevice());
  ExpectRefused(-EINVAL, AddPoll(bare.get(), KEVENT_IN), "one without rings");
  io_uring_params params = {};
  const int uring = static_cast<int>(syscall(SYS_io_uring_setup, 4, &params));
  if (uring >= 0) {
    Own(uring);
    ExpectRefused(-EINVAL, AddPoll(uring, KEVENT_IN), "io_uring");
  }
}

TEST_F(ControlTest, Handles) {
  const uint64_t handle = MustAdd(AddUser());
  EXPECT_LT(KEVENT_HANDLE_INDEX(handle), queue().setup().max_interests);
  const uint64_t next_generation = handle + (uint64_t{1} << 32);
  for (uint64_t bad :
       {uint64_t{0}, kNoHandle, next_generation, handle & 0xffffffff,
        handle ^ 0xffff, handle | 0x80000000, handle | 0x00ffffff}) {
    if (bad == handle) continue;
    for (uint8_t opcode :
         {KEVENT_OP_MODIFY, KEVENT_OP_REMOVE, KEVENT_OP_DISABLE,
          KEVENT_OP_ENABLE, KEVENT_OP_READY}) {
      EXPECT_EQ(-ENOENT, Result(Change(opcode, bad)))
          << bad << " " << int{opcode};
    }
  }
  EXPECT_EQ(0, queue().Remove(handle));
  EXPECT_EQ(-ENOENT, queue().Remove(handle));
  EXPECT_EQ(-ENOENT, queue().Ready(handle));
  EXPECT_EQ(-ENOENT, queue().Enable(handle));
  // The index comes back some day, the handle does not.
  for (int i = 0; i < 100; ++i) {
    const uint64_t next = MustAdd(AddUser());
    ASSERT_NE(handle, next);
    EXPECT_EQ(0, queue().Remove(next));
  }
}

TEST_F(ControlTest, AHandleOfAnotherQueueMeansNothing) {
  std::vector<uint64_t> ours;
  for (int i = 0; i < 10; ++i) ours.push_back(MustAdd(AddUser()));
  Queue other;
  ASSERT_EQ(0, other.Open({8, 8, 4}));
  for (uint64_t handle : ours) EXPECT_EQ(-ENOENT, other.Remove(handle));
  for (uint64_t handle : ours) EXPECT_EQ(0, queue().Remove(handle));
}

TEST_F(ControlTest, TheLimitOfInterests) {
  Queue small;
  ASSERT_EQ(0, small.Open({8, 8, 3}));
  std::array<kevent_sqe, 5> adds;
  adds.fill(AddUser());
  ASSERT_EQ(5, small.Control(adds));
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(i < 3 ? 0 : -ENOSPC, adds[i].result) << i;
  }
  Pair pipe = PipePair();
  kevent_sqe poll = AddPoll(pipe.ours.get(), KEVENT_IN);
  EXPECT_EQ(-ENOSPC, small.Make(&poll));
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(0, small.Remove(adds[i % 3].handle));
    adds[i % 3] = AddUser();
    EXPECT_EQ(0, small.Make(&adds[i % 3]));
    kevent_sqe more = AddUser();
    EXPECT_EQ(-ENOSPC, small.Make(&more));
  }
}

TEST_F(ControlTest, Timers) {
  ExpectRefused(-EINVAL, AddTimer(0, KEVENT_TIMER_MIN_NS - 1), "period");
  ExpectRefused(-EINVAL, AddTimer(0, 1), "period");
  for (int clock : {-1, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID,
                    CLOCK_MONOTONIC_RAW, CLOCK_TAI, 99, INT32_MAX}) {
    ExpectRefused(-EINVAL, AddTimer(kSecond, 0, 0, 0, clock),
                  std::to_string(clock));
  }
  // Never, as far as anybody can tell; and no overflow into the past.
  for (uint64_t far : {uint64_t{INT64_MAX}, uint64_t{INT64_MAX} - 1}) {
    for (uint16_t flags : {0, KEVENT_ABSOLUTE}) {
      kevent_sqe add = AddTimer(static_cast<int64_t>(far), 0, flags);
      const int r = queue().Make(&add);
      EXPECT_TRUE(r == 0 || r == -EINVAL) << r;
    }
  }
  for (uint64_t beyond : {uint64_t{1} << 63, UINT64_MAX}) {
    kevent_sqe add = AddTimer(0);
    add.arg[0] = beyond;
    int r = queue().Make(&add);
    EXPECT_TRUE(r == 0 || r == -EINVAL) << r;
    add = AddTimer(kSecond);
    add.arg[1] = beyond;
    r = queue().Make(&add);
    EXPECT_TRUE(r == 0 || r == -EINVAL) << r;
  }
  ExpectNothing();
}

TEST_F(ControlTest, Signals) {
  for (int signo : {-1, 0, 65, 1000, SIGKILL, SIGSTOP, INT32_MIN}) {
    ExpectRefused(-EINVAL, AddSignal(signo), std::to_string(signo));
  }
}

TEST_F(ControlTest, OnlyUserInterestsAreMadeReady) {
  const uint64_t timer = MustAdd(AddTimer(1000 * kSecond));
  EXPECT_EQ(-EINVAL, queue().Ready(timer));
  Pair pipe = PipePair();
  const uint64_t poll = MustAdd(AddPoll(pipe.ours.get(), KEVENT_IN));
  EXPECT_EQ(-EINVAL, queue().Ready(poll));
  ExpectNothing();
}

// ---- KEVENT_ENTER ----

class EnterTest : public QueueTest {
 protected:
  void SetUp() override {
    QueueTest::SetUp();
    user_ = MustAdd(AddUser());
  }
  int Enter(kevent_enter enter) { return queue().Enter(&enter); }

  uint64_t user_ = 0;
};

TEST_F(EnterTest, Sizes) {
  struct {
    kevent_enter enter;
    char tail[kPage - sizeof(kevent_enter)];
  } larger = {};
  larger.enter = MakeEnter();
  for (uint32_t size : {0u, 64u, KEVENT_ENTER_SIZE_V1 - 1u}) {
    larger.enter.size = size;
    EXPECT_EQ(-EINVAL, queue().Enter(&larger.enter)) << size;
  }
  larger.enter.size = sizeof larger;
  EXPECT_EQ(0, queue().Enter(&larger.enter));
  for (size_t at : {size_t{0}, sizeof larger.tail - 1}) {
    larger.tail[at] = 1;
    EXPECT_EQ(-E2BIG, queue().Enter(&larger.enter)) << at;
    larger.tail[at] = 0;
  }
}

TEST_F(EnterTest, FlagsAndFields) {
  for (int bit = 0; bit < 32; ++bit) {
    if (1u << bit == KEVENT_ENTER_ABSOLUTE) continue;
    kevent_enter enter = MakeEnter();
    enter.flags = 1u << bit;
    EXPECT_EQ(-EINVAL, Enter(enter)) << bit;
  }
  for (int i = 0; i < 2; ++i) {
    kevent_enter enter = MakeEnter();
    enter.reserved[i] = uint64_t{1} << (i * 40);
    EXPECT_EQ(-EINVAL, Enter(enter)) << i;
  }
  for (uint32_t clock : {2u, 3u, 4u, 11u, 12u, 99u, 0x80000000u, 0xffffffffu}) {
    kevent_enter enter = MakeEnter();
    enter.clock = clock;
    enter.min = 1;
    enter.timeout_ns = 1;
    EXPECT_EQ(-EINVAL, Enter(enter)) << clock;
  }
  for (uint32_t min : {queue().cq_entries() + 1, 0xffffffffu}) {
    kevent_enter enter = MakeEnter();
    enter.min = min;
    enter.timeout_ns = 0;
    EXPECT_EQ(-EINVAL, Enter(enter)) << min;
  }
  kevent_enter enter = MakeEnter();
  enter.min = queue().cq_entries();
  enter.timeout_ns = 0;
  EXPECT_EQ(0, Enter(enter));
  uint64_t mask = 0;
  for (uint32_t size : {0u, 4u, 16u, 128u, 0xffffffffu}) {
    enter = MakeEnter();
    enter.sigmask = Address(&mask);
    enter.sigmask_size = size;
    EXPECT_EQ(-EINVAL, Enter(enter)) << size;
  }
  enter = MakeEnter();
  enter.nr_changes = KEVENT_MAX_CHANGES + 1;
  EXPECT_EQ(-EINVAL, Enter(enter));
}

TEST_F(EnterTest, BadAddresses) {
  for (uint64_t address : kBadAddresses) {
    EXPECT_EQ(-EFAULT, Ioctl(queue().fd(), KEVENT_ENTER, address));
    kevent_enter enter = MakeEnter();
    enter.nr_changes = 1;
    enter.changes = address;
    EXPECT_EQ(-EFAULT, Enter(enter)) << address;
    if (address == 0) continue;  // has a meaning for the others
    enter = MakeEnter();
    enter.sigmask = address;
    enter.sigmask_size = 8;
    enter.min = 1;
    enter.timeout_ns = 0;
    EXPECT_EQ(-EFAULT, Enter(enter)) << address;
  }
}

TEST_F(EnterTest, EntriesThatCannotBeCopiedStayUnread) {
  ASSERT_EQ(0, queue().Ready(user_, 5));
  for (uint64_t address : kBadAddresses) {
    if (address == 0) continue;
    kevent_enter enter = MakeEnter();
    enter.entries = address;
    enter.max = 4;
    EXPECT_EQ(-EFAULT, Enter(enter)) << address;
    EXPECT_EQ(1u, queue().Unread());
  }
  PageEnd end;
  kevent_entry* entries = end.Last<kevent_entry>(1);
  end.Protect(PROT_READ);
  EXPECT_EQ(-EFAULT, queue().Copy({entries, 1}, 0, 0));
  EXPECT_EQ(1u, queue().Unread());
  end.Protect(PROT_READ | PROT_WRITE);
  EXPECT_EQ(1, queue().Copy({entries, 1}, 0, 0));
  EXPECT_EQ(5u, entries[0].data[0]);
  EXPECT_EQ(0u, queue().Unread());
}

TEST_F(EnterTest, WhatWasCopiedBeforeMemoryEndsIsDelivered) {
  std::vector<uint64_t> users;
  for (int i = 0; i < 5; ++i) {
    users.push_back(MustAdd(AddUser()));
    ASSERT_EQ(0, queue().Ready(users.back()));
  }
  PageEnd end;
  kevent_entry* entries = end.Last<kevent_entry>(2);
  kevent_enter enter = MakeEnter();
  enter.entries = Address(entries);
  enter.max = 5;
  ASSERT_EQ(2, queue().Enter(&enter));
  EXPECT_EQ(users[0], entries[0].handle);
  EXPECT_EQ(users[1], entries[1].handle);
  ASSERT_EQ(3u, queue().Unread());
  kevent_entry rest[3];
  ASSERT_EQ(3, queue().Copy(rest, 3, 0));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(users[2 + i], rest[i].handle);
}

TEST_F(EnterTest, TellsWhatItChangedAlsoOnFailure) {
  std::array<kevent_sqe, 2> changes = {AddUser(), AddUser()};
  kevent_enter enter = MakeEnter();
  enter.changes = Address(changes.data());
  enter.nr_changes = 2;
  enter.sigmask = 8;
  enter.sigmask_size = 8;
  enter.min = 1;
  const int r = queue().Enter(&enter);
  EXPECT_EQ(-EFAULT, r);
  EXPECT_TRUE(enter.changed == 0 || enter.changed == 2) << enter.changed;
  // Whichever it says is true.
  for (kevent_sqe& change : changes) {
    EXPECT_EQ(enter.changed ? 0 : -ENOENT, queue().Remove(change.handle));
  }
  ASSERT_EQ(0, queue().Ready(user_));
  changes = {AddUser(), AddUser()};
  enter = MakeEnter();
  enter.changes = Address(changes.data());
  enter.nr_changes = 2;
  enter.entries = 8;
  enter.max = 1;
  EXPECT_EQ(-EFAULT, queue().Enter(&enter));
  EXPECT_EQ(2u, enter.changed);
  for (kevent_sqe& change : changes) {
    EXPECT_EQ(0, queue().Remove(change.handle));
  }
}

TEST_F(EnterTest, AStructThatCannotBeWritten) {
  kevent_sqe change = AddUser();
  PageEnd end;
  kevent_enter* enter = end.Last<kevent_enter>(1);
  *enter = MakeEnter();
  enter->changes = Address(&change);
  enter->nr_changes = 1;
  end.Protect(PROT_READ);
  EXPECT_EQ(-EFAULT, queue().Enter(enter));
}

TEST_F(EnterTest, ChangesStopWhereMemoryEnds) {
  PageEnd end;
  kevent_sqe* changes = end.Last<kevent_sqe>(2);
  changes[0] = AddUser();
  changes[1] = AddUser();
  kevent_enter enter = MakeEnter();
  enter.changes = Address(changes);
  enter.nr_changes = 3;
  const int r = queue().Enter(&enter);
  EXPECT_TRUE(r == 0 || r == -EFAULT) << r;
  EXPECT_EQ(2u, enter.changed);
  EXPECT_EQ(0, queue().Remove(changes[0].handle));
  EXPECT_EQ(0, queue().Remove(changes[1].handle));
}

}  // namespace
}  // namespace kevent::raw
