// SPDX-License-Identifier: Apache-2.0
#include "server/http/range.h"

#include <algorithm>
#include <charconv>

#include "server/http/message.h"

namespace kevent::http {
namespace {

// 1*DIGIT. A number past 64 bits becomes the greatest of them: as a position
// it is beyond any representation all the same.
bool ParsePosition(std::string_view digits, uint64_t* position) {
  if (digits.empty()) return false;
  uint64_t value = 0;
  for (char c : digits) {
    if (!internal::IsDigit(c)) return false;
    const uint64_t digit = static_cast<uint64_t>(c - '0');
    value = value > (UINT64_MAX - digit) / 10 ? UINT64_MAX : value * 10 + digit;
  }
  *position = value;
  return true;
}

// Two ranges may overlap, as RFC 9110 section 14.2 has it; more are abuse.
bool OverlapTooMuch(const ByteRange* ranges, size_t count) {
  size_t overlapping = 0;
  for (size_t i = 0; i < count; ++i) {
    for (size_t j = 0; j < count; ++j) {
      if (i != j && ranges[i].first <= ranges[j].last() &&
          ranges[j].first <= ranges[i].last()) {
        ++overlapping;
        break;
      }
    }
  }
  return overlapping > 2;
}

char* Put(std::string_view text, char* out) {
  return out + text.copy(out, text.size());
}

char* Put(uint64_t number, char* out) {
  return std::to_chars(out, out + 20, number).ptr;
}

}  // namespace

RangeResult ParseRange(std::string_view header, uint64_t size,
                       std::array<ByteRange, kMaxRanges>* ranges) {
  const RangeResult ignored;
  const size_t equals = header.find('=');
  if (equals == std::string_view::npos ||
      !EqualsIgnoreCase(header.substr(0, equals), "bytes")) {
    return ignored;
  }
  std::string_view list = header.substr(equals + 1);
  std::string_view spec;
  RangeResult result;
  result.kind = RangeResult::Kind::kSatisfiable;
  size_t specs = 0;
  bool too_much = false;
  while (NextListElement(&list, &spec)) {
    // Empty elements of a list count for nothing (RFC 9110 section 5.6.1.2).
    if (spec.empty()) continue;
    if (++specs > kMaxRanges) return ignored;
    const size_t dash = spec.find('-');
    if (dash == std::string_view::npos) return ignored;
    const std::string_view before = spec.substr(0, dash);
    const std::string_view after = spec.substr(dash + 1);
    ByteRange range;
    if (before.empty()) {
      uint64_t suffix;
      if (!ParsePosition(after, &suffix)) return ignored;
      if (suffix == 0) continue;
      // Satisfiable, yet no Content-Range can tell of a range without bytes.
      if (size == 0) return ignored;
      range.length = std::min(suffix, size);
      range.first = size - range.length;
    } else {
      uint64_t last = UINT64_MAX;
      if (!ParsePosition(before, &range.first) ||
          (!after.empty() && !ParsePosition(after, &last)) ||
          last < range.first) {
        return ignored;
      }
      if (range.first >= size) continue;
      range.length = std::min(last, size - 1) - range.first + 1;
    }
    (*ranges)[result.count++] = range;
    // A malformed specifier further on ignores the field as well, so the rest
    // is read in any case.
    if (range.length > size - result.total) {
      too_much = true;
    } else {
      result.total += range.length;
    }
  }
  if (specs == 0 || too_much || OverlapTooMuch(ranges->data(), result.count)) {
    return ignored;
  }
  if (result.count == 0) result.kind = RangeResult::Kind::kUnsatisfiable;
  return result;
}

std::string_view FormatContentRange(const ByteRange& range, uint64_t size,
                                    char (&out)[kMaxContentRange]) {
  char* p = Put("bytes ", out);
  p = Put("-", Put(range.first, p));
  p = Put("/", Put(range.last(), p));
  p = Put(size, p);
  return {out, static_cast<size_t>(p - out)};
}

std::string_view FormatUnsatisfiedRange(uint64_t size,
                                        char (&out)[kMaxContentRange]) {
  char* p = Put(size, Put("bytes */", out));
  return {out, static_cast<size_t>(p - out)};
}

}  // namespace kevent::http
