// SPDX-License-Identifier: Apache-2.0
#include "server/http/conditional.h"

#include <gtest/gtest.h>

#include <string>

namespace kevent::http {
namespace {

constexpr time_t kModified = 784111777;
constexpr char kSame[] = "Sun, 06 Nov 1994 08:49:37 GMT";
constexpr char kBefore[] = "Sun, 06 Nov 1994 08:49:36 GMT";
constexpr char kAfter[] = "Sun, 06 Nov 1994 08:49:38 GMT";

// The outcome for a request with these field lines, each ended by '|'.
Precondition Run(const Validators& validators, std::string_view method,
                 std::string_view fields) {
  std::string head = std::string(method) + " / HTTP/1.1\r\nHost: a\r\n";
  if (method == "CONNECT") head = "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n";
  for (char c : fields) {
    if (c == '|') {
      head += "\r\n";
    } else {
      head += c;
    }
  }
  head += "\r\n";
  Request request;
  EXPECT_EQ(Parse(head, Limits(), &request).kind, ParseResult::Kind::kDone)
      << head;
  return Evaluate(request, validators);
}

Validators Current() {
  Validators v;
  v.etag = "\"a\"";
  v.last_modified = kModified;
  return v;
}

constexpr Precondition kProceed = Precondition::kProceed;
constexpr Precondition kNotModified = Precondition::kNotModified;
constexpr Precondition kFailed = Precondition::kFailed;

struct Case {
  const char* method;
  std::string fields;
  Precondition expected;
};

void Check(const Validators& validators, std::initializer_list<Case> cases) {
  for (const Case& c : cases) {
    EXPECT_EQ(Run(validators, c.method, c.fields), c.expected)
        << c.method << " " << c.fields;
  }
}

const std::string kModifiedSince = "If-Modified-Since: ";
const std::string kUnmodifiedSince = "If-Unmodified-Since: ";

TEST(EvaluateTest, WithoutPreconditionsItProceeds) {
  Check(Current(), {{"GET", "", kProceed}, {"PUT", "", kProceed}});
}

TEST(EvaluateTest, IfNoneMatch) {
  Check(Current(),
        {
            {"GET", "If-None-Match: \"a\"|", kNotModified},
            {"HEAD", "If-None-Match: \"a\"|", kNotModified},
            {"PUT", "If-None-Match: \"a\"|", kFailed},
            {"DELETE", "If-None-Match: \"a\"|", kFailed},
            {"GET", "If-None-Match: W/\"a\"|", kNotModified},
            {"GET", "If-None-Match: \"b\"|", kProceed},
            {"PUT", "If-None-Match: \"b\"|", kProceed},
            {"GET", "If-None-Match: \"b\", \"a\"|", kNotModified},
            {"GET", "If-None-Match: \"b\",\t\"c\" ,W/\"a\"|", kNotModified},
            {"GET", "If-None-Match: ,, \"a\" ,|", kNotModified},
            {"GET", "If-None-Match: \"b\"|If-None-Match: \"a\"|", kNotModified},
            {"GET", "If-None-Match: *|", kNotModified},
            {"PUT", "If-None-Match: *|", kFailed},
            {"PUT", "If-None-Match: \"b\"|If-None-Match: *|", kFailed},
            // Commas, backslashes and high bytes are part of a tag.
            {"GET", "If-None-Match: \"b,\"a\"|", kProceed},
            {"GET", "If-None-Match: \"b,\\\", \"a\"|", kNotModified},
            {"GET", "If-None-Match: \"\xff\", \"a\"|", kNotModified},
            // Malformed.
            {"GET", "If-None-Match: |", kProceed},
            {"GET", "If-None-Match: a|", kProceed},
            {"GET", "If-None-Match: \"a|", kProceed},
            {"GET", "If-None-Match: w/\"a\"|", kProceed},
            {"GET", "If-None-Match: W/a|", kProceed},
            {"GET", "If-None-Match: W/|", kProceed},
            {"GET", "If-None-Match: \"A\"|", kProceed},
            {"GET", "If-None-Match: \"a\"x|", kProceed},
            {"GET", "If-None-Match: \"b\" \"a\"|", kProceed},
            {"GET", "If-None-Match: x, \"a\"|", kProceed},
            {"GET", "If-None-Match: *, \"b\"|", kProceed},
        });
  Validators weak = Current();
  weak.etag = "W/\"a\"";
  Check(weak, {{"GET", "If-None-Match: \"a\"|", kNotModified},
               {"GET", "If-None-Match: W/\"a\"|", kNotModified}});
}

TEST(EvaluateTest, IfMatch) {
  Check(Current(), {
                       {"PUT", "If-Match: \"a\"|", kProceed},
                       {"GET", "If-Match: \"a\"|", kProceed},
                       {"PUT", "If-Match: \"b\", \"a\"|", kProceed},
                       {"PUT", "If-Match: \"b\"|If-Match: \"a\"|", kProceed},
                       {"PUT", "If-Match: *|", kProceed},
                       {"PUT", "If-Match: \"b\"|", kFailed},
                       {"GET", "If-Match: \"b\"|", kFailed},
                       {"PUT", "If-Match: W/\"a\"|", kFailed},
                       {"PUT", "If-Match: |", kFailed},
                       {"PUT", "If-Match: a|", kFailed},
                   });
  Validators weak = Current();
  weak.etag = "W/\"a\"";
  Check(weak, {{"PUT", "If-Match: W/\"a\"|", kFailed},
               {"PUT", "If-Match: \"a\"|", kFailed},
               {"PUT", "If-Match: *|", kProceed}});
}

TEST(EvaluateTest, IfModifiedSince) {
  Check(Current(),
        {
            {"GET", kModifiedSince + kSame + "|", kNotModified},
            {"HEAD", kModifiedSince + kAfter + "|", kNotModified},
            {"GET", kModifiedSince + kBefore + "|", kProceed},
            {"PUT", kModifiedSince + kSame + "|", kProceed},
            {"GET", kModifiedSince + "Sun Nov  6 08:49:37 1994|", kNotModified},
            {"GET", kModifiedSince + "yesterday|", kProceed},
            {"GET", kModifiedSince + "|", kProceed},
            {"GET", kModifiedSince + kSame + "|" + kModifiedSince + kSame + "|",
             kProceed},
        });
}

TEST(EvaluateTest, IfUnmodifiedSince) {
  Check(Current(), {
                       {"PUT", kUnmodifiedSince + kSame + "|", kProceed},
                       {"PUT", kUnmodifiedSince + kAfter + "|", kProceed},
                       {"PUT", kUnmodifiedSince + kBefore + "|", kFailed},
                       {"GET", kUnmodifiedSince + kBefore + "|", kFailed},
                       {"PUT", kUnmodifiedSince + "tomorrow|", kProceed},
                       {"PUT",
                        kUnmodifiedSince + kBefore + "|" + kUnmodifiedSince +
                            kBefore + "|",
                        kProceed},
                   });
}

TEST(EvaluateTest, EntityTagsGoBeforeDates) {
  Check(
      Current(),
      {
          {"GET", "If-None-Match: \"b\"|" + kModifiedSince + kSame + "|",
           kProceed},
          {"GET", "If-None-Match: \"a\"|" + kModifiedSince + kBefore + "|",
           kNotModified},
          {"PUT", "If-Match: \"a\"|" + kUnmodifiedSince + kBefore + "|",
           kProceed},
          {"PUT", "If-Match: \"b\"|" + kUnmodifiedSince + kSame + "|", kFailed},
      });
}

TEST(EvaluateTest, FailureGoesBeforeNotModified) {
  Check(
      Current(),
      {
          {"GET", "If-None-Match: \"a\"|If-Match: \"b\"|", kFailed},
          {"GET", "If-None-Match: \"a\"|If-Match: \"a\"|", kNotModified},
          {"GET", "If-None-Match: \"a\"|" + kUnmodifiedSince + kBefore + "|",
           kFailed},
          {"GET", kModifiedSince + kSame + "|" + kUnmodifiedSince + kSame + "|",
           kNotModified},
      });
}

TEST(EvaluateTest, MethodsWithoutARepresentationIgnoreThem) {
  for (const char* method : {"OPTIONS", "TRACE", "CONNECT"}) {
    Check(Current(), {{method, "If-Match: \"b\"|", kProceed},
                      {method, "If-None-Match: *|", kProceed}});
  }
}

TEST(EvaluateTest, WithoutARepresentationNothingMatches) {
  Validators absent = Current();
  absent.exists = false;
  Check(absent, {{"PUT", "If-None-Match: *|", kProceed},
                 {"PUT", "If-None-Match: \"a\"|", kProceed},
                 {"PUT", "If-Match: *|", kFailed},
                 {"PUT", "If-Match: \"a\"|", kFailed},
                 {"PUT", kUnmodifiedSince + kBefore + "|", kProceed},
                 {"GET", kModifiedSince + kSame + "|", kProceed}});
}

TEST(EvaluateTest, WithoutAValidatorNothingMatchesIt) {
  const Validators none;
  Check(none, {{"GET", "If-None-Match: \"\"|", kProceed},
               {"GET", "If-None-Match: *|", kNotModified},
               {"GET", "If-Match: \"\"|", kFailed},
               {"GET", "If-Match: *|", kProceed},
               {"GET", kModifiedSince + kSame + "|", kProceed},
               {"GET", kUnmodifiedSince + kBefore + "|", kProceed}});
}

TEST(IfRangeTest, ComparesStrongly) {
  const Validators current = Current();
  const time_t now = kModified + 1;
  EXPECT_TRUE(IfRange(std::string_view(), current, now));
  EXPECT_TRUE(IfRange("\"a\"", current, now));
  EXPECT_FALSE(IfRange("W/\"a\"", current, now));
  EXPECT_FALSE(IfRange("\"b\"", current, now));
  EXPECT_FALSE(IfRange("\"b\", \"a\"", current, now));
  EXPECT_FALSE(IfRange("*", current, now));
  EXPECT_FALSE(IfRange("", current, now));
  EXPECT_TRUE(IfRange(kSame, current, now));
  EXPECT_FALSE(IfRange(kBefore, current, now));
  EXPECT_FALSE(IfRange(kAfter, current, now));
  // In the second of the change a date is not a strong validator.
  EXPECT_FALSE(IfRange(kSame, current, kModified));

  Validators weak = current;
  weak.etag = "W/\"a\"";
  EXPECT_FALSE(IfRange("W/\"a\"", weak, now));
  EXPECT_FALSE(IfRange("\"a\"", weak, now));
  EXPECT_FALSE(IfRange("\"\"", Validators(), now));
  EXPECT_FALSE(IfRange(kSame, Validators(), now));
  Validators absent = current;
  absent.exists = false;
  EXPECT_FALSE(IfRange("\"a\"", absent, now));
}

TEST(EntityTagTest, Syntax) {
  for (const char* tag : {"\"\"", "\"a\"", "W/\"a\"", "\"a,b\\\"", "\"!\""}) {
    EXPECT_TRUE(IsEntityTag(tag)) << tag;
  }
  for (const char* text : {"", "\"", "a", "W/", "W/a", "w/\"a\"", "\"a\"b",
                           "\"a b\"", "\"a\x7f\"", "'a'", "*"}) {
    EXPECT_FALSE(IsEntityTag(text)) << text;
  }
}

// The table of RFC 9110 section 8.8.3.2.
TEST(EntityTagTest, Comparison) {
  EXPECT_FALSE(EtagsMatchStrongly("W/\"1\"", "W/\"1\""));
  EXPECT_TRUE(EtagsMatchWeakly("W/\"1\"", "W/\"1\""));
  EXPECT_FALSE(EtagsMatchStrongly("W/\"1\"", "W/\"2\""));
  EXPECT_FALSE(EtagsMatchWeakly("W/\"1\"", "W/\"2\""));
  EXPECT_FALSE(EtagsMatchStrongly("W/\"1\"", "\"1\""));
  EXPECT_TRUE(EtagsMatchWeakly("W/\"1\"", "\"1\""));
  EXPECT_TRUE(EtagsMatchStrongly("\"1\"", "\"1\""));
  EXPECT_TRUE(EtagsMatchWeakly("\"1\"", "\"1\""));
}

}  // namespace
}  // namespace kevent::http
