// SPDX-License-Identifier: Apache-2.0
#include "server/files/path.h"

#include <array>
#include <ostream>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kevent::files {
namespace {

using std::literals::operator""sv;

struct Outcome {
  PathStatus status;
  std::string path;
  bool directory;
  bool operator==(const Outcome&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Outcome& outcome) {
  return out << "{" << static_cast<int>(outcome.status) << ", \""
             << outcome.path << "\", " << outcome.directory << "}";
}

Outcome Clean(std::string_view raw) {
  // Exactly as large as promised to suffice, so that ASan sees an overrun.
  std::vector<char> buffer(raw.size());
  RequestPath out;
  const PathStatus status = CleanPath(raw, buffer, &out);
  return {status, std::string(out.path), out.directory};
}

Outcome File(std::string_view path) {
  return {PathStatus::kOk, std::string(path), false};
}
Outcome Directory(std::string_view path) {
  return {PathStatus::kOk, std::string(path), true};
}
Outcome Bad() { return {PathStatus::kBadRequest, "", false}; }

TEST(CleanPathTest, CleanPathIsAViewOfTheInput) {
  constexpr std::string_view kRaw = "/css/site.css";
  RequestPath out;
  ASSERT_EQ(CleanPath(kRaw, {}, &out), PathStatus::kOk);
  EXPECT_EQ(out.path, "css/site.css");
  EXPECT_EQ(out.path.data(), kRaw.data() + 1);
  EXPECT_FALSE(out.directory);
}

TEST(CleanPathTest, TrailingSlashIsTheDirectoryForm) {
  EXPECT_EQ(Clean("/"), Directory(""));
  EXPECT_EQ(Clean("/docs/"), Directory("docs"));
  EXPECT_EQ(Clean("/docs"), File("docs"));
  EXPECT_EQ(Clean("/docs//"), Directory("docs"));
  EXPECT_EQ(Clean("/docs%2f"), Directory("docs"));
}

TEST(CleanPathTest, DecodesOnce) {
  EXPECT_EQ(Clean("/a%20b"), File("a b"));
  EXPECT_EQ(Clean("/%e2%82%AC"), File("\xe2\x82\xac"));
  EXPECT_EQ(Clean("/100%25"), File("100%"));
  EXPECT_EQ(Clean("/%252e%252e/x"), File("%2e%2e/x"));
  EXPECT_EQ(Clean("/a%3fb%23c"), File("a?b#c"));
}

TEST(CleanPathTest, EncodedSlashesAndDotsCountAsPlainOnes) {
  EXPECT_EQ(Clean("/a%2Fb"), File("a/b"));
  EXPECT_EQ(Clean("/a%2f%2fb"), File("a/b"));
  EXPECT_EQ(Clean("/a/%2e%2E/b"), File("b"));
  EXPECT_EQ(Clean("/a/.%2e%2fb"), File("b"));
  EXPECT_EQ(Clean("/%2e%2e/etc/passwd"), Bad());
  EXPECT_EQ(Clean("/a%2f..%2f..%2fetc"), Bad());
}

TEST(CleanPathTest, MergesSlashesBeforeItResolvesDots) {
  EXPECT_EQ(Clean("//a"), File("a"));
  EXPECT_EQ(Clean("/a///b"), File("a/b"));
  EXPECT_EQ(Clean("/a//../b"), File("b"));
  EXPECT_EQ(Clean("///"), Directory(""));
}

TEST(CleanPathTest, RemovesDotSegments) {
  EXPECT_EQ(Clean("/./a/./b"), File("a/b"));
  EXPECT_EQ(Clean("/a/b/../c"), File("a/c"));
  EXPECT_EQ(Clean("/a/b/c/../../d"), File("a/d"));
  EXPECT_EQ(Clean("/a/."), Directory("a"));
  EXPECT_EQ(Clean("/."), Directory(""));
  EXPECT_EQ(Clean("/a/.."), Directory(""));
  EXPECT_EQ(Clean("/a/b/.."), Directory("a"));
  EXPECT_EQ(Clean("/a/../"), Directory(""));
}

TEST(CleanPathTest, NamesThatBeginWithDotsAreNames) {
  EXPECT_EQ(Clean("/.well-known/x"), File(".well-known/x"));
  EXPECT_EQ(Clean("/..."), File("..."));
  EXPECT_EQ(Clean("/..a/.b/a.."), File("..a/.b/a.."));
  EXPECT_EQ(Clean("/a./b"), File("a./b"));
}

TEST(CleanPathTest, ClimbingAboveTheRootIsRefused) {
  for (std::string_view raw : {"/..", "/../", "/../a", "/a/../..", "/./../a",
                               "/a/../../a", "//..", "/a/..//../b"}) {
    EXPECT_EQ(Clean(raw), Bad()) << raw;
  }
}

TEST(CleanPathTest, MalformedEscapesAreRefused) {
  for (std::string_view raw :
       {"/%", "/%2", "/a%", "/a%4", "/%g0", "/%0g", "/% 41", "/%+1", "/%%41"}) {
    EXPECT_EQ(Clean(raw), Bad()) << raw;
  }
}

TEST(CleanPathTest, ControlBytesAreRefused) {
  for (std::string_view raw :
       {"/a%00.html"sv, "/%0d%0aX: y"sv, "/%1f"sv, "/%7F"sv, "/a\0b"sv,
        "/a\tb"sv, "/a\r"sv, "/a\x7f"sv, "/%41\n"sv}) {
    EXPECT_EQ(Clean(raw), Bad()) << raw;
  }
}

TEST(CleanPathTest, OnlyAbsolutePathsAreTaken) {
  for (std::string_view raw :
       {"", "a", "*", "http://host/a", "../a", "%2fa", "\\a"}) {
    EXPECT_EQ(Clean(raw), Bad()) << raw;
  }
}

TEST(CleanPathTest, SmallBufferIsReportedAndNeverOverrun) {
  std::array<char, 4> buffer;
  RequestPath out;
  EXPECT_EQ(CleanPath("/%61bcd", buffer, &out), PathStatus::kTooLong);
  EXPECT_EQ(CleanPath("/.ab", buffer, &out), PathStatus::kOk);
  EXPECT_EQ(out.path, ".ab");
}

// Whatever goes in, what comes out is clean.
TEST(CleanPathTest, RandomInputNeverYieldsAnUncleanPath) {
  std::mt19937 random(2006);
  constexpr std::array<std::string_view, 12> kPieces = {
      "/", ".", "..", "a", "bc", "%2f", "%2e", "%2E%2e", "%41", "%25", "%", "-",
  };
  int accepted = 0;
  for (int round = 0; round < 200'000; ++round) {
    std::string raw = "/";
    for (int n = random() % 12; n > 0; --n) {
      raw += kPieces[random() % kPieces.size()];
    }
    const Outcome outcome = Clean(raw);
    if (outcome.status != PathStatus::kOk) continue;
    ++accepted;
    const std::string framed = "/" + outcome.path + "/";
    if (outcome.path.empty()) {
      ASSERT_TRUE(outcome.directory) << raw;
      continue;
    }
    for (std::string_view unclean : {"//", "/./", "/../"}) {
      ASSERT_EQ(framed.find(unclean), std::string::npos) << raw;
    }
  }
  EXPECT_GT(accepted, 10'000);
}

}  // namespace
}  // namespace kevent::files
