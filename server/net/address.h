// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_NET_ADDRESS_H_
#define SERVER_NET_ADDRESS_H_

#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace kevent::net {

class Address {
 public:
  Address() = default;

  static absl::StatusOr<Address> Parse(std::string_view text);
  // "127.0.0.1:8080", "[::1]:80", "[fe80::1%eth0]:80", ":8080" (any IPv4
  // address), "unix:/path", "unix:@name" (abstract, unix(7)). Names are not
  // resolved. InvalidArgument says what is wrong with which text.

  static Address From(const sockaddr* address, socklen_t length);
  // As accept(2), getsockname(2) and getpeername(2) give it; an empty one if
  // `length` (bytes) does not fit.
  static Address LocalOf(int fd);
  static Address PeerOf(int fd);
  // Of a socket; empty on failure.

  const sockaddr* data() const {
    return reinterpret_cast<const sockaddr*>(&storage_);
  }
  socklen_t size() const { return size_; }  // bytes; 0 if empty
  int family() const { return size_ ? storage_.ss_family : AF_UNSPEC; }
  bool is_unix() const { return family() == AF_UNIX; }

  uint16_t port() const;
  // In host order; 0 if it has none.
  std::string_view path() const;
  // Of a unix socket in the file system, else empty.

  std::string ToString() const;
  // What Parse takes; "unix:" for an unnamed unix socket, "" if empty.

  friend bool operator==(const Address& a, const Address& b);

 private:
  sockaddr_storage storage_ = {};
  socklen_t size_ = 0;
};
// Of a socket: IPv4, IPv6 or unix. A value.

}  // namespace kevent::net

#endif  // SERVER_NET_ADDRESS_H_
