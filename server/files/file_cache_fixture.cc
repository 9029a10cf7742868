// SPDX-License-Identifier: Apache-2.0
#include "server/files/file_cache_fixture.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <vector>

namespace kevent::files {

namespace fs = std::filesystem;

namespace {

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

}  // namespace

int64_t SettledClock() { return WallClockNs() + 3600 * kSecond; }

// --- Watches.

InotifySource::InotifySource() : fd_(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {}

InotifySource::~InotifySource() { close(fd_); }

int64_t InotifySource::Add(int fd, uint32_t mask) {
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

void InotifySource::Remove(int64_t id) {
  EXPECT_EQ(live.erase(id), 1u);
  inotify_rm_watch(fd_, static_cast<int>(id));
}

void InotifySource::Deliver(FileCache* cache) {
  alignas(inotify_event) char buffer[8192];
  for (ssize_t n; (n = read(fd_, buffer, sizeof(buffer))) > 0;) {
    for (ssize_t at = 0; at < n;) {
      const auto* event = reinterpret_cast<const inotify_event*>(buffer + at);
      cache->OnWatchEvent(event->wd, event->mask);
      at += static_cast<ssize_t>(sizeof(*event) + event->len);
    }
  }
}

// --- The cache and its files.

FileCacheTest::FileCacheTest() {
  std::string name = testing::TempDir() + "/file_cache_test.XXXXXX";
  base_ = mkdtemp(name.data());
  dir_ = base_ / "www";
  fs::create_directories(dir_ / "a" / "b");
  root_.emplace(*Root::Create(dir_, SymlinkPolicy::kBeneath));
  // Freshness by events alone: a test that lets time pass says so.
  options_.revalidate_ns = kNever;
  options_.wall_clock_ns = &SettledClock;
}

FileCacheTest::~FileCacheTest() {
  cache_.reset();
  EXPECT_TRUE(source_.live.empty());
  fs::remove_all(base_);
}

void FileCacheTest::Write(const fs::path& path, const std::string& text) {
  std::ofstream stream(dir_ / path, std::ios::binary);
  stream << text;
  ASSERT_TRUE(stream.flush().good()) << path;
}

void FileCacheTest::Publish(const fs::path& path, const std::string& text) {
  Write(path.string() + ".tmp", text);
  fs::rename(dir_ / (path.string() + ".tmp"), dir_ / path);
}

FileCache& FileCacheTest::cache() {
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

EntryRef FileCacheTest::Get(std::string_view path, int* error,
                            uint32_t variant) {
  cache();
  source_.Deliver(cache_.get());
  return cache().Get(path, now_, error, variant);
}

EntryRef FileCacheTest::Get(std::string_view path) {
  int error;
  EntryRef entry = Get(path, &error);
  EXPECT_EQ(error, 0) << path;
  return entry;
}

int FileCacheTest::Error(std::string_view path) {
  int error;
  const EntryRef entry = Get(path, &error);
  EXPECT_EQ(!entry, error != 0) << path;
  return error;
}

std::string FileCacheTest::Content(const Entry& entry) {
  if (entry.has_body()) return std::string(entry.body());
  std::string text(entry.size() + 100, '\0');
  const ssize_t n = pread(entry.fd(), text.data(), text.size(), 0);
  text.resize(n < 0 ? 0 : static_cast<size_t>(n));
  return text;
}

std::string FileCacheTest::Content(std::string_view path) {
  int error;
  const EntryRef entry = Get(path, &error);
  if (!entry) return std::strerror(-error);
  if (entry->kind() == Entry::Kind::kDirectory) return "directory";
  return Content(*entry);
}

// The kernel starts to read ahead when asked for what is not there, so a quick
// disk and a slow thread may make a file warm just in time.
EntryRef FileCacheTest::GetCold(const std::string& text, int uses,
                                std::string* name) {
  EntryRef cold;
  for (int i = 0; i < 20 && (!cold || cold->has_body()); ++i) {
    *name = "x" + std::to_string(i);
    Write(*name, text);
    for (int use = 1; use < uses; ++use) Get(*name);
    if (!MakeCold(dir_ / *name)) return {};
    cold = Get(*name);
  }
  return cold;
}

bool FileCacheTest::OnTmpfs() {
  struct statfs st;
  return statfs(dir_.c_str(), &st) == 0 && st.f_type == TMPFS_MAGIC;
}

void FileCacheTest::RefuseWatch(const fs::path& path) {
  struct stat st;
  ASSERT_EQ(stat((dir_ / path).c_str(), &st), 0);
  source_.fail_inodes.insert(st.st_ino);
}

void FileCacheTest::SetTimes(const fs::path& path, int64_t seconds,
                             int64_t ns) {
  const timespec times[2] = {{seconds, ns}, {seconds, ns}};
  ASSERT_EQ(utimensat(AT_FDCWD, (dir_ / path).c_str(), times, 0), 0);
}

// --- What others do to them, and to the process.

Mapping::Mapping(const fs::path& path, size_t size) : size_(size) {
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  bytes_ = static_cast<char*>(
      mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  close(fd);
}

Mapping::~Mapping() { munmap(bytes_, size_); }

void Mapping::Store(size_t at, char c) {
  *static_cast<volatile char*>(bytes_ + at) = c;
  msync(bytes_, size_, MS_ASYNC);
}

DescriptorLimit::DescriptorLimit(int more) {
  getrlimit(RLIMIT_NOFILE, &before_);
  const int next = dup(0);
  close(next);
  rlimit limit = before_;
  limit.rlim_cur = static_cast<rlim_t>(next + more);
  setrlimit(RLIMIT_NOFILE, &limit);
}

DescriptorLimit::~DescriptorLimit() { setrlimit(RLIMIT_NOFILE, &before_); }

}  // namespace kevent::files
