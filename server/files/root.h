// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_FILES_ROOT_H_
#define SERVER_FILES_ROOT_H_

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace kevent::files {

// What is served through a symbolic link.
enum class SymlinkPolicy : uint8_t {
  // Links are followed as long as every step stays beneath the root. Absolute
  // links count as escapes even if they point back into it.
  kBeneath,
  // No path with a link in it is served.
  kNever,
};

// What fstat(2) says of an opened file. Times are nanoseconds since the epoch.
struct FileInfo {
  uint64_t dev = 0;
  uint64_t ino = 0;
  uint64_t size = 0;  // bytes
  int64_t mtime_ns = 0;
  int64_t ctime_ns = 0;
  uint32_t mode = 0;  // type and permissions, as in struct stat

  bool operator==(const FileInfo&) const = default;
};

// A descriptor and what is known of the file behind it. Owns the descriptor.
class OpenedFile {
 public:
  OpenedFile() = default;
  // Takes over `fd`.
  explicit OpenedFile(int fd) : fd_(fd) {}
  OpenedFile(OpenedFile&& other) noexcept
      : info(other.info),
        through_symlink(other.through_symlink),
        fd_(other.Release()) {}
  OpenedFile& operator=(OpenedFile&& other) noexcept {
    if (this != &other) {
      info = other.info;
      through_symlink = other.through_symlink;
      Reset(other.Release());
    }
    return *this;
  }
  ~OpenedFile() { Reset(); }

  // -1 if there is none.
  int fd() const { return fd_; }
  // Gives the descriptor away.
  int Release() { return std::exchange(fd_, -1); }
  // Closes the descriptor and takes over `fd`.
  void Reset(int fd = -1);
  // Reads `info` anew from the descriptor; 0 or a negative errno.
  int Restat();

  bool is_directory() const;
  bool is_regular() const;

  FileInfo info;
  // The path led through a symbolic link.
  bool through_symlink = false;

 private:
  int fd_ = -1;
};

// A directory tree that files are served from. No path, whatever it holds and
// whoever changes the tree meanwhile, leads out of it: every open is an
// openat2(2) with RESOLVE_BENEATH.
//
// Immutable, so safe for any number of threads. Paths are relative to the
// root; the empty one is the root itself. Errors are negative errno, as
// openat2 gives them: -ENOENT, -ENOTDIR, -EACCES, -ENAMETOOLONG, -EMFILE ...,
// -EXDEV for an escape, -ELOOP for a link that the policy forbids (or a loop
// of links), -EAGAIN if the tree was renamed about at every attempt.
class Root {
 public:
  // Opens the directory `path`, itself possibly a symbolic link. The status
  // says what is wrong with the path, or that the kernel has no openat2.
  static absl::StatusOr<Root> Create(const std::string& path,
                                     SymlinkPolicy policy);

  // Opens a regular file or a directory for reading. Anything else is -ENXIO.
  // Never blocks on a FIFO or a device, but like any open(2) may wait for the
  // disk or a remote file system. A directory that may be searched but not
  // read is opened as by Stat(). `*file` changes only on success (0).
  int Open(const char* path, OpenedFile* file) const;

  // Finds what Open() would open but needs no permission on it and has no
  // effect on it: the descriptor is O_PATH. Finds every type of file.
  int Stat(const char* path, OpenedFile* file) const;

  // Like Stat() for a directory that no symbolic link leads to: -ELOOP or
  // -ENOTDIR otherwise, whatever the policy.
  int StatPlainDirectory(const char* path, OpenedFile* file) const;

  const std::string& path() const { return path_; }
  SymlinkPolicy policy() const { return policy_; }

 private:
  Root(std::string path, SymlinkPolicy policy, OpenedFile directory)
      : path_(std::move(path)),
        policy_(policy),
        directory_(std::move(directory)) {}

  int OpenByPolicy(const char* path, uint64_t flags, OpenedFile* file) const;

  std::string path_;
  SymlinkPolicy policy_;
  OpenedFile directory_;
};

}  // namespace kevent::files

#endif  // SERVER_FILES_ROOT_H_
