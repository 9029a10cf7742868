// SPDX-License-Identifier: Apache-2.0
//
// What entries hold, what becomes none, limits and purging.
#include "server/files/file_cache.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <string_view>

#include "gtest/gtest.h"
#include "server/files/file_cache_fixture.h"

namespace kevent::files {
namespace {

namespace fs = std::filesystem;

// What an entry holds.

TEST_F(FileCacheTest, HeadAndBodyAreOnePiece) {
  Write("a/x.txt", "content");
  const EntryRef entry = Get("a/x.txt");
  EXPECT_EQ(entry->kind(), Entry::Kind::kFile);
  EXPECT_EQ(entry->head(), "head of a/x.txt;");
  EXPECT_EQ(entry->body(), "content");
  EXPECT_EQ(entry->head_and_body(), "head of a/x.txt;content");
  EXPECT_EQ(entry->size(), 7u);
  EXPECT_EQ(entry->fd(), -1);
  EXPECT_TRUE(entry->watched());
  entry->mutable_head()[0] = 'H';
  EXPECT_EQ(entry->head_and_body(), "Head of a/x.txt;content");
}

TEST_F(FileCacheTest, LargerFilesHaveADescriptorInstead) {
  options_.max_body_bytes = 6;
  Write("seven", "content");
  Write("six", "conten");
  const EntryRef large = Get("seven");
  EXPECT_FALSE(large->has_body());
  EXPECT_EQ(large->head_and_body(), "head of seven;");
  EXPECT_GE(large->fd(), 0);
  EXPECT_EQ(Content(*large), "content");
  EXPECT_TRUE(Get("six")->has_body());
  EXPECT_EQ(cache().stats().descriptors, 1u);
}

TEST_F(FileCacheTest, EmptyFile) {
  Write("empty", "");
  const EntryRef entry = Get("empty");
  EXPECT_TRUE(entry->has_body());
  EXPECT_EQ(entry->body(), "");
  EXPECT_EQ(entry->head_and_body(), "head of empty;");
}

TEST_F(FileCacheTest, Validators) {
  Write("x", "0123456789");
  SetTimes("x", 784111777, 0x1f);
  const EntryRef entry = Get("x");
  // 784111777 * 10^9 + 31, and 10, in hex.
  EXPECT_EQ(entry->etag(), "\"ae1b981bc490a1f-a\"");
  EXPECT_EQ(entry->last_modified(), "Sun, 06 Nov 1994 08:49:37 GMT");
  EXPECT_EQ(entry->last_modified_s(), 784111777);
}

TEST_F(FileCacheTest, LastModifiedIsNeverInTheFuture) {
  options_.wall_clock_ns = [] { return 1'000'000'000 * kSecond; };
  Write("x", "x");
  const EntryRef entry = Get("x");
  EXPECT_EQ(entry->last_modified(), "Sun, 09 Sep 2001 01:46:40 GMT");
  EXPECT_EQ(entry->last_modified_s(), 1'000'000'000);
}

TEST(FormatImfDateTest, Dates) {
  const auto format = [](int64_t seconds) {
    char text[29];
    FormatImfDate(seconds, text);
    return std::string(text, 29);
  };
  EXPECT_EQ(format(0), "Thu, 01 Jan 1970 00:00:00 GMT");
  EXPECT_EQ(format(951782400), "Tue, 29 Feb 2000 00:00:00 GMT");
  EXPECT_EQ(format(-1), "Wed, 31 Dec 1969 23:59:59 GMT");
  EXPECT_EQ(format(INT64_MIN), "Sat, 01 Jan 0000 00:00:00 GMT");
  EXPECT_EQ(format(INT64_MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
}

TEST_F(FileCacheTest, Directories) {
  for (const char* path : {"", "a", "a/b"}) {
    const EntryRef entry = Get(path);
    EXPECT_EQ(entry->kind(), Entry::Kind::kDirectory);
    EXPECT_EQ(entry->fd(), -1);
    EXPECT_FALSE(entry->has_body());
    EXPECT_EQ(entry->head(), "head of " + std::string(path) + ";");
    EXPECT_TRUE(entry->watched());
  }
}

TEST_F(FileCacheTest, VariantsAreSeparateEntries) {
  Write("x", "x");
  int error;
  const EntryRef first = Get("x", &error, 1);
  const EntryRef second = Get("x", &error, 2);
  EXPECT_NE(first.get(), second.get());
  EXPECT_EQ(second->variant(), 2u);
  EXPECT_EQ(Get("x", &error, 1).get(), first.get());
  Publish("x", "y");
  EXPECT_EQ(Get("x", &error, 1)->body(), "y");
  EXPECT_EQ(Get("x", &error, 2)->body(), "y");
}

// Hits.

TEST_F(FileCacheTest, AHitLooksNowhere) {
  Write("a/x", "x");
  const EntryRef first = Get("a/x");
  const int adds = source_.adds;
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Get("a/x").get(), first.get());
  const FileCache::Stats stats = cache().stats();
  EXPECT_EQ(stats.misses, 1u);
  EXPECT_EQ(stats.hits, 10u);
  EXPECT_EQ(stats.revalidations, 0u);
  EXPECT_EQ(stats.entries, 1u);
  EXPECT_EQ(stats.watches, 3u);  // the root, a, a/x
  EXPECT_EQ(source_.adds, adds);
  EXPECT_EQ(heads_made_, 1);
}

TEST_F(FileCacheTest, DirectoriesAreWatchedOnceAndLetGo) {
  Write("a/b/x", "x");
  Write("a/b/y", "y");
  Write("z", "z");
  Get("a/b/x");
  Get("a/b/y");
  Get("z");
  EXPECT_EQ(source_.live.size(), 6u);
  EXPECT_EQ(cache().Purge("a/b/x"), 1u);
  EXPECT_EQ(source_.live.size(), 5u);
  EXPECT_EQ(cache().Purge("a/b/y"), 1u);
  EXPECT_EQ(source_.live.size(), 2u);
  EXPECT_EQ(cache().PurgeAll(), 1u);
  EXPECT_EQ(source_.live.size(), 0u);
  EXPECT_EQ(cache().stats().watches, 0u);
}

// Symbolic links.

TEST_F(FileCacheTest, LinkRetargeted) {
  Write("a/one", "one");
  Write("a/b/two", "two");
  fs::create_symlink("a/one", dir_ / "link");
  const EntryRef entry = Get("link");
  EXPECT_EQ(entry->body(), "one");
  EXPECT_FALSE(entry->watched());
  fs::create_symlink("a/b/two", dir_ / "link.tmp");
  EXPECT_EQ(Get("link").get(), entry.get());
  EXPECT_FALSE(entry->watched());
  fs::rename(dir_ / "link.tmp", dir_ / "link");
  EXPECT_EQ(Content("link"), "two");
}

TEST_F(FileCacheTest, LinkToADirectoryRetargeted) {
  fs::create_directory(dir_ / "v1");
  fs::create_directory(dir_ / "v2");
  Write("v1/x", "1");
  Write("v2/x", "2");
  fs::create_symlink("v1", dir_ / "current");
  EXPECT_EQ(Content("current/x"), "1");
  fs::create_symlink("v2", dir_ / "current.tmp");
  fs::rename(dir_ / "current.tmp", dir_ / "current");
  EXPECT_EQ(Content("current/x"), "2");
}

TEST_F(FileCacheTest, BehindALinkTimeTells) {
  options_.revalidate_ns = kSecond;
  Write("a/b/x", "old");
  fs::create_symlink("b", dir_ / "a" / "link");
  EXPECT_EQ(Content("a/link/x"), "old");
  Publish("a/b/x", "new");
  now_ += kSecond;
  EXPECT_EQ(Content("a/link/x"), "new");
  // The file itself is watched even so.
  Write("a/b/x", "written");
  EXPECT_EQ(Content("a/link/x"), "written");
}

TEST_F(FileCacheTest, LinkThatEscapesIsRefused) {
  std::ofstream(base_ / "secret") << "secret";
  fs::create_symlink("../secret", dir_ / "link");
  EXPECT_EQ(Error("link"), -EXDEV);
  EXPECT_EQ(Error("../secret"), -EXDEV);
  EXPECT_EQ(Error("a/../../secret"), -EXDEV);
  EXPECT_EQ(Error((base_ / "secret").string()), -EXDEV);
}

TEST_F(FileCacheTest, FileReplacedByALinkToItselfOutsideIsRefused) {
  Write("a/x", "x");
  Get("a/x");
  fs::rename(dir_ / "a", base_ / "outside");
  fs::create_symlink("../outside", dir_ / "a");
  EXPECT_EQ(Error("a/x"), -EXDEV);
}

// What is never served.

TEST_F(FileCacheTest, FifosAreNotServedAndNeverBlock) {
  ASSERT_EQ(mkfifo((dir_ / "fifo").c_str(), 0644), 0);
  EXPECT_EQ(Error("fifo"), -ENXIO);
  Write("x", "x");
  EXPECT_EQ(Error("fifo"), -ENXIO);
  EXPECT_EQ(cache().stats().revalidations, 1u);
  EXPECT_EQ(cache().stats().replacements, 0u);
  Get("x");
  fs::rename(dir_ / "fifo", dir_ / "x");
  EXPECT_EQ(Error("x"), -ENXIO);
}

TEST_F(FileCacheTest, DevicesAreNotServed) {
  const Root dev = *Root::Create("/dev", SymlinkPolicy::kBeneath);
  FileCache devices(
      &dev, nullptr, [](Entry&, std::string*) {}, options_);
  int error;
  EXPECT_FALSE(devices.Get("null", 0, &error));
  EXPECT_EQ(error, -ENXIO);
}

TEST_F(FileCacheTest, ImpossiblePaths) {
  EXPECT_EQ(Error(std::string(5000, 'x')), -ENAMETOOLONG);
  EXPECT_EQ(Error(std::string(300, 'x')), -ENAMETOOLONG);
  EXPECT_EQ(Error(std::string_view("a\0b", 3)), -EINVAL);
  EXPECT_EQ(cache().stats().negative_entries, 0u);
}

// Limits.

TEST_F(FileCacheTest, EvictsWhatWasNotUsedAndKeepsReferencesGood) {
  options_.max_entries = 3;
  for (const char* name : {"1", "2", "3", "4"}) Write(name, name);
  const EntryRef one = Get("1");
  Get("2");
  Get("3");
  Get("1");
  Get("3");
  Get("4");  // 1 and 3 have a second chance
  EXPECT_EQ(cache().stats().entries, 3u);
  EXPECT_EQ(cache().stats().evictions, 1u);
  const uint64_t misses = cache().stats().misses;
  EXPECT_EQ(Get("1").get(), one.get());
  Get("3");
  Get("4");
  EXPECT_EQ(cache().stats().misses, misses);
  Get("2");
  EXPECT_EQ(cache().stats().misses, misses + 1);
  for (const char* name : {"2", "3", "4", "2", "3", "4"}) Get(name);
  EXPECT_NE(Get("1").get(), one.get());
  EXPECT_EQ(one->head_and_body(), "head of 1;1");
}

TEST_F(FileCacheTest, EvictedFilesStayOpenWhileInUse) {
  options_.max_body_bytes = 0;
  options_.max_descriptors = 1;
  Write("1", "one");
  Write("2", "two");
  EntryRef one = Get("1");
  const int fd = one->fd();
  const EntryRef two = Get("2");
  EXPECT_EQ(cache().stats().descriptors, 1u);
  EXPECT_EQ(cache().stats().entries, 1u);
  EXPECT_EQ(Content(*one), "one");
  one = EntryRef();
  EXPECT_EQ(fcntl(fd, F_GETFD), -1);
  EXPECT_NE(fcntl(two->fd(), F_GETFD), -1);
}

TEST_F(FileCacheTest, BodiesKeepToTheirBudget) {
  options_.max_total_body_bytes = 300;
  for (int i = 0; i < 10; ++i) {
    Write(std::to_string(i), std::string(100, 'x'));
    EXPECT_TRUE(Get(std::to_string(i))->has_body());
    EXPECT_LE(cache().stats().body_bytes, 300u);
  }
  EXPECT_EQ(cache().stats().entries, 2u);  // heads count
  Write("big", std::string(300, 'x'));
  EXPECT_FALSE(Get("big")->has_body());
  EXPECT_EQ(cache().stats().entries, 3u);
  cache().PurgeAll();
  EXPECT_EQ(cache().stats().body_bytes, 0u);
  EXPECT_EQ(cache().stats().descriptors, 0u);
}

TEST_F(FileCacheTest, ErrorsHaveALimitOfTheirOwn) {
  options_.max_negative_entries = 2;
  Write("x", "x");
  Get("x");
  for (int i = 0; i < 100; ++i) Error("none" + std::to_string(i));
  EXPECT_EQ(cache().stats().negative_entries, 2u);
  EXPECT_EQ(cache().stats().entries, 1u);

  options_.max_negative_entries = 0;
  cache_.reset();
  EXPECT_EQ(Error("none"), -ENOENT);
  EXPECT_EQ(cache().stats().negative_entries, 0u);
  EXPECT_EQ(cache().stats().watches, 0u);
}

TEST_F(FileCacheTest, WithoutEntriesEveryUseOpens) {
  options_.max_entries = 0;
  Write("a/x", "old");
  const EntryRef old = Get("a/x");
  EXPECT_EQ(Content(*old), "old");
  EXPECT_EQ(old->head(), "head of a/x;");
  Publish("a/x", "new");
  EXPECT_EQ(Content("a/x"), "new");
  EXPECT_EQ(Error("none"), -ENOENT);
  EXPECT_EQ(cache().stats().entries, 0u);
  EXPECT_EQ(source_.adds, 0);
}

TEST_F(FileCacheTest, GivesUpDescriptorsWhenTheProcessHasNoneLeft) {
  use_source_ = false;
  options_.max_body_bytes = 0;
  Write("1", "one");
  Write("2", "two");
  Get("1");
  const DescriptorLimit limit(0);
  EXPECT_EQ(Content("2"), "two");
  EXPECT_EQ(cache().stats().evictions, 1u);
}

TEST_F(FileCacheTest, AShortageOfDescriptorsLeavesTheEntryInUse) {
  options_.revalidate_ns = kSecond;
  Write("a/x", "x");
  const EntryRef entry = Get("a/x");
  EXPECT_EQ(Error("a/none"), -ENOENT);
  // The directory would be looked up again.
  Write("sibling", "s");
  const uint64_t watches = cache().stats().watches;
  {
    const DescriptorLimit limit(0);
    now_ += kSecond;
    EXPECT_EQ(Get("a/x").get(), entry.get());
    Error("a/none");
    int error;
    EXPECT_FALSE(Get("a/b", &error));
    EXPECT_EQ(error, -EMFILE);
    EXPECT_EQ(cache().stats().watches, watches);
  }
  Publish("a/x", "new");
  Write("a/none", "there");
  EXPECT_EQ(Content("a/x"), "new");
  EXPECT_EQ(Content("a/none"), "there");
  EXPECT_EQ(Content("a/b"), "directory");
}

// Purging.

TEST_F(FileCacheTest, Purge) {
  for (const char* path : {"a/x", "a/b/x", "ab", "y"}) Write(path, path);
  int error;
  for (const char* path : {"a/x", "a/b/x", "ab", "y", "a", "a/none"}) {
    Get(path, &error);
  }
  Get("y", &error, 7);
  EXPECT_EQ(cache().Purge("nothing"), 0u);
  EXPECT_EQ(cache().Purge("y"), 2u);
  EXPECT_EQ(cache().PurgePrefix("a"), 4u);  // not ab
  EXPECT_EQ(cache().stats().entries, 1u);
  EXPECT_EQ(cache().PurgePrefix(""), 1u);
  EXPECT_EQ(Content("a/x"), "a/x");
  EXPECT_EQ(cache().PurgeAll(), 1u);
}

TEST_F(FileCacheTest, WalkMeetsEveryEntry) {
  for (const char* path : {"a/x", "ab", "y"}) Write(path, path);
  int error;
  for (const char* path : {"a/x", "ab", "y", "a", "a/none"}) Get(path, &error);
  for (size_t step : {1u, 2u, 100u}) {
    std::multiset<std::string> met;
    FileCache::Walk walk(&cache());
    auto note = [&](const Entry& entry) {
      met.insert(entry.path());
      EXPECT_EQ(entry.kind() == Entry::Kind::kError, entry.path() == "a/none");
      if (entry.kind() == Entry::Kind::kError) {
        EXPECT_EQ(entry.error(), -ENOENT);
      }
      return false;
    };
    while (walk.Next(step, note)) {
    }
    EXPECT_EQ(met,
              (std::multiset<std::string>{"a", "a/none", "a/x", "ab", "y"}));
  }
  EXPECT_EQ(cache().stats().entries, 4u);
}

TEST_F(FileCacheTest, WalkGoesOnWhereEntriesAreDropped) {
  std::multiset<std::string> all;
  for (int i = 0; i < 10; ++i) {
    const std::string path = "f" + std::to_string(i);
    Write(path, path);
    Get(path);
    all.insert(path);
  }
  std::multiset<std::string> met;
  FileCache::Walk walk(&cache());
  auto note = [&](const Entry& entry) {
    met.insert(entry.path());
    return entry.path() == "f1";  // drops it
  };
  ASSERT_TRUE(walk.Next(2, note));
  EXPECT_EQ(met.size(), 2u);
  EXPECT_EQ(cache().stats().entries, 9u);
  // Those it would come to next, and one it has passed.
  for (const char* path : {"f0", "f2", "f3"}) {
    EXPECT_EQ(cache().Purge(path), 1u);
    all.erase(path);
  }
  while (walk.Next(1, note)) {
  }
  all.insert("f0");
  EXPECT_EQ(met, all);
}

TEST_F(FileCacheTest, WalkGoesOnWhereEntriesAreEvicted) {
  options_.max_entries = 8;
  for (int i = 0; i < 8; ++i) {
    Write("f" + std::to_string(i), "x");
    Get("f" + std::to_string(i));
    Get("f" + std::to_string(i));  // used: it gets a second chance
  }
  std::set<std::string> met;
  FileCache::Walk walk(&cache());
  auto note = [&](const Entry& entry) {
    met.insert(entry.path());
    return false;
  };
  ASSERT_TRUE(walk.Next(1, note));
  Write("new", "x");
  Get("new");  // all move, one goes
  size_t steps = 0;
  while (walk.Next(1, note)) ASSERT_LT(++steps, 100u);
  for (const auto& entry : {"f1", "f2", "f3", "f4", "f5", "f6", "f7"}) {
    EXPECT_TRUE(met.contains(entry)) << entry;
  }
}

TEST_F(FileCacheTest, WalkOutlivesTheCache) {
  Write("x", "x");
  Get("x");
  FileCache::Walk walk(&cache());
  cache_.reset();
  EXPECT_FALSE(walk.Next(10, [](const Entry&) { return false; }));
}

TEST_F(FileCacheTest, ReferencesOutliveTheCache) {
  Write("x", "x");
  const EntryRef entry = Get("x");
  const EntryRef copy = entry;
  cache_.reset();
  EXPECT_EQ(copy->head_and_body(), "head of x;x");
}

}  // namespace
}  // namespace kevent::files
