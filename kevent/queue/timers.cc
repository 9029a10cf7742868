// SPDX-License-Identifier: Apache-2.0
#include "kevent/queue/timers.h"

#include <errno.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>

#include "kevent/queue/core.h"

namespace kevent::internal {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

Slot* SlotOf(TimerNode* node) {
  return reinterpret_cast<Slot*>(reinterpret_cast<char*>(node) -
                                 offsetof(Slot, timer));
}

}  // namespace

int64_t NowNs(clockid_t clock) {
  timespec ts;
  clock_gettime(clock, &ts);
  return ts.tv_sec * kSecond + ts.tv_nsec;
}

int64_t LeftNs(int64_t until_ns) {
  if (until_ns == INT64_MAX) return -1;
  if (until_ns == kPast) return 0;
  return std::max<int64_t>(until_ns - NowNs(CLOCK_MONOTONIC), 0);
}

Timers::~Timers() {
  for (Clock& clock : clocks_) {
    if (clock.fd >= 0) close(clock.fd);
  }
}

bool Timers::Knows(clockid_t clock) {
  return clock == CLOCK_MONOTONIC || clock == CLOCK_REALTIME ||
         clock == CLOCK_BOOTTIME;
}

Timers::Clock* Timers::ClockOf(clockid_t id) {
  return std::find_if(std::begin(clocks_), std::end(clocks_),
                      [&](const Clock& clock) { return clock.id == id; });
}

int Timers::Open(Clock* clock) {
  clock->fd = timerfd_create(clock->id, TFD_NONBLOCK | TFD_CLOEXEC);
  if (clock->fd < 0) return -errno;
  clock->programmed = INT64_MAX;
  core_->AddInternal(clock->fd, OnDescriptor);
  Program(clock);
  return 0;
}

int Timers::UseDescriptors() {
  return clocks_[0].fd >= 0 ? 0 : Open(&clocks_[0]);
}

void Timers::Program(Clock* clock) {
  if (clock->fd < 0) return;
  int64_t at = clock->heap.empty() ? INT64_MAX : clock->heap.earliest_ns();
  if (at == clock->programmed) return;
  clock->programmed = at;
  itimerspec spec = {};
  if (at != INT64_MAX) {
    // A zero value would disarm it.
    at = at < 1 ? 1 : at;
    spec.it_value = {at / kSecond, at % kSecond};
  }
  int flags = TFD_TIMER_ABSTIME;
  if (clock->id == CLOCK_REALTIME) flags |= TFD_TIMER_CANCEL_ON_SET;
  timerfd_settime(clock->fd, flags, &spec, nullptr);
}

int Timers::Set(Slot* slot, int64_t first_ns, int64_t interval_ns,
                bool absolute) {
  if (first_ns < 0 || interval_ns < 0 || !Knows(slot->clock)) return -EINVAL;
  // A delay is none of day: setting the clock does not move it
  // (timerfd_settime(2), clock_nanosleep(2)).
  const clockid_t counts = !absolute && slot->clock == CLOCK_REALTIME
                               ? CLOCK_MONOTONIC
                               : slot->clock;
  Clock* clock = ClockOf(counts);
  if (clock->id != CLOCK_MONOTONIC && clock->fd < 0) {
    if (int r = Open(clock); r < 0) return r;
  }
  int64_t at = first_ns;
  if (!absolute) {
    int64_t now = NowNs(counts);
    at = first_ns > INT64_MAX - now ? INT64_MAX - 1 : now + first_ns;
  }
  if (slot->counts != counts) Remove(slot);
  slot->counts = counts;
  slot->interval_ns = interval_ns;
  clock->heap.Set(&slot->timer, at);
  Program(clock);
  return 0;
}

void Timers::Remove(Slot* slot) {
  if (!slot->timer.pending()) return;
  Clock* clock = ClockOf(slot->counts);
  clock->heap.Remove(&slot->timer);
  Program(clock);
}

void Timers::OnDescriptor(Core* core) {
  // The expiration count is of no interest, and ECANCELED says that the clock
  // was set: both mean that the heap is to be looked at.
  for (Clock& clock : core->timers_.clocks_) {
    if (clock.fd < 0) continue;
    uint64_t count;
    if (read(clock.fd, &count, sizeof count) >= 0 || errno != EAGAIN) {
      clock.programmed = INT64_MAX;
    }
  }
  core->timers_.Run();
}

void Timers::Run() {
  for (Clock& clock : clocks_) {
    if (clock.heap.empty()) continue;
    int64_t now = NowNs(clock.id);
    while (!clock.heap.empty() && clock.heap.earliest_ns() <= now) {
      Slot* slot = SlotOf(clock.heap.earliest());
      int64_t due = slot->timer.deadline_ns;
      uint64_t expirations = 1;
      if (slot->interval_ns > 0) {
        expirations += static_cast<uint64_t>((now - due) / slot->interval_ns);
        int64_t last = now - (now - due) % slot->interval_ns;
        clock.heap.Set(&slot->timer, slot->interval_ns > INT64_MAX - 1 - last
                                         ? INT64_MAX - 1
                                         : last + slot->interval_ns);
      } else {
        clock.heap.Remove(&slot->timer);
      }
      core_->FireTimer(static_cast<uint32_t>(slot->fd), expirations,
                       slot->interval_ns == 0);
    }
    Program(&clock);
  }
}

}  // namespace kevent::internal
