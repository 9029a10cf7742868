// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_KEVENTD_DAEMON_H_
#define SERVER_KEVENTD_DAEMON_H_

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/keventd/admin.h"
#include "server/keventd/config_store.h"
#include "server/keventd/options.h"
#include "server/keventd/worker.h"
#include "server/log/server_log.h"
#include "server/log/tail.h"
#include "server/loop/loop.h"
#include "server/loop/reactor.h"
#include "server/loop/runtime.h"

namespace kevent::keventd {

class Daemon {
 public:
  struct Source {
    config::v1::ServerConfig config;  // of which the options came
    DaemonConfig::Overlay overlay;
    std::string path;  // of the file that SIGHUP reads anew; empty: none
  };

  static absl::StatusOr<std::unique_ptr<Daemon>> Create(
      const DaemonOptions& options, Source source);
  // Opens the root, makes the loops, binds every address: whatever can go wrong
  // does so here, and the status says what in one line. SIGTERM, SIGINT and
  // SIGHUP must be blocked (BlockSignals).

  static void BlockSignals();
  // To be called first in main, before there are threads.

  absl::Status StartAdmin(const AdminFlags& flags);
  // Once, before Run; see keventd::StartAdmin.

  absl::Status Run();
  // Serves until SIGTERM or SIGINT, then drains: no new connections, requests
  // under way finish, until the drain time-out. A second signal ends it at
  // once. SIGHUP reads the configuration anew, and opens the access log anew.

  std::string ReadyLine() const;
  // "listening on http://127.0.0.1:8080 (engine uring, 2 workers)"

  std::string EngineReason() const;

  log::ServerLog& log() { return log_; }

 private:
  using Listeners = std::vector<std::vector<net::Listener>>;  // of each worker

  struct Bound {
    net::Address configured;
    net::Address address;  // with the port it got
  };

  explicit Daemon(const DaemonOptions& options);

  absl::StatusOr<Listeners> Bind(std::vector<Bound>* bound);
  std::vector<std::string> Addresses() const;
  absl::Status Reconfigure(const DaemonOptions& next,
                           absl::AnyInvocable<void()> applied);
  void OnStop();
  void OnHangup();
  void WorkerDone();
  void Drain(int64_t timeout_ns, admin::Target::DoneFn done);
  void Undrain(admin::Target::StatusFn done);
  void Rebind(admin::Target::StatusFn done);

  log::Tail tail_;
  log::ServerLog log_;
  // The main loop's, once it runs.
  DaemonOptions options_;
  std::string config_path_;
  std::unique_ptr<loop::Loop> main_;
  std::unique_ptr<loop::Runtime> runtime_;
  std::vector<std::unique_ptr<Worker>> workers_;  // destroyed before the loops
  mutable std::mutex mutex_;
  std::vector<Bound> bound_;  // changed under mutex_, by the main loop alone
  size_t workers_left_ = 0;
  bool stopping_ = false;
  bool drained_ = false;  // by an administrator: it does not listen
  std::unique_ptr<DaemonConfig> config_;
  std::unique_ptr<AdminEndpoint> admin_;  // destroyed before what it shows
};
// keventd: workers that share nothing but the port, and the main thread, which
// has the signals.

}  // namespace kevent::keventd

#endif  // SERVER_KEVENTD_DAEMON_H_
