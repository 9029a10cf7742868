// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_FILES_FILE_CACHE_FIXTURE_H_
#define SERVER_FILES_FILE_CACHE_FIXTURE_H_

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "gtest/gtest.h"
#include "server/files/file_cache.h"
#include "server/files/root.h"

namespace kevent::files {

inline constexpr int64_t kSecond = 1'000'000'000;  // nanoseconds
inline constexpr int64_t kNever = INT64_MAX / 2;

int64_t SettledClock();
// Far enough ahead that no file counts as changed a moment ago.

class InotifySource : public WatchSource {
 public:
  InotifySource();
  ~InotifySource() override;

  int64_t Add(int fd, uint32_t mask) override;
  void Remove(int64_t id) override;

  void Deliver(FileCache* cache);
  // What has happened so far.

  int adds = 0;
  int fail_with = 0;  // what Add returns, unless 0
  std::set<ino_t> fail_inodes;
  std::function<void(const struct stat&)> on_add;
  std::set<int64_t> live;

 private:
  const int fd_;
};

class FileCacheTest : public testing::Test {
 protected:
  FileCacheTest();
  ~FileCacheTest() override;

  void Write(const std::filesystem::path& path, const std::string& text);
  void Publish(const std::filesystem::path& path, const std::string& text);
  // Writes beside and renames over, as careful tools do.

  FileCache& cache();
  EntryRef Get(std::string_view path, int* error, uint32_t variant = 0);
  EntryRef Get(std::string_view path);
  // One that must be there.
  int Error(std::string_view path);
  static std::string Content(const Entry& entry);
  std::string Content(std::string_view path);
  // What is at `path`, or the errno as text.
  EntryRef GetCold(const std::string& text, int uses, std::string* name);
  // Of a new file, which is not in the page cache when it is asked for the last
  // of so many times. Nothing if this file system keeps all of them there.

  bool OnTmpfs();
  void RefuseWatch(const std::filesystem::path& path);
  // No watch of this file or directory can be had.
  void SetTimes(const std::filesystem::path& path, int64_t seconds,
                int64_t ns = 0);

  std::filesystem::path base_, dir_;
  InotifySource source_;
  std::optional<Root> root_;
  FileCache::Options options_;
  bool use_source_ = true;
  int heads_made_ = 0;
  std::function<void()> on_head_;
  int64_t now_ = 5 * kSecond;
  std::unique_ptr<FileCache> cache_;
};

class Mapping {
 public:
  Mapping(const std::filesystem::path& path, size_t size);
  ~Mapping();
  void Store(size_t at, char c);

 private:
  char* bytes_;
  size_t size_;
};
// A file that a program maps, to write to it without a call.

class DescriptorLimit {
 public:
  explicit DescriptorLimit(int more);
  ~DescriptorLimit();

 private:
  rlimit before_;
};
// Lets no descriptor be opened beyond those there are, and `more`.

}  // namespace kevent::files

#endif  // SERVER_FILES_FILE_CACHE_FIXTURE_H_
