// SPDX-License-Identifier: Apache-2.0
#include "kevent/queue/page_pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "kevent/queue/fault.h"
#include "kevent/queue/syscalls.h"

namespace kevent::internal {
namespace {

constexpr int kPipeBytes = 1 << 20;
// What goes out with a pair of calls: the default of fs.pipe-max-size. Who has
// many pipes may be refused that much: then it takes more calls.
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
  for (int bytes = kPipeBytes; bytes >= kLeastPipeBytes; bytes /= 2) {
    if (fcntl(write_, F_SETPIPE_SZ, bytes) >= 0) break;
  }
  return true;
}

void PagePipe::Close() {
  for (int* fd : {&read_, &write_, &null_}) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
  }
}

int PagePipe::Send(int fd, std::span<iovec> pieces, bool more, int64_t* sent) {
  *sent = 0;
  if (!Open()) return -ENOSYS;
  while (!pieces.empty()) {
    ssize_t in;
    do {
      in = SysVmsplice(write_, pieces.data(), pieces.size(), SPLICE_F_NONBLOCK);
    } while (in < 0 && errno == EINTR);
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
