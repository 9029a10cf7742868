// SPDX-License-Identifier: Apache-2.0
#include "server/admin/socket.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string_view>

namespace kevent::admin {

std::string DefaultDirectory() {
  if (const char* given = getenv("RUNTIME_DIRECTORY"); given && *given == '/') {
    const std::string_view list = given;
    return std::string(list.substr(0, list.find(':')));
  }
  if (const char* given = getenv("XDG_RUNTIME_DIR"); given && *given == '/') {
    return std::string(given) + "/kevent";
  }
  return "/run/kevent";
}

std::string DefaultSocket() {
  return "unix:" + DefaultDirectory() + "/admin.sock";
}

absl::Status MakePrivateDirectory(const std::string& path) {
  if (mkdir(path.c_str(), 0700) == 0) return absl::OkStatus();
  if (errno != EEXIST) {
    return absl::ErrnoToStatus(errno, "cannot make the directory " + path);
  }
  struct stat st;
  if (lstat(path.c_str(), &st) < 0) {
    return absl::ErrnoToStatus(errno, "cannot use the directory " + path);
  }
  if (!S_ISDIR(st.st_mode)) {
    return absl::FailedPreconditionError(path + " is not a directory");
  }
  if (st.st_uid != geteuid() && st.st_uid != 0) {
    return absl::FailedPreconditionError(path + " belongs to another user");
  }
  if (st.st_mode & (S_IWGRP | S_IWOTH)) {
    return absl::FailedPreconditionError(
        path + " may be written by others than its owner");
  }
  return absl::OkStatus();
}

absl::StatusOr<net::Listener> ListenPrivately(const net::Address& address) {
  if (!address.is_unix()) {
    return absl::InvalidArgumentError(
        address.ToString() +
        ": over TCP the admin service needs mutual TLS; write unix:PATH, or "
        "give it certificates");
  }
  if (address.path().empty()) {
    return absl::InvalidArgumentError(
        address.ToString() +
        ": a socket without a file has no owner; write unix:PATH");
  }
  net::Listener::Options options;
  options.backlog = 128;
  options.unix_mode = 0600;
  return net::Listener::Listen(address, options);
}

}  // namespace kevent::admin
