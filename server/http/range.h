// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_HTTP_RANGE_H_
#define SERVER_HTTP_RANGE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

// Byte ranges, RFC 9110 sections 14.1, 14.2 and 14.4. Stateless, any thread.
namespace kevent::http {

// Bytes [first, first + length) of a representation; length is not 0.
struct ByteRange {
  uint64_t first;
  uint64_t length;
  uint64_t last() const { return first + length - 1; }
};

// Range specifiers in one request; a request with more is served whole.
inline constexpr size_t kMaxRanges = 16;

struct RangeResult {
  enum class Kind : uint8_t {
    // Serve the whole representation: no Range field, another unit, a
    // malformed one, or one that RFC 9110 section 14.2 lets a server ignore
    // for its cost: more than kMaxRanges specifiers, more than two ranges that
    // overlap others, or more bytes than the representation has.
    kNone,
    // 416 with "Content-Range: bytes */size".
    kUnsatisfiable,
    // 206 with the first `count` ranges, in the order asked for.
    kSatisfiable,
  };
  Kind kind = Kind::kNone;
  size_t count = 0;
  // Bytes of all ranges together, never above the representation's size.
  uint64_t total = 0;
};

// Evaluates a Range field value for a representation of `size` bytes. Ranges
// that lie beyond it are dropped, those that end beyond it are cut. Positions
// of any magnitude are understood. A null `header` is no field. The caller
// applies it to GET alone and after the preconditions (section 14.2).
RangeResult ParseRange(std::string_view header, uint64_t size,
                       std::array<ByteRange, kMaxRanges>* ranges);

// "bytes " and three numbers of at most 20 digits with '-' and '/'.
inline constexpr size_t kMaxContentRange = 6 + 3 * 20 + 2;

// The Content-Range value of one range, "bytes 0-499/1234", written to `out`;
// returns the part written.
std::string_view FormatContentRange(const ByteRange& range, uint64_t size,
                                    char (&out)[kMaxContentRange]);

// The Content-Range value of a 416 response, "bytes */1234".
std::string_view FormatUnsatisfiedRange(uint64_t size,
                                        char (&out)[kMaxContentRange]);

}  // namespace kevent::http

#endif  // SERVER_HTTP_RANGE_H_
