// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_QUEUE_TRANSFER_H_
#define KEVENT_QUEUE_TRANSFER_H_

#include <poll.h>

#include <cstdint>
#include <span>

#include "kevent/queue/operation.h"
#include "kevent/queue/page_pipe.h"

namespace kevent::internal {

inline constexpr size_t kMaxTransfer = 0x7ffff000;
// Bytes that one call moves at most, see write(2). io_uring and the module
// refuse more.

inline constexpr int64_t kLeastByReference = 6 << 10;
// Bytes below which a copy is cheaper than what a reference takes.

inline int64_t TotalLength(const SendOp& op) {
  int64_t total = 0;
  for (const iovec& piece : op.pieces) {
    total += static_cast<int64_t>(piece.iov_len);
  }
  return total;
}

int64_t TryRecv(int fd, void* buffer, uint32_t size);
// Bytes, 0 at the end of the stream, or negative errno; never blocks.

inline constexpr int64_t kTurn = 2 << 20;
// Bytes one operation sends before others get their turn.

inline constexpr int64_t kTurnByReference = 16 << 20;
// The same of memory that is not copied, which takes well below a millisecond.
// What many connections ask for costs less one after the other than a piece of
// each in turn.

inline constexpr int64_t kPass = 4 << 20;
// Bytes after which a queue begins no further send but looks at the kernel
// first, and goes on with those that waited, the longest first. What comes
// meanwhile waits for one turn, not for one of each connection.

inline constexpr size_t kBunch = 64;
inline constexpr size_t kBunchFrom = 4;
// A bunch: sends that are submitted for the entries of one Enter, where these
// are at least kBunchFrom, begin together, so many at a time. The program's
// code and the kernel's each run many times in a row, and do not drive one
// another from the caches. A copy that another send is to follow does not wait:
// it goes no further than the socket.

inline constexpr int64_t kShort = 128 << 10;
// A send with no more left than that does not wait for it.

int64_t TrySend(SendOp* op, PagePipe* pages);
// Goes on at op->q.done. 0 when all is out, or negative errno; -EAGAIN when the
// socket is full; kPending after its turn. op->q.done counts. What is to go
// by reference does so through `pages`, unless that is null; the socket must be
// non-blocking then.

size_t RestOf(const SendOp& op, std::span<iovec> out, bool* all);
// What is left to be sent, as far as it fits into `out`; `*all` if it does.

iovec NextOf(const SendOp& op, bool* all);
// The same of one piece, and of no more than kMaxTransfer.

int TryAccept(int fd);
// A descriptor or negative errno; connections that died in the backlog are
// passed over. The listener must be non-blocking.

void PollNow(std::span<pollfd> polled);
// Sets `revents` to what is ready now: poll(2) without a wait. Where the kernel
// does not tell (RLIMIT_NOFILE is 0, no memory) it is `events`: to try is safe.

bool IsReady(int fd, short events);
// The same of one. Also true where the next call would fail.

int SetNonBlocking(int fd);

uint8_t SocketType(int fd);
// SOCK_STREAM ..., 0 if it is no socket.

}  // namespace kevent::internal

#endif  // KEVENT_QUEUE_TRANSFER_H_
