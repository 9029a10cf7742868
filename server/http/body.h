// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_HTTP_BODY_H_
#define SERVER_HTTP_BODY_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "server/http/parser.h"

namespace kevent::http {

// What a decoder accepts at most, in bytes.
struct BodyLimits {
  // Content. More is 413.
  uint64_t body_bytes = INT64_MAX;
  // Chunk extensions of one body together: they carry nothing we use, and many
  // one-byte chunks with long ones are a known way to waste a server's time.
  // More is 400.
  size_t extension_bytes = 4 * 1024;
  // The trailer section with its CRLFs. More is 431.
  size_t trailer_bytes = 8 * 1024;
};

// Takes the framing off a request's body as it arrives (RFC 9112 sections 6
// and 7). Holds no data and allocates nothing; copyable, not thread-safe.
//
// Strict like the parser: a chunk size of 1 to 16 hexadecimal digits, chunk
// extensions of the grammar (7.1.1) only, CRLF and nothing else where CRLF
// belongs. Trailer fields are checked and dropped (RFC 9110 section 6.5.1).
class BodyDecoder {
 public:
  struct Result {
    // Bytes of the input that are done with; 0 only for an empty input, a
    // finished body, or an error.
    size_t consumed = 0;
    // Content, a view into the input; may be empty though bytes were consumed.
    std::string_view data;
    // The body is complete: what follows `consumed` is the next request.
    bool done = false;
    // Not 0: the body is invalid, this is the status to answer before closing
    // (400, 413 or 431). The decoder gives it again on every later call.
    uint16_t status = 0;
  };

  // No body.
  BodyDecoder() = default;

  // The body that the head announces.
  explicit BodyDecoder(const Request& request, const BodyLimits& limits = {});

  static BodyDecoder WithLength(uint64_t length, const BodyLimits& limits = {});
  static BodyDecoder Chunked(const BodyLimits& limits = {});

  // Decodes the beginning of `in`: up to and including one run of content.
  // Call it again with the rest until it is done, fails, or has consumed
  // everything; then with the bytes that follow. Content and result do not
  // depend on how the input was split.
  Result Decode(std::string_view in);

  bool done() const { return state_ == State::kDone; }

 private:
  enum class State : uint8_t {
    kDone,
    kFailed,
    kLength,  // content of known length
    // A chunk's line.
    kSizeStart,
    kSize,
    kBeforeExtension,  // white space after the size or a value: ';' must come
    kExtNameStart,
    kExtName,
    kAfterExtName,  // white space after the name: '=' or ';' must come
    kExtValueStart,
    kExtToken,
    kExtQuoted,
    kExtQuotedPair,
    kAfterExtValue,
    kSizeLf,
    // Its content.
    kData,
    kDataCr,
    kDataLf,
    // The trailer section.
    kTrailerStart,
    kTrailerName,
    kTrailerValue,
    kTrailerLf,
    kEndLf,
  };

  // The state after byte c of the framing; kFailed with status_ set.
  State Step(char c);
  State Fail(uint16_t status);
  State AddDigit(char c);
  State EndOfSize();

  State state_ = State::kDone;
  uint8_t digits_ = 0;
  uint16_t status_ = 0;
  uint64_t left_ = 0;  // content bytes of this chunk or body still to come
  uint64_t body_left_ = 0;
  size_t extension_left_ = 0;
  size_t trailer_left_ = 0;
};

}  // namespace kevent::http

#endif  // SERVER_HTTP_BODY_H_
