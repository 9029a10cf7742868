// SPDX-License-Identifier: Apache-2.0
#include "kevent/queue/page_pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "kevent/queue/fault.h"
#include "kevent/queue/syscalls.h"

namespace kevent::internal {
namespace {

constexpr int kLeastPipeBytes = 128 << 10;  // the least that is asked for

bool IsForbidden(int error) { return error == EPERM || error == ENOSYS; }

// Drops the first `bytes`.
void Advance(std::span<iovec>* pieces, int64_t bytes) {
  auto left = static_cast<size_t>(bytes);
  while (!pieces->empty() && left >= pieces->front().iov_len) {
    left -= pieces->front().iov_len;
    *pieces = pieces->subspan(1);
  }
  if (left == 0) return;
  iovec& first = pieces->front();
  first.iov_base = static_cast<char*>(first.iov_base) + left;
  first.iov_len -= left;
}

}  // namespace

PagePipe::~PagePipe() { Close(); }

bool PagePipe::Open() {
  if (read_ >= 0) return true;
  if (forbidden_) return false;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) return false;
  read_ = ends[0];
  write_ = ends[1];
  null_ = open("/dev/null", O_WRONLY | O_CLOEXEC);
  iovec nothing = {};
  if (null_ < 0 || vmsplice(write_, &nothing, 1, SPLICE_F_NONBLOCK) < 0 ||
      (splice(read_, nullptr, null_, nullptr, 1, SPLICE_F_NONBLOCK) < 0 &&
       errno != EAGAIN)) {
    forbidden_ = IsForbidden(errno);
    Close();
    return false;
  }
  for (int bytes = kBytes; bytes >= kLeastPipeBytes; bytes /= 2) {
    if (fcntl(write_, F_SETPIPE_SZ, bytes) >= 0) break;
  }
  return true;
}

void PagePipe::Close() {
  for (int* fd : {&read_, &write_, &null_}) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
  }
  ExpectNothing();
}

// Bytes, or negative errno.
ssize_t PagePipe::Put(std::span<iovec> pieces) {
  for (;;) {
    const ssize_t in =
        SysVmsplice(write_, pieces.data(), pieces.size(), SPLICE_F_NONBLOCK);
    if (in >= 0) return in;
    if (errno != EINTR) return -errno;
  }
}

void PagePipe::Expect(std::span<const iovec> messages) {
  Forget();
  expected_.assign(messages.begin(), messages.end());
}

// Puts in as much as there is room for of what is expected.
void PagePipe::Fill() {
  ssize_t in = Put(std::span(expected_).subspan(next_));
  for (; in > 0; ++filled_) {
    last_bytes_ = std::min(expected_[filled_].iov_len, static_cast<size_t>(in));
    in -= static_cast<ssize_t>(last_bytes_);
  }
}

// How much of what a Send asks for is in the pipe and comes next, if it is
// expected now. Otherwise the pipe is empty afterwards.
ssize_t PagePipe::TakeExpected(std::span<const iovec> pieces) {
  if (!expects()) return 0;
  const iovec& next = expected_[next_];
  if (pieces.size() == 1 && next.iov_base == pieces[0].iov_base &&
      next.iov_len == pieces[0].iov_len) {
    if (next_ == filled_) Fill();
    if (next_ < filled_) return InPipe(next_++);
  }
  Forget();
  return 0;
}

// Bytes of one that was put in.
ssize_t PagePipe::InPipe(size_t n) const {
  return static_cast<ssize_t>(n + 1 == filled_ ? last_bytes_
                                               : expected_[n].iov_len);
}

void PagePipe::Forget() {
  int64_t bytes = 0;
  for (size_t n = next_; n < filled_; ++n) bytes += InPipe(n);
  ExpectNothing();
  if (bytes > 0 && !Empty(bytes)) Close();
}

int PagePipe::Send(int fd, std::span<iovec> pieces, bool more, int64_t* sent) {
  *sent = 0;
  if (!Open()) return -ENOSYS;
  while (!pieces.empty()) {
    ssize_t in = *sent == 0 ? TakeExpected(pieces) : 0;
    if (in == 0) in = Put(pieces);
    // A copy tells what is wrong with the memory, or it works.
    if (in < 0) return -ENOSYS;
    Advance(&pieces, in);
    const unsigned flags =
        SPLICE_F_NONBLOCK | (more || !pieces.empty() ? SPLICE_F_MORE : 0);
    // Until it fails: only then is the socket sure to announce room.
    while (in > 0) {
      const ssize_t out = SysSplice(read_, fd, static_cast<size_t>(in), flags);
      if (out < 0 && errno == EINTR) continue;
      if (out <= 0) {
        const int error = out < 0 ? errno : EPIPE;
        if (!Empty(in)) Close();
        // What cannot take pages, or must not be given any.
        return error == EINVAL || IsForbidden(error) ? -ENOSYS : -error;
      }
      in -= out;
      *sent += out;
    }
  }
  return 0;
}

// Drops what is in the pipe; false if that fails.
bool PagePipe::Empty(int64_t bytes) {
  if (Fault(FaultPoint::kKeepPages)) return true;
  while (bytes > 0) {
    const ssize_t n = splice(read_, nullptr, null_, nullptr,
                             static_cast<size_t>(bytes), SPLICE_F_NONBLOCK);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes -= n;
  }
  return true;
}

}  // namespace kevent::internal
