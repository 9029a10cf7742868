// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "server/http/exact.h"
#include "server/http/parse_all_ways.h"
#include "server/http/parser.h"

namespace kevent::http {
namespace {

using Kind = ParseResult::Kind;
using std::string_literals::operator""s;

// Each text stands after "GET / HTTP/1.1\r\nHost: a\r\n" and is followed by
// an empty line.
TEST(FieldTest, MalformedLines) {
  for (const std::string& lines : {
           // Line ends.
           "A: b\n"s,
           "A: b\r"s,
           "A: b\r\r\n"s,
           "A: b\n\r\n"s,
           "A: b\nC: d\r\n"s,
           "A: b\rC: d\r\n"s,
           "A: b\r\n\nC: d\r\n"s,
           "A: \r b\r\n"s,
           "A:\n"s,
           "A\r\n"s,
           "\n"s,
           "\r"s,
           // Folding and white space.
           " A: b\r\n"s,
           "\tA: b\r\n"s,
           "A: b\r\n c\r\n"s,
           "A: b\r\n\tc\r\n"s,
           "A:\r\n b\r\n"s,
           "A: b\r\n \r\n"s,
           "A : b\r\n"s,
           "A\t: b\r\n"s,
           "A B: c\r\n"s,
           "A\x0b: b\r\n"s,
           "\x0b"s + "A: b\r\n",
           // Names.
           ": b\r\n"s,
           "A\r\n: b\r\n"s,
           "(A): b\r\n"s,
           "A,B: c\r\n"s,
           "A/B: c\r\n"s,
           "A@B: c\r\n"s,
           "A[B]: c\r\n"s,
           "\"A\": c\r\n"s,
           "A\0B: c\r\n"s,
           "\0: c\r\n"s,
           "A\x7f: c\r\n"s,
           "\xc3\xa4: c\r\n"s,
           "A\x80: c\r\n"s,
           "no colon\r\n"s,
           // Values.
           "A: \0\r\n"s,
           "A: b\0c\r\n"s,
           "A: b\x01\r\n"s,
           "A: b\x08\r\n"s,
           "A: b\x0b\r\n"s,
           "A: b\x0c\r\n"s,
           "A: b\x1b\r\n"s,
           "A: b\x1f\r\n"s,
           "A: b\x7f\r\n"s,
       }) {
    EXPECT_EQ(Status("GET / HTTP/1.1\r\nHost: a\r\n" + lines + "\r\n"), 400)
        << lines;
    // The same far from the ends of the buffer.
    EXPECT_EQ(
        Status("GET / HTTP/1.1\r\nHost: a\r\nB: " + std::string(40, 'b') +
               "\r\n" + lines + "C: " + std::string(40, 'c') + "\r\n\r\n"),
        400)
        << lines;
  }
}

TEST(FieldTest, EveryByteAtEveryDistanceFromTheEnd) {
  for (int c = 0; c < 256; ++c) {
    const char byte = static_cast<char>(c);
    const bool in_value = c == '\t' || (c >= 0x20 && c != 0x7f);
    const bool in_name = IsToken({&byte, 1});
    for (size_t after = 0; after < 36; ++after) {
      const std::string pad(after, 'x');
      Request r;
      const Exact value("GET / HTTP/1.0\r\nA: b" + std::string(1, byte) + pad +
                        "y\r\n\r\n");
      EXPECT_EQ(Parse(value.view(), Limits(), &r).kind,
                in_value ? Kind::kDone : Kind::kError)
          << c << " " << after;
      if (c == ':') continue;
      const Exact name("GET / HTTP/1.0\r\nb" + std::string(1, byte) + pad +
                       ":\r\n\r\n");
      EXPECT_EQ(Parse(name.view(), Limits(), &r).kind,
                in_name ? Kind::kDone : Kind::kError)
          << c << " " << after;
      if (in_name) {
        EXPECT_EQ(r.field(0).name.size(), after + 2);
      }
    }
  }
}

TEST(FieldTest, EveryByteInTheTarget) {
  for (int c = 0; c < 256; ++c) {
    if (c == ' ') continue;
    const char byte = static_cast<char>(c);
    const bool good = c > 0x20 && c < 0x7f && c != '#';
    for (size_t after = 0; after < 36; ++after) {
      const Exact text("GET /" + std::string(1, byte) +
                       std::string(after, 'x') + " HTTP/1.0\r\n\r\n");
      Request r;
      EXPECT_EQ(Parse(text.view(), Limits(), &r).kind,
                good ? Kind::kDone : Kind::kError)
          << c << " " << after;
      if (good) {
        EXPECT_EQ(r.target.size(), after + 2);
      }
    }
  }
}

TEST(FieldTest, NamesLikeTheKnownOnesAreNotThem) {
  const char* kKnown[] = {"host",
                          "range",
                          "expect",
                          "if-match",
                          "if-range",
                          "connection",
                          "if-none-match",
                          "content-length",
                          "accept-encoding",
                          "if-modified-since",
                          "transfer-encoding",
                          "if-unmodified-since"};
  for (const std::string known : kKnown) {
    for (size_t i = 0; i < known.size(); ++i) {
      for (const char* other : {"_", "0", "!", "~", "^"}) {
        std::string name = known;
        name.replace(i, 1, other);
        const std::string text =
            "GET / HTTP/1.1\r\nHost: a\r\n" + name + ": bad value\r\n\r\n";
        Request r;
        ASSERT_EQ(Parse(text, Limits(), &r).kind, Kind::kDone) << name;
        EXPECT_EQ(r.host, "a");
        EXPECT_FALSE(r.chunked);
        EXPECT_FALSE(r.content_length.has_value());
        for (std::string_view v :
             {r.accept_encoding, r.if_match, r.if_none_match,
              r.if_modified_since, r.if_unmodified_since, r.if_range,
              r.range}) {
          EXPECT_EQ(v.data(), nullptr) << name;
        }
      }
    }
  }
}

TEST(FieldTest, HotFieldsInAnyCase) {
  const std::string text =
      "GET / HTTP/1.1\r\nHOST: a\r\nRANGE: r\r\nrange-x: -\r\nIF-MATCH: m\r\n"
      "iF-rANGE: ir\r\nIf-None-Match: nm\r\nACCEPT-encoding: ae\r\n"
      "if-modified-SINCE: ims\r\nIF-UNMODIFIED-SINCE: ius\r\n\r\n";
  const Request r = Good(text);
  EXPECT_EQ(r.range, "r");
  EXPECT_EQ(r.if_match, "m");
  EXPECT_EQ(r.if_range, "ir");
  EXPECT_EQ(r.if_none_match, "nm");
  EXPECT_EQ(r.accept_encoding, "ae");
  EXPECT_EQ(r.if_modified_since, "ims");
  EXPECT_EQ(r.if_unmodified_since, "ius");
}

TEST(FieldTest, RepeatedFields) {
  const std::string text =
      "GET / HTTP/1.1\r\nHost: a\r\n"
      "If-Match: 1\r\nIf-Match: 2\r\nIf-None-Match: 1\r\nIf-None-Match: 2\r\n"
      "Accept-Encoding: 1\r\nAccept-Encoding: 2\r\n"
      "Range: 1\r\nRange: 2\r\nIf-Range: 1\r\nIf-Range: 2\r\nIf-Range: 3\r\n"
      "If-Modified-Since: 1\r\nIf-Modified-Since: 1\r\n"
      "If-Unmodified-Since: 1\r\nIf-Unmodified-Since: 2\r\n\r\n";
  const Request r = Good(text);
  EXPECT_EQ(r.if_match, "1");
  EXPECT_EQ(r.if_none_match, "1");
  EXPECT_EQ(r.accept_encoding, "1");
  for (std::string_view v :
       {r.range, r.if_range, r.if_modified_since, r.if_unmodified_since}) {
    EXPECT_EQ(v, "");
    EXPECT_NE(v.data(), nullptr);
  }
  std::vector<std::string> values;
  EXPECT_TRUE(r.ForEachNamed("if-match", [&](std::string_view v) {
    values.emplace_back(v);
    return true;
  }));
  EXPECT_EQ(values, std::vector<std::string>({"1", "2"}));
  EXPECT_FALSE(
      r.ForEachNamed("IF-MATCH", [&](std::string_view) { return false; }));
}

TEST(ConnectionTest, KeepAliveByVersionAndField) {
  const struct {
    const char* version;
    const char* fields;
    bool keep_alive;
  } kCases[] = {
      {"1.1", "", true},
      {"1.0", "", false},
      {"1.1", "Connection: close\r\n", false},
      {"1.1", "Connection: Close\r\n", false},
      {"1.1", "connection: keep-alive\r\n", true},
      {"1.0", "Connection: keep-alive\r\n", true},
      {"1.0", "Connection: Keep-Alive, x\r\n", true},
      {"1.0", "Connection: close\r\n", false},
      {"1.1", "Connection: x ,\tCLOSE , y\r\n", false},
      {"1.1", "Connection: x\r\nConnection: close\r\n", false},
      {"1.0", "Connection: keep-alive, close\r\n", false},
      {"1.1", "Connection: close, keep-alive\r\n", false},
      {"1.1", "Connection: closed\r\n", true},
      {"1.1", "Connection: not close\r\n", true},
      {"1.1", "Connection: \"close\"\r\n", true},
      {"1.1", "Connection:\r\n", true},
      {"1.1", "X-Connection: close\r\n", true},
      {"1.0", "Connection: keep-alive-not\r\n", false},
  };
  for (const auto& c : kCases) {
    EXPECT_EQ(
        Good("GET / HTTP/"s + c.version + "\r\nHost: a\r\n" + c.fields + "\r\n")
            .keep_alive,
        c.keep_alive)
        << c.version << " " << c.fields;
  }
}

TEST(ExpectTest, ContinueIsOfHttp11) {
  auto continues = [](const char* version, const char* value) {
    return Good("PUT / HTTP/"s + version + "\r\nHost: a\r\nExpect: " + value +
                "\r\n\r\n")
        .expect_continue;
  };
  EXPECT_TRUE(continues("1.1", "100-continue"));
  EXPECT_TRUE(continues("1.1", "100-Continue"));
  EXPECT_TRUE(continues("1.1", "x, 100-continue"));
  EXPECT_FALSE(continues("1.0", "100-continue"));
  EXPECT_FALSE(continues("1.1", "100-continued"));
  EXPECT_FALSE(continues("1.1", ""));
}

TEST(FramingTest, Valid) {
  auto parse = [](const std::string& fields) {
    return Good("POST / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n");
  };
  EXPECT_EQ(parse("Content-Length: 0\r\n").content_length, 0u);
  EXPECT_EQ(parse("content-LENGTH:\t 42 \t\r\n").content_length, 42u);
  EXPECT_EQ(parse("Content-Length: 007\r\n").content_length, 7u);
  EXPECT_EQ(parse("Content-Length: 9223372036854775807\r\n").content_length,
            static_cast<uint64_t>(INT64_MAX));
  EXPECT_TRUE(parse("Transfer-Encoding: chunked\r\n").chunked);
  EXPECT_TRUE(parse("transfer-encoding:\tCHUNKED \r\n").chunked);
  EXPECT_FALSE(parse("Transfer-Encoding: chunked\r\n").content_length);
  EXPECT_EQ(Good("POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\n").content_length,
            5u);
}

// Inputs by which requests are smuggled past a reader that sees other limits
// between messages than we do. Each stands among the fields of an HTTP/1.1
// request.
TEST(FramingTest, Smuggling) {
  const struct {
    std::string fields;
    int status;
  } kCases[] = {
      // Content-Length beside Transfer-Encoding, in both orders.
      {"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400},
      {"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400},
      {"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", 400},
      {"Content-Length: 5\r\nTransfer-Encoding: identity\r\n", 400},
      {"Content-Length: 5\r\nTransfer-Encoding:\r\n", 400},
      {"Content-Length: 5\r\nTransfer-Encoding: gzip, chunked\r\n", 400},
      // More than one length.
      {"Content-Length: 5\r\nContent-Length: 6\r\n", 400},
      {"Content-Length: 5\r\nContent-Length: 5\r\n", 400},
      {"Content-Length: 5\r\ncontent-length: 0\r\n", 400},
      {"Content-Length: 5, 5\r\n", 400},
      {"Content-Length: 5,6\r\n", 400},
      {"Content-Length: ,5\r\n", 400},
      {"Content-Length: 5,\r\n", 400},
      // Lengths that are no number of digits.
      {"Content-Length:\r\n", 400},
      {"Content-Length: \t\r\n", 400},
      {"Content-Length: +5\r\n", 400},
      {"Content-Length: -5\r\n", 400},
      {"Content-Length: -0\r\n", 400},
      {"Content-Length: 0x5\r\n", 400},
      {"Content-Length: 5h\r\n", 400},
      {"Content-Length: 5 6\r\n", 400},
      {"Content-Length: 5.0\r\n", 400},
      {"Content-Length: 1e1\r\n", 400},
      {"Content-Length: 1_0\r\n", 400},
      {"Content-Length: \"5\"\r\n", 400},
      {"Content-Length: 5;\r\n", 400},
      {"Content-Length: 5\v\r\n", 400},
      {"Content-Length: \xb2\r\n", 400},
      {"Content-Length: \xef\xbc\x95\r\n", 400},
      {"Content-Length: 5\0\r\n"s, 400},
      // Lengths past 63 and 64 bits.
      {"Content-Length: 9223372036854775808\r\n", 400},
      {"Content-Length: 18446744073709551615\r\n", 400},
      {"Content-Length: 18446744073709551616\r\n", 400},
      {"Content-Length: 18446744073709551621\r\n", 400},
      {"Content-Length: 99999999999999999999999999999999\r\n", 400},
      // Names that only look like it.
      {"Content-Length : 5\r\n", 400},
      {"Content-Length\t: 5\r\n", 400},
      {" Content-Length: 5\r\n", 400},
      {"Content-Length\v: 5\r\n", 400},
      {"Content-Length\0: 5\r\n"s, 400},
      {"Content-Length\xa0: 5\r\n", 400},
      {"Content Length: 5\r\n", 400},
      {"Transfer-Encoding : chunked\r\n", 400},
      {"Transfer-Encoding\t: chunked\r\n", 400},
      {"Transfer-Encoding\r\n: chunked\r\n", 400},
      {" Transfer-Encoding: chunked\r\n", 400},
      {"X: y\n Transfer-Encoding: chunked\r\n", 400},
      {"\x01Transfer-Encoding: chunked\r\n", 400},
      // Folded into another field, or out of it.
      {"X: y\r\n Transfer-Encoding: chunked\r\n", 400},
      {"Transfer-Encoding:\r\n chunked\r\n", 400},
      {"Transfer-Encoding: x\r\n\tchunked\r\n", 400},
      {"X: y\nTransfer-Encoding: chunked\r\n", 400},
      {"X: y\rTransfer-Encoding: chunked\r\n", 400},
      {"X: y\r\rTransfer-Encoding: chunked\r\n", 400},
      {"X: y\0\r\nTransfer-Encoding: chunked\r\n"s, 400},
      {"Transfer-Encoding: chunked\r\rX: y\r\n", 400},
      {"Transfer-Encoding: chunked\nX: y\r\n", 400},
      // Values that only look like it.
      {"Transfer-Encoding: \vchunked\r\n", 400},
      {"Transfer-Encoding: chunked\v\r\n", 400},
      {"Transfer-Encoding: chunked\0\r\n"s, 400},
      {"Transfer-Encoding: \x01"s + "chunked\r\n", 400},
      {"Transfer-Encoding: \xa0"s + "chunked\r\n", 400},
      {"Transfer-Encoding: chunked\xa0\r\n", 400},
      {"Transfer-Encoding: \"chunked\"\r\n", 400},
      {"Transfer-Encoding: 'chunked'\r\n", 400},
      {"Transfer-Encoding: chunked;\r\n", 400},
      {"Transfer-Encoding: chunked;q=1\r\n", 400},
      {"Transfer-Encoding: chunked ; a=b\r\n", 400},
      {"Transfer-Encoding: chun ked\r\n", 400},
      {"Transfer-Encoding: x chunked\r\n", 400},
      {"Transfer-Encoding: chunked x\r\n", 400},
      {"Transfer-Encoding: xchunked\r\n", 400},
      {"Transfer-Encoding: chunkedx\r\n", 400},
      {"Transfer-Encoding: chunke\r\n", 400},
      {"Transfer-Encoding:\r\n", 400},
      {"Transfer-Encoding: ,\r\n", 400},
      {"Transfer-Encoding: chunked,\r\n", 400},
      {"Transfer-Encoding: ,chunked\r\n", 400},
      {"Transfer-Encoding: {chunked}\r\n", 400},
      // Chunked not last, or twice: the end of the body is unknown.
      {"Transfer-Encoding: identity\r\n", 400},
      {"Transfer-Encoding: gzip\r\n", 400},
      {"Transfer-Encoding: chunked, identity\r\n", 400},
      {"Transfer-Encoding: chunked, gzip\r\n", 400},
      {"Transfer-Encoding: chunked, chunked\r\n", 400},
      {"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400},
      {"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", 400},
      {"Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n", 400},
      {"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", 400},
      // Chunked over a coding we do not have.
      {"Transfer-Encoding: gzip, chunked\r\n", 501},
      {"Transfer-Encoding: identity, chunked\r\n", 501},
      {"Transfer-Encoding: x;a=b, Chunked\r\n", 501},
      {"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 501},
      {"Transfer-Encoding: identity\r\nX: y\r\ntransfer-encoding: chunked\r\n",
       501},
  };
  for (const auto& c : kCases) {
    EXPECT_EQ(Status("POST / HTTP/1.1\r\nHost: a\r\n" + c.fields + "\r\n"),
              c.status)
        << c.fields;
    EXPECT_EQ(Status("GET /x HTTP/1.1\r\n" + c.fields + "Host: a\r\n\r\n"),
              c.status)
        << c.fields;
  }
}

TEST(FramingTest, TransferEncodingIsNotOfHttp10) {
  for (const char* fields :
       {"Transfer-Encoding: chunked\r\n", "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n"}) {
    EXPECT_EQ(Status("POST / HTTP/1.0\r\nHost: a\r\n"s + fields + "\r\n"), 400)
        << fields;
  }
}

}  // namespace
}  // namespace kevent::http
