// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_ADMIN_FIXTURE_H_
#define SERVER_ADMIN_ADMIN_FIXTURE_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "gtest/gtest.h"
#include "proto/kevent/admin/v1/admin.grpc.pb.h"
#include "server/admin/admin_server.h"
#include "server/admin/test_service.h"

namespace kevent::admin {

class AdminTest : public testing::Test {
 protected:
  explicit AdminTest(size_t workers = 2);
  ~AdminTest() override;

  void Start() { Start(service_.target(), AdminServer::Options()); }
  void Start(Target target, AdminServer::Options options);
  // On unix:PATH.

  std::string path() const { return dir_ + "/admin.sock"; }
  std::string address() const { return "unix:" + path(); }

  std::shared_ptr<grpc::Channel> Channel() const;
  // A connection of its own.
  std::unique_ptr<v1::Admin::Stub> Stub() const {
    return v1::Admin::NewStub(Channel());
  }

  static std::unique_ptr<grpc::ClientContext> Context();
  // Ends after 30 s.

  static grpc::Status CallRaw(const std::shared_ptr<grpc::Channel>& channel,
                              const std::string& method,
                              std::string_view request, std::string* response);
  // With the bytes of the messages.

  int Health() const;
  // What grpc.health.v1.Health/Check answers: 1 SERVING, 2 NOT_SERVING; -1 on
  // failure.

  TestService service_;
  const std::string dir_;
  std::unique_ptr<AdminServer> admin_;
};

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_ADMIN_FIXTURE_H_
