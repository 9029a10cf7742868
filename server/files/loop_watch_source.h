// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_FILES_LOOP_WATCH_SOURCE_H_
#define SERVER_FILES_LOOP_WATCH_SOURCE_H_

#include <cstdint>

#include "server/files/file_cache.h"
#include "server/files/watch_tree.h"
#include "server/loop/loop.h"

namespace kevent::files {

class LoopWatchSource final : public WatchSource {
 public:
  explicit LoopWatchSource(loop::Loop* loop) : loop_(loop) {}

  void SetCache(FileCache* cache) { cache_ = cache; }
  // The one cache that learns of events; must outlive the loop's next turn or
  // be taken away with null.

  int64_t Add(int fd, uint32_t mask) override;
  void Remove(int64_t id) override;

 private:
  loop::Loop* const loop_;
  FileCache* cache_ = nullptr;
};
// Inode interests of a Loop as a cache's source of watches. One thread only.

}  // namespace kevent::files

#endif  // SERVER_FILES_LOOP_WATCH_SOURCE_H_
