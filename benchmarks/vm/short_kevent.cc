// SPDX-License-Identifier: Apache-2.0
//
// The trivial web server of 2006 on kevent::Queue: what short_epoll.cc does, by
// operations. Head and file go out as one, and the close is linked behind them.
//
//   short_kevent PORT FILE module|uring|epoll
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "benchmarks/vm/common.h"
#include "benchmarks/vm/make_queue.h"
#include "kevent/queue/queue.h"

namespace kevent::bench {
namespace {

struct Connection {
  RecvOp recv;
  SendfileOp send;
  CloseOp close;
  char request[4096];
};

class Server {
 public:
  Server(Queue* queue, uint16_t port, const char* path)
      : queue_(queue), file_(open(path, O_RDONLY)) {
    struct stat st;
    if (file_ < 0 || fstat(file_, &st) < 0) Die(path);
    bytes_ = st.st_size;
    head_ = ShortHead(static_cast<size_t>(bytes_));
    accept_.fd = Listen(port, 0);
    accept_.flags = kOpMultishot;
    if (queue_->Submit(&accept_) < 0) Die("accept");
  }

  [[noreturn]] void Run() {
    std::array<Entry, 256> entries;
    for (;;) {
      const int n = queue_->Enter(entries, Wait());
      for (int i = 0; i < n; ++i) Take(entries[static_cast<size_t>(i)]);
    }
  }

 private:
  void Take(const Entry& entry) {
    auto* c = reinterpret_cast<Connection*>(entry.user_data);
    switch (entry.operation->opcode) {
      case Opcode::kAccept:
        if (entry.result >= 0) Accepted(static_cast<int>(entry.result));
        return;
      case Opcode::kRecv:
        if (entry.result > 0) {
          Answer(c);
        } else {
          queue_->Close(c->recv.fd);
          free_.push_back(c);
        }
        return;
      case Opcode::kClose:
        // Cancelled where the answer did not go out in full.
        if (entry.result < 0) queue_->Close(c->recv.fd);
        free_.push_back(c);
        return;
      default:
        return;
    }
  }

  void Accepted(int fd) {
    if (free_.empty()) {
      all_.push_back(std::make_unique<Connection>());
      free_.push_back(all_.back().get());
    }
    Connection* c = free_.back();
    free_.pop_back();
    c->recv.fd = fd;
    c->recv.user_data = reinterpret_cast<uintptr_t>(c);
    c->recv.buffer = c->request;
    c->recv.size = sizeof c->request;
    if (queue_->Submit(&c->recv) < 0) Die("recv");
  }

  void Answer(Connection* c) {
    c->send.fd = c->close.fd = c->recv.fd;
    c->send.user_data = c->close.user_data = reinterpret_cast<uintptr_t>(c);
    c->send.header = std::as_bytes(std::span(head_));
    c->send.file = file_;
    c->send.memo = &memo_;
    c->send.length = bytes_;
    c->send.flags = kOpSkipSuccess;
    c->send.link = &c->close;
    if (queue_->Submit(&c->send) < 0) Die("sendfile");
  }

  Queue* const queue_;
  const int file_;
  int64_t bytes_ = 0;
  std::string head_;
  FileMemo memo_;
  AcceptOp accept_;
  std::vector<std::unique_ptr<Connection>> all_;
  std::vector<Connection*> free_;
};

}  // namespace
}  // namespace kevent::bench

int main(int argc, char** argv) {
  using namespace kevent;  // NOLINT(google-build-using-namespace)
  if (argc != 4) {
    fprintf(stderr, "usage: short_kevent PORT FILE module|uring|epoll\n");
    return 2;
  }
  auto queue = bench::MakeQueue(argv[3]);
  bench::Server server(queue.get(), static_cast<uint16_t>(atoi(argv[1])),
                       argv[2]);
  server.Run();
}
