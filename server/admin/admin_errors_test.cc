// SPDX-License-Identifier: Apache-2.0
//
// What a client gets when a call is refused: for each kind of refusal the code,
// and the details in the trailer.

#include <grpcpp/support/error_details.h>

#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "proto/google/rpc/error_details.pb.h"
#include "proto/google/rpc/status.pb.h"
#include "server/admin/admin_fixture.h"
#include "server/admin/config_store.h"
#include "server/admin/errors.h"

namespace kevent::admin {
namespace {

using google::rpc::BadRequest;
using google::rpc::ErrorInfo;
using google::rpc::PreconditionFailure;
using google::rpc::ResourceInfo;
using google::rpc::RetryInfo;
using grpc::StatusCode;

// Refuses everything as it is told.
class RefusingStore final : public ConfigStore {
 public:
  explicit RefusingStore(absl::Status with) : with_(std::move(with)) {}
  std::vector<Version> Versions() const override {
    Version version;
    version.number = 5;
    return {version};
  }
  void Validate(std::string, CheckFn done) override { done(with_); }
  void Apply(std::string, uint64_t, ApplyFn done) override { done(with_); }
  void Rollback(uint64_t, ApplyFn done) override { done(with_); }

 private:
  const absl::Status with_;
};

class AdminErrorsTest : public AdminTest {
 protected:
  // The details, which must say the same as the status itself.
  static google::rpc::Status Details(const grpc::Status& status) {
    google::rpc::Status details;
    EXPECT_TRUE(grpc::ExtractErrorDetails(status, &details).ok());
    EXPECT_EQ(details.code(), status.error_code());
    EXPECT_EQ(details.message(), status.error_message());
    EXPECT_FALSE(details.message().empty());
    return details;
  }

  template <typename Detail>
  static Detail Only(const grpc::Status& status) {
    Detail found;
    int count = 0;
    const google::rpc::Status details = Details(status);
    for (const google::protobuf::Any& any : details.details()) {
      count += any.UnpackTo(&found);
    }
    EXPECT_EQ(count, 1) << Detail::descriptor()->name();
    return found;
  }

  static void ExpectReason(const grpc::Status& status, StatusCode code,
                           v1::ErrorReason reason) {
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    const auto info = Only<ErrorInfo>(status);
    EXPECT_EQ(info.reason(), v1::ErrorReason_Name(reason));
    EXPECT_EQ(info.domain(), kErrorDomain);
  }

  static void ExpectField(const grpc::Status& status, const char* field) {
    ExpectReason(status, StatusCode::INVALID_ARGUMENT, v1::INVALID_FIELD);
    const auto bad = Only<BadRequest>(status);
    if (bad.field_violations_size() != 1) FAIL() << bad.DebugString();
    EXPECT_EQ(bad.field_violations(0).field(), field);
    EXPECT_FALSE(bad.field_violations(0).description().empty());
  }

  static std::string Meta(const grpc::Status& status, const char* key) {
    const auto info = Only<ErrorInfo>(status);
    const auto found = info.metadata().find(key);
    return found == info.metadata().end() ? "" : found->second;
  }

  template <typename Request, typename Response>
  grpc::Status Call(grpc::Status (v1::Admin::Stub::*method)(
                        grpc::ClientContext*, const Request&, Response*),
                    const Request& request) {
    Response response;
    auto context = Context();
    return (Stub().get()->*method)(context.get(), request, &response);
  }
};

TEST_F(AdminErrorsTest, NamesEachFieldThatWillNotDo) {
  Start();
  v1::ListConnectionsRequest list;
  list.set_page_size(1001);
  ExpectField(Call(&v1::Admin::Stub::ListConnections, list), "page_size");
  list.Clear();
  list.set_peer("nobody");
  ExpectField(Call(&v1::Admin::Stub::ListConnections, list), "peer");
  list.Clear();
  list.set_state(static_cast<v1::Connection::State>(77));
  ExpectField(Call(&v1::Admin::Stub::ListConnections, list), "state");
  list.Clear();
  list.mutable_min_age()->set_seconds(-1);
  ExpectField(Call(&v1::Admin::Stub::ListConnections, list), "min_age");
  list.Clear();
  list.mutable_max_age()->set_nanos(-1);
  ExpectField(Call(&v1::Admin::Stub::ListConnections, list), "max_age");
  list.Clear();
  list.set_page_token("x");
  ExpectField(Call(&v1::Admin::Stub::ListConnections, list), "page_token");

  v1::CloseConnectionRequest close;
  close.set_id("x");
  ExpectField(Call(&v1::Admin::Stub::CloseConnection, close), "id");

  v1::DrainRequest drain;
  drain.mutable_timeout()->set_seconds(-1);
  ExpectField(Call(&v1::Admin::Stub::Drain, drain), "timeout");

  v1::ListCacheRequest cache;
  cache.set_prefix("no slash");
  ExpectField(Call(&v1::Admin::Stub::ListCache, cache), "prefix");
  cache.Clear();
  cache.set_page_token("x");
  ExpectField(Call(&v1::Admin::Stub::ListCache, cache), "page_token");
  v1::PurgeCacheRequest purge;
  ExpectField(Call(&v1::Admin::Stub::PurgeCache, purge), "what");
  purge.set_path("%x");
  ExpectField(Call(&v1::Admin::Stub::PurgeCache, purge), "path");

  v1::ListInterestsRequest interests;
  interests.set_page_token("x");
  ExpectField(Call(&v1::Admin::Stub::ListInterests, interests), "page_token");

  v1::WatchStatsRequest watch;
  watch.mutable_interval()->set_nanos(1);
  auto context = Context();
  v1::Stats stats;
  auto reader = Stub()->WatchStats(context.get(), watch);
  EXPECT_FALSE(reader->Read(&stats));
  ExpectField(reader->Finish(), "interval");
  EXPECT_EQ(Health(), 1);
}

TEST_F(AdminErrorsTest, NamesWhatIsNotThere) {
  Start();
  v1::CloseConnectionRequest close;
  close.set_id("1-2f");
  auto status = Call(&v1::Admin::Stub::CloseConnection, close);
  ExpectReason(status, StatusCode::NOT_FOUND, v1::CONNECTION_NOT_FOUND);
  auto resource = Only<ResourceInfo>(status);
  EXPECT_EQ(resource.resource_type(), "connection");
  EXPECT_EQ(resource.resource_name(), "1-2f");

  v1::ListInterestsRequest interests;
  interests.set_worker(7);
  status = Call(&v1::Admin::Stub::ListInterests, interests);
  ExpectReason(status, StatusCode::NOT_FOUND, v1::WORKER_NOT_FOUND);
  resource = Only<ResourceInfo>(status);
  EXPECT_EQ(resource.resource_type(), "worker");
  EXPECT_EQ(resource.resource_name(), "7");
  EXPECT_EQ(Meta(status, "workers"), "2");
}

TEST_F(AdminErrorsTest, NamesWhatTheServiceHasNot) {
  Start();
  auto status = Call(&v1::Admin::Stub::ListCache, v1::ListCacheRequest());
  ExpectReason(status, StatusCode::UNIMPLEMENTED, v1::NO_SUCH_FEATURE);
  EXPECT_EQ(Meta(status, "feature"), "file_cache");
  status = Call(&v1::Admin::Stub::GetConfig, v1::GetConfigRequest());
  ExpectReason(status, StatusCode::UNIMPLEMENTED, v1::NO_SUCH_FEATURE);
  EXPECT_EQ(Meta(status, "feature"), "config");
  status = Call(&v1::Admin::Stub::SetLogLevel, v1::SetLogLevelRequest());
  ExpectReason(status, StatusCode::UNIMPLEMENTED, v1::NO_SUCH_FEATURE);
  EXPECT_EQ(Meta(status, "feature"), "log");
  auto context = Context();
  v1::TailLogResponse lines;
  auto reader = Stub()->TailLog(context.get(), {});
  EXPECT_FALSE(reader->Read(&lines));
  ExpectReason(reader->Finish(), StatusCode::UNIMPLEMENTED,
               v1::NO_SUCH_FEATURE);
}

TEST_F(AdminErrorsTest, SaysWhatIsUnmet) {
  Target target = service_.target();
  target.drain = [](int64_t, Target::DoneFn done) { done(); };
  target.undrain = [](Target::StatusFn done) {
    done(absl::FailedPreconditionError("the port is taken"));
  };
  Start(std::move(target), {});
  auto status = Call(&v1::Admin::Stub::Undrain, v1::UndrainRequest());
  ExpectReason(status, StatusCode::FAILED_PRECONDITION, v1::NOT_DRAINING);
  EXPECT_EQ(Only<PreconditionFailure>(status).violations_size(), 1);
  EXPECT_TRUE(Call(&v1::Admin::Stub::Drain, v1::DrainRequest()).ok());
  status = Call(&v1::Admin::Stub::Undrain, v1::UndrainRequest());
  ExpectReason(status, StatusCode::FAILED_PRECONDITION, v1::CANNOT_SERVE);
  const auto failure = Only<PreconditionFailure>(status);
  ASSERT_EQ(failure.violations_size(), 1);
  EXPECT_EQ(failure.violations(0).type(), "CANNOT_SERVE");
  EXPECT_EQ(failure.violations(0).description(), "the port is taken");
}

TEST_F(AdminErrorsTest, SaysWhenToTryAgain) {
  AdminServer::Options options;
  options.max_streams = 1;
  Start(service_.target(), options);
  auto context = Context();
  v1::Stats stats;
  auto first = Stub()->WatchStats(context.get(), {});
  ASSERT_TRUE(first->Read(&stats));
  auto refused = Context();
  auto second = Stub()->WatchStats(refused.get(), {});
  EXPECT_FALSE(second->Read(&stats));
  const grpc::Status status = second->Finish();
  ExpectReason(status, StatusCode::RESOURCE_EXHAUSTED, v1::TOO_MANY_STREAMS);
  EXPECT_EQ(Meta(status, "limit"), "1");
  EXPECT_GT(Only<RetryInfo>(status).retry_delay().seconds(), 0);
  EXPECT_EQ(Only<google::rpc::QuotaFailure>(status).violations(0).subject(),
            "streams");
  context->TryCancel();
  while (first->Read(&stats)) {
  }
  first->Finish();
}

TEST_F(AdminErrorsTest, ConfigurationsOfAStoreThatKnowsNoDetails) {
  RefusingStore store(absl::InvalidArgumentError("root: is missing"));
  Target target = service_.target();
  target.config = &store;
  Start(std::move(target), {});
  for (const grpc::Status& status :
       {Call(&v1::Admin::Stub::ValidateConfig, v1::ValidateConfigRequest()),
        Call(&v1::Admin::Stub::ApplyConfig, v1::ApplyConfigRequest()),
        Call(&v1::Admin::Stub::RollbackConfig, v1::RollbackConfigRequest())}) {
    ExpectReason(status, StatusCode::INVALID_ARGUMENT, v1::INVALID_CONFIG);
    EXPECT_EQ(Only<BadRequest>(status).field_violations(0).field(), "text");
  }
  v1::GetConfigRequest get;
  get.set_version(4);
  const auto status = Call(&v1::Admin::Stub::GetConfig, get);
  ExpectReason(status, StatusCode::NOT_FOUND, v1::VERSION_NOT_FOUND);
  EXPECT_EQ(Only<ResourceInfo>(status).resource_name(), "4");
  admin_.reset();
}

// Else the client's gRPC would refuse the trailer, and nobody know why.
TEST_F(AdminErrorsTest, HugeErrorsArrive) {
  const std::string huge(1 << 20, '"');
  RefusingStore store(FailedPrecondition(
      v1::RESTART_NEEDED, huge, std::vector<Unmet>(100, {huge, huge})));
  Target target = service_.target();
  target.config = &store;
  Start(std::move(target), {});
  ExpectReason(Call(&v1::Admin::Stub::ApplyConfig, v1::ApplyConfigRequest()),
               StatusCode::FAILED_PRECONDITION, v1::RESTART_NEEDED);
  admin_.reset();
}

}  // namespace
}  // namespace kevent::admin
