// SPDX-License-Identifier: Apache-2.0
// Entry of libFuzzer for everything that reads bytes from the network. The
// first two bytes of an input choose limits and splits, the rest is the text.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>

#include "server/http/body.h"
#include "server/http/conditional.h"
#include "server/http/date.h"
#include "server/http/exact.h"
#include "server/http/message.h"
#include "server/http/parser.h"
#include "server/http/range.h"
#include "server/http/response.h"

namespace kevent::http {
namespace {

// Holds in every build, unlike assert.
#define REQUIRE(condition)                                                 \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                        \
    }                                                                      \
  } while (false)

using Kind = ParseResult::Kind;

void RequireInside(std::string_view part, std::string_view whole) {
  if (part.data() == nullptr) return;
  const std::less_equal<const char*> before;
  REQUIRE(before(whole.data(), part.data()));
  REQUIRE(before(part.data() + part.size(), whole.data() + whole.size()));
}

// Texts and positions of every part: equal if and only if two buffers with the
// same bytes were parsed the same.
std::string Describe(const Request& r, std::string_view buffer) {
  std::string all;
  auto add = [&](std::string_view part) {
    RequireInside(part, buffer);
    all += part.data() == nullptr
               ? "-"
               : std::to_string(part.data() - buffer.data()) + "+" +
                     std::to_string(part.size());
    all += ' ';
  };
  for (std::string_view part :
       {r.raw_method, r.target, r.path, r.query, r.host, r.HostName(),
        r.accept_encoding, r.if_match, r.if_none_match, r.if_modified_since,
        r.if_unmodified_since, r.if_range, r.range}) {
    add(part);
  }
  for (size_t i = 0; i < r.field_count(); ++i) {
    add(r.field(i).name);
    add(r.field(i).value);
  }
  for (uint64_t number :
       {static_cast<uint64_t>(r.method), uint64_t{r.version_minor},
        uint64_t{r.keep_alive}, uint64_t{r.chunked},
        uint64_t{r.expect_continue}, r.content_length.value_or(UINT64_MAX)}) {
    all += std::to_string(number) + " ";
  }
  return all;
}

// What holds for every head that is accepted, seen the slow and simple way.
void CheckAccepted(const Request& r, std::string_view head,
                   const Limits& limits) {
  if (head.substr(0, 2) == "\r\n") head.remove_prefix(2);
  REQUIRE(head.size() <= limits.header_bytes);
  REQUIRE(head.find("\r\n\r\n") == head.size() - 4);
  size_t hosts = 0, lengths = 0, codings = 0, fields = 0;
  bool first = true;
  while (head != "\r\n") {
    const size_t end = head.find("\r\n");
    const std::string_view line = head.substr(0, end);
    head.remove_prefix(end + 2);
    REQUIRE(IsFieldValue(line));
    if (first) {
      first = false;
      REQUIRE(line.size() <= limits.request_line);
      REQUIRE(std::count(line.begin(), line.end(), ' ') == 2);
      REQUIRE(line.find('\t') == std::string_view::npos);
      REQUIRE(r.target.find('#') == std::string_view::npos);
      continue;
    }
    const size_t colon = line.find(':');
    REQUIRE(colon != std::string_view::npos);
    const std::string_view name = line.substr(0, colon);
    REQUIRE(IsToken(name));
    REQUIRE(r.field(fields).name == name);
    REQUIRE(r.field(fields).value == TrimOws(line.substr(colon + 1)));
    ++fields;
    hosts += EqualsIgnoreCase(name, "host");
    lengths += EqualsIgnoreCase(name, "content-length");
    if (EqualsIgnoreCase(name, "transfer-encoding")) {
      ++codings;
      REQUIRE(EqualsIgnoreCase(TrimOws(line.substr(colon + 1)), "chunked"));
    }
  }
  REQUIRE(fields == r.field_count() && fields <= limits.header_count);
  REQUIRE(hosts == 1 || (hosts == 0 && r.version_minor == 0));
  REQUIRE(lengths + codings <= 1);
  REQUIRE(r.chunked == (codings == 1));
  REQUIRE(r.content_length.has_value() == (lengths == 1));
  REQUIRE(r.version_minor == 1 || codings == 0);
  REQUIRE(!r.path.empty() || r.method == Method::kConnect);
}

void CheckParse(std::string_view text, const Limits& limits, size_t step) {
  const Exact whole(text);
  Request request;
  const ParseResult expected = Parse(whole.view(), limits, &request);
  std::string description;
  switch (expected.kind) {
    case Kind::kDone:
      REQUIRE(expected.consumed <= text.size() && expected.status == 0);
      description = Describe(request, whole.view());
      CheckAccepted(request, whole.view().substr(0, expected.consumed), limits);
      break;
    case Kind::kNeedMore:
      REQUIRE(text.size() < limits.header_bytes + 2);
      break;
    case Kind::kError:
      REQUIRE(expected.status == 400 || expected.status == 414 ||
              expected.status == 431 || expected.status == 501 ||
              expected.status == 505);
      RequireInside(request.raw_method, whole.view());
      RequireInside(request.target, whole.view());
      break;
  }

  ParserState state;
  Request again;
  for (size_t size = std::min(step, text.size());;
       size = std::min(size + step, text.size())) {
    const Exact prefix(text.substr(0, size));
    const ParseResult alone = Parse(prefix.view(), limits, &request);
    if (alone.kind == Kind::kNeedMore) {
      REQUIRE(expected.kind != Kind::kDone || size < expected.consumed);
      REQUIRE(expected.kind == Kind::kNeedMore || size < text.size());
    } else {
      REQUIRE(alone.kind == expected.kind && alone.status == expected.status &&
              alone.consumed == expected.consumed);
    }
    const ParseResult kept = Parse(prefix.view(), limits, &again, &state);
    // An error alone may be noticed later with a state than without.
    REQUIRE(kept.kind == alone.kind ||
            (kept.kind == Kind::kNeedMore && alone.kind == Kind::kError));
    if (kept.kind == Kind::kDone) {
      REQUIRE(Describe(again, prefix.view()) == description);
      REQUIRE(kept.consumed == expected.consumed);
    }
    if (kept.kind != Kind::kNeedMore) {
      REQUIRE(kept.status == expected.status);
      break;
    }
    if (size == text.size()) break;
  }
}

struct Decoded {
  std::string data;
  size_t consumed = 0;
  bool done = false;
  int status = 0;
};

Decoded DecodeBy(BodyDecoder decoder, std::string_view text, size_t step) {
  Decoded all;
  do {
    const Exact piece(text.substr(0, step));
    text.remove_prefix(piece.view().size());
    std::string_view in = piece.view();
    do {
      const BodyDecoder::Result r = decoder.Decode(in);
      RequireInside(r.data, in);
      REQUIRE(r.consumed <= in.size() && r.data.size() <= in.size());
      REQUIRE(!(r.done && r.status != 0));
      REQUIRE(r.consumed > 0 || r.done || r.status != 0 || in.empty());
      all.data += r.data;
      all.consumed += r.consumed;
      all.done = r.done;
      all.status = r.status;
      in.remove_prefix(r.consumed);
    } while (!all.done && all.status == 0 && !in.empty());
  } while (!all.done && all.status == 0 && !text.empty());
  return all;
}

void CheckDecoder(const BodyDecoder& decoder, std::string_view text,
                  size_t step) {
  const Decoded whole = DecodeBy(decoder, text, text.size() + 1);
  for (size_t by : {size_t{1}, step}) {
    const Decoded parts = DecodeBy(decoder, text, by);
    REQUIRE(parts.data == whole.data);
    REQUIRE(parts.done == whole.done && parts.status == whole.status);
    REQUIRE(whole.status != 0 || parts.consumed == whole.consumed);
  }
}

void CheckDate(std::string_view text) {
  const std::optional<time_t> time = ParseHttpDate(text, 1767225600);
  if (!time.has_value()) return;
  // A leap second at the end of the last year has no format.
  if (*time > 253402300799) return;
  char out[kHttpDateSize];
  FormatHttpDate(*time, out);
  REQUIRE(ParseHttpDate({out, kHttpDateSize}, 0) == time);
}

void CheckRange(std::string_view text, uint64_t size) {
  std::array<ByteRange, kMaxRanges> ranges;
  const RangeResult r = ParseRange(text, size, &ranges);
  REQUIRE(r.count <= kMaxRanges && r.total <= size);
  REQUIRE((r.kind == RangeResult::Kind::kSatisfiable) == (r.count != 0));
  uint64_t total = 0;
  for (size_t i = 0; i < r.count; ++i) {
    REQUIRE(ranges[i].first < size && ranges[i].length != 0);
    REQUIRE(ranges[i].length <= size - ranges[i].first);
    total += ranges[i].length;
    char out[kMaxContentRange];
    REQUIRE(FormatContentRange(ranges[i], size, out).size() <= sizeof(out));
  }
  REQUIRE(total == r.total);
}

void CheckResponse(std::string_view text) {
  char buffer[512];
  ResponseHead head(buffer);
  head.Status(302);
  head.Append("Location", text);
  const std::string_view out = head.Finish();
  if (out.empty()) return;
  // The value cannot have become a line of its own.
  REQUIRE(std::count(out.begin(), out.end(), '\n') == 3);
  REQUIRE(std::count(out.begin(), out.end(), '\r') == 3);
}

}  // namespace
}  // namespace kevent::http

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kevent::http;
  if (size < 2) return 0;
  const uint8_t choice = data[0];
  const size_t step = 1 + data[1] % 64;
  const std::string_view text(reinterpret_cast<const char*>(data + 2),
                              size - 2);

  Limits limits;
  if (choice & 1) limits.request_line = 16 + (choice >> 2);
  if (choice & 2) {
    limits.header_bytes = 24 + 4 * static_cast<size_t>(choice >> 2);
    limits.header_count = 2 + (choice >> 4);
  }
  CheckParse(text, limits, step);

  BodyLimits body_limits;
  if (choice & 4) body_limits = {32, 16, 32};
  CheckDecoder(BodyDecoder::Chunked(body_limits), text, step);
  CheckDecoder(BodyDecoder::WithLength(choice, body_limits), text, step);

  Request request;
  const ParseResult parsed = Parse(text, limits, &request);
  if (parsed.kind == ParseResult::Kind::kDone) {
    CheckDecoder(BodyDecoder(request, body_limits),
                 text.substr(parsed.consumed), step);
    Validators validators;
    validators.etag = choice & 8 ? "\"a\"" : "W/\"a\"";
    validators.last_modified = 784111777;
    Evaluate(request, validators);
    IfRange(request.if_range, validators, 784111778);
    if (request.range.data() != nullptr) CheckRange(request.range, 100);
    for (size_t i = 0; i < request.field_count(); ++i) {
      CheckDate(request.field(i).value);
      CheckResponse(request.field(i).value);
    }
  }

  const Exact rest(text);
  CheckDate(rest.view());
  CheckRange(rest.view(), choice & 16 ? UINT64_MAX : choice);
  CheckResponse(rest.view());
  return 0;
}
