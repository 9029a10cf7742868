// SPDX-License-Identifier: Apache-2.0
//
// The echo server of ./kev bench vm echo on kevent::Queue: one accept and one
// recv for each connection stay armed (multishot), data comes in buffers of a
// pool and goes out of them. A send that is done at once makes no entry.
//
//   echo_kevent PORT module|uring|epoll
#include <array>
#include <memory>
#include <vector>

#include "benchmarks/vm/common.h"
#include "benchmarks/vm/make_queue.h"
#include "kevent/queue/queue.h"

namespace kevent::bench {
namespace {

constexpr uint32_t kBuffers = 256;

class Server {
 public:
  Server(Queue* queue, int listener)
      : queue_(queue), pool_(MakePool(queue)), sends_(kBuffers) {
    accept_.fd = listener;
    accept_.flags = kOpMultishot;
    Submit(&accept_);
  }

  [[noreturn]] void Run() {
    std::array<Entry, 256> entries;
    for (;;) {
      const int n = queue_->Enter(entries, Wait());
      for (int i = 0; i < n; ++i) Take(entries[static_cast<size_t>(i)]);
    }
  }

 private:
  static BufferPool* MakePool(Queue* queue) {
    auto pool = queue->AddBufferPool(kBuffers, kEchoBuffer);
    if (!pool.ok()) Die("pool");
    return *pool;
  }

  int Submit(Operation* op) {
    const int r = queue_->Submit(op);
    if (r < 0) {
      errno = -r;
      Die("Submit");
    }
    return r;
  }

  void Take(const Entry& entry) {
    switch (entry.operation->opcode) {
      case Opcode::kAccept:
        if (entry.result >= 0) Accepted(static_cast<int>(entry.result));
        break;
      case Opcode::kRecv:
        Received(static_cast<RecvOp*>(entry.operation), entry);
        break;
      case Opcode::kSend:
        pool_->Release(static_cast<uint16_t>(entry.user_data));
        break;
      default:
        break;
    }
  }

  void Accepted(int fd) {
    NoDelay(fd);
    if (recvs_.size() <= static_cast<size_t>(fd)) {
      recvs_.resize(static_cast<size_t>(fd) + 1);
    }
    auto& recv = recvs_[static_cast<size_t>(fd)];
    if (!recv) recv = std::make_unique<RecvOp>();
    recv->fd = fd;
    recv->pool = pool_;
    recv->flags = kOpMultishot | kOpPollFirst;
    Submit(recv.get());
  }

  // Each buffer has a send of its own: the queue keeps them in order.
  void Received(RecvOp* recv, const Entry& entry) {
    if ((entry.flags & kEntryBuffer) != 0) {
      const auto id = static_cast<uint16_t>(entry.data[1]);
      if (entry.result > 0) {
        SendOp& send = sends_[id];
        send.fd = recv->fd;
        send.user_data = id;
        send.flags = kOpSkipInline;
        send.Set(pool_->data(id), static_cast<size_t>(entry.result));
        if (Submit(&send) == Queue::kDone) pool_->Release(id);
      } else {
        pool_->Release(id);
      }
    }
    if ((entry.flags & kEntryMore) == 0) queue_->Close(recv->fd);
  }

  Queue* const queue_;
  BufferPool* const pool_;
  AcceptOp accept_;
  std::vector<SendOp> sends_;                   // by buffer
  std::vector<std::unique_ptr<RecvOp>> recvs_;  // by descriptor
};

}  // namespace
}  // namespace kevent::bench

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: echo_kevent PORT module|uring|epoll\n");
    return 2;
  }
  auto queue = kevent::bench::MakeQueue(argv[2]);
  kevent::bench::Server server(
      queue.get(),
      kevent::bench::Listen(static_cast<uint16_t>(atoi(argv[1])), 0));
  server.Run();
}
