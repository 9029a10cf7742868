// SPDX-License-Identifier: Apache-2.0
#include "server/keventd/admin.h"

#include <fstream>
#include <iterator>
#include <tuple>
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
  std::string address() const override { return server_->address(); }
  std::string http_address() const override { return server_->http_address(); }

 private:
  const std::unique_ptr<admin::AdminServer> server_;
};

absl::StatusOr<std::string> ReadFile(const std::string& flag,
                                     const std::string& path) {
  if (path.empty()) {
    return absl::InvalidArgumentError(
        "the admin service's TLS needs --admin_tls_cert, --admin_tls_key and "
        "--admin_tls_ca; " +
        flag + " is missing");
  }
  std::ifstream file(path, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(file), {});
  if (!file) {
    return absl::InvalidArgumentError(flag + "=" + path + ": cannot be read");
  }
  return text;
}

absl::StatusOr<admin::AdminServer::Tls> ReadTls(const AdminFlags& flags) {
  admin::AdminServer::Tls tls;
  for (auto [flag, path, to] :
       {std::tuple{"--admin_tls_cert", &flags.tls_certificate,
                   &tls.certificate},
        {"--admin_tls_key", &flags.tls_key, &tls.key},
        {"--admin_tls_ca", &flags.tls_ca, &tls.client_ca}}) {
    auto text = ReadFile(flag, *path);
    if (!text.ok()) return text.status();
    *to = *std::move(text);
  }
  tls.operators = flags.operators;
  return tls;
}

absl::Status WithMend(const absl::Status& status) {
  return absl::Status(status.code(), std::string(status.message()) + kMend);
}

}  // namespace

absl::StatusOr<std::unique_ptr<AdminEndpoint>> StartAdmin(
    const AdminFlags& flags, admin::Target target, std::string* warning) {
  admin::AdminServer::Options options;
  if (flags.address != "off") options.address = flags.address;
  if (flags.http_address != "off") options.http_address = flags.http_address;
  if (!flags.tls_certificate.empty() || !flags.tls_key.empty() ||
      !flags.tls_ca.empty()) {
    auto tls = ReadTls(flags);
    if (!tls.ok()) return tls.status();
    options.tls = *std::move(tls);
  }
  absl::Status made;
  if (flags.address.empty()) {
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
