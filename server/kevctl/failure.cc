// SPDX-License-Identifier: Apache-2.0
#include "server/kevctl/failure.h"

#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/time_util.h>
#include <google/protobuf/wrappers.pb.h>

#include <array>
#include <map>
#include <string_view>

#include "proto/google/rpc/error_details.pb.h"
#include "server/kevctl/table.h"

namespace kevent::kevctl {
namespace {

using google::protobuf::Any;
using google::protobuf::util::JsonPrintOptions;
using google::protobuf::util::MessageToJsonString;
using google::protobuf::util::TimeUtil;

constexpr std::array<const char*, 17> kCodes = {
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
};

template <typename Message>
std::string Json(const Message& message) {
  JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string text;
  return MessageToJsonString(message, &text, options).ok() ? text : "";
}

template <typename Value>
std::string JsonOf(const std::string& value) {
  Value wrapped;
  wrapped.set_value(value);
  return Json(wrapped);
}

std::string JsonOf(const Any& detail) {
  std::string text = Json(detail);
  if (!text.empty()) return text;
  // Of a newer server.
  return R"({"@type":)" +
         JsonOf<google::protobuf::StringValue>(detail.type_url()) +
         R"(,"value":)" + JsonOf<google::protobuf::BytesValue>(detail.value()) +
         "}";
}

// A line of text, without what the message says already.
class Lines {
 public:
  explicit Lines(const std::string& message) : message_(message) {}

  void Add(std::string_view name, const std::string& subject,
           const std::string& description = "") {
    text_ += "  " + std::string(name) + ": " + Printable(subject);
    if (!description.empty() &&
        message_.find(description) == std::string::npos) {
      text_ += ": " + Printable(description);
    }
    text_ += "\n";
  }

  const std::string& text() const { return text_; }

 private:
  const std::string& message_;
  std::string text_;
};

void Describe(const Any& detail, Lines* lines) {
  google::rpc::ErrorInfo info;
  google::rpc::BadRequest bad;
  google::rpc::ResourceInfo resource;
  google::rpc::PreconditionFailure precondition;
  google::rpc::QuotaFailure quota;
  google::rpc::RetryInfo retry;
  if (detail.UnpackTo(&info)) {
    // Sorted.
    const std::map<std::string, std::string> metadata(info.metadata().begin(),
                                                      info.metadata().end());
    std::string text = info.reason();
    const char* before = " (";
    for (const auto& [key, value] : metadata) {
      text += before + key + "=" + value;
      before = ", ";
    }
    if (!metadata.empty()) text += ")";
    lines->Add("reason", text);
  } else if (detail.UnpackTo(&bad)) {
    for (const auto& one : bad.field_violations()) {
      lines->Add("field", one.field(), one.description());
    }
  } else if (detail.UnpackTo(&resource)) {
    if (resource.resource_name().empty()) return;
    lines->Add(Printable(resource.resource_type()), resource.resource_name(),
               resource.description());
  } else if (detail.UnpackTo(&precondition)) {
    for (const auto& one : precondition.violations()) {
      lines->Add("unmet", one.subject(), one.description());
    }
  } else if (detail.UnpackTo(&quota)) {
    for (const auto& one : quota.violations()) {
      lines->Add("limit", one.subject(), one.description());
    }
  } else if (detail.UnpackTo(&retry)) {
    lines->Add("retry after",
               Time(static_cast<uint64_t>(
                   TimeUtil::DurationToNanoseconds(retry.retry_delay()))));
  }
}

}  // namespace

std::string CodeName(int code) {
  if (code < 0 || static_cast<size_t>(code) >= kCodes.size()) code = 2;
  return kCodes[static_cast<size_t>(code)];
}

std::string FormatFailure(const google::rpc::Status& failure) {
  Lines lines(failure.message());
  for (const Any& detail : failure.details()) Describe(detail, &lines);
  return Printable(failure.message()) + "\n" + lines.text();
}

std::string FailureToJson(const google::rpc::Status& failure) {
  std::string details;
  for (const Any& detail : failure.details()) {
    details += (details.empty() ? "" : ",") + JsonOf(detail);
  }
  return R"({"error":{"code":")" + CodeName(failure.code()) +
         R"(","message":)" +
         JsonOf<google::protobuf::StringValue>(failure.message()) +
         R"(,"details":[)" + details + "]}}\n";
}

}  // namespace kevent::kevctl
