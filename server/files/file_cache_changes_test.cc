// SPDX-License-Identifier: Apache-2.0
//
// Changes of the files: that events tell, and that only time does.
#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <string>
#include <system_error>

#include "gtest/gtest.h"
#include "server/files/file_cache.h"
#include "server/files/file_cache_fixture.h"
#include "server/files/root.h"

namespace kevent::files {
namespace {

namespace fs = std::filesystem;

constexpr char kNotFound[] = "No such file or directory";

// Changes that events tell.

TEST_F(FileCacheTest, WrittenInPlace) {
  Write("a/x", "old");
  const EntryRef old = Get("a/x");
  Write("a/x", "newer");
  const EntryRef entry = Get("a/x");
  EXPECT_EQ(entry->head_and_body(), "head of a/x;newer");
  EXPECT_NE(entry->etag(), old->etag());
  // Whoever is still sending the old one sends all of it.
  EXPECT_EQ(old->body(), "old");
  EXPECT_EQ(cache().stats().entries, 1u);
}

TEST_F(FileCacheTest, ReplacedByRename) {
  Write("a/x", "old");
  Get("a/x");
  Publish("a/x", "new");
  EXPECT_EQ(Content("a/x"), "new");
  Publish("a/x", "NEW");
  EXPECT_EQ(Content("a/x"), "NEW");
}

TEST_F(FileCacheTest, ReplacedByRenameWithTheSameTimesAndSize) {
  Write("a/x", "old");
  SetTimes("a/x", 1000);
  Get("a/x");
  Write("a/t", "new");
  SetTimes("a/t", 1000);
  fs::rename(dir_ / "a/t", dir_ / "a/x");
  EXPECT_EQ(Content("a/x"), "new");
}

TEST_F(FileCacheTest, Truncated) {
  for (const size_t max_body : {size_t{0}, size_t{100}}) {
    options_.max_body_bytes = max_body;
    cache_.reset();
    Write("x", "content");
    const EntryRef old = Get("x");
    fs::resize_file(dir_ / "x", 4);
    const EntryRef entry = Get("x");
    EXPECT_EQ(entry->size(), 4u);
    EXPECT_EQ(Content(*entry), "cont");
    EXPECT_NE(entry->etag(), old->etag());
  }
}

TEST_F(FileCacheTest, Grown) {
  options_.max_body_bytes = 10;
  Write("x", "content");
  EXPECT_TRUE(Get("x")->has_body());
  std::ofstream(dir_ / "x", std::ios::app) << " and more";
  const EntryRef entry = Get("x");
  EXPECT_EQ(entry->size(), 16u);
  EXPECT_FALSE(entry->has_body());
  EXPECT_EQ(Content(*entry), "content and more");
}

TEST_F(FileCacheTest, Deleted) {
  Write("a/x", "x");
  const EntryRef old = Get("a/x");
  fs::remove(dir_ / "a/x");
  EXPECT_EQ(Error("a/x"), -ENOENT);
  EXPECT_EQ(old->body(), "x");
}

TEST_F(FileCacheTest, DeletedWithItsDirectories) {
  Write("a/b/x", "x");
  Get("a/b/x");
  fs::remove_all(dir_ / "a");
  EXPECT_EQ(Error("a/b/x"), -ENOENT);
  EXPECT_EQ(source_.live.size(), 1u);
  fs::create_directories(dir_ / "a" / "b");
  Write("a/b/x", "again");
  EXPECT_EQ(Content("a/b/x"), "again");
}

TEST_F(FileCacheTest, MissingThenCreated) {
  EXPECT_EQ(Error("a/x"), -ENOENT);
  EXPECT_EQ(Error("a/x"), -ENOENT);
  EXPECT_EQ(cache().stats().hits, 1u);
  EXPECT_EQ(cache().stats().negative_entries, 1u);
  Write("a/x", "x");
  EXPECT_EQ(Content("a/x"), "x");
  EXPECT_EQ(cache().stats().negative_entries, 0u);
}

TEST_F(FileCacheTest, MissingThenCreatedWithItsDirectories) {
  EXPECT_EQ(Error("new/deep/x"), -ENOENT);
  fs::create_directories(dir_ / "new" / "deep");
  EXPECT_EQ(Error("new/deep/x"), -ENOENT);
  Write("new/deep/x", "x");
  EXPECT_EQ(Content("new/deep/x"), "x");
  EXPECT_TRUE(Get("new/deep/x")->watched());
}

TEST_F(FileCacheTest, FileWhereADirectoryWas) {
  Write("a/b/x", "x");
  Get("a/b/x");
  fs::remove_all(dir_ / "a" / "b");
  Write("a/b", "file");
  EXPECT_EQ(Error("a/b/x"), -ENOTDIR);
  EXPECT_EQ(Content("a/b"), "file");
  fs::remove(dir_ / "a" / "b");
  fs::create_directory(dir_ / "a" / "b");
  EXPECT_EQ(Content("a/b"), "directory");
  EXPECT_EQ(Error("a/b/x"), -ENOENT);
}

TEST_F(FileCacheTest, AncestorRenamed) {
  Write("a/b/x", "x");
  EXPECT_EQ(Content("a/b/x"), "x");
  EXPECT_EQ(Error("c/b/x"), -ENOENT);
  fs::rename(dir_ / "a", dir_ / "c");
  EXPECT_EQ(Error("a/b/x"), -ENOENT);
  EXPECT_EQ(Content("c/b/x"), "x");
  fs::rename(dir_ / "c", dir_ / "a");
  EXPECT_EQ(Content("a/b/x"), "x");
  EXPECT_EQ(Error("c/b/x"), -ENOENT);
}

TEST_F(FileCacheTest, AncestorMovedOutOfTheRoot) {
  Write("a/b/x", "x");
  Get("a/b/x");
  fs::rename(dir_ / "a", base_ / "outside");
  EXPECT_EQ(Error("a/b/x"), -ENOENT);
}

TEST_F(FileCacheTest, AncestorReplacedByAnother) {
  Write("a/b/x", "old");
  Get("a/b/x");
  EXPECT_EQ(Error("a/b/none"), -ENOENT);
  fs::create_directories(dir_ / "next" / "b");
  Write("next/b/x", "new");
  fs::rename(dir_ / "a", dir_ / "before");
  fs::rename(dir_ / "next", dir_ / "a");
  EXPECT_EQ(Content("a/b/x"), "new");
  EXPECT_TRUE(Get("a/b/x")->watched());
  EXPECT_EQ(Error("a/b/none"), -ENOENT);
  // What happens in the new directories is noticed too.
  Write("a/b/none", "there");
  EXPECT_EQ(Content("a/b/none"), "there");
  Publish("a/b/x", "newest");
  EXPECT_EQ(Content("a/b/x"), "newest");
  fs::rename(dir_ / "a" / "b", dir_ / "a" / "c");
  EXPECT_EQ(Error("a/b/x"), -ENOENT);
}

TEST_F(FileCacheTest, TwoDirectoriesExchanged) {
  fs::create_directories(dir_ / "c" / "b");
  Write("a/b/x", "a");
  Write("c/b/x", "c");
  EXPECT_EQ(Content("a/b/x"), "a");
  EXPECT_EQ(Content("c/b/x"), "c");
  ASSERT_EQ(renameat2(AT_FDCWD, (dir_ / "a").c_str(), AT_FDCWD,
                      (dir_ / "c").c_str(), RENAME_EXCHANGE),
            0);
  EXPECT_EQ(Content("a/b/x"), "c");
  EXPECT_EQ(Content("c/b/x"), "a");
  Publish("a/b/x", "a2");
  EXPECT_EQ(Content("a/b/x"), "a2");
  EXPECT_EQ(Content("c/b/x"), "a");
}

TEST_F(FileCacheTest, WrittenThroughAnotherHardLink) {
  Write("a/x", "old");
  fs::create_hard_link(dir_ / "a" / "x", base_ / "other_name");
  EXPECT_EQ(Content("a/x"), "old");
  std::ofstream(base_ / "other_name") << "newer";
  EXPECT_EQ(Content("a/x"), "newer");
}

TEST_F(FileCacheTest, TwoNamesOfOneInodeShareItsWatch) {
  Write("a/x", "old");
  fs::create_hard_link(dir_ / "a" / "x", dir_ / "y");
  Get("a/x");
  Get("y");
  EXPECT_EQ(cache().stats().watches, 3u);
  cache().Purge("y");
  Write("a/x", "newer");
  EXPECT_EQ(Content("a/x"), "newer");
}

TEST_F(FileCacheTest, PermissionRemoved) {
  if (geteuid() == 0) GTEST_SKIP() << "root may read everything";
  Write("a/x", "x");
  Get("a/x");
  fs::permissions(dir_ / "a/x", fs::perms::none);
  EXPECT_EQ(Error("a/x"), -EACCES);
  fs::permissions(dir_ / "a/x", fs::perms::owner_all);
  EXPECT_EQ(Content("a/x"), "x");
  fs::permissions(dir_ / "a", fs::perms::none);
  EXPECT_EQ(Error("a/x"), -EACCES);
  fs::permissions(dir_ / "a", fs::perms::owner_all);
  EXPECT_EQ(Content("a/x"), "x");
}

TEST_F(FileCacheTest, AnEventThatChangesNothingKeepsTheEntry) {
  Write("a/x", "x");
  const EntryRef entry = Get("a/x");
  Write("a/sibling", "s");
  EXPECT_EQ(Get("a/x").get(), entry.get());
  EXPECT_EQ(cache().stats().revalidations, 1u);
  EXPECT_EQ(cache().stats().invalidations, 1u);
  EXPECT_EQ(Get("a/x").get(), entry.get());
  EXPECT_EQ(cache().stats().hits, 1u);
  // And again: one event does not use up the watch.
  fs::remove(dir_ / "a/sibling");
  EXPECT_EQ(Get("a/x").get(), entry.get());
  EXPECT_EQ(cache().stats().revalidations, 2u);
}

TEST_F(FileCacheTest, AnEventConcernsOnlyWhatIsBelow) {
  Write("a/b/x", "x");
  Write("y", "y");
  Get("a/b/x");
  Get("y");
  Write("a/b/z", "z");
  Get("y");
  EXPECT_EQ(cache().stats().hits, 1u);
  Get("a/b/x");
  EXPECT_EQ(cache().stats().revalidations, 1u);
}

TEST_F(FileCacheTest, LostEventsMakeEverythingStale) {
  Write("a/x", "old");
  Write("y", "old");
  Get("a/x");
  Get("y");
  EXPECT_EQ(Error("a/none"), -ENOENT);
  cache().OnWatchEvent(-1, IN_Q_OVERFLOW);
  Get("a/x");
  Get("y");
  Error("a/none");
  EXPECT_EQ(cache().stats().revalidations, 3u);
  EXPECT_EQ(cache().stats().hits, 0u);
}

TEST_F(FileCacheTest, UnknownEventsAreIgnored) {
  Write("x", "x");
  Get("x");
  cache().OnWatchEvent(4711, IN_MODIFY);
  cache().OnWatchEvent(4711, IN_IGNORED);
  EXPECT_EQ(cache().stats().invalidations, 0u);
}

// Changes that only time tells.

TEST_F(FileCacheTest, RevalidatesAfterTheInterval) {
  use_source_ = false;
  options_.revalidate_ns = kSecond;
  Write("a/x", "old");
  const EntryRef old = Get("a/x");
  EXPECT_FALSE(old->watched());
  Publish("a/x", "new");
  now_ += kSecond - 1;
  EXPECT_EQ(Get("a/x").get(), old.get());
  now_ += 1;
  const EntryRef entry = Get("a/x");
  EXPECT_EQ(entry->body(), "new");
  now_ += kSecond;
  EXPECT_EQ(Get("a/x").get(), entry.get());
  now_ += kSecond - 1;
  EXPECT_EQ(Get("a/x").get(), entry.get());
  EXPECT_EQ(cache().stats().revalidations, 2u);
  EXPECT_EQ(cache().stats().replacements, 1u);
}

TEST_F(FileCacheTest, ErrorsAreRevalidatedToo) {
  use_source_ = false;
  options_.revalidate_ns = kSecond;
  EXPECT_EQ(Error("x"), -ENOENT);
  Write("x", "x");
  EXPECT_EQ(Error("x"), -ENOENT);
  now_ += kSecond;
  EXPECT_EQ(Content("x"), "x");
  fs::remove(dir_ / "x");
  now_ += kSecond;
  EXPECT_EQ(Error("x"), -ENOENT);
}

TEST_F(FileCacheTest, StoresThroughAMappingShowAtTheNextRevalidation) {
  if (OnTmpfs()) GTEST_SKIP() << "a tmpfs leaves the times alone";
  options_.revalidate_ns = kSecond;
  Write("x", "mapped");
  SetTimes("x", 1000);
  EXPECT_EQ(Content("x"), "mapped");
  Mapping mapping(dir_ / "x", 6);
  mapping.Store(0, 'M');
  // No event tells.
  EXPECT_EQ(Content("x"), "mapped");
  EXPECT_EQ(cache().stats().invalidations, 0u);
  now_ += kSecond;
  EXPECT_EQ(Content("x"), "Mapped");
}

TEST_F(FileCacheTest, StoresToADirtyPageShowWhileTheFileIsYoung) {
  options_.revalidate_ns = kSecond;
  options_.wall_clock_ns = &WallClockNs;
  Write("x", "mapped");
  Mapping mapping(dir_ / "x", 6);
  mapping.Store(0, 'M');
  const EntryRef first = Get("x");
  EXPECT_EQ(first->body(), "Mapped");
  now_ += kSecond;
  EXPECT_EQ(Get("x").get(), first.get());
  // The page is writable by now: the times of the file stay as they are.
  mapping.Store(1, 'A');
  now_ += kSecond;
  EXPECT_EQ(Content("x"), "MApped");
}

TEST_F(FileCacheTest, ColdFilesAreNotReadUntilTheyAreWarm) {
  options_.revalidate_ns = kSecond;
  options_.max_body_bytes = 20'000;
  const std::string text(20'000, 'x');
  std::string name;
  const EntryRef cold = GetCold(text, /*uses=*/1, &name);
  if (!cold) GTEST_SKIP() << "no cold files on this file system";
  ASSERT_FALSE(cold->has_body());
  EXPECT_GE(cold->fd(), 0);
  EXPECT_EQ(Content(*cold), text);
  EXPECT_EQ(Get(name).get(), cold.get());
  now_ += kSecond;
  EXPECT_TRUE(Get(name)->has_body());
  EXPECT_EQ(cache().stats().descriptors, 0u);
}

TEST_F(FileCacheTest, AFileThatShrinksWhileItIsReadIsNotKeptInMemory) {
  use_source_ = false;
  Write("x", "content");
  on_head_ = [this] { fs::resize_file(dir_ / "x", 3); };
  const EntryRef entry = Get("x");
  EXPECT_FALSE(entry->has_body());
  EXPECT_GE(entry->fd(), 0);
  on_head_ = nullptr;
  EXPECT_EQ(Get("x")->head_and_body(), "head of x;con");
}

// Watches that cannot be had.

TEST_F(FileCacheTest, WithoutWatchesTimeTells) {
  options_.revalidate_ns = kSecond;
  options_.watch_retry_ns = 10 * kSecond;
  source_.fail_with = -ENOSPC;
  Write("a/x", "old");
  const EntryRef old = Get("a/x");
  EXPECT_FALSE(old->watched());
  EXPECT_EQ(source_.adds, 1) << "asked on although the source is full";
  Publish("a/x", "new");
  EXPECT_EQ(Content("a/x"), "old");
  now_ += kSecond;
  EXPECT_EQ(Content("a/x"), "new");
  EXPECT_EQ(source_.adds, 1);

  // When there is room again, the entry gets its watches and keeps its place.
  source_.fail_with = 0;
  const EntryRef entry = Get("a/x");
  now_ += 10 * kSecond;
  EXPECT_EQ(Get("a/x").get(), entry.get());
  EXPECT_TRUE(entry->watched());
  EXPECT_EQ(cache().stats().watches, 3u);
  Publish("a/x", "newest");
  EXPECT_EQ(Content("a/x"), "newest");
}

TEST_F(FileCacheTest, OneInodeThatCannotBeWatchedHarmsNoOther) {
  options_.revalidate_ns = kSecond;
  Write("a/x", "x");
  Write("y", "y");
  Get("");
  source_.fail_with = -EACCES;
  EXPECT_FALSE(Get("a/x")->watched());
  source_.fail_with = 0;
  EXPECT_TRUE(Get("y")->watched());
}

TEST_F(FileCacheTest, BelowAnUnwatchedDirectoryTheOnesAboveStillTell) {
  RefuseWatch("a");
  Write("a/x", "x");
  Write("y", "y");
  Get("y");
  Write("z", "z");
  source_.Deliver(&cache());  // all there is, is stale
  EXPECT_EQ(Content("a/x"), "x");
  fs::rename(dir_ / "a", dir_ / "c");
  EXPECT_EQ(Error("a/x"), -ENOENT);
}

TEST_F(FileCacheTest, ADirectoryThatMovesIsLookedUpAgain) {
  RefuseWatch("");
  EXPECT_EQ(Error("a/none"), -ENOENT);
  fs::create_directory(dir_ / "next");
  fs::rename(dir_ / "a", dir_ / "before");
  fs::rename(dir_ / "next", dir_ / "a");
  EXPECT_EQ(Error("a/none"), -ENOENT);
  Write("a/none", "there");
  EXPECT_EQ(Content("a/none"), "there");
}

TEST_F(FileCacheTest, AChangeThatNoEventToldCastsDoubtOnTheDirectories) {
  options_.revalidate_ns = kSecond;
  options_.watch_retry_ns = kNever;
  RefuseWatch("");
  RefuseWatch("a");
  Write("a/b/x", "old");
  EXPECT_EQ(Content("a/b/x"), "old");
  EXPECT_EQ(Error("a/b/none"), -ENOENT);
  fs::create_directories(dir_ / "next" / "b");
  Write("next/b/x", "new");
  fs::rename(dir_ / "a", dir_ / "before");
  fs::rename(dir_ / "next", dir_ / "a");
  EXPECT_EQ(Content("a/b/x"), "old");
  now_ += kSecond;
  EXPECT_EQ(Content("a/b/x"), "new");
  now_ += kSecond;
  EXPECT_EQ(Error("a/b/none"), -ENOENT);
  // By now the directory of that name is the watched one.
  Write("a/b/none", "there");
  EXPECT_EQ(Content("a/b/none"), "there");
}

TEST_F(FileCacheTest, NothingIsMissedWhileAWatchIsTaken) {
  Write("a/x", "old");
  source_.on_add = [this](const struct stat& st) {
    if (S_ISREG(st.st_mode)) Write("a/x", "newer");
  };
  EXPECT_EQ(Get("a/x")->head_and_body(), "head of a/x;newer");
}

TEST_F(FileCacheTest, NothingIsMissedWhileAWatchIsTakenLater) {
  options_.revalidate_ns = kSecond;
  options_.watch_retry_ns = kSecond;
  Write("a/x", "old");
  RefuseWatch("a/x");
  EXPECT_EQ(Content("a/x"), "old");
  source_.fail_inodes.clear();
  source_.on_add = [this](const struct stat& st) {
    if (S_ISREG(st.st_mode)) Write("a/x", "newer");
  };
  now_ += kSecond;
  EXPECT_EQ(Content("a/x"), "newer");
}

TEST_F(FileCacheTest, AWatchTheSourceEndsIsTakenAnew) {
  options_.revalidate_ns = kSecond;
  Write("a/x", "old");
  Get("a/x");
  const std::set<int64_t> before = source_.live;
  for (const int64_t id : before) cache().OnWatchEvent(id, IN_IGNORED);
  EXPECT_EQ(cache().stats().watches, 0u);
  EXPECT_TRUE(Get("a/x")->watched());
  EXPECT_EQ(cache().stats().watches, 3u);
  Publish("a/x", "new");
  EXPECT_EQ(Content("a/x"), "new");
}

// Whatever happens to the tree, the cache shows it as it is.

class RandomChanges : public FileCacheTest {
 protected:
  RandomChanges() {
    // Of the three sizes there are, two may go into pages.
    options_.min_page_bytes = 1;
    options_.page_uses = 2;
  }

  // What is at the path now, found without the cache.
  std::string Truth(const std::string& path) {
    OpenedFile file;
    const int error = root_->Open(path.c_str(), &file);
    if (error < 0) return std::strerror(-error);
    if (file.is_directory()) return "directory";
    std::string text(file.info.size, '\0');
    EXPECT_EQ(pread(file.fd(), text.data(), text.size(), 0),
              static_cast<ssize_t>(text.size()));
    return text;
  }

  std::string RandomPath() {
    std::string path;
    for (size_t depth = random_() % 4;; --depth) {
      path += "pqr"[random_() % 3];
      if (depth == 0) return path;
      path += '/';
    }
  }

  void Change(bool links) {
    const fs::path path = dir_ / RandomPath();
    const fs::path other = dir_ / RandomPath();
    std::error_code ignored;
    switch (random_() % (links ? 9 : 8)) {
      case 0:
      case 1:
        fs::create_directories(path, ignored);
        break;
      case 2:
      case 3:
        // Of few sizes, in place.
        if (fs::is_directory(path, ignored)) break;
        std::ofstream(path) << std::string(random_() % 3, 'a' + random_() % 8);
        break;
      case 4:
      case 5:
        fs::rename(path, other, ignored);
        break;
      case 6:
        if (random_() % 4 == 0) fs::remove_all(path, ignored);
        break;
      case 7:
        if (fs::is_regular_file(path, ignored)) {
          fs::create_hard_link(path, other, ignored);
        }
        break;
      case 8:
        // Downwards only: moved about, "../" would lead out of the test.
        fs::create_symlink(RandomPath(), path, ignored);
        break;
    }
  }

  // With links, and time for each to show.
  void ExpectAllShow() {
    options_.wall_clock_ns = &WallClockNs;
    options_.revalidate_ns = kSecond;
    for (int step = 0; step < 5'000; ++step) {
      Change(/*links=*/true);
      now_ += kSecond;
      const std::string path = RandomPath();
      ASSERT_EQ(Content(path), Truth(path)) << path << " at step " << step;
    }
  }

  std::mt19937 random_{2006};
};

TEST_F(RandomChanges, ByEventsAlone) {
  options_.wall_clock_ns = &WallClockNs;
  options_.max_entries = 40;
  options_.max_negative_entries = 20;
  options_.max_body_bytes = 1;
  int found = 0;
  for (int step = 0; step < 20'000; ++step) {
    Change(/*links=*/false);
    const std::string path = RandomPath();
    const std::string truth = Truth(path);
    ASSERT_EQ(Content(path), truth) << path << " at step " << step;
    found += truth != kNotFound;
  }
  EXPECT_GT(found, 1000);
  const FileCache::Stats stats = cache().stats();
  EXPECT_GT(stats.hits, 1000u);
  EXPECT_GT(stats.replacements, 1000u);
  EXPECT_GT(stats.evictions, 100u);
  EXPECT_EQ(stats.watches, source_.live.size());
}

TEST_F(RandomChanges, ByTimeAlone) {
  use_source_ = false;
  ExpectAllShow();
}

TEST_F(RandomChanges, WithLinksByBoth) { ExpectAllShow(); }

}  // namespace
}  // namespace kevent::files
