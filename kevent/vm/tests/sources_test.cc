// SPDX-License-Identifier: Apache-2.0
//
// What files and sockets tell, in every mode.
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

#include <map>
#include <memory>
#include <thread>
#include <tuple>

#include "kevent/vm/tests/pollables.h"

namespace kevent::raw {
namespace {

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

TEST_P(FileTest, ChangedWhileItsEntryIsUnread) {
  // The source is still to be tested once that entry has been read.
  source_->MakeReady();
  for (int how = 0; how < 2; ++how) {
    const uint64_t handle = MustAdd(AddIt(KEVENT_ALWAYS_QUEUE));
    if (how == 0) {
      kevent_sqe change = Change(KEVENT_OP_MODIFY, handle);
      change.events = source_->events();
      change.flags = KEVENT_ALWAYS_QUEUE;
      change.user_data = 1;
      EXPECT_EQ(0, queue().Make(&change));
    } else {
      EXPECT_EQ(0, queue().Disable(handle));
      EXPECT_EQ(0, queue().Enable(handle));
    }
    for (int i = 0; i < 3; ++i) ExpectIt(handle);
    EXPECT_EQ(0, queue().Remove(handle));
  }
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
  for (uint16_t flags : {0, KEVENT_EDGE, KEVENT_DISPATCH, KEVENT_ONESHOT}) {
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
    EXPECT_EQ(flags == KEVENT_ONESHOT ? -ENOENT : 0, queue().Remove(handle));
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

}  // namespace
}  // namespace kevent::raw
