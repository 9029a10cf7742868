// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_NET_LISTENER_H_
#define SERVER_NET_LISTENER_H_

#include <sys/types.h>

#include <utility>

#include "absl/status/statusor.h"
#include "server/net/address.h"

namespace kevent::net {

class Listener {
 public:
  struct Options {
    int backlog = 4096;  // connections not accepted yet (listen(2))
    bool reuse_port = false;
    // SO_REUSEPORT: several listeners on one address, one for each loop, among
    // which the kernel spreads connections. Not for unix sockets.
    bool v6_only = true;
    // IPV6_V6ONLY: "[::]:80" leaves IPv4 to a listener of its own.
    bool nodelay = true;
    // TCP_NODELAY, which accepted connections inherit.
    int defer_accept_s = 0;
    // TCP_DEFER_ACCEPT (tcp(7)): a connection is accepted when its first bytes
    // are there, or after about so many seconds. For servers whose clients
    // speak first, it saves a turn of the loop for each connection. 0: at once.
    mode_t unix_mode = 0777;
    // Permissions of a unix socket's file, less the umask.
  };

  static absl::StatusOr<Listener> Listen(const Address& address,
                                         const Options& options);
  // Binds with SO_REUSEADDR and listens. Errors read "cannot listen on
  // 127.0.0.1:80: Permission denied". A unix socket's file that nobody answers
  // at is replaced; where a server answers it is AlreadyExists.

  Listener() = default;
  Listener(Listener&& other) noexcept;
  Listener& operator=(Listener&& other) noexcept;
  ~Listener() { Close(); }

  int fd() const { return fd_; }  // close-on-exec, non-blocking; -1 if none
  const Address& address() const { return address_; }
  // With the real port where 0 was asked for.

  int Release();
  // Gives the descriptor away: with an accept in flight it is to be closed by
  // Loop::Close. The socket's file is still removed by Close.
  void Close();
  // Closes the descriptor and removes the unix socket's file, if it is still
  // the one made here.

 private:
  int fd_ = -1;
  Address address_;
  dev_t dev_ = 0;  // of the socket's file; inode 0 if there is none
  ino_t ino_ = 0;
};
// Owns a listening socket. Not thread-safe; needs no loop.

}  // namespace kevent::net

#endif  // SERVER_NET_LISTENER_H_
