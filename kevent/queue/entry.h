// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_QUEUE_ENTRY_H_
#define KEVENT_QUEUE_ENTRY_H_

#include <cstdint>

namespace kevent {

struct Operation;

enum class Source : uint8_t {
  kOperation,  // an Operation completed, or delivered one of several results
  kPoll,       // a descriptor's readiness
  kTimer,
  kSignal,
  kInode,
};
// What an Entry speaks of.

struct Handle {
  uint32_t index = 0;
  uint32_t generation = 0;  // 0 is no interest's

  friend bool operator==(const Handle&, const Handle&) = default;
};
// Names an interest of one Queue. Never reused: when a slot gets a new tenant
// its generation changes, so an old handle is refused with -ENOENT.

enum EntryFlags : uint32_t {
  kEntryMore = 1u << 0,
  // The operation or interest lives on and will make further entries. The
  // entry without it is the last one.

  kEntryBroken = 1u << 1,
  // The source is gone (inode deleted, descriptor invalid).

  kEntryBuffer = 1u << 2,
  // A recv took a buffer of a BufferPool: data[0] is its address, data[1] its
  // id. It belongs to the taker until BufferPool::Release.

  kEntryOverflow = 1u << 3,
  // kInode: the kernel's own event queue overflowed; anything may have changed.
};

struct Entry {
  uint64_t user_data = 0;
  // The operation's or the interest's, unchanged.

  Operation* operation = nullptr;
  // The operation, for kOperation. After the entry without kEntryMore has been
  // taken it is idle and may be submitted again or destroyed.

  int64_t result = 0;
  // Operations: bytes, a descriptor (accept) or 0; negative errno on failure.
  // Interests: 0, or negative errno with kEntryBroken.

  uint32_t events = 0;
  // kPoll: poll(2) bits. kInode: inotify(7) IN_* bits. kSignal: the signal.

  uint32_t flags = 0;  // EntryFlags

  uint64_t data[2] = {0, 0};
  // kTimer: [0] expirations since the last entry.
  // kSignal: [0] sender's pid in the high and uid in the low half, [1] the
  //   value queued with it (sigqueue(3)).
  // kInode: [0] the move cookie, [1] the child's inode number, or 0 where the
  //   engine cannot tell.
  // kOperation with kEntryBuffer: see there.

  Handle handle;  // the interest; zero for kOperation

  Source source = Source::kOperation;
  uint8_t reserved[7] = {};
};
// One event or completion, 64 bytes.
static_assert(sizeof(Entry) == 64);

}  // namespace kevent

#endif  // KEVENT_QUEUE_ENTRY_H_
