// SPDX-License-Identifier: Apache-2.0
#include "server/admin/arguments.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <charconv>
#include <cstring>

#include "server/admin/errors.h"

namespace kevent::admin {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr size_t kDefaultPage = 100;
constexpr size_t kMaxPage = 1000;
constexpr size_t kMaxPath = 4096;
constexpr char kHex[] = "0123456789ABCDEF";

std::string Readable(int64_t ns) {
  if (ns == 0) return "0";
  if (ns % (3600 * kSecond) == 0) {
    return std::to_string(ns / 3600 / kSecond) + " h";
  }
  if (ns % kSecond == 0) return std::to_string(ns / kSecond) + " s";
  return std::to_string(ns / 1'000'000) + " ms";
}

template <typename T>
bool ParseWhole(std::string_view text, int base, T* value) {
  const char* end = text.data() + text.size();
  auto [at, error] = std::from_chars(text.data(), end, *value, base);
  return error == std::errc() && at == end;
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

bool IsVisible(char c) { return c > ' ' && c < 0x7f; }

}  // namespace

absl::StatusOr<int64_t> ParseDuration(const google::protobuf::Duration& given,
                                      std::string_view field, int64_t min_ns,
                                      int64_t max_ns) {
  int64_t ns = -1;
  if (given.seconds() >= 0 && given.seconds() <= max_ns / kSecond &&
      given.nanos() >= 0 && given.nanos() < kSecond) {
    ns = given.seconds() * kSecond + given.nanos();
  }
  if (ns < min_ns || ns > max_ns) {
    return InvalidField(
        field, "not between " + Readable(min_ns) + " and " + Readable(max_ns));
  }
  return ns;
}

absl::StatusOr<size_t> ParsePageSize(uint32_t given) {
  if (given > kMaxPage) return InvalidField("page_size", "at most 1000");
  return given == 0 ? kDefaultPage : given;
}

std::string ToString(WorkerNumber id) {
  char text[40];
  char* at = std::to_chars(text, text + 12, id.worker).ptr;
  *at++ = '-';
  at = std::to_chars(at, text + sizeof text, id.number, 16).ptr;
  return std::string(text, at);
}

std::optional<WorkerNumber> ParseWorkerNumber(std::string_view text) {
  const size_t dash = text.find('-');
  WorkerNumber id;
  if (dash == std::string_view::npos ||
      !ParseWhole(text.substr(0, dash), 10, &id.worker) ||
      !ParseWhole(text.substr(dash + 1), 16, &id.number)) {
    return std::nullopt;
  }
  return id;
}

std::string EscapePath(std::string_view path) {
  std::string text = "/";
  for (char c : path) {
    if (IsVisible(c) && c != '%') {
      text.push_back(c);
    } else {
      const auto byte = static_cast<unsigned char>(c);
      text.append({'%', kHex[byte >> 4], kHex[byte & 15]});
    }
  }
  return text;
}

absl::StatusOr<std::string> UnescapePath(std::string_view text,
                                         std::string_view field) {
  if (text.size() > 3 * kMaxPath) return InvalidField(field, "too long");
  if (!text.starts_with('/'))
    return InvalidField(field, "must begin with \"/\"");
  text.remove_prefix(1);
  std::string path;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      path.push_back(text[i]);
      continue;
    }
    const int high = i + 2 < text.size() ? HexDigit(text[i + 1]) : -1;
    const int low = i + 2 < text.size() ? HexDigit(text[i + 2]) : -1;
    if (high < 0 || low < 0) {
      return InvalidField(field, "two hex digits must follow \"%\"");
    }
    path.push_back(static_cast<char>(high << 4 | low));
    i += 2;
  }
  return path;
}

std::string Ascii(std::string_view text) {
  std::string out;
  for (char c : text) {
    if ((IsVisible(c) || c == ' ') && c != '\\') {
      out.push_back(c);
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out.append({'\\', 'x', kHex[byte >> 4], kHex[byte & 15]});
    }
  }
  return out;
}

absl::StatusOr<PeerFilter> PeerFilter::Parse(std::string_view text) {
  PeerFilter filter;
  if (text.empty()) return filter;
  if (text == "unix") {
    filter.family_ = AF_UNIX;
    return filter;
  }
  const size_t slash = text.find('/');
  const std::string address(text.substr(0, slash));
  if (inet_pton(AF_INET, address.c_str(), filter.address_) == 1) {
    filter.family_ = AF_INET;
    filter.bits_ = 32;
  } else if (inet_pton(AF_INET6, address.c_str(), filter.address_) == 1) {
    filter.family_ = AF_INET6;
    filter.bits_ = 128;
  }
  unsigned bits = filter.bits_;
  if (filter.family_ == AF_UNSPEC ||
      (slash != std::string_view::npos &&
       (!ParseWhole(text.substr(slash + 1), 10, &bits) ||
        bits > filter.bits_))) {
    return InvalidField("peer",
                        "an address, a network as 192.0.2.0/24, or unix");
  }
  filter.bits_ = bits;
  return filter;
}

bool PeerFilter::Matches(const sockaddr_storage& peer) const {
  if (family_ == AF_UNSPEC) return true;
  if (family_ == AF_UNIX) return peer.ss_family == AF_UNIX;
  const unsigned char* bytes = nullptr;
  int family = peer.ss_family;
  if (family == AF_INET) {
    bytes = reinterpret_cast<const unsigned char*>(
        &reinterpret_cast<const sockaddr_in*>(&peer)->sin_addr);
  } else if (family == AF_INET6) {
    const in6_addr& in6 =
        reinterpret_cast<const sockaddr_in6*>(&peer)->sin6_addr;
    bytes = in6.s6_addr;
    if (IN6_IS_ADDR_V4MAPPED(&in6)) {
      family = AF_INET;
      bytes += 12;
    }
  }
  if (family != family_) return false;
  const unsigned whole = bits_ / 8;
  if (memcmp(bytes, address_, whole) != 0) return false;
  if (bits_ % 8 == 0) return true;
  const unsigned mask = 0xff00u >> (bits_ % 8) & 0xffu;
  return ((bytes[whole] ^ address_[whole]) & mask) == 0;
}

}  // namespace kevent::admin
