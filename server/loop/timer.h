// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_LOOP_TIMER_H_
#define SERVER_LOOP_TIMER_H_

#include <cstdint>

#include "kevent/queue/timer_heap.h"

namespace kevent::loop {

class Loop;
struct Timer;

using TimerFn = void (*)(Loop* loop, Timer* timer);

struct Timer : TimerNode {
  explicit Timer(TimerFn f) : fn(f) {}
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer() {
    if (pending()) DestroyedPending(this);
  }

  TimerFn fn;
  // Called once for each Loop::SetTimer whose time has come. The timer is idle
  // then: it may be set again or destroyed in there.

 private:
  [[noreturn]] static void DestroyedPending(const Timer* timer);
};
// A one-shot timer, embedded in or inherited by the object that waits: 24
// bytes, nothing allocated. Destroying it while pending() aborts the program;
// see Loop::SetTimer. Belongs to the loop's thread.

}  // namespace kevent::loop

#endif  // SERVER_LOOP_TIMER_H_
