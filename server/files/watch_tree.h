// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_FILES_WATCH_TREE_H_
#define SERVER_FILES_WATCH_TREE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "server/files/root.h"
#include "server/loop/link.h"

namespace kevent::files {

// Where watches of inodes come from: an event loop, or inotify(7) itself.
// Called from the thread of the cache that it was given to.
class WatchSource {
 public:
  virtual ~WatchSource() = default;

  // Begins to watch the inode behind `fd`, which may be O_PATH and is valid
  // only during the call (inotify takes it as "/proc/self/fd/<fd>"). `mask` is
  // of inotify's IN_MODIFY, IN_ATTRIB, IN_MOVE_SELF, IN_DELETE_SELF, and for
  // directories IN_CREATE, IN_DELETE, IN_MOVED_FROM, IN_MOVED_TO.
  //
  // Returns an id, not negative, or a negative errno. It may be the id of a
  // watch that the same cache has on the same inode already (inotify does
  // that); caches that share a source must get different ones. Must not call
  // back.
  virtual int64_t Add(int fd, uint32_t mask) = 0;

  // Ends the watch; called once for each id, also when its inode is gone.
  // Events already under way may still be reported. Must not call back.
  virtual void Remove(int64_t id) = 0;
};

namespace internal {

// Who learns of the events of a watch.
struct Watch;
struct WatchUser : Link<Watch> {
  Watch* watch = nullptr;
  int64_t retry_at_ns = 0;  // no attempt to get a watch before
  bool is_directory = false;
};

// A path whose freshness the tree looks after: base of a cache's entry.
struct Directory;
struct Member : WatchUser, Link<Directory> {
  Directory* directory = nullptr;
  // Something happened that may have changed what the path leads to.
  bool stale = false;
};

// Watches files and every directory from the root to them, each inode once,
// and marks the members stale that an event may concern: of a file, all its
// members; of a directory, every member below it (events carry no names).
//
// A directory on the way is watched by its inode as well as known by its path.
// After an event that may have put another directory in its place it is looked
// up again before it is relied on. At a symbolic link the chain ends: what is
// behind it is not known to be fresh and `complete` says so.
//
// One thread only. Not aware of time but for when to ask a full source again.
class WatchTree {
 public:
  // `root` and `source` must outlive the tree; without a source nothing is
  // watched. After the source ran out of watches none is asked for during
  // `retry_ns`.
  WatchTree(const Root* root, WatchSource* source, int64_t retry_ns);
  WatchTree(const WatchTree&) = delete;
  WatchTree& operator=(const WatchTree&) = delete;
  // Every member must have left.
  ~WatchTree();

  // Sees to it that the directories from the root to the one that holds `path`
  // are watched, and returns the last that can be; null if none. `*complete`
  // says whether that is all of them. Call it before the look at the file, so
  // that what happens after the look is an event. Each Pin needs an Unpin
  // (null is allowed).
  Directory* Pin(std::string_view path, int64_t now_ns, bool* complete);
  void Unpin(Directory* directory);

  // Puts the member below `directory` (null: nowhere), taking it from where it
  // was. The caller holds a pin.
  void Place(Member* member, Directory* directory);
  // Watches the inode of `file` for the member, if it is not yet. A new watch
  // makes it stat `file` again, for what happened in between. Returns whether
  // there is a watch.
  bool WatchFile(Member* member, OpenedFile* file, int64_t now_ns);
  // Takes the member out of the tree.
  void Forget(Member* member);
  // The member was found to be as it should be.
  void MarkFresh(Member* member);
  // Something changed below and no event told: trust no directory up from this
  // one (null is allowed) without another look.
  void Doubt(Directory* directory);

  // What the source reports. Ids that are not known are ignored.
  void OnEvent(int64_t id, uint32_t mask);
  // The source lost events: everything is stale.
  void OnOverflow();

  // Whether `file` is on a file system that others change behind this
  // kernel's back (NFS, SMB, 9p, FUSE, Ceph ...).
  bool IsRemote(const OpenedFile& file);

  size_t watches() const { return by_id_.size(); }
  // Members marked stale by events, so far.
  uint64_t invalidations() const { return invalidations_; }

 private:
  enum class State { kWatched, kUnwatched, kGone };
  using Inode = std::pair<uint64_t, uint64_t>;  // dev, ino

  Directory* FindOrMake(std::string_view path, Directory* parent);
  void PruneUnused(Directory* directory);
  State Verify(Directory* directory, int64_t now_ns);

  bool Subscribe(WatchUser* user, const OpenedFile& file, int64_t now_ns,
                 bool* added);
  void Unsubscribe(WatchUser* user);
  void Drop(Watch* watch);

  void MarkStale(Member* member);
  void MarkStaleBelow(Directory* directory);

  const Root* const root_;
  WatchSource* const source_;
  const int64_t retry_ns_;
  int64_t retry_at_ns_ = 0;
  uint64_t invalidations_ = 0;
  // Keys point into the directories.
  struct PathHash {
    size_t operator()(std::string_view path) const;
  };
  absl::flat_hash_map<std::string_view, Directory*, PathHash,
                      std::equal_to<std::string_view>>
      directories_;
  absl::flat_hash_map<int64_t, std::unique_ptr<Watch>> by_id_;
  absl::flat_hash_map<Inode, Watch*> by_inode_;
  absl::flat_hash_map<uint64_t, bool> remote_;  // by dev
};

}  // namespace internal
}  // namespace kevent::files

#endif  // SERVER_FILES_WATCH_TREE_H_
