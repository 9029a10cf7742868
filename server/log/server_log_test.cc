// SPDX-License-Identifier: Apache-2.0
#include "server/log/server_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "server/log/tail.h"

namespace kevent::log {
namespace {

struct Pipe {
  Pipe() {
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0) abort();
  }
  ~Pipe() {
    close(fds[0]);
    close(fds[1]);
  }
  int fds[2];
};

class ServerLogTest : public testing::Test {
 protected:
  std::string Written() {
    char text[4096];
    const ssize_t n = read(pipe_.fds[0], text, sizeof text);
    return n > 0 ? std::string(text, static_cast<size_t>(n)) : "";
  }

  Pipe pipe_;
  Tail tail_;
  ServerLog log_{"test", pipe_.fds[1], &tail_};
};

TEST_F(ServerLogTest, WritesLinesFromItsLevelOn) {
  EXPECT_EQ(log_.level(), Level::kInfo);
  log_.Write(Level::kDebug, "not this");
  EXPECT_EQ(Written(), "");
  log_.Write(Level::kInfo, "this");
  EXPECT_EQ(Written(), "test: this\n");
  log_.SetLevel(Level::kError);
  log_.Write(Level::kWarning, "not this");
  log_.Write(Level::kError, "but this");
  EXPECT_EQ(Written(), "test: but this\n");
}

TEST_F(ServerLogTest, LinesCannotBeForged) {
  log_.Write(Level::kInfo, "a\nb\x1b[2J\x7f\xc3\xa4");
  EXPECT_EQ(Written(), "test: a\\x0Ab\\x1B[2J\\x7F\\xC3\\xA4\n");
}

TEST_F(ServerLogTest, TailHasRecentLines) {
  for (size_t i = 0; i < Tail::kRecent + 10; ++i) {
    log_.Write(Level::kInfo, std::to_string(i));
    Written();
  }
  const std::vector<Line> recent = tail_.Recent(3);
  ASSERT_EQ(recent.size(), 3u);
  EXPECT_EQ(recent[2].text, std::to_string(Tail::kRecent + 9));
  EXPECT_GT(recent[2].time_ns, 0);
  EXPECT_EQ(tail_.Recent(100'000).size(), Tail::kRecent);
}

TEST_F(ServerLogTest, TailGetsLinesWhileItIsOn) {
  std::vector<std::string> got;
  std::vector<bool> wanted;
  tail_.SetWanted([&](bool on) { wanted.push_back(on); });
  log_.Write(Level::kInfo, "before");
  tail_.Start([&](const Lines& lines) {
    for (const Line& line : *lines) got.push_back(line.text);
  });
  log_.Write(Level::kInfo, "while");
  Line access;
  access.kind = Line::Kind::kAccess;
  access.text = "GET";
  tail_.Publish({access});
  tail_.Stop();
  log_.Write(Level::kInfo, "after");
  EXPECT_EQ(got, (std::vector<std::string>{"while", "GET"}));
  EXPECT_EQ(wanted, (std::vector<bool>{true, false}));
  const std::vector<Line> recent = tail_.Recent(10);
  ASSERT_EQ(recent.size(), 3u) << "accesses are not kept";
  EXPECT_EQ(recent[1].text, "while");
}

TEST_F(ServerLogTest, ManyThreadsPublish) {
  size_t got = 0;  // the tail's lock guards it
  tail_.Start([&](const Lines& lines) { got += lines->size(); });
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) {
        Line line;
        line.kind = Line::Kind::kAccess;
        tail_.Publish({line, line});
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  tail_.Stop();
  EXPECT_EQ(got, 8000u);
}

}  // namespace
}  // namespace kevent::log
