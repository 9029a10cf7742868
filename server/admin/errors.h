// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_ERRORS_H_
#define SERVER_ADMIN_ERRORS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "proto/google/rpc/error_details.pb.h"
#include "proto/google/rpc/status.pb.h"
#include "proto/kevent/admin/v1/admin.pb.h"

namespace kevent::admin {

inline constexpr char kErrorDomain[] = "kevent.admin.v1.Admin";

inline constexpr size_t kMaxErrorMessage = 1000;
inline constexpr size_t kMaxErrorDetails = 4096;
// Bytes. A client takes 8 KiB of metadata, unless it was told otherwise, and
// may quote a whole configuration to itself.

// Errors of calls: a code and a message for people, and for programs the
// details that admin.proto promises, which travel as payloads of the
// absl::Status, each a message of google.rpc under its type's URL. Any thread.

using ErrorMetadata = std::map<std::string, std::string>;

absl::Status Error(absl::StatusCode code, v1::ErrorReason reason,
                   std::string_view message, ErrorMetadata metadata = {});
// With an ErrorInfo alone.

absl::Status InvalidField(std::string_view field, std::string_view text);
// InvalidArgument of a field of the request, which the message names.

absl::Status InvalidConfig(std::string_view message,
                           std::string_view field = "", int line = 0,
                           int column = 0);
// InvalidArgument of a configuration's text: its field, "" if none is to
// blame, or the place, from 1, where it cannot be read.

absl::Status NotFound(v1::ErrorReason reason, std::string_view type,
                      std::string_view name, std::string_view message,
                      ErrorMetadata metadata = {});

struct Unmet {
  std::string subject;
  std::string description;
};
absl::Status FailedPrecondition(v1::ErrorReason reason,
                                std::string_view message,
                                const std::vector<Unmet>& unmet);

absl::Status VersionMismatch(uint64_t current, uint64_t if_version);
absl::Status NoSuchFeature(std::string_view feature, std::string_view message);
absl::Status TooManyStreams(size_t limit);
absl::Status RoleRequired(std::string_view role, std::string_view client);
absl::Status Busy(std::string_view message,
                  std::optional<uint32_t> worker = std::nullopt);
absl::Status GoingDown();

absl::Status Explained(const absl::Status& status, v1::ErrorReason reason,
                       std::string_view subject);
// What others say, who need not know of details: `status` as it is if it has an
// ErrorInfo already, and otherwise with one of `reason` and with the message
// that belongs to its code, about `subject`: the field, the precondition, or
// the type of the resource.

google::rpc::Status ToRpcStatus(const absl::Status& status);
// As it goes over the wire. Details that would make it too large are left out,
// the later ones first.

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_ERRORS_H_
