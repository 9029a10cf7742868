// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_QUEUE_ENTRY_RING_H_
#define KEVENT_QUEUE_ENTRY_RING_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kevent/queue/entry.h"

namespace kevent::internal {

class EntryRing {
 public:
  explicit EntryRing(uint32_t entries)
      : mask_(entries - 1), entries_(new Entry[entries]) {}

  uint32_t capacity() const { return mask_ + 1; }
  uint32_t size() const { return tail_ - head_; }
  uint32_t room() const { return capacity() - size(); }
  uint32_t high_water() const { return high_water_; }

  Entry* Push() {
    Entry* e = &entries_[tail_++ & mask_];
    if (size() > high_water_) high_water_ = size();
    return e;
  }
  // Not when it is full. The caller writes every field.

  const Entry& Pop() { return entries_[head_++ & mask_]; }
  // Not when it is empty. Valid until the next Push.

 private:
  uint32_t mask_;
  uint32_t head_ = 0;
  uint32_t tail_ = 0;
  uint32_t high_water_ = 0;
  std::unique_ptr<Entry[]> entries_;
};
// Unread entries, a power of two of them.

}  // namespace kevent::internal

#endif  // KEVENT_QUEUE_ENTRY_RING_H_
