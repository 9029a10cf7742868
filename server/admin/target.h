// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_TARGET_H_
#define SERVER_ADMIN_TARGET_H_

#include <functional>
#include <string>
#include <vector>

#include "server/files/file_cache.h"
#include "server/http/server.h"
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
  std::vector<std::string> addresses;         // that it serves
  std::vector<Worker> workers;                // at least one
  const stats::Registry* registry = nullptr;  // what it counts beside
  std::string config_digest;
};
// What an AdminServer shows and steers.

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_TARGET_H_
