// SPDX-License-Identifier: Apache-2.0
#include "server/net/address.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace kevent::net {

namespace {

constexpr size_t kUnixPathOffset = offsetof(sockaddr_un, sun_path);
constexpr size_t kMostUnixPath = sizeof(sockaddr_un::sun_path) - 1;

absl::Status Bad(std::string_view text, std::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(
      "bad address '", std::string(text), "': ", std::string(why)));
}

std::optional<uint16_t> ParsePort(std::string_view text) {
  if (text.empty() || text.size() > 5) return std::nullopt;
  uint32_t port = 0;
  for (char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    port = port * 10 + static_cast<uint32_t>(c - '0');
  }
  if (port > 65535) return std::nullopt;
  return static_cast<uint16_t>(port);
}

}  // namespace

absl::StatusOr<Address> Address::Parse(std::string_view text) {
  Address address;
  if (text.find('\0') != std::string_view::npos) {
    return Bad(text.substr(0, text.find('\0')), "it has a zero byte in it");
  }
  if (text.substr(0, 5) == "unix:") {
    std::string_view path = text.substr(5);
    if (path.empty() || path == "@") return Bad(text, "the path is missing");
    if (path.size() > kMostUnixPath) {
      return Bad(text, absl::StrCat("the path is longer than ", kMostUnixPath,
                                    " bytes"));
    }
    auto* sun = reinterpret_cast<sockaddr_un*>(&address.storage_);
    sun->sun_family = AF_UNIX;
    memcpy(sun->sun_path, path.data(), path.size());
    address.size_ = static_cast<socklen_t>(kUnixPathOffset + path.size());
    if (path[0] == '@') {
      sun->sun_path[0] = '\0';
    } else {
      ++address.size_;  // with its terminator
    }
    return address;
  }

  size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || text.back() == ']') {
    return Bad(text, "no port, write ADDRESS:PORT");
  }
  std::string host(text.substr(0, colon));
  std::optional<uint16_t> port = ParsePort(text.substr(colon + 1));
  if (!port) return Bad(text, "the port is not a number from 0 to 65535");

  if (!host.empty() && host.front() == '[') {
    if (host.back() != ']') return Bad(text, "no ']' before the port");
    std::string inner = host.substr(1, host.size() - 2);
    auto* sin6 = reinterpret_cast<sockaddr_in6*>(&address.storage_);
    if (size_t percent = inner.find('%'); percent != std::string::npos) {
      std::string zone = inner.substr(percent + 1);
      inner.resize(percent);
      sin6->sin6_scope_id = if_nametoindex(zone.c_str());
      if (sin6->sin6_scope_id == 0) {
        return Bad(text, absl::StrCat("no network interface '", zone, "'"));
      }
    }
    if (inet_pton(AF_INET6, inner.c_str(), &sin6->sin6_addr) != 1) {
      return Bad(text, "not an IPv6 address between the brackets");
    }
    sin6->sin6_family = AF_INET6;
    sin6->sin6_port = htons(*port);
    address.size_ = sizeof *sin6;
    return address;
  }
  if (host.find(':') != std::string::npos) {
    return Bad(text, "an IPv6 address stands in brackets, as in [::1]:80");
  }
  auto* sin = reinterpret_cast<sockaddr_in*>(&address.storage_);
  if (host.empty()) {
    sin->sin_addr.s_addr = htonl(INADDR_ANY);
  } else if (inet_pton(AF_INET, host.c_str(), &sin->sin_addr) != 1) {
    return Bad(text,
               "not a numeric IPv4 address, and names are not resolved; write "
               "127.0.0.1:8080, [::1]:8080, :8080 or unix:/path");
  }
  sin->sin_family = AF_INET;
  sin->sin_port = htons(*port);
  address.size_ = sizeof *sin;
  return address;
}

Address Address::From(const sockaddr* from, socklen_t length) {
  Address address;
  if (length < sizeof(sa_family_t) || length > sizeof address.storage_) {
    return address;
  }
  memcpy(&address.storage_, from, length);
  size_t least = sizeof(sa_family_t);
  if (address.storage_.ss_family == AF_INET) least = sizeof(sockaddr_in);
  if (address.storage_.ss_family == AF_INET6) least = sizeof(sockaddr_in6);
  if (length < least) return Address();
  address.size_ = length;
  return address;
}

Address Address::LocalOf(int fd) {
  sockaddr_storage storage;
  socklen_t length = sizeof storage;
  auto* address = reinterpret_cast<sockaddr*>(&storage);
  if (getsockname(fd, address, &length) < 0) return Address();
  return From(address, length);
}

Address Address::PeerOf(int fd) {
  sockaddr_storage storage;
  socklen_t length = sizeof storage;
  auto* address = reinterpret_cast<sockaddr*>(&storage);
  if (getpeername(fd, address, &length) < 0) return Address();
  return From(address, length);
}

uint16_t Address::port() const {
  switch (family()) {
    case AF_INET:
      return ntohs(reinterpret_cast<const sockaddr_in*>(&storage_)->sin_port);
    case AF_INET6:
      return ntohs(reinterpret_cast<const sockaddr_in6*>(&storage_)->sin6_port);
    default:
      return 0;
  }
}

std::string_view Address::path() const {
  if (!is_unix() || size_ <= kUnixPathOffset) return {};
  auto* sun = reinterpret_cast<const sockaddr_un*>(&storage_);
  if (sun->sun_path[0] == '\0') return {};
  // The kernel may or may not count the terminator.
  return {sun->sun_path, strnlen(sun->sun_path, size_ - kUnixPathOffset)};
}

std::string Address::ToString() const {
  switch (family()) {
    case AF_INET: {
      auto* sin = reinterpret_cast<const sockaddr_in*>(&storage_);
      char text[INET_ADDRSTRLEN];
      inet_ntop(AF_INET, &sin->sin_addr, text, sizeof text);
      return absl::StrCat(text, ":", port());
    }
    case AF_INET6: {
      auto* sin6 = reinterpret_cast<const sockaddr_in6*>(&storage_);
      char text[INET6_ADDRSTRLEN];
      inet_ntop(AF_INET6, &sin6->sin6_addr, text, sizeof text);
      std::string zone;
      if (sin6->sin6_scope_id != 0) {
        char name[IF_NAMESIZE];
        zone = if_indextoname(sin6->sin6_scope_id, name)
                   ? absl::StrCat("%", name)
                   : absl::StrCat("%", sin6->sin6_scope_id);
      }
      return absl::StrCat("[", text, zone, "]:", port());
    }
    case AF_UNIX: {
      if (size_ <= kUnixPathOffset) return "unix:";
      std::string_view named = path();
      if (!named.empty()) return absl::StrCat("unix:", std::string(named));
      auto* sun = reinterpret_cast<const sockaddr_un*>(&storage_);
      return absl::StrCat("unix:@", std::string(sun->sun_path + 1,
                                                size_ - kUnixPathOffset - 1));
    }
    default:
      return "";
  }
}

bool operator==(const Address& a, const Address& b) {
  return a.ToString() == b.ToString();
}

}  // namespace kevent::net
