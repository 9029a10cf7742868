// SPDX-License-Identifier: Apache-2.0
#include "absl/status/status.h"
#include "server/keventd/admin.h"

namespace kevent::keventd {

absl::StatusOr<std::unique_ptr<AdminEndpoint>> StartAdmin(
    const AdminFlags& flags, admin::Target, std::string*) {
  if ((flags.address.empty() || flags.address == "off") &&
      flags.http_address == "off") {
    return nullptr;
  }
  return absl::UnimplementedError(
      "this build has no admin service; use --admin=off");
}

}  // namespace kevent::keventd
