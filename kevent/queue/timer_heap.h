// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_QUEUE_TIMER_HEAP_H_
#define KEVENT_QUEUE_TIMER_HEAP_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace kevent {

struct TimerNode {
  static constexpr uint32_t kIdle = ~0u;

  int64_t deadline_ns = 0;    // of whatever clock the heap's owner uses
  uint32_t position = kIdle;  // the heap's own

  bool pending() const { return position != kIdle; }
};
// Embedded in whatever waits for a time. Must not be destroyed while pending.

class TimerHeap {
 public:
  bool empty() const { return slots_.empty(); }
  size_t size() const { return slots_.size(); }

  int64_t earliest_ns() const { return slots_.front().deadline_ns; }
  TimerNode* earliest() const { return slots_.front().node; }
  // Not on an empty heap.

  void Set(TimerNode* node, int64_t deadline_ns) {
    node->deadline_ns = deadline_ns;
    if (!node->pending()) {
      slots_.push_back({deadline_ns, node});
      Up(slots_.size() - 1);
      return;
    }
    size_t at = node->position;
    slots_[at].deadline_ns = deadline_ns;
    if (at > 0 && deadline_ns < slots_[(at - 1) / kArity].deadline_ns) {
      Up(at);
    } else {
      Down(at);
    }
  }
  // Adds it, or moves it to another time. O(log n).

  void Remove(TimerNode* node) {
    if (!node->pending()) return;
    size_t at = node->position;
    node->position = TimerNode::kIdle;
    Slot last = slots_.back();
    slots_.pop_back();
    if (at == slots_.size()) return;
    slots_[at] = last;
    if (at > 0 && last.deadline_ns < slots_[(at - 1) / kArity].deadline_ns) {
      Up(at);
    } else {
      Down(at);
    }
  }
  // Nothing if it is not pending.

 private:
  static constexpr size_t kArity = 4;

  struct Slot {
    int64_t deadline_ns;  // beside the pointer: sifting touches no node
    TimerNode* node;
  };

  void Put(size_t at, Slot slot) {
    slots_[at] = slot;
    slot.node->position = static_cast<uint32_t>(at);
  }

  void Up(size_t at) {
    Slot slot = slots_[at];
    while (at > 0) {
      size_t parent = (at - 1) / kArity;
      if (slots_[parent].deadline_ns <= slot.deadline_ns) break;
      Put(at, slots_[parent]);
      at = parent;
    }
    Put(at, slot);
  }

  void Down(size_t at) {
    Slot slot = slots_[at];
    for (;;) {
      size_t child = at * kArity + 1;
      if (child >= slots_.size()) break;
      size_t end = std::min(child + kArity, slots_.size());
      size_t least = child;
      for (size_t i = child + 1; i < end; ++i) {
        if (slots_[i].deadline_ns < slots_[least].deadline_ns) least = i;
      }
      if (slots_[least].deadline_ns >= slot.deadline_ns) break;
      Put(at, slots_[least]);
      at = least;
    }
    Put(at, slot);
  }

  std::vector<Slot> slots_;
};
// A 4-ary min-heap of intrusive nodes. Not thread-safe. Allocates only when it
// holds more nodes than ever before.

}  // namespace kevent

#endif  // KEVENT_QUEUE_TIMER_HEAP_H_
