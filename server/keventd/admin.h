// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_KEVENTD_ADMIN_H_
#define SERVER_KEVENTD_ADMIN_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/admin/target.h"

namespace kevent::keventd {

class AdminEndpoint {
 public:
  virtual ~AdminEndpoint() = default;

  virtual void SetServing(bool serving) = 0;
  // For health checks. Any thread.

  virtual std::string address() const = 0;
  virtual std::string http_address() const = 0;
  // With the port it got; empty if there is none.
};
// The admin service, or what stands for it in a build without gRPC.

struct AdminFlags {
  std::string address;
  // "unix:PATH", "ADDR:PORT" or "off"; empty: the default socket, for which the
  // directory is made.
  std::string http_address = "off";  // "ADDR:PORT", "unix:PATH" or "off"
  // For ADDR:PORT, names of files in PEM.
  std::string tls_certificate;
  std::string tls_key;
  std::string tls_ca;
  std::vector<std::string> operators;  // common names of clients
};

absl::StatusOr<std::unique_ptr<AdminEndpoint>> StartAdmin(
    const AdminFlags& flags, admin::Target target, std::string* warning);
// Null if both are off. The error is one line that names the fault and the
// mend. Where the default directory cannot be had, which need not keep anybody
// from serving, it goes without the socket and says so in `warning`.

}  // namespace kevent::keventd

#endif  // SERVER_KEVENTD_ADMIN_H_
