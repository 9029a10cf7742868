// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_HTTP_RESPONSE_H_
#define SERVER_HTTP_RESPONSE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace kevent::http {

// "HTTP/1.1 200 OK\r\n" (RFC 9112 section 4): our own version whatever the
// client's (RFC 9110 section 2.5). Of static storage for every status that has
// a reason phrase, empty for others.
std::string_view StatusLine(int status);

// A small text/html page that names the status, of static storage; empty for a
// status below 400 or without a reason phrase.
std::string_view ErrorBody(int status);

// Writes the head of a response, or the field lines of a multipart's part, into
// a buffer of the caller's. It never writes past the buffer's end: what does
// not fit, or would split the message (RFC 9112 section 11.1), turns it to
// failed for good, and Finish() then returns nothing. Not thread-safe.
class ResponseHead {
 public:
  explicit ResponseHead(std::span<char> buffer)
      : begin_(buffer.data()),
        out_(buffer.data()),
        end_(buffer.data() + buffer.size()) {}

  ResponseHead(const ResponseHead&) = delete;
  ResponseHead& operator=(const ResponseHead&) = delete;

  // The status line, to be called first. `status` is 100 to 999.
  void Status(int status);

  // A field line. The name has to be a token and the value free of control
  // characters; they are checked, so a value may come from anywhere.
  void Append(std::string_view name, std::string_view value);

  // A field line with a decimal number. The name is checked.
  void Append(std::string_view name, uint64_t value);

  // Complete lines, unchecked: for those made ready before.
  void AppendRaw(std::string_view lines) {
    if (static_cast<size_t>(end_ - out_) < lines.size()) return Fail();
    out_ += lines.copy(out_, lines.size());
  }

  // Ends the head with the empty line and returns all of it; empty if failed.
  std::string_view Finish() {
    AppendRaw("\r\n");
    return failed_ ? std::string_view() : std::string_view(begin_, size());
  }

  bool failed() const { return failed_; }

  // Bytes written so far; after Finish() of a head that did not fail a body
  // may be put behind them in the same buffer.
  size_t size() const { return static_cast<size_t>(out_ - begin_); }

 private:
  // Leaves no room, so that whatever follows fails as well.
  void Fail() {
    failed_ = true;
    end_ = out_;
  }

  char* const begin_;
  char* out_;
  char* end_;
  bool failed_ = false;
};

// A buffer of this size holds any response of WriteErrorResponse with up to
// 256 bytes of extra fields.
inline constexpr size_t kMaxErrorResponse = 1024;

struct ErrorResponse {
  int status = 500;
  // The Date field's value; empty: no such field (RFC 9110 section 6.6.1).
  std::string_view date;
  // Without it the response announces that the connection closes.
  bool keep_alive = false;
  // The client spoke HTTP/1.0, so that keeping alive is to be confirmed.
  bool version_1_0 = false;
  // The answer to HEAD: everything but the body.
  bool head = false;
  // More lines, complete and valid, such as Allow or Content-Range.
  std::string_view extra_fields;
};

// Writes a whole error response with its page into `buffer` and returns it;
// empty if it does not fit or ErrorBody has nothing for the status.
std::string_view WriteErrorResponse(std::span<char> buffer,
                                    const ErrorResponse& error);

}  // namespace kevent::http

#endif  // SERVER_HTTP_RESPONSE_H_
