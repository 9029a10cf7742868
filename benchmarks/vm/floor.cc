// SPDX-License-Identifier: Apache-2.0
//
// The least that a server in user space does for ./kev bench vm: it receives
// what is there and sends one answer from memory, whatever was asked for. It
// neither parses nor opens anything.
//
//   floor PORT BYTES
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <vector>

namespace {

[[noreturn]] void Die(const char* what) {
  fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
  exit(1);
}

// Of a length as the others send it.
std::string Answer(size_t bytes) {
  return "HTTP/1.1 200 OK\r\nServer: floor\r\n"
         "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
         "Content-Type: application/octet-stream\r\n"
         "Content-Length: " +
         std::to_string(bytes) +
         "\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
         "ETag: \"0123456789abcdef\"\r\nAccept-Ranges: bytes\r\n\r\n" +
         std::string(bytes, 'x');
}

class Floor {
 public:
  Floor(uint16_t port, size_t bytes)
      : answer_(Answer(bytes)),
        epoll_(epoll_create1(0)),
        listener_(socket(AF_INET, SOCK_STREAM, 0)),
        left_(65536) {
    const int on = 1;
    setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) <
            0 ||
        listen(listener_, 1024) < 0) {
      Die("listen");
    }
    Watch(EPOLL_CTL_ADD, listener_, EPOLLIN);
  }

  [[noreturn]] void Run() {
    epoll_event events[256];
    for (;;) {
      int n = epoll_wait(epoll_, events, 256, -1);
      for (int i = 0; i < n; ++i) Turn(events[i].data.fd);
    }
  }

 private:
  void Watch(int how, int fd, uint32_t events) const {
    epoll_event e = {};
    e.events = events;
    e.data.fd = fd;
    if (epoll_ctl(epoll_, how, fd, &e) < 0) Die("epoll_ctl");
  }

  void Turn(int fd) {
    if (fd == listener_) {
      Watch(EPOLL_CTL_ADD, accept4(fd, nullptr, nullptr, SOCK_NONBLOCK),
            EPOLLIN);
      return;
    }
    size_t& left = left_[static_cast<size_t>(fd)];
    if (left == 0) {
      char request[4096];
      if (recv(fd, request, sizeof request, 0) <= 0) {
        close(fd);
        return;
      }
      left = answer_.size();
    }
    const size_t before = left;
    ssize_t n =
        send(fd, answer_.data() + answer_.size() - left, left, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
      left = 0;
      close(fd);
      return;
    }
    if (n > 0) left -= static_cast<size_t>(n);
    // A socket that is full is watched for room, the others for requests.
    if (left > 0 && before == answer_.size()) {
      Watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
    } else if (left == 0 && before != answer_.size()) {
      Watch(EPOLL_CTL_MOD, fd, EPOLLIN);
    }
  }

  const std::string answer_;
  const int epoll_;
  const int listener_;
  std::vector<size_t> left_;  // bytes to send, by descriptor
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: floor PORT BYTES\n");
    return 2;
  }
  Floor floor(static_cast<uint16_t>(atoi(argv[1])),
              strtoul(argv[2], nullptr, 10));
  floor.Run();
}
