// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_LOOP_REACTOR_H_
#define SERVER_LOOP_REACTOR_H_

#include <time.h>

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "server/loop/loop.h"

namespace kevent::loop {

class Watcher {
 public:
  Watcher() = default;
  Watcher(Loop* loop, WatchId id) : loop_(loop), id_(id) {}
  Watcher(Watcher&& other) noexcept
      : loop_(other.loop_), id_(std::exchange(other.id_, {})) {}
  Watcher& operator=(Watcher&& other) noexcept {
    if (this != &other) {
      Remove();
      loop_ = other.loop_;
      id_ = std::exchange(other.id_, {});
    }
    return *this;
  }
  ~Watcher() { Remove(); }

  bool active() const { return loop_ && loop_->watching(id_); }
  // False after Remove and after its last entry (one-shot, source gone).

  int Modify(uint32_t events, uint32_t flags);
  // A descriptor's watch: replaces both.
  int SetTimer(int64_t first_ns, int64_t interval_ns, bool absolute = false);
  // A timer's: starts it anew.
  int Enable();
  int Disable();
  // All: 0 or negative errno, -ENOENT if it is not active. See Queue.

  void Remove();
  // No callback afterwards. Nothing if it is not active.

 private:
  Loop* loop_ = nullptr;
  WatchId id_;
};
// Owns a watch and ends it when it is destroyed, which its own callback may do.
// The loop must outlive it, or be in the course of destroying it. In the loop's
// thread.

class Reactor {
 public:
  explicit Reactor(Loop* loop) : loop_(loop) {}

  Loop* loop() const { return loop_; }

  absl::StatusOr<Watcher> Watch(int fd, uint32_t events, uint32_t flags,
                                WatchFn fn);
  // `events`: POLLIN, POLLOUT ... of poll(2). `flags`: InterestFlags; none is
  // level-triggered. Entry::events says what is ready. `fd` must stay open
  // until the watch has ended or Loop::Close closes it.

  absl::StatusOr<Watcher> OnSignal(int signo, WatchFn fn);
  // FailedPrecondition unless `signo` is blocked in this thread; it must be in
  // every other one, too (block it in main, before the first thread).

  absl::StatusOr<Watcher> After(int64_t delay_ns, WatchFn fn);
  absl::StatusOr<Watcher> Every(int64_t interval_ns, WatchFn fn);
  absl::StatusOr<Watcher> At(clockid_t clock, int64_t time_ns, WatchFn fn);
  // Timers with a callback of their own and a choice of clock. Every: from one
  // interval on; expirations that piled up come as one, Entry::data[0] counts
  // them. In great numbers use a Timer.

  absl::StatusOr<Watcher> WatchPath(const std::string& path, uint32_t events,
                                    WatchFn fn);
  // `events`: IN_* of inotify(7), of the inode that `path` names now.

 private:
  absl::StatusOr<Watcher> Add(const Interest& interest, WatchFn fn,
                              const char* what);

  Loop* loop_;
};
// The face of a Loop for readiness. A value of one pointer. In the loop's
// thread.

}  // namespace kevent::loop

#endif  // SERVER_LOOP_REACTOR_H_
