// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_CERTIFICATES_H_
#define SERVER_ADMIN_CERTIFICATES_H_

#include <string>

#include "absl/status/status.h"

namespace kevent::admin {

absl::Status CheckCertificates(const std::string& certificate,
                               const std::string& key, const std::string& ca);
// All in PEM: a certificate, its key, and at least one of an authority.
// InvalidArgument says which of them will not do.

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_CERTIFICATES_H_
