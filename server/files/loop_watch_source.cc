// SPDX-License-Identifier: Apache-2.0
#include "server/files/loop_watch_source.h"

#include <sys/inotify.h>

#include <cstdio>
#include <memory>

namespace kevent::files {
namespace {

int64_t IdOf(loop::WatchId id) {
  return static_cast<int64_t>(uint64_t{id.index} << 32 | id.generation);
}

}  // namespace

int64_t LoopWatchSource::Add(int fd, uint32_t mask) {
  char path[32];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  Interest interest;
  interest.source = Source::kInode;
  interest.path = path;
  interest.events = mask;
  // The callback learns its own id here, before the first event can come.
  struct Holder {
    LoopWatchSource* source;
    int64_t id;
  };
  auto holder = std::make_shared<Holder>(Holder{this, -1});
  loop::WatchId id;
  int r = loop_->Watch(
      interest,
      [holder](const kevent::Entry& entry) {
        FileCache* cache = holder->source->cache_;
        if (!cache) return;
        uint32_t events = entry.events;
        if (entry.flags & kEntryOverflow) events |= IN_Q_OVERFLOW;
        cache->OnWatchEvent(holder->id, events);
      },
      &id);
  if (r < 0) return r;
  holder->id = IdOf(id);
  return holder->id;
}

void LoopWatchSource::Remove(int64_t id) {
  loop::WatchId watch;
  watch.index = static_cast<uint32_t>(static_cast<uint64_t>(id) >> 32);
  watch.generation = static_cast<uint32_t>(id);
  loop_->Unwatch(watch);
}

}  // namespace kevent::files
