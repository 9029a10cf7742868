// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_FILES_PATH_H_
#define SERVER_FILES_PATH_H_

#include <cstdint>
#include <span>
#include <string_view>

namespace kevent::files {

enum class PathStatus : uint8_t {
  kOk,
  // Not an absolute path, a malformed escape, a control byte (raw or encoded,
  // %00 among them), or dot segments that climb above the root.
  kBadRequest,
  // The buffer is too small for this path.
  kTooLong,
};

// A path below a root directory, clean: no leading or trailing '/', no empty,
// "." or ".." segment, no control byte. Other bytes are as the client sent
// them (not checked to be UTF-8). The empty path is the root itself.
struct RequestPath {
  std::string_view path;
  // The request named a directory: it ended in '/', "/." or "/..".
  bool directory = false;
};

// Turns the path of a request target in origin-form (RFC 9112 section 3.2.1,
// without '?' and the query) into a clean relative path.
//
// Percent-decodes once (RFC 3986 section 2.1), then merges slashes, then
// removes dot segments (section 5.2.4). That order is nginx's: an encoded
// slash or dot is the same as a plain one. Unlike RFC 3986, a ".." above the
// root is refused, not ignored.
//
// On kOk `out->path` points into `raw` where nothing had to change, otherwise
// into `buffer`; it is not NUL-terminated. A buffer of raw.size() bytes always
// suffices. Allocates nothing. On any other status `*out` is left alone.
PathStatus CleanPath(std::string_view raw, std::span<char> buffer,
                     RequestPath* out);

}  // namespace kevent::files

#endif  // SERVER_FILES_PATH_H_
