// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_KEVENTD_WORKER_H_
#define SERVER_KEVENTD_WORKER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/files/handler.h"
#include "server/http/server.h"
#include "server/keventd/options.h"
#include "server/log/access_log.h"
#include "server/log/tail.h"
#include "server/loop/loop.h"
#include "server/net/listener.h"

namespace kevent::keventd {

struct Site {
  files::Root root;
  files::MimeTypes mime;
};
// What is served; all workers share it.

class Worker {
 public:
  struct Change {
    DaemonOptions options;
    std::shared_ptr<const Site> site;  // null: files and cache stay
    bool new_log = false;              // `log` takes the old one's place
    std::unique_ptr<log::AccessLog> log;
    std::vector<net::Listener> listen;  // in addition
    std::vector<net::Address> stop;     // addresses to listen at no more
  };
  // From one configuration to the next. All that can fail has been done.

  static absl::StatusOr<std::unique_ptr<Worker>> Create(
      loop::Loop* loop, uint32_t number, std::shared_ptr<const Site> site,
      const DaemonOptions& options, log::Tail* tail);
  // What it logs while SetTailing is on goes to `tail`, too.

  ~Worker();

  void Listen(net::Listener listener);

  // The following in the loop's thread.

  void Drain(int64_t timeout_ns, absl::AnyInvocable<void()> done);
  // Calls `done` when no connection is left, which is enforced after the
  // time-out.
  void AwaitClosed(absl::AnyInvocable<void()> done);
  // Calls `done` when the listeners are closed, which the kernel may take a
  // moment for after Drain.
  void Undrain(std::vector<net::Listener> listeners);
  void Apply(Change change);
  absl::Status ReopenLog();
  // On failure it keeps the old one.
  void SetTailing(bool on);

  loop::Loop* loop() const { return loop_; }
  http::HttpServer& server() { return *server_; }
  files::FileCache& cache() { return handler_->cache(); }

 private:
  Worker(loop::Loop* loop, uint32_t number, const DaemonOptions& options,
         log::Tail* tail);

  static void OnFlush(loop::Loop* loop, loop::Timer* timer);
  static void OnDrainTimeout(loop::Loop* loop, loop::Timer* timer);
  void MakeHandler(const DaemonOptions& options);
  void SetLog();
  void Log(const http::LogRecord& record);

  struct OwnTimer : loop::Timer {
    OwnTimer(loop::TimerFn fn, Worker* w) : loop::Timer(fn), worker(w) {}
    Worker* const worker;
  };

  loop::Loop* const loop_;
  std::string log_path_;
  std::shared_ptr<const Site> site_;
  const uint32_t number_;
  log::Tail* const tail_;
  std::unique_ptr<log::AccessLog> log_;
  bool tailing_ = false;
  std::vector<log::Line> tail_lines_;  // of this turn
  OwnTimer flush_;
  OwnTimer drain_;
  std::unique_ptr<files::StaticHandler> handler_;
  std::unique_ptr<http::HttpServer> server_;

  struct Listening {
    net::Listener listener;  // of which the server has the descriptor
    int fd;
  };
  std::vector<Listening> listeners_;
};
// One loop's share of the daemon: its listeners, server, file cache and log.

}  // namespace kevent::keventd

#endif  // SERVER_KEVENTD_WORKER_H_
