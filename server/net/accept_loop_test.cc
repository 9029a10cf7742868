// SPDX-License-Identifier: Apache-2.0
#include "server/net/accept_loop.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/loop/test_util.h"
#include "server/net/listener.h"

namespace kevent::net {
namespace {

using loop::CancelSource;
using loop::Loop;
using loop::RunUntil;
using loop::Task;

class AcceptLoopTest : public testing::TestWithParam<EngineKind> {};

INSTANTIATE_FOR_ENGINES(AcceptLoopTest);

Task<void> Accept(Loop* loop, int listener, std::vector<int>* fds,
                  AcceptLoopOptions options, int64_t* result) {
  *result = co_await AcceptLoop(
      loop, listener, [fds](int fd) { fds->push_back(fd); },
      std::move(options));
}

int ConnectTo(const Address& address) {
  int fd = socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  if (connect(fd, address.data(), address.size()) < 0) return -errno;
  return fd;
}

TEST_P(AcceptLoopTest, AcceptsUntilItIsCancelled) {
  auto loop = loop::MakeLoop(GetParam());
  Listener listener = *Listener::Listen(*Address::Parse("127.0.0.1:0"), {});
  CancelSource source;
  AcceptLoopOptions options;
  options.cancel = source.token();
  std::vector<int> fds;
  int64_t result = 1;
  loop->Spawn(
      Accept(loop.get(), listener.fd(), &fds, std::move(options), &result));
  std::vector<int> clients;
  for (int i = 0; i < 100; ++i) {
    clients.push_back(ConnectTo(listener.address()));
    ASSERT_GE(clients.back(), 0);
  }
  RunUntil(loop.get(), [&] { return fds.size() == 100; });
  EXPECT_TRUE(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
  EXPECT_EQ(loop->queue().stats().submitted, 1u) << "by one operation";
  source.Cancel();
  RunUntil(loop.get(), [&] { return loop->tasks() == 0; });
  EXPECT_EQ(result, -ECANCELED);
  for (int fd : fds) close(fd);
  for (int fd : clients) close(fd);
}

TEST_P(AcceptLoopTest, ClosingTheListenerEndsIt) {
  auto loop = loop::MakeLoop(GetParam());
  Listener listener = *Listener::Listen(*Address::Parse("127.0.0.1:0"), {});
  std::vector<int> fds;
  int64_t result = 1;
  loop->Spawn(Accept(loop.get(), listener.fd(), &fds, {}, &result));
  loop->RunOnce(0);
  EXPECT_EQ(loop->Close(listener.Release()), 0);
  RunUntil(loop.get(), [&] { return loop->tasks() == 0; });
  EXPECT_EQ(result, -ECANCELED);
}

TEST_P(AcceptLoopTest, WhatDoesNotListenEndsIt) {
  auto loop = loop::MakeLoop(GetParam());
  loop::SocketPair pair;
  std::vector<int> fds;
  int64_t result = 1;
  loop->Spawn(Accept(loop.get(), pair.fds[0], &fds, {}, &result));
  RunUntil(loop.get(), [&] { return loop->tasks() == 0; });
  EXPECT_EQ(result, -EINVAL);
}

// --- Without descriptors, in a process of its own: 0 is success, else the line
// of the check that failed.

#define CHECK_LINE(condition)                                         \
  do {                                                                \
    if (!(condition)) {                                               \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      return 1;                                                       \
    }                                                                 \
  } while (0)

int HighestDescriptor() {
  int highest = -1;
  DIR* dir = opendir("/proc/self/fd");
  while (dirent* entry = readdir(dir)) {
    highest = std::max(highest, atoi(entry->d_name));
  }
  closedir(dir);
  return highest;
}

template <typename Body>
void InChild(Body body) {
  pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    int status = body();
    fflush(stderr);
    _exit(status);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

struct Exhausted {
  CancelSource source;  // outlives what waits in the loop
  std::unique_ptr<Loop> loop;
  Listener listener;
  std::vector<int> accepted;
  std::vector<int> clients;
  std::vector<int> fillers;
  std::vector<int> pauses;
  int64_t result = 1;

  // Two clients wait, and not one descriptor is left.
  int Prepare(EngineKind engine, int64_t pause_ns) {
    loop = loop::MakeLoop(engine);
    listener = *Listener::Listen(*Address::Parse("127.0.0.1:0"), {});
    AcceptLoopOptions options;
    options.cancel = source.token();
    options.pause_ns = pause_ns;
    options.on_pause = [this](int error) { pauses.push_back(error); };
    for (int i = 0; i < 2; ++i) {
      clients.push_back(ConnectTo(listener.address()));
      CHECK_LINE(clients.back() >= 0);
    }
    rlimit limit;
    CHECK_LINE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = static_cast<rlim_t>(HighestDescriptor() + 4);
    CHECK_LINE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    for (int fd; (fd = dup(0)) >= 0;) fillers.push_back(fd);
    CHECK_LINE(errno == EMFILE);
    loop->Spawn(Accept(loop.get(), listener.fd(), &accepted, std::move(options),
                       &result));
    for (int i = 0; i < 100 && pauses.empty(); ++i) {
      loop->RunOnce(20000000);
    }
    CHECK_LINE((pauses == std::vector<int>{EMFILE}));
    CHECK_LINE(accepted.empty());
    return 0;
  }
};

TEST_P(AcceptLoopTest, WithoutDescriptorsItPausesAndNeverSpins) {
  EngineKind engine = GetParam();
  InChild([engine] {
    Exhausted e;
    CHECK_LINE(e.Prepare(engine, 20000000) == 0);
    uint64_t submitted = e.loop->queue().stats().submitted;
    int64_t start = e.loop->UpdateNow();
    uint64_t turns = e.loop->stats().turns;
    while (e.loop->now_ns() < start + 100000000) {
      e.loop->RunOnce(start + 100000000 - e.loop->now_ns());
    }
    uint64_t tries = e.loop->queue().stats().submitted - submitted;
    CHECK_LINE(tries >= 2 && tries <= 6);
    CHECK_LINE(e.loop->stats().turns - turns < 200);
    CHECK_LINE(e.pauses.size() == 1);
    // Closed behind the loop's back: found by the clock.
    for (int fd : e.fillers) close(fd);
    while (e.accepted.size() < 2) e.loop->RunOnce(-1);
    e.source.Cancel();
    while (e.loop->tasks() > 0) e.loop->RunOnce(-1);
    CHECK_LINE(e.result == -ECANCELED);
    return 0;
  });
}

TEST_P(AcceptLoopTest, AClosedDescriptorEndsThePauseAtOnce) {
  EngineKind engine = GetParam();
  InChild([engine] {
    Exhausted e;
    CHECK_LINE(e.Prepare(engine, int64_t{3600} * 1000000000) == 0);
    e.loop->Post([&e] {
      for (int fd : e.fillers) e.loop->Close(fd);
    });
    while (e.accepted.size() < 2) e.loop->RunOnce(-1);
    // It waits for a connection again, not for the clock.
    int client = ConnectTo(e.listener.address());
    CHECK_LINE(client >= 0);
    while (e.accepted.size() < 3) e.loop->RunOnce(-1);
    return 0;
  });
}

TEST_P(AcceptLoopTest, ThePauseCanBeCancelled) {
  EngineKind engine = GetParam();
  InChild([engine] {
    Exhausted e;
    CHECK_LINE(e.Prepare(engine, int64_t{3600} * 1000000000) == 0);
    e.source.Cancel();
    while (e.loop->tasks() > 0) e.loop->RunOnce(-1);
    CHECK_LINE(e.result == -ECANCELED);
    CHECK_LINE(e.accepted.empty());
    return 0;
  });
}

}  // namespace
}  // namespace kevent::net
