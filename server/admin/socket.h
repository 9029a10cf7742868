// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_SOCKET_H_
#define SERVER_ADMIN_SOCKET_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/net/address.h"
#include "server/net/listener.h"

namespace kevent::admin {

std::string DefaultDirectory();
// $RUNTIME_DIRECTORY (of systemd.exec(5), its first entry), else
// $XDG_RUNTIME_DIR/kevent, else /run/kevent.

std::string DefaultSocket();
// "unix:" and admin.sock in that directory.

absl::Status MakePrivateDirectory(const std::string& path);
// Makes the directory with mode 0700. One that is there must be its owner's
// alone to write, and the owner be this user or root: FailedPrecondition
// otherwise. Its parent must be there.

absl::StatusOr<net::Listener> ListenPrivately(const net::Address& address);
// On a unix socket of mode 0600, which it has from its first moment on. A
// socket that nobody answers at is replaced; AlreadyExists where somebody does.
// InvalidArgument for addresses that are no paths.

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_SOCKET_H_
