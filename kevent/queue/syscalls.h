// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_QUEUE_SYSCALLS_H_
#define KEVENT_QUEUE_SYSCALLS_H_

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstddef>

namespace kevent::internal {

#ifdef __has_feature
#define KEVENT_HAS_FEATURE(feature) __has_feature(feature)  // clang
#else
#define KEVENT_HAS_FEATURE(feature) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || \
    KEVENT_HAS_FEATURE(address_sanitizer) ||                         \
    KEVENT_HAS_FEATURE(memory_sanitizer) ||                          \
    KEVENT_HAS_FEATURE(thread_sanitizer) || !defined(__x86_64__)

// The sanitizers look at what these do; other machines may lack one of them.
inline ssize_t SysRecv(int fd, void* buffer, size_t size, int flags) {
  return recv(fd, buffer, size, flags);
}
inline ssize_t SysSend(int fd, const void* data, size_t size, int flags) {
  return send(fd, data, size, flags);
}
inline ssize_t SysSendmsg(int fd, const msghdr* message, int flags) {
  return sendmsg(fd, message, flags);
}
inline ssize_t SysVmsplice(int fd, const iovec* pieces, size_t count,
                           unsigned flags) {
  return vmsplice(fd, pieces, count, flags);
}
inline ssize_t SysSplice(int from, int to, size_t size, unsigned flags) {
  return splice(from, nullptr, to, nullptr, size, flags);
}

#else

inline ssize_t SysRecv(int fd, void* buffer, size_t size, int flags) {
  return syscall(SYS_recvfrom, fd, buffer, size, flags, nullptr, nullptr);
}
inline ssize_t SysSend(int fd, const void* data, size_t size, int flags) {
  return syscall(SYS_sendto, fd, data, size, flags, nullptr, 0);
}
inline ssize_t SysSendmsg(int fd, const msghdr* message, int flags) {
  return syscall(SYS_sendmsg, fd, message, flags);
}
inline ssize_t SysVmsplice(int fd, const iovec* pieces, size_t count,
                           unsigned flags) {
  return syscall(SYS_vmsplice, fd, pieces, count, flags);
}
inline ssize_t SysSplice(int from, int to, size_t size, unsigned flags) {
  return syscall(SYS_splice, from, nullptr, to, nullptr, size, flags);
}

#endif
#undef KEVENT_HAS_FEATURE
// The calls of each request, as their namesakes of section 2 of the manual, but
// no cancellation points (pthread_cancel(3)): in a process of several threads
// the C library changes the thread's state atomically before and after each,
// which is a sixth of what a request costs in user space.

}  // namespace kevent::internal

#endif  // KEVENT_QUEUE_SYSCALLS_H_
