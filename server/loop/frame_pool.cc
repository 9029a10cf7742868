// SPDX-License-Identifier: Apache-2.0
#include "server/loop/frame_pool.h"

#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) \
  ((void)(address), (void)(size))
#endif

namespace kevent::loop {

namespace {

constexpr size_t kClasses = FramePool::kLargest / FramePool::kClass;

struct Block {
  Block* next;
};

struct Cache {
  Block* free[kClasses] = {};
  size_t bytes = 0;
  bool open = false;    // a Drain will empty it at the thread's end
  bool closed = false;  // the thread is ending
};

// Has no destructor: frames may still be freed after Drain's.
constinit thread_local Cache cache;

struct Drain {
  ~Drain() {
    cache.closed = true;
    cache.open = false;
    for (size_t c = 0; c < kClasses; ++c) {
      while (Block* block = cache.free[c]) {
        ASAN_UNPOISON_MEMORY_REGION(block, (c + 1) * FramePool::kClass);
        cache.free[c] = block->next;
        ::operator delete(block);
      }
    }
    cache.bytes = 0;
  }
};

bool Open() {
  if (cache.closed) return false;
  thread_local Drain drain;
  static_cast<void>(&drain);
  cache.open = true;
  return true;
}

size_t ClassOf(size_t size) { return (size - 1) / FramePool::kClass; }

}  // namespace

void* FramePool::Allocate(size_t size) {
  size_t c = ClassOf(size);
  if (c >= kClasses) return ::operator new(size);
  size_t rounded = (c + 1) * kClass;
  Block* block = cache.free[c];
  if (!block) return ::operator new(rounded);
  ASAN_UNPOISON_MEMORY_REGION(block, rounded);
  cache.free[c] = block->next;
  cache.bytes -= rounded;
  return block;
}

void FramePool::Free(void* frame, size_t size) {
  size_t c = ClassOf(size);
  size_t rounded = (c + 1) * kClass;
  if (c >= kClasses || cache.bytes + rounded > kCachedBytes ||
      !(cache.open || Open())) {
    ::operator delete(frame);
    return;
  }
  auto* block = static_cast<Block*>(frame);
  block->next = cache.free[c];
  cache.free[c] = block;
  cache.bytes += rounded;
  ASAN_POISON_MEMORY_REGION(block, rounded);
}

size_t FramePool::cached_bytes() { return cache.bytes; }

}  // namespace kevent::loop
