// SPDX-License-Identifier: Apache-2.0
#ifndef BENCHMARKS_LOAD_FLOOR_RING_H_
#define BENCHMARKS_LOAD_FLOOR_RING_H_

#include <liburing.h>

#include <cstdint>
#include <string>

namespace kevent::bench {

class RingFloor {
 public:
  RingFloor(int listener, std::string answer, bool close_after);
  // Ends the program with a message where the kernel has no such ring (Linux
  // 6.1).

  [[noreturn]] void Run();
  // In the process and thread that has made it.

 private:
  enum class Step : uint8_t { kAccept, kReceive, kSend, kClose };

  void Handle(const io_uring_cqe& cqe);
  void MakeRoom();
  static void Mark(io_uring_sqe* sqe, Step step, int fd);
  void Accept();
  void Receive(int fd);
  void Answer(int fd);

  const int listener_;
  const std::string answer_;
  const bool close_after_;
  io_uring ring_ = {};
  char request_[4096];
};
// The floor on io_uring: one multishot accept, and for each request a recv and
// a send. With `close_after` a close is linked to the send, else the next recv.
// Whatever comes is a request; nobody looks at it.

}  // namespace kevent::bench

#endif  // BENCHMARKS_LOAD_FLOOR_RING_H_
