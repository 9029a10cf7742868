// SPDX-License-Identifier: Apache-2.0
#include "server/keventd/admin.h"

#include <utility>

#include "absl/status/status.h"
#include "server/admin/admin_server.h"
#include "server/admin/socket.h"

namespace kevent::keventd {
namespace {

constexpr char kMend[] =
    "; choose another with --admin=unix:PATH, or --admin=off";

class GrpcEndpoint final : public AdminEndpoint {
 public:
  explicit GrpcEndpoint(std::unique_ptr<admin::AdminServer> server)
      : server_(std::move(server)) {}
  void SetServing(bool serving) override { server_->SetServing(serving); }

 private:
  const std::unique_ptr<admin::AdminServer> server_;
};

absl::Status WithMend(const absl::Status& status) {
  return absl::Status(status.code(), std::string(status.message()) + kMend);
}

}  // namespace

absl::StatusOr<std::unique_ptr<AdminEndpoint>> StartAdmin(
    const std::string& address, admin::Target target) {
  if (address == "off") return nullptr;
  admin::AdminServer::Options options;
  options.address = address;
  if (address.empty()) {
    options.address = admin::DefaultSocket();
    absl::Status made = admin::MakePrivateDirectory(admin::DefaultDirectory());
    if (!made.ok()) {
      return absl::UnavailableError(
          "no admin service: " + std::string(made.message()) + kMend);
    }
  }
  auto server = admin::AdminServer::Start(std::move(target), options);
  if (!server.ok()) return WithMend(server.status());
  return std::make_unique<GrpcEndpoint>(*std::move(server));
}

}  // namespace kevent::keventd
