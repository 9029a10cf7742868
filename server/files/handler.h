// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_FILES_HANDLER_H_
#define SERVER_FILES_HANDLER_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/files/file_cache.h"
#include "server/files/loop_watch_source.h"
#include "server/files/mime.h"
#include "server/files/page_arena.h"
#include "server/files/path.h"
#include "server/files/root.h"
#include "server/http/server.h"

namespace kevent::files {

class StaticHandler final : public http::Handler {
 public:
  struct Options {
    FileCache::Options cache;
    std::vector<std::string> index = {"index.html"};
    // Tried in this order for a path that names a directory.
    bool listing = false;
    // Where there is none, lists the directory (MakeListing) instead of 403.
    std::string server_name = "kevent";  // Server field; empty: none
  };

  StaticHandler(loop::Loop* loop, const Root* root, const MimeTypes* mime,
                const Options& options);
  // All must outlive it, and it must outlive the HttpServer that uses it.
  ~StaticHandler() override;

  void Handle(http::Exchange* exchange) override;

  FileCache& cache() { return cache_; }

  uint64_t wholes_made() const { return wholes_made_; }
  // How often head and body were put together to be sent by one reference.

 private:
  void MakeHead(Entry& entry, std::string* head);
  void ServeDirectory(http::Exchange* x, const RequestPath& path);
  void ServeFile(http::Exchange* x, EntryRef entry);
  void ServeWhole(http::Exchange* x, EntryRef entry);
  void RespondBody(http::Exchange* x, int status, std::string_view head,
                   std::string_view body, EntryRef entry);
  void ServeRange(http::Exchange* x, EntryRef entry, uint64_t first,
                  uint64_t length);
  void NotModified(http::Exchange* x, const Entry& entry);
  bool RefreshDate(http::Exchange* x, Entry* entry);
  std::string_view Prepare(http::Exchange* x, Entry* entry);
  bool MakeWhole(http::Exchange* x, Entry* entry, uint32_t second);
  static bool MakeText(http::Exchange* x, Entry* entry, std::string_view body,
                       TextArena* arena);
  static void RespondErrno(http::Exchange* x, int error);

  loop::Loop* const loop_;
  const Root* const root_;
  const MimeTypes* const mime_;
  const Options options_;
  LoopWatchSource source_;
  FileCache cache_;
  // Of bodies in pages. Apart, for the first take much more room: where that is
  // held by slow clients, the others are still to be had.
  TextArena wholes_;  // heads with their bodies
  TextArena heads_;
  uint64_t wholes_made_ = 0;
  uint32_t wholes_slab_ = 0;  // second of the last new slab of these
};
// Serves a directory tree: GET and HEAD, conditional requests, single ranges
// (RFC 9110 sections 13 and 14), index files. Several ranges in one request are
// answered with the whole file, as section 14.2 allows. One thread only.

}  // namespace kevent::files

#endif  // SERVER_FILES_HANDLER_H_
