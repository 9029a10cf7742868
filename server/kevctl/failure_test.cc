// SPDX-License-Identifier: Apache-2.0
#include "server/kevctl/failure.h"

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/google/rpc/error_details.pb.h"

namespace kevent::kevctl {
namespace {

google::rpc::Status Failure(int code, const std::string& message) {
  google::rpc::Status failure;
  failure.set_code(code);
  failure.set_message(message);
  return failure;
}

void AddReason(google::rpc::Status* failure) {
  google::rpc::ErrorInfo info;
  info.set_reason("VERSION_MISMATCH");
  info.set_domain("test");
  (*info.mutable_metadata())["if_version"] = "3";
  (*info.mutable_metadata())["current_version"] = "5";
  failure->add_details()->PackFrom(info);
}

TEST(FailureTest, CodesHaveTheirNames) {
  EXPECT_EQ(CodeName(3), "INVALID_ARGUMENT");
  EXPECT_EQ(CodeName(16), "UNAUTHENTICATED");
  EXPECT_EQ(CodeName(17), "UNKNOWN");
  EXPECT_EQ(CodeName(-1), "UNKNOWN");
}

TEST(FailureTest, TextHasALineForEachDetail) {
  google::rpc::Status failure = Failure(10, "version 5 is in force, not 3");
  AddReason(&failure);
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(1);
  failure.add_details()->PackFrom(retry);
  EXPECT_EQ(FormatFailure(failure),
            "version 5 is in force, not 3\n"
            "  reason: VERSION_MISMATCH (current_version=5, if_version=3)\n"
            "  retry after: 1.00 s\n");
}

TEST(FailureTest, TextDoesNotSayTheSameTwice) {
  google::rpc::Status failure = Failure(3, "peer: is none");
  google::rpc::BadRequest bad;
  for (auto [field, text] :
       {std::pair{"peer", "is none"}, {"state", "nor is this"}}) {
    auto* violation = bad.add_field_violations();
    violation->set_field(field);
    violation->set_description(text);
  }
  failure.add_details()->PackFrom(bad);
  google::rpc::ResourceInfo resource;
  resource.set_resource_type("connection");
  resource.set_resource_name("0-1f");
  failure.add_details()->PackFrom(resource);
  google::rpc::PreconditionFailure precondition;
  auto* unmet = precondition.add_violations();
  unmet->set_subject("workers");
  unmet->set_description("needs a restart");
  failure.add_details()->PackFrom(precondition);
  EXPECT_EQ(FormatFailure(failure),
            "peer: is none\n"
            "  field: peer\n"
            "  field: state: nor is this\n"
            "  connection: 0-1f\n"
            "  unmet: workers: needs a restart\n");
}

TEST(FailureTest, TextDoesNotSteerTheTerminal) {
  google::rpc::Status failure = Failure(5, "a\x1b[2J");
  google::rpc::ErrorInfo info;
  info.set_reason("X\r\x1b");
  failure.add_details()->PackFrom(info);
  const std::string text = FormatFailure(failure);
  EXPECT_EQ(text.find('\x1b'), std::string::npos) << text;
  EXPECT_EQ(text.find('\r'), std::string::npos) << text;
}

TEST(FailureTest, JsonHasCodeMessageAndDetails) {
  google::rpc::Status failure = Failure(10, "a \"quoted\" word");
  AddReason(&failure);
  // Of a type that this program does not know.
  auto* unknown = failure.add_details();
  unknown->set_type_url("type.googleapis.com/some.New");
  unknown->set_value("\x01\x02");
  const std::string json = FailureToJson(failure);
  EXPECT_EQ(json.find('\n'), json.size() - 1);

  google::protobuf::Struct parsed;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(json, &parsed).ok())
      << json;
  const auto& error = parsed.fields().at("error").struct_value().fields();
  EXPECT_EQ(error.at("code").string_value(), "ABORTED");
  EXPECT_EQ(error.at("message").string_value(), "a \"quoted\" word");
  const auto& details = error.at("details").list_value();
  ASSERT_EQ(details.values_size(), 2) << json;
  const auto& info = details.values(0).struct_value().fields();
  EXPECT_EQ(info.at("@type").string_value(),
            "type.googleapis.com/google.rpc.ErrorInfo");
  EXPECT_EQ(info.at("reason").string_value(), "VERSION_MISMATCH");
  EXPECT_EQ(info.at("metadata")
                .struct_value()
                .fields()
                .at("current_version")
                .string_value(),
            "5");
  const auto& other = details.values(1).struct_value().fields();
  EXPECT_EQ(other.at("@type").string_value(), "type.googleapis.com/some.New");
  EXPECT_EQ(other.at("value").string_value(), "AQI=");
}

}  // namespace
}  // namespace kevent::kevctl
