// SPDX-License-Identifier: Apache-2.0
//
// A small HTTP client for ./kev bench vm: connections that ask for one file
// again and again, and what that costs the whole machine, this program
// included. In the guest with deterministic instruction counts the clock
// advances by one nanosecond for each instruction, so it prints instructions.
//
//   requests PORT TARGET BYTES CONNECTIONS REQUESTS keep|close
//
// BYTES is the length of the body that is expected. With `close` each request
// has a connection of its own, which the server ends; so many at a time.
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

struct Connection {
  int fd = -1;
  size_t left = 0;  // bytes of the answer still to come; 0: its head is awaited
  bool answered = false;
};

class Client {
 public:
  Client(uint16_t port, const std::string& target, size_t bytes, size_t count,
         bool close_after)
      : port_(port),
        bytes_(bytes),
        close_after_(close_after),
        epoll_(epoll_create1(0)),
        connections_(count) {
    request_ = "GET " + target +
               " HTTP/1.1\r\nHost: localhost\r\nUser-Agent: requests\r\n" +
               (close_after ? "Connection: close\r\n" : "") +
               "Accept: */*\r\n\r\n";
    if (close_after) return;
    for (Connection& c : connections_) Open(&c);
  }

  // Returns when `count` answers have come.
  void Run(size_t count) {
    to_send_ = to_come_ = count;
    for (Connection& c : connections_) Ask(&c);
    epoll_event events[64];
    while (to_come_ > 0) {
      int n = epoll_wait(epoll_, events, 64, -1);
      for (int i = 0; i < n; ++i) {
        Receive(static_cast<Connection*>(events[i].data.ptr));
      }
    }
  }

 private:
  void Open(Connection* c) {
    c->fd = Connect(port_);
    NoDelay(c->fd);
    epoll_event e = {};
    e.events = EPOLLIN;
    e.data.ptr = c;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, c->fd, &e) < 0) Die("epoll_ctl");
  }

  void Ask(Connection* c) {
    if (to_send_ == 0) return;
    --to_send_;
    if (close_after_) Open(c);
    c->left = 0;
    c->answered = false;
    if (send(c->fd, request_.data(), request_.size(), 0) !=
        static_cast<ssize_t>(request_.size())) {
      Die("send");
    }
  }

  void Receive(Connection* c) {
    ssize_t n = recv(c->fd, buffer_, sizeof buffer_, 0);
    if (n == 0 && close_after_ && c->answered) {
      close(c->fd);
      --to_come_;
      Ask(c);
      return;
    }
    if (n <= 0 || c->answered) Die("recv");
    auto got = static_cast<size_t>(n);
    if (c->left == 0) {
      // All servers here send the head in one piece.
      const std::string_view text(buffer_, got);
      const size_t end = text.find("\r\n\r\n");
      if (end == text.npos || text.substr(9, 3) != "200") Die("answer");
      c->left = end + 4 + bytes_;
      const size_t length = text.find("ontent-Length: ");
      if (length > end ||
          strtoul(buffer_ + length + 15, nullptr, 10) != bytes_) {
        Die("length");
      }
    }
    if (got > c->left) Die("too much");
    c->left -= got;
    if (c->left > 0) return;
    c->answered = true;
    if (close_after_) return;
    --to_come_;
    Ask(c);
  }

  const uint16_t port_;
  const size_t bytes_;
  const bool close_after_;
  const int epoll_;
  std::vector<Connection> connections_;
  std::string request_;
  size_t to_send_ = 0, to_come_ = 0;
  char buffer_[128 << 10];
};

}  // namespace
}  // namespace kevent::bench

int main(int argc, char** argv) {
  const std::string_view mode = argc == 7 ? argv[6] : "";
  if (mode != "keep" && mode != "close") {
    fprintf(stderr,
            "usage: requests PORT TARGET BYTES CONNECTIONS REQUESTS "
            "keep|close\n");
    return 2;
  }
  const size_t connections = strtoul(argv[4], nullptr, 10);
  const size_t requests = strtoul(argv[5], nullptr, 10);
  static kevent::bench::Client client(static_cast<uint16_t>(atoi(argv[1])),
                                      argv[2], strtoul(argv[3], nullptr, 10),
                                      connections, mode == "close");
  client.Run(requests / 4 + connections);
  const int64_t begin = kevent::bench::Now();
  client.Run(requests);
  printf("%.0f\n", static_cast<double>(kevent::bench::Now() - begin) /
                       static_cast<double>(requests));
}
