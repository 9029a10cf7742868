// SPDX-License-Identifier: Apache-2.0
#include "server/log/access_log.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>

namespace kevent::log {
namespace {

std::string Contents(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

AccessLog::Record Request(std::string_view target) {
  return {-1,       "Sun, 06 Nov 1994 08:49:37 GMT", "GET", target, 200, 1234,
          5'678'000};
}

TEST(AccessLogTest, WritesALine) {
  std::string path = testing::TempDir() + "/access_line.log";
  std::remove(path.c_str());
  {
    auto log = AccessLog::Open(path);
    ASSERT_TRUE(log.ok());
    (*log)->Write(Request("/index.html?x=1"));
  }
  EXPECT_EQ(Contents(path),
            "- [Sun, 06 Nov 1994 08:49:37 GMT] \"GET /index.html?x=1\" 200 "
            "1234 5678\n");
}

TEST(AccessLogTest, HostileTargetsCannotForgeLines) {
  std::string path = testing::TempDir() + "/access_hostile.log";
  std::remove(path.c_str());
  {
    auto log = AccessLog::Open(path);
    ASSERT_TRUE(log.ok());
    (*log)->Write(Request("/a\"\n- forged\x1b[2J\\"));
  }
  std::string text = Contents(path);
  EXPECT_NE(text.find("/a\\x22\\x0A-\\x20forged\\x1B[2J\\x5C\""),
            std::string::npos);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
}

TEST(AccessLogTest, FlushesWhenItIsFull) {
  std::string path = testing::TempDir() + "/access_full.log";
  std::remove(path.c_str());
  auto log = AccessLog::Open(path);
  ASSERT_TRUE(log.ok());
  std::string target(4000, 'x');  // cut in the line
  for (int i = 0; i < 100; ++i) (*log)->Write(Request(target));
  EXPECT_GT(Contents(path).size(), 100'000u);
  EXPECT_EQ((*log)->dropped(), 0u);
}

TEST(AccessLogTest, CountsLinesThatCannotBeWritten) {
  auto log = AccessLog::Open("/dev/full");
  ASSERT_TRUE(log.ok());
  (*log)->Write(Request("/"));
  (*log)->Flush();
  EXPECT_EQ((*log)->dropped(), 1u);
}

TEST(AccessLogTest, SaysWhatIsWrongWithThePath) {
  auto log = AccessLog::Open("/nonexistent/dir/access.log");
  ASSERT_FALSE(log.ok());
  EXPECT_NE(
      std::string(log.status().message()).find("/nonexistent/dir/access.log"),
      std::string::npos);
}

}  // namespace
}  // namespace kevent::log
