// SPDX-License-Identifier: Apache-2.0
#include "server/keventd/config_store.h"

#include <time.h>

#include <utility>

#include "server/admin/errors.h"

namespace kevent::keventd {

DaemonConfig::DaemonConfig(loop::Loop* main, config::v1::ServerConfig config,
                           DaemonOptions options, Overlay overlay,
                           Reconfigure apply)
    : main_(main),
      overlay_(std::move(overlay)),
      apply_(std::move(apply)),
      options_(std::move(options)) {
  Remember(config, "start");
}

std::vector<DaemonConfig::Version> DaemonConfig::Versions() const {
  std::lock_guard lock(mutex_);
  return {versions_.begin(), versions_.end()};
}

absl::StatusOr<DaemonOptions> DaemonConfig::Check(
    const std::string& text, const std::string& name,
    config::v1::ServerConfig* config) const {
  auto parsed = ParseConfig(text, name);
  if (!parsed.ok()) return parsed.status();
  *config = *std::move(parsed);
  overlay_(config);
  return keventd::Validate(*config);
}

void DaemonConfig::Validate(std::string text, CheckFn done) {
  main_->Post([this, text = std::move(text), done = std::move(done)]() mutable {
    config::v1::ServerConfig config;
    auto next = this->Check(text, "configuration", &config);
    if (!next.ok()) return done(next.status());
    ConfigStore::Check check;
    check.digest = next->digest;
    check.changes = next->digest != options_.digest;
    check.needs_restart = NeedsRestart(options_, *next);
    done(std::move(check));
  });
}

void DaemonConfig::Apply(std::string text, uint64_t if_version, ApplyFn done) {
  main_->Post([this, text = std::move(text), if_version,
               done = std::move(done)]() mutable {
    const uint64_t version = Versions().front().number;
    if (if_version != 0 && if_version != version) {
      return done(admin::VersionMismatch(version, if_version));
    }
    ApplyText(text, "configuration", "admin", std::move(done));
  });
}

void DaemonConfig::Rollback(uint64_t version, ApplyFn done) {
  main_->Post([this, version, done = std::move(done)]() mutable {
    const std::vector<Version> versions = Versions();
    for (size_t i = 1; i < versions.size(); ++i) {
      if (version != 0 && versions[i].number != version) continue;
      return ApplyText(versions[i].text, "configuration",
                       "rollback to " + std::to_string(versions[i].number),
                       std::move(done));
    }
    const std::string name = std::to_string(version);
    done(admin::NotFound(
        admin::v1::VERSION_NOT_FOUND, "version", version == 0 ? "" : name,
        version == 0
            ? "there is no version before"
            : "there is no version " + name + " to go back to; the last " +
                  std::to_string(kKept) + " are kept"));
  });
}

void DaemonConfig::Reload(const std::string& path, ApplyFn done) {
  auto config = LoadConfig(path);
  if (!config.ok()) return done(config.status());
  ApplyText(PrintConfig(*config), "configuration " + path, "SIGHUP",
            std::move(done));
}

void DaemonConfig::ApplyText(const std::string& text, const std::string& name,
                             const std::string& origin, ApplyFn done) {
  config::v1::ServerConfig config;
  auto next = Check(text, name, &config);
  if (!next.ok()) return done(next.status());
  std::string fields;
  std::vector<admin::Unmet> unmet;
  for (const std::string& field : NeedsRestart(options_, *next)) {
    fields += (fields.empty() ? "" : ", ") + field;
    unmet.push_back({field, "cannot be changed without a restart"});
  }
  if (!unmet.empty()) {
    return done(admin::FailedPrecondition(
        admin::v1::RESTART_NEEDED,
        fields + ": cannot be changed without a restart", unmet));
  }
  const uint64_t version = Versions().front().number + 1;
  auto shared = std::make_shared<ApplyFn>(std::move(done));
  absl::Status status =
      apply_(*next, [shared, version] { (*shared)(version); });
  if (!status.ok()) return (*shared)(status);
  options_ = *std::move(next);
  Remember(config, origin);
}

void DaemonConfig::Remember(const config::v1::ServerConfig& config,
                            const std::string& origin) {
  Version version;
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  version.time_ns = now.tv_sec * int64_t{1'000'000'000} + now.tv_nsec;
  version.digest = options_.digest;
  version.origin = origin;
  version.text = PrintConfig(config);
  std::lock_guard lock(mutex_);
  version.number = versions_.empty() ? 1 : versions_.front().number + 1;
  versions_.push_front(std::move(version));
  if (versions_.size() > kKept) versions_.pop_back();
}

}  // namespace kevent::keventd
