// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_KEVCTL_FAILURE_H_
#define SERVER_KEVCTL_FAILURE_H_

#include <string>

#include "proto/google/rpc/status.pb.h"

namespace kevent::kevctl {

std::string CodeName(int code);
// "NOT_FOUND", as gRPC calls it.

std::string FormatFailure(const google::rpc::Status& failure);
// The message, and a line for each thing that its details tell: the reason, the
// field, what was missing. Ends in a newline.

std::string FailureToJson(const google::rpc::Status& failure);
// {"error": {"code": ..., "message": ..., "details": [...]}} in one line; the
// code is a name, and each detail has its type as "@type". Ends in a newline.

}  // namespace kevent::kevctl

#endif  // SERVER_KEVCTL_FAILURE_H_
