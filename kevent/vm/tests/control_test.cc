// SPDX-License-Identifier: Apache-2.0
//
// KEVENT_CONTROL and KEVENT_ENTER: every field, with what must be refused.
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <array>

#include "kevent/vm/tests/fixture.h"
#include "kevent/vm/tests/hostile.h"

namespace kevent::raw {
namespace {

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
