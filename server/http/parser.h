// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_HTTP_PARSER_H_
#define SERVER_HTTP_PARSER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "server/http/message.h"

namespace kevent::http {

// What Parse accepts at most; all in bytes but the count.
struct Limits {
  // Ceilings of the two settings below them: Parse clamps to these.
  static constexpr size_t kMaxHeaderBytes = 64 * 1024;
  static constexpr size_t kMaxHeaderCount = 128;

  // The request line without its CRLF. Longer is 414.
  size_t request_line = 8 * 1024;
  // The whole head, from the method to the empty line's CRLF. Longer is 431.
  size_t header_bytes = 16 * 1024;
  // Field lines. More is 431.
  size_t header_count = 100;
};

// The head of one request: views into the buffer given to Parse, valid while
// those bytes stay where they are. Not thread-safe. It may be used for any
// number of requests in turn; its contents are defined after Parse returned
// kDone, and after kError `method`, `raw_method` and `target` alone are, for a
// log: empty as far as the parser did not get.
class Request {
 public:
  // User-provided, or `Request{}` would zero the field table first.
  Request() {}  // NOLINT(modernize-use-equals-default)

  Method method = Method::kOther;
  // The y of HTTP/1.y: 0 or 1; a higher minor version is taken as 1
  // (RFC 9110 section 2.5).
  uint8_t version_minor = 1;
  // The client wants the connection kept open, by its version and Connection
  // field (RFC 9112 section 9.3).
  bool keep_alive = false;
  // The body is in chunked transfer coding (RFC 9112 section 7.1).
  bool chunked = false;
  // Expect: 100-continue of an HTTP/1.1 client (RFC 9110 section 10.1.1).
  bool expect_continue = false;
  // Absent with `chunked`; with neither there is no body (RFC 9112 section
  // 6.3). At most 2^63 - 1.
  std::optional<uint64_t> content_length;

  // As received; visible ASCII without '#'.
  std::string_view raw_method;
  std::string_view target;

  // The target's path, beginning with '/', not decoded and not normalised. For
  // "*" (OPTIONS alone) it is "*"; for CONNECT it is empty.
  std::string_view path;
  // The part after the first '?'. Null data() without a '?'.
  std::string_view query;
  // The authority the request is for, host[:port]: the target's when that is
  // in absolute-form or authority-form (RFC 9112 section 3.2.2), else the value
  // of Host, which may be empty; null data() for HTTP/1.0 without Host.
  std::string_view host;

  // Fields every response may need, null data() when absent. A list field on
  // several lines stands here with its first line: ForEachNamed finds all.
  // One that must stand alone but is repeated has an empty value here, which
  // is malformed and thereby ignored as RFC 9110 sections 13.1 and 14.2 ask.
  std::string_view accept_encoding;
  std::string_view if_match;
  std::string_view if_none_match;
  std::string_view if_modified_since;
  std::string_view if_unmodified_since;
  std::string_view if_range;
  std::string_view range;

  // `host` without its port; an IPv6 literal keeps its brackets.
  std::string_view HostName() const;

  // All field lines in the order received.
  size_t field_count() const { return field_count_; }
  Field field(size_t index) const {
    const FieldSpan& span = fields_[index];
    return {{base_ + span.name, span.name_size},
            {base_ + span.value, span.value_size}};
  }

  // The value of the first field of that name in any case; null data() when
  // there is none.
  std::string_view Find(std::string_view name) const;

  // Calls visit(value) for each field of that name, in order, until it returns
  // false; false if it did.
  template <typename Visitor>
  bool ForEachNamed(std::string_view name, Visitor&& visit) const {
    for (size_t i = 0; i < field_count_; ++i) {
      if (fields_[i].name_size != name.size()) continue;
      const Field f = field(i);
      if (EqualsIgnoreCase(f.name, name) && !visit(f.value)) return false;
    }
    return true;
  }

 private:
  friend class HeadParser;

  // Offsets from base_. 16 bits suffice below kMaxHeaderBytes.
  struct FieldSpan {
    uint16_t name;
    uint16_t name_size;
    uint16_t value;
    uint16_t value_size;
  };

  const char* base_ = nullptr;
  size_t field_count_ = 0;
  FieldSpan fields_[Limits::kMaxHeaderCount];
};

struct ParseResult {
  enum class Kind : uint8_t { kDone, kNeedMore, kError };
  Kind kind;
  // With kError, the status to answer before closing the connection (what
  // follows in the buffer cannot be trusted): 400, 414, 431, 501 or 505.
  uint16_t status;
  // With kDone, the bytes of the head; what follows is the body or the next
  // request. Never more than the buffer's size.
  uint32_t consumed;
};

// What Parse remembers between calls for one head that arrives in pieces, so
// that a byte at a time costs no more than a constant factor. Begin each head
// with a fresh one.
struct ParserState {
  uint32_t searched = 0;
  uint32_t parsed = 0;
};

// Parses the head of a request (RFC 9112 sections 2 to 6 and 9.3) at the start
// of `buffer`, in one pass and without allocation. kNeedMore: call again with
// the same bytes and more behind them (they may have moved), and the same
// state. A buffer of limits.header_bytes + 2 always suffices. Without a state
// each call parses from the start.
//
// Strict: whatever two implementations could read in two ways is an error, as
// RFC 9112 section 11.2 asks. In particular: lines end in CRLF, and CR and LF
// stand nowhere else (2.2); one empty line may precede the request line (2.2);
// single spaces in the request line (3); HTTP/1.x in upper case (2.3);
// absolute-form with scheme http or https and no user information (3.2.2, RFC
// 9110 4.2.4), authority-form for CONNECT alone, asterisk-form for OPTIONS
// alone (3.2); at most one Host, exactly one in HTTP/1.1, with a valid value
// (3.2); no space before the colon (5.1), no folded lines (5.2), no control
// characters in values (RFC 9110 5.5); one Content-Length of digits alone
// (6.2); no Transfer-Encoding in HTTP/1.0 or beside Content-Length (6.1), and
// chunked last and once in it (6.3): a further coding before it is 501 (6.1).
//
// The result depends on the bytes alone, not on how they were split: a prefix
// yields kNeedMore or the same error. With a state an error in a head without
// its end yet may show some calls later, when the head has doubled at the
// latest.
ParseResult Parse(std::string_view buffer, const Limits& limits,
                  Request* request, ParserState* state = nullptr);

}  // namespace kevent::http

#endif  // SERVER_HTTP_PARSER_H_
