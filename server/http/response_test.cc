// SPDX-License-Identifier: Apache-2.0
#include "server/http/response.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "server/http/message.h"

namespace kevent::http {
namespace {

TEST(StatusLineTest, CoversEveryStatusWithAReason) {
  for (int status = -1; status < 1100; ++status) {
    const std::string_view reason = ReasonPhrase(status);
    std::string expected;
    if (!reason.empty()) {
      expected = "HTTP/1.1 " + std::to_string(status) + " " +
                 std::string(reason) + "\r\n";
    }
    EXPECT_EQ(StatusLine(status), expected);
  }
}

TEST(ErrorBodyTest, NamesTheStatusAndIsForErrorsOnly) {
  for (int status = -1; status < 1100; ++status) {
    const std::string_view body = ErrorBody(status);
    const std::string_view reason = ReasonPhrase(status);
    ASSERT_EQ(body.empty(), status < 400 || reason.empty()) << status;
    if (body.empty()) continue;
    const std::string text = std::to_string(status) + " " + std::string(reason);
    EXPECT_NE(body.find("<title>" + text + "</title>"), std::string::npos);
    EXPECT_NE(body.find("<h1>" + text + "</h1>"), std::string::npos);
    EXPECT_EQ(body.substr(0, 15), "<!DOCTYPE html>");
    EXPECT_EQ(body.substr(body.size() - 8), "</html>\n");
  }
}

TEST(ResponseHeadTest, WritesLinesInOrder) {
  char buffer[256];
  ResponseHead head(buffer);
  head.Status(206);
  head.Append("Content-Type", "text/html");
  head.Append("Content-Length", 18446744073709551615u);
  head.Append("Age", 0);
  head.Append("X-Empty", "");
  head.AppendRaw("A: b\r\nC: d\r\n");
  EXPECT_EQ(head.Finish(),
            "HTTP/1.1 206 Partial Content\r\n"
            "Content-Type: text/html\r\n"
            "Content-Length: 18446744073709551615\r\n"
            "Age: 0\r\n"
            "X-Empty: \r\n"
            "A: b\r\nC: d\r\n"
            "\r\n");
  EXPECT_FALSE(head.failed());
}

TEST(ResponseHeadTest, StatusWithoutAReasonKeepsTheSpace) {
  char buffer[64];
  {
    ResponseHead head(buffer);
    head.Status(299);
    EXPECT_EQ(head.Finish(), "HTTP/1.1 299 \r\n\r\n");
  }
  {
    ResponseHead head(buffer);
    head.Status(999);
    EXPECT_EQ(head.Finish(), "HTTP/1.1 999 \r\n\r\n");
  }
  for (int status : {-5, 0, 99, 1000}) {
    ResponseHead head(buffer);
    head.Status(status);
    EXPECT_TRUE(head.failed()) << status;
    EXPECT_EQ(head.Finish(), "") << status;
  }
}

TEST(ResponseHeadTest, RefusesWhatWouldSplitTheMessage) {
  using std::string_literals::operator""s;
  const std::vector<std::pair<std::string, std::string>> kFields = {
      {"Location", "/a\r\nSet-Cookie: b"},
      {"Location", "/a\nb"},
      {"Location", "/a\rb"},
      {"Location", "/a\0b"s},
      {"Location", "/a\x7f"},
      {"Loca tion", "/"},
      {"Location:", "/"},
      {"Location\r\nX", "/"},
      {"", "/"},
  };
  for (const auto& [name, value] : kFields) {
    char buffer[256];
    ResponseHead head(buffer);
    head.Status(302);
    head.Append(name, value);
    EXPECT_TRUE(head.failed()) << name << ": " << value;
    head.Append("A", "b");
    EXPECT_EQ(head.Finish(), "") << name << ": " << value;
  }
}

TEST(ResponseHeadTest, EverySizeOfBufferEitherHoldsAllOrFails) {
  const std::string expected =
      "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nA: bc\r\nD: e\r\n\r\n";
  for (size_t size = 0; size <= expected.size() + 2; ++size) {
    std::vector<char> buffer(size);  // exact, for the sanitizers
    ResponseHead head(buffer);
    head.Status(200);
    head.Append("Content-Length", 12);
    head.Append("A", "bc");
    head.AppendRaw("D: e\r\n");
    const std::string_view text = head.Finish();
    if (size < expected.size()) {
      EXPECT_EQ(text, "") << size;
      EXPECT_TRUE(head.failed()) << size;
    } else {
      EXPECT_EQ(text, expected) << size;
    }
  }
}

TEST(ResponseHeadTest, NothingFollowsAfterAFailure) {
  char buffer[40];
  ResponseHead head(buffer);
  head.Status(200);
  head.Append("Name", "a value that is too long for this buffer");
  const size_t size = head.size();
  head.Append("A", "b");
  head.AppendRaw("C");
  EXPECT_EQ(head.size(), size);
  EXPECT_EQ(head.Finish(), "");
}

TEST(WriteErrorResponseTest, WritesHeadAndPage) {
  char buffer[kMaxErrorResponse];
  ErrorResponse error;
  error.status = 405;
  error.date = "Sun, 06 Nov 1994 08:49:37 GMT";
  error.keep_alive = true;
  error.extra_fields = "Allow: GET, HEAD\r\n";
  const std::string body(ErrorBody(405));
  const std::string head =
      "HTTP/1.1 405 Method Not Allowed\r\n"
      "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
      "Content-Type: text/html\r\n"
      "Content-Length: " +
      std::to_string(body.size()) + "\r\n";
  const std::string end = "Allow: GET, HEAD\r\n\r\n";
  EXPECT_EQ(WriteErrorResponse(buffer, error), head + end + body);
  error.version_1_0 = true;
  EXPECT_EQ(WriteErrorResponse(buffer, error),
            head + "Connection: keep-alive\r\n" + end + body);
  error.keep_alive = false;
  EXPECT_EQ(WriteErrorResponse(buffer, error),
            head + "Connection: close\r\n" + end + body);
  error.head = true;
  EXPECT_EQ(WriteErrorResponse(buffer, error),
            head + "Connection: close\r\n" + end);
}

TEST(WriteErrorResponseTest, EveryErrorFitsTheNamedSize) {
  const std::string extra = "X: " + std::string(251, 'x') + "\r\n";
  for (int status = 400; status < 600; ++status) {
    if (ReasonPhrase(status).empty()) continue;
    char buffer[kMaxErrorResponse];
    ErrorResponse error;
    error.status = status;
    error.date = "Sun, 06 Nov 1994 08:49:37 GMT";
    error.keep_alive = error.version_1_0 = true;
    error.extra_fields = extra;
    EXPECT_FALSE(WriteErrorResponse(buffer, error).empty()) << status;
  }
}

TEST(WriteErrorResponseTest, FailsWhole) {
  char small[100];
  ErrorResponse error;
  error.status = 404;
  EXPECT_EQ(WriteErrorResponse(small, error), "");
  char buffer[kMaxErrorResponse];
  error.status = 200;
  EXPECT_EQ(WriteErrorResponse(buffer, error), "");
}

}  // namespace
}  // namespace kevent::http
