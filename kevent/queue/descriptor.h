// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_QUEUE_DESCRIPTOR_H_
#define KEVENT_QUEUE_DESCRIPTOR_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "kevent/queue/operation.h"

namespace kevent::internal {

struct OpList {
  Operation* head = nullptr;

  bool empty() const { return head == nullptr; }
  Operation* tail() const { return head ? head->q.prev : nullptr; }

  void PushBack(Operation* op) {
    op->q.next = nullptr;
    if (head) {
      op->q.prev = head->q.prev;
      head->q.prev->q.next = op;
    } else {
      head = op;
    }
    head->q.prev = op;
  }

  void Remove(Operation* op) {
    Operation* const next = op->q.next;
    if (op != head) {
      op->q.prev->q.next = next;
    } else {
      head = next;
    }
    if (head) (next ? next : head)->q.prev = op->q.prev;
    op->q.next = op->q.prev = nullptr;
  }

  Operation* PopFront() {
    Operation* op = head;
    if (op) Remove(op);
    return op;
  }
};
// The head's `prev` is the tail: a descriptor has two of these lists, and
// there may be a million descriptors.

class OpFifo {
 public:
  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }

  void Add(Operation* op) {
    op->q.position = static_cast<uint32_t>(operations_.size());
    operations_.push_back(op);
    ++size_;
  }
  void Remove(Operation* op) {
    const size_t at = op->q.position;
    if (at >= operations_.size() || operations_[at] != op) return;
    operations_[at] = nullptr;
    --size_;
    if (operations_.size() >= 2 * size_ + 16) Compact();
  }
  // O(1) on average. Nothing if it is not in here.
  Operation* PopFront() {
    while (!operations_[begin_]) ++begin_;
    Operation* op = operations_[begin_];
    Remove(op);
    return op;
  }
  // Not of an empty one.
  template <typename F>
  void TakeAll(F f) {
    for (size_t i = begin_; i < operations_.size(); ++i) {
      if (operations_[i]) f(operations_[i]);
    }
    operations_.clear();
    size_ = begin_ = 0;
  }
  // `f` must not add or remove any.

 private:
  void Compact() {
    std::erase(operations_, nullptr);
    for (size_t i = 0; i < size_; ++i) {
      operations_[i]->q.position = static_cast<uint32_t>(i);
    }
    begin_ = 0;
  }

  std::vector<Operation*> operations_;  // null where one was removed
  size_t size_ = 0;                     // without those
  size_t begin_ = 0;                    // nothing is before it
};
// Operations that wait for the same thing, in the order in which they came. One
// operation is in no more than one of them.

inline constexpr uint32_t kNoSlot = ~0u;

struct Descriptor {
  OpList recv;                   // accept, recv; in the order submitted
  OpList send;                   // connect, send, sendfile, shutdown
  uint32_t interests = kNoSlot;  // first of the poll interests on it
  uint32_t in_kernel = 0;        // operations the kernel holds a reference for
  uint32_t registered = 0;       // epoll: the mask in force, 0 if none
  uint32_t epoch = 0;            // epoll: tells registrations apart
  bool closing = false;          // Close was called and waits for in_kernel
  bool send_failed = false;  // a send ended early: those after it are refused
  bool may_read = true;      // epoll: not found empty since the last edge
  bool may_write = true;
  bool hang_up = false;         // epoll: end of stream or error was announced
  bool has_operations = false;  // epoll: registered for operations
  bool non_blocking = false;    // O_NONBLOCK was seen to be set
  uint8_t type = 0;             // SOCK_STREAM ..., 0 if not known

  bool idle() const {
    return recv.empty() && send.empty() && interests == kNoSlot &&
           in_kernel == 0;
  }
};
// What a queue knows of one descriptor number.

static_assert(sizeof(Descriptor) <= 40);

class DescriptorTable {
 public:
  Descriptor* Get(int fd) {
    const size_t number = static_cast<size_t>(fd);
    const size_t chunk = number / kChunk;
    if (chunk >= chunks_.size() || !chunks_[chunk]) [[unlikely]]
      Add(chunk);
    return &chunks_[chunk][number % kChunk];
  }
  // `fd` is not negative. Stable for the table's life.

  template <typename F>
  void ForEach(F f) {
    for (size_t c = 0; c < chunks_.size(); ++c) {
      if (!chunks_[c]) continue;
      for (size_t i = 0; i < kChunk; ++i) {
        f(static_cast<int>(c * kChunk + i), &chunks_[c][i]);
      }
    }
  }

 private:
  static constexpr size_t kChunk = 256;

  // Apart, for Get is called a dozen times for a request.
  [[gnu::noinline]] void Add(size_t chunk) {
    if (chunk >= chunks_.size()) chunks_.resize(chunk + 1);
    chunks_[chunk] = std::make_unique<Descriptor[]>(kChunk);
  }

  std::vector<std::unique_ptr<Descriptor[]>> chunks_;
};

}  // namespace kevent::internal

#endif  // KEVENT_QUEUE_DESCRIPTOR_H_
