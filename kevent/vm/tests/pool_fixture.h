// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_VM_TESTS_POOL_FIXTURE_H_
#define KEVENT_VM_TESTS_POOL_FIXTURE_H_

// A pool of buffers whose memory is its own, and what tests of pinned ones
// share.

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "gtest/gtest.h"
#include "kevent/vm/tests/naio_fixture.h"

namespace kevent::raw {

class TestPool {
 public:
  // Buffers from `offset` on in their first page, of 0 to a page; the ring is
  // in pages of its own.
  TestPool(uint32_t buffers, uint32_t each, size_t offset = 0)
      : buffers_(buffers),
        each_(each),
        bytes_((offset + size_t{buffers} * each + kPage - 1) / kPage * kPage),
        map_(Map(bytes_)),
        memory_(map_ + offset),
        ring_bytes_((sizeof(kevent_pool_ring) + 2 * buffers + kPage - 1) /
                    kPage * kPage),
        ring_(reinterpret_cast<kevent_pool_ring*>(Map(ring_bytes_))) {}
  ~TestPool() {
    UnmapBuffers();
    munmap(ring_, ring_bytes_);
  }
  TestPool(const TestPool&) = delete;

  int Register(const Queue& queue, Pool kind = Pool::kPinned) {
    kevent_register g =
        PoolOf(kind, memory_, size_t{buffers_} * each_, each_, ring_);
    const int r = Ioctl(queue.fd(), KEVENT_REGISTER, &g);
    id_ = g.id;
    return r;
  }
  int Unregister(const Queue& queue) const {
    kevent_register g = raw::Unregister(id_);
    return Ioctl(queue.fd(), KEVENT_REGISTER, &g);
  }
  // Memory alone: no system call.
  void Provide(uint16_t id) {
    ring_->id[ring_->tail & (buffers_ - 1)] = id;
    __atomic_store_n(&ring_->tail, ring_->tail + 1, __ATOMIC_RELEASE);
  }
  void ProvideAll() {
    for (uint32_t i = 0; i < buffers_; ++i) Provide(static_cast<uint16_t>(i));
  }
  kevent_sqe Recv(int fd, uint16_t flags, uint64_t user_data) const {
    kevent_sqe sqe = Operation(KEVENT_OP_RECV, fd, user_data, id_);
    sqe.events = KEVENT_RECV_POOL;
    sqe.flags = flags;
    return sqe;
  }
  const char* Data(const kevent_entry& entry) const {
    return memory_ + entry.data[0] % buffers_ * each_;
  }
  std::string Text(const kevent_entry& entry) const {
    EXPECT_TRUE(entry.flags & KEVENT_ENTRY_BUFFER) << Describe(entry);
    EXPECT_LT(entry.data[0], buffers_);
    EXPECT_LE(entry.result, int64_t{each_});
    return {Data(entry),
            static_cast<size_t>(std::max<int64_t>(entry.result, 0))};
  }

  char* map() const { return map_; }
  size_t map_bytes() const { return bytes_; }
  kevent_pool_ring* ring() const { return ring_; }
  void UnmapBuffers() {
    if (map_) munmap(map_, bytes_);
    map_ = nullptr;
  }

 private:
  static char* Map(size_t bytes) {
    void* map = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(MAP_FAILED, map);
    return static_cast<char*>(map);
  }

  const uint32_t buffers_;
  const uint32_t each_;
  const size_t bytes_;
  char* map_;
  char* const memory_;
  const size_t ring_bytes_;
  kevent_pool_ring* const ring_;
  uint32_t id_ = 0;
};

inline uint64_t Copied(const Queue& queue) {
  return Counter(queue, "copied-in-softirq");
}
inline uint64_t PinnedPages(const Queue& queue) {
  return Counter(queue, "pinned-pages");
}

// False if it takes too long.
template <typename Condition>
bool Until(const Condition& condition) {
  const int64_t deadline = NowNs() + PatienceNs();
  while (!condition()) {
    if (NowNs() > deadline) return false;
    sched_yield();
  }
  return true;
}

}  // namespace kevent::raw

#endif  // KEVENT_VM_TESTS_POOL_FIXTURE_H_
