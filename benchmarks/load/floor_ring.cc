// SPDX-License-Identifier: Apache-2.0
#include "benchmarks/load/floor_ring.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace kevent::bench {
namespace {

constexpr unsigned kSubmissions = 4096;
constexpr unsigned kPerRequest = 2;  // submissions, of which one is linked

}  // namespace

RingFloor::RingFloor(int listener, std::string answer, bool close_after)
    : listener_(listener),
      answer_(std::move(answer)),
      close_after_(close_after) {
  const int r = io_uring_queue_init(
      kSubmissions, &ring_,
      IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
  if (r < 0) {
    fprintf(stderr, "floor: io_uring: %s\n", strerror(-r));
    exit(1);
  }
}

void RingFloor::Run() {
  Accept();
  for (;;) {
    io_uring_submit_and_wait(&ring_, 1);
    io_uring_cqe* cqe;
    unsigned head;
    unsigned seen = 0;
    io_uring_for_each_cqe(&ring_, head, cqe) {
      ++seen;
      Handle(*cqe);
    }
    io_uring_cq_advance(&ring_, seen);
  }
}

void RingFloor::Handle(const io_uring_cqe& cqe) {
  const int fd = static_cast<int>(cqe.user_data & 0xffffffff);
  switch (static_cast<Step>(cqe.user_data >> 32)) {
    case Step::kAccept:
      if (cqe.res >= 0) {
        MakeRoom();
        Receive(cqe.res);
      }
      if (!(cqe.flags & IORING_CQE_F_MORE)) Accept();
      break;
    case Step::kReceive:
      if (cqe.res > 0) {
        Answer(fd);
      } else {
        close(fd);
      }
      break;
    case Step::kSend:
      // Not all of it went out. What was linked to it is cancelled, and tells
      // nothing.
      close(fd);
      break;
    case Step::kClose:
      break;
  }
}

// One submission must not be divided from what is linked to it.
void RingFloor::MakeRoom() {
  if (io_uring_sq_space_left(&ring_) < kPerRequest) io_uring_submit(&ring_);
}

void RingFloor::Mark(io_uring_sqe* sqe, Step step, int fd) {
  sqe->user_data =
      static_cast<uint64_t>(step) << 32 | static_cast<uint32_t>(fd);
}

void RingFloor::Accept() {
  MakeRoom();
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  io_uring_prep_multishot_accept(sqe, listener_, nullptr, nullptr, 0);
  Mark(sqe, Step::kAccept, listener_);
}

void RingFloor::Receive(int fd) {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  io_uring_prep_recv(sqe, fd, request_, sizeof request_, 0);
  Mark(sqe, Step::kReceive, fd);
}

void RingFloor::Answer(int fd) {
  MakeRoom();
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  // The end of the stream leaves with the last of it.
  const int more = close_after_ ? MSG_MORE : 0;
  io_uring_prep_send(sqe, fd, answer_.data(), answer_.size(),
                     MSG_NOSIGNAL | MSG_WAITALL | more);
  sqe->flags |= IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS;
  Mark(sqe, Step::kSend, fd);
  if (!close_after_) {
    Receive(fd);
    return;
  }
  sqe = io_uring_get_sqe(&ring_);
  io_uring_prep_close(sqe, fd);
  sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
  Mark(sqe, Step::kClose, fd);
}

}  // namespace kevent::bench
