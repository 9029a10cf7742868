// SPDX-License-Identifier: Apache-2.0
#include "server/files/path.h"

#include <cstddef>

namespace kevent::files {
namespace {

bool IsControl(unsigned char c) { return c < 0x20 || c == 0x7f; }

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Writes segments one behind the other, each but the last followed by '/'.
class Segments {
 public:
  explicit Segments(char* out) : out_(out) {}

  void Add(char c) { out_[size_++] = c; }

  // Ends the segment under way; false if it climbs above the root.
  bool End() {
    last_was_name_ = false;
    const size_t length = size_ - start_;
    if (length == 0) return true;
    if (out_[start_] == '.' && length == 1) {
      size_ = start_;
    } else if (out_[start_] == '.' && length == 2 && out_[start_ + 1] == '.') {
      if (start_ == 0) return false;
      size_ = start_ - 1;
      while (size_ > 0 && out_[size_ - 1] != '/') --size_;
    } else {
      out_[size_++] = '/';
      last_was_name_ = true;
    }
    start_ = size_;
    return true;
  }

  // Whether the segment that End() closed last is a name, not "", "." or "..".
  bool last_was_name() const { return last_was_name_; }

  std::string_view Result() const {
    return std::string_view(out_, size_ > 0 ? size_ - 1 : 0);
  }

 private:
  char* const out_;
  size_t size_ = 0;
  size_t start_ = 0;
  bool last_was_name_ = false;
};

}  // namespace

PathStatus CleanPath(std::string_view raw, std::span<char> buffer,
                     RequestPath* out) {
  if (raw.empty() || raw.front() != '/') return PathStatus::kBadRequest;

  bool clean = true;
  char previous = 0;
  for (const char c : raw) {
    if (IsControl(static_cast<unsigned char>(c))) {
      return PathStatus::kBadRequest;
    }
    clean &= c != '%';
    clean &= previous != '/' || (c != '/' && c != '.');
    previous = c;
  }
  if (clean) [[likely]] {
    raw.remove_prefix(1);
    out->directory = raw.empty() || raw.back() == '/';
    if (!raw.empty() && out->directory) raw.remove_suffix(1);
    out->path = raw;
    return PathStatus::kOk;
  }

  // Each byte written stands for at least one byte read, and End() puts its
  // slash where one was read or, for the last segment, where the leading one
  // was.
  if (buffer.size() < raw.size()) return PathStatus::kTooLong;
  Segments segments(buffer.data());
  for (size_t i = 1; i < raw.size(); ++i) {
    char c = raw[i];
    if (c == '%') {
      if (raw.size() - i < 3) return PathStatus::kBadRequest;
      const int high = HexDigit(raw[i + 1]);
      const int low = HexDigit(raw[i + 2]);
      if (high < 0 || low < 0) return PathStatus::kBadRequest;
      c = static_cast<char>(high << 4 | low);
      if (IsControl(static_cast<unsigned char>(c))) {
        return PathStatus::kBadRequest;
      }
      i += 2;
    }
    if (c != '/') {
      segments.Add(c);
    } else if (!segments.End()) {
      return PathStatus::kBadRequest;
    }
  }
  if (!segments.End()) return PathStatus::kBadRequest;
  out->path = segments.Result();
  out->directory = !segments.last_was_name();
  return PathStatus::kOk;
}

}  // namespace kevent::files
