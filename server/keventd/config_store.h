// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_KEVENTD_CONFIG_STORE_H_
#define SERVER_KEVENTD_CONFIG_STORE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "proto/kevent/config/v1/config.pb.h"
#include "server/admin/config_store.h"
#include "server/keventd/options.h"
#include "server/loop/loop.h"

namespace kevent::keventd {

class DaemonConfig final : public admin::ConfigStore {
 public:
  static constexpr size_t kKept = 16;

  using Overlay = std::function<void(config::v1::ServerConfig*)>;
  // Puts the flags of the command line, which win, over a configuration.
  using Reconfigure = std::function<absl::Status(
      const DaemonOptions& next, absl::AnyInvocable<void()> applied)>;
  // In the main loop: does all that can fail at once, then has every worker go
  // by it and calls `applied` there.

  DaemonConfig(loop::Loop* main, config::v1::ServerConfig config,
               DaemonOptions options, Overlay overlay, Reconfigure apply);
  // `config` has the flags in it already; `options` is what came of it.

  std::vector<Version> Versions() const override;
  void Validate(std::string text, CheckFn done) override;
  void Apply(std::string text, uint64_t if_version, ApplyFn done) override;
  void Rollback(uint64_t version, ApplyFn done) override;

  void Reload(const std::string& path, ApplyFn done);
  // In the main loop: applies a file.

  const DaemonOptions& options() const { return options_; }
  // In force. The main loop's thread.

 private:
  absl::StatusOr<DaemonOptions> Check(const std::string& text,
                                      const std::string& name,
                                      config::v1::ServerConfig* config) const;
  void ApplyText(const std::string& text, const std::string& name,
                 const std::string& origin, ApplyFn done);
  void Remember(const config::v1::ServerConfig& config,
                const std::string& origin);

  loop::Loop* const main_;
  const Overlay overlay_;
  const Reconfigure apply_;
  DaemonOptions options_;

  mutable std::mutex mutex_;
  std::deque<Version> versions_;  // of mutex_; the one in force first
};
// keventd's configuration, kevent.config.v1.ServerConfig in text format, and
// those before it. What is asked of it from other threads is done in the main
// loop, one after the other.

}  // namespace kevent::keventd

#endif  // SERVER_KEVENTD_CONFIG_STORE_H_
