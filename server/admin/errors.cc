// SPDX-License-Identifier: Apache-2.0
#include "server/admin/errors.h"

#include <google/protobuf/message.h>
#include <google/protobuf/util/time_util.h>

#include <algorithm>

#include "absl/strings/cord.h"
#include "server/admin/arguments.h"

namespace kevent::admin {
namespace {

using google::protobuf::util::TimeUtil;
using google::rpc::BadRequest;
using google::rpc::ErrorInfo;
using google::rpc::PreconditionFailure;
using google::rpc::QuotaFailure;
using google::rpc::ResourceInfo;
using google::rpc::RetryInfo;

constexpr char kTypePrefix[] = "type.googleapis.com/";
constexpr size_t kMaxText = 400;  // of one string of a detail

constexpr int64_t kRetryMs = 1000;

// In the order in which they are sent.
const std::vector<std::string>& Types() {
  static const auto* const types = new std::vector<std::string>{
      kTypePrefix + ErrorInfo::descriptor()->full_name(),
      kTypePrefix + BadRequest::descriptor()->full_name(),
      kTypePrefix + ResourceInfo::descriptor()->full_name(),
      kTypePrefix + PreconditionFailure::descriptor()->full_name(),
      kTypePrefix + QuotaFailure::descriptor()->full_name(),
      kTypePrefix + RetryInfo::descriptor()->full_name(),
  };
  return *types;
}

// Bytes of the character of UTF-8 that `text` begins with (RFC 3629 section 4);
// 0 if it begins with none.
size_t CharacterSize(std::string_view text) {
  const auto byte = [&](size_t i) {
    return static_cast<unsigned char>(text[i]);
  };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  const size_t size = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  if (first < 0xc2 || first > 0xf4 || text.size() < size) return 0;
  for (size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const unsigned second = byte(1);
  if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
      (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f)) {
    return 0;
  }
  return size;
}

// A string that a message may have, at most `limit` bytes of it: bytes that are
// not UTF-8 become \xHH.
std::string Text(std::string_view text, size_t limit = kMaxText) {
  std::string out;
  while (!text.empty()) {
    const size_t size = CharacterSize(text);
    const std::string_view next = text.substr(0, std::max<size_t>(size, 1));
    const std::string piece = size > 0 ? std::string(next) : Ascii(next);
    if (out.size() + piece.size() > limit - 3) return out + "...";
    out += piece;
    text.remove_prefix(next.size());
  }
  return out;
}

absl::string_view View(std::string_view text) {
  return {text.data(), text.size()};
}

void Attach(absl::Status* status, const google::protobuf::Message& detail) {
  status->SetPayload(kTypePrefix + detail.GetDescriptor()->full_name(),
                     absl::Cord(detail.SerializeAsString()));
}

void AttachReason(absl::Status* status, v1::ErrorReason reason,
                  const ErrorMetadata& metadata) {
  ErrorInfo info;
  info.set_reason(v1::ErrorReason_Name(reason));
  info.set_domain(kErrorDomain);
  for (const auto& [key, value] : metadata) {
    (*info.mutable_metadata())[key] = Text(value);
  }
  Attach(status, info);
}

void AttachField(absl::Status* status, std::string_view field,
                 std::string_view description) {
  BadRequest bad;
  auto* violation = bad.add_field_violations();
  violation->set_field(Text(field));
  violation->set_description(Text(description));
  Attach(status, bad);
}

void AttachRetry(absl::Status* status) {
  RetryInfo retry;
  *retry.mutable_retry_delay() = TimeUtil::MillisecondsToDuration(kRetryMs);
  Attach(status, retry);
}

}  // namespace

absl::Status Error(absl::StatusCode code, v1::ErrorReason reason,
                   std::string_view message, ErrorMetadata metadata) {
  absl::Status status(code, View(message));
  AttachReason(&status, reason, metadata);
  return status;
}

absl::Status InvalidField(std::string_view field, std::string_view text) {
  absl::Status status =
      Error(absl::StatusCode::kInvalidArgument, v1::INVALID_FIELD,
            std::string(field) + ": " + std::string(text));
  AttachField(&status, field, text);
  return status;
}

absl::Status InvalidConfig(std::string_view message, std::string_view field,
                           int line, int column) {
  ErrorMetadata metadata;
  if (!field.empty()) metadata["field"] = field;
  if (line > 0) {
    metadata["line"] = std::to_string(line);
    metadata["column"] = std::to_string(column);
  }
  absl::Status status = Error(absl::StatusCode::kInvalidArgument,
                              v1::INVALID_CONFIG, message, std::move(metadata));
  AttachField(&status, "text", message);
  return status;
}

absl::Status NotFound(v1::ErrorReason reason, std::string_view type,
                      std::string_view name, std::string_view message,
                      ErrorMetadata metadata) {
  absl::Status status =
      Error(absl::StatusCode::kNotFound, reason, message, std::move(metadata));
  ResourceInfo resource;
  resource.set_resource_type(Text(type));
  resource.set_resource_name(Text(name));
  resource.set_description(Text(message));
  Attach(&status, resource);
  return status;
}

absl::Status FailedPrecondition(v1::ErrorReason reason,
                                std::string_view message,
                                const std::vector<Unmet>& unmet) {
  absl::Status status =
      Error(absl::StatusCode::kFailedPrecondition, reason, message);
  PreconditionFailure failure;
  for (const Unmet& one : unmet) {
    auto* violation = failure.add_violations();
    violation->set_type(v1::ErrorReason_Name(reason));
    violation->set_subject(Text(one.subject));
    violation->set_description(Text(one.description));
  }
  Attach(&status, failure);
  return status;
}

absl::Status VersionMismatch(uint64_t current, uint64_t if_version) {
  return Error(absl::StatusCode::kAborted, v1::VERSION_MISMATCH,
               "version " + std::to_string(current) + " is in force, not " +
                   std::to_string(if_version),
               {{"current_version", std::to_string(current)},
                {"if_version", std::to_string(if_version)}});
}

absl::Status NoSuchFeature(std::string_view feature, std::string_view message) {
  return Error(absl::StatusCode::kUnimplemented, v1::NO_SUCH_FEATURE, message,
               {{"feature", std::string(feature)}});
}

absl::Status TooManyStreams(size_t limit) {
  const std::string most = "at most " + std::to_string(limit) + " at once";
  absl::Status status =
      Error(absl::StatusCode::kResourceExhausted, v1::TOO_MANY_STREAMS,
            "too many streams: " + most, {{"limit", std::to_string(limit)}});
  QuotaFailure failure;
  auto* violation = failure.add_violations();
  violation->set_subject("streams");
  violation->set_description(most);
  Attach(&status, failure);
  AttachRetry(&status);
  return status;
}

absl::Status RoleRequired(std::string_view role, std::string_view client) {
  return Error(absl::StatusCode::kPermissionDenied, v1::ROLE_REQUIRED,
               "this certificate may look, but change nothing",
               {{"role", std::string(role)}, {"client", std::string(client)}});
}

absl::Status Busy(std::string_view message, std::optional<uint32_t> worker) {
  ErrorMetadata metadata;
  if (worker) metadata["worker"] = std::to_string(*worker);
  absl::Status status = Error(absl::StatusCode::kDeadlineExceeded, v1::BUSY,
                              message, std::move(metadata));
  AttachRetry(&status);
  return status;
}

absl::Status GoingDown() {
  absl::Status status = Error(absl::StatusCode::kUnavailable, v1::GOING_DOWN,
                              "the server is going down");
  AttachRetry(&status);
  return status;
}

absl::Status Explained(const absl::Status& status, v1::ErrorReason reason,
                       std::string_view subject) {
  if (status.ok() || status.GetPayload(Types().front())) return status;
  const std::string message(status.message());
  switch (status.code()) {
    case absl::StatusCode::kNotFound:
      return NotFound(reason, subject, "", message);
    case absl::StatusCode::kFailedPrecondition:
      return FailedPrecondition(reason, message,
                                {{std::string(subject), message}});
    default:
      break;
  }
  absl::Status explained = status;
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      AttachField(&explained, subject, message);
      break;
    case absl::StatusCode::kDeadlineExceeded:
      reason = v1::BUSY;
      AttachRetry(&explained);
      break;
    case absl::StatusCode::kUnavailable:
      reason = v1::GOING_DOWN;
      AttachRetry(&explained);
      break;
    default:
      break;
  }
  AttachReason(&explained, reason, {});
  return explained;
}

google::rpc::Status ToRpcStatus(const absl::Status& status) {
  google::rpc::Status rpc;
  rpc.set_code(static_cast<int>(status.code()));
  const absl::string_view message = status.message();
  rpc.set_message(Text({message.data(), message.size()}, kMaxErrorMessage));
  size_t size = 0;
  for (const std::string& type : Types()) {
    const auto payload = status.GetPayload(type);
    if (!payload) continue;
    size += type.size() + payload->size();
    if (size > kMaxErrorDetails) break;
    google::protobuf::Any* detail = rpc.add_details();
    detail->set_type_url(type);
    detail->set_value(std::string(*payload));
  }
  return rpc;
}

}  // namespace kevent::admin
