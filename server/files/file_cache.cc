// SPDX-License-Identifier: Apache-2.0
#include "server/files/file_cache.h"

#include <limits.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/hash/hash.h"
#include "absl/strings/string_view.h"

namespace kevent::files {
namespace {

constexpr int64_t kNsPerS = 1'000'000'000;

// Entries dropped for want of descriptors before an open is given up: they may
// be in use and keep theirs.
constexpr int kEvictionsForDescriptor = 8;

// How far the pauses between tries to put a cold body into pages grow.
constexpr uint8_t kMaxTries = 6;

// Of a body that goes into pages: what the one who asks waits for.
constexpr size_t kPiece = size_t{128} << 10;

// A body that may still change unseen is compared as a whole again and again.
constexpr size_t kMaxRacy = size_t{1} << 20;

// A body that nobody asks for any more does not keep others out of pages.
constexpr int64_t kReadingPauseNs = 10'000'000'000;

// Says something about the path that holds until the tree changes.
bool IsAnswer(int error) {
  switch (-error) {
    case ENOENT:
    case ENOTDIR:
    case EACCES:
    case ELOOP:
    case EXDEV:
    case ENXIO:
      return true;
    default:
      return false;
  }
}

// Says something about this process or the moment, nothing about the path.
bool IsShortage(int error) {
  switch (-error) {
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case EAGAIN:
    case EINTR:
      return true;
    default:
      return false;
  }
}

enum class ReadResult { kWhole, kShort, kCold, kUnknown };

// Reads from the page cache alone. `may_block` lets it read from the disk if
// the file system does not know how not to; kUnknown if that is not allowed.
ReadResult ReadAt(int fd, uint64_t offset, char* to, size_t size,
                  bool may_block) {
  int flags = RWF_NOWAIT;
  while (size > 0) {
    iovec vec = {to, size};
    const ssize_t n = preadv2(fd, &vec, 1, static_cast<off_t>(offset), flags);
    if (n > 0) {
      to += n;
      offset += static_cast<size_t>(n);
      size -= static_cast<size_t>(n);
    } else if (n == 0) {
      return ReadResult::kShort;
    } else if (errno == EOPNOTSUPP && flags != 0) {
      if (!may_block) return ReadResult::kUnknown;
      flags = 0;
    } else if (errno != EINTR) {
      return ReadResult::kCold;
    }
  }
  return ReadResult::kWhole;
}

bool HasBytes(int fd, std::string_view bytes, bool may_block) {
  std::array<char, 16384> block;
  for (size_t offset = 0; offset < bytes.size();) {
    const size_t size = std::min(block.size(), bytes.size() - offset);
    if (ReadAt(fd, offset, block.data(), size, may_block) !=
            ReadResult::kWhole ||
        std::memcmp(block.data(), bytes.data() + offset, size) != 0) {
      return false;
    }
    offset += size;
  }
  return true;
}

}  // namespace

int64_t WallClockNs() {
  timespec now;
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  return now.tv_sec * kNsPerS + now.tv_nsec;
}

void FormatImfDate(int64_t seconds, char out[29]) {
  constexpr int64_t kYear0 = -62'167'219'200;
  constexpr int64_t kYear10000 = 253'402'300'800;
  const time_t time = std::clamp(seconds, kYear0, kYear10000 - 1);
  tm parts;
  gmtime_r(&time, &parts);
  constexpr char kDays[] = "SunMonTueWedThuFriSat";
  constexpr char kMonths[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
  char text[64];
  std::snprintf(text, sizeof(text), "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT",
                kDays + 3 * parts.tm_wday, parts.tm_mday,
                kMonths + 3 * parts.tm_mon, parts.tm_year + 1900, parts.tm_hour,
                parts.tm_min, parts.tm_sec);
  std::memcpy(out, text, 29);
}

Entry::~Entry() {
  if (fd_ >= 0) close(fd_);
}

size_t FileCache::KeyHash::operator()(const Key& key) const {
  return absl::Hash<std::pair<absl::string_view, uint32_t>>()(
      {absl::string_view(key.first.data(), key.first.size()), key.second});
}

FileCache::FileCache(const Root* root, WatchSource* source, HeadMaker make_head,
                     const Options& options)
    : root_(root),
      make_head_(std::move(make_head)),
      options_(options),
      tree_(root, source, options.watch_retry_ns) {}

FileCache::~FileCache() {
  PurgeAll();
  for (Walk* walk = walks_; walk != nullptr; walk = walk->next_) {
    walk->cache_ = nullptr;
  }
}

EntryRef FileCache::Get(std::string_view path, int64_t now_ns, int* error,
                        uint32_t variant) {
  const auto found = table_.find(Key(path, variant));
  if (found == table_.end()) {
    ++stats_.misses;
    return Load(path, variant, now_ns, error);
  }
  Entry* const entry = found->second;
  entry->referenced_ = true;
  if (!entry->stale && now_ns < entry->checked_until_ns_) [[likely]] {
    if (entry->uses_left_ != 0 && --entry->uses_left_ == 0) {
      return IntoPages(entry, now_ns, error);
    }
    ++stats_.hits;
    return Answer(entry, error);
  }
  return Revalidate(entry, now_ns, error);
}

EntryRef FileCache::Answer(Entry* entry, int* error) {
  *error = entry->error_;
  return entry->kind_ == Entry::Kind::kError ? EntryRef() : EntryRef(entry);
}

EntryRef FileCache::Load(std::string_view path, uint32_t variant,
                         int64_t now_ns, int* error) {
  if (path.size() >= PATH_MAX) {
    *error = -ENAMETOOLONG;
    return {};
  }
  if (path.find('\0') != std::string_view::npos) {
    *error = -EINVAL;
    return {};
  }
  const std::string copy(path);
  bool complete = false;
  Directory* const directory =
      options_.max_entries > 0 ? tree_.Pin(path, now_ns, &complete) : nullptr;
  OpenedFile file;
  const int result =
      WithDescriptors([&] { return root_->Open(copy.c_str(), &file); });
  EntryRef entry = Build(copy, variant, directory, complete, result,
                         std::move(file), nullptr, /*body=*/{}, now_ns, error);
  tree_.Unpin(directory);
  return entry;
}

EntryRef FileCache::Revalidate(Entry* entry, int64_t now_ns, int* error) {
  // What makes room below may evict it.
  const EntryRef old(entry);
  ++stats_.revalidations;
  const bool told = old->stale;
  bool complete = false;
  Directory* const directory = tree_.Pin(old->path_, now_ns, &complete);

  // A look at the path suffices unless the file must be read, or the error is
  // one of opening it.
  const bool open =
      old->kind_ == Entry::Kind::kError || old->racy_ || old->body_was_cold_;
  OpenedFile file;
  int result = WithDescriptors([&] {
    return open ? root_->Open(old->path_.c_str(), &file)
                : root_->Stat(old->path_.c_str(), &file);
  });

  EntryRef answer;
  if (IsShortage(result)) {
    answer = Answer(old.get(), error);
  } else if (result < 0 ? result == old->error_
                        : IsUnchanged(old.get(), &file, complete, now_ns)) {
    if (old->linked_) {
      tree_.Place(old.get(), directory);
      tree_.MarkFresh(old.get());
    }
    old->checked_until_ns_ = now_ns + options_.revalidate_ns;
    answer = Answer(old.get(), error);
  } else {
    ++stats_.replacements;
    if (!told && !old->body_was_cold_) tree_.Doubt(directory);
    if (result == 0 && !open) {
      result = WithDescriptors(
          [&] { return root_->Open(old->path_.c_str(), &file); });
    }
    answer = Build(old->path_, old->variant_, directory, complete, result,
                   std::move(file), old.get(), /*body=*/{}, now_ns, error);
  }
  tree_.Unpin(directory);
  return answer;
}

// Its body goes into pages, if nothing is in the way; it is fresh.
EntryRef FileCache::IntoPages(Entry* entry, int64_t now_ns, int* error) {
  const EntryRef old(entry);
  old->uses_left_ = options_.page_uses;
  Reading whole;
  Reading* const reading = old->info_.size <= kPiece ? &whole : &reading_;
  OpenedFile file;
  Progress progress = Progress::kLater;
  // Not worth the descriptor of another one. A change is told by its event.
  if (root_->Open(old->path_.c_str(), &file) == 0 && file.info == old->info_) {
    progress = ReadPiece(old.get(), file, reading, now_ns);
  }
  switch (progress) {
    case Progress::kDone:
    case Progress::kLater:
      break;
    case Progress::kGoesOn:
      old->uses_left_ = 1;
      break;
    case Progress::kCold:
      // Who asked first may not have pulled it in yet.
      TryLessOften(old.get());
      break;
    case Progress::kShort:
      // Shrank meanwhile: what is known of it is wrong already.
      old->checked_until_ns_ = INT64_MIN;
      break;
    case Progress::kNever:
      old->uses_left_ = 0;
  }
  if (progress != Progress::kDone) {
    if (progress != Progress::kGoesOn && reading->entry.get() == old.get()) {
      *reading = {};
    }
    ++stats_.hits;
    return Answer(old.get(), error);
  }
  Body body = std::move(reading->body);
  *reading = {};
  ++stats_.revalidations;
  bool complete = false;
  Directory* const directory = tree_.Pin(old->path_, now_ns, &complete);
  EntryRef answer =
      Build(old->path_, old->variant_, directory, complete, /*open_result=*/0,
            std::move(file), old.get(), std::move(body), now_ns, error);
  tree_.Unpin(directory);
  return answer;
}

// Less and less often, should the page cache be too small for it, or others
// always be before it.
void FileCache::TryLessOften(Entry* entry) const {
  entry->tries_ =
      static_cast<uint8_t>(std::min(entry->tries_ + 1, int{kMaxTries}));
  entry->uses_left_ = static_cast<uint16_t>(std::min<uint32_t>(
      uint32_t{options_.page_uses} << 2 * entry->tries_, UINT16_MAX));
}

// Reads on where it was before; `file` is what it was then.
FileCache::Progress FileCache::ReadPiece(Entry* entry, const OpenedFile& file,
                                         Reading* reading, int64_t now_ns) {
  const size_t size = static_cast<size_t>(entry->info_.size);
  if (reading->entry.get() != entry) {
    if (reading->entry && now_ns < reading->last_ns + kReadingPauseNs) {
      return Progress::kLater;
    }
    const int64_t wall_ns = options_.wall_clock_ns();
    if (size > kMaxRacy && IsRacy(entry->info_, wall_ns)) {
      return Progress::kLater;
    }
    if (size > options_.max_total_body_bytes) return Progress::kNever;
    // Clients that are slow to take what was evicted may hold any amount.
    if (arena_->bytes() + size > 2 * options_.max_total_body_bytes) {
      return Progress::kLater;
    }
    if (reading->entry) TryLessOften(reading->entry.get());
    *reading = {EntryRef(entry), {arena_->Take(size), wall_ns}, 0, now_ns};
    if (!reading->body.pages) return Progress::kNever;
  }
  const size_t piece = std::min(kPiece, size - reading->done);
  switch (ReadAt(file.fd(), reading->done,
                 reading->body.pages.data() + reading->done, piece,
                 !tree_.IsRemote(file))) {
    case ReadResult::kWhole:
      reading->done += piece;
      reading->last_ns = now_ns;
      return reading->done < size ? Progress::kGoesOn : Progress::kDone;
    case ReadResult::kShort:
      return Progress::kShort;
    case ReadResult::kCold:
      return Progress::kCold;
    case ReadResult::kUnknown:
      break;
  }
  return Progress::kNever;
}

bool FileCache::IsUnchanged(Entry* entry, OpenedFile* file, bool complete,
                            int64_t now_ns) {
  if (entry->kind_ == Entry::Kind::kError) return false;
  if (file->info != entry->info_ || entry->body_was_cold_) return false;
  bool watched = complete && !file->through_symlink;
  if (entry->kind_ == Entry::Kind::kFile && entry->linked_) {
    watched &= tree_.WatchFile(entry, file, now_ns);
    if (file->info != entry->info_) return false;
  }
  if (entry->racy_) {
    const int64_t wall_ns = options_.wall_clock_ns();
    if (!HasBytes(file->fd(), entry->body(), !tree_.IsRemote(*file))) {
      return false;
    }
    entry->racy_ = IsRacy(entry->info_, wall_ns);
  }
  entry->watched_ = watched;
  return true;
}

EntryRef FileCache::Build(const std::string& path, uint32_t variant,
                          Directory* directory, bool complete, int open_result,
                          OpenedFile file, Entry* old, Body body,
                          int64_t now_ns, int* error) {
  if (open_result < 0 && !IsAnswer(open_result)) {
    if (old != nullptr) Remove(old);
    *error = open_result;
    return {};
  }
  const EntryRef entry(new Entry);
  entry->path_ = path;
  entry->variant_ = variant;
  entry->checked_until_ns_ = now_ns + options_.revalidate_ns;
  if (open_result < 0) {
    entry->kind_ = Entry::Kind::kError;
    entry->list_ = kErrors;
    entry->error_ = open_result;
  } else {
    entry->watched_ = complete && !file.through_symlink;
    if (file.is_directory()) {
      entry->kind_ = Entry::Kind::kDirectory;
    } else if (options_.max_entries > 0) {
      entry->watched_ &= tree_.WatchFile(entry.get(), &file, now_ns);
    }
    // A new watch looks at the file anew.
    if (body.pages && file.info != old->info_) body = {};
    FillFile(entry.get(), &file, std::move(body));
  }
  // Before the old one leaves: it may be the last to need these directories.
  tree_.Place(entry.get(), directory);
  if (old != nullptr) Remove(old);
  if (MakeRoomFor(*entry)) {
    Insert(entry.get());
  } else {
    tree_.Forget(entry.get());
  }
  return Answer(entry.get(), error);
}

// `body`: what the file has, read already; or none.
void FileCache::FillFile(Entry* entry, OpenedFile* file, Body body) {
  const int64_t wall_ns = options_.wall_clock_ns();
  entry->info_ = file->info;
  entry->etag_size_ = static_cast<uint8_t>(
      std::snprintf(entry->etag_.data(), entry->etag_.size(), "\"%llx-%llx\"",
                    static_cast<unsigned long long>(file->info.mtime_ns),
                    static_cast<unsigned long long>(file->info.size)));
  const int64_t modified_ns = std::min(file->info.mtime_ns, wall_ns);
  entry->last_modified_s_ =
      modified_ns / kNsPerS - (modified_ns % kNsPerS < 0 ? 1 : 0);
  FormatImfDate(entry->last_modified_s_, entry->last_modified_.data());

  std::string head;
  make_head_(*entry, &head);
  entry->head_size_ = head.size();

  const bool is_file = entry->kind_ == Entry::Kind::kFile;
  const bool kept = is_file && options_.max_entries > 0;
  const uint64_t size = file->info.size;
  const bool pageable = kept && size >= options_.min_page_bytes &&
                        size <= options_.max_page_bytes;
  const bool into_pages = static_cast<bool>(body.pages);
  if (into_pages && MakeRoomForBytes(body.pages.size())) {
    entry->pages_ = std::move(body.pages);
    entry->has_body_ = true;
  } else if (kept && size <= options_.max_body_bytes) {
    entry->has_body_ = ReadBody(entry, *file, head);
  }
  entry->list_ = entry->has_body_ ? kWithBody : kWithoutBody;
  if (entry->has_body_) {
    // As of when it was begun to be read.
    entry->racy_ =
        IsRacy(file->info, entry->in_pages() ? body.wall_ns : wall_ns);
  } else if (is_file) {
    entry->fd_ = file->Release();
  }
  if (!entry->buffer_) {
    entry->buffer_ = std::make_unique_for_overwrite<char[]>(head.size());
  }
  std::memcpy(entry->buffer_.get(), head.data(), head.size());
  // Once: what stays out of them would be opened again and again.
  if (pageable && !into_pages) entry->uses_left_ = options_.page_uses;
}

// Behind the head in the entry's buffer. False: it stays out of memory.
bool FileCache::ReadBody(Entry* entry, const OpenedFile& file,
                         std::string_view head) {
  const size_t size = static_cast<size_t>(file.info.size);
  if (!MakeRoomForBytes(head.size() + size)) return false;
  auto buffer = std::make_unique_for_overwrite<char[]>(head.size() + size);
  switch (ReadAt(file.fd(), 0, buffer.get() + head.size(), size,
                 !tree_.IsRemote(file))) {
    case ReadResult::kWhole:
      entry->buffer_ = std::move(buffer);
      return true;
    case ReadResult::kShort:
      // Shrank meanwhile: what is known of it is wrong already.
      entry->checked_until_ns_ = INT64_MIN;
      return false;
    case ReadResult::kCold:
      entry->body_was_cold_ = true;
      return false;
    case ReadResult::kUnknown:
      break;
  }
  return false;
}

bool FileCache::IsRacy(const FileInfo& info, int64_t wall_ns) const {
  return info.ctime_ns >= wall_ns - options_.settle_ns;
}

template <typename Function>
int FileCache::WithDescriptors(Function open) {
  int result = open();
  for (int i = 0; i < kEvictionsForDescriptor; ++i) {
    if (result != -EMFILE && result != -ENFILE) break;
    if (!EvictOne(kWithoutBody)) break;
    result = open();
  }
  return result;
}

bool FileCache::MakeRoomFor(const Entry& entry) {
  if (options_.max_entries == 0) return false;
  if (entry.list_ == kErrors) {
    if (options_.max_negative_entries == 0) return false;
    while (lists_[kErrors].size >= options_.max_negative_entries) {
      EvictOne(kErrors);
    }
    return true;
  }
  const auto own = static_cast<ListIndex>(entry.list_);
  const ListIndex other = own == kWithBody ? kWithoutBody : kWithBody;
  while (lists_[own].size + lists_[other].size >= options_.max_entries) {
    if (!EvictOne(own)) EvictOne(other);
  }
  if (entry.fd_ >= 0) {
    while (stats_.descriptors >= options_.max_descriptors) {
      if (!EvictOne(kWithoutBody)) return false;
    }
  }
  return true;
}

bool FileCache::MakeRoomForBytes(size_t bytes) {
  if (bytes > options_.max_total_body_bytes) return false;
  while (stats_.body_bytes > options_.max_total_body_bytes - bytes) {
    EvictOne(kWithBody);
  }
  return true;
}

bool FileCache::EvictOne(ListIndex index) {
  List& list = lists_[index];
  while (list.head.linked()) {
    auto* const entry = static_cast<Entry*>(list.head.next);
    if (!entry->referenced_) {
      Remove(entry);
      ++stats_.evictions;
      return true;
    }
    entry->referenced_ = false;
    StepPast(entry);
    entry->Link<Entry>::MoveToEndOf(&list.head);
  }
  return false;
}

void FileCache::Insert(Entry* entry) {
  ++entry->refs_;
  entry->linked_ = true;
  table_.emplace(Key(entry->path_, entry->variant_), entry);
  List& list = lists_[entry->list_];
  entry->Link<Entry>::MoveToEndOf(&list.head);
  ++list.size;
  if (entry->fd_ >= 0) ++stats_.descriptors;
  if (entry->has_body_) {
    stats_.body_bytes += entry->memory();
  }
}

void FileCache::Remove(Entry* entry) {
  if (!entry->linked_) return;
  const EntryRef last(entry);
  entry->linked_ = false;
  table_.erase(Key(entry->path_, entry->variant_));
  StepPast(entry);
  entry->Link<Entry>::Unlink();
  --lists_[entry->list_].size;
  if (entry->fd_ >= 0) --stats_.descriptors;
  if (entry->has_body_) {
    stats_.body_bytes -= entry->memory();
  }
  tree_.Forget(entry);
  if (reading_.entry.get() == entry) reading_ = {};
  --entry->refs_;
}

template <typename Predicate>
size_t FileCache::PurgeIf(Predicate predicate) {
  size_t count = 0;
  for (List& list : lists_) {
    for (auto* link = list.head.next; link != &list.head;) {
      auto* const entry = static_cast<Entry*>(link);
      link = link->next;
      if (!predicate(*entry)) continue;
      Remove(entry);
      ++count;
    }
  }
  return count;
}

size_t FileCache::Purge(std::string_view path) {
  return PurgeIf([path](const Entry& entry) { return entry.path_ == path; });
}

size_t FileCache::PurgePrefix(std::string_view path) {
  return PurgeIf([path](const Entry& entry) {
    return path.empty() || (entry.path_.starts_with(path) &&
                            (entry.path_.size() == path.size() ||
                             entry.path_[path.size()] == '/'));
  });
}

size_t FileCache::PurgeAll() {
  return PurgeIf([](const Entry&) { return true; });
}

// Walks that stand at it go on behind it.
void FileCache::StepPast(const Entry* entry) {
  const Link<Entry>* const link = entry;
  for (Walk* walk = walks_; walk != nullptr; walk = walk->next_) {
    if (walk->at_ == link) walk->at_ = link->next;
  }
}

FileCache::Walk::Walk(FileCache* cache)
    : cache_(cache), at_(cache->lists_[0].head.next), next_(cache->walks_) {
  cache->walks_ = this;
}

FileCache::Walk::~Walk() {
  if (cache_ == nullptr) return;
  Walk** link = &cache_->walks_;
  while (*link != this) link = &(*link)->next_;
  *link = next_;
}

// Goes on to the next list at the end of one; false at the end of the last.
bool FileCache::Walk::Settle() {
  if (cache_ == nullptr) return false;
  while (at_ == &cache_->lists_[list_].head) {
    if (list_ + 1 == kLists) return false;
    at_ = cache_->lists_[++list_].head.next;
  }
  return true;
}

bool FileCache::Walk::Next(size_t count,
                           absl::FunctionRef<bool(const Entry&)> fn) {
  for (; count > 0 && Settle(); --count) {
    auto* const entry = static_cast<Entry*>(at_);
    at_ = at_->next;
    if (fn(*entry)) cache_->Remove(entry);
  }
  return Settle();
}

FileCache::Stats FileCache::stats() const {
  Stats stats = stats_;
  stats.entries = lists_[kWithBody].size + lists_[kWithoutBody].size;
  stats.negative_entries = lists_[kErrors].size;
  stats.invalidations = tree_.invalidations();
  stats.watches = tree_.watches();
  return stats;
}

}  // namespace kevent::files
