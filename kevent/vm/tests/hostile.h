// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_VM_TESTS_HOSTILE_H_
#define KEVENT_VM_TESTS_HOSTILE_H_

// Memory that the kernel must not trust.

#include <errno.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <array>
#include <cstddef>
#include <cstdint>

namespace kevent::raw {

inline constexpr size_t kPage = 4096;

// Addresses that no user may name: NULL, one without a page, the kernel's, and
// one outside the address space.
inline constexpr std::array<uint64_t, 5> kBadAddresses = {
    0, 8, 0xffff888000000000, 0xffffffff81000000, 0x8000000000000000};

inline int Ioctl(int fd, unsigned long request, void* argument) {
  return ioctl(fd, request, argument) < 0 ? -errno : 0;
}
inline int Ioctl(int fd, unsigned long request, uint64_t address) {
  return ioctl(fd, request, address) < 0 ? -errno : 0;
}

inline uint64_t Address(const void* p) {
  return reinterpret_cast<uintptr_t>(p);
}

// Two pages, the second of which cannot be touched.
class PageEnd {
 public:
  PageEnd() {
    void* map = mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(MAP_FAILED, map);
    base_ = static_cast<char*>(map);
    EXPECT_EQ(0, mprotect(base_ + kPage, kPage, PROT_NONE));
  }
  ~PageEnd() { munmap(base_, 2 * kPage); }
  // So that `bytes` fit and the next one does not.
  void* Before(size_t bytes) { return base_ + kPage - bytes; }
  template <typename T>
  T* Last(size_t count) {
    return static_cast<T*>(Before(count * sizeof(T)));
  }
  void Protect(int protection) {
    ASSERT_EQ(0, mprotect(base_, kPage, protection));
  }

 private:
  char* base_ = nullptr;
};

}  // namespace kevent::raw

#endif  // KEVENT_VM_TESTS_HOSTILE_H_
