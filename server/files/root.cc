// SPDX-License-Identifier: Apache-2.0
#include "server/files/root.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace kevent::files {
namespace {

// A rename anywhere on the machine may fail a walk over "..", which only
// symbolic links bring about here; so many in a row are an attack.
constexpr int kAttempts = 8;

constexpr int64_t kNsPerS = 1'000'000'000;

int OpenBeneath(int root, const char* path, uint64_t flags, uint64_t resolve,
                OpenedFile* file) {
  open_how how = {};
  how.flags = flags | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | resolve;
  if (*path == '\0') path = ".";
  for (int attempt = 1;; ++attempt) {
    const long fd = syscall(SYS_openat2, root, path, &how, sizeof(how));
    if (fd >= 0) {
      OpenedFile opened(static_cast<int>(fd));
      if (const int error = opened.Restat(); error < 0) return error;
      *file = std::move(opened);
      return 0;
    }
    const int error = errno;
    if ((error != EAGAIN && error != EINTR) || attempt == kAttempts) {
      return -error;
    }
  }
}

}  // namespace

void OpenedFile::Reset(int fd) {
  if (fd_ >= 0) close(fd_);
  fd_ = fd;
}

int OpenedFile::Restat() {
  struct stat st;
  if (fstat(fd_, &st) != 0) return -errno;
  info.dev = st.st_dev;
  info.ino = st.st_ino;
  info.size = static_cast<uint64_t>(st.st_size);
  info.mtime_ns = st.st_mtim.tv_sec * kNsPerS + st.st_mtim.tv_nsec;
  info.ctime_ns = st.st_ctim.tv_sec * kNsPerS + st.st_ctim.tv_nsec;
  info.mode = st.st_mode;
  return 0;
}

bool OpenedFile::is_directory() const { return S_ISDIR(info.mode); }
bool OpenedFile::is_regular() const { return S_ISREG(info.mode); }

absl::StatusOr<Root> Root::Create(const std::string& path,
                                  SymlinkPolicy policy) {
  OpenedFile directory(
      open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOCTTY));
  if (directory.fd() < 0) {
    switch (errno) {
      case ENOENT:
        return absl::NotFoundError(
            absl::StrCat("root directory ", path, " does not exist"));
      case ENOTDIR:
        return absl::InvalidArgumentError(
            absl::StrCat("root ", path, " is not a directory"));
      case EACCES:
        return absl::PermissionDeniedError(absl::StrCat(
            "root directory ", path, " cannot be reached: permission denied"));
      default:
        return absl::UnavailableError(
            absl::StrCat("root directory ", path,
                         " cannot be opened: ", std::strerror(errno)));
    }
  }
  OpenedFile probe;
  const int error = OpenBeneath(directory.fd(), "", O_PATH, 0, &probe);
  if (error == -EACCES) {
    return absl::PermissionDeniedError(absl::StrCat(
        "root directory ", path, " cannot be searched: permission denied"));
  }
  if (error < 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "openat2(2), needed to serve ", path, " safely, fails: ",
        std::strerror(-error), " (Linux 5.6 has it; a sandbox may forbid it)"));
  }
  directory.info = probe.info;
  return Root(path, policy, std::move(directory));
}

int Root::OpenByPolicy(const char* path, uint64_t flags,
                       OpenedFile* file) const {
  // Without links first: that is the common case, and tells whether there was
  // one.
  int error =
      OpenBeneath(directory_.fd(), path, flags, RESOLVE_NO_SYMLINKS, file);
  if (error == 0) {
    file->through_symlink = false;
  } else if (error == -ELOOP && policy_ == SymlinkPolicy::kBeneath) {
    error = OpenBeneath(directory_.fd(), path, flags, 0, file);
    if (error == 0) file->through_symlink = true;
  }
  return error;
}

int Root::Open(const char* path, OpenedFile* file) const {
  OpenedFile opened;
  int error = OpenByPolicy(path, O_RDONLY | O_NOCTTY | O_NONBLOCK, &opened);
  if (error == -EACCES) {
    if (Stat(path, &opened) != 0 || !opened.is_directory()) return error;
    error = 0;
  }
  if (error < 0) return error;
  if (!opened.is_regular() && !opened.is_directory()) return -ENXIO;
  *file = std::move(opened);
  return 0;
}

int Root::Stat(const char* path, OpenedFile* file) const {
  return OpenByPolicy(path, O_PATH, file);
}

int Root::StatPlainDirectory(const char* path, OpenedFile* file) const {
  const int error =
      OpenBeneath(directory_.fd(), path, O_PATH | O_DIRECTORY | O_NOFOLLOW,
                  RESOLVE_NO_SYMLINKS, file);
  if (error == 0) file->through_symlink = false;
  return error;
}

}  // namespace kevent::files
