// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_KEVENTD_OPTIONS_H_
#define SERVER_KEVENTD_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kevent/queue/queue.h"
#include "proto/kevent/config/v1/config.pb.h"
#include "server/files/file_cache.h"
#include "server/files/root.h"
#include "server/http/server.h"
#include "server/net/address.h"

namespace kevent::keventd {

inline constexpr char kVersion[] = "0.1";

struct DaemonOptions {
  std::string root;
  std::vector<net::Address> listen;
  EngineKind engine = EngineKind::kAuto;
  size_t workers = 0;      // 0: one for each core
  std::string access_log;  // empty: off
  std::string mime_types;
  std::vector<std::string> index;
  bool listing = false;
  files::SymlinkPolicy symlinks = files::SymlinkPolicy::kBeneath;
  files::FileCache::Options cache;
  http::HttpServer::Options http;
  int defer_accept_s = 0;
  int64_t drain_timeout_ns = 0;
  std::string digest;  // of the configuration it was made from: SHA-256, hex
};
// What the daemon runs with, checked.

absl::StatusOr<config::v1::ServerConfig> ParseConfig(const std::string& text,
                                                     const std::string& name);
// From protobuf text format. InvalidArgument names `name`, line and column.

absl::StatusOr<config::v1::ServerConfig> LoadConfig(const std::string& path);
// Reads a file in that format.

std::string PrintConfig(const config::v1::ServerConfig& config);
// What ParseConfig takes.

std::vector<std::string> NeedsRestart(const DaemonOptions& before,
                                      const DaemonOptions& next);
// Names of the fields that differ and hold until the daemon ends.

absl::StatusOr<DaemonOptions> Validate(const config::v1::ServerConfig& config);
// Fills in defaults and checks every field; InvalidArgument names the field and
// what it may be. Opens and binds nothing.

absl::StatusOr<EngineKind> ParseEngine(const std::string& name);

}  // namespace kevent::keventd

#endif  // SERVER_KEVENTD_OPTIONS_H_
