// SPDX-License-Identifier: Apache-2.0
#ifndef BENCHMARKS_VM_COMMON_H_
#define BENCHMARKS_VM_COMMON_H_

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <cstddef>
#include <cstdint>
#include <string>

// What the programs of ./kev bench vm share: those that have no library for it.
namespace kevent::bench {

inline constexpr size_t kEchoBuffer = 4096;
// Bytes that each echo server receives at most at a time.

[[noreturn]] inline void Die(const char* what) {
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  exit(1);
}
// Ends the program, with errno's text.

inline int64_t Now() {
  timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return int64_t{ts.tv_sec} * 1'000'000'000 + ts.tv_nsec;
}
// Nanoseconds. In the guest with deterministic instruction counts the clock
// advances by one for each instruction.

inline sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

inline int Listen(uint16_t port, int type) {
  const int fd = socket(AF_INET, SOCK_STREAM | type, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const sockaddr_in address = Loopback(port);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) <
          0 ||
      listen(fd, 1024) < 0) {
    Die("listen");
  }
  return fd;
}
// A listening socket; `type`: 0 or SOCK_NONBLOCK.

inline int Connect(uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  const sockaddr_in address = Loopback(port);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) <
      0) {
    Die("connect");
  }
  return fd;
}

inline void NoDelay(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}
// What each echo server and the client set: an answer must not wait for more.

inline std::string ShortHead(size_t bytes) {
  return "HTTP/1.1 200 OK\r\nServer: trivial\r\n"
         "Content-Type: text/html\r\nConnection: close\r\n"
         "Content-Length: " +
         std::to_string(bytes) + "\r\n\r\n";
}
// What the trivial web servers send before a file of that size.

}  // namespace kevent::bench

#endif  // BENCHMARKS_VM_COMMON_H_
