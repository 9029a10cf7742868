// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "server/http/parse_all_ways.h"
#include "server/http/parser.h"

namespace kevent::http {
namespace {

using Kind = ParseResult::Kind;

// A head of exactly `size` bytes.
std::string HeadOfSize(size_t size) {
  const std::string begin = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
  const std::string end = "\r\n\r\n";
  return begin + std::string(size - begin.size() - end.size(), 'x') + end;
}

Kind KindOf(std::string_view text, const Limits& limits, int* status) {
  Request r;
  const ParseResult result = ParseAllWays(text, limits, &r);
  *status = result.status;
  return result.kind;
}

TEST(LimitTest, RequestLine) {
  Limits limits;
  limits.request_line = 40;
  int status;
  for (const char* front : {"", "\r\n"}) {
    for (size_t size = 30; size < 50; ++size) {
      const std::string line =
          "GET /" + std::string(size - 14, 'x') + " HTTP/1.1";
      ASSERT_EQ(line.size(), size);
      const Kind kind =
          KindOf(front + line + "\r\nHost: a\r\n\r\n", limits, &status);
      EXPECT_EQ(kind, size <= 40 ? Kind::kDone : Kind::kError) << size;
      if (size > 40) {
        EXPECT_EQ(status, 414) << size;
      }
    }
  }
  // It need not end, nor be made of anything but a method.
  EXPECT_EQ(Status("GET /" + std::string(100, 'x'), limits), 414);
  EXPECT_EQ(Status(std::string(100, 'X'), limits), 414);
  // It is told by two bytes more than the limit.
  Request r;
  EXPECT_EQ(Parse("GET /" + std::string(37, 'x'), limits, &r).status, 414);
  EXPECT_EQ(Parse("GET /" + std::string(36, 'x'), limits, &r).kind,
            Kind::kNeedMore);
  // The first fault counts.
  EXPECT_EQ(Status("GET /" + std::string(20, 'x') + "\n", limits), 400);
  EXPECT_EQ(Status("GET /" + std::string(60, 'x') + "\n", limits), 414);
}

TEST(LimitTest, DefaultRequestLine) {
  const std::string end = " HTTP/1.0\r\n\r\n";
  Request r;
  const std::string fits = "GET /" + std::string(8192 - 14, 'x') + end;
  EXPECT_EQ(Parse(fits, Limits(), &r).kind, Kind::kDone);
  const std::string longer = "GET /" + std::string(8192 - 13, 'x') + end;
  EXPECT_EQ(Parse(longer, Limits(), &r).status, 414);
}

TEST(LimitTest, HeaderBytes) {
  Limits limits;
  limits.header_bytes = 100;
  int status;
  for (const char* front : {"", "\r\n"}) {
    for (size_t size = 90; size < 110; ++size) {
      const Kind kind = KindOf(front + HeadOfSize(size), limits, &status);
      EXPECT_EQ(kind, size <= 100 ? Kind::kDone : Kind::kError) << size;
      if (size > 100) {
        EXPECT_EQ(status, 431) << size;
      }
    }
  }
  const std::string endless =
      "GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(1000, 'x');
  EXPECT_EQ(Status(endless, limits), 431);
  // The documented size of buffer is enough to tell.
  Request r;
  EXPECT_EQ(Parse(endless.substr(0, 102), limits, &r).status, 431);
  EXPECT_EQ(Parse("\r\n" + endless.substr(0, 100), limits, &r).status, 431);
  // What follows the head does not count.
  EXPECT_EQ(
      Parse(HeadOfSize(100) + std::string(1000, 'x'), limits, &r).consumed,
      100u);
}

TEST(LimitTest, HeaderBytesAreClampedToWhatOffsetsHold) {
  Limits limits;
  limits.header_bytes = SIZE_MAX;
  limits.request_line = SIZE_MAX;
  limits.header_count = SIZE_MAX;
  Request r;
  const std::string fits = HeadOfSize(Limits::kMaxHeaderBytes);
  EXPECT_EQ(Parse(fits, limits, &r).kind, Kind::kDone);
  EXPECT_EQ(r.Find("x").size(), Limits::kMaxHeaderBytes - 32);
  const std::string longer = HeadOfSize(Limits::kMaxHeaderBytes + 1);
  EXPECT_EQ(Parse(longer, limits, &r).status, 431);
  const std::string line = "GET /" + std::string(70000, 'x');
  EXPECT_EQ(Parse(line, limits, &r).status, 414);
  // The last field as far back as it may be.
  std::string late = HeadOfSize(Limits::kMaxHeaderBytes - 6);
  late.insert(late.size() - 2, "Y: z\r\n");
  ASSERT_EQ(Parse(late, limits, &r).kind, Kind::kDone);
  EXPECT_EQ(r.Find("y"), "z");
}

TEST(LimitTest, HeaderCount) {
  auto head = [](size_t count) {
    std::string text = "GET / HTTP/1.1\r\nHost: a\r\n";
    for (size_t i = 1; i < count; ++i) {
      text += "F" + std::to_string(i) + ": " + std::to_string(i) + "\r\n";
    }
    return text + "\r\n";
  };
  const Request r = Good(head(100));
  EXPECT_EQ(r.field_count(), 100u);
  EXPECT_EQ(Status(head(101)), 431);
  Limits limits;
  limits.header_count = 3;
  Good(head(3), limits);
  EXPECT_EQ(Status(head(4), limits), 431);
  limits.header_count = 1000;
  const std::string most = head(Limits::kMaxHeaderCount);
  Request full;
  ASSERT_EQ(Parse(most, limits, &full).kind, Kind::kDone);
  EXPECT_EQ(full.Find("f127"), "127");
  EXPECT_EQ(Parse(head(Limits::kMaxHeaderCount + 1), limits, &full).status,
            431);
}

TEST(LimitTest, LimitsOfNothing) {
  Limits limits;
  limits.header_bytes = 0;
  EXPECT_EQ(Status("GET / HTTP/1.0\r\n\r\n", limits), 414);
  limits = Limits();
  limits.request_line = 0;
  EXPECT_EQ(Status("GET / HTTP/1.0\r\n\r\n", limits), 414);
  limits = Limits();
  limits.header_count = 0;
  EXPECT_EQ(Good("GET / HTTP/1.0\r\n\r\n", limits).field_count(), 0u);
  EXPECT_EQ(Status("GET / HTTP/1.0\r\nA: b\r\n\r\n", limits), 431);
}

TEST(IncrementalTest, AFaultIsFoundBeforeTheHeadEnds) {
  Request r;
  ParserState state;
  EXPECT_EQ(Parse("GET / HT", Limits(), &r, &state).kind, Kind::kNeedMore);
  // A client that ends its lines by LF waits for an answer already.
  EXPECT_EQ(Parse("GET / HTTP/1.1\nHost: a\n\n", Limits(), &r, &state).status,
            400);
  state = ParserState();
  EXPECT_EQ(
      Parse("GET / HTTP/1.1\r\nHost: a\r\nX: y", Limits(), &r, &state).kind,
      Kind::kNeedMore);
  EXPECT_EQ(Parse("GET / HTTP/1.1\r\nHost: a\r\nX: y\n\n", Limits(), &r, &state)
                .status,
            400);
}

TEST(IncrementalTest, SmallPiecesDoNotParseTheHeadAgainAndAgain) {
  // The worst the limits allow, byte by byte: parsing 64 KiB each time would
  // take minutes, searching the new bytes alone is a matter of milliseconds.
  Limits limits;
  limits.header_bytes = Limits::kMaxHeaderBytes;
  std::string text = "GET / HTTP/1.1\r\nHost: a\r\n";
  while (text.size() < 20000) text += "X: " + std::string(200, 'x') + "\r\n";
  text += "\r\n";
  ParserState state;
  Request r;
  size_t searched_again = 0;
  for (size_t size = 1; size < text.size(); ++size) {
    const uint32_t before = state.parsed;
    ASSERT_EQ(Parse({text.data(), size}, limits, &r, &state).kind,
              Kind::kNeedMore);
    if (state.parsed != before) searched_again += state.parsed;
  }
  EXPECT_LE(searched_again, 2 * text.size());
  EXPECT_EQ(Parse(text, limits, &r, &state).kind, Kind::kDone);
}

}  // namespace
}  // namespace kevent::http
