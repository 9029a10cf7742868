// SPDX-License-Identifier: Apache-2.0
#include "server/loop/reactor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/loop/test_util.h"

namespace kevent::loop {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kMs = 1000000;

class ReactorTest : public testing::TestWithParam<EngineKind> {
 protected:
  Watcher Watch(uint32_t events, uint32_t flags) {
    absl::StatusOr<Watcher> watcher = reactor_.Watch(
        pair_.fds[0], events, flags,
        [this](const Entry& entry) { log_.push_back(entry.events); });
    EXPECT_TRUE(watcher.ok()) << watcher.status();
    return *std::move(watcher);
  }

  void Turns(int n) {
    for (int i = 0; i < n; ++i) ASSERT_GE(loop_->RunOnce(0), 0);
  }
  void RunUntilLogged(size_t n) {
    RunUntil(loop_.get(), [&] { return log_.size() >= n; });
  }
  void Drain() {
    char buffer[64];
    ASSERT_GT(read(pair_.fds[0], buffer, sizeof buffer), 0);
  }

  SocketPair pair_;
  std::unique_ptr<Loop> loop_ = MakeLoop(GetParam());
  Reactor reactor_{loop_.get()};
  std::vector<uint32_t> log_;
};

INSTANTIATE_FOR_ENGINES(ReactorTest);

TEST_P(ReactorTest, LevelRepeatsWhileItIsReady) {
  Watcher watcher = Watch(POLLIN, 0);
  Turns(2);
  EXPECT_THAT(log_, IsEmpty());
  WriteAll(pair_.fds[1], "x");
  RunUntilLogged(3);
  Drain();
  log_.clear();
  Turns(3);
  EXPECT_THAT(log_, IsEmpty());
  EXPECT_TRUE(watcher.active());
}

TEST_P(ReactorTest, EdgeSpeaksOnceForEachChange) {
  Watcher watcher = Watch(POLLIN, kEdge);
  WriteAll(pair_.fds[1], "x");
  RunUntilLogged(1);
  Turns(3);
  EXPECT_EQ(log_.size(), 1u);
  Drain();
  WriteAll(pair_.fds[1], "y");
  RunUntilLogged(2);
  EXPECT_EQ(log_.size(), 2u);
}

TEST_P(ReactorTest, OneShotEndsWithItsFirstEntry) {
  Watcher watcher = Watch(POLLIN, kOneShot);
  EXPECT_TRUE(watcher.active());
  WriteAll(pair_.fds[1], "x");
  RunUntilLogged(1);
  EXPECT_FALSE(watcher.active());
  Turns(3);
  EXPECT_EQ(log_.size(), 1u);
  EXPECT_EQ(watcher.Modify(POLLIN, 0), -ENOENT);
  EXPECT_EQ(watcher.Enable(), -ENOENT);
}

TEST_P(ReactorTest, DispatchWaitsForEnable) {
  Watcher watcher = Watch(POLLIN, kDispatch);
  WriteAll(pair_.fds[1], "x");
  RunUntilLogged(1);
  Turns(3);
  EXPECT_EQ(log_.size(), 1u);
  EXPECT_TRUE(watcher.active());
  EXPECT_EQ(watcher.Enable(), 0);
  RunUntilLogged(2);
  EXPECT_EQ(log_.size(), 2u);
}

TEST_P(ReactorTest, DisableAndEnable) {
  Watcher watcher = Watch(POLLIN, 0);
  EXPECT_EQ(watcher.Disable(), 0);
  WriteAll(pair_.fds[1], "x");
  Turns(3);
  EXPECT_THAT(log_, IsEmpty());
  EXPECT_EQ(watcher.Enable(), 0);
  RunUntilLogged(1);
}

TEST_P(ReactorTest, ModifyChangesWhatItWaitsFor) {
  Watcher watcher = Watch(POLLIN, 0);
  Turns(1);
  EXPECT_EQ(watcher.Modify(POLLOUT, kOneShot), 0);
  RunUntilLogged(1);
  EXPECT_TRUE(log_[0] & POLLOUT);
  EXPECT_FALSE(watcher.active());
}

TEST_P(ReactorTest, HangUpIsTold) {
  Watcher watcher = Watch(POLLIN | POLLRDHUP, kEdge);
  close(std::exchange(pair_.fds[1], -1));
  RunUntilLogged(1);
  EXPECT_TRUE(log_[0] & (POLLRDHUP | POLLHUP));
}

TEST_P(ReactorTest, AWatcherEndsItsWatch) {
  WriteAll(pair_.fds[1], "x");
  {
    Watcher watcher = Watch(POLLIN, 0);
    Watcher moved = std::move(watcher);
    EXPECT_TRUE(moved.active());
    EXPECT_FALSE(watcher.active());  // NOLINT: moved from
  }
  Turns(2);
  EXPECT_THAT(log_, IsEmpty());
  Watcher replaced = Watch(POLLIN, 0);
  replaced = Watcher();
  Turns(2);
  EXPECT_THAT(log_, IsEmpty());
  EXPECT_EQ(loop_->queue().stats().interests, 0u);
}

TEST_P(ReactorTest, WhatCannotBeWatchedIsRefused) {
  absl::StatusOr<Watcher> bad =
      reactor_.Watch(-1, POLLIN, 0, [](const Entry&) {});
  ASSERT_FALSE(bad.ok());
  EXPECT_THAT(std::string(bad.status().message()),
              HasSubstr("cannot watch descriptor -1"));
  char name[] = "/tmp/reactor_test.XXXXXX";
  int file = mkstemp(name);
  unlink(name);
  EXPECT_EQ(
      reactor_.Watch(file, POLLIN, 0, [](const Entry&) {}).status().code(),
      absl::StatusCode::kPermissionDenied);
  close(file);
  EXPECT_EQ(loop_->queue().stats().interests, 0u);
}

TEST_P(ReactorTest, WatchersMayGoWithTheLoop) {
  auto watcher = std::make_shared<Watcher>();
  *watcher =
      *reactor_.Watch(pair_.fds[0], POLLIN, 0, [watcher](const Entry&) {});
  std::weak_ptr<Watcher> weak = watcher;
  watcher.reset();
  EXPECT_FALSE(weak.expired()) << "its own callback owns it";
  loop_.reset();
  EXPECT_TRUE(weak.expired());
}

TEST_P(ReactorTest, ASignalComesAsAnEntry) {
  sigset_t usr1;
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  pthread_sigmask(SIG_UNBLOCK, &usr1, nullptr);
  EXPECT_EQ(reactor_.OnSignal(SIGUSR1, [](const Entry&) {}).status().code(),
            absl::StatusCode::kFailedPrecondition);
  pthread_sigmask(SIG_BLOCK, &usr1, nullptr);
  pid_t sender = 0;
  absl::StatusOr<Watcher> watcher =
      reactor_.OnSignal(SIGUSR1, [&](const Entry& entry) {
        log_.push_back(entry.events);
        sender = static_cast<pid_t>(entry.data[0] >> 32);
      });
  ASSERT_TRUE(watcher.ok()) << watcher.status();
  kill(getpid(), SIGUSR1);
  RunUntilLogged(1);
  EXPECT_THAT(log_, ElementsAre(SIGUSR1));
  EXPECT_EQ(sender, getpid());
  kill(getpid(), SIGUSR1);
  RunUntilLogged(2);
}

TEST_P(ReactorTest, TimersOfEveryKind) {
  int after = 0;
  uint64_t every = 0;
  int at = 0;
  int64_t start = loop_->UpdateNow();
  int64_t after_at = 0;
  auto one = reactor_.After(2 * kMs, [&](const Entry&) {
    ++after;
    after_at = loop_->now_ns();
  });
  auto two = reactor_.Every(kMs, [&](const Entry& e) { every += e.data[0]; });
  timespec real;
  clock_gettime(CLOCK_REALTIME, &real);
  auto three =
      reactor_.At(CLOCK_REALTIME,
                  int64_t{real.tv_sec} * 1000000000 + real.tv_nsec + 3 * kMs,
                  [&](const Entry&) { ++at; });
  ASSERT_TRUE(one.ok() && two.ok() && three.ok());
  RunUntil(loop_.get(), [&] { return after && at && every >= 5; });
  EXPECT_GE(after_at, start + 2 * kMs);
  EXPECT_GE(loop_->now_ns(), start + 5 * kMs);
  EXPECT_EQ(after, 1);
  EXPECT_EQ(at, 1);
  EXPECT_FALSE(one->active());
  EXPECT_TRUE(two->active());
  EXPECT_EQ(one->SetTimer(1, 0), -ENOENT);
  EXPECT_EQ(two->SetTimer(int64_t{3600000} * kMs, 0), 0);
  every = 0;
  Turns(2);
  EXPECT_EQ(every, 0u);
}

TEST_P(ReactorTest, ChangesOfAPathAreSeen) {
  const char* base = getenv("TEST_TMPDIR");
  std::string dir = std::string(base ? base : "/tmp") + "/watch.XXXXXX";
  ASSERT_NE(mkdtemp(dir.data()), nullptr);
  uint32_t seen = 0;
  bool last = false;
  absl::StatusOr<Watcher> watcher = reactor_.WatchPath(
      dir, IN_CREATE | IN_DELETE | IN_DELETE_SELF, [&](const Entry& entry) {
        seen |= entry.events;
        if (entry.flags & kEntryBroken) last = true;
      });
  ASSERT_TRUE(watcher.ok()) << watcher.status();
  std::string file = dir + "/file";
  close(open(file.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  RunUntil(loop_.get(), [&] { return seen & IN_CREATE; });
  EXPECT_FALSE(seen & IN_DELETE);
  unlink(file.c_str());
  RunUntil(loop_.get(), [&] { return seen & IN_DELETE; });
  rmdir(dir.c_str());
  RunUntil(loop_.get(), [&] { return last; });
  EXPECT_FALSE(watcher->active());

  absl::Status missing =
      reactor_.WatchPath(dir, IN_CREATE, [](const Entry&) {}).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr(dir));
}

}  // namespace
}  // namespace kevent::loop
