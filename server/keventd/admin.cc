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
  std::string http_address() const override { return server_->http_address(); }

 private:
  const std::unique_ptr<admin::AdminServer> server_;
};

absl::Status WithMend(const absl::Status& status) {
  return absl::Status(status.code(), std::string(status.message()) + kMend);
}

}  // namespace

absl::StatusOr<std::unique_ptr<AdminEndpoint>> StartAdmin(
    const std::string& address, const std::string& http_address,
    admin::Target target, std::string* warning) {
  admin::AdminServer::Options options;
  if (address != "off") options.address = address;
  if (http_address != "off") options.http_address = http_address;
  absl::Status made;
  if (address.empty()) {
    made = admin::MakePrivateDirectory(admin::DefaultDirectory());
    if (made.ok()) options.address = admin::DefaultSocket();
  }
  std::unique_ptr<AdminEndpoint> endpoint;
  if (!options.address.empty() || !options.http_address.empty()) {
    auto server = admin::AdminServer::Start(std::move(target), options);
    if (!server.ok()) return WithMend(server.status());
    endpoint = std::make_unique<GrpcEndpoint>(*std::move(server));
  }
  if (!made.ok()) {
    *warning = "no admin service: " + std::string(made.message()) + kMend;
  }
  return endpoint;
}

}  // namespace kevent::keventd
