// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_QUEUE_FAULT_H_
#define KEVENT_QUEUE_FAULT_H_

#include <cstdlib>
#include <string_view>

namespace kevent::internal {

enum class FaultPoint {
  kNone,
  kLostWakeup,        // lost-wakeup: Post forgets to wake a queue that waits
  kStaleGeneration,   // stale-generation: unread entries survive Remove
  kReorderSends,      // reorder-sends: a send starts before the one ahead ended
  kDropOverflow,      // drop-overflow: a completion that finds the ring full is
                      // lost
  kNoPoison,          // no-poison: sends go on after one ended short
  kIgnoreLink,        // ignore-link: a link runs though its predecessor failed
  kReusedDescriptor,  // reused-descriptor: state of a closed descriptor is kept
  kPoolStall,         // pool-stall: a released buffer wakes no waiting recv
  kBlockingSendfile,  // blocking-sendfile: cold pages are read on the thread
  kLevelOnce,         // level-once: a level interest is not tested again
  kDoubleTerminal,    // double-terminal: cancel makes a second last entry
  kShortSendDone,     // short-send-done: a short write counts as the whole
  kSkipTrailer,       // skip-trailer: sendfile forgets its trailer
  kKeepPages,         // keep-pages: what a socket did not take of a send by
                      // reference goes to the next one
};

#ifdef KEVENT_TEST_FAULTS
FaultPoint ActiveFault();
// From the environment variable KEVENT_BREAK, read once; aborts on a name that
// is not listed above.
inline bool Fault(FaultPoint point) { return ActiveFault() == point; }
#else
constexpr bool Fault(FaultPoint) { return false; }
#endif
// Seeded faults: defects that the conformance suite must notice. Compiled into
// test builds only (-DKEVENT_TEST_FAULTS).

}  // namespace kevent::internal

#endif  // KEVENT_QUEUE_FAULT_H_
