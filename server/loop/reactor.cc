// SPDX-License-Identifier: Apache-2.0
#include "server/loop/reactor.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace kevent::loop {

int Watcher::Modify(uint32_t events, uint32_t flags) {
  return loop_ ? loop_->Modify(id_, events, flags) : -ENOENT;
}

int Watcher::SetTimer(int64_t first_ns, int64_t interval_ns, bool absolute) {
  return loop_ ? loop_->SetTimerWatch(id_, first_ns, interval_ns, absolute)
               : -ENOENT;
}

int Watcher::Enable() { return loop_ ? loop_->Enable(id_) : -ENOENT; }

int Watcher::Disable() { return loop_ ? loop_->Disable(id_) : -ENOENT; }

void Watcher::Remove() {
  WatchId id = std::exchange(id_, {});
  if (id.generation != 0) loop_->Unwatch(id);
}

absl::StatusOr<Watcher> Reactor::Add(const Interest& interest, WatchFn fn,
                                     const char* what) {
  WatchId id;
  if (int r = loop_->Watch(interest, std::move(fn), &id); r < 0) {
    return absl::ErrnoToStatus(-r, absl::StrCat("cannot watch ", what));
  }
  return Watcher(loop_, id);
}

absl::StatusOr<Watcher> Reactor::Watch(int fd, uint32_t events, uint32_t flags,
                                       WatchFn fn) {
  Interest interest;
  interest.source = Source::kPoll;
  interest.fd = fd;
  interest.events = events;
  interest.flags = flags;
  return Add(interest, std::move(fn), absl::StrCat("descriptor ", fd).c_str());
}

absl::StatusOr<Watcher> Reactor::OnSignal(int signo, WatchFn fn) {
  sigset_t blocked;
  pthread_sigmask(SIG_BLOCK, nullptr, &blocked);
  if (sigismember(&blocked, signo) == 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "cannot watch signal ", signo, ": it is not blocked in this thread"));
  }
  Interest interest;
  interest.source = Source::kSignal;
  interest.signo = signo;
  return Add(interest, std::move(fn), absl::StrCat("signal ", signo).c_str());
}

absl::StatusOr<Watcher> Reactor::After(int64_t delay_ns, WatchFn fn) {
  Interest interest;
  interest.source = Source::kTimer;
  interest.first_ns = delay_ns;
  return Add(interest, std::move(fn), "a delay");
}

absl::StatusOr<Watcher> Reactor::Every(int64_t interval_ns, WatchFn fn) {
  Interest interest;
  interest.source = Source::kTimer;
  interest.first_ns = interval_ns;
  interest.interval_ns = interval_ns;
  return Add(interest, std::move(fn), "an interval");
}

absl::StatusOr<Watcher> Reactor::At(clockid_t clock, int64_t time_ns,
                                    WatchFn fn) {
  Interest interest;
  interest.source = Source::kTimer;
  interest.clock = clock;
  interest.first_ns = time_ns;
  interest.flags = kAbsolute;
  return Add(interest, std::move(fn), "a time");
}

absl::StatusOr<Watcher> Reactor::WatchPath(const std::string& path,
                                           uint32_t events, WatchFn fn) {
  Interest interest;
  interest.source = Source::kInode;
  interest.events = events;
  interest.path = path.c_str();
  return Add(interest, std::move(fn), path.c_str());
}

}  // namespace kevent::loop
