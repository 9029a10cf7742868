// SPDX-License-Identifier: Apache-2.0
//
// The floor of ./kev bench vm echo: edge-triggered epoll, one recv and one send
// for each message, and no library. It relies on what a real server may not: a
// message fits the buffers, so that a send is never short.
//
//   echo_floor PORT
#include <sys/epoll.h>
#include <unistd.h>

#include "benchmarks/vm/common.h"

namespace kevent::bench {
namespace {

void Watch(int epoll, int fd, uint32_t events) {
  epoll_event e = {};
  e.events = events;
  e.data.fd = fd;
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) < 0) Die("epoll_ctl");
}

void Echo(int fd) {
  char buffer[kEchoBuffer];
  ssize_t n;
  // Less than there was room for: it is empty, and the next byte is an edge.
  do {
    n = recv(fd, buffer, sizeof buffer, 0);
    if (n <= 0) {
      if (n == 0 || errno != EAGAIN) close(fd);
      return;
    }
    if (send(fd, buffer, static_cast<size_t>(n), MSG_NOSIGNAL) != n) {
      close(fd);
      return;
    }
  } while (n == sizeof buffer);
}

[[noreturn]] void Serve(uint16_t port) {
  const int listener = Listen(port, SOCK_NONBLOCK);
  const int epoll = epoll_create1(0);
  Watch(epoll, listener, EPOLLIN);
  epoll_event events[256];
  for (;;) {
    const int n = epoll_wait(epoll, events, 256, -1);
    for (int i = 0; i < n; ++i) {
      const int fd = events[i].data.fd;
      if (fd != listener) {
        Echo(fd);
        continue;
      }
      const int accepted = accept4(fd, nullptr, nullptr, SOCK_NONBLOCK);
      if (accepted < 0) continue;
      NoDelay(accepted);
      Watch(epoll, accepted, EPOLLIN | EPOLLET);
    }
  }
}

}  // namespace
}  // namespace kevent::bench

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: echo_floor PORT\n");
    return 2;
  }
  kevent::bench::Serve(static_cast<uint16_t>(atoi(argv[1])));
}
