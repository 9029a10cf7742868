// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_QUEUE_INODES_H_
#define KEVENT_QUEUE_INODES_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/container/flat_hash_map.h"
#include "kevent/queue/slot.h"

struct inotify_event;

namespace kevent::internal {

class Core;

class Inodes {
 public:
  explicit Inodes(Core* core) : core_(core) {}
  ~Inodes();

  int Add(uint32_t index, const char* path);
  void Remove(uint32_t index);

  void Run();
  // Reads events while there is room for their entries.

  bool pending() const { return pending_; }
  // The kernel or the buffer may hold events that have not been delivered.

 private:
  struct Watch {
    uint32_t head = kNoSlot;
    uint32_t count = 0;
  };

  static constexpr size_t kBuffer = 16384;  // bytes

  static void OnDescriptor(Core* core);
  bool Deliver(const inotify_event& event);
  bool Overflow();

  Core* const core_;
  int fd_ = -1;  // inotify(7)
  absl::flat_hash_map<int, Watch> watches_;
  std::unique_ptr<char[]> buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  uint32_t next_ = kNoSlot;  // interest that gets the event at begin_ next
  bool started_ = false;     // some have got it
  bool pending_ = false;
};
// Inode interests, by one inotify instance. Events wait in the kernel until the
// ring has room.

}  // namespace kevent::internal

#endif  // KEVENT_QUEUE_INODES_H_
