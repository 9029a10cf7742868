// SPDX-License-Identifier: Apache-2.0
#include "server/files/file_cache.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kevent::files {
namespace {

namespace fs = std::filesystem;

using testing::HasSubstr;

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kNever = INT64_MAX / 2;

// Far enough ahead that no file counts as changed a moment ago.
int64_t SettledClock() { return WallClockNs() + 3600 * kSecond; }

class InotifySource : public WatchSource {
 public:
  InotifySource() : fd_(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {}
  ~InotifySource() override { close(fd_); }

  int64_t Add(int fd, uint32_t mask) override {
    ++adds;
    struct stat st;
    EXPECT_EQ(fstat(fd, &st), 0);
    if (on_add) on_add(st);
    if (fail_with != 0) return fail_with;
    if (fail_inodes.contains(st.st_ino)) return -EACCES;
    const std::string path = "/proc/self/fd/" + std::to_string(fd);
    const int id = inotify_add_watch(fd_, path.c_str(), mask);
    if (id < 0) return -errno;
    EXPECT_TRUE(live.insert(id).second) << "one inode watched twice";
    return id;
  }

  void Remove(int64_t id) override {
    EXPECT_EQ(live.erase(id), 1u);
    inotify_rm_watch(fd_, static_cast<int>(id));
  }

  // Delivers what has happened so far.
  void Deliver(FileCache* cache) {
    alignas(inotify_event) char buffer[8192];
    for (ssize_t n; (n = read(fd_, buffer, sizeof(buffer))) > 0;) {
      for (ssize_t at = 0; at < n;) {
        const auto* event = reinterpret_cast<const inotify_event*>(buffer + at);
        cache->OnWatchEvent(event->wd, event->mask);
        at += static_cast<ssize_t>(sizeof(*event) + event->len);
      }
    }
  }

  int adds = 0;
  int fail_with = 0;
  std::set<ino_t> fail_inodes;
  std::function<void(const struct stat&)> on_add;
  std::set<int64_t> live;

 private:
  const int fd_;
};

class FileCacheTest : public testing::Test {
 protected:
  FileCacheTest() {
    std::string name = testing::TempDir() + "/file_cache_test.XXXXXX";
    base_ = mkdtemp(name.data());
    dir_ = base_ / "www";
    fs::create_directories(dir_ / "a" / "b");
    root_.emplace(*Root::Create(dir_, SymlinkPolicy::kBeneath));
    // Freshness by events alone: a test that lets time pass says so.
    options_.revalidate_ns = kNever;
    options_.wall_clock_ns = &SettledClock;
  }

  ~FileCacheTest() override {
    cache_.reset();
    EXPECT_TRUE(source_.live.empty());
    fs::remove_all(base_);
  }

  void Write(const fs::path& path, const std::string& text) {
    std::ofstream stream(dir_ / path, std::ios::binary);
    stream << text;
    ASSERT_TRUE(stream.flush().good()) << path;
  }

  // Writes beside and renames over, as careful tools publish.
  void Publish(const fs::path& path, const std::string& text) {
    Write(path.string() + ".tmp", text);
    fs::rename(dir_ / (path.string() + ".tmp"), dir_ / path);
  }

  FileCache& cache() {
    if (cache_ == nullptr) {
      cache_ = std::make_unique<FileCache>(
          &*root_, use_source_ ? &source_ : nullptr,
          [this](Entry& entry, std::string* head) {
            ++heads_made_;
            *head = "head of " + entry.path() + ";";
            if (on_head_) on_head_();
          },
          options_);
    }
    return *cache_;
  }

  EntryRef Get(std::string_view path, int* error, uint32_t variant = 0) {
    cache();
    source_.Deliver(cache_.get());
    return cache().Get(path, now_, error, variant);
  }

  EntryRef Get(std::string_view path) {
    int error;
    EntryRef entry = Get(path, &error);
    EXPECT_EQ(error, 0) << path;
    return entry;
  }

  int Error(std::string_view path) {
    int error;
    const EntryRef entry = Get(path, &error);
    EXPECT_EQ(!entry, error != 0) << path;
    return error;
  }

  static std::string Content(const Entry& entry) {
    if (entry.has_body()) return std::string(entry.body());
    std::string text(entry.size() + 100, '\0');
    const ssize_t n = pread(entry.fd(), text.data(), text.size(), 0);
    text.resize(n < 0 ? 0 : static_cast<size_t>(n));
    return text;
  }

  // The content at `path`, or the errno as text.
  std::string Content(std::string_view path) {
    int error;
    const EntryRef entry = Get(path, &error);
    if (!entry) return std::strerror(-error);
    if (entry->kind() == Entry::Kind::kDirectory) return "directory";
    return Content(*entry);
  }

  bool OnTmpfs() {
    struct statfs st;
    return statfs(dir_.c_str(), &st) == 0 && st.f_type == TMPFS_MAGIC;
  }

  // No watch of this file or directory can be had.
  void RefuseWatch(const fs::path& path) {
    struct stat st;
    ASSERT_EQ(stat((dir_ / path).c_str(), &st), 0);
    source_.fail_inodes.insert(st.st_ino);
  }

  void SetTimes(const fs::path& path, int64_t seconds, int64_t ns = 0) {
    const timespec times[2] = {{seconds, ns}, {seconds, ns}};
    ASSERT_EQ(utimensat(AT_FDCWD, (dir_ / path).c_str(), times, 0), 0);
  }

  fs::path base_, dir_;
  InotifySource source_;
  std::optional<Root> root_;
  FileCache::Options options_;
  bool use_source_ = true;
  int heads_made_ = 0;
  std::function<void()> on_head_;
  int64_t now_ = 5 * kSecond;
  std::unique_ptr<FileCache> cache_;
};

constexpr char kNotFound[] = "No such file or directory";

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

class Mapping {
 public:
  Mapping(const fs::path& path, size_t size) : size_(size) {
    const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
    bytes_ = static_cast<char*>(
        mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    close(fd);
  }
  ~Mapping() { munmap(bytes_, size_); }
  void Store(size_t at, char c) {
    *static_cast<volatile char*>(bytes_ + at) = c;
    msync(bytes_, size_, MS_ASYNC);
  }

 private:
  char* bytes_;
  size_t size_;
};

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

// Takes a file out of the page cache; false: this file system keeps it there.
bool MakeCold(const fs::path& path) {
  const size_t size = fs::file_size(path);
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  EXPECT_EQ(fsync(fd), 0);
  EXPECT_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
  void* const pages = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  std::vector<unsigned char> resident((size + 4095) / 4096);
  EXPECT_EQ(mincore(pages, size, resident.data()), 0);
  munmap(pages, size);
  return (resident[0] & 1) == 0;
}

TEST_F(FileCacheTest, ColdFilesAreNotReadUntilTheyAreWarm) {
  options_.revalidate_ns = kSecond;
  options_.max_body_bytes = 20'000;
  const std::string text(20'000, 'x');
  EntryRef cold;
  std::string name;
  // The kernel starts to read ahead when asked for what is not there, so a
  // quick disk and a slow thread may make a file warm just in time.
  for (int i = 0; i < 20 && (!cold || cold->has_body()); ++i) {
    name = "x" + std::to_string(i);
    Write(name, text);
    if (!MakeCold(dir_ / name)) {
      GTEST_SKIP() << "no cold files on this file system";
    }
    cold = Get(name);
  }
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

// Bodies in pages.

class PagesTest : public FileCacheTest {
 protected:
  PagesTest() {
    options_.max_body_bytes = 10'000;
    options_.min_page_bytes = 6'000;
    options_.max_page_bytes = 100'000;
    options_.page_uses = 5;
  }

  static std::string Text(size_t size) {
    std::string text(size, 0);
    for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i % 251);
    return text;
  }

  // As often as it takes.
  EntryRef GetHot(std::string_view path) {
    for (int i = 0; i < options_.page_uses; ++i) Get(path);
    return Get(path);
  }
};

TEST_F(PagesTest, WhatIsUsedOften) {
  const std::string text(16'384, 'x');
  Write("a/x", text);
  const EntryRef first = Get("a/x");
  EXPECT_FALSE(first->has_body());
  EXPECT_EQ(cache().stats().descriptors, 1u);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Get("a/x").get(), first.get());
  const EntryRef entry = Get("a/x");
  EXPECT_NE(entry.get(), first.get());
  ASSERT_TRUE(entry->in_pages());
  EXPECT_TRUE(entry->has_body());
  EXPECT_EQ(entry->fd(), -1);
  EXPECT_EQ(entry->body(), text);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(entry->body().data()) % 4096, 0u);
  EXPECT_EQ(entry->head(), "head of a/x;");
  EXPECT_EQ(entry->etag(), first->etag());
  EXPECT_TRUE(entry->watched());
  // And so it stays.
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Get("a/x").get(), entry.get());
  const FileCache::Stats stats = cache().stats();
  EXPECT_EQ(stats.entries, 1u);
  EXPECT_EQ(stats.descriptors, 0u);
  EXPECT_EQ(stats.body_bytes, 16'384u);
  EXPECT_EQ(stats.watches, 3u);
  EXPECT_EQ(heads_made_, 2);
  EXPECT_EQ(Content(*first), text) << "it may still be under way";
}

TEST_F(PagesTest, SmallOnesAreCopiedUntilThen) {
  Write("x", std::string(6'000, 'x'));
  const EntryRef first = Get("x");
  EXPECT_TRUE(first->has_body());
  EXPECT_FALSE(first->in_pages());
  const EntryRef entry = GetHot("x");
  EXPECT_TRUE(entry->in_pages());
  EXPECT_EQ(entry->body(), first->body());
}

TEST_F(PagesTest, OnlyOfTheSizesTheyPayFor) {
  for (auto [size, in_pages] :
       std::vector<std::pair<size_t, bool>>{{0, false},
                                            {5'999, false},
                                            {6'000, true},
                                            {10'001, true},
                                            {100'000, true},
                                            {100'001, false}}) {
    const std::string name = std::to_string(size);
    Write(name, std::string(size, 'x'));
    const EntryRef entry = GetHot(name);
    EXPECT_EQ(entry->in_pages(), in_pages) << size;
    EXPECT_EQ(Content(*entry).size(), size);
  }
}

TEST_F(PagesTest, NoneIfNotWanted) {
  options_.max_page_bytes = 0;
  Write("x", std::string(8'000, 'x'));
  Write("y", std::string(16'000, 'y'));
  EXPECT_FALSE(GetHot("x")->in_pages());
  EXPECT_TRUE(Get("x")->has_body());
  EXPECT_FALSE(GetHot("y")->has_body());
}

TEST_F(PagesTest, ChangesShow) {
  Write("x", std::string(16'000, 'x'));
  const EntryRef old = GetHot("x");
  Write("x", std::string(16'000, 'y'));
  EXPECT_EQ(Content("x"), std::string(16'000, 'y'));
  EXPECT_EQ(old->body(), std::string(16'000, 'x'));
  const EntryRef entry = GetHot("x");
  EXPECT_TRUE(entry->in_pages());
  EXPECT_EQ(entry->body(), std::string(16'000, 'y'));
}

TEST_F(PagesTest, LargeOnesComePieceByPiece) {
  options_.max_page_bytes = 300'000;
  const std::string text = Text(300'000);
  Write("x", text);
  const EntryRef first = Get("x");
  for (int use = 1; use <= 6; ++use) EXPECT_EQ(Get("x").get(), first.get());
  EXPECT_FALSE(first->has_body());
  EXPECT_EQ(cache().stats().body_bytes, 0u);
  const EntryRef entry = Get("x");  // the third piece
  ASSERT_TRUE(entry->in_pages());
  EXPECT_TRUE(entry->body() == text);
  EXPECT_EQ(heads_made_, 2);
}

TEST_F(PagesTest, AChangeBetweenPieces) {
  use_source_ = false;
  options_.revalidate_ns = kSecond;
  options_.max_page_bytes = 400'000;
  Write("x", std::string(300'000, 'x'));
  for (int use = 0; use <= 5; ++use) Get("x");  // the first piece is there
  Write("x", std::string(300'001, 'y'));
  for (int use = 0; use < 100; ++use) EXPECT_FALSE(Get("x")->in_pages());
  now_ += options_.revalidate_ns;
  for (int use = 0; use < 100; ++use) Get("x");
  ASSERT_TRUE(Get("x")->in_pages());
  EXPECT_TRUE(Get("x")->body() == std::string(300'001, 'y'));
}

// What was read is not what the new watch finds.
TEST_F(PagesTest, AChangeWhileAWatchIsTaken) {
  for (size_t size : {16'000u, 300'000u}) {
    options_.max_page_bytes = 400'000;
    source_.fail_with = -ENOSPC;
    Write("x", std::string(size, 'x'));
    EntryRef first = Get("x");
    EXPECT_FALSE(first->watched());
    source_.fail_with = 0;
    now_ += options_.watch_retry_ns;
    source_.on_add = [&](const struct stat& st) {
      if (S_ISREG(st.st_mode)) Write("x", std::string(size + 9'000, 'y'));
    };
    for (int use = 0; use < 7 && Get("x").get() == first.get(); ++use) {
    }
    source_.on_add = nullptr;
    EXPECT_NE(Get("x").get(), first.get());
    EXPECT_FALSE(Get("x")->in_pages());
    EXPECT_TRUE(Content("x") == std::string(size + 9'000, 'y'));
    cache_.reset();
  }
}

// It was young when the first piece was read.
TEST_F(PagesTest, StoresBetweenPiecesShowAtTheNextRevalidation) {
  if (OnTmpfs()) GTEST_SKIP() << "never, on a tmpfs";
  static int64_t later_ns;
  later_ns = 0;
  options_.wall_clock_ns = [] { return WallClockNs() + later_ns; };
  options_.revalidate_ns = kSecond;
  options_.max_page_bytes = 300'000;
  Write("x", std::string(300'000, 'x'));
  const int fd = open((dir_ / "x").c_str(), O_RDWR | O_CLOEXEC);
  void* const map =
      mmap(nullptr, 300'000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  ASSERT_NE(map, MAP_FAILED);
  static_cast<char*>(map)[0] = 'y';
  for (int use = 0; use <= 5; ++use) Get("x");
  static_cast<char*>(map)[0] = 'z';
  later_ns = options_.settle_ns + kSecond;
  for (int use = 0; use < 2; ++use) Get("x");
  ASSERT_TRUE(Get("x")->in_pages());
  now_ += kSecond;
  EXPECT_EQ(Content("x").front(), 'z');
  munmap(map, 300'000);
}

// What clients have not taken yet of bodies that had to go.
TEST_F(PagesTest, ThoseThatAreLentAreNotWithoutLimit) {
  options_.max_total_body_bytes = 100'000;
  std::vector<EntryRef> lent;
  for (int i = 0; i < 10; ++i) {
    const std::string name = std::to_string(i);
    Write(name, std::string(40'000, 'x'));
    lent.push_back(GetHot(name));
    EXPECT_EQ(lent.back()->in_pages(), i < 4) << i;
  }
  lent.clear();
  for (int use = 0; use < 10; ++use) Get("9");
  EXPECT_TRUE(Get("9")->in_pages());
}

TEST_F(PagesTest, OneThatShrinksWhileItIsRead) {
  use_source_ = false;
  options_.revalidate_ns = kSecond;
  options_.max_page_bytes = 300'000;
  Write("x", std::string(300'000, 'x'));
  for (int use = 0; use <= 5; ++use) Get("x");
  fs::resize_file(dir_ / "x", 9'000);
  EXPECT_FALSE(Get("x")->in_pages());
  now_ += options_.revalidate_ns;
  EXPECT_EQ(Content("x"), std::string(9'000, 'x'));
}

// They would be compared as a whole until then.
TEST_F(PagesTest, VeryLargeOnesWaitUntilTheyHaveSettled) {
  static int64_t later_ns;
  later_ns = 0;
  options_.wall_clock_ns = [] { return WallClockNs() + later_ns; };
  options_.max_page_bytes = 2 << 20;
  const std::string text = Text((1 << 20) + 1);
  Write("large", std::string(1 << 20, 'x'));
  Write("very large", text);
  for (int use = 0; use < 100; ++use) {
    Get("large");
    EXPECT_FALSE(Get("very large")->in_pages());
  }
  EXPECT_TRUE(Get("large")->in_pages());
  later_ns = options_.settle_ns + kSecond;
  for (int use = 0; use < 20; ++use) Get("very large");
  ASSERT_TRUE(Get("very large")->in_pages());
  EXPECT_TRUE(Get("very large")->body() == text);
}

TEST_F(PagesTest, LargeOnesComeOneAfterTheOther) {
  options_.max_page_bytes = 300'000;
  Write("y", std::string(300'000, 'y'));
  Write("z", std::string(300'000, 'z'));
  for (int use = 0; use <= 5; ++use) Get("y");
  for (int use = 0; use < 100; ++use) EXPECT_FALSE(Get("z")->has_body());
  // Nobody asks for the first one any more.
  now_ += 11 * kSecond;
  for (int use = 0; use < 20; ++use) Get("z");
  EXPECT_TRUE(Get("z")->in_pages());
  for (int use = 0; use < 30; ++use) Get("y");
  ASSERT_TRUE(Get("y")->in_pages());
  EXPECT_TRUE(Get("y")->body() == std::string(300'000, 'y'));
}

TEST_F(PagesTest, OneThatIsDroppedWhileItIsRead) {
  options_.max_page_bytes = 300'000;
  Write("x", std::string(300'000, 'x'));
  Write("y", std::string(300'000, 'y'));
  for (int use = 0; use <= 5; ++use) Get("x");
  EXPECT_EQ(cache().Purge("x"), 1u);
  for (int use = 0; use < 20; ++use) Get("y");
  EXPECT_TRUE(Get("y")->in_pages()) << "nothing is in its way";
  for (int use = 0; use < 20; ++use) Get("x");
  EXPECT_TRUE(Get("x")->body() == std::string(300'000, 'x'));
  for (int use = 0; use <= 5; ++use) Get("x");
  cache_.reset();
}

TEST_F(PagesTest, StoresThroughAMappingShowAtTheNextRevalidation) {
  if (OnTmpfs()) GTEST_SKIP() << "never, on a tmpfs";
  options_.wall_clock_ns = &WallClockNs;
  options_.revalidate_ns = kSecond;
  Write("x", std::string(16'000, 'x'));
  ASSERT_TRUE(GetHot("x")->in_pages());
  const int fd = open((dir_ / "x").c_str(), O_RDWR | O_CLOEXEC);
  void* const map =
      mmap(nullptr, 16'000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  ASSERT_NE(map, MAP_FAILED);
  static_cast<char*>(map)[15'999] = 'y';
  now_ += kSecond;
  EXPECT_EQ(Content("x").back(), 'y');
  munmap(map, 16'000);
}

TEST_F(PagesTest, KeepToTheBudget) {
  options_.max_total_body_bytes = 49'000;
  for (int i = 0; i < 10; ++i) {
    const std::string name = std::to_string(i);
    Write(name, std::string(16'000, 'x'));
    EXPECT_TRUE(GetHot(name)->in_pages());
    EXPECT_LE(cache().stats().body_bytes, 49'000u);
  }
  EXPECT_EQ(cache().stats().entries, 2u);  // whole pages count
  Write("big", std::string(90'000, 'x'));
  EXPECT_FALSE(GetHot("big")->in_pages());
  EXPECT_EQ(Content("big").size(), 90'000u);
  cache().PurgeAll();
  EXPECT_EQ(cache().stats().body_bytes, 0u);
}

TEST_F(PagesTest, WhatDoesNotFitIsTriedOnce) {
  options_.max_total_body_bytes = 10'000;
  Write("x", std::string(16'000, 'x'));
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(Get("x")->has_body());
  const FileCache::Stats stats = cache().stats();
  EXPECT_EQ(stats.revalidations, 0u);
  EXPECT_EQ(stats.hits, 99u);
  EXPECT_EQ(heads_made_, 1);
}

TEST_F(PagesTest, WhatWasColdIsTriedAgain) {
  const std::string text(16'000, 'x');
  EntryRef cold;
  std::string name;
  for (int i = 0; i < 20 && (!cold || cold->in_pages()); ++i) {
    name = "x" + std::to_string(i);
    Write(name, text);
    for (int use = 0; use < options_.page_uses; ++use) Get(name);
    if (!MakeCold(dir_ / name)) {
      GTEST_SKIP() << "no cold files on this file system";
    }
    cold = Get(name);
  }
  ASSERT_FALSE(cold->in_pages());
  EXPECT_EQ(Content(*cold), text);  // pulls it in
  const uint64_t revalidations = cache().stats().revalidations;
  int uses = 0;
  while (uses < 1'000 && !Get(name)->in_pages()) ++uses;
  EXPECT_GE(uses, options_.page_uses);
  EXPECT_LT(uses, 1'000);
  EXPECT_EQ(cache().stats().revalidations, revalidations + 1);
  EXPECT_EQ(Content(name), text);
}

TEST_F(PagesTest, OutliveTheCache) {
  Write("x", std::string(16'000, 'x'));
  const EntryRef entry = GetHot("x");
  cache_.reset();
  EXPECT_EQ(entry->body(), std::string(16'000, 'x'));
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

// Lets no descriptor be opened beyond those there are, and `more`.
class DescriptorLimit {
 public:
  explicit DescriptorLimit(int more) {
    getrlimit(RLIMIT_NOFILE, &before_);
    const int next = dup(0);
    close(next);
    rlimit limit = before_;
    limit.rlim_cur = static_cast<rlim_t>(next + more);
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  ~DescriptorLimit() { setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_;
};

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

TEST_F(PagesTest, WithoutADescriptorToSpare) {
  Write("x", std::string(16'000, 'x'));
  const EntryRef entry = Get("x");
  {
    const DescriptorLimit limit(0);
    for (int i = 0; i < 20; ++i) EXPECT_EQ(Get("x").get(), entry.get());
  }
  EXPECT_TRUE(GetHot("x")->in_pages());
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
  options_.wall_clock_ns = &WallClockNs;
  options_.revalidate_ns = kSecond;
  for (int step = 0; step < 5'000; ++step) {
    Change(/*links=*/true);
    now_ += kSecond;
    const std::string path = RandomPath();
    ASSERT_EQ(Content(path), Truth(path)) << path << " at step " << step;
  }
}

TEST_F(RandomChanges, WithLinksByBoth) {
  options_.wall_clock_ns = &WallClockNs;
  options_.revalidate_ns = kSecond;
  for (int step = 0; step < 5'000; ++step) {
    Change(/*links=*/true);
    now_ += kSecond;
    const std::string path = RandomPath();
    ASSERT_EQ(Content(path), Truth(path)) << path << " at step " << step;
  }
}

}  // namespace
}  // namespace kevent::files
