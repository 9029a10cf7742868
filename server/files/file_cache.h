// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_FILES_FILE_CACHE_H_
#define SERVER_FILES_FILE_CACHE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "kevent/queue/operation.h"
#include "server/files/page_arena.h"
#include "server/files/root.h"
#include "server/files/watch_tree.h"

namespace kevent::files {

class FileCache;

// CLOCK_REALTIME in nanoseconds, as coarse as the kernel's file times.
int64_t WallClockNs();

// Writes `seconds` since the epoch as an IMF-fixdate (RFC 9110 section 5.6.7):
// "Sun, 06 Nov 1994 08:49:37 GMT". Years outside 0 to 9999 are clamped.
void FormatImfDate(int64_t seconds, char out[29]);

// A file or directory as it was found: descriptor, validators, ready-made head
// and possibly the body. What is here does not change, the owner's data apart;
// when the file does, the cache replaces the entry. One thread only.
class Entry : private internal::Member, private Link<Entry> {
 public:
  enum class Kind : uint8_t { kFile, kDirectory, kError };

  Entry(const Entry&) = delete;
  Entry& operator=(const Entry&) = delete;

  // kFile or kDirectory; entries of errors are shown by FileCache::Walk alone.
  Kind kind() const { return kind_; }
  // A negative errno, of kError.
  int error() const { return error_; }
  // As given to FileCache::Get(); NUL-terminated.
  const std::string& path() const { return path_; }
  uint32_t variant() const { return variant_; }

  // Open for reading as long as the entry lives; use pread(2) or sendfile(2)
  // with an offset, for the file position is everybody's. -1 for a directory,
  // and for a file whose body is in memory.
  int fd() const { return fd_; }
  const FileInfo& info() const { return info_; }
  uint64_t size() const { return info_.size; }
  // There was a watch on the file and every directory on the way when this was
  // checked last. Without, changes show up within `revalidate_ns`.
  bool watched() const { return watched_; }

  // Strong entity tag with its quotes (RFC 9110 section 8.8.3): modification
  // time in nanoseconds and size, both in hex, so that servers with copies
  // that keep their times agree. Like any tag made of times it does not tell
  // apart two contents of one size with the same modification time, which
  // takes two writes within a tick of the kernel (up to 10 ms), or a tool that
  // sets the time.
  std::string_view etag() const { return {etag_.data(), etag_size_}; }
  // Value of Last-Modified: the modification time or, as RFC 9110 section
  // 8.8.2.1 wants, the time of loading if the former is in the future.
  std::string_view last_modified() const {
    return {last_modified_.data(), last_modified_.size()};
  }
  // The same in seconds since the epoch, to compare If-Modified-Since with.
  int64_t last_modified_s() const { return last_modified_s_; }

  // What the owner's callback made.
  std::string_view head() const { return {buffer_.get(), head_size_}; }
  // The head's bytes, for the owner to keep a date current.
  char* mutable_head() { return buffer_.get(); }

  bool has_body() const { return has_body_; }
  // Empty unless has_body().
  std::string_view body() const {
    if (in_pages()) return {pages_.data(), info_.size};
    return {buffer_.get() + head_size_, has_body_ ? info_.size : 0};
  }
  // The body lies in pages that may be lent to a socket (SendOp::by_reference).
  bool in_pages() const { return static_cast<bool>(pages_); }
  // head() and body() in one piece; not of one in pages.
  std::string_view head_and_body() const {
    return {buffer_.get(), head_size_ + body().size()};
  }

  // The owner's, zero at first; the cache neither reads nor writes them.
  std::array<uint32_t, 4> owner_data = {};
  const char* owner_text = nullptr;
  FileMemo memo;  // for sending from fd()

 private:
  friend class EntryRef;
  friend class FileCache;
  friend std::default_delete<Entry>;

  Entry() = default;
  ~Entry();

  uint32_t refs_ = 0;
  Kind kind_ = Kind::kFile;
  uint8_t list_ = 0;         // which of the cache's lists it is in
  bool linked_ = false;      // is in the cache's table
  bool referenced_ = false;  // used since the hand of the clock passed
  bool watched_ = false;
  bool has_body_ = false;
  // The body was read so soon after a change that another one may not show in
  // the file's times.
  bool racy_ = false;
  // The body was not in the page cache; it may be next time.
  bool body_was_cold_ = false;
  uint16_t uses_left_ = 0;  // until the body goes into pages; 0: not counted
  uint8_t tries_ = 0;       // how often that failed
  int error_ = 0;
  int fd_ = -1;
  uint32_t variant_ = 0;
  int64_t checked_until_ns_ = 0;
  // Memory the body takes, with the head if they are in one piece.
  size_t memory() const {
    return in_pages() ? pages_.size() : head_and_body().size();
  }

  std::unique_ptr<char[]> buffer_;  // the head, and a body not in pages
  PageArena::Run pages_;
  size_t head_size_ = 0;
  FileInfo info_;
  int64_t last_modified_s_ = 0;
  std::string path_;
  uint8_t etag_size_ = 0;
  std::array<char, 40> etag_;
  std::array<char, 29> last_modified_;
};

// A counted reference to an entry, or none. Keeps it usable (descriptor,
// buffer) even after the cache dropped it or is gone. One thread only.
class EntryRef {
 public:
  EntryRef() = default;
  explicit EntryRef(Entry* entry) : entry_(entry) {
    if (entry_ != nullptr) ++entry_->refs_;
  }
  EntryRef(const EntryRef& other) : EntryRef(other.entry_) {}
  EntryRef(EntryRef&& other) noexcept
      : entry_(std::exchange(other.entry_, nullptr)) {}
  EntryRef& operator=(EntryRef other) noexcept {
    std::swap(entry_, other.entry_);
    return *this;
  }
  ~EntryRef() {
    if (entry_ != nullptr && --entry_->refs_ == 0) delete entry_;
  }

  // Gives the reference away as a plain pointer, for code that can carry no
  // more; Attach takes it back.
  Entry* Detach() { return std::exchange(entry_, nullptr); }
  static EntryRef Attach(Entry* entry) {
    EntryRef ref;
    ref.entry_ = entry;
    return ref;
  }

  Entry* get() const { return entry_; }
  Entry* operator->() const { return entry_; }
  Entry& operator*() const { return *entry_; }
  explicit operator bool() const { return entry_ != nullptr; }

 private:
  Entry* entry_ = nullptr;
};

// The open-file cache: keeps what it takes to answer for a path, so that a hit
// makes no system call and allocates nothing. Knows no HTTP.
//
// Freshness. An entry is used as it is until an event concerns it or
// `revalidate_ns` have passed; then the path is looked up again, and if it
// leads to another file, or the file's size, times or permissions differ, the
// entry is replaced. Files and the directories from the root to them are
// watched where a watch can be had, that is unless the source is full, the
// file system remote, or a symbolic link on the way (then only up to the
// link). So a change shows up when its event has been delivered, and at the
// latest after `revalidate_ns`.
//
// Two things no stat shows: a write within the same tick of the clock as the
// one before, and stores through a shared mapping to a page that is dirty
// already. Both happen only soon after a change that does show, so a body
// younger than `settle_ns` is compared byte by byte at each revalidation. On a
// tmpfs stores through a mapping never show; publish there by rename.
//
// Bodies are read into memory only from the page cache, never from the disk,
// unless the (local) file system cannot tell; a cold file gets its body at a
// later revalidation, when serving it has warmed it up.
//
// One thread only, that of its loop.
class FileCache {
 public:
  struct Options {
    // Files and directories kept; 0: nothing is kept, every Get() opens.
    size_t max_entries = 4096;
    // Of these, files held open because their body is not in memory.
    size_t max_descriptors = 1024;
    // Paths kept that lead to nothing (-ENOENT, -EACCES ...); may be 0.
    size_t max_negative_entries = 1024;
    // Files up to this size have their body in memory: copying more costs more
    // than sendfile(2) does.
    size_t max_body_bytes = size_t{12} << 10;
    // Files of `min_page_bytes` to `max_page_bytes` (0: none) get their body
    // into pages to be sent by reference when they have been used `page_uses`
    // times (1 to 65,535): the copy into them has to pay. A body larger than
    // max_body_bytes is in memory only then. One of more than 128 KiB is read
    // in such pieces, one for each further use, so that nobody waits for long;
    // of more than 1 MiB only once it has not changed for settle_ns, for until
    // then it is compared at each revalidation.
    size_t min_page_bytes = size_t{6} << 10;
    size_t max_page_bytes = PageArena::kMaxRun;
    uint16_t page_uses = 16;
    // Memory of all entries with a body: whole pages, or with their heads.
    // Entries in use count only until they are evicted, and the one that is
    // being read in not yet; where these take as much again, no body goes into
    // pages.
    size_t max_total_body_bytes = size_t{64} << 20;
    int64_t revalidate_ns = 1'000'000'000;
    // Longer than it takes the kernel to write dirty pages back.
    int64_t settle_ns = 40'000'000'000;
    // Pause after the source of watches was full.
    int64_t watch_retry_ns = 10'000'000'000;
    // Compared with the times of files only.
    int64_t (*wall_clock_ns)() = &WallClockNs;
  };

  // Makes the head of a file or directory when it is loaded: appends to `head`
  // (empty) from what the entry knows by then, which is all but the body; may
  // set owner_data. Must not call the cache.
  using HeadMaker = std::function<void(Entry& entry, std::string* head)>;

  struct Stats {
    uint64_t entries = 0;           // files and directories now
    uint64_t negative_entries = 0;  // errors now
    uint64_t hits = 0;    // answered by an entry without looking at its path
    uint64_t misses = 0;  // not in the table
    uint64_t revalidations = 0;  // in the table, looked up again
    uint64_t replacements = 0;   // of these, found changed
    uint64_t invalidations = 0;  // entries marked stale by events
    uint64_t evictions = 0;
    uint64_t body_bytes = 0;   // as max_total_body_bytes counts, now
    uint64_t descriptors = 0;  // held open by entries now
    uint64_t watches = 0;      // now
  };

  // `root` and `source` must outlive the cache. Without a source (null)
  // freshness comes from revalidation alone.
  FileCache(const Root* root, WatchSource* source, HeadMaker make_head,
            const Options& options);
  FileCache(const FileCache&) = delete;
  FileCache& operator=(const FileCache&) = delete;
  ~FileCache();

  // The file or directory at `path`, clean as CleanPath() makes it. `now_ns`
  // is of a monotonic clock and never falls. `variant` is part of the key:
  // the same file may have different heads. On failure returns none and sets
  // `*error` to a negative errno as of Root::Open(); otherwise to 0.
  //
  // A shortage (-EMFILE, -ENFILE, -ENOMEM, -EAGAIN) during a revalidation
  // leaves the entry in use as it was, to be looked up at the next use.
  EntryRef Get(std::string_view path, int64_t now_ns, int* error,
               uint32_t variant = 0);

  // What the source of watches reports: inotify's mask. IN_Q_OVERFLOW, with
  // any id, makes everything stale.
  void OnWatchEvent(int64_t id, uint32_t mask) { tree_.OnEvent(id, mask); }

  // Drop the path in all variants; the path and all below it (the empty one
  // is the root: everything); everything. Entries of errors too. Return how
  // many were dropped.
  size_t Purge(std::string_view path);
  size_t PurgePrefix(std::string_view path);
  size_t PurgeAll();

  Stats stats() const;

  class Walk;

 private:
  friend class Walk;

  // Lists in the order of the second-chance algorithm.
  enum ListIndex : uint8_t { kWithBody, kWithoutBody, kErrors, kLists };
  using Directory = internal::Directory;
  using Key = std::pair<std::string_view, uint32_t>;
  struct KeyHash {
    size_t operator()(const Key& key) const;
  };
  struct List {
    Link<Entry> head;
    size_t size = 0;
  };

  struct Body {
    PageArena::Run pages;
    int64_t wall_ns = 0;  // when it was begun to be read
  };
  // A body on its way into pages.
  struct Reading {
    EntryRef entry;
    Body body;
    size_t done = 0;  // bytes
    int64_t last_ns = 0;
  };
  enum class Progress { kDone, kGoesOn, kLater, kCold, kShort, kNever };

  EntryRef Answer(Entry* entry, int* error);
  EntryRef Load(std::string_view path, uint32_t variant, int64_t now_ns,
                int* error);
  EntryRef Revalidate(Entry* entry, int64_t now_ns, int* error);
  EntryRef IntoPages(Entry* entry, int64_t now_ns, int* error);
  bool IsUnchanged(Entry* entry, OpenedFile* file, bool complete,
                   int64_t now_ns);
  EntryRef Build(const std::string& path, uint32_t variant,
                 Directory* directory, bool complete, int open_result,
                 OpenedFile file, Entry* old, Body body, int64_t now_ns,
                 int* error);
  void FillFile(Entry* entry, OpenedFile* file, Body body);
  bool ReadBody(Entry* entry, const OpenedFile& file, std::string_view head);
  Progress ReadPiece(Entry* entry, const OpenedFile& file, Reading* reading,
                     int64_t now_ns);
  void TryLessOften(Entry* entry) const;
  bool IsRacy(const FileInfo& info, int64_t wall_ns) const;

  template <typename Function>
  int WithDescriptors(Function open);
  bool MakeRoomFor(const Entry& entry);
  bool MakeRoomForBytes(size_t bytes);
  bool EvictOne(ListIndex list);
  void Insert(Entry* entry);
  void Remove(Entry* entry);
  void StepPast(const Entry* entry);
  template <typename Predicate>
  size_t PurgeIf(Predicate predicate);

  const Root* const root_;
  const HeadMaker make_head_;
  const Options options_;
  const std::shared_ptr<PageArena> arena_ = PageArena::Create();
  internal::WatchTree tree_;
  // Keys point into the entries, each of which the table holds a reference of.
  absl::flat_hash_map<Key, Entry*, KeyHash> table_;
  std::array<List, kLists> lists_;
  Reading reading_;
  Walk* walks_ = nullptr;
  Stats stats_;
};

// A way past all entries, errors included, in as many steps as one likes. What
// is there from its beginning to its end is met, mostly once: eviction may put
// an entry behind those that are still to come. It may outlive the cache. One
// thread only, the cache's.
class FileCache::Walk {
 public:
  explicit Walk(FileCache* cache);
  Walk(const Walk&) = delete;
  Walk& operator=(const Walk&) = delete;
  ~Walk();

  // Calls `fn` for the next `count` entries, and drops those for which it
  // returns true. False when there are no more.
  bool Next(size_t count, absl::FunctionRef<bool(const Entry&)> fn);

 private:
  friend class FileCache;

  bool Settle();

  FileCache* cache_;
  size_t list_ = 0;
  Link<Entry>* at_;  // the next, or the head of its list
  Walk* next_;       // the cache's list
};

}  // namespace kevent::files

#endif  // SERVER_FILES_FILE_CACHE_H_
