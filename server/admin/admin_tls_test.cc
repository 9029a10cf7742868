// SPDX-License-Identifier: Apache-2.0
//
// The admin service over TCP: mutual TLS or nothing.

#include <grpcpp/support/error_details.h>

#include <memory>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/google/rpc/error_details.pb.h"
#include "proto/google/rpc/status.pb.h"
#include "server/admin/admin_fixture.h"
#include "server/admin/test_certificates.h"

namespace kevent::admin {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;

class AdminTlsTest : public AdminTest {
 protected:
  AdminServer::Options Options() {
    AdminServer::Options options;
    options.address = "127.0.0.1:0";
    const PemPair own = authority_.Issue("server");
    options.tls = AdminServer::Tls{
        own.certificate, own.key, authority_.certificate(), {"alice", "carol"}};
    return options;
  }

  std::unique_ptr<v1::Admin::Stub> Connect(const PemPair& own) {
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = authority_.certificate();
    options.pem_cert_chain = own.certificate;
    options.pem_private_key = own.key;
    return Connect(grpc::SslCredentials(options));
  }
  std::unique_ptr<v1::Admin::Stub> Connect(
      const std::shared_ptr<grpc::ChannelCredentials>& credentials) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return v1::Admin::NewStub(
        grpc::CreateCustomChannel(admin_->address(), credentials, arguments));
  }

  static StatusCode GetInfo(v1::Admin::Stub* stub, bool wait = true) {
    v1::GetInfoResponse info;
    auto context = Context();
    context->set_wait_for_ready(wait);
    return stub->GetInfo(context.get(), {}, &info).error_code();
  }

  TestAuthority authority_;
};

TEST_F(AdminTlsTest, OperatorsMayChangeOthersMayLook) {
  Start(service_.target(), Options());
  EXPECT_EQ(admin_->address().find("127.0.0.1:"), 0u);
  auto reader = Connect(authority_.Issue("bob"));
  EXPECT_EQ(GetInfo(reader.get()), StatusCode::OK);
  v1::ListConnectionsResponse list;
  auto context = Context();
  EXPECT_TRUE(reader->ListConnections(context.get(), {}, &list).ok());

  const auto expect_refused = [](const grpc::Status& status) {
    EXPECT_EQ(status.error_code(), StatusCode::PERMISSION_DENIED);
    EXPECT_THAT(status.error_message(), HasSubstr("may look"));
    google::rpc::Status details;
    ASSERT_TRUE(grpc::ExtractErrorDetails(status, &details).ok());
    google::rpc::ErrorInfo info;
    ASSERT_EQ(details.details_size(), 1);
    ASSERT_TRUE(details.details(0).UnpackTo(&info));
    EXPECT_EQ(info.reason(), "ROLE_REQUIRED");
    EXPECT_EQ(info.metadata().at("role"), "operator");
    EXPECT_EQ(info.metadata().at("client"), "bob");
  };
  auto c1 = Context();
  v1::CloseConnectionResponse r1;
  expect_refused(reader->CloseConnection(c1.get(), {}, &r1));
  auto c2 = Context();
  v1::DrainResponse r2;
  expect_refused(reader->Drain(c2.get(), {}, &r2));
  auto c3 = Context();
  v1::UndrainResponse r3;
  expect_refused(reader->Undrain(c3.get(), {}, &r3));
  auto c4 = Context();
  v1::SetLogLevelResponse r4;
  expect_refused(reader->SetLogLevel(c4.get(), {}, &r4));
  auto c5 = Context();
  v1::PurgeCacheResponse r5;
  expect_refused(reader->PurgeCache(c5.get(), {}, &r5));
  auto c6 = Context();
  v1::ApplyConfigResponse r6;
  expect_refused(reader->ApplyConfig(c6.get(), {}, &r6));
  auto c7 = Context();
  v1::RollbackConfigResponse r7;
  expect_refused(reader->RollbackConfig(c7.get(), {}, &r7));

  auto op = Connect(authority_.Issue("carol"));
  auto c8 = Context();
  EXPECT_TRUE(op->Drain(c8.get(), {}, &r2).ok());
  v1::GetInfoResponse info;
  auto c9 = Context();
  ASSERT_TRUE(op->GetInfo(c9.get(), {}, &info).ok());
  EXPECT_EQ(info.state(), v1::GetInfoResponse::DRAINING);
}

TEST_F(AdminTlsTest, NobodyElseGetsIn) {
  Start(service_.target(), Options());
  grpc::SslCredentialsOptions without;
  without.pem_root_certs = authority_.certificate();
  EXPECT_EQ(GetInfo(Connect(grpc::SslCredentials(without)).get(), false),
            StatusCode::UNAVAILABLE)
      << "no certificate";
  TestAuthority other;
  EXPECT_EQ(GetInfo(Connect(other.Issue("alice")).get(), false),
            StatusCode::UNAVAILABLE)
      << "another authority's";
  EXPECT_EQ(GetInfo(Connect(grpc::InsecureChannelCredentials()).get(), false),
            StatusCode::UNAVAILABLE)
      << "no TLS";
  EXPECT_EQ(GetInfo(Connect(authority_.Issue("alice")).get()), StatusCode::OK);
}

TEST_F(AdminTlsTest, RefusesCertificatesThatWillNotDo) {
  const auto expect_refused = [&](const AdminServer::Options& options,
                                  const char* word) {
    auto server = AdminServer::Start(service_.target(), options);
    EXPECT_EQ(server.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(server.status().message()), HasSubstr(word));
  };
  AdminServer::Options options = Options();
  options.tls->certificate = "nonsense";
  expect_refused(options, "certificate is none");
  options = Options();
  options.tls->key = "";
  expect_refused(options, "key is none");
  options = Options();
  options.tls->key = authority_.Issue("other").key;
  expect_refused(options, "is not that of its certificate");
  options = Options();
  options.tls->client_ca = options.tls->key;
  expect_refused(options, "authority");
  options = Options();
  options.address = address();
  expect_refused(options, "takes no TLS");
  options = Options();
  options.tls.reset();
  expect_refused(options, "needs mutual TLS");
}

}  // namespace
}  // namespace kevent::admin
