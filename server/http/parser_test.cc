// SPDX-License-Identifier: Apache-2.0
#include "server/http/parser.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

namespace kevent::http {
namespace {

using Kind = ParseResult::Kind;
using std::string_literals::operator""s;

// A copy in memory of its exact size: the sanitizers see any byte read beyond
// it.
class Exact {
 public:
  explicit Exact(std::string_view text)
      : bytes_(new char[text.size()]), size_(text.size()) {
    text.copy(bytes_.get(), size_);
  }
  std::string_view view() const { return {bytes_.get(), size_}; }

 private:
  std::unique_ptr<char[]> bytes_;
  size_t size_;
};

// What a request is, with texts of its own.
std::string Describe(const Request& r) {
  auto optional = [](std::string_view text) {
    return text.data() == nullptr ? "-"s : "'" + std::string(text) + "'";
  };
  std::string all = MethodName(r.method).empty()
                        ? "other"s
                        : std::string(MethodName(r.method));
  all += " " + optional(r.raw_method) + " " + optional(r.target) + " path " +
         optional(r.path) + " query " + optional(r.query) + " host " +
         optional(r.host) + " 1." + std::to_string(r.version_minor);
  if (r.keep_alive) all += " keep-alive";
  if (r.chunked) all += " chunked";
  if (r.expect_continue) all += " continue";
  if (r.content_length) all += " length " + std::to_string(*r.content_length);
  for (std::string_view v :
       {r.accept_encoding, r.if_match, r.if_none_match, r.if_modified_since,
        r.if_unmodified_since, r.if_range, r.range}) {
    all += " " + optional(v);
  }
  for (size_t i = 0; i < r.field_count(); ++i) {
    all += "\n" + std::string(r.field(i).name) + "=" +
           std::string(r.field(i).value);
  }
  return all;
}

// The outcome for the whole text, after checking that every prefix and every
// way of arriving in two parts or byte by byte has the same.
ParseResult ParseAllWays(std::string_view text, const Limits& limits,
                         Request* request) {
  const ParseResult whole = Parse(text, limits, request);
  const std::string description =
      whole.kind == Kind::kDone ? Describe(*request) : ""s;
  EXPECT_LE(whole.consumed, text.size());

  auto check = [&](const ParseResult& r, const Request& parsed, size_t size,
                   bool final) {
    if (r.kind == Kind::kNeedMore && !final) return;
    EXPECT_EQ(static_cast<int>(r.kind), static_cast<int>(whole.kind))
        << size << " bytes of: " << text;
    EXPECT_EQ(r.status, whole.status) << size << " bytes of: " << text;
    EXPECT_EQ(r.consumed, whole.consumed) << size << " bytes of: " << text;
    if (r.kind == Kind::kDone) {
      EXPECT_EQ(Describe(parsed), description);
    }
  };

  for (size_t size = 0; size <= text.size(); ++size) {
    const Exact prefix(text.substr(0, size));
    Request parsed;
    ParserState state;
    const ParseResult first = Parse(prefix.view(), limits, &parsed, &state);
    if (whole.kind == Kind::kDone) {
      EXPECT_EQ(first.kind == Kind::kDone, size >= whole.consumed) << size;
    }
    check(first, parsed, size, size == text.size());
    if (first.kind != Kind::kNeedMore) continue;
    // With a state a fault may show only once more bytes have come.
    const Exact all(text);
    check(Parse(all.view(), limits, &parsed, &state), parsed, text.size(),
          whole.kind == Kind::kDone);
  }

  ParserState state;
  Request parsed;
  for (size_t size = 0; size <= text.size(); ++size) {
    const Exact prefix(text.substr(0, size));
    const ParseResult r = Parse(prefix.view(), limits, &parsed, &state);
    check(r, parsed, size, whole.kind == Kind::kDone && size == whole.consumed);
    if (r.kind != Kind::kNeedMore) break;
  }
  return whole;
}

// The request that `text` is; its views are into `text`.
Request Good(std::string_view text, const Limits& limits = Limits()) {
  Request request;
  const ParseResult r = ParseAllWays(text, limits, &request);
  EXPECT_EQ(r.kind, Kind::kDone) << text << "\nstatus " << r.status;
  EXPECT_EQ(r.consumed, text.size()) << text;
  return request;
}

int Status(std::string_view text, const Limits& limits = Limits()) {
  Request request;
  const ParseResult r = ParseAllWays(text, limits, &request);
  EXPECT_EQ(r.kind, Kind::kError) << text;
  return r.kind == Kind::kError ? r.status : 0;
}

TEST(ParseTest, TakesARequestApart) {
  const std::string text =
      "GET /a/b%20c?x=1&y=?2 HTTP/1.1\r\n"
      "Host: www.example.org:8080\r\n"
      "User-Agent: curl/7.88.1 (a \"comment\")\r\n"
      "Accept-Encoding:gzip, br\r\n"
      "X_Odd!#$%&'*+.^`|~9:  \t two  words \t \r\n"
      "Empty:\r\n"
      "Empty-Too: \t\r\n"
      "Obs: \xfc\xff\r\n"
      "\r\n";
  const Request r = Good(text);
  EXPECT_EQ(r.method, Method::kGet);
  EXPECT_EQ(r.raw_method, "GET");
  EXPECT_EQ(r.target, "/a/b%20c?x=1&y=?2");
  EXPECT_EQ(r.path, "/a/b%20c");
  EXPECT_EQ(r.query, "x=1&y=?2");
  EXPECT_EQ(r.host, "www.example.org:8080");
  EXPECT_EQ(r.HostName(), "www.example.org");
  EXPECT_EQ(r.version_minor, 1);
  EXPECT_TRUE(r.keep_alive);
  EXPECT_FALSE(r.chunked);
  EXPECT_FALSE(r.expect_continue);
  EXPECT_FALSE(r.content_length.has_value());
  EXPECT_EQ(r.accept_encoding, "gzip, br");
  EXPECT_EQ(r.range.data(), nullptr);
  ASSERT_EQ(r.field_count(), 7u);
  EXPECT_EQ(r.field(0).name, "Host");
  EXPECT_EQ(r.field(3).name, "X_Odd!#$%&'*+.^`|~9");
  EXPECT_EQ(r.field(3).value, "two  words");
  EXPECT_EQ(r.Find("uSER-aGENT"), "curl/7.88.1 (a \"comment\")");
  EXPECT_EQ(r.Find("empty"), "");
  EXPECT_NE(r.Find("empty").data(), nullptr);
  EXPECT_EQ(r.Find("empty-too"), "");
  EXPECT_EQ(r.Find("obs"), "\xfc\xff");
  EXPECT_EQ(r.Find("absent").data(), nullptr);
  EXPECT_EQ(r.Find("").data(), nullptr);
}

TEST(ParseTest, StopsAtTheEndOfTheHead) {
  const std::string head = "POST / HTTP/1.1\r\nHost: a\r\n\r\n";
  Request r;
  const ParseResult result =
      ParseAllWays(head + "\r\n\0garbage\r\n\r\n"s, Limits(), &r);
  EXPECT_EQ(result.kind, Kind::kDone);
  EXPECT_EQ(result.consumed, head.size());
}

TEST(ParseTest, ARequestObjectServesAnyNumberOfRequests) {
  Request r;
  const std::string rich =
      "POST http://b/x?y HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n"
      "If-Match: *\r\nIf-None-Match: *\r\nIf-Range: \"a\"\r\nRange: x\r\n"
      "If-Modified-Since: x\r\nIf-Unmodified-Since: y\r\n"
      "Accept-Encoding: gzip\r\nConnection: keep-alive\r\n\r\n";
  const std::string chunked =
      "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
      "Expect: 100-continue\r\n\r\n";
  const std::string poor = "BREW / HTTP/1.1\r\nHost:\r\n\r\n";
  Request fresh;
  ASSERT_EQ(Parse(poor, Limits(), &fresh).kind, Kind::kDone);
  ASSERT_EQ(Parse(rich, Limits(), &r).kind, Kind::kDone);
  ASSERT_EQ(Parse(chunked, Limits(), &r).kind, Kind::kDone);
  ASSERT_EQ(Parse(poor, Limits(), &r).kind, Kind::kDone);
  EXPECT_EQ(Describe(r), Describe(fresh));
}

TEST(ParseTest, AnErrorTellsMethodAndTargetForTheLog) {
  Request r;
  ASSERT_EQ(Parse("GET /a HTTP/9.1\r\n", Limits(), &r).status, 505);
  EXPECT_EQ(r.raw_method, "GET");
  EXPECT_EQ(r.target, "/a");
  ASSERT_EQ(Parse("PUT /\x01", Limits(), &r).status, 400);
  EXPECT_EQ(r.method, Method::kPut);
  EXPECT_EQ(r.target, "");
  ASSERT_EQ(Parse("\x16\x03\x01", Limits(), &r).status, 400);
  EXPECT_EQ(r.raw_method, "");
}

TEST(RequestLineTest, Methods) {
  EXPECT_EQ(Good("HEAD / HTTP/1.0\r\n\r\n").method, Method::kHead);
  EXPECT_EQ(Good("DELETE / HTTP/1.0\r\n\r\n").method, Method::kDelete);
  const Request r = Good("M-SEARCH! / HTTP/1.0\r\n\r\n");
  EXPECT_EQ(r.method, Method::kOther);
  EXPECT_EQ(r.raw_method, "M-SEARCH!");
  EXPECT_EQ(Good("get / HTTP/1.0\r\n\r\n").method, Method::kOther);
  EXPECT_EQ(Good("GETX / HTTP/1.0\r\n\r\n").method, Method::kOther);
}

TEST(RequestLineTest, Versions) {
  EXPECT_EQ(Good("GET / HTTP/1.0\r\n\r\n").version_minor, 0);
  EXPECT_EQ(Good("GET / HTTP/1.1\r\nHost: a\r\n\r\n").version_minor, 1);
  // A higher minor version is as much as the one we know.
  EXPECT_EQ(Good("GET / HTTP/1.9\r\nHost: a\r\n\r\n").version_minor, 1);
  EXPECT_EQ(Status("GET / HTTP/1.9\r\n\r\n"), 400);
  for (const char* version : {"0.9", "2.0", "3.0", "9.9", "0.0"}) {
    EXPECT_EQ(Status("GET / HTTP/"s + version + "\r\nHost: a\r\n\r\n"), 505)
        << version;
  }
  // The preface of HTTP/2, RFC 9113 section 3.4.
  EXPECT_EQ(Status("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
}

TEST(RequestLineTest, Malformed) {
  for (const std::string& line : {
           "GET / HTTP/1.1 "s,
           "GET / HTTP/1.1\t"s,
           "GET / http/1.1"s,
           "GET / Http/1.1"s,
           "GET / HTTP/11"s,
           "GET / HTTP/1.10"s,
           "GET / HTTP/01.1"s,
           "GET / HTTP/1"s,
           "GET / HTTP/1."s,
           "GET / HTTP/.1"s,
           "GET / HTTP/1,1"s,
           "GET / HTTP/+1.1"s,
           "GET / HTTP /1.1"s,
           "GET / HTTPS/1.1"s,
           "GET / ICY/1.1"s,
           "GET /"s,
           "GET / "s,
           "GET"s,
           "GET "s,
           ""s,
           " GET / HTTP/1.1"s,
           "\tGET / HTTP/1.1"s,
           "GET  / HTTP/1.1"s,
           "GET /  HTTP/1.1"s,
           "GET\t/ HTTP/1.1"s,
           "GET /\tHTTP/1.1"s,
           "GET  HTTP/1.1"s,
           "GET HTTP/1.1"s,
           "GET /a b HTTP/1.1"s,
           "GET /\0 HTTP/1.1"s,
           "GET /a\x01 HTTP/1.1"s,
           "GET /a\x7f HTTP/1.1"s,
           "GET /\xc3\xa4 HTTP/1.1"s,
           "GET /?\xc3\xa4 HTTP/1.1"s,
           "GET /a#b HTTP/1.1"s,
           "GET /?a#b HTTP/1.1"s,
           "GET / HTTP/1.1\r"s,
           "GET /\rHTTP/1.1"s,
           "GET /\r\nHTTP/1.1"s,
           "G\0T / HTTP/1.1"s,
           "G(T / HTTP/1.1"s,
           "G\xc4T / HTTP/1.1"s,
           "GET: / HTTP/1.1"s,
           "\xef\xbb\xbfGET / HTTP/1.1"s,
           "\x16\x03\x01\x02"s,
       }) {
    EXPECT_EQ(Status(line + "\r\nHost: a\r\n\r\n"), 400) << line;
  }
}

TEST(RequestLineTest, OneEmptyLineMayPrecede) {
  Good("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(Status("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(Status("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(Status("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(Status("\r\n GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
}

TEST(TargetTest, OriginForm) {
  Request r = Good("GET / HTTP/1.0\r\n\r\n");
  EXPECT_EQ(r.path, "/");
  EXPECT_EQ(r.query.data(), nullptr);
  EXPECT_EQ(r.host.data(), nullptr);
  r = Good("GET /? HTTP/1.0\r\n\r\n");
  EXPECT_EQ(r.path, "/");
  EXPECT_NE(r.query.data(), nullptr);
  EXPECT_EQ(r.query, "");
  r = Good("GET //evil.example/..;/%00|\"<>\\^`{} HTTP/1.0\r\nHost: a\r\n\r\n");
  EXPECT_EQ(r.path, "//evil.example/..;/%00|\"<>\\^`{}");
  EXPECT_EQ(r.host, "a");
  r = Good("GET /a?http://b/ HTTP/1.0\r\n\r\n");
  EXPECT_EQ(r.path, "/a");
  EXPECT_EQ(r.query, "http://b/");
}

TEST(TargetTest, AbsoluteFormOverridesHost) {
  const struct {
    const char* target;
    const char* host;
    const char* path;
    const char* query;
  } kCases[] = {
      {"http://b.example/", "b.example", "/", nullptr},
      {"http://b.example:81/x/y?z", "b.example:81", "/x/y", "z"},
      {"HTTPS://b.example/x", "b.example", "/x", nullptr},
      {"hTTp://b.example", "b.example", "/", nullptr},
      {"http://b.example?a/b", "b.example", "/", "a/b"},
      {"http://b.example/?", "b.example", "/", ""},
      {"http://[::1]:80/x", "[::1]:80", "/x", nullptr},
      {"http://b.example/http://c/", "b.example", "/http://c/", nullptr},
      {"http://b.example/a@b", "b.example", "/a@b", nullptr},
  };
  for (const auto& c : kCases) {
    for (const char* before : {"Host: a\r\nX: y\r\n", "X: y\r\nHost: a\r\n"}) {
      const std::string text =
          "GET "s + c.target + " HTTP/1.1\r\n" + before + "\r\n";
      Request r;
      ASSERT_EQ(ParseAllWays(text, Limits(), &r).kind, Kind::kDone) << text;
      EXPECT_EQ(r.host, c.host) << c.target;
      EXPECT_EQ(r.path, c.path) << c.target;
      EXPECT_EQ(r.query.data() == nullptr, c.query == nullptr) << c.target;
      EXPECT_EQ(r.query, c.query == nullptr ? "" : c.query) << c.target;
      // The path may be a byte of another part, but it is one of the target's.
      EXPECT_GE(r.path.data(), r.target.data());
    }
  }
  // Host is required beside it all the same.
  EXPECT_EQ(Status("GET http://b/ HTTP/1.1\r\n\r\n"), 400);
  EXPECT_EQ(Status("GET http://b/ HTTP/1.1\r\nHost: a b\r\n\r\n"), 400);
}

TEST(TargetTest, MalformedAbsoluteForm) {
  for (const char* target : {
           "http:/a",
           "http:a",
           "http:///x",
           "http://",
           "http://:80/",
           "http://?x",
           "http://user@b/",
           "http://user:pass@b/",
           "http://b:x/",
           "http://b:65536/",
           "http://b:80:80/",
           "http://b|c/",
           "http://b\\c/",
           "http://b%zz/",
           "http://b%2/",
           "http://[::1/",
           "http://[::1]x/",
           "http://::1/",
           "ftp://b/",
           "://b/",
           "b/c",
           "b",
           "b.example:80",
           "mailto:a",
           "?x",
           "x?http://b/",
           "%2f",
           "\\",
       }) {
    EXPECT_EQ(Status("GET "s + target + " HTTP/1.1\r\nHost: a\r\n\r\n"), 400)
        << target;
  }
}

TEST(TargetTest, AsteriskFormIsForOptionsAlone) {
  const Request r = Good("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(r.path, "*");
  EXPECT_EQ(r.query.data(), nullptr);
  EXPECT_EQ(Good("OPTIONS /x HTTP/1.1\r\nHost: a\r\n\r\n").path, "/x");
  EXPECT_EQ(Status("GET * HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(Status("options * HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(Status("OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(Status("OPTIONS *? HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(Status("OPTIONS */x HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
}

TEST(TargetTest, AuthorityFormIsForConnectAlone) {
  const Request r = Good("CONNECT b.example:443 HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(r.method, Method::kConnect);
  EXPECT_EQ(r.host, "b.example:443");
  EXPECT_EQ(r.path, "");
  Good("CONNECT [::1]:443 HTTP/1.1\r\nHost: a\r\n\r\n");
  for (const char* target :
       {"/", "*", "b.example", "b.example:", ":443", "http://b.example:443/",
        "b.example:443/", "b.example:443?x", "b.example:x", "u@b.example:443",
        "[]:443", "[::1]443", "[::1"}) {
    EXPECT_EQ(Status("CONNECT "s + target + " HTTP/1.1\r\nHost: a\r\n\r\n"),
              400)
        << target;
  }
  EXPECT_EQ(Status("GET b.example:443 HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
}

TEST(HostTest, ValidValues) {
  const struct {
    const char* value;
    const char* name;
  } kCases[] = {
      {"a", "a"},
      {"", ""},
      {"a.example.", "a.example."},
      {"a.example:80", "a.example"},
      {"a.example:", "a.example"},
      {"a:65535", "a"},
      {"127.0.0.1:8080", "127.0.0.1"},
      {"[::1]", "[::1]"},
      {"[::1]:8080", "[::1]"},
      {"[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]"},
      {"[v1.a:b]:80", "[v1.a:b]"},
      {"a_b~c", "a_b~c"},
      {"%c3%A4", "%c3%A4"},
      {"xn--4ca.example", "xn--4ca.example"},
  };
  for (const auto& c : kCases) {
    const std::string text =
        "GET / HTTP/1.1\r\nhOsT:\t"s + c.value + "\r\n\r\n";
    const Request r = Good(text);
    EXPECT_EQ(r.host, c.value);
    EXPECT_NE(r.host.data(), nullptr);
    EXPECT_EQ(r.HostName(), c.name);
  }
}

TEST(HostTest, InvalidValues) {
  for (const char* value : {
           "a b",
           "a,b ,c",
           "a/b",
           "a?b",
           "a@b",
           "a\\b",
           "http://a",
           "a:b",
           "a:80:80",
           "a:-1",
           "a:+80",
           "a:65536",
           "a:99999999999999999999",
           "a:80 ,b",
           "::1",
           "[::1",
           "::1]",
           "[]",
           "[1]",
           "[::g]",
           "[:::1]",
           "[1:2:3:4:5:6:7:8:9]",
           "[::1%25eth0]",
           "[::1]a",
           "[::1]]",
           "[[::1]]",
           "[v1]",
           "[v.a]",
           "[vg.a]",
           "[v1.]",
           "[v1.a/b]",
           "%",
           "%4",
           "%zz",
           "a\"b",
           "<a>",
           "a\tb",
           "\xc3\xa4",
       }) {
    EXPECT_EQ(Status("GET / HTTP/1.1\r\nHost: "s + value + "\r\n\r\n"), 400)
        << value;
    EXPECT_EQ(Status("GET / HTTP/1.0\r\nHost: "s + value + "\r\n\r\n"), 400)
        << value;
  }
}

TEST(HostTest, ExactlyOneInHttp11AndAtMostOneInHttp10) {
  EXPECT_EQ(Status("GET / HTTP/1.1\r\n\r\n"), 400);
  EXPECT_EQ(Status("GET / HTTP/1.1\r\nX-Host: a\r\n\r\n"), 400);
  EXPECT_EQ(Status("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(Status("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nhost: b\r\n\r\n"),
            400);
  EXPECT_EQ(Status("GET / HTTP/1.1\r\nHost:\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(Status("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(Status("GET http://b/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
            400);
  Good("GET / HTTP/1.0\r\n\r\n");
}

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
