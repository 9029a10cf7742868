// SPDX-License-Identifier: Apache-2.0
//
// A bare server in user space for ./kev bench vm: it receives what is there and
// sends one answer from memory, whatever was asked for. It neither parses nor
// opens anything.
//
//   floor PORT BYTES keep|close
//
// With `close` the end of the connection leaves with the answer, and one that
// is answered when it is accepted is never watched.
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "benchmarks/vm/common.h"

namespace kevent::bench {
namespace {

// Of a length as the others send it.
std::string Answer(size_t bytes, bool close_after) {
  return "HTTP/1.1 200 OK\r\nServer: floor\r\n"
         "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
         "Content-Type: application/octet-stream\r\n"
         "Content-Length: " +
         std::to_string(bytes) +
         "\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n" +
         (close_after ? "Connection: close\r\n" : "") +
         "ETag: \"0123456789abcdef\"\r\nAccept-Ranges: bytes\r\n\r\n" +
         std::string(bytes, 'x');
}

class Floor {
 public:
  Floor(uint16_t port, size_t bytes, bool close_after)
      : answer_(Answer(bytes, close_after)),
        close_after_(close_after),
        epoll_(epoll_create1(0)),
        listener_(Listen(port, SOCK_NONBLOCK)),
        left_(65536) {
    // As the others: a connection is accepted when its request is there.
    const int seconds = 60;
    setsockopt(listener_, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds,
               sizeof seconds);
    Watch(EPOLL_CTL_ADD, listener_, EPOLLIN);
  }

  [[noreturn]] void Run() {
    epoll_event events[256];
    for (;;) {
      int n = epoll_wait(epoll_, events, 256, -1);
      for (int i = 0; i < n; ++i) {
        const int fd = events[i].data.fd;
        if (fd == listener_) {
          Accept();
        } else {
          Turn(fd);
        }
      }
    }
  }

 private:
  void Watch(int how, int fd, uint32_t events) const {
    epoll_event e = {};
    e.events = events;
    e.data.fd = fd;
    if (epoll_ctl(epoll_, how, fd, &e) < 0) Die("epoll_ctl");
  }

  size_t& Left(int fd) { return left_[static_cast<size_t>(fd)]; }

  void Accept() {
    pollfd more = {listener_, POLLIN, 0};
    do {
      const int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK);
      if (fd < 0) return;
      Left(fd) = 0;
      if (close_after_ && !Serve(fd)) continue;
      Watch(EPOLL_CTL_ADD, fd, Left(fd) > 0 ? EPOLLOUT : EPOLLIN);
    } while (poll(&more, 1, 0) > 0);
  }

  // A socket that is full is watched for room, the others for requests.
  void Turn(int fd) {
    const bool was_full = Left(fd) > 0;
    if (!Serve(fd)) return;
    const bool full = Left(fd) > 0;
    if (full != was_full) Watch(EPOLL_CTL_MOD, fd, full ? EPOLLOUT : EPOLLIN);
  }

  // False when the connection has ended, and is closed.
  bool Serve(int fd) {
    size_t& left = Left(fd);
    if (left == 0) {
      char request[4096];
      const ssize_t n = recv(fd, request, sizeof request, 0);
      if (n < 0 && errno == EAGAIN) return true;
      if (n <= 0) return End(fd);
      left = answer_.size();
    }
    const ssize_t n = send(fd, answer_.data() + answer_.size() - left, left,
                           MSG_NOSIGNAL | (close_after_ ? MSG_MORE : 0));
    if (n < 0 && errno != EAGAIN) return End(fd);
    if (n > 0) left -= static_cast<size_t>(n);
    return left > 0 || !close_after_ || End(fd);
  }

  static bool End(int fd) {
    close(fd);
    return false;
  }

  const std::string answer_;
  const bool close_after_;
  const int epoll_;
  const int listener_;
  std::vector<size_t> left_;  // bytes to send, by descriptor
};

}  // namespace
}  // namespace kevent::bench

int main(int argc, char** argv) {
  const std::string_view mode = argc == 4 ? argv[3] : "";
  if (mode != "keep" && mode != "close") {
    fprintf(stderr, "usage: floor PORT BYTES keep|close\n");
    return 2;
  }
  kevent::bench::Floor(static_cast<uint16_t>(atoi(argv[1])),
                       strtoul(argv[2], nullptr, 10), mode == "close")
      .Run();
}
