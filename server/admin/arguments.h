// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_ARGUMENTS_H_
#define SERVER_ADMIN_ARGUMENTS_H_

#include <google/protobuf/duration.pb.h>
#include <sys/socket.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kevent::admin {

absl::StatusOr<int64_t> ParseDuration(const google::protobuf::Duration& given,
                                      std::string_view field, int64_t min_ns,
                                      int64_t max_ns);
// Nanoseconds; a client may send any two numbers. `max_ns` is whole seconds.

absl::StatusOr<size_t> ParsePageSize(uint32_t given);

struct WorkerNumber {
  uint32_t worker = 0;
  uint64_t number = 0;

  friend bool operator==(const WorkerNumber&, const WorkerNumber&) = default;
};
std::string ToString(WorkerNumber id);  // "1-2f"
std::optional<WorkerNumber> ParseWorkerNumber(std::string_view text);
// Only what ToString makes.

std::string EscapePath(std::string_view path);
// "/" and `path`, percent-encoded (RFC 3986 section 2.1) but for visible ASCII.
absl::StatusOr<std::string> UnescapePath(std::string_view text,
                                         std::string_view field);
// The path without its first "/".

std::string Ascii(std::string_view text);
// With bytes that are not visible ASCII or a blank, and backslashes, as \xHH:
// a string of a message must be UTF-8.

class PeerFilter {
 public:
  static absl::StatusOr<PeerFilter> Parse(std::string_view text);
  // "192.0.2.7", "2001:db8::/32" or "unix"; empty: everybody.

  bool Matches(const sockaddr_storage& peer) const;
  // IPv4 addresses of IPv6 sockets (::ffff:192.0.2.7) count as IPv4.

 private:
  int family_ = AF_UNSPEC;
  unsigned bits_ = 0;
  unsigned char address_[16] = {};
};

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_ARGUMENTS_H_
