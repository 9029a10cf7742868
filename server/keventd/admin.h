// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_KEVENTD_ADMIN_H_
#define SERVER_KEVENTD_ADMIN_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/admin/target.h"

namespace kevent::keventd {

class AdminEndpoint {
 public:
  virtual ~AdminEndpoint() = default;

  virtual void SetServing(bool serving) = 0;
  // For health checks. Any thread.
};
// The admin service, or what stands for it in a build without gRPC.

absl::StatusOr<std::unique_ptr<AdminEndpoint>> StartAdmin(
    const std::string& address, admin::Target target);
// `address`: "off", "unix:PATH", or empty for the default socket, for which it
// makes the directory. Null if it is off. The error is one line that names the
// fault and the mend; Unavailable: the default directory cannot be had here,
// which need not keep anybody from serving.

}  // namespace kevent::keventd

#endif  // SERVER_KEVENTD_ADMIN_H_
