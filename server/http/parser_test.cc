// SPDX-License-Identifier: Apache-2.0
#include "server/http/parser.h"

#include <gtest/gtest.h>

#include <string>

#include "server/http/parse_all_ways.h"

namespace kevent::http {
namespace {

using Kind = ParseResult::Kind;
using std::string_literals::operator""s;

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

}  // namespace
}  // namespace kevent::http
