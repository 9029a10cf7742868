// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_FILES_LISTING_H_
#define SERVER_FILES_LISTING_H_

#include <cstddef>
#include <string>

#include "server/files/root.h"

namespace kevent::files {

inline constexpr size_t kMaxListed = 10'000;
// Entries of one directory; the page says when there are more.

int MakeListing(const Root& root, const std::string& path, std::string* page);
// Writes an HTML page that links to every entry of the directory `path` (clean,
// below `root`; empty is the root itself), directories first, each with its
// size and time. Names that begin with a dot are left out. Whatever a name
// holds, it is text in the page and one segment in its link. 0 or negative
// errno.

}  // namespace kevent::files

#endif  // SERVER_FILES_LISTING_H_
