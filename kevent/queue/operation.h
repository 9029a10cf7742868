// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_QUEUE_OPERATION_H_
#define KEVENT_QUEUE_OPERATION_H_

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace kevent {

class BufferPool;
namespace internal {
struct PopulateJob;
}

enum class Opcode : uint8_t {
  kAccept,
  kConnect,
  kRecv,
  kSend,
  kSendfile,
  kShutdown,
  kClose,
  kPost,
};

inline constexpr size_t kOpcodes = 8;

enum OperationFlags : uint16_t {
  kOpMultishot = 1u << 0,
  // accept, recv from a pool: one entry for each connection or piece of data,
  // until it fails, is cancelled, or (recv) the peer ends its stream.

  kOpSkipSuccess = 1u << 1,
  // No entry if it transfers its full length. The operation is idle again then;
  // in_flight() tells. Not with kOpMultishot.

  kOpSkipInline = 1u << 2,
  // No entry if it transfers its full length within Submit, which then returns
  // Queue::kDone. Otherwise an entry as usual. Neither flag goes with
  // kOpMultishot, accept or a recv from a pool: their results are in the entry.

  kOpPollFirst = 1u << 3,
  // recv: nothing is expected yet, wait for readiness before the first try.
};

struct Operation {
  explicit Operation(Opcode op) : opcode(op) {}
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;
  ~Operation() {
    if (q.state != State::kIdle) DestroyedInFlight(this);
  }

  // The queue's own, as is all of `q`.
  enum class State : uint8_t { kIdle, kBlocked, kQueued, kStarted, kDone };

  bool in_flight() const { return q.state != State::kIdle; }
  // From Submit until its last entry has been taken.

  int64_t progress() const { return q.state == State::kStarted ? q.done : 0; }
  // Bytes sent so far, as far as the engine tells before the end. For
  // time-outs.

  uint64_t user_data = 0;
  // Comes back in every entry.

  Operation* link = nullptr;
  // Submitted together with this one and started only when this one has
  // transferred its full length; otherwise it completes with -ECANCELED. May
  // itself have a link. Not on a multishot operation.

  int fd = -1;
  uint16_t flags = 0;  // OperationFlags
  const Opcode opcode;

  struct QueuePrivate {
    Operation* next = nullptr;
    Operation* prev = nullptr;
    int64_t done = 0;  // bytes so far, later the result; blocked: see core.cc
    uint32_t position = 0;  // in the OpFifo it is in, if any
    uint16_t bits = 0;      // see core.h
    uint8_t started = 0;    // engine's own
    State state = State::kIdle;
  } q;
  // The queue's own while in flight; not for callers.

 private:
  [[noreturn]] static void DestroyedInFlight(const Operation* op);
};
// One request to a Queue. The caller owns the object and everything it points
// at; from Queue::Submit until the entry without kEntryMore has been taken both
// belong to the queue: neither may be changed, and destroying it then aborts
// the program. The queue allocates nothing for it.
//
// Operations of one socket and direction (recv side: accept, recv; send side:
// connect, send, sendfile, shutdown) run and complete in the order submitted.
// When a send-side operation ends short, cancelled or failed after its first
// byte went out, every later send on that socket completes with -ECANCELED,
// having sent nothing, until Close or a ShutdownOp.
//
// A descriptor that was given to a queue is closed by Queue::Close or a CloseOp
// of that queue: it would take the number's next tenant for the old one after a
// plain close(2).
//
// The descriptor may be in blocking or non-blocking mode; the queue never
// blocks on it, but may change its O_NONBLOCK flag.
//
// Not thread-safe by itself; Queue::Options::sharing says who may submit.

struct AcceptOp : Operation {
  AcceptOp() : Operation(Opcode::kAccept) {}
  // Listening socket in `fd`. Result: the new descriptor, close-on-exec, owned
  // by whoever takes the entry. With kOpMultishot -EMFILE, -ENFILE, -ENOBUFS or
  // -ENOMEM ends it and the connection stays in the backlog; connections that
  // died there are passed over (accept(2)).
};

struct ConnectOp : Operation {
  ConnectOp() : Operation(Opcode::kConnect) {}
  sockaddr_storage address = {};
  socklen_t address_length = 0;  // bytes
};
// Result 0 or negative errno (connect(2)).

struct RecvOp : Operation {
  RecvOp() : Operation(Opcode::kRecv) {}
  void* buffer = nullptr;  // unused with a pool
  uint32_t size = 0;       // bytes of `buffer`; unused with a pool
  uint16_t reserved = 0;
  uint16_t buffer_id = 0;      // the queue's own
  BufferPool* pool = nullptr;  // takes a buffer of it when data is there
};
// Result: bytes received, 0 at the end of the stream. With a pool a waiting
// recv holds no buffer; when the pool is empty it waits for one, the data
// staying in the socket.

inline constexpr size_t kMaxGather = 1024;  // IOV_MAX

struct SendOp : Operation {
  SendOp() : Operation(Opcode::kSend) {}

  void Set(const void* data, size_t size) {
    one = {const_cast<void*>(data), size};
    pieces = {&one, 1};
  }
  // One buffer. The operation must not move afterwards.

  std::span<const iovec> pieces;  // at most kMaxGather
  iovec one = {};
  bool more = false;  // MSG_MORE: another send follows at once
  // Large sends by reference fill segments only without it (TCP_CORK).
  bool by_reference = false;
  // The socket may get the very pages instead of a copy, which is cheaper from
  // 6 KiB on (Queue::sends_by_reference). Then the bytes must never
  // change any more, also after the last entry: the network goes on reading
  // them, and nobody tells for how long. They may be unmapped (munmap(2),
  // MADV_DONTNEED); memory of an allocator that would be used again may not be
  // lent. Of a stream socket only; as sendfile(2) it has no MSG_NOSIGNAL: see
  // Queue::Create.
};
// Sends all of `pieces`. Result: their total length; less if it ended early
// (error or cancel after the first byte); negative errno if nothing was sent.

struct FileMemo {
  int64_t begin = 0;  // bytes of the file, found in the page cache
  int64_t end = 0;
  int64_t until_ns = 0;  // CLOCK_MONOTONIC_COARSE, when to look again
};
// What a queue has learned of one open file. The caller keeps it for as long as
// the descriptor and names it in every SendfileOp of that file and queue, so
// that a file in demand is not probed for every request.

struct SendfileOp : Operation {
  SendfileOp() : Operation(Opcode::kSendfile) {}
  std::span<const std::byte> header;
  std::span<const std::byte> trailer;
  int64_t offset = 0;        // bytes, in the file
  int64_t length = 0;        // bytes of the file to send
  int file = -1;             // descriptor open for reading
  FileMemo* memo = nullptr;  // optional

  struct Private {
    internal::PopulateJob* job = nullptr;
    int64_t resident_end = 0;  // file offset up to which pages were seen
  } s;
};
// Sends `header`, then the range of the file out of the page cache by
// reference, then `trailer`, as one unit against other operations of this
// queue. Result: bytes in all. A file that turns out shorter than the range
// ends it after its last byte: the result is short and no trailer is sent.
// Pages not in the cache are read off the calling thread.

struct ShutdownOp : Operation {
  ShutdownOp() : Operation(Opcode::kShutdown) {}
  int how = SHUT_WR;
};
// shutdown(2), after the sends submitted before it.

struct CloseOp : Operation {
  CloseOp() : Operation(Opcode::kClose) {}
};
// Queue::Close as an operation (for links): completes when the descriptor has
// been closed. It does not wait for sends submitted before it, it cancels them;
// link it behind the last one instead.

struct PostOp : Operation {
  PostOp() : Operation(Opcode::kPost) {}
  PostOp* next_posted = nullptr;  // the queue's own
};
// A user event, see Queue::Post. Result 0.

}  // namespace kevent

#endif  // KEVENT_QUEUE_OPERATION_H_
