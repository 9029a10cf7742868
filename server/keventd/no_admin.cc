// SPDX-License-Identifier: Apache-2.0
#include "absl/status/status.h"
#include "server/keventd/admin.h"

namespace kevent::keventd {

absl::StatusOr<std::unique_ptr<AdminEndpoint>> StartAdmin(
    const std::string& address, admin::Target) {
  if (address.empty() || address == "off") return nullptr;
  return absl::UnimplementedError(
      "this build has no admin service; use --admin=off");
}

}  // namespace kevent::keventd
