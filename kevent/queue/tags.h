// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_QUEUE_TAGS_H_
#define KEVENT_QUEUE_TAGS_H_

#include <cstdint>

#include "kevent/queue/operation.h"
#include "kevent/queue/slot.h"

namespace kevent::internal {

// What an engine gives the kernel as user_data: the low bits say what an entry
// speaks of.
inline constexpr uint64_t kTagOperation = 0;  // the rest is its address
inline constexpr uint64_t kTagSlot = 1;       // the rest is its index and arm
inline constexpr uint64_t kTagWake = 2;
inline constexpr uint64_t kTagIgnore = 3;
inline constexpr uint64_t kTagCancel =
    4;  // the rest is the operation's address
inline constexpr uint64_t kTagMask = 7;
inline constexpr uint32_t kArmMask = (1u << 29) - 1;

inline uint64_t TagOf(const Operation* op) {
  return reinterpret_cast<uintptr_t>(op) | kTagOperation;
}

inline Operation* OperationOf(uint64_t tag) {
  return reinterpret_cast<Operation*>(static_cast<uintptr_t>(tag & ~kTagMask));
}

inline uint64_t TagOf(uint32_t index, const Slot& slot) {
  return uint64_t{slot.arm & kArmMask} << 35 | uint64_t{index} << 3 | kTagSlot;
}

inline uint32_t SlotIndexOf(uint64_t tag) {
  return static_cast<uint32_t>(tag >> 3);
}

inline bool IsOfArm(uint64_t tag, const Slot& slot) {
  return (slot.arm & kArmMask) == tag >> 35;
}

}  // namespace kevent::internal

#endif  // KEVENT_QUEUE_TAGS_H_
