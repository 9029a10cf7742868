// SPDX-License-Identifier: Apache-2.0
#include "server/admin/errors.h"

#include <string>

#include "gtest/gtest.h"

namespace kevent::admin {
namespace {

using google::rpc::BadRequest;
using google::rpc::ErrorInfo;
using google::rpc::PreconditionFailure;
using google::rpc::ResourceInfo;
using google::rpc::RetryInfo;

// The one detail of that type.
template <typename Detail>
Detail Only(const google::rpc::Status& status) {
  Detail found;
  int count = 0;
  for (const google::protobuf::Any& any : status.details()) {
    if (any.Is<Detail>()) {
      ++count;
      EXPECT_TRUE(any.UnpackTo(&found));
    }
  }
  EXPECT_EQ(count, 1) << Detail::descriptor()->name();
  return found;
}

ErrorInfo Reason(const google::rpc::Status& status) {
  ErrorInfo info = Only<ErrorInfo>(status);
  EXPECT_EQ(info.domain(), "kevent.admin.v1.Admin");
  return info;
}

TEST(ErrorsTest, AFieldIsNamed) {
  const auto status = ToRpcStatus(InvalidField("peer", "is none"));
  EXPECT_EQ(status.code(), 3);
  EXPECT_EQ(status.message(), "peer: is none");
  EXPECT_EQ(Reason(status).reason(), "INVALID_FIELD");
  const auto bad = Only<BadRequest>(status);
  ASSERT_EQ(bad.field_violations_size(), 1);
  EXPECT_EQ(bad.field_violations(0).field(), "peer");
  EXPECT_EQ(bad.field_violations(0).description(), "is none");
}

TEST(ErrorsTest, APlaceInAConfigurationIsNamed) {
  const ErrorInfo info =
      Reason(ToRpcStatus(InvalidConfig("config:3:7: no", "", 3, 7)));
  EXPECT_EQ(info.reason(), "INVALID_CONFIG");
  EXPECT_EQ(info.metadata().at("line"), "3");
  EXPECT_EQ(info.metadata().at("column"), "7");
  EXPECT_EQ(info.metadata().count("field"), 0u);
}

TEST(ErrorsTest, DetailsOfOthersAreKept) {
  const absl::Status own = VersionMismatch(5, 3);
  EXPECT_EQ(Explained(own, v1::CANNOT_APPLY, "text"), own);
  EXPECT_TRUE(Explained(absl::OkStatus(), v1::CANNOT_APPLY, "text").ok());
}

TEST(ErrorsTest, BareErrorsGetTheDetailsOfTheirCode) {
  const auto explained = [](const absl::Status& bare) {
    return ToRpcStatus(Explained(bare, v1::CANNOT_APPLY, "thing"));
  };
  auto status = explained(absl::InvalidArgumentError("m"));
  EXPECT_EQ(Reason(status).reason(), "CANNOT_APPLY");
  EXPECT_EQ(Only<BadRequest>(status).field_violations(0).field(), "thing");
  EXPECT_EQ(Only<BadRequest>(status).field_violations(0).description(), "m");
  status = explained(absl::NotFoundError("m"));
  EXPECT_EQ(Reason(status).reason(), "CANNOT_APPLY");
  EXPECT_EQ(Only<ResourceInfo>(status).resource_type(), "thing");
  status = explained(absl::FailedPreconditionError("m"));
  EXPECT_EQ(Reason(status).reason(), "CANNOT_APPLY");
  const auto failure = Only<PreconditionFailure>(status);
  EXPECT_EQ(failure.violations(0).type(), "CANNOT_APPLY");
  EXPECT_EQ(failure.violations(0).subject(), "thing");
  status = explained(absl::UnavailableError("m"));
  EXPECT_EQ(Reason(status).reason(), "GOING_DOWN");
  EXPECT_GT(Only<RetryInfo>(status).retry_delay().seconds(), 0);
  status = explained(absl::DeadlineExceededError("m"));
  EXPECT_EQ(Reason(status).reason(), "BUSY");
  EXPECT_GT(Only<RetryInfo>(status).retry_delay().seconds(), 0);
  status = explained(absl::InternalError("m"));
  EXPECT_EQ(status.code(), 13);
  EXPECT_EQ(Reason(status).reason(), "CANNOT_APPLY");
  EXPECT_EQ(status.details_size(), 1);
}

TEST(ErrorsTest, FitsIntoATrailer) {
  const std::string huge(1 << 16, 'x');
  const std::vector<Unmet> unmet(100, {huge, huge});
  for (const absl::Status& error :
       {InvalidField(huge, huge), InvalidConfig(huge, huge),
        NotFound(v1::CONNECTION_NOT_FOUND, huge, huge, huge, {{"k", huge}}),
        FailedPrecondition(v1::RESTART_NEEDED, huge, unmet)}) {
    const auto status = ToRpcStatus(error);
    EXPECT_LT(status.ByteSizeLong(), 6000u);
    EXPECT_GE(status.details_size(), 1);
    EXPECT_FALSE(Reason(status).reason().empty());
  }
}

// A message with a string that is not UTF-8 cannot be parsed.
TEST(ErrorsTest, StringsAreUtf8) {
  for (auto [text, expected] : {std::pair<std::string, std::string>{
                                    "gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f"},
                                {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"},
                                {"a\xff", "a\\xFF"},
                                {"\xc3", "\\xC3"},
                                {"\xc0\xaf", "\\xC0\\xAF"},
                                {"\xe0\x80\xaf", "\\xE0\\x80\\xAF"},
                                {"\xed\xa0\x80", "\\xED\\xA0\\x80"},
                                {"\xf4\x90\x80\x80", "\\xF4\\x90\\x80\\x80"},
                                {"\xf5\x80\x80\x80", "\\xF5\\x80\\x80\\x80"}}) {
    const auto status = ToRpcStatus(InvalidField("f", text));
    google::rpc::Status parsed;
    EXPECT_TRUE(parsed.ParseFromString(status.SerializeAsString()));
    EXPECT_EQ(parsed.message(), "f: " + expected);
    EXPECT_EQ(Only<BadRequest>(parsed).field_violations(0).description(),
              expected);
  }
  // Cut between characters.
  std::string umlauts;
  for (int i = 0; i < 2000; ++i) umlauts += "\xc3\xbc";
  const auto status = ToRpcStatus(InvalidField("f", umlauts));
  google::rpc::Status parsed;
  EXPECT_TRUE(parsed.ParseFromString(status.SerializeAsString()));
  EXPECT_EQ(parsed.message().substr(parsed.message().size() - 5),
            "\xc3\xbc...");
}

}  // namespace
}  // namespace kevent::admin
