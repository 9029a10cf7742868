// SPDX-License-Identifier: Apache-2.0
#include "server/http/range.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace kevent::http {
namespace {

using Kind = RangeResult::Kind;
using Pairs = std::vector<std::pair<uint64_t, uint64_t>>;  // first, last

struct Parsed {
  RangeResult result;
  Pairs ranges;
};

Parsed Parse(std::string_view header, uint64_t size) {
  std::array<ByteRange, kMaxRanges> ranges;
  Parsed parsed;
  parsed.result = ParseRange(header, size, &ranges);
  uint64_t total = 0;
  for (size_t i = 0; i < parsed.result.count; ++i) {
    EXPECT_GT(ranges[i].length, 0u) << header;
    EXPECT_LT(ranges[i].last(), size) << header;
    total += ranges[i].length;
    parsed.ranges.emplace_back(ranges[i].first, ranges[i].last());
  }
  EXPECT_EQ(parsed.result.total, total) << header;
  EXPECT_EQ(parsed.result.kind == Kind::kSatisfiable, !parsed.ranges.empty())
      << header;
  return parsed;
}

TEST(ParseRangeTest, SatisfiableRanges) {
  const struct {
    const char* header;
    uint64_t size;
    Pairs ranges;
  } kCases[] = {
      {"bytes=0-0", 10, {{0, 0}}},
      {"bytes=0-9", 10, {{0, 9}}},
      {"bytes=0-", 10, {{0, 9}}},
      {"bytes=9-", 10, {{9, 9}}},
      {"bytes=0-10", 10, {{0, 9}}},
      {"bytes=5-1000000", 10, {{5, 9}}},
      {"bytes=-1", 10, {{9, 9}}},
      {"bytes=-10", 10, {{0, 9}}},
      {"bytes=-11", 10, {{0, 9}}},
      {"Bytes=1-2", 10, {{1, 2}}},
      {"bytes= 1-2 ,\t4-5 ", 10, {{1, 2}, {4, 5}}},
      {"bytes=,1-2,,4-5,", 10, {{1, 2}, {4, 5}}},
      {"bytes=4-5,1-2", 10, {{4, 5}, {1, 2}}},
      // The unsatisfiable of several are left out.
      {"bytes=10-,1-2,-0", 10, {{1, 2}}},
      {"bytes=00000000000000000000000000001-2", 10, {{1, 2}}},
      // Two may overlap.
      {"bytes=0-3,2-4", 10, {{0, 3}, {2, 4}}},
      // The edges of 64 bits.
      {"bytes=0-18446744073709551615", UINT64_MAX, {{0, UINT64_MAX - 1}}},
      {"bytes=18446744073709551614-",
       UINT64_MAX,
       {{UINT64_MAX - 1, UINT64_MAX - 1}}},
      {"bytes=-18446744073709551615", 10, {{0, 9}}},
      {"bytes=0-18446744073709551616", 10, {{0, 9}}},
      {"bytes=1-99999999999999999999999999999999", 10, {{1, 9}}},
      {"bytes=-99999999999999999999999999999999", 10, {{0, 9}}},
  };
  for (const auto& c : kCases) {
    const Parsed parsed = Parse(c.header, c.size);
    EXPECT_EQ(parsed.result.kind, Kind::kSatisfiable) << c.header;
    EXPECT_EQ(parsed.ranges, c.ranges) << c.header;
  }
}

TEST(ParseRangeTest, UnsatisfiableRanges) {
  const struct {
    const char* header;
    uint64_t size;
  } kCases[] = {
      {"bytes=10-", 10},
      {"bytes=10-20", 10},
      {"bytes=-0", 10},
      {"bytes=-0,10-11", 10},
      {"bytes=0-", 0},
      {"bytes=0-0", 0},
      {"bytes=18446744073709551615-", UINT64_MAX},
      {"bytes=18446744073709551616-", UINT64_MAX},
      {"bytes=99999999999999999999999999-", 10},
  };
  for (const auto& c : kCases) {
    EXPECT_EQ(Parse(c.header, c.size).result.kind, Kind::kUnsatisfiable)
        << c.header;
  }
}

TEST(ParseRangeTest, IgnoredFields) {
  for (const char* header : {
           "",
           "bytes",
           "bytes=",
           "bytes=,",
           "bytes=-",
           "bytes=1",
           "bytes=a-b",
           "bytes=1-b",
           "bytes=0x1-2",
           "bytes=+1-2",
           "bytes=1--2",
           "bytes=--1",
           "bytes=1-2-3",
           "bytes=1 -2",
           "bytes=1- 2",
           "bytes=2-1",
           "bytes=0-1,5-4",
           "bytes=0-1,x",
           "bytes=0-1;2-3",
           "bytes =0-1",
           " bytes=0-1",
           "bytes:0-1",
           "byte=0-1",
           "items=0-1",
           "none",
           // A malformed one behind abuse or unsatisfiable ones counts too.
           "bytes=20-,x",
           // More bytes than the representation has.
           "bytes=0-9,0-9",
           "bytes=0-,0-0",
           "bytes=-10,-1",
           // More than two that overlap others.
           "bytes=0-1,1-2,2-3",
           "bytes=0-1,0-1,0-1",
       }) {
    EXPECT_EQ(Parse(header, 10).result.kind, Kind::kNone) << header;
  }
  EXPECT_EQ(Parse(std::string_view(), 10).result.kind, Kind::kNone);
  EXPECT_EQ(Parse("bytes=-5", 0).result.kind, Kind::kNone);
}

TEST(ParseRangeTest, AtMostSixteenRanges) {
  std::string header = "bytes=0-0";
  for (int i = 1; i < 16; ++i) {
    header += "," + std::to_string(2 * i) + "-" + std::to_string(2 * i);
  }
  EXPECT_EQ(Parse(header, 1000).result.count, 16u);
  EXPECT_EQ(Parse(header + ",40-40", 1000).result.kind, Kind::kNone);
  // One that could not be served counts as well.
  EXPECT_EQ(Parse(header + ",4000-", 1000).result.kind, Kind::kNone);
}

TEST(ContentRangeTest, Formats) {
  char out[kMaxContentRange];
  EXPECT_EQ(FormatContentRange({0, 500}, 1234, out), "bytes 0-499/1234");
  EXPECT_EQ(FormatContentRange({UINT64_MAX - 1, 1}, UINT64_MAX, out),
            "bytes 18446744073709551614-18446744073709551614/"
            "18446744073709551615");
  EXPECT_EQ(FormatUnsatisfiedRange(1234, out), "bytes */1234");
  EXPECT_EQ(FormatUnsatisfiedRange(UINT64_MAX, out),
            "bytes */18446744073709551615");
}

}  // namespace
}  // namespace kevent::http
