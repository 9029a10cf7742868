// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "kevent/queue/conformance/conformance.h"

namespace kevent::conformance {
namespace {

class SignalTest : public QueueTest {
 protected:
  void SetUp() override {
    QueueTest::SetUp();
    sigset_t mask;
    sigemptyset(&mask);
    for (int signo : {SIGUSR1, SIGUSR2, SIGRTMIN + 1}) sigaddset(&mask, signo);
    pthread_sigmask(SIG_BLOCK, &mask, &before_);
  }
  void TearDown() override {
    QueueTest::TearDown();
    timespec none = {0, 0};
    sigset_t all;
    sigfillset(&all);
    while (sigtimedwait(&all, nullptr, &none) > 0) {
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  Handle Watch(int signo, uint32_t flags = 0, uint64_t user_data = 0) {
    Interest interest;
    interest.source = Source::kSignal;
    interest.signo = signo;
    interest.flags = flags;
    interest.user_data = user_data;
    return MustAdd(interest);
  }
  void ExpectSignal(Handle handle, int signo) {
    Entry e = One();
    EXPECT_EQ(e.source, Source::kSignal);
    EXPECT_EQ(e.handle, handle);
    EXPECT_EQ(e.events, static_cast<uint32_t>(signo));
    EXPECT_EQ(e.data[0] >> 32, static_cast<uint64_t>(getpid()));
    EXPECT_EQ(e.data[0] & 0xffffffff, static_cast<uint64_t>(getuid()));
  }
  static bool IsPending(int signo) {
    sigset_t pending;
    sigpending(&pending);
    return sigismember(&pending, signo);
  }

 private:
  sigset_t before_;
};
KEVENT_CONFORMANCE(SignalTest);

TEST_P(SignalTest, ArrivesAsAnEntry) {
  const Handle handle = Watch(SIGUSR1, 0, 11);
  ExpectNothing();
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(0, kill(getpid(), SIGUSR1));
    ExpectSignal(handle, SIGUSR1);
    EXPECT_FALSE(IsPending(SIGUSR1));
  }
  ExpectNothing();
}

TEST_P(SignalTest, PendingBeforeItWasWatched) {
  ASSERT_EQ(0, kill(getpid(), SIGUSR1));
  const Handle first = Watch(SIGUSR1);
  ExpectSignal(first, SIGUSR1);
  ASSERT_EQ(0, kill(getpid(), SIGUSR2));
  const Handle second = Watch(SIGUSR2);
  ExpectSignal(second, SIGUSR2);
}

TEST_P(SignalTest, ValuesInTheOrderQueued) {
  const int signo = SIGRTMIN + 1;
  const Handle handle = Watch(signo);
  for (intptr_t i = 1; i <= 20; ++i) {
    sigval value;
    value.sival_ptr = reinterpret_cast<void*>(i * 0x100000001);
    ASSERT_EQ(0, sigqueue(getpid(), signo, value));
  }
  uint64_t next = 1;
  for (const Entry& e : WaitFor(20)) {
    EXPECT_EQ(e.handle, handle);
    EXPECT_EQ(e.data[1], next++ * 0x100000001);
    EXPECT_TRUE(e.flags & kEntryMore);
  }
}

TEST_P(SignalTest, EachHasItsOwnInterest) {
  const Handle one = Watch(SIGUSR1);
  const Handle two = Watch(SIGUSR2);
  ASSERT_EQ(0, kill(getpid(), SIGUSR2));
  ExpectSignal(two, SIGUSR2);
  ASSERT_EQ(0, kill(getpid(), SIGUSR1));
  ExpectSignal(one, SIGUSR1);
  EXPECT_EQ(0, queue().Remove(one));
  ASSERT_EQ(0, kill(getpid(), SIGUSR1));
  ExpectNothing();
  EXPECT_TRUE(IsPending(SIGUSR1)) << "it is the caller's again";
  ASSERT_EQ(0, kill(getpid(), SIGUSR2));
  ExpectSignal(two, SIGUSR2);
}

TEST_P(SignalTest, OneShot) {
  const Handle handle = Watch(SIGUSR1, kOneShot);
  ASSERT_EQ(0, kill(getpid(), SIGUSR1));
  Entry e = One();
  EXPECT_EQ(e.handle, handle);
  EXPECT_EQ(e.flags, 0u);
  EXPECT_EQ(-ENOENT, queue().Remove(handle));
  ASSERT_EQ(0, kill(getpid(), SIGUSR1));
  ExpectNothing();
  EXPECT_TRUE(IsPending(SIGUSR1));
}

TEST_P(SignalTest, RemovedWithItsEntryUnread) {
  const Handle handle = Watch(SIGUSR1);
  ASSERT_EQ(0, kill(getpid(), SIGUSR1));
  Wait look;
  look.min = 0;
  queue().Enter({}, look);
  EXPECT_EQ(0, queue().Remove(handle));
  const Handle other = Watch(SIGUSR2);
  ExpectNothing();
  EXPECT_EQ(0, queue().Remove(other));
}

TEST_P(SignalTest, RefusesWhatIsNoSignal) {
  Interest interest;
  interest.source = Source::kSignal;
  Handle handle;
  for (int signo : {-1, 0, 65, SIGKILL, SIGSTOP}) {
    interest.signo = signo;
    EXPECT_EQ(-EINVAL, queue().Add(interest, &handle)) << signo;
  }
  EXPECT_EQ(queue().stats().interests, 0u);
}

// --- Inodes.

class InodeTest : public QueueTest {
 protected:
  void SetUp() override {
    QueueTest::SetUp();
    std::string name = TempFolder() + "/kevent_XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr) << strerror(errno);
    folder_ = name;
  }
  void TearDown() override {
    QueueTest::TearDown();
    std::error_code error;
    if (!folder_.empty()) std::filesystem::remove_all(folder_, error);
  }
  std::string Path(const std::string& name) { return folder_ + "/" + name; }
  void Make(const std::string& name) {
    int fd = open(Path(name).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    ASSERT_GE(fd, 0) << strerror(errno);
    close(fd);
  }
  void Append(const std::string& name) {
    int fd = open(Path(name).c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
    ASSERT_EQ(1, write(fd, "x", 1));
    close(fd);
  }
  void Delete(const std::string& name) {
    ASSERT_EQ(0, unlink(Path(name).c_str()));
  }
  void Rename(const std::string& from, const std::string& to) {
    ASSERT_EQ(0, rename(Path(from).c_str(), Path(to).c_str()));
  }
  Handle Watch(const std::string& path, uint32_t events, uint32_t flags = 0,
               uint64_t user_data = 0) {
    return MustAdd(Inode(path, events, flags, user_data));
  }
  static Interest Inode(const std::string& path, uint32_t events,
                        uint32_t flags = 0, uint64_t user_data = 0) {
    Interest interest;
    interest.source = Source::kInode;
    interest.path = path.c_str();
    interest.events = events;
    interest.flags = flags;
    interest.user_data = user_data;
    return interest;
  }
  Entry Expect(Handle handle, uint32_t events) {
    Entry e = One();
    EXPECT_EQ(e.source, Source::kInode);
    EXPECT_EQ(e.handle, handle);
    EXPECT_EQ(e.events, events);
    EXPECT_EQ(e.result, 0);
    EXPECT_TRUE(e.flags & kEntryMore);
    return e;
  }

  std::string folder_;
};
KEVENT_CONFORMANCE(InodeTest);

TEST_P(InodeTest, ChildrenOfAFolder) {
  const Handle handle =
      Watch(folder_, IN_CREATE | IN_DELETE | IN_MODIFY | IN_ATTRIB);
  ExpectNothing();
  Make("a");
  Expect(handle, IN_CREATE);
  Append("a");
  Expect(handle, IN_MODIFY);
  ASSERT_EQ(0, chmod(Path("a").c_str(), 0644));
  Expect(handle, IN_ATTRIB);
  Delete("a");
  Expect(handle, IN_DELETE);
  ASSERT_EQ(0, mkdir(Path("d").c_str(), 0700));
  Expect(handle, IN_CREATE | IN_ISDIR);
  ExpectNothing();
}

TEST_P(InodeTest, MovesPairUpByCookie) {
  Make("a");
  Make("b");
  const Handle handle = Watch(folder_, IN_MOVED_FROM | IN_MOVED_TO);
  Rename("a", "c");
  Rename("b", "d");
  uint64_t first = Expect(handle, IN_MOVED_FROM).data[0];
  EXPECT_NE(first, 0u);
  EXPECT_EQ(first, Expect(handle, IN_MOVED_TO).data[0]);
  uint64_t second = Expect(handle, IN_MOVED_FROM).data[0];
  EXPECT_NE(second, first);
  EXPECT_EQ(second, Expect(handle, IN_MOVED_TO).data[0]);
}

TEST_P(InodeTest, MovesBetweenFolders) {
  ASSERT_EQ(0, mkdir(Path("one").c_str(), 0700));
  ASSERT_EQ(0, mkdir(Path("two").c_str(), 0700));
  Make("one/a");
  const Handle from = Watch(Path("one"), IN_MOVED_FROM);
  const Handle to = Watch(Path("two"), IN_MOVED_TO);
  Rename("one/a", "two/b");
  uint64_t cookie = Expect(from, IN_MOVED_FROM).data[0];
  EXPECT_EQ(cookie, Expect(to, IN_MOVED_TO).data[0]);
}

TEST_P(InodeTest, FileThatIsDeletedBreaks) {
  Make("a");
  const Handle handle = Watch(Path("a"), IN_MODIFY | IN_DELETE_SELF, 0, 5);
  Append("a");
  Expect(handle, IN_MODIFY);
  Delete("a");
  Expect(handle, IN_DELETE_SELF);
  Entry e = One();
  EXPECT_EQ(e.handle, handle);
  EXPECT_EQ(e.user_data, 5u);
  EXPECT_TRUE(e.flags & kEntryBroken);
  EXPECT_FALSE(e.flags & kEntryMore);
  EXPECT_EQ(-ENOENT, queue().Remove(handle));
  // The next file of that name is another inode.
  Make("a");
  Append("a");
  ExpectNothing();
  const Handle next = Watch(Path("a"), IN_MODIFY);
  Append("a");
  Expect(next, IN_MODIFY);
}

TEST_P(InodeTest, BreaksWhateverWasAskedFor) {
  Make("a");
  const Handle one = Watch(Path("a"), IN_MODIFY);
  const Handle two = Watch(Path("a"), IN_OPEN);
  Delete("a");
  std::set<uint32_t> broken;
  for (const Entry& e : WaitFor(2)) {
    EXPECT_TRUE(e.flags & kEntryBroken);
    broken.insert(e.handle.index);
  }
  EXPECT_EQ(broken, (std::set<uint32_t>{one.index, two.index}));
  EXPECT_EQ(queue().stats().interests, 0u);
}

TEST_P(InodeTest, TwoInterestsInOneInode) {
  Make("a");
  const Handle modify = Watch(Path("a"), IN_MODIFY, 0, 1);
  const Handle attrib = Watch(Path("a"), IN_ATTRIB, 0, 2);
  Append("a");
  Expect(modify, IN_MODIFY);
  ASSERT_EQ(0, chmod(Path("a").c_str(), 0644));
  Expect(attrib, IN_ATTRIB);
  const Handle both = Watch(Path("a"), IN_MODIFY | IN_ATTRIB, 0, 3);
  Append("a");
  std::set<uint64_t> seen;
  for (const Entry& e : WaitFor(2)) seen.insert(e.user_data);
  EXPECT_EQ(seen, (std::set<uint64_t>{1, 3}));
  EXPECT_EQ(0, queue().Remove(modify));
  Append("a");
  Expect(both, IN_MODIFY);
  EXPECT_EQ(0, queue().Remove(both));
  Append("a");
  ASSERT_EQ(0, chmod(Path("a").c_str(), 0600));
  Expect(attrib, IN_ATTRIB);
  EXPECT_EQ(0, queue().Remove(attrib));
  Append("a");
  ExpectNothing();
}

TEST_P(InodeTest, OneShotAndDisabled) {
  Make("a");
  const Handle once = Watch(Path("a"), IN_MODIFY, kOneShot);
  Append("a");
  Entry e = One();
  EXPECT_EQ(e.handle, once);
  EXPECT_FALSE(e.flags & kEntryMore);
  EXPECT_EQ(-ENOENT, queue().Remove(once));
  const Handle quiet = Watch(Path("a"), IN_MODIFY, kDisabled);
  Append("a");
  ExpectNothing();
  EXPECT_EQ(0, queue().Enable(quiet));
  Append("a");
  Expect(quiet, IN_MODIFY);
}

TEST_P(InodeTest, RemovedWithEntriesUnread) {
  const Handle handle = Watch(folder_, IN_CREATE);
  for (int i = 0; i < 5; ++i) Make(std::to_string(i));
  Wait look;
  look.min = 0;
  queue().Enter({}, look);
  EXPECT_EQ(0, queue().Remove(handle));
  const Handle next = Watch(folder_, IN_DELETE);
  ExpectNothing();
  Delete("1");
  Expect(next, IN_DELETE);
}

TEST_P(InodeTest, MoreEventsThanTheRingHolds) {
  Queue::Options options;
  options.ring_entries = 8;
  Reopen(options);
  const Handle all = Watch(folder_, IN_CREATE, 0, 1);
  const Handle too = Watch(folder_, IN_CREATE, 0, 2);
  Wait look;
  look.min = 0;
  for (int i = 0; i < 100; ++i) {
    Make(std::to_string(i));
    if (i % 10 == 0) queue().Enter({}, look);
  }
  int seen[3] = {};
  for (const Entry& e : WaitFor(200)) {
    EXPECT_EQ(e.events, uint32_t{IN_CREATE});
    ASSERT_TRUE(e.user_data == 1 || e.user_data == 2);
    EXPECT_EQ(e.handle, e.user_data == 1 ? all : too);
    ++seen[e.user_data];
  }
  EXPECT_EQ(seen[1], 100);
  EXPECT_EQ(seen[2], 100);
  ExpectNothing();
  EXPECT_LE(queue().stats().ring_high_water, 8u);
}

TEST_P(InodeTest, SymlinksAreFollowedUnlessAskedOtherwise) {
  Make("a");
  ASSERT_EQ(0, symlink(Path("a").c_str(), Path("link").c_str()));
  const Handle target = Watch(Path("link"), IN_MODIFY);
  const Handle link = Watch(Path("link"), IN_DELETE_SELF | IN_DONT_FOLLOW);
  Append("a");
  Expect(target, IN_MODIFY);
  Delete("link");
  std::vector<Entry> entries = WaitFor(2);
  EXPECT_EQ(entries[0].handle, link);
  EXPECT_EQ(entries[1].handle, link);
  EXPECT_TRUE(entries[1].flags & kEntryBroken);
  Append("a");
  Expect(target, IN_MODIFY);
}

TEST_P(InodeTest, RefusesWhatCannotBeWatched) {
  Handle handle;
  const std::string missing = Path("missing");
  EXPECT_EQ(-ENOENT, queue().Add(Inode(missing, IN_MODIFY), &handle));
  EXPECT_EQ(-EINVAL, queue().Add(Inode(folder_, 0), &handle));
  Interest interest;
  interest.source = Source::kInode;
  interest.events = IN_MODIFY;
  EXPECT_EQ(-EINVAL, queue().Add(interest, &handle));
  Make("a");
  const std::string file = Path("a");
  EXPECT_EQ(-ENOTDIR,
            queue().Add(Inode(file, IN_CREATE | IN_ONLYDIR), &handle));
  EXPECT_EQ(queue().stats().interests, 0u);
}

}  // namespace
}  // namespace kevent::conformance
