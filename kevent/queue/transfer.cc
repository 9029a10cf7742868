// SPDX-License-Identifier: Apache-2.0
#include "kevent/queue/transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include "kevent/queue/engine.h"
#include "kevent/queue/fault.h"
#include "kevent/queue/syscalls.h"

namespace kevent::internal {
namespace {

constexpr size_t kPieces = 64;
// Of a gather list, handed to the kernel at a time.

int64_t Sum(std::span<const iovec> pieces) {
  int64_t sum = 0;
  for (const iovec& piece : pieces) sum += static_cast<int64_t>(piece.iov_len);
  return sum;
}

// Drops what goes beyond `bytes`, which are not 0; returns what is left.
size_t Shorten(std::span<iovec> pieces, int64_t bytes, bool* all) {
  auto left = static_cast<size_t>(bytes);
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (pieces[i].iov_len >= left) {
      if (pieces[i].iov_len > left || i + 1 < pieces.size()) *all = false;
      pieces[i].iov_len = left;
      return i + 1;
    }
    left -= pieces[i].iov_len;
  }
  return pieces.size();
}

}  // namespace

int64_t TryRecv(int fd, void* buffer, uint32_t size) {
  ssize_t n;
  do {
    n = SysRecv(fd, buffer, size, MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  return n < 0 ? -errno : n;
}

size_t RestOf(const SendOp& op, std::span<iovec> out, bool* all) {
  size_t skip = static_cast<size_t>(op.q.done);
  size_t n = 0;
  *all = true;
  for (const iovec& piece : op.pieces) {
    if (skip >= piece.iov_len) {
      skip -= piece.iov_len;
      continue;
    }
    if (n == out.size()) {
      *all = false;
      break;
    }
    out[n++] = {static_cast<char*>(piece.iov_base) + skip,
                piece.iov_len - skip};
    skip = 0;
  }
  return n;
}

iovec NextOf(const SendOp& op, bool* all) {
  iovec next = {};
  RestOf(op, {&next, 1}, all);
  if (next.iov_len > kMaxTransfer) {
    next.iov_len = kMaxTransfer;
    *all = false;
  }
  return next;
}

int64_t TrySend(SendOp* op, PagePipe* pages) {
  int64_t turn =
      op->by_reference && pages != nullptr ? kTurnByReference : kTurn;
  for (;;) {
    iovec rest[kPieces];
    bool all;
    size_t pieces = RestOf(*op, rest, &all);
    if (pieces == 0) return 0;
    if (turn <= 0) {
      if (TotalLength(*op) - op->q.done > kShort) return kPending;
      turn = kShort;
    }
    pieces = Shorten({rest, pieces}, turn, &all);
    bool refer = op->by_reference && pages != nullptr;
    const int64_t sum = refer ? Sum({rest, pieces}) : 0;
    if (refer && sum > PagePipe::kBytes && Sum({rest, 1}) < kLeastByReference) {
      // A head would take the room of a page, for which there is another pair
      // of calls in the end.
      refer = false;
      pieces = 1;
      all = false;
    }
    if (refer && sum >= kLeastByReference) {
      int64_t sent;
      const int r =
          pages->Send(op->fd, {rest, pieces}, op->more || !all, &sent);
      op->q.done += sent;
      turn -= sent;
      if (r == 0) continue;
      if (r != -ENOSYS) return r;
      pages = nullptr;
      turn = std::min(turn, kTurn);
      continue;
    }
    int flags = MSG_NOSIGNAL | MSG_DONTWAIT | (op->more || !all ? MSG_MORE : 0);
    ssize_t n;
    do {
      if (pieces == 1) {
        n = SysSend(op->fd, rest[0].iov_base, rest[0].iov_len, flags);
      } else {
        msghdr message = {};
        message.msg_iov = rest;
        message.msg_iovlen = pieces;
        n = SysSendmsg(op->fd, &message, flags);
      }
    } while (n < 0 && errno == EINTR);
    if (n < 0) return -errno;
    op->q.done += n;
    turn -= n;
    // Until EAGAIN, also after a short write: only then is the socket sure to
    // announce room.
    if (Fault(FaultPoint::kShortSendDone)) return 0;
  }
}

int TryAccept(int fd) {
  for (;;) {
    int r = accept4(fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (r >= 0) return r;
    switch (errno) {
      case EINTR:
      case ECONNABORTED:
      // accept(2): errors of the network already pending on the new socket.
      case ENETDOWN:
      case EPROTO:
      case ENOPROTOOPT:
      case EHOSTDOWN:
      case ENONET:
      case EHOSTUNREACH:
      case ENETUNREACH:
        continue;
      default:
        return -errno;
    }
  }
}

void PollNow(std::span<pollfd> polled) {
  if (polled.empty() || poll(polled.data(), polled.size(), 0) >= 0) return;
  if (errno == EINTR) {
    // It does not wait, but a signal interrupts it if nothing is ready.
    for (pollfd& p : polled) p.revents = 0;
  } else if (polled.size() == 1) {
    polled[0].revents = polled[0].events;
  } else {
    // More than RLIMIT_NOFILE at once, or than there is memory for.
    const size_t half = polled.size() / 2;
    PollNow(polled.first(half));
    PollNow(polled.subspan(half));
  }
}

bool IsReady(int fd, short events) {
  pollfd p = {fd, events, 0};
  PollNow({&p, 1});
  return p.revents != 0;
}

int SetNonBlocking(int fd) {
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return -errno;
  if (flags & O_NONBLOCK) return 0;
  return fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

uint8_t SocketType(int fd) {
  int type = 0;
  socklen_t length = sizeof type;
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) < 0) return 0;
  return static_cast<uint8_t>(type);
}

}  // namespace kevent::internal
