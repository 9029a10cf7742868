// SPDX-License-Identifier: Apache-2.0
//
// The client of all echo servers of ./kev bench vm echo: each of its
// connections sends 64 bytes, waits until they have come back, and sends the
// next. Prints what a message and its echo cost the whole machine, this program
// included: in the guest with deterministic instruction counts the clock
// advances by one nanosecond for each instruction.
//
//   echo_client PORT CONNECTIONS MESSAGES
#include <sys/epoll.h>
#include <unistd.h>

#include <cstdint>
#include <vector>

#include "benchmarks/vm/common.h"

namespace kevent::bench {
namespace {

constexpr size_t kBytes = 64;

struct Connection {
  int fd = -1;
  size_t got = 0;     // bytes of the echo that have come
  uint8_t first = 0;  // of the message: the others count up
};

class Client {
 public:
  Client(uint16_t port, size_t count)
      : epoll_(epoll_create1(0)), connections_(count) {
    for (Connection& c : connections_) {
      c.fd = Connect(port);
      NoDelay(c.fd);
      epoll_event e = {};
      e.events = EPOLLIN;
      e.data.ptr = &c;
      if (epoll_ctl(epoll_, EPOLL_CTL_ADD, c.fd, &e) < 0) Die("epoll_ctl");
    }
  }

  // Returns when `count` echoes have come.
  void Run(size_t count) {
    to_send_ = to_come_ = count;
    for (Connection& c : connections_) Send(&c);
    epoll_event events[64];
    while (to_come_ > 0) {
      const int n = epoll_wait(epoll_, events, 64, -1);
      for (int i = 0; i < n; ++i) {
        Receive(static_cast<Connection*>(events[i].data.ptr));
      }
    }
  }

 private:
  void Send(Connection* c) {
    if (to_send_ == 0) return;
    --to_send_;
    c->got = 0;
    ++c->first;
    uint8_t message[kBytes];
    for (size_t i = 0; i < kBytes; ++i) {
      message[i] = static_cast<uint8_t>(c->first + i);
    }
    if (send(c->fd, message, kBytes, 0) != kBytes) Die("send");
  }

  void Receive(Connection* c) {
    uint8_t echo[kBytes + 1];
    const ssize_t n = recv(c->fd, echo, sizeof echo, 0);
    if (n <= 0) Die("recv");
    for (ssize_t i = 0; i < n; ++i, ++c->got) {
      if (c->got == kBytes ||
          echo[i] != static_cast<uint8_t>(c->first + c->got)) {
        errno = EBADMSG;
        Die("echo");
      }
    }
    if (c->got < kBytes) return;
    --to_come_;
    Send(c);
  }

  const int epoll_;
  std::vector<Connection> connections_;
  size_t to_send_ = 0, to_come_ = 0;
};

}  // namespace
}  // namespace kevent::bench

int main(int argc, char** argv) {
  using namespace kevent::bench;  // NOLINT(google-build-using-namespace)
  if (argc != 4) {
    fprintf(stderr, "usage: echo_client PORT CONNECTIONS MESSAGES\n");
    return 2;
  }
  const size_t connections = strtoul(argv[2], nullptr, 10);
  const size_t messages = strtoul(argv[3], nullptr, 10);
  Client client(static_cast<uint16_t>(atoi(argv[1])), connections);
  client.Run(messages / 4 + connections);
  const int64_t begin = Now();
  client.Run(messages);
  printf("%.0f\n",
         static_cast<double>(Now() - begin) / static_cast<double>(messages));
}
