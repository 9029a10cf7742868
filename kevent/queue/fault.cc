// SPDX-License-Identifier: Apache-2.0
#include "kevent/queue/fault.h"

#ifdef KEVENT_TEST_FAULTS

#include <cstdio>

namespace kevent::internal {
namespace {

struct Name {
  std::string_view text;
  FaultPoint point;
};

constexpr Name kNames[] = {
    {"lost-wakeup", FaultPoint::kLostWakeup},
    {"stale-generation", FaultPoint::kStaleGeneration},
    {"reorder-sends", FaultPoint::kReorderSends},
    {"drop-overflow", FaultPoint::kDropOverflow},
    {"no-poison", FaultPoint::kNoPoison},
    {"ignore-link", FaultPoint::kIgnoreLink},
    {"reused-descriptor", FaultPoint::kReusedDescriptor},
    {"pool-stall", FaultPoint::kPoolStall},
    {"blocking-sendfile", FaultPoint::kBlockingSendfile},
    {"level-once", FaultPoint::kLevelOnce},
    {"double-terminal", FaultPoint::kDoubleTerminal},
    {"short-send-done", FaultPoint::kShortSendDone},
    {"skip-trailer", FaultPoint::kSkipTrailer},
    {"keep-pages", FaultPoint::kKeepPages},
};

FaultPoint FromEnvironment() {
  const char* value = getenv("KEVENT_BREAK");
  if (!value || !*value) return FaultPoint::kNone;
  for (const Name& name : kNames) {
    if (name.text == value) return name.point;
  }
  fprintf(stderr, "KEVENT_BREAK: no fault is called %s\n", value);
  abort();
}

}  // namespace

FaultPoint ActiveFault() {
  static const FaultPoint point = FromEnvironment();
  return point;
}

}  // namespace kevent::internal

#endif  // KEVENT_TEST_FAULTS
