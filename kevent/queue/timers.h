// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_QUEUE_TIMERS_H_
#define KEVENT_QUEUE_TIMERS_H_

#include <time.h>

#include <cstdint>

#include "kevent/queue/slot.h"
#include "kevent/queue/timer_heap.h"

namespace kevent::internal {

class Core;

int64_t NowNs(clockid_t clock);

int64_t LeftNs(int64_t until_ns);
// Until that time of CLOCK_MONOTONIC; 0 if it is past, -1 for INT64_MAX.

class Timers {
 public:
  explicit Timers(Core* core) : core_(core) {}
  ~Timers();

  static bool Knows(clockid_t clock);
  int Set(Slot* slot, int64_t first_ns, int64_t interval_ns, bool absolute);
  // 0 or negative errno.
  void Remove(Slot* slot);

  int64_t earliest_ns() const {
    return clocks_[0].heap.empty() ? INT64_MAX : clocks_[0].heap.earliest_ns();
  }
  // Of CLOCK_MONOTONIC; other clocks wake the queue by themselves.

  void Run();
  // Fires what is due.

  int UseDescriptors();
  // From now on the earliest monotonic time, too, shows on a timerfd.

 private:
  struct Clock {
    clockid_t id;
    TimerHeap heap;
    int fd = -1;  // timerfd(2)
    int64_t programmed = INT64_MAX;
  };

  static void OnDescriptor(Core* core);
  Clock* ClockOf(clockid_t id);
  // One that it knows.
  int Open(Clock* clock);
  void Program(Clock* clock);

  Core* const core_;
  Clock clocks_[3] = {{CLOCK_MONOTONIC, {}, -1, INT64_MAX},
                      {CLOCK_REALTIME, {}, -1, INT64_MAX},
                      {CLOCK_BOOTTIME, {}, -1, INT64_MAX}};
};
// Timer interests. A heap for each clock; those that can jump or run while the
// machine sleeps get a timerfd, so that the kernel watches the jump.

}  // namespace kevent::internal

#endif  // KEVENT_QUEUE_TIMERS_H_
