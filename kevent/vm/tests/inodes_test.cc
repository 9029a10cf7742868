// SPDX-License-Identifier: Apache-2.0
//
// Events of files and directories.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <utime.h>

#include <filesystem>
#include <map>
#include <thread>

#include "kevent/vm/tests/fixture.h"

namespace kevent::raw {
namespace {

class InodeTest : public QueueTest,
                  public testing::WithParamInterface<Reading> {
 protected:
  void SetUp() override {
    signal(SIGPIPE, SIG_IGN);
    QueueTest::SetUp();
    Reopen({}, GetParam());
    folder_ = TempFolder() + "/inodes_XXXXXX";
    ASSERT_NE(nullptr, mkdtemp(folder_.data())) << strerror(errno);
  }
  void TearDown() override {
    QueueTest::TearDown();
    std::error_code error;
    std::filesystem::remove_all(folder_, error);
  }
  std::string Path(const std::string& name) const {
    return name.empty() ? folder_ : folder_ + "/" + name;
  }
  void Make(const std::string& name) {
    Fd fd(open(Path(name).c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC,
               0600));
    ASSERT_TRUE(fd) << strerror(errno);
  }
  void Append(const std::string& name) {
    Fd fd(open(Path(name).c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
    ASSERT_EQ(1, write(fd.get(), "x", 1));
  }
  void Delete(const std::string& name) {
    ASSERT_EQ(0, unlink(Path(name).c_str()));
  }
  void Rename(const std::string& from, const std::string& to) {
    ASSERT_EQ(0, rename(Path(from).c_str(), Path(to).c_str()));
  }
  uint64_t Inode(const std::string& name) {
    struct stat status = {};
    EXPECT_EQ(0, lstat(Path(name).c_str(), &status));
    return status.st_ino;
  }
  // The descriptor is closed again: the interest needs it no more.
  uint64_t Watch(const std::string& name, uint32_t events, uint16_t flags = 0,
                 uint64_t user_data = 0) {
    Fd fd(open(Path(name).c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    EXPECT_TRUE(fd) << strerror(errno);
    return MustAdd(AddInode(fd.get(), events, flags, user_data));
  }
  kevent_entry ExpectInode(uint64_t handle, uint32_t events, uint64_t inode) {
    kevent_entry entry = Next();
    EXPECT_EQ(handle, entry.handle) << Describe(entry);
    EXPECT_EQ(uint16_t{KEVENT_SOURCE_INODE}, entry.source);
    EXPECT_EQ(events, entry.events) << Describe(entry);
    EXPECT_EQ(inode, entry.data[1]) << Describe(entry);
    EXPECT_EQ(0u, entry.data[2]);
    EXPECT_EQ(0, entry.result);
    return entry;
  }
  // The entry that says that the inode is gone; what was asked for may come
  // with it or before. Returns what came.
  uint32_t ExpectBroken(uint64_t handle) {
    uint32_t events = 0;
    for (int i = 0; i < 20; ++i) {
      kevent_entry entry = Next();
      EXPECT_EQ(handle, entry.handle) << Describe(entry);
      if (entry.handle == kNoHandle) return events;
      events |= entry.events;
      if (!(entry.flags & KEVENT_ENTRY_BROKEN)) continue;
      EXPECT_TRUE(entry.flags & KEVENT_ENTRY_DONE) << Describe(entry);
      EXPECT_FALSE(entry.flags & KEVENT_ENTRY_MORE);
      EXPECT_LT(entry.result, 0) << "why";
      EXPECT_EQ(-ENOENT, queue().Remove(handle));
      return events;
    }
    ADD_FAILURE() << "not broken";
    return events;
  }

  std::string folder_;
};

INSTANTIATE_TEST_SUITE_P(Readings, InodeTest,
                         testing::Values(Reading::kRing, Reading::kCopies),
                         [](const auto& info) {
                           return std::string(info.param == Reading::kRing
                                                  ? "ring"
                                                  : "copies");
                         });

TEST_P(InodeTest, EachKindOnAFile) {
  Make("a");
  const uint64_t handle = Watch("a", KEVENT_INODE_EVENTS, 0, 12);
  ExpectNothing();
  {
    Fd fd(open(Path("a").c_str(), O_WRONLY | O_CLOEXEC));
    Send(fd.get(), "x");
    EXPECT_EQ(12u, ExpectInode(handle, KEVENT_INODE_MODIFY, 0).user_data);
    ASSERT_EQ(0, ftruncate(fd.get(), 100));
    ExpectInode(handle, KEVENT_INODE_MODIFY, 0);
    ExpectNothing();
  }
  ExpectInode(handle, KEVENT_INODE_CLOSE_WRITE, 0);
  ASSERT_EQ(0, chmod(Path("a").c_str(), 0644));
  ExpectInode(handle, KEVENT_INODE_ATTRIB, 0);
  ASSERT_EQ(0, utime(Path("a").c_str(), nullptr));
  ExpectInode(handle, KEVENT_INODE_ATTRIB, 0);
  Rename("a", "b");
  EXPECT_TRUE(ExpectInode(handle, KEVENT_INODE_MOVE_SELF, 0).flags &
              KEVENT_ENTRY_MORE);
  ExpectNothing();
}

TEST_P(InodeTest, ReadingIsNoEvent) {
  Make("a");
  Watch("a", KEVENT_INODE_EVENTS);
  Watch("", KEVENT_INODE_EVENTS);
  Fd fd(open(Path("a").c_str(), O_RDONLY | O_CLOEXEC));
  char byte;
  EXPECT_EQ(0, read(fd.get(), &byte, 1));
  fd.Reset();
  ExpectNothing();
}

TEST_P(InodeTest, EachKindInADirectory) {
  const uint64_t handle =
      Watch("", KEVENT_INODE_EVENTS & ~KEVENT_INODE_CLOSE_WRITE);
  ExpectNothing();
  Make("a");
  const uint64_t a = Inode("a");
  ExpectInode(handle, KEVENT_INODE_CREATE, a);
  Append("a");
  ExpectInode(handle, KEVENT_INODE_MODIFY, a);
  ASSERT_EQ(0, chmod(Path("a").c_str(), 0644));
  ExpectInode(handle, KEVENT_INODE_ATTRIB, a);
  ASSERT_EQ(0, mkdir(Path("d").c_str(), 0700));
  const uint64_t d = Inode("d");
  ExpectInode(handle, KEVENT_INODE_CREATE, d);
  ASSERT_EQ(0, symlink("a", Path("s").c_str()));
  ExpectInode(handle, KEVENT_INODE_CREATE, Inode("s"));
  ASSERT_EQ(0, rmdir(Path("d").c_str()));
  ExpectInode(handle, KEVENT_INODE_REMOVE, d);
  ASSERT_EQ(0, chmod(Path("").c_str(), 0750));
  ExpectInode(handle, KEVENT_INODE_ATTRIB, 0);
  const uint64_t s = Inode("s");
  Delete("s");
  ExpectInode(handle, KEVENT_INODE_REMOVE, s);
  ExpectNothing();
}

TEST_P(InodeTest, HardLinks) {
  Make("a");
  const uint64_t handle = Watch("", KEVENT_INODE_CREATE | KEVENT_INODE_REMOVE);
  const uint64_t a = Inode("a");
  ASSERT_EQ(0, link(Path("a").c_str(), Path("b").c_str()));
  ExpectInode(handle, KEVENT_INODE_CREATE, a);
  const uint64_t self = Watch("b", KEVENT_INODE_REMOVE_SELF);
  Delete("a");
  ExpectInode(handle, KEVENT_INODE_REMOVE, a);
  ExpectNothing();
  EXPECT_EQ(0, queue().Remove(handle));
  Delete("b");
  EXPECT_EQ(uint32_t{KEVENT_INODE_REMOVE_SELF}, ExpectBroken(self));
}

TEST_P(InodeTest, OnlyWhatWasAskedFor) {
  Make("a");
  const uint64_t handle = Watch("", KEVENT_INODE_REMOVE);
  Append("a");
  ASSERT_EQ(0, chmod(Path("a").c_str(), 0644));
  Make("b");
  Rename("b", "c");
  ExpectNothing();
  const uint64_t a = Inode("a");
  Delete("a");
  ExpectInode(handle, KEVENT_INODE_REMOVE, a);
  ExpectNothing();
}

TEST_P(InodeTest, MovesShareACookie) {
  Make("a");
  Make("b");
  const uint64_t a = Inode("a"), b = Inode("b");
  const uint64_t handle =
      Watch("", KEVENT_INODE_MOVED_FROM | KEVENT_INODE_MOVED_TO);
  uint64_t cookies[2];
  for (int i = 0; i < 2; ++i) {
    Rename(i ? "b" : "a", i ? "d" : "c");
    const uint64_t inode = i ? b : a;
    cookies[i] = ExpectInode(handle, KEVENT_INODE_MOVED_FROM, inode).data[0];
    EXPECT_NE(0u, cookies[i]);
    EXPECT_EQ(cookies[i],
              ExpectInode(handle, KEVENT_INODE_MOVED_TO, inode).data[0]);
  }
  EXPECT_NE(cookies[0], cookies[1]);
  ExpectNothing();
}

TEST_P(InodeTest, MovesBetweenDirectories) {
  ASSERT_EQ(0, mkdir(Path("one").c_str(), 0700));
  ASSERT_EQ(0, mkdir(Path("two").c_str(), 0700));
  Make("one/a");
  const uint64_t a = Inode("one/a");
  const uint64_t from = Watch("one", KEVENT_INODE_MOVED_FROM);
  const uint64_t to = Watch("two", KEVENT_INODE_MOVED_TO);
  const uint64_t self = Watch("one/a", KEVENT_INODE_MOVE_SELF);
  Rename("one/a", "two/b");
  const uint64_t cookie = ExpectInode(from, KEVENT_INODE_MOVED_FROM, a).data[0];
  EXPECT_NE(0u, cookie);
  EXPECT_EQ(cookie, ExpectInode(to, KEVENT_INODE_MOVED_TO, a).data[0]);
  ExpectInode(self, KEVENT_INODE_MOVE_SELF, 0);
  ExpectNothing();
}

TEST_P(InodeTest, ARenameOntoAFile) {
  Make("a");
  Make("b");
  const uint64_t victim = Watch("b", KEVENT_INODE_REMOVE_SELF);
  Rename("a", "b");
  EXPECT_EQ(uint32_t{KEVENT_INODE_REMOVE_SELF}, ExpectBroken(victim));
  ExpectNothing();
}

TEST_P(InodeTest, AFileThatIsRemovedBreaks) {
  Make("a");
  const uint64_t handle =
      Watch("a", KEVENT_INODE_MODIFY | KEVENT_INODE_REMOVE_SELF, 0, 5);
  Append("a");
  ExpectInode(handle, KEVENT_INODE_MODIFY, 0);
  Delete("a");
  EXPECT_EQ(uint32_t{KEVENT_INODE_REMOVE_SELF}, ExpectBroken(handle));
  // The next file of that name is another one.
  Make("a");
  Append("a");
  ExpectNothing();
  const uint64_t next = Watch("a", KEVENT_INODE_MODIFY);
  EXPECT_NE(handle, next);
  Append("a");
  ExpectInode(next, KEVENT_INODE_MODIFY, 0);
}

TEST_P(InodeTest, BreaksWhateverWasAskedFor) {
  Make("a");
  const uint64_t one = Watch("a", KEVENT_INODE_MODIFY);
  const uint64_t quiet = Watch("a", KEVENT_INODE_ATTRIB, KEVENT_DISABLED);
  Delete("a");
  std::map<uint64_t, int> broken;
  for (int i = 0; i < 2; ++i) {
    kevent_entry entry = Next();
    // Losing the last link changes the inode's attributes.
    if (!(entry.flags & KEVENT_ENTRY_BROKEN)) {
      EXPECT_EQ(0u, entry.events & ~KEVENT_INODE_ATTRIB);
      --i;
      if (entry.handle == kNoHandle) break;
      continue;
    }
    ++broken[entry.handle];
  }
  EXPECT_EQ(1, broken[one]);
  EXPECT_EQ(1, broken[quiet]) << "its handle has ended as well";
  ExpectNothing();
}

TEST_P(InodeTest, ARemovedFileThatIsOpenLivesOn) {
  Make("a");
  Fd fd(open(Path("a").c_str(), O_RDWR | O_CLOEXEC));
  const uint64_t handle = Watch("a", KEVENT_INODE_MODIFY);
  Delete("a");
  Send(fd.get(), "x");
  ExpectInode(handle, KEVENT_INODE_MODIFY, 0);
  ExpectNothing();
  fd.Reset();
  ExpectBroken(handle);
}

TEST_P(InodeTest, ADirectoryThatIsRemovedBreaks) {
  ASSERT_EQ(0, mkdir(Path("d").c_str(), 0700));
  const uint64_t handle =
      Watch("d", KEVENT_INODE_CREATE | KEVENT_INODE_REMOVE_SELF);
  const uint64_t parent = Watch("", KEVENT_INODE_REMOVE, KEVENT_DISABLED);
  ASSERT_EQ(0, rmdir(Path("d").c_str()));
  EXPECT_EQ(uint32_t{KEVENT_INODE_REMOVE_SELF}, ExpectBroken(handle));
  EXPECT_EQ(0, queue().Remove(parent));
}

TEST_P(InodeTest, AnUnmountBreaks) {
  if (getuid() != 0) GTEST_SKIP() << "mounts need root";
  ASSERT_EQ(0, mkdir(Path("m").c_str(), 0700));
  ASSERT_EQ(0, mount("tmpfs", Path("m").c_str(), "tmpfs", 0, nullptr))
      << strerror(errno);
  Make("m/a");
  const uint64_t handle = Watch("m/a", KEVENT_INODE_MODIFY);
  Append("m/a");
  ExpectInode(handle, KEVENT_INODE_MODIFY, 0);
  // The interest does not keep the file system busy.
  ASSERT_EQ(0, umount(Path("m").c_str())) << strerror(errno);
  ExpectBroken(handle);
}

TEST_P(InodeTest, SeveralInterestsInOneInode) {
  Make("a");
  const uint64_t modify = Watch("a", KEVENT_INODE_MODIFY, 0, 1);
  const uint64_t attrib = Watch("a", KEVENT_INODE_ATTRIB, 0, 2);
  Append("a");
  ExpectInode(modify, KEVENT_INODE_MODIFY, 0);
  ASSERT_EQ(0, chmod(Path("a").c_str(), 0644));
  ExpectInode(attrib, KEVENT_INODE_ATTRIB, 0);
  const uint64_t both =
      Watch("a", KEVENT_INODE_MODIFY | KEVENT_INODE_ATTRIB, 0, 3);
  Append("a");
  std::map<uint64_t, int> seen;
  for (int i = 0; i < 2; ++i) ++seen[Next().handle];
  EXPECT_EQ(1, seen[modify]);
  EXPECT_EQ(1, seen[both]);
  EXPECT_EQ(0, queue().Remove(modify));
  Append("a");
  ExpectInode(both, KEVENT_INODE_MODIFY, 0);
  EXPECT_EQ(0, queue().Remove(both));
  Append("a");
  ASSERT_EQ(0, chmod(Path("a").c_str(), 0600));
  ExpectInode(attrib, KEVENT_INODE_ATTRIB, 0);
  EXPECT_EQ(0, queue().Remove(attrib));
  Append("a");
  ExpectNothing();
}

TEST_P(InodeTest, EachEventHasItsEntry) {
  const uint64_t handle = Watch("", KEVENT_INODE_CREATE);
  std::vector<uint64_t> inodes;
  for (int i = 0; i < 50; ++i) {
    Make(std::to_string(i));
    inodes.push_back(Inode(std::to_string(i)));
  }
  for (uint64_t inode : inodes) {
    EXPECT_FALSE(ExpectInode(handle, KEVENT_INODE_CREATE, inode).flags &
                 KEVENT_ENTRY_MERGED);
  }
  ExpectNothing();
}

TEST_P(InodeTest, OneShotDispatchAndDisabled) {
  Make("a");
  const uint64_t once = Watch("a", KEVENT_INODE_MODIFY, KEVENT_ONESHOT);
  Append("a");
  EXPECT_TRUE(ExpectInode(once, KEVENT_INODE_MODIFY, 0).flags &
              KEVENT_ENTRY_DONE);
  EXPECT_EQ(-ENOENT, queue().Remove(once));
  Append("a");
  ExpectNothing();
  const uint64_t dispatch = Watch("a", KEVENT_INODE_MODIFY, KEVENT_DISPATCH);
  for (int i = 0; i < 3; ++i) {
    Append("a");
    ExpectInode(dispatch, KEVENT_INODE_MODIFY, 0);
    Append("a");
    ExpectNothing();
    EXPECT_EQ(0, queue().Enable(dispatch));
    ExpectNothing();
  }
  EXPECT_EQ(0, queue().Disable(dispatch));
  Append("a");
  ExpectNothing();
  EXPECT_EQ(0, queue().Remove(dispatch));
}

TEST_P(InodeTest, ModifyTakesAway) {
  Make("a");
  const uint64_t handle =
      Watch("a", KEVENT_INODE_MODIFY | KEVENT_INODE_ATTRIB, 0, 1);
  kevent_sqe change = Change(KEVENT_OP_MODIFY, handle);
  change.events = KEVENT_INODE_ATTRIB;
  change.user_data = 2;
  EXPECT_EQ(0, queue().Make(&change));
  Append("a");
  ExpectNothing();
  ASSERT_EQ(0, chmod(Path("a").c_str(), 0644));
  EXPECT_EQ(2u, ExpectInode(handle, KEVENT_INODE_ATTRIB, 0).user_data);
  change.result = 0;
  change.events = KEVENT_INODE_MODIFY | KEVENT_INODE_ATTRIB;
  EXPECT_EQ(0, queue().Make(&change));
  Append("a");
  ExpectInode(handle, KEVENT_INODE_MODIFY, 0);
  change.result = 0;
  change.events = KEVENT_INODE_MODIFY | KEVENT_INODE_CLOSE_WRITE;
  EXPECT_EQ(-EINVAL, queue().Make(&change)) << "not asked for at first";
}

TEST_P(InodeTest, RemovedWhileEventsCome) {
  const uint64_t seed = Seed();
  for (int round = 0; round < 20; ++round) {
    const uint64_t handle =
        Watch("", KEVENT_INODE_CREATE | KEVENT_INODE_REMOVE);
    std::thread maker([&] {
      for (int i = 0; i < 20; ++i) {
        Make("x");
        Delete("x");
      }
    });
    for (uint64_t i = 0; i < (seed + static_cast<uint64_t>(round)) % 7; ++i) {
      sched_yield();
    }
    EXPECT_EQ(0, queue().Remove(handle));
    maker.join();
    // Those that were unread may be there, and no others.
    for (uint32_t left = queue().Unread(); left > 0; --left) {
      EXPECT_EQ(handle, Next().handle);
    }
    ExpectNothing();
  }
}

TEST_P(InodeTest, TheInodeOfAPipe) {
  for (bool remove : {false, true}) {
    Pair pipe = PipePair();
    const uint64_t handle =
        MustAdd(AddInode(pipe.ours.get(), KEVENT_INODE_MODIFY));
    pipe.ours.Reset();
    EXPECT_EQ(-1, write(pipe.peer.get(), "x", 1)) << "the pipe has no reader";
    pipe.peer.Reset();
    if (remove) {
      EXPECT_EQ(0, queue().Remove(handle));
    }
  }
  ExpectNothing();
}

TEST_P(InodeTest, NeedsTheRightToRead) {
  Make("secret");
  ASSERT_EQ(0, chmod(Path("secret").c_str(), 0));
  ASSERT_EQ(0, chmod(Path("").c_str(), 0755));
  Child child([&] {
    BecomeUser();
    Queue own;
    CHILD_CHECK(own.Open() == 0);
    // As of inotify(7), though the path could be opened without.
    Fd fd(open(Path("secret").c_str(), O_PATH | O_CLOEXEC));
    CHILD_CHECK(fd);
    kevent_sqe add = AddInode(fd.get(), KEVENT_INODE_MODIFY);
    CHILD_CHECK(own.Make(&add) == -EACCES);
  });
  EXPECT_CHILD_OK(child);
}

}  // namespace
}  // namespace kevent::raw
