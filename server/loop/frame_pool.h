// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_LOOP_FRAME_POOL_H_
#define SERVER_LOOP_FRAME_POOL_H_

#include <cstddef>

namespace kevent::loop {

class FramePool {
 public:
  static constexpr size_t kClass = 64;              // bytes
  static constexpr size_t kLargest = 4096;          // of those kept
  static constexpr size_t kCachedBytes = 1u << 20;  // kept for each thread

  static void* Allocate(size_t size);
  // Never fails: aborts when there is no memory. Aligned as by operator new.
  static void Free(void* frame, size_t size);
  // `size` as given to Allocate. Any thread; it goes to that thread's cache.

  static size_t cached_bytes();
  // In this thread's cache.
};
// Memory for coroutine frames: freed blocks are kept in a list for each size
// and thread. Under AddressSanitizer blocks in the cache are poisoned.

}  // namespace kevent::loop

#endif  // SERVER_LOOP_FRAME_POOL_H_
