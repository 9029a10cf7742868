// SPDX-License-Identifier: Apache-2.0
//
// The trivial web server of 2006 on epoll, as one would write it today: a
// connection for each request, whatever it asks for gets the same file, by
// sendfile(2), and the connection is closed. It neither parses nor logs.
//
//   short_epoll PORT FILE
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "benchmarks/vm/common.h"

namespace kevent::bench {
namespace {

class Server {
 public:
  Server(uint16_t port, const char* path)
      : listener_(Listen(port, SOCK_NONBLOCK)),
        epoll_(epoll_create1(0)),
        file_(open(path, O_RDONLY)) {
    struct stat st;
    if (file_ < 0 || fstat(file_, &st) < 0) Die(path);
    bytes_ = static_cast<size_t>(st.st_size);
    head_ = ShortHead(bytes_);
    Watch(listener_, EPOLLIN);
  }

  [[noreturn]] void Run() {
    epoll_event events[256];
    for (;;) {
      const int n = epoll_wait(epoll_, events, 256, -1);
      for (int i = 0; i < n; ++i) {
        const int fd = events[i].data.fd;
        if (fd == listener_) {
          Accept();
        } else {
          Answer(fd);
        }
      }
    }
  }

 private:
  void Watch(int fd, uint32_t events) const {
    epoll_event e = {};
    e.events = events;
    e.data.fd = fd;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &e) < 0) Die("epoll_ctl");
  }

  // All that wait: one turn of the loop for many.
  void Accept() const {
    int fd;
    while ((fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK)) >= 0) {
      Watch(fd, EPOLLIN | EPOLLET);
    }
  }

  // The request has come in one piece, and the file fits the send buffer.
  void Answer(int fd) const {
    char request[4096];
    off_t offset = 0;
    if (recv(fd, request, sizeof request, 0) > 0 &&
        send(fd, head_.data(), head_.size(), MSG_MORE | MSG_NOSIGNAL) > 0 &&
        sendfile(fd, file_, &offset, bytes_) != static_cast<ssize_t>(bytes_)) {
      fprintf(stderr, "short_epoll: short\n");
    }
    close(fd);
  }

  const int listener_;
  const int epoll_;
  const int file_;
  size_t bytes_ = 0;
  std::string head_;
};

}  // namespace
}  // namespace kevent::bench

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: short_epoll PORT FILE\n");
    return 2;
  }
  kevent::bench::Server server(static_cast<uint16_t>(atoi(argv[1])), argv[2]);
  server.Run();
}
