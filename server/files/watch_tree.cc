// SPDX-License-Identifier: Apache-2.0
#include "server/files/watch_tree.h"

#include <linux/magic.h>
#include <sys/inotify.h>
#include <sys/vfs.h>

#include <cassert>
#include <cerrno>
#include <limits>

#include "absl/hash/hash.h"
#include "absl/strings/string_view.h"

namespace kevent::files::internal {
namespace {

constexpr uint32_t kSelfMask = IN_ATTRIB | IN_MOVE_SELF | IN_DELETE_SELF;
constexpr uint32_t kFileMask = kSelfMask | IN_MODIFY;
constexpr uint32_t kNamesMask =
    IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO;
constexpr uint32_t kDirectoryMask = kSelfMask | kNamesMask;

// After these the source reports no more of the watch.
constexpr uint32_t kEndMask = IN_DELETE_SELF | IN_IGNORED | IN_UNMOUNT;

// File systems with no name in linux/magic.h of Debian 12.
constexpr uint64_t kCifsMagic = 0xff534d42;
constexpr uint64_t kGfs2Magic = 0x01161970;
constexpr uint64_t kLustreMagic = 0x0bd00bd0;
constexpr uint64_t kVboxsfMagic = 0x786f4256;

constexpr size_t kMaxDevices = 256;

bool IsRemoteType(uint64_t type) {
  switch (type & 0xffffffff) {
    case NFS_SUPER_MAGIC:
    case SMB_SUPER_MAGIC:
    case SMB2_SUPER_MAGIC:
    case kCifsMagic:
    case NCP_SUPER_MAGIC:
    case FUSE_SUPER_MAGIC:
    case V9FS_MAGIC:
    case CEPH_SUPER_MAGIC:
    case CODA_SUPER_MAGIC:
    case AFS_SUPER_MAGIC:
    case AFS_FS_MAGIC:
    case OCFS2_SUPER_MAGIC:
    case kGfs2Magic:
    case kLustreMagic:
    case kVboxsfMagic:
      return true;
    default:
      return false;
  }
}

// The source is full, not this inode at fault.
bool IsLimit(int64_t error) {
  return error == -ENOSPC || error == -EMFILE || error == -ENFILE ||
         error == -ENOMEM;
}

// Tells nothing of the path.
bool IsShortage(int error) {
  return error == -EMFILE || error == -ENFILE || error == -ENOMEM ||
         error == -EAGAIN || error == -EINTR;
}

struct Sibling;

}  // namespace

struct Watch {
  int64_t id;
  uint64_t dev, ino;
  Link<Watch> users;
};

struct Directory : WatchUser, Link<Sibling> {
  std::string path;
  Directory* parent;
  Link<Sibling> children;
  Link<Directory> members;
  int pins = 0;
  // Another directory may have taken its place.
  bool verify = true;
  // Each member below is marked stale already, so one more event has nothing
  // to do. If it holds here it holds for every directory below.
  bool all_stale = true;
};

namespace {

template <typename Function>
void ForEachChild(Directory* directory, Function function) {
  for (Link<Sibling>* link = directory->children.next;
       link != &directory->children; link = link->next) {
    function(static_cast<Directory*>(link));
  }
}

void VerifyChildren(Directory* directory) {
  ForEachChild(directory, [](Directory* child) { child->verify = true; });
}

}  // namespace

size_t WatchTree::PathHash::operator()(std::string_view path) const {
  return absl::Hash<absl::string_view>()(
      absl::string_view(path.data(), path.size()));
}

WatchTree::WatchTree(const Root* root, WatchSource* source, int64_t retry_ns)
    : root_(root), source_(source), retry_ns_(retry_ns) {}

WatchTree::~WatchTree() { assert(directories_.empty() && by_id_.empty()); }

Directory* WatchTree::Pin(std::string_view path, int64_t now_ns,
                          bool* complete) {
  *complete = false;
  if (source_ == nullptr) return nullptr;
  Directory* directory = FindOrMake({}, nullptr);
  ++directory->pins;
  bool all_watched = true;
  for (size_t from = 0;;) {
    const State state = Verify(directory, now_ns);
    if (state == State::kGone) {
      Directory* const parent = directory->parent;
      if (parent != nullptr) ++parent->pins;
      Unpin(directory);
      return parent;
    }
    all_watched &= state == State::kWatched;
    const size_t slash = path.find('/', from);
    if (slash == std::string_view::npos) break;
    Directory* const child = FindOrMake(path.substr(0, slash), directory);
    ++child->pins;
    --directory->pins;
    directory = child;
    from = slash + 1;
  }
  *complete = all_watched;
  return directory;
}

void WatchTree::Unpin(Directory* directory) {
  if (directory == nullptr) return;
  --directory->pins;
  PruneUnused(directory);
}

Directory* WatchTree::FindOrMake(std::string_view path, Directory* parent) {
  if (const auto found = directories_.find(path); found != directories_.end()) {
    return found->second;
  }
  auto* const directory = new Directory;
  directory->is_directory = true;
  directory->path = path;
  directory->parent = parent;
  if (parent != nullptr) {
    directory->Link<Sibling>::MoveToEndOf(&parent->children);
  }
  directories_.emplace(directory->path, directory);
  return directory;
}

void WatchTree::PruneUnused(Directory* directory) {
  while (directory != nullptr && directory->pins == 0 &&
         !directory->members.linked() && !directory->children.linked()) {
    Directory* const parent = directory->parent;
    Unsubscribe(directory);
    directories_.erase(directory->path);
    delete directory;
    directory = parent;
  }
}

WatchTree::State WatchTree::Verify(Directory* directory, int64_t now_ns) {
  if (!directory->verify) {
    if (directory->watch != nullptr) return State::kWatched;
    if (now_ns < directory->retry_at_ns) return State::kUnwatched;
  }
  OpenedFile file;
  const int error = root_->StatPlainDirectory(directory->path.c_str(), &file);
  if (error < 0) {
    if (!IsShortage(error)) Unsubscribe(directory);
    directory->verify = true;
    return State::kGone;
  }
  if (directory->watch != nullptr && (directory->watch->dev != file.info.dev ||
                                      directory->watch->ino != file.info.ino)) {
    Unsubscribe(directory);
  }
  if (directory->watch == nullptr) {
    if (directory->verify) directory->retry_at_ns = 0;
    VerifyChildren(directory);
    bool added;
    Subscribe(directory, file, now_ns, &added);
  }
  directory->verify = false;
  return directory->watch != nullptr ? State::kWatched : State::kUnwatched;
}

void WatchTree::Place(Member* member, Directory* directory) {
  Directory* const before = member->directory;
  if (before == directory) return;
  member->Link<Directory>::Unlink();
  member->directory = directory;
  if (directory != nullptr) {
    member->Link<Directory>::MoveToEndOf(&directory->members);
    if (!member->stale) MarkFresh(member);
  }
  PruneUnused(before);
}

bool WatchTree::WatchFile(Member* member, OpenedFile* file, int64_t now_ns) {
  if (source_ == nullptr) return false;
  if (member->watch != nullptr) return true;
  bool added = false;
  if (!Subscribe(member, *file, now_ns, &added)) return false;
  if (added) file->Restat();
  return true;
}

void WatchTree::Forget(Member* member) {
  Unsubscribe(member);
  Place(member, nullptr);
}

void WatchTree::MarkFresh(Member* member) {
  member->stale = false;
  for (Directory* directory = member->directory;
       directory != nullptr && directory->all_stale;
       directory = directory->parent) {
    directory->all_stale = false;
  }
}

void WatchTree::Doubt(Directory* directory) {
  for (; directory != nullptr; directory = directory->parent) {
    directory->verify = true;
  }
}

void WatchTree::OnEvent(int64_t id, uint32_t mask) {
  if ((mask & IN_Q_OVERFLOW) != 0) return OnOverflow();
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return;
  Watch* const watch = found->second.get();
  for (Link<Watch>* link = watch->users.next; link != &watch->users;
       link = link->next) {
    auto* const user = static_cast<WatchUser*>(link);
    if (!user->is_directory) {
      MarkStale(static_cast<Member*>(user));
      continue;
    }
    auto* const directory = static_cast<Directory*>(user);
    MarkStaleBelow(directory);
    if ((mask & kNamesMask) != 0) VerifyChildren(directory);
    if ((mask & (IN_MOVE_SELF | kEndMask)) != 0) directory->verify = true;
  }
  if ((mask & kEndMask) != 0) Drop(watch);
}

void WatchTree::OnOverflow() {
  for (const auto& [path, directory] : directories_) {
    directory->verify = true;
    MarkStaleBelow(directory);
  }
  for (const auto& [id, watch] : by_id_) {
    for (Link<Watch>* link = watch->users.next; link != &watch->users;
         link = link->next) {
      auto* const user = static_cast<WatchUser*>(link);
      if (!user->is_directory) MarkStale(static_cast<Member*>(user));
    }
  }
}

bool WatchTree::IsRemote(const OpenedFile& file) {
  if (const auto found = remote_.find(file.info.dev); found != remote_.end()) {
    return found->second;
  }
  struct statfs st;
  if (fstatfs(file.fd(), &st) != 0) return true;
  const bool remote = IsRemoteType(static_cast<uint64_t>(st.f_type));
  // Device numbers come and go with mounts.
  if (remote_.size() >= kMaxDevices) remote_.clear();
  remote_.emplace(file.info.dev, remote);
  return remote;
}

bool WatchTree::Subscribe(WatchUser* user, const OpenedFile& file,
                          int64_t now_ns, bool* added) {
  *added = false;
  Watch* watch = nullptr;
  const Inode inode(file.info.dev, file.info.ino);
  if (const auto found = by_inode_.find(inode); found != by_inode_.end()) {
    watch = found->second;
  } else {
    if (now_ns < user->retry_at_ns || now_ns < retry_at_ns_) return false;
    if (IsRemote(file)) {
      user->retry_at_ns = std::numeric_limits<int64_t>::max();
      return false;
    }
    const int64_t id = source_->Add(
        file.fd(), user->is_directory ? kDirectoryMask : kFileMask);
    if (id < 0) {
      user->retry_at_ns = now_ns + retry_ns_;
      if (IsLimit(id)) retry_at_ns_ = now_ns + retry_ns_;
      return false;
    }
    *added = true;
    // The id is known already where one inode shows under two device numbers,
    // as on overlayfs.
    std::unique_ptr<Watch>& slot = by_id_[id];
    if (slot == nullptr) {
      slot = std::make_unique<Watch>();
      slot->id = id;
      slot->dev = inode.first;
      slot->ino = inode.second;
      by_inode_.emplace(inode, slot.get());
    }
    watch = slot.get();
  }
  user->watch = watch;
  user->MoveToEndOf(&watch->users);
  return true;
}

void WatchTree::Unsubscribe(WatchUser* user) {
  Watch* const watch = user->watch;
  if (watch == nullptr) return;
  user->watch = nullptr;
  user->Unlink();
  if (!watch->users.linked()) Drop(watch);
}

void WatchTree::Drop(Watch* watch) {
  while (watch->users.linked()) {
    auto* const user = static_cast<WatchUser*>(watch->users.next);
    user->watch = nullptr;
    user->Unlink();
  }
  const int64_t id = watch->id;
  by_inode_.erase(Inode(watch->dev, watch->ino));
  by_id_.erase(id);
  source_->Remove(id);
}

void WatchTree::MarkStale(Member* member) {
  if (member->stale) return;
  member->stale = true;
  ++invalidations_;
}

void WatchTree::MarkStaleBelow(Directory* directory) {
  if (directory->all_stale) return;
  directory->all_stale = true;
  for (Link<Directory>* link = directory->members.next;
       link != &directory->members; link = link->next) {
    MarkStale(static_cast<Member*>(link));
  }
  ForEachChild(directory, [this](Directory* child) { MarkStaleBelow(child); });
}

}  // namespace kevent::files::internal
