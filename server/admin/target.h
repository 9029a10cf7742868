// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_TARGET_H_
#define SERVER_ADMIN_TARGET_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "server/admin/config_store.h"
#include "server/files/file_cache.h"
#include "server/http/server.h"
#include "server/log/server_log.h"
#include "server/log/tail.h"
#include "server/loop/loop.h"
#include "server/stats/registry.h"

namespace kevent::admin {

struct Worker {
  loop::Loop* loop = nullptr;
  http::HttpServer* server = nullptr;  // null: it has none
  std::function<files::FileCache*()> cache;
  // Called in the loop's thread; empty, or returns null: it has none.
};
// One loop and what runs on it. All of it must live until the AdminServer is
// gone, and what belongs to the loop until the loop has been destroyed or will
// not run any more: a closure that was posted may come late.

struct Target {
  std::string name;
  std::string version;
  std::vector<std::string> addresses;  // that it serves
  std::function<std::vector<std::string>()> list_addresses;
  // The same where they change. Called from any thread.
  std::vector<Worker> workers;                // at least one
  const stats::Registry* registry = nullptr;  // what it counts beside
  ConfigStore* config = nullptr;  // null: it has no configuration to show

  using DoneFn = absl::AnyInvocable<void()>;
  std::function<void(int64_t timeout_ns, DoneFn done)> drain;
  // Takes the service out of service: closes its listeners and idle
  // connections, and what is left after `timeout_ns` nanoseconds. Calls `done`,
  // in whatever thread, when no connection is left. Called from any thread.
  // Empty: each worker's server is drained.
  using StatusFn = absl::AnyInvocable<void(absl::Status)>;
  std::function<void(StatusFn done)> undrain;
  // Takes it into service again. Empty: it cannot.
  int64_t drain_timeout_ns = 30'000'000'000;  // where a client names none

  log::ServerLog* log = nullptr;  // whose level may be set
  log::Tail* tail = nullptr;      // whose lines may be watched
};
// What an AdminServer shows and steers.

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_TARGET_H_
