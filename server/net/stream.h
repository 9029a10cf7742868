// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_NET_STREAM_H_
#define SERVER_NET_STREAM_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "absl/status/statusor.h"
#include "server/loop/proactor.h"
#include "server/loop/task.h"
#include "server/net/address.h"

namespace kevent::net {

class Stream {
 public:
  Stream() = default;
  Stream(loop::Loop* loop, int fd) : loop_(loop), fd_(fd) {}
  // Takes over `fd`, a connected stream socket.
  Stream(Stream&& other) noexcept
      : loop_(other.loop_),
        fd_(std::exchange(other.fd_, -1)),
        options_(other.options_) {}
  Stream& operator=(Stream&& other) noexcept {
    if (this != &other) {
      Close();
      loop_ = other.loop_;
      fd_ = std::exchange(other.fd_, -1);
      options_ = other.options_;
    }
    return *this;
  }
  ~Stream() { Close(); }

  static loop::Task<absl::StatusOr<Stream>> Connect(
      loop::Loop* loop, Address address, loop::AwaitOptions options = {});
  // TCP_NODELAY is set. Errors read "cannot connect to 127.0.0.1:80: ...". Of
  // `options` the stream keeps the token, not the deadline.

  int fd() const { return fd_; }  // -1 when closed
  bool is_open() const { return fd_ >= 0; }
  loop::Loop* loop() const { return loop_; }
  Address peer() const { return Address::PeerOf(fd_); }

  void SetDeadline(int64_t deadline_ns) { options_.deadline_ns = deadline_ns; }
  // A time of Loop::now_ns(), for every await begun from now on; kNoDeadline
  // lifts it.
  void SetTimeout(int64_t timeout_ns) {
    options_.deadline_ns = loop_->now_ns() + timeout_ns;
  }
  // The same, from now on.
  void SetCancel(loop::CancelToken token) { options_.cancel = token; }

  // --- To be awaited at once; results as in Proactor.

  loop::RecvAwait Read(std::span<std::byte> into) {
    return loop::RecvAwait(loop_, fd_, into, options_);
  }
  // What is there, at most `into`; 0 at the end of the stream.
  loop::PoolRecvAwait Read(BufferPool* pool) {
    return loop::PoolRecvAwait(loop_, fd_, pool, options_);
  }
  loop::Task<int64_t> ReadFull(std::span<std::byte> into);
  // All of `into`: its size, or less at the end of the stream, or a negative
  // errno.

  loop::SendAwait Write(std::span<const std::byte> data, bool more = false) {
    return loop::SendAwait(loop_, fd_, data, more, options_);
  }
  loop::SendAwait Write(std::span<const iovec> pieces, bool more = false) {
    return loop::SendAwait(loop_, fd_, pieces, more, options_);
  }
  // All of it; a result that is less means that the stream is of no more use.
  loop::SendfileAwait SendFile(std::span<const std::byte> header, int file,
                               int64_t offset, int64_t length,
                               std::span<const std::byte> trailer = {}) {
    return loop::SendfileAwait(loop_, fd_, header, file, offset, length,
                               trailer, options_);
  }
  loop::ShutdownAwait Shutdown(int how) {
    return loop::ShutdownAwait(loop_, fd_, how, options_);
  }

  void Close();
  // By Loop::Close: what is in flight ends with -ECANCELED, the peer sees the
  // end of the stream. Nothing if closed.
  void Reset();
  // The same, but discards what the peer has not received and sends it RST
  // (SO_LINGER of 0, socket(7)): for a peer that does not read, whose unsent
  // data would stay in the kernel for minutes.
  int Release() { return std::exchange(fd_, -1); }
  // Gives the descriptor away, with nothing in flight.

 private:
  loop::Loop* loop_ = nullptr;
  int fd_ = -1;
  loop::AwaitOptions options_;
};
// Owns a connected socket in a loop and closes it through that loop. Not to be
// moved while an await is in flight, but may be closed then. In the loop's
// thread.

}  // namespace kevent::net

#endif  // SERVER_NET_STREAM_H_
