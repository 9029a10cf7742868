// SPDX-License-Identifier: Apache-2.0
#include "server/net/stream.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace kevent::net {

namespace {

absl::Status Failed(const Address& address, int error) {
  return absl::ErrnoToStatus(
      error, absl::StrCat("cannot connect to ", address.ToString()));
}

}  // namespace

loop::Task<absl::StatusOr<Stream>> Stream::Connect(loop::Loop* loop,
                                                   Address address,
                                                   loop::AwaitOptions options) {
  if (address.size() == 0) {
    co_return absl::InvalidArgumentError("cannot connect to an empty address");
  }
  int fd =
      socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) co_return Failed(address, errno);
  Stream stream(loop, fd);
  if (!address.is_unix()) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  int64_t r = co_await loop::Proactor(loop).Connect(fd, address.data(),
                                                    address.size(), options);
  if (r < 0) co_return Failed(address, static_cast<int>(-r));
  stream.SetCancel(options.cancel);
  co_return stream;
}

loop::Task<int64_t> Stream::ReadFull(std::span<std::byte> into) {
  size_t done = 0;
  while (done < into.size()) {
    int64_t r = co_await Read(into.subspan(done));
    if (r < 0) co_return r;
    if (r == 0) break;
    done += static_cast<size_t>(r);
  }
  co_return static_cast<int64_t>(done);
}

void Stream::Close() {
  if (fd_ >= 0) loop_->Close(std::exchange(fd_, -1));
}

void Stream::Reset() {
  if (fd_ < 0) return;
  linger now = {1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  Close();
}

}  // namespace kevent::net
