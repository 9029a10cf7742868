// SPDX-License-Identifier: Apache-2.0
#include "server/http/parse_all_ways.h"

#include <gtest/gtest.h>

#include <string>

namespace kevent::http {

using Kind = ParseResult::Kind;
using std::string_literals::operator""s;

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

Request Good(std::string_view text, const Limits& limits) {
  Request request;
  const ParseResult r = ParseAllWays(text, limits, &request);
  EXPECT_EQ(r.kind, Kind::kDone) << text << "\nstatus " << r.status;
  EXPECT_EQ(r.consumed, text.size()) << text;
  return request;
}

int Status(std::string_view text, const Limits& limits) {
  Request request;
  const ParseResult r = ParseAllWays(text, limits, &request);
  EXPECT_EQ(r.kind, Kind::kError) << text;
  return r.kind == Kind::kError ? r.status : 0;
}

}  // namespace kevent::http
