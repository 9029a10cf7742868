// SPDX-License-Identifier: Apache-2.0
//
// Many short connections: each asks once and reads until the server closes; so
// many at a time. Prints nanoseconds for each (in the guest with deterministic
// counts: instructions, of the whole machine).
//
//   short_client PORT AT_ONCE REQUESTS BYTES
//
// BYTES is the length of the file that is expected.
#include <sys/epoll.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <vector>

#include "benchmarks/vm/common.h"

namespace kevent::bench {
namespace {

constexpr std::string_view kRequest =
    "GET /index.html HTTP/1.0\r\nHost: localhost\r\n\r\n";

struct Connection {
  int fd = -1;
  bool asked = false;
  size_t got = 0;  // bytes of the answer
};

class Client {
 public:
  Client(uint16_t port, size_t at_once, size_t bytes)
      : port_(port),
        expected_(ShortHead(bytes).size() + bytes),
        epoll_(epoll_create1(0)),
        connections_(at_once) {}

  void Run(size_t count) {
    to_begin_ = to_end_ = count;
    for (Connection& c : connections_) Begin(&c);
    epoll_event events[256];
    while (to_end_ > 0) {
      const int n = epoll_wait(epoll_, events, 256, -1);
      for (int i = 0; i < n; ++i) {
        Turn(static_cast<Connection*>(events[i].data.ptr));
      }
    }
  }

 private:
  void Begin(Connection* c) {
    if (to_begin_ == 0) return;
    --to_begin_;
    *c = Connection();
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    const sockaddr_in address = Loopback(port_);
    if (connect(c->fd, reinterpret_cast<const sockaddr*>(&address),
                sizeof address) < 0 &&
        errno != EINPROGRESS) {
      Die("connect");
    }
    epoll_event e = {};
    e.events = EPOLLIN | EPOLLOUT | EPOLLET;
    e.data.ptr = c;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, c->fd, &e) < 0) Die("epoll_ctl");
  }

  void Turn(Connection* c) {
    if (!c->asked) {
      if (send(c->fd, kRequest.data(), kRequest.size(), 0) < 0) {
        if (errno == EAGAIN) return;
        Die("send");
      }
      c->asked = true;
      return;
    }
    for (;;) {
      const ssize_t n = recv(c->fd, buffer_, sizeof buffer_, 0);
      if (n < 0) {
        if (errno == EAGAIN) return;
        Die("recv");
      }
      if (n == 0) break;
      c->got += static_cast<size_t>(n);
    }
    if (c->got != expected_) {
      errno = EBADMSG;
      Die("answer");
    }
    close(c->fd);
    --to_end_;
    Begin(c);
  }

  const uint16_t port_;
  const size_t expected_;
  const int epoll_;
  std::vector<Connection> connections_;
  size_t to_begin_ = 0, to_end_ = 0;
  char buffer_[16384];
};

}  // namespace
}  // namespace kevent::bench

int main(int argc, char** argv) {
  using namespace kevent::bench;  // NOLINT(google-build-using-namespace)
  if (argc != 5) {
    fprintf(stderr, "usage: short_client PORT AT_ONCE REQUESTS BYTES\n");
    return 2;
  }
  const size_t at_once = strtoul(argv[2], nullptr, 10);
  const size_t requests = strtoul(argv[3], nullptr, 10);
  Client client(static_cast<uint16_t>(atoi(argv[1])), at_once,
                strtoul(argv[4], nullptr, 10));
  client.Run(requests / 4 + at_once);
  const int64_t begin = Now();
  client.Run(requests);
  printf("%.0f\n",
         static_cast<double>(Now() - begin) / static_cast<double>(requests));
}
