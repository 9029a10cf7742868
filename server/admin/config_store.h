// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_CONFIG_STORE_H_
#define SERVER_ADMIN_CONFIG_STORE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kevent::admin {

class ConfigStore {
 public:
  struct Version {
    uint64_t number = 0;  // from 1
    int64_t time_ns = 0;  // CLOCK_REALTIME, when it came into force
    std::string digest;   // the same for the same configuration
    std::string origin;   // "start", "admin", ...
    std::string text;
  };

  struct Check {
    std::string digest;
    bool changes = false;  // it differs from what is in force
    std::vector<std::string> needs_restart;
    // Fields that differ and cannot be changed while it runs.
  };

  virtual ~ConfigStore() = default;

  virtual std::vector<Version> Versions() const = 0;
  // The latest ones, the one in force first. Any thread.

  // The following are called from any thread, and call `done` in any thread,
  // maybe at once. Their errors may have details (errors.h); those without get
  // the ones that belong to their code.

  using CheckFn = absl::AnyInvocable<void(absl::StatusOr<Check>)>;
  virtual void Validate(std::string text, CheckFn done) = 0;
  // InvalidArgument names what is wrong with it.

  using ApplyFn = absl::AnyInvocable<void(absl::StatusOr<uint64_t> version)>;
  virtual void Apply(std::string text, uint64_t if_version, ApplyFn done) = 0;
  // Puts it into force whole, or not at all, and calls `done` when all workers
  // go by it. Aborted if `if_version` is not 0 and not the version in force;
  // FailedPrecondition if it needs a restart or something it names cannot be
  // had.

  virtual void Rollback(uint64_t version, ApplyFn done) = 0;
  // Puts an earlier one into force, as a new version; 0: the one before.
  // NotFound if it is not kept.
};
// The configuration of a service, as text in a form of its own.

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_CONFIG_STORE_H_
