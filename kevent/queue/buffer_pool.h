// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_QUEUE_BUFFER_POOL_H_
#define KEVENT_QUEUE_BUFFER_POOL_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace kevent {

namespace internal {
class Core;
}

class BufferPool {
 public:
  uint32_t buffer_size() const { return bytes_; }  // bytes
  uint32_t size() const { return buffers_; }

  std::byte* data(uint16_t id) const { return memory_ + size_t{id} * bytes_; }

  void Release(uint16_t id);
  // Gives a buffer back; a recv that waits for one goes on at the next Enter.
  // Under the threading rule of the queue. Releasing a buffer that is not lent
  // out aborts the program.

 private:
  friend class internal::Core;
  BufferPool(internal::Core* core, uint16_t group, uint32_t buffers,
             uint32_t bytes);
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;

  internal::Core* const core_;
  const uint16_t group_;
  const uint32_t buffers_;
  const uint32_t bytes_;
  std::byte* memory_ = nullptr;
};
// Buffers that recv operations take when data arrives, so that idle connections
// hold none. Made by Queue::AddBufferPool.

}  // namespace kevent

#endif  // KEVENT_QUEUE_BUFFER_POOL_H_
