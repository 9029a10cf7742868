// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_GRPC_STATUS_H_
#define SERVER_ADMIN_GRPC_STATUS_H_

#include <grpcpp/support/error_details.h>
#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "server/admin/errors.h"

namespace kevent::admin {

inline grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  grpc::Status to;
  grpc::SetErrorDetails(ToRpcStatus(status), &to);
  return to;
}
// The one way from an error to a call's end: code, message, and the details
// for the trailer grpc-status-details-bin.

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_GRPC_STATUS_H_
