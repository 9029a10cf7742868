// SPDX-License-Identifier: Apache-2.0
#include "server/http/date.h"

#include <gtest/gtest.h>
#include <time.h>

#include <cstdint>
#include <string>

namespace kevent::http {
namespace {

constexpr time_t kExample = 784111777;  // that of RFC 9110 section 5.6.7
constexpr time_t kNow = 1767225600;     // 2026-01-01T00:00:00Z

std::string Format(time_t time) {
  char out[kHttpDateSize];
  FormatHttpDate(time, out);
  return std::string(out, kHttpDateSize);
}

TEST(FormatHttpDateTest, WritesImfFixdate) {
  EXPECT_EQ(Format(kExample), "Sun, 06 Nov 1994 08:49:37 GMT");
  EXPECT_EQ(Format(0), "Thu, 01 Jan 1970 00:00:00 GMT");
  EXPECT_EQ(Format(-1), "Wed, 31 Dec 1969 23:59:59 GMT");
  EXPECT_EQ(Format(951782400), "Tue, 29 Feb 2000 00:00:00 GMT");
  EXPECT_EQ(Format(4107542400), "Mon, 01 Mar 2100 00:00:00 GMT");
}

TEST(FormatHttpDateTest, StaysWithinFourDigitYears) {
  EXPECT_EQ(Format(253402300799), "Fri, 31 Dec 9999 23:59:59 GMT");
  EXPECT_EQ(Format(INT64_MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
  EXPECT_EQ(Format(INT64_MIN), "Sat, 01 Jan 0000 00:00:00 GMT");
}

TEST(FormatHttpDateTest, AgreesWithTheCLibraryAndParsesBack) {
  // Steps of a prime number of seconds over all years the format has.
  for (time_t t = -62167219200; t <= 253402300799; t += 86400 * 13 + 7919) {
    tm parts;
    ASSERT_NE(gmtime_r(&t, &parts), nullptr);
    char expected[64];
    // %Y does not pad in every C library.
    snprintf(expected, sizeof(expected),
             "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT",
             &"SunMonTueWedThuFriSat"[3 * parts.tm_wday], parts.tm_mday,
             &"JanFebMarAprMayJunJulAugSepOctNovDec"[3 * parts.tm_mon],
             parts.tm_year + 1900, parts.tm_hour, parts.tm_min, parts.tm_sec);
    ASSERT_EQ(Format(t), expected) << t;
    ASSERT_EQ(ParseHttpDate(expected, kNow), t) << expected;
  }
}

TEST(ParseHttpDateTest, ReadsAllThreeForms) {
  EXPECT_EQ(ParseHttpDate("Sun, 06 Nov 1994 08:49:37 GMT", kNow), kExample);
  EXPECT_EQ(ParseHttpDate("Sunday, 06-Nov-94 08:49:37 GMT", kNow), kExample);
  EXPECT_EQ(ParseHttpDate("Sun Nov  6 08:49:37 1994", kNow), kExample);
  EXPECT_EQ(ParseHttpDate("Wed Nov 16 08:49:37 1994", kNow),
            kExample + 10 * 86400);
  EXPECT_EQ(ParseHttpDate("Sunday, 06-Nov-94 08:49:37 GMT"), kExample);
}

TEST(ParseHttpDateTest, TwoDigitYearsAreWithinFiftyYears) {
  // In 2026, 76 is 2076 and 77 is 1977.
  EXPECT_EQ(ParseHttpDate("Wednesday, 01-Jan-76 00:00:00 GMT", kNow),
            3345062400);
  EXPECT_EQ(ParseHttpDate("Saturday, 01-Jan-77 00:00:00 GMT", kNow), 220924800);
  EXPECT_EQ(ParseHttpDate("Thursday, 01-Jan-26 00:00:00 GMT", kNow), kNow);
  // In 1999, 05 is 2005.
  EXPECT_EQ(ParseHttpDate("Saturday, 01-Jan-05 00:00:00 GMT", 946684799),
            1104537600);
}

TEST(ParseHttpDateTest, ALeapSecondIsTheNextMinute) {
  EXPECT_EQ(ParseHttpDate("Sat, 31 Dec 2016 23:59:60 GMT", kNow), 1483228800);
}

TEST(ParseHttpDateTest, LeapDaysFollowTheCalendar) {
  EXPECT_TRUE(ParseHttpDate("Tue, 29 Feb 2000 00:00:00 GMT", kNow));
  EXPECT_TRUE(ParseHttpDate("Thu, 29 Feb 2024 00:00:00 GMT", kNow));
  EXPECT_FALSE(ParseHttpDate("Wed, 29 Feb 2023 00:00:00 GMT", kNow));
  EXPECT_FALSE(ParseHttpDate("Mon, 29 Feb 2100 00:00:00 GMT", kNow));
}

TEST(ParseHttpDateTest, RefusesEverythingElse) {
  for (const char* text : {
           "",
           "0",
           "Sun",
           "Sun,",
           "Sun, 06 Nov 1994 08:49:37",
           "Sun, 06 Nov 1994 08:49:37 GM",
           "Sun, 06 Nov 1994 08:49:37 UTC",
           "Sun, 06 Nov 1994 08:49:37 gmt",
           "sun, 06 Nov 1994 08:49:37 GMT",
           "SUN, 06 Nov 1994 08:49:37 GMT",
           "Foo, 06 Nov 1994 08:49:37 GMT",
           "Sun, 06 nov 1994 08:49:37 GMT",
           "Sun, 06 Foo 1994 08:49:37 GMT",
           "Sun, 06 anF 1994 08:49:37 GMT",
           "Sun, 6 Nov 1994 08:49:37 GMT",
           "Sun,  6 Nov 1994 08:49:37 GMT",
           "Sun, 00 Nov 1994 08:49:37 GMT",
           "Sun, 31 Nov 1994 08:49:37 GMT",
           "Sun, 32 Dec 1994 08:49:37 GMT",
           "Sun, 06 Nov 94 08:49:37 GMT",
           "Sun, 06 Nov 1994 24:00:00 GMT",
           "Sun, 06 Nov 1994 08:60:37 GMT",
           "Sun, 06 Nov 1994 08:49:61 GMT",
           "Sun, 06 Nov 1994 08:49:3a GMT",
           "Sun, 06 Nov 1994 08:49:+7 GMT",
           "Sun, 06 Nov 1994 08-49-37 GMT",
           "Sun, 06 Nov 1994 08:49:37 GMT ",
           " Sun, 06 Nov 1994 08:49:37 GMT",
           "Sun, 06 Nov 1994 08:49:37 GMT, x",
           "Sunday, 06-Nov-1994 08:49:37 GMT",
           "Sun, 06-Nov-94 08:49:37 GMT",
           "Someday, 06-Nov-94 08:49:37 GMT",
           "Sunday, 31-Nov-94 08:49:37 GMT",
           "Sun Nov 6 08:49:37 1994",
           "Sun Nov  6 08:49:37 94",
           "Sun Nov  6 08:49:37 1994 GMT",
           "Sun Nov  0 08:49:37 1994",
           "Sun Nov 31 08:49:37 1994",
       }) {
    EXPECT_FALSE(ParseHttpDate(text, kNow).has_value()) << text;
  }
}

TEST(ParseHttpDateTest, NoPrefixOfADateIsADate) {
  for (const std::string text :
       {"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994"}) {
    for (size_t size = 0; size < text.size(); ++size) {
      // A copy of its own, so that reading beyond its end is seen.
      const std::string prefix = text.substr(0, size);
      EXPECT_FALSE(ParseHttpDate(prefix, kNow).has_value()) << prefix;
    }
  }
}

TEST(DateCacheTest, FollowsTheSeconds) {
  DateCache cache;
  EXPECT_EQ(cache.Get(0), "Thu, 01 Jan 1970 00:00:00 GMT");
  EXPECT_EQ(cache.Get(kExample), "Sun, 06 Nov 1994 08:49:37 GMT");
  EXPECT_EQ(cache.Get(kExample), "Sun, 06 Nov 1994 08:49:37 GMT");
  EXPECT_EQ(cache.Get(kExample + 1), "Sun, 06 Nov 1994 08:49:38 GMT");
  EXPECT_EQ(cache.Get(kExample - 1), "Sun, 06 Nov 1994 08:49:36 GMT");
}

}  // namespace
}  // namespace kevent::http
