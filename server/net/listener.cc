// SPDX-License-Identifier: Apache-2.0
#include "server/net/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace kevent::net {

namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

absl::Status Failed(const Address& address, int error) {
  return absl::ErrnoToStatus(
      error, absl::StrCat("cannot listen on ", address.ToString()));
}

int Set(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value) < 0 ? errno : 0;
}

int SetOptions(int fd, const Address& address,
               const Listener::Options& options) {
  if (address.is_unix()) return 0;
  if (int e = Set(fd, SOL_SOCKET, SO_REUSEADDR, 1)) return e;
  if (options.reuse_port) {
    if (int e = Set(fd, SOL_SOCKET, SO_REUSEPORT, 1)) return e;
  }
  if (address.family() == AF_INET6) {
    if (int e = Set(fd, IPPROTO_IPV6, IPV6_V6ONLY, options.v6_only)) return e;
  }
  if (options.defer_accept_s > 0) {
    if (int e =
            Set(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, options.defer_accept_s)) {
      return e;
    }
  }
  if (options.nodelay) return Set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  return 0;
}

std::string DirectoryOf(const std::string& path) {
  size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// Whether the file at `address` is a socket that no process listens on.
absl::Status CheckStale(const Address& address, const std::string& path) {
  struct stat st;
  if (lstat(path.c_str(), &st) < 0) return Failed(address, errno);
  if (!S_ISSOCK(st.st_mode)) {
    return absl::AlreadyExistsError(
        absl::StrCat("cannot listen on ", address.ToString(),
                     ": the file is there and is not a socket"));
  }
  Descriptor probe(
      socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (probe.get() < 0) return Failed(address, errno);
  int error =
      connect(probe.get(), address.data(), address.size()) < 0 ? errno : 0;
  if (error == ECONNREFUSED) return absl::OkStatus();
  // EAGAIN: its backlog is full. EPROTOTYPE: a datagram socket that is alive.
  if (error == 0 || error == EAGAIN || error == EPROTOTYPE) {
    return absl::AlreadyExistsError(
        absl::StrCat("cannot listen on ", address.ToString(),
                     ": another server answers there"));
  }
  return Failed(address, error);
}

absl::Status BindUnix(int fd, const Address& address,
                      const Listener::Options& options) {
  // Until it is bound the socket's own mode is the future file's (unix(7)).
  if (fchmod(fd, options.unix_mode) < 0) return Failed(address, errno);
  if (bind(fd, address.data(), address.size()) == 0) return absl::OkStatus();
  std::string path(address.path());
  if (errno != EADDRINUSE || path.empty()) return Failed(address, errno);
  if (absl::Status s = CheckStale(address, path); !s.ok()) return s;
  if (unlink(path.c_str()) < 0 && errno != ENOENT) {
    return Failed(address, errno);
  }
  if (bind(fd, address.data(), address.size()) < 0) {
    return Failed(address, errno);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Listener> Listener::Listen(const Address& address,
                                          const Options& options) {
  if (address.size() == 0) {
    return absl::InvalidArgumentError("cannot listen on an empty address");
  }
  Descriptor fd(
      socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd.get() < 0) return Failed(address, errno);
  if (int e = SetOptions(fd.get(), address, options)) {
    return Failed(address, e);
  }

  Listener listener;
  if (address.is_unix()) {
    // Between bind and listen nobody answers: a second server must not take
    // that for stale. Where the directory cannot be opened there is no lock.
    std::string path(address.path());
    Descriptor directory(path.empty()
                             ? -1
                             : open(DirectoryOf(path).c_str(),
                                    O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (directory.get() >= 0) flock(directory.get(), LOCK_EX);
    if (absl::Status s = BindUnix(fd.get(), address, options); !s.ok()) {
      return s;
    }
    struct stat st;
    if (!path.empty() && lstat(path.c_str(), &st) == 0) {
      listener.dev_ = st.st_dev;
      listener.ino_ = st.st_ino;
    }
    listener.address_ = address;
    if (listen(fd.get(), options.backlog) < 0) {
      int error = errno;
      listener.Close();
      return Failed(address, error);
    }
  } else {
    if (bind(fd.get(), address.data(), address.size()) < 0 ||
        listen(fd.get(), options.backlog) < 0) {
      return Failed(address, errno);
    }
    listener.address_ = Address::LocalOf(fd.get());
  }
  listener.fd_ = fd.Release();
  return listener;
}

Listener::Listener(Listener&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      address_(other.address_),
      dev_(other.dev_),
      ino_(std::exchange(other.ino_, 0)) {}

Listener& Listener::operator=(Listener&& other) noexcept {
  if (this != &other) {
    Close();
    fd_ = std::exchange(other.fd_, -1);
    address_ = other.address_;
    dev_ = other.dev_;
    ino_ = std::exchange(other.ino_, 0);
  }
  return *this;
}

int Listener::Release() { return std::exchange(fd_, -1); }

void Listener::Close() {
  if (ino_ != 0) {
    std::string path(address_.path());
    struct stat st;
    if (lstat(path.c_str(), &st) == 0 && st.st_dev == dev_ &&
        st.st_ino == ino_) {
      unlink(path.c_str());
    }
    ino_ = 0;
  }
  if (fd_ >= 0) close(std::exchange(fd_, -1));
}

}  // namespace kevent::net
