// SPDX-License-Identifier: Apache-2.0
//
// What each source tells, in every mode. Files, timers and signals here; inodes
// are in inodes_test.cc.
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <map>
#include <thread>
#include <tuple>

#include "kevent/vm/tests/pollables.h"

namespace kevent::raw {
namespace {

const char* ReadingName(Reading reading) {
  return reading == Reading::kRing ? "ring" : "copies";
}

// ---- Files: level, edge, one-shot, dispatch ----

enum class Via { kPoll, kSocket };

using FileCase = std::tuple<std::string, Via, Reading>;

class FileTest : public QueueTest,
                 public testing::WithParamInterface<FileCase> {
 protected:
  void SetUp() override {
    QueueTest::SetUp();
    Reopen({}, reading());
    source_ = MakePollable(std::get<0>(GetParam()));
    ASSERT_TRUE(source_);
  }
  void TearDown() override {
    QueueTest::TearDown();
    source_.reset();
  }
  Reading reading() const { return std::get<2>(GetParam()); }
  uint8_t source() const {
    return std::get<1>(GetParam()) == Via::kSocket ? KEVENT_SOURCE_SOCKET
                                                   : KEVENT_SOURCE_POLL;
  }
  kevent_sqe AddIt(uint16_t flags, uint64_t user_data = 1) const {
    kevent_sqe sqe =
        AddPoll(source_->fd(), source_->events(), flags, user_data);
    sqe.source = source();
    return sqe;
  }
  // Its next entry.
  kevent_entry ExpectIt(uint64_t handle, uint64_t user_data = 1) {
    kevent_entry entry = Expect(handle, source_->events());
    EXPECT_EQ(user_data, entry.user_data);
    // A socket may be called what it is.
    EXPECT_TRUE(entry.source == source() ||
                (entry.source == KEVENT_SOURCE_SOCKET && source_->is_socket()))
        << Describe(entry);
    EXPECT_EQ(0, entry.result);
    EXPECT_FALSE(entry.flags & KEVENT_ENTRY_BROKEN);
    return entry;
  }
  void MakeIdle() {
    source_->MakeIdle();
    // Room for a moment, while it was filled up.
    if (source_->events() != KEVENT_OUT) return;
    kevent_entry entry;
    ASSERT_GE(queue().Look(), 0);
    while (queue().Unread() > 0) entry = Next();
  }

  std::unique_ptr<Pollable> source_;
};

std::vector<FileCase> FileCases() {
  std::vector<FileCase> cases;
  for (const std::string& name : PollableNames()) {
    for (Reading reading : {Reading::kRing, Reading::kCopies}) {
      cases.emplace_back(name, Via::kPoll, reading);
      if (IsSocket(name)) cases.emplace_back(name, Via::kSocket, reading);
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(
    Files, FileTest, testing::ValuesIn(FileCases()), [](const auto& info) {
      return std::get<0>(info.param) +
             (std::get<1>(info.param) == Via::kSocket ? "_socket_" : "_poll_") +
             ReadingName(std::get<2>(info.param));
    });

TEST_P(FileTest, LevelTellsAsLongAsItIsReady) {
  const uint64_t handle = MustAdd(AddIt(0));
  ExpectNothing();
  source_->MakeReady();
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(ExpectIt(handle).flags & KEVENT_ENTRY_MORE);
  }
  MakeIdle();
  ExpectNothing();
  source_->MakeReady();
  ExpectIt(handle);
  MakeIdle();
  ExpectNothing();
}

TEST_P(FileTest, AtMostOneEntryIsUnread) {
  if (!source_->prompt()) GTEST_SKIP() << "news come at any time";
  for (uint16_t flags : {0, KEVENT_EDGE}) {
    const uint64_t handle = MustAdd(AddIt(flags));
    for (int i = 0; i < (source_->repeats() ? 4 : 1); ++i) {
      source_->MakeReady();
      ASSERT_EQ(1, queue().Wait(1, PatienceNs()));
      ASSERT_EQ(1, queue().Look());
    }
    ExpectIt(handle);
    MakeIdle();
    ExpectNothing();
    EXPECT_EQ(0, queue().Remove(handle));
  }
}

TEST_P(FileTest, ComesWithoutACall) {
  if (reading() != Reading::kRing) GTEST_SKIP() << "copies need one";
  if (source_->needs_call()) GTEST_SKIP() << "only the owner can tell";
  const uint64_t handle = MustAdd(AddIt(0));
  for (int i = 0; i < 3; ++i) {
    // What changes before the next call is reported too.
    source_->MakeReady();
    kevent_entry entry = {};
    const int64_t deadline = NowNs() + PatienceNs();
    while (!queue().Take(&entry) && NowNs() < deadline) sched_yield();
    ASSERT_EQ(handle, entry.handle);
    ExpectTold(entry, source_->events());
    source_->MakeIdle();
    if (source_->events() == KEVENT_OUT) {
      while (queue().Take(&entry)) {
      }
    }
  }
}

TEST_P(FileTest, ReadyAtOnceIsAnsweredAtOnce) {
  source_->MakeReady();
  for (uint16_t flags : {0, KEVENT_EDGE}) {
    kevent_sqe add = AddIt(flags);
    ASSERT_EQ(KEVENT_READY, queue().Make(&add));
    EXPECT_EQ(source_->events(), add.events);
    EXPECT_EQ(0u, queue().Unread());
    if (flags == 0) {
      // It has been told, and is told again while it is true.
      ExpectIt(add.handle);
    } else {
      ExpectNothing();
    }
    EXPECT_EQ(0, queue().Remove(add.handle));
    ExpectNothing();
  }
}

TEST_P(FileTest, AlwaysQueue) {
  source_->MakeReady();
  kevent_sqe add = AddIt(KEVENT_ALWAYS_QUEUE | KEVENT_EDGE);
  ASSERT_EQ(0, queue().Make(&add));
  EXPECT_EQ(1u, queue().Unread());
  ExpectIt(add.handle);
  ExpectNothing();
}

TEST_P(FileTest, EdgeTellsOfEachChange) {
  const uint64_t handle = MustAdd(AddIt(KEVENT_EDGE));
  ExpectNothing();
  source_->MakeReady();
  EXPECT_TRUE(ExpectIt(handle).flags & KEVENT_ENTRY_MORE);
  ExpectNothing();
  if (source_->repeats()) {
    source_->MakeReady();
    ExpectIt(handle);
    ExpectNothing();
  }
  for (int i = 0; i < 2; ++i) {
    MakeIdle();
    ExpectNothing();
    source_->MakeReady();
    ExpectIt(handle);
  }
}

TEST_P(FileTest, OneShotEndsWithItsEntry) {
  for (uint16_t flags : {0, KEVENT_EDGE}) {
    const uint64_t handle =
        MustAdd(AddIt(static_cast<uint16_t>(flags | KEVENT_ONESHOT)));
    source_->MakeReady();
    kevent_entry entry = ExpectIt(handle);
    EXPECT_TRUE(entry.flags & KEVENT_ENTRY_DONE);
    EXPECT_EQ(-ENOENT, queue().Remove(handle));
    ExpectNothing();
    MakeIdle();
    source_->MakeReady();
    ExpectNothing();
    kevent_sqe again = AddIt(KEVENT_ONESHOT);
    ASSERT_EQ(KEVENT_READY, queue().Make(&again));
    EXPECT_EQ(-ENOENT, queue().Remove(again.handle))
        << "the answer was its entry";
    MakeIdle();
  }
}

TEST_P(FileTest, DispatchIsSilentUntilEnabled) {
  const uint64_t handle = MustAdd(AddIt(KEVENT_DISPATCH));
  source_->MakeReady();
  ExpectIt(handle);
  ExpectNothing();
  if (source_->repeats()) source_->MakeReady();
  ExpectNothing();
  // Still ready, which is told at once, and silences it again.
  kevent_sqe enable = Change(KEVENT_OP_ENABLE, handle);
  ASSERT_EQ(KEVENT_READY, queue().Make(&enable));
  EXPECT_EQ(source_->events(), enable.events);
  ExpectNothing();
  MakeIdle();
  EXPECT_EQ(0, queue().Enable(handle));
  ExpectNothing();
  source_->MakeReady();
  ExpectIt(handle);
  MakeIdle();
  source_->MakeReady();
  ExpectNothing();
  EXPECT_EQ(0, queue().Remove(handle));
}

TEST_P(FileTest, DispatchAndAlwaysQueue) {
  const uint64_t handle = MustAdd(AddIt(KEVENT_DISPATCH | KEVENT_ALWAYS_QUEUE));
  source_->MakeReady();
  for (int i = 0; i < 3; ++i) {
    ExpectIt(handle);
    ExpectNothing();
    EXPECT_EQ(0, queue().Enable(handle));
  }
  ExpectIt(handle);
}

TEST_P(FileTest, DisableAndEnable) {
  for (uint16_t flags : {0, KEVENT_EDGE}) {
    const uint64_t handle = MustAdd(AddIt(flags));
    EXPECT_EQ(0, queue().Disable(handle));
    source_->MakeReady();
    ExpectNothing();
    EXPECT_EQ(KEVENT_READY, queue().Enable(handle));
    if (flags == 0) ExpectIt(handle);
    EXPECT_EQ(0, queue().Disable(handle));
    EXPECT_EQ(0, queue().Disable(handle));
    MakeIdle();
    ExpectNothing();
    EXPECT_EQ(0, queue().Enable(handle));
    ExpectNothing();
    source_->MakeReady();
    ExpectIt(handle);
    MakeIdle();
    EXPECT_EQ(0, queue().Remove(handle));
  }
}

TEST_P(FileTest, AddedSilent) {
  const uint64_t handle = MustAdd(AddIt(KEVENT_DISABLED));
  source_->MakeReady();
  ExpectNothing();
  kevent_sqe enable = Change(KEVENT_OP_ENABLE, handle);
  EXPECT_EQ(KEVENT_READY, queue().Make(&enable));
  EXPECT_EQ(source_->events(), enable.events);
  ExpectIt(handle);
}

TEST_P(FileTest, Modify) {
  const uint64_t handle = MustAdd(AddIt(0, 1));
  auto modify = [&](uint32_t events, uint16_t flags, uint64_t user_data) {
    kevent_sqe change = Change(KEVENT_OP_MODIFY, handle);
    change.events = events;
    change.flags = flags;
    change.user_data = user_data;
    return queue().Make(&change);
  };
  EXPECT_EQ(0, modify(KEVENT_PRI, 0, 2));
  source_->MakeReady();
  ExpectNothing();
  EXPECT_EQ(KEVENT_READY, modify(source_->events(), 0, 3));
  ExpectIt(handle, 3);
  EXPECT_EQ(KEVENT_READY, modify(source_->events(), KEVENT_EDGE, 4));
  ExpectNothing();
  EXPECT_EQ(0, modify(source_->events(), KEVENT_EDGE | KEVENT_ALWAYS_QUEUE, 5));
  ExpectIt(handle, 5);
  ExpectNothing();
  MakeIdle();
  EXPECT_EQ(0, modify(source_->events(), KEVENT_ONESHOT, 6));
  source_->MakeReady();
  EXPECT_TRUE(ExpectIt(handle, 6).flags & KEVENT_ENTRY_DONE);
  EXPECT_EQ(-ENOENT, modify(source_->events(), 0, 7));
}

TEST_P(FileTest, ModifyLeavesTheUnreadEntry) {
  const uint64_t handle = MustAdd(AddIt(0, 1));
  source_->MakeReady();
  ASSERT_EQ(1, queue().Wait(1, PatienceNs()));
  kevent_sqe change = Change(KEVENT_OP_MODIFY, handle);
  change.events = source_->events();
  change.flags = KEVENT_DISABLED;
  change.user_data = 2;
  EXPECT_EQ(0, queue().Make(&change));
  ExpectIt(handle, 1);
  ExpectNothing();
}

TEST_P(FileTest, RemoveEndsIt) {
  const uint64_t handle = MustAdd(AddIt(0));
  EXPECT_EQ(0, queue().Remove(handle));
  source_->MakeReady();
  ExpectNothing();
  EXPECT_EQ(-ENOENT, queue().Remove(handle));
  // With its entry unread, which may stay or go; nothing follows it.
  const uint64_t next = MustAdd(AddIt(KEVENT_ALWAYS_QUEUE));
  EXPECT_NE(handle, next);
  EXPECT_EQ(1u, queue().Unread());
  EXPECT_EQ(0, queue().Remove(next));
  AllowGaps();
  if (queue().Unread() > 0) {
    kevent_entry entry = {};
    if (reading() == Reading::kRing) {
      ASSERT_TRUE(queue().Take(&entry));
      EXPECT_EQ(next, entry.handle);
    } else if (queue().Copy({&entry, 1}, 0, 0) == 1) {
      EXPECT_EQ(next, entry.handle);
    }
  }
  if (source_->repeats()) source_->MakeReady();
  ExpectNothing();
}

TEST_P(FileTest, LastCheckDropsWhatIsOver) {
  if (!source_->prompt()) GTEST_SKIP() << "news come at any time";
  if (reading() != Reading::kCopies) GTEST_SKIP() << "of entries copied out";
  AllowGaps();
  for (uint16_t flags : {0, KEVENT_EDGE, KEVENT_DISPATCH}) {
    const uint64_t handle =
        MustAdd(AddIt(static_cast<uint16_t>(flags | KEVENT_LAST_CHECK)));
    source_->MakeReady();
    ASSERT_EQ(1, queue().Wait(1, PatienceNs()));
    source_->MakeIdle();
    kevent_entry entry = {};
    EXPECT_EQ(0, queue().Copy({&entry, 1}, 0, 0)) << Describe(entry);
    EXPECT_EQ(0u, queue().Unread());
    // Dropped, not done with.
    source_->MakeReady();
    ExpectIt(handle);
    source_->MakeIdle();
    EXPECT_EQ(0, queue().Remove(handle));
    ExpectNothing();
  }
}

TEST_P(FileTest, LastCheckWaitsOn) {
  if (reading() != Reading::kCopies) GTEST_SKIP() << "of entries copied out";
  AllowGaps();
  const uint64_t handle = MustAdd(AddIt(KEVENT_LAST_CHECK));
  source_->MakeReady();
  source_->MakeIdle();
  // The entry that is dropped is not one to return with.
  const uint64_t timer = MustAdd(AddTimer(30 * kMs));
  kevent_entry entry = {};
  ASSERT_EQ(1, queue().Copy({&entry, 1}, 1, PatienceNs()));
  EXPECT_EQ(timer, entry.handle) << Describe(entry);
  EXPECT_EQ(0, queue().Remove(handle));
}

TEST_P(FileTest, TwoInterestsInOneFile) {
  const uint64_t one = MustAdd(AddIt(KEVENT_EDGE, 1));
  const uint64_t two = MustAdd(AddIt(KEVENT_ONESHOT, 2));
  source_->MakeReady();
  std::map<uint64_t, int> seen;
  for (int i = 0; i < 2; ++i) ++seen[Next().handle];
  EXPECT_EQ(1, seen[one]);
  EXPECT_EQ(1, seen[two]);
  ExpectNothing();
  EXPECT_EQ(0, queue().Remove(one));
  ExpectNothing();
}

TEST_P(FileTest, TwoQueues) {
  if (!source_->prompt()) GTEST_SKIP() << "news come at any time";
  Queue other;
  ASSERT_EQ(0, other.Open());
  kevent_sqe add = AddIt(0, 9);
  ASSERT_EQ(0, other.Make(&add));
  const uint64_t handle = MustAdd(AddIt(0));
  source_->MakeReady();
  ExpectIt(handle);
  EXPECT_EQ(1, other.Wait(1, PatienceNs()));
  other.Close();
  ExpectIt(handle);
  MakeIdle();
  source_->MakeReady();
  ExpectIt(handle);
}

// ---- Ends and errors of files ----

class HangupTest : public QueueTest {};

TEST_F(HangupTest, WriterOfAPipeGoes) {
  Pair pipe = PipePair();
  const uint64_t handle = MustAdd(AddPoll(pipe.ours.get(), KEVENT_HUP));
  Send(pipe.peer.get(), "x");
  ExpectNothing();
  pipe.peer.Reset();
  EXPECT_EQ(uint32_t{KEVENT_HUP}, Expect(handle, KEVENT_HUP).events);
  EXPECT_EQ(0, queue().Remove(handle));
  kevent_sqe add = AddPoll(pipe.ours.get(), KEVENT_IN);
  EXPECT_EQ(KEVENT_READY, queue().Make(&add));
  EXPECT_EQ(uint32_t{KEVENT_IN | KEVENT_HUP}, add.events);
}

TEST_F(HangupTest, ReaderOfAPipeGoes) {
  Pair pipe = PipePair();
  Fill(pipe.peer.get());
  const uint64_t handle = MustAdd(AddPoll(pipe.peer.get(), KEVENT_OUT));
  pipe.ours.Reset();
  kevent_entry entry = Next();
  EXPECT_EQ(handle, entry.handle);
  EXPECT_TRUE(entry.events & KEVENT_ERR) << Describe(entry);
  EXPECT_FALSE(entry.flags & KEVENT_ENTRY_BROKEN) << "it can be closed still";
}

TEST_F(HangupTest, PeerOfASocketShutsDown) {
  for (int family : {AF_INET, AF_INET6, AF_UNIX}) {
    Pair pair = family == AF_UNIX ? SocketPair(SOCK_STREAM) : TcpPair(family);
    const uint64_t handle =
        MustAdd(AddSocket(pair.ours.get(), KEVENT_SOCKET_RECV));
    ASSERT_EQ(0, shutdown(pair.peer.get(), SHUT_WR));
    kevent_entry entry = Next();
    EXPECT_EQ(handle, entry.handle);
    EXPECT_TRUE(entry.events & KEVENT_RDHUP) << Describe(entry);
    EXPECT_FALSE(entry.flags & KEVENT_ENTRY_BROKEN);
    EXPECT_EQ(0, queue().Remove(handle));
    ExpectNothing();
  }
}

TEST_F(HangupTest, PeerOfASocketResets) {
  for (int family : {AF_INET, AF_INET6}) {
    Pair pair = TcpPair(family);
    const uint64_t handle =
        MustAdd(AddSocket(pair.ours.get(), KEVENT_SOCKET_RECV, KEVENT_ONESHOT));
    const linger reset = {1, 0};
    ASSERT_EQ(0, setsockopt(pair.peer.get(), SOL_SOCKET, SO_LINGER, &reset,
                            sizeof reset));
    pair.peer.Reset();
    kevent_entry entry = ExpectLast(handle);
    EXPECT_TRUE(entry.events & (KEVENT_ERR | KEVENT_HUP)) << Describe(entry);
    int error = 0;
    socklen_t length = sizeof error;
    EXPECT_EQ(
        0, getsockopt(pair.ours.get(), SOL_SOCKET, SO_ERROR, &error, &length));
    EXPECT_EQ(ECONNRESET, error);
  }
}

TEST_F(HangupTest, ASocketThatConnects) {
  for (int family : {AF_INET, AF_INET6}) {
    Fd listener = Listen(family);
    sockaddr_storage address;
    socklen_t length = sizeof address;
    ASSERT_EQ(0, getsockname(listener.get(),
                             reinterpret_cast<sockaddr*>(&address), &length));
    Fd fd(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    // Not connected yet: it is hung up, and can be watched already.
    kevent_sqe add = AddSocket(fd.get(), KEVENT_OUT);
    int r = queue().Make(&add);
    ASSERT_GE(r, 0);
    if (r == KEVENT_READY) {
      EXPECT_TRUE(add.events & KEVENT_HUP);
    }
    r = connect(fd.get(), reinterpret_cast<sockaddr*>(&address), length);
    EXPECT_TRUE(r == 0 || errno == EINPROGRESS) << strerror(errno);
    for (int i = 0; i < 100; ++i) {
      kevent_entry entry = Next();
      ASSERT_EQ(add.handle, entry.handle);
      if ((entry.events & KEVENT_OUT) && !(entry.events & KEVENT_HUP)) break;
      ASSERT_LT(i, 99) << Describe(entry);
    }
    EXPECT_EQ(0, queue().Remove(add.handle));
    kevent_entry entry;
    while (queue().Take(&entry)) {
    }
    // A connection refused.
    listener.Reset();
    Fd refused(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    r = connect(refused.get(), reinterpret_cast<sockaddr*>(&address), length);
    EXPECT_EQ(-1, r);
    if (errno == EINPROGRESS) {
      add = AddSocket(refused.get(), KEVENT_OUT,
                      KEVENT_ALWAYS_QUEUE | KEVENT_ONESHOT);
      ASSERT_EQ(0, queue().Make(&add));
      queue().Look();
      ASSERT_GT(queue().Wait(1, PatienceNs()), 0);
      ASSERT_TRUE(queue().Take(&entry));
      EXPECT_EQ(add.handle, entry.handle);
      EXPECT_TRUE(entry.events & KEVENT_ERR) << Describe(entry);
    }
    Reopen({});
  }
}

TEST_F(HangupTest, OutOfBandData) {
  Pair pair = TcpPair();
  const uint64_t handle = MustAdd(AddSocket(pair.ours.get(), KEVENT_PRI));
  Send(pair.peer.get(), "x");
  ASSERT_TRUE(WaitPoll(pair.ours.get(), POLLIN));
  ExpectNothing();
  ASSERT_EQ(1, send(pair.peer.get(), "!", 1, MSG_OOB));
  Expect(handle, KEVENT_PRI);
}

TEST_F(HangupTest, BothDirectionsInOneInterest) {
  Pair pair = TcpPair();
  const uint64_t handle = MustAdd(
      AddSocket(pair.ours.get(), KEVENT_IN | KEVENT_OUT, KEVENT_ALWAYS_QUEUE));
  Expect(handle, KEVENT_OUT);
  Send(pair.peer.get(), "x");
  ASSERT_TRUE(WaitPoll(pair.ours.get(), POLLIN));
  // What happens may have an entry of its own; a test tells all that is true.
  uint32_t told = 0;
  for (int i = 0; i < 3 && told != (KEVENT_IN | KEVENT_OUT); ++i) {
    kevent_entry entry = Next();
    EXPECT_EQ(handle, entry.handle);
    told = entry.events;
  }
  EXPECT_EQ(uint32_t{KEVENT_IN | KEVENT_OUT}, told);
}

TEST_F(HangupTest, EventfdFromAnotherThread) {
  const int fd = Own(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  const uint64_t handle = MustAdd(AddPoll(fd, KEVENT_IN, KEVENT_EDGE));
  std::thread writer([&] { EXPECT_EQ(0, eventfd_write(fd, 1)); });
  Expect(handle, KEVENT_IN);
  writer.join();
  ExpectNothing();
}

TEST_F(HangupTest, TerminalOfAGoneProcess) {
  Fd master(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  ASSERT_TRUE(master);
  ASSERT_EQ(0, grantpt(master.get()));
  ASSERT_EQ(0, unlockpt(master.get()));
  Child child([&] {
    Fd slave(open(ptsname(master.get()), O_RDWR | O_NOCTTY));
    CHILD_CHECK(slave);
    CHILD_CHECK(write(slave.get(), "x", 1) == 1);
    char byte;
    CHILD_CHECK(read(slave.get(), &byte, 1) == 1);
  });
  ReadExactly(master.get(), 1);
  const uint64_t handle = MustAdd(AddPoll(master.get(), KEVENT_IN));
  ExpectNothing();
  Send(master.get(), "\n");
  EXPECT_CHILD_OK(child);
  for (;;) {
    kevent_entry entry = Next();
    ASSERT_EQ(handle, entry.handle);
    if (entry.events & KEVENT_HUP) break;
    Drain(master.get());  // the echo
  }
}

// ---- Timers ----

using TimerCase = std::tuple<int, Reading>;

class TimerTest : public QueueTest,
                  public testing::WithParamInterface<TimerCase> {
 protected:
  void SetUp() override {
    QueueTest::SetUp();
    Reopen({}, std::get<1>(GetParam()));
  }
  int clock() const { return std::get<0>(GetParam()); }
  int64_t Now() const { return NowNs(clock()); }
  kevent_sqe Timer(int64_t time, int64_t period = 0, uint16_t flags = 0,
                   uint64_t user_data = 3) const {
    return AddTimer(time, period, flags, user_data, clock());
  }
  kevent_entry ExpectTimer(uint64_t handle) {
    kevent_entry entry = Next();
    EXPECT_EQ(handle, entry.handle) << Describe(entry);
    EXPECT_EQ(uint16_t{KEVENT_SOURCE_TIMER}, entry.source);
    EXPECT_EQ(0u, entry.events);
    EXPECT_GE(entry.data[0], 1u);
    EXPECT_EQ(0, entry.result);
    return entry;
  }
  // Waits until `time` of this clock has come, by another timer of the queue
  // with nothing before it.
  void PassUntil(int64_t time) {
    const uint64_t handle = MustAdd(
        AddTimer(time, 0, KEVENT_ABSOLUTE | KEVENT_ALWAYS_QUEUE, 99, clock()));
    kevent_entry entry = Next();
    EXPECT_EQ(handle, entry.handle) << "unexpected " << Describe(entry);
  }
};

INSTANTIATE_TEST_SUITE_P(
    Clocks, TimerTest,
    testing::Combine(testing::Values(CLOCK_MONOTONIC, CLOCK_REALTIME,
                                     CLOCK_BOOTTIME),
                     testing::Values(Reading::kRing, Reading::kCopies)),
    [](const auto& info) {
      const int clock = std::get<0>(info.param);
      return std::string(clock == CLOCK_MONOTONIC  ? "monotonic_"
                         : clock == CLOCK_REALTIME ? "realtime_"
                                                   : "boottime_") +
             ReadingName(std::get<1>(info.param));
    });

TEST_P(TimerTest, FiresOnce) {
  const int64_t start = Now();
  const uint64_t handle = MustAdd(Timer(20 * kMs));
  kevent_entry entry = ExpectTimer(handle);
  EXPECT_GE(Now(), start + 20 * kMs);
  EXPECT_EQ(1u, entry.data[0]);
  EXPECT_EQ(3u, entry.user_data);
  EXPECT_TRUE(entry.flags & KEVENT_ENTRY_DONE);
  EXPECT_EQ(-ENOENT, queue().Remove(handle));
  ExpectNothing();
}

TEST_P(TimerTest, FiresAtATime) {
  const int64_t time = Now() + 20 * kMs;
  const uint64_t handle = MustAdd(Timer(time, 0, KEVENT_ABSOLUTE));
  EXPECT_TRUE(ExpectTimer(handle).flags & KEVENT_ENTRY_DONE);
  EXPECT_GE(Now(), time);
}

TEST_P(TimerTest, TimesThatAreOver) {
  for (auto [time, flags] : {std::pair<int64_t, uint16_t>{0, 0},
                             {0, KEVENT_ABSOLUTE},
                             {1, KEVENT_ABSOLUTE},
                             {Now() - kSecond, KEVENT_ABSOLUTE}}) {
    const uint64_t handle = MustAdd(
        Timer(time, 0, static_cast<uint16_t>(flags | KEVENT_ALWAYS_QUEUE)));
    kevent_entry entry = ExpectTimer(handle);
    EXPECT_EQ(1u, entry.data[0]);
    EXPECT_TRUE(entry.flags & KEVENT_ENTRY_DONE);
  }
  ExpectNothing();
}

TEST_P(TimerTest, InTheOrderOfTheirTimes) {
  const int64_t base = Now() + 30 * kMs;
  std::vector<uint64_t> handles(10);
  for (int i = 9; i >= 0; --i) {
    handles[i] = MustAdd(Timer(base + i * 5 * kMs, 0, KEVENT_ABSOLUTE));
  }
  for (int i = 0; i < 10; ++i) ExpectTimer(handles[i]);
  ExpectNothing();
}

TEST_P(TimerTest, PeriodsAreCounted) {
  constexpr int64_t kPeriod = 5 * kMs;
  const int64_t before = Now();
  const uint64_t handle = MustAdd(Timer(kPeriod, kPeriod));
  const int64_t after = Now();
  uint64_t fired = 0;
  for (int i = 0; i < 5; ++i) {
    kevent_entry entry = ExpectTimer(handle);
    EXPECT_TRUE(entry.flags & KEVENT_ENTRY_MORE);
    fired += entry.data[0];
    const int64_t possible = (Now() - before) / kPeriod;
    EXPECT_LE(fired, static_cast<uint64_t>(possible));
  }
  EXPECT_GE(fired, 5u);
  // Those while an entry is unread come with the next one.
  kevent_sqe other =
      AddTimer(after + 100 * kPeriod, 0, KEVENT_ABSOLUTE, 7, clock());
  ASSERT_EQ(0, queue().Make(&other));
  for (;;) {
    ASSERT_GT(queue().Wait(2, PatienceNs()), 1) << "one of each";
    kevent_entry entry = Next();
    if (entry.handle == handle) {
      fired += entry.data[0];
      entry = Next();
    }
    if (entry.handle == other.handle) break;
    ASSERT_EQ(handle, entry.handle);
    fired += entry.data[0];
  }
  EXPECT_GE(Now(), after + 100 * kPeriod);
  EXPECT_EQ(0, queue().Disable(handle));
  EXPECT_LE(fired, static_cast<uint64_t>((Now() - before) / kPeriod));
}

TEST_P(TimerTest, NoneIsLostWhileUnread) {
  constexpr int64_t kPeriod = kMs;
  const int64_t base = Now();
  const uint64_t handle =
      MustAdd(Timer(base + kPeriod, kPeriod, KEVENT_ABSOLUTE));
  // Its own queue waits, so that this one's entry stays unread.
  Queue other;
  ASSERT_EQ(0, other.Open());
  kevent_sqe late =
      AddTimer(base + 100 * kPeriod, 0, KEVENT_ABSOLUTE, 0, clock());
  ASSERT_EQ(0, other.Make(&late));
  ASSERT_EQ(1, other.Wait(1, PatienceNs()));
  uint64_t fired = 0;
  int entries = 0;
  for (int64_t deadline = NowNs() + PatienceNs(); fired < 100; ++entries) {
    ASSERT_LT(NowNs(), deadline) << fired;
    fired += ExpectTimer(handle).data[0];
  }
  EXPECT_LE(fired, static_cast<uint64_t>((Now() - base) / kPeriod));
  EXPECT_EQ(0, queue().Remove(handle));
}

TEST_P(TimerTest, OneShotWithAPeriod) {
  const uint64_t handle = MustAdd(Timer(kMs, kMs, KEVENT_ONESHOT));
  EXPECT_TRUE(ExpectTimer(handle).flags & KEVENT_ENTRY_DONE);
  EXPECT_EQ(-ENOENT, queue().Remove(handle));
  PassUntil(Now() + 10 * kMs);
}

TEST_P(TimerTest, DispatchSilencesIt) {
  const uint64_t handle = MustAdd(Timer(kMs, kMs, KEVENT_DISPATCH));
  EXPECT_TRUE(ExpectTimer(handle).flags & KEVENT_ENTRY_MORE);
  PassUntil(Now() + 10 * kMs);
  const int enabled = queue().Enable(handle);
  EXPECT_EQ(0, enabled);
  ExpectTimer(handle);
  PassUntil(Now() + 10 * kMs);
}

TEST_P(TimerTest, DisableAndEnable) {
  const uint64_t handle = MustAdd(Timer(20 * kMs, 5 * kMs));
  EXPECT_EQ(0, queue().Disable(handle));
  PassUntil(Now() + 50 * kMs);
  EXPECT_EQ(0, queue().Enable(handle));
  ExpectTimer(handle);
}

TEST_P(TimerTest, Removed) {
  const int64_t time = Now() + 20 * kMs;
  std::vector<uint64_t> handles;
  for (int i = 0; i < 20; ++i) {
    handles.push_back(MustAdd(Timer(time + i * 10'000, 0, KEVENT_ABSOLUTE)));
  }
  handles.push_back(MustAdd(Timer(20 * kMs, KEVENT_TIMER_MIN_NS * 1000)));
  if (Now() >= time) GTEST_SKIP() << "this machine is too slow for it";
  for (uint64_t handle : handles) {
    // The last one may be firing at this moment.
    EXPECT_EQ(0, queue().Remove(handle));
  }
  if (queue().Unread() > 0) GTEST_SKIP() << "this machine is too slow for it";
  PassUntil(time + 30 * kMs);
  ExpectNothing();
}

TEST_P(TimerTest, Modified) {
  const uint64_t handle = MustAdd(Timer(3600 * kSecond));
  kevent_sqe change = Change(KEVENT_OP_MODIFY, handle);
  change.arg[0] = 10 * kMs;
  change.user_data = 4;
  const int64_t start = Now();
  EXPECT_EQ(0, queue().Make(&change));
  EXPECT_EQ(4u, ExpectTimer(handle).user_data);
  EXPECT_GE(Now(), start + 10 * kMs);
  const uint64_t soon = MustAdd(Timer(kSecond));
  change = Change(KEVENT_OP_MODIFY, soon);
  change.arg[0] = 3600 * kSecond;
  EXPECT_EQ(0, queue().Make(&change));
  change.arg[0] = 0;
  change.result = 0;
  change.arg[1] = 1;
  EXPECT_EQ(-EINVAL, queue().Make(&change));
  PassUntil(Now() + kSecond);
  EXPECT_EQ(0, queue().Remove(soon));
}

TEST_P(TimerTest, TheShortestPeriod) {
  const uint64_t handle = MustAdd(Timer(0, KEVENT_TIMER_MIN_NS));
  // It must not keep a processor from everything else.
  ASSERT_GE(queue().Wait(1, PatienceNs()), 1);
  EXPECT_EQ(0, queue().Remove(handle));
  kevent_entry entry;
  ASSERT_GE(queue().Look(), 0);
  while (queue().Unread() > 0) {
    entry = Next();
    EXPECT_EQ(handle, entry.handle);
  }
  ExpectNothing();
}

// ---- Signals ----

class SignalTest : public QueueTest,
                   public testing::WithParamInterface<Reading> {
 protected:
  void SetUp() override {
    sigset_t mask;
    sigemptyset(&mask);
    for (int signo : {SIGUSR1, SIGUSR2, SIGRTMIN + 1, SIGCHLD}) {
      sigaddset(&mask, signo);
    }
    pthread_sigmask(SIG_BLOCK, &mask, &before_);
    QueueTest::SetUp();
    Reopen({}, GetParam());
  }
  void TearDown() override {
    QueueTest::TearDown();
    const timespec none = {0, 0};
    sigset_t all;
    sigfillset(&all);
    while (sigtimedwait(&all, nullptr, &none) > 0) {
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  kevent_entry ExpectSignal(uint64_t handle, int signo) {
    kevent_entry entry = Next();
    EXPECT_EQ(handle, entry.handle) << Describe(entry);
    EXPECT_EQ(uint16_t{KEVENT_SOURCE_SIGNAL}, entry.source);
    EXPECT_EQ(static_cast<uint32_t>(signo), entry.events);
    return entry;
  }
  static bool IsPending(int signo) {
    sigset_t pending;
    sigpending(&pending);
    return sigismember(&pending, signo);
  }

 private:
  sigset_t before_;
};

INSTANTIATE_TEST_SUITE_P(Readings, SignalTest,
                         testing::Values(Reading::kRing, Reading::kCopies),
                         [](const auto& info) {
                           return std::string(ReadingName(info.param));
                         });

TEST_P(SignalTest, IsTakenByEnter) {
  const uint64_t handle = MustAdd(AddSignal(SIGUSR1, 0, 11));
  ExpectNothing();
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(queue().Pending());
    ASSERT_EQ(0, kill(getpid(), SIGUSR1));
    EXPECT_TRUE(queue().Pending());
    EXPECT_EQ(0u, queue().Unread());
    EXPECT_TRUE(IsPending(SIGUSR1));
    EXPECT_TRUE(PollNow(queue().fd(), POLLIN) & POLLIN);
    kevent_entry entry = ExpectSignal(handle, SIGUSR1);
    EXPECT_EQ(11u, entry.user_data);
    EXPECT_EQ(SI_USER, entry.result);
    EXPECT_EQ(static_cast<uint32_t>(getpid()),
              static_cast<uint32_t>(entry.data[0] >> 32));
    EXPECT_EQ(getuid(), static_cast<uint32_t>(entry.data[0]));
    EXPECT_EQ(0u, entry.data[1]);
    EXPECT_TRUE(entry.flags & KEVENT_ENTRY_MORE);
    EXPECT_FALSE(IsPending(SIGUSR1));
    ExpectNothing();
    EXPECT_FALSE(queue().Pending());
  }
}

TEST_P(SignalTest, QueuedValuesInTheirOrder) {
  const int signo = SIGRTMIN + 1;
  const uint64_t handle = MustAdd(AddSignal(signo));
  for (uint64_t i = 1; i <= 20; ++i) {
    sigval value;
    value.sival_ptr = reinterpret_cast<void*>(i * 0x100000001);
    ASSERT_EQ(0, sigqueue(getpid(), signo, value));
  }
  for (uint64_t i = 1; i <= 20; ++i) {
    kevent_entry entry = ExpectSignal(handle, signo);
    EXPECT_EQ(i * 0x100000001, entry.data[1]);
    EXPECT_EQ(SI_QUEUE, entry.result);
  }
  ExpectNothing();
  EXPECT_FALSE(IsPending(signo));
}

TEST_P(SignalTest, PendingBeforeItIsAdded) {
  ASSERT_EQ(0, kill(getpid(), SIGUSR1));
  kevent_sqe add = AddSignal(SIGUSR1, KEVENT_ALWAYS_QUEUE);
  ASSERT_EQ(0, queue().Make(&add));
  ExpectSignal(add.handle, SIGUSR1);
}

TEST_P(SignalTest, FromAnotherProcess) {
  const uint64_t handle = MustAdd(AddSignal(SIGUSR2));
  const pid_t us = getpid();
  Child child([us] { CHILD_CHECK(kill(us, SIGUSR2) == 0); });
  kevent_entry entry = ExpectSignal(handle, SIGUSR2);
  EXPECT_EQ(static_cast<uint32_t>(child.pid()),
            static_cast<uint32_t>(entry.data[0] >> 32));
  EXPECT_CHILD_OK(child);
}

TEST_P(SignalTest, WakesAWaitingThread) {
  const uint64_t handle = MustAdd(AddSignal(SIGUSR1));
  std::thread sender([] { kill(getpid(), SIGUSR1); });
  ExpectSignal(handle, SIGUSR1);
  sender.join();
}

TEST_P(SignalTest, EachHasItsOwnInterest) {
  const uint64_t one = MustAdd(AddSignal(SIGUSR1));
  const uint64_t two = MustAdd(AddSignal(SIGUSR2));
  ASSERT_EQ(0, kill(getpid(), SIGUSR2));
  ExpectSignal(two, SIGUSR2);
  ASSERT_EQ(0, kill(getpid(), SIGUSR1));
  ExpectSignal(one, SIGUSR1);
  EXPECT_EQ(0, queue().Remove(one));
  ASSERT_EQ(0, kill(getpid(), SIGUSR1));
  ExpectNothing();
  EXPECT_TRUE(IsPending(SIGUSR1)) << "it is the caller's again";
}

TEST_P(SignalTest, OneShotDispatchAndDisabled) {
  const uint64_t once = MustAdd(AddSignal(SIGUSR1, KEVENT_ONESHOT));
  ASSERT_EQ(0, kill(getpid(), SIGUSR1));
  EXPECT_TRUE(ExpectSignal(once, SIGUSR1).flags & KEVENT_ENTRY_DONE);
  EXPECT_EQ(-ENOENT, queue().Remove(once));
  ASSERT_EQ(0, kill(getpid(), SIGUSR1));
  ExpectNothing();
  EXPECT_TRUE(IsPending(SIGUSR1));
  const uint64_t quiet = MustAdd(AddSignal(SIGUSR2, KEVENT_DISPATCH));
  ASSERT_EQ(0, kill(getpid(), SIGUSR2));
  ExpectSignal(quiet, SIGUSR2);
  EXPECT_GE(queue().Enable(quiet), 0);
  ASSERT_EQ(0, kill(getpid(), SIGUSR2));
  ExpectSignal(quiet, SIGUSR2);
}

TEST_P(SignalTest, SignalsOfATimerOfThePosixKind) {
  const uint64_t handle = MustAdd(AddSignal(SIGRTMIN + 1));
  sigevent event = {};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGRTMIN + 1;
  event.sigev_value.sival_int = 42;
  timer_t timer;
  ASSERT_EQ(0, timer_create(CLOCK_MONOTONIC, &event, &timer));
  itimerspec spec = {};
  spec.it_value.tv_nsec = kMs;
  ASSERT_EQ(0, timer_settime(timer, 0, &spec, nullptr));
  kevent_entry entry = ExpectSignal(handle, SIGRTMIN + 1);
  EXPECT_EQ(SI_TIMER, entry.result);
  EXPECT_EQ(42u, static_cast<uint32_t>(entry.data[1]));
  EXPECT_EQ(0, timer_delete(timer));
}

// ---- User events ----

class UserTest : public QueueTest, public testing::WithParamInterface<Reading> {
 protected:
  void SetUp() override {
    QueueTest::SetUp();
    Reopen({}, GetParam());
  }
};

INSTANTIATE_TEST_SUITE_P(Readings, UserTest,
                         testing::Values(Reading::kRing, Reading::kCopies),
                         [](const auto& info) {
                           return std::string(ReadingName(info.param));
                         });

TEST_P(UserTest, Happens) {
  const uint64_t handle = MustAdd(AddUser(0, 17));
  ExpectNothing();
  for (uint64_t i = 1; i <= 3; ++i) {
    EXPECT_EQ(0, queue().Ready(handle, i << 40));
    kevent_entry entry = Expect(handle, 0);
    EXPECT_EQ(uint16_t{KEVENT_SOURCE_USER}, entry.source);
    EXPECT_EQ(17u, entry.user_data);
    EXPECT_EQ(i << 40, entry.data[0]);
    EXPECT_EQ(1u, entry.data[1]);
    EXPECT_EQ(0u, entry.data[2]);
    EXPECT_TRUE(entry.flags & KEVENT_ENTRY_MORE);
    ExpectNothing();
  }
}

TEST_P(UserTest, NoneIsLost) {
  const uint64_t handle = MustAdd(AddUser());
  for (uint64_t i = 1; i <= 100; ++i) EXPECT_EQ(0, queue().Ready(handle, i));
  uint64_t count = 0, last = 0;
  while (count < 100) {
    kevent_entry entry = Expect(handle, 0);
    ASSERT_GE(entry.data[1], 1u);
    count += entry.data[1];
    EXPECT_EQ(count, entry.data[0]) << "the last one it stands for";
    last = entry.data[0];
  }
  EXPECT_EQ(100u, last);
  ExpectNothing();
}

TEST_P(UserTest, OneShotDispatchAndDisabled) {
  const uint64_t once = MustAdd(AddUser(KEVENT_ONESHOT));
  EXPECT_EQ(0, queue().Ready(once));
  EXPECT_TRUE(Expect(once, 0).flags & KEVENT_ENTRY_DONE);
  EXPECT_EQ(-ENOENT, queue().Ready(once));
  const uint64_t quiet = MustAdd(AddUser(KEVENT_DISPATCH));
  EXPECT_EQ(0, queue().Ready(quiet, 1));
  EXPECT_EQ(1u, Expect(quiet, 0).data[0]);
  EXPECT_EQ(0, queue().Ready(quiet, 2));
  ExpectNothing();
  EXPECT_EQ(0, queue().Enable(quiet));
  ExpectNothing();
  EXPECT_EQ(0, queue().Ready(quiet, 3));
  EXPECT_EQ(3u, Expect(quiet, 0).data[0]);
  const uint64_t silent = MustAdd(AddUser(KEVENT_DISABLED));
  EXPECT_EQ(0, queue().Ready(silent, 4));
  ExpectNothing();
  EXPECT_EQ(0, queue().Enable(silent));
  EXPECT_EQ(0, queue().Ready(silent, 5));
  EXPECT_EQ(5u, Expect(silent, 0).data[0]);
}

TEST_P(UserTest, ModifyChangesWhatItSays) {
  const uint64_t handle = MustAdd(AddUser(0, 1));
  kevent_sqe change = Change(KEVENT_OP_MODIFY, handle);
  change.user_data = 2;
  EXPECT_EQ(0, queue().Make(&change));
  EXPECT_EQ(0, queue().Ready(handle));
  EXPECT_EQ(2u, Expect(handle, 0).user_data);
}

TEST_P(UserTest, FromOtherThreads) {
  constexpr int kThreads = 4;
  constexpr uint64_t kEach = 200;
  std::vector<uint64_t> handles;
  for (int i = 0; i < kThreads; ++i) {
    handles.push_back(MustAdd(AddUser(0, static_cast<uint64_t>(i))));
  }
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([this, handle = handles[i]] {
      for (uint64_t k = 1; k <= kEach; ++k) {
        EXPECT_EQ(0, queue().Ready(handle, k));
      }
    });
  }
  std::map<uint64_t, uint64_t> counts;
  for (uint64_t total = 0; total < kThreads * kEach;) {
    kevent_entry entry = Next();
    if (entry.handle == kNoHandle) break;
    counts[entry.handle] += entry.data[1];
    total += entry.data[1];
    EXPECT_EQ(counts[entry.handle], entry.data[0]) << "out of order";
  }
  for (std::thread& thread : threads) thread.join();
  for (uint64_t handle : handles) EXPECT_EQ(kEach, counts[handle]);
  ExpectNothing();
}

}  // namespace
}  // namespace kevent::raw
