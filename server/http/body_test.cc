// SPDX-License-Identifier: Apache-2.0
#include "server/http/body.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

namespace kevent::http {
namespace {

using std::string_literals::operator""s;

struct Outcome {
  std::string data;
  size_t consumed = 0;
  bool done = false;
  int status = 0;

  bool operator==(const Outcome&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Outcome& o) {
  return out << "'" << o.data << "' consumed " << o.consumed
             << (o.done ? " done" : "") << " status " << o.status;
}

// Feeds one piece, in memory of its exact size, until it is used up.
void Feed(BodyDecoder* decoder, std::string_view piece, Outcome* outcome) {
  const std::unique_ptr<char[]> exact(new char[piece.size()]);
  piece.copy(exact.get(), piece.size());
  std::string_view in(exact.get(), piece.size());
  for (;;) {
    const BodyDecoder::Result r = decoder->Decode(in);
    outcome->data += r.data;
    outcome->consumed += r.consumed;
    outcome->done = r.done;
    outcome->status = r.status;
    in.remove_prefix(r.consumed);
    if (r.done || r.status != 0 || in.empty()) return;
    ASSERT_GT(r.consumed, 0u) << "no progress";
  }
}

// The outcome of the whole input; every way of cutting it in two, and single
// bytes, must have the same but for `consumed` of a failure.
Outcome Decode(const BodyDecoder& fresh, std::string_view in) {
  BodyDecoder decoder = fresh;
  Outcome whole;
  Feed(&decoder, in, &whole);
  if (whole.status != 0) whole.consumed = 0;
  for (size_t cut = 0; cut <= in.size(); ++cut) {
    BodyDecoder two = fresh;
    Outcome outcome;
    Feed(&two, in.substr(0, cut), &outcome);
    if (!outcome.done && outcome.status == 0) {
      Feed(&two, in.substr(cut), &outcome);
    }
    if (outcome.status != 0) outcome.consumed = 0;
    EXPECT_EQ(outcome, whole) << "cut at " << cut << " in: " << in;
  }
  BodyDecoder bytes = fresh;
  Outcome outcome;
  for (char c : in) {
    if (outcome.done || outcome.status != 0) break;
    Feed(&bytes, {&c, 1}, &outcome);
  }
  if (in.empty()) Feed(&bytes, in, &outcome);
  if (outcome.status != 0) outcome.consumed = 0;
  EXPECT_EQ(outcome, whole) << "byte by byte: " << in;
  return whole;
}

Outcome Chunked(std::string_view in, const BodyLimits& limits = {}) {
  return Decode(BodyDecoder::Chunked(limits), in);
}

BodyDecoder ForRequest(std::string_view head) {
  Request request;
  EXPECT_EQ(Parse(head, Limits(), &request).kind, ParseResult::Kind::kDone);
  return BodyDecoder(request);
}

TEST(BodyDecoderTest, FollowsTheHead) {
  BodyDecoder none = ForRequest("GET / HTTP/1.0\r\n\r\n");
  EXPECT_TRUE(none.done());
  EXPECT_EQ(Decode(none, "next"), (Outcome{"", 0, true, 0}));
  EXPECT_TRUE(ForRequest("PUT / HTTP/1.0\r\nContent-Length: 0\r\n\r\n").done());
  BodyDecoder three = ForRequest("PUT / HTTP/1.0\r\nContent-Length: 3\r\n\r\n");
  EXPECT_FALSE(three.done());
  EXPECT_EQ(Decode(three, "abcd"), (Outcome{"abc", 3, true, 0}));
  BodyDecoder chunked = ForRequest(
      "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
  EXPECT_EQ(Decode(chunked, "1\r\na\r\n0\r\n\r\nx"),
            (Outcome{"a", 11, true, 0}));
}

TEST(BodyDecoderTest, Length) {
  EXPECT_EQ(Decode(BodyDecoder::WithLength(5), "abc"),
            (Outcome{"abc", 3, false, 0}));
  EXPECT_EQ(Decode(BodyDecoder::WithLength(5), "abcde\r\n"),
            (Outcome{"abcde", 5, true, 0}));
  EXPECT_EQ(Decode(BodyDecoder::WithLength(INT64_MAX), "abc"),
            (Outcome{"abc", 3, false, 0}));
  BodyLimits limits;
  limits.body_bytes = 5;
  EXPECT_EQ(Decode(BodyDecoder::WithLength(5, limits), "abcde").done, true);
  EXPECT_EQ(Decode(BodyDecoder::WithLength(6, limits), "abcdef").status, 413);
  EXPECT_EQ(Decode(BodyDecoder::WithLength(6, limits), "").status, 413);
}

TEST(BodyDecoderTest, OneRunOfContentACall) {
  BodyDecoder decoder = BodyDecoder::Chunked();
  std::string_view in = "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
  BodyDecoder::Result r = decoder.Decode(in);
  EXPECT_EQ(r.data, "abc");
  EXPECT_EQ(r.data.data(), in.data() + 3);
  EXPECT_EQ(r.consumed, 6u);
  in.remove_prefix(r.consumed);
  r = decoder.Decode(in);
  EXPECT_EQ(r.data, "de");
  in.remove_prefix(r.consumed);
  r = decoder.Decode(in);
  EXPECT_EQ(r.data, "");
  EXPECT_TRUE(r.done);
  EXPECT_EQ(r.consumed, in.size());
}

TEST(ChunkedTest, Valid) {
  const struct {
    std::string in;
    const char* data;
  } kCases[] = {
      {"0\r\n\r\n", ""},
      {"000\r\n\r\n", ""},
      {"5\r\nhello\r\n0\r\n\r\n", "hello"},
      {"0000000000000005\r\nhello\r\n0\r\n\r\n", "hello"},
      {"a\r\n0123456789\r\nA\r\nabcdefghij\r\n0\r\n\r\n",
       "0123456789abcdefghij"},
      {"1\r\n\r\r\n1\r\n\n\r\n0\r\n\r\n", "\r\n"},
      // Extensions.
      {"1;a\r\nx\r\n0\r\n\r\n", "x"},
      {"1;a=b\r\nx\r\n0;c\r\n\r\n", "x"},
      {"1;a=\"b\"\r\nx\r\n0\r\n\r\n", "x"},
      {"1;a=\"b;\\\"\\\\ \t\xff\";c=d;e\r\nx\r\n0\r\n\r\n", "x"},
      {"1 \t; a \t= b ;c= \"d\" ; e\r\nx\r\n0\r\n\r\n", "x"},
      {"1;a=\"\"\r\nx\r\n0\r\n\r\n", "x"},
      // Trailers.
      {"1\r\nx\r\n0\r\nA: b\r\n\r\n", "x"},
      {"0\r\nA:\r\nB-c: \t\xff d\r\n\r\n", ""},
  };
  for (const auto& c : kCases) {
    EXPECT_EQ(Chunked(c.in), (Outcome{c.data, c.in.size(), true, 0})) << c.in;
    EXPECT_EQ(Chunked(c.in + "GET / HTTP/1.1\r\n"),
              (Outcome{c.data, c.in.size(), true, 0}))
        << c.in;
    // No beginning of it is a whole.
    for (size_t size = 0; size < c.in.size(); ++size) {
      const Outcome part = Chunked(c.in.substr(0, size));
      EXPECT_FALSE(part.done) << c.in.substr(0, size);
      EXPECT_EQ(part.status, 0) << c.in.substr(0, size);
    }
  }
}

TEST(ChunkedTest, Malformed) {
  for (const std::string& in : {
           // Sizes.
           "\r\n"s,
           ";a\r\n"s,
           " 1\r\n"s,
           "\t1\r\n"s,
           "g\r\n"s,
           "-1\r\n"s,
           "+1\r\n"s,
           "0x1\r\n"s,
           "1_0\r\n"s,
           "1.\r\n"s,
           "1,\r\n"s,
           "1 \r\n"s,
           "1\t\r\n"s,
           "1 1\r\n"s,
           "\0\r\n"s,
           "1\0\r\n"s,
           "1\v\r\n"s,
           "\xc2\xb2\r\n"s,
           "G\r\n"s,
           "`\r\n"s,
           "@\r\n"s,
           "/\r\n"s,
           ":\r\n"s,
           // Sizes past 63 bits and past 16 digits.
           "8000000000000000\r\n"s,
           "ffffffffffffffff\r\n"s,
           "10000000000000000\r\n"s,
           "00000000000000001\r\n"s,
           "fffffffffffffffff1\r\n"s,
           // Line ends.
           "1\nx\r\n0\r\n\r\n"s,
           "1\rx\r\n0\r\n\r\n"s,
           "1\r\r\nx\r\n"s,
           "1\n\rx\r\n"s,
           "1\r\nx\n0\r\n\r\n"s,
           "1\r\nx\r0\r\n\r\n"s,
           "1\r\nx0\r\n\r\n"s,
           "1\r\nxy\r\n0\r\n\r\n"s,
           "2\r\nx\r\n0\r\n\r\n"s,
           "1\r\nx\r\r0\r\n\r\n"s,
           "1\r\nx\n\n0\r\n\r\n"s,
           "1\r\nx\r\n\r\n0\r\n\r\n"s,
           "0\n\r\n"s,
           "0\r\n\n"s,
           "0\r\n\rx"s,
           "0\r\r\n"s,
           // Extensions: where a reader that stops at LF or trusts a quote
           // would see another chunk.
           "1;\r\nx\r\n"s,
           "1;a\nx\r\n"s,
           "1;a\rx\r\n"s,
           "1;\nx\r\n"s,
           "1;a=\r\nx\r\n"s,
           "1;=b\r\nx\r\n"s,
           "1;a b\r\nx\r\n"s,
           "1;a=b c\r\nx\r\n"s,
           "1;a \r\nx\r\n"s,
           "1;a=b \r\nx\r\n"s,
           "1;a=\"b\nc\"\r\nx\r\n"s,
           "1;a=\"b\r\nc\"\r\nx\r\n"s,
           "1;a=\"b\\\n\"\r\nx\r\n"s,
           "1;a=\"b\"c\r\nx\r\n"s,
           "1;a=\"b\0\"\r\nx\r\n"s,
           "1;a=\"\\\x01\"\r\nx\r\n"s,
           "1;a=b=c\r\nx\r\n"s,
           "1;a,b\r\nx\r\n"s,
           "1;;a\r\nx\r\n"s,
           "1;a\0\r\nx\r\n"s,
           "1=a\r\nx\r\n"s,
           "1;a\x7f\r\nx\r\n"s,
           // Trailers.
           "0\r\n A: b\r\n\r\n"s,
           "0\r\nA : b\r\n\r\n"s,
           "0\r\n: b\r\n\r\n"s,
           "0\r\nA\r\n\r\n"s,
           "0\r\nA: b\n\r\n"s,
           "0\r\nA: b\rC: d\r\n\r\n"s,
           "0\r\nA: b\r\n c\r\n\r\n"s,
           "0\r\nA: \0\r\n\r\n"s,
           "0\r\nA: b\r\n\n"s,
           "0\r\nGET / HTTP/1.1\r\n"s,
       }) {
    const Outcome outcome = Chunked(in);
    EXPECT_EQ(outcome.status, 400) << in;
    EXPECT_FALSE(outcome.done) << in;
  }
}

TEST(ChunkedTest, TheGreatestSize) {
  BodyDecoder decoder = BodyDecoder::Chunked();
  const BodyDecoder::Result r = decoder.Decode("7fffffffffffffff\r\nabc");
  EXPECT_EQ(r.status, 0);
  EXPECT_EQ(r.data, "abc");
  // Two of them would overflow what the limit allows in all.
  BodyLimits limits;
  limits.body_bytes = INT64_MAX;
  BodyDecoder second = BodyDecoder::Chunked(limits);
  EXPECT_EQ(second.Decode("1\r\nx").status, 0);
  EXPECT_EQ(second.Decode("\r\n7fffffffffffffff\r\n").status, 413);
}

TEST(ChunkedTest, BodyLimit) {
  BodyLimits limits;
  limits.body_bytes = 5;
  EXPECT_EQ(Chunked("2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n", limits).data, "abcde");
  const Outcome over = Chunked("2\r\nab\r\n4\r\ncdef\r\n0\r\n\r\n", limits);
  EXPECT_EQ(over.status, 413);
  EXPECT_EQ(over.data, "ab");
}

TEST(ChunkedTest, ExtensionLimitIsForAllChunksTogether) {
  BodyLimits limits;
  limits.extension_bytes = 6;
  const std::string end = "0\r\n\r\n";
  EXPECT_TRUE(Chunked("1;aaaaa\r\nx\r\n" + end, limits).done);
  EXPECT_EQ(Chunked("1;aaaaaa\r\nx\r\n" + end, limits).status, 400);
  EXPECT_TRUE(Chunked("1;aa\r\nx\r\n1;bb\r\ny\r\n" + end, limits).done);
  EXPECT_EQ(Chunked("1;aa\r\nx\r\n1;bbb\r\ny\r\n" + end, limits).status, 400);
  EXPECT_EQ(Chunked("1;a=\"" + std::string(20, ' '), limits).status, 400);
  EXPECT_EQ(Chunked("1" + std::string(20, ' '), limits).status, 400);
  // Chunks without extensions are as many as they like.
  std::string many;
  for (int i = 0; i < 50; ++i) many += "1\r\nx\r\n";
  EXPECT_TRUE(Chunked(many + end, limits).done);
}

TEST(ChunkedTest, TrailerLimit) {
  BodyLimits limits;
  limits.trailer_bytes = 8;
  EXPECT_TRUE(Chunked("0\r\nA: b\r\n\r\n", limits).done);
  EXPECT_EQ(Chunked("0\r\nA: bc\r\n\r\n", limits).status, 431);
  EXPECT_EQ(Chunked("0\r\nA: " + std::string(50, 'b'), limits).status, 431);
}

TEST(ChunkedTest, AFailureConsumesNothing) {
  BodyDecoder decoder = BodyDecoder::Chunked();
  const BodyDecoder::Result r = decoder.Decode("1;a\nx");
  EXPECT_EQ(r.status, 400);
  EXPECT_EQ(r.consumed, 0u);
}

TEST(ChunkedTest, AFailureStays) {
  BodyDecoder decoder = BodyDecoder::Chunked();
  EXPECT_EQ(decoder.Decode("x").status, 400);
  const BodyDecoder::Result r = decoder.Decode("1\r\na\r\n0\r\n\r\n");
  EXPECT_EQ(r.status, 400);
  EXPECT_EQ(r.consumed, 0u);
  EXPECT_EQ(r.data, "");
  EXPECT_FALSE(r.done);
}

}  // namespace
}  // namespace kevent::http
