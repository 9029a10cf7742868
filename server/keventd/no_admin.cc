// SPDX-License-Identifier: Apache-2.0
#include "absl/status/status.h"
#include "server/keventd/admin.h"

namespace kevent::keventd {

absl::StatusOr<std::unique_ptr<AdminEndpoint>> StartAdmin(
    const std::string& address, const std::string& http_address, admin::Target,
    std::string*) {
  if ((address.empty() || address == "off") && http_address == "off") {
    return nullptr;
  }
  return absl::UnimplementedError(
      "this build has no admin service; use --admin=off");
}

}  // namespace kevent::keventd
