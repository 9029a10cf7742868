// SPDX-License-Identifier: Apache-2.0
#include "kevent/queue/populate.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <signal.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <system_error>

#include "kevent/queue/timers.h"

namespace kevent::internal {
namespace {

constexpr long kCachestat = 451;  // since Linux 6.5, all architectures
constexpr int64_t kPage = 4096;
constexpr size_t kScratch = 128 << 10;
constexpr int64_t kProbeStep = 64 << 10;

struct CachestatRange {
  uint64_t off;
  uint64_t len;
};

struct Cachestat {
  uint64_t cache;
  uint64_t dirty;
  uint64_t writeback;
  uint64_t evicted;
  uint64_t recently_evicted;
};

std::atomic<bool> have_cachestat{true};

// Files that are nowhere but in memory. They do not know RWF_NOWAIT; waiting
// for one of their pages is waiting for swap, as with any memory.
bool IsMemory(int file) {
  struct statfs fs;
  return fstatfs(file, &fs) == 0 &&
         (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

Residency ProbeByRead(int file, int64_t offset, int64_t length) {
  int64_t end = offset + length;
  for (int64_t at = offset; at < end;) {
    char byte;
    iovec iov = {&byte, 1};
    ssize_t n = preadv2(file, &iov, 1, at, RWF_NOWAIT);
    if (n < 0 && errno == EAGAIN) return Residency::kMissing;
    if (n < 0) {
      return IsMemory(file) ? Residency::kResident : Residency::kUnknown;
    }
    if (n == 0) break;  // beyond the end: there is nothing to read
    int64_t next = std::min(at + kProbeStep, end - 1);
    if (next <= at) break;
    at = next;
  }
  return Residency::kResident;
}

}  // namespace

Residency Probe(int file, int64_t offset, int64_t length) {
  if (length <= 0) return Residency::kResident;
  if (have_cachestat.load(std::memory_order_relaxed)) {
    CachestatRange range = {static_cast<uint64_t>(offset),
                            static_cast<uint64_t>(length)};
    Cachestat stat;
    if (syscall(kCachestat, file, &range, &stat, 0u) == 0) {
      int64_t pages = (offset + length + kPage - 1) / kPage - offset / kPage;
      if (static_cast<int64_t>(stat.cache) < pages) return Residency::kMissing;
      // It counts pages whose reading is still under way, too; a read that must
      // not wait tells them apart.
      return ProbeByRead(file, offset, length);
    }
    if (errno == ENOSYS) {
      have_cachestat.store(false, std::memory_order_relaxed);
    }
  }
  return ProbeByRead(file, offset, length);
}

void Populator::Stop() {
  {
    std::lock_guard lock(mu_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

Populator::~Populator() {
  Stop();
  for (auto& job : jobs_) {
    if (job->file >= 0) close(job->file);
    if (job->socket >= 0) close(job->socket);
  }
}

PopulateJob* Populator::Take() {
  if (!unused_) {
    if (jobs_.size() == kJobs) return nullptr;
    jobs_.push_back(std::make_unique<PopulateJob>());
    return jobs_.back().get();
  }
  PopulateJob* job = unused_;
  unused_ = job->next;
  job->next = nullptr;
  return job;
}

void Populator::Put(PopulateJob* job) {
  if (job->file >= 0) close(job->file);
  if (job->socket >= 0) close(job->socket);
  *job = PopulateJob();
  job->next = unused_;
  unused_ = job;
}

bool Populator::Submit(PopulateJob* job) {
  std::lock_guard lock(mu_);
  if (idle_ <= queued_ && threads_.size() < max_threads_) {
    // Signals are the application's threads' matter.
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    bool started = true;
    try {
      threads_.emplace_back([this] { Work(); });
    } catch (const std::system_error&) {
      started = false;
    }
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
    if (!started && threads_.empty()) return false;
  }
  job->next = nullptr;
  (tail_ ? tail_->next : head_) = job;
  tail_ = job;
  ++queued_;
  wake_.notify_one();
  return true;
}

void Populator::Work() {
  auto scratch = std::make_unique<char[]>(kScratch);
  std::unique_lock lock(mu_);
  for (;;) {
    ++idle_;
    wake_.wait(lock, [this] { return stop_ || head_; });
    --idle_;
    if (stop_) return;
    PopulateJob* job = head_;
    head_ = job->next;
    if (!head_) tail_ = nullptr;
    --queued_;
    lock.unlock();
    const int64_t start = NowNs(CLOCK_MONOTONIC);
    Do(job, scratch.get());
    job->took_ns = NowNs(CLOCK_MONOTONIC) - start;
    done_(context_, job);
    lock.lock();
  }
}

void Populator::Do(PopulateJob* job, char* scratch) {
  if (job->socket >= 0) {
    off_t offset = job->offset;
    ssize_t n = sendfile(job->socket, job->file, &offset,
                         static_cast<size_t>(job->length));
    job->result = n < 0 ? -errno : n;
    return;
  }
  // The whole window is asked for at once, so that the device sees one large
  // request; the reads then wait for it piece by piece.
  readahead(job->file, job->offset, static_cast<size_t>(job->length));
  int64_t end = job->offset + job->length;
  for (int64_t at = job->offset; at < end;) {
    size_t want = static_cast<size_t>(
        std::min<int64_t>(end - at, static_cast<int64_t>(kScratch)));
    ssize_t n = pread(job->file, scratch, want, at);
    if (n <= 0) break;  // sendfile will meet the same error and report it
    at += n;
  }
  // What follows is probably wanted next.
  readahead(job->file, end, static_cast<size_t>(job->length));
  job->result = 0;
}

}  // namespace kevent::internal
