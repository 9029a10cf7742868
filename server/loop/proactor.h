// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_LOOP_PROACTOR_H_
#define SERVER_LOOP_PROACTOR_H_

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include "kevent/queue/buffer_pool.h"
#include "kevent/queue/operation.h"
#include "server/loop/await.h"
#include "server/loop/cancel.h"
#include "server/loop/loop.h"

namespace kevent::loop {

inline std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

class PoolBuffer {
 public:
  PoolBuffer() = default;
  PoolBuffer(Loop* loop, BufferPool* pool, uint16_t id, size_t size)
      : loop_(loop), pool_(pool), id_(id), size_(size) {}
  PoolBuffer(PoolBuffer&& other) noexcept
      : loop_(other.loop_),
        pool_(std::exchange(other.pool_, nullptr)),
        id_(other.id_),
        size_(std::exchange(other.size_, 0)) {}
  PoolBuffer& operator=(PoolBuffer&& other) noexcept {
    if (this != &other) {
      Release();
      loop_ = other.loop_;
      pool_ = std::exchange(other.pool_, nullptr);
      id_ = other.id_;
      size_ = std::exchange(other.size_, 0);
    }
    return *this;
  }
  ~PoolBuffer() { Release(); }

  std::span<std::byte> bytes() const {
    return pool_ ? std::span(pool_->data(id_), size_) : std::span<std::byte>();
  }
  // What was received.

  void Release() {
    // With the queue went its pools.
    if (pool_ && !loop_->closing()) pool_->Release(id_);
    pool_ = nullptr;
    size_ = 0;
  }

 private:
  Loop* loop_ = nullptr;
  BufferPool* pool_ = nullptr;
  uint16_t id_ = 0;
  size_t size_ = 0;
};
// Owns a buffer of a pool until it is released or destroyed. In the loop's
// thread.

struct PoolReceived {
  int64_t result = 0;  // bytes, 0 at the end of the stream, negative errno
  PoolBuffer buffer;   // with bytes only
};

class [[nodiscard]] ConnectAwait : public OperationAwait<ConnectOp> {
 public:
  ConnectAwait(Loop* loop, int fd, const sockaddr* address, socklen_t length,
               const AwaitOptions& options);
};

class [[nodiscard]] RecvAwait : public OperationAwait<RecvOp> {
 public:
  RecvAwait(Loop* loop, int fd, std::span<std::byte> into,
            const AwaitOptions& options)
      : OperationAwait(loop, fd, options) {
    buffer = into.data();
    size = static_cast<uint32_t>(std::min<size_t>(into.size(), 1u << 30));
  }
};

class [[nodiscard]] PoolRecvAwait : public OperationAwait<RecvOp> {
 public:
  PoolRecvAwait(Loop* loop, int fd, BufferPool* from,
                const AwaitOptions& options)
      : OperationAwait(loop, fd, options) {
    pool = from;
  }
  PoolReceived await_resume() noexcept {
    PoolReceived received;
    received.result = result_;
    if (buffer) {
      received.buffer =
          PoolBuffer(loop_, pool, buffer_id,
                     result_ > 0 ? static_cast<size_t>(result_) : 0);
    }
    return received;
  }
};

class [[nodiscard]] SendAwait : public OperationAwait<SendOp> {
 public:
  SendAwait(Loop* loop, int fd, std::span<const std::byte> data, bool more_data,
            const AwaitOptions& options)
      : OperationAwait(loop, fd, options) {
    one = {const_cast<std::byte*>(data.data()), data.size()};
    more = more_data;
  }
  SendAwait(Loop* loop, int fd, std::span<const iovec> gather, bool more_data,
            const AwaitOptions& options)
      : OperationAwait(loop, fd, options) {
    pieces = gather;
    gather_ = true;
    more = more_data;
  }
  bool await_suspend(std::coroutine_handle<> waiter) {
    if (!gather_) pieces = {&one, 1};
    return OperationAwait::await_suspend(waiter);
  }

 private:
  bool gather_ = false;
};

class [[nodiscard]] SendfileAwait : public OperationAwait<SendfileOp> {
 public:
  SendfileAwait(Loop* loop, int fd, std::span<const std::byte> before,
                int file_fd, int64_t from, int64_t bytes,
                std::span<const std::byte> after, const AwaitOptions& options)
      : OperationAwait(loop, fd, options) {
    header = before;
    file = file_fd;
    offset = from;
    length = bytes;
    trailer = after;
  }
};

class [[nodiscard]] ShutdownAwait : public OperationAwait<ShutdownOp> {
 public:
  ShutdownAwait(Loop* loop, int fd, int direction, const AwaitOptions& options)
      : OperationAwait(loop, fd, options) {
    how = direction;
  }
};

class Proactor {
 public:
  explicit Proactor(Loop* loop) : loop_(loop) {}

  Loop* loop() const { return loop_; }

  // --- For coroutines. Each is to be awaited at once, and gives the result of
  // the operation in operation.h: an int64_t, negative errno on failure.
  // Buffers must live until then. -EAGAIN: the queue's limit of operations was
  // reached.

  OperationAwait<AcceptOp> Accept(int listener,
                                  const AwaitOptions& options = {}) {
    return OperationAwait<AcceptOp>(loop_, listener, options);
  }
  // The descriptor is the caller's.

  ConnectAwait Connect(int fd, const sockaddr* address, socklen_t length,
                       const AwaitOptions& options = {}) {
    return ConnectAwait(loop_, fd, address, length, options);
  }
  // -EINVAL if `length` (bytes) is more than a sockaddr_storage has.

  RecvAwait Recv(int fd, std::span<std::byte> into,
                 const AwaitOptions& options = {}) {
    return RecvAwait(loop_, fd, into, options);
  }
  // At most 1 GiB at once.

  PoolRecvAwait RecvPool(int fd, BufferPool* pool,
                         const AwaitOptions& options = {}) {
    return PoolRecvAwait(loop_, fd, pool, options);
  }

  SendAwait Send(int fd, std::span<const std::byte> data,
                 const AwaitOptions& options = {}, bool more = false) {
    return SendAwait(loop_, fd, data, more, options);
  }
  SendAwait Send(int fd, std::span<const iovec> pieces,
                 const AwaitOptions& options = {}, bool more = false) {
    return SendAwait(loop_, fd, pieces, more, options);
  }
  // All of it, unless the result is less. `more`: as in SendOp.

  SendfileAwait SendFile(int fd, std::span<const std::byte> header, int file,
                         int64_t offset, int64_t length,
                         std::span<const std::byte> trailer = {},
                         const AwaitOptions& options = {}) {
    return SendfileAwait(loop_, fd, header, file, offset, length, trailer,
                         options);
  }

  ShutdownAwait Shutdown(int fd, int how, const AwaitOptions& options = {}) {
    return ShutdownAwait(loop_, fd, how, options);
  }

  OperationAwait<CloseOp> Close(int fd, const AwaitOptions& options = {}) {
    return OperationAwait<CloseOp>(loop_, fd, options);
  }

  SleepAwait SleepUntil(int64_t time_ns, CancelToken cancel = {}) {
    return SleepAwait(loop_, time_ns, cancel);
  }
  SleepAwait Sleep(int64_t duration_ns, CancelToken cancel = {}) {
    int64_t now = loop_->now_ns();
    return SleepAwait(loop_,
                      duration_ns > kNoDeadline - 1 - now ? kNoDeadline - 1
                                                          : now + duration_ns,
                      cancel);
  }
  // Until a time of Loop::now_ns(), at least until the next turn. Result 0, or
  // -ECANCELED.

  SleepAwait Yield() { return SleepAwait(loop_, 0, {}); }
  // Lets everything else that is ready go first.

  // --- With callbacks. The operation is the caller's and idle; these fill it
  // in and submit it: the result is Queue::Submit's, `fn` gets the entries.
  // Deadlines are a Timer of the caller's and Loop::Cancel.

  int Accept(AcceptOp* op, int listener, bool multishot, CompletionFn fn);
  int Connect(ConnectOp* op, int fd, const sockaddr* address, socklen_t length,
              CompletionFn fn);
  int Recv(RecvOp* op, int fd, std::span<std::byte> into, CompletionFn fn);
  int RecvPool(RecvOp* op, int fd, BufferPool* pool, bool multishot,
               CompletionFn fn);
  int Send(SendOp* op, int fd, std::span<const std::byte> data, bool more,
           CompletionFn fn);
  int Send(SendOp* op, int fd, std::span<const iovec> pieces, bool more,
           CompletionFn fn);
  int SendFile(SendfileOp* op, int fd, std::span<const std::byte> header,
               int file, int64_t offset, int64_t length,
               std::span<const std::byte> trailer, CompletionFn fn);
  int Shutdown(ShutdownOp* op, int fd, int how, CompletionFn fn);
  int Close(CloseOp* op, int fd, CompletionFn fn);

 private:
  Loop* loop_;
};
// The face of a Loop for completions: what to do, and what came of it. A value
// of one pointer. In the loop's thread.

}  // namespace kevent::loop

#endif  // SERVER_LOOP_PROACTOR_H_
