// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_QUEUE_SLOT_H_
#define KEVENT_QUEUE_SLOT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kevent/queue/descriptor.h"
#include "kevent/queue/entry.h"
#include "kevent/queue/timer_heap.h"

namespace kevent::internal {

class Core;

struct Slot {
  TimerNode timer;
  int64_t interval_ns = 0;
  uint64_t user_data = 0;
  uint64_t count = 0;  // expirations not yet taken
  void (*internal)(Core*) =
      nullptr;              // the core's own: called instead of an entry
  int fd = -1;              // kPoll; kSignal: signo; kInode: watch descriptor
  uint32_t generation = 0;  // odd while in use
  uint32_t events = 0;      // asked for
  uint32_t ready = 0;       // fired and not yet taken
  uint32_t flags = 0;       // InterestFlags
  uint32_t next =
      kNoSlot;       // on the same descriptor, signal or inode; free list
  uint32_t arm = 0;  // uring: tells arms of one slot apart
  clockid_t clock = CLOCK_MONOTONIC;   // asked for
  clockid_t counts = CLOCK_MONOTONIC;  // the one that `timer` waits for
  Source source = Source::kPoll;
  bool armed = false;
  bool unread = false;    // an entry for it is in the ring or on overflow
  bool finished = false;  // its last entry has been made
  bool withheld = false;  // Disable was called: no entry is taken
  bool taken = false;     // by a call of Enter that has not returned yet
  bool hushed = false;    // epoll: see Hush

  bool enabled() const { return !(flags & (1u << 5)) && !finished; }
};
// One interest.

class SlotTable {
 public:
  Slot& at(uint32_t index) { return chunks_[index / kChunk][index % kChunk]; }

  Slot* Find(Handle h) {
    if (h.index >= size_ || !(h.generation & 1)) return nullptr;
    Slot& slot = at(h.index);
    return slot.generation == h.generation ? &slot : nullptr;
  }

  uint32_t Allocate() {
    uint32_t index = free_;
    if (index != kNoSlot) {
      free_ = at(index).next;
    } else {
      if (size_ % kChunk == 0) {
        chunks_.push_back(std::make_unique<Slot[]>(kChunk));
      }
      index = size_++;
    }
    Slot& slot = at(index);
    uint32_t generation = slot.generation + 1;
    uint32_t arm = slot.arm;
    slot = Slot();
    slot.generation = generation;
    slot.arm = arm;
    ++used_;
    return index;
  }

  void Free(uint32_t index) {
    Slot& slot = at(index);
    ++slot.generation;
    slot.next = free_;
    free_ = index;
    --used_;
  }

  uint32_t size() const { return size_; }
  uint32_t used() const { return used_; }

 private:
  static constexpr uint32_t kChunk = 64;
  std::vector<std::unique_ptr<Slot[]>> chunks_;  // slots do not move
  uint32_t size_ = 0;
  uint32_t used_ = 0;
  uint32_t free_ = kNoSlot;
};

}  // namespace kevent::internal

#endif  // KEVENT_QUEUE_SLOT_H_
