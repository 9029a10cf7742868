// SPDX-License-Identifier: Apache-2.0
//
// Proves that the suite notices defects: runs the program named by its argument
// (all cases, linked with a queue that can be broken) once for each seeded
// fault of fault.h and engine, and requires that the cases named here fail.
#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

namespace kevent::conformance {
namespace {

const char* g_program = nullptr;

struct Seeded {
  std::string fault;  // as KEVENT_BREAK knows it
  std::vector<std::string> cases;
  // Together they notice it on every engine.
};

void PrintTo(const Seeded& seeded, std::ostream* out) { *out << seeded.fault; }

const Seeded kSeeded[] = {
    {"lost-wakeup", {"PostTest.WhileTheQueueIsAboutToWait"}},
    {"stale-generation", {"InterestTest.RemovedWithItsEntryUnread"}},
    {"reorder-sends", {"OrderTest.SendsQueuedOnAStalledPeer"}},
    {"drop-overflow", {"RingTest.MoreCompletionsThanEntries"}},
    {"no-poison", {"OrderTest.PoisonedUntilShutdown"}},
    {"ignore-link", {"OrderTest.LinkBrokenInTheMiddleByAShortTransfer"}},
    {"reused-descriptor", {"CloseTest.ReusedDescriptorNumberStartsAnew"}},
    {"pool-stall", {"RingTest.PoolEmptyStopsAndGoesOn"}},
    {"blocking-sendfile", {"SendfileTest.ColdPagesAreReadOffTheThread"}},
    {"level-once",
     {"InterestTest.LevelFiresAsLongAsItIsReady",
      "InterestTest.BesideOperationsOfTheSameDescriptor"}},
    {"double-terminal",
     {"CancelTest.SendBeforeItsFirstByte", "RingTest.PoolEmptyAndCancelled"}},
    {"short-send-done",
     {"SendTest.SendsMoreThanTheSocketTakes",
      "SendTest.GathersAnyNumberOfPieces"}},
    {"skip-trailer", {"SendfileTest.HeaderAndTrailerNeedNoFile"}},
    {"keep-pages", {"ReferenceTest.WhatOneSocketDoesNotTakeGoesToNoOther"}},
};

constexpr int kLimitMs = 120'000;  // of one run

struct Outcome {
  bool ended = false;
  bool success = false;  // exit status 0
  std::string output;
  bool Says(std::string_view text) const {
    return output.find(text) != std::string::npos;
  }
};

// Runs the cases `filter` on `engine`, broken by `fault` (may be empty).
Outcome RunCases(const std::string& filter, const std::string& engine,
                 const std::string& fault) {
  Outcome outcome;
  int out[2];
  if (pipe2(out, O_CLOEXEC) < 0) {
    ADD_FAILURE() << strerror(errno);
    return outcome;
  }
  const std::string flag = "--gtest_filter=" + filter;
  const pid_t child = fork();
  if (child == 0) {
    setpgid(0, 0);
    dup2(out[1], STDOUT_FILENO);
    dup2(out[1], STDERR_FILENO);
    setenv("KEVENT_ENGINES", engine.c_str(), 1);
    setenv("KEVENT_WAIT_MS", fault.empty() ? "10000" : "1000", 1);
    // What Bazel tells this test is not for that program.
    for (const char* name : {"GTEST_OUTPUT", "XML_OUTPUT_FILE",
                             "TESTBRIDGE_TEST_ONLY", "TEST_SHARD_INDEX",
                             "TEST_TOTAL_SHARDS", "TEST_PREMATURE_EXIT_FILE"}) {
      unsetenv(name);
    }
    if (fault.empty()) {
      unsetenv("KEVENT_BREAK");
    } else {
      setenv("KEVENT_BREAK", fault.c_str(), 1);
    }
    execl(g_program, g_program, flag.c_str(), nullptr);
    _exit(127);
  }
  close(out[1]);
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  const int64_t end = now.tv_sec * 1000 + now.tv_nsec / 1'000'000 + kLimitMs;
  for (;;) {
    clock_gettime(CLOCK_MONOTONIC, &now);
    const int64_t left = end - (now.tv_sec * 1000 + now.tv_nsec / 1'000'000);
    pollfd p = {out[0], POLLIN, 0};
    if (left <= 0 || poll(&p, 1, static_cast<int>(left)) == 0) {
      kill(-child, SIGKILL);
      break;
    }
    char buffer[4096];
    const ssize_t n = read(out[0], buffer, sizeof buffer);
    if (n == 0) {
      outcome.ended = true;
      break;
    }
    if (n > 0) outcome.output.append(buffer, static_cast<size_t>(n));
  }
  close(out[0]);
  int status = 0;
  waitpid(child, &status, 0);
  outcome.success = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  return outcome;
}

std::vector<std::string> Engines() {
  const char* given = getenv("KEVENT_ENGINES");
  std::string list = given && *given ? given : "epoll,uring";
  std::vector<std::string> engines;
  for (size_t at = 0; at < list.size();) {
    const size_t end = std::min(list.find(',', at), list.size());
    if (end > at) engines.push_back(list.substr(at, end - at));
    at = end + 1;
  }
  return engines;
}

class FaultsTest
    : public testing::TestWithParam<std::tuple<Seeded, std::string>> {};

std::string NameOf(
    const testing::TestParamInfo<std::tuple<Seeded, std::string>>& info) {
  std::string name = std::get<0>(info.param).fault;
  for (char& c : name) {
    if (c == '-') c = '_';
  }
  return name + "_" + std::get<1>(info.param);
}

INSTANTIATE_TEST_SUITE_P(Seeded, FaultsTest,
                         testing::Combine(testing::ValuesIn(kSeeded),
                                          testing::ValuesIn(Engines())),
                         NameOf);

TEST_P(FaultsTest, IsNoticed) {
  const auto& [seeded, engine] = GetParam();
  std::string filter;
  for (const std::string& name : seeded.cases) {
    filter += (filter.empty() ? "Engines/" : ":Engines/") + name + "/" + engine;
  }
  Outcome whole = RunCases(filter, engine, "");
  ASSERT_TRUE(whole.ended) << whole.output;
  EXPECT_TRUE(whole.success) << whole.output;
  ASSERT_TRUE(whole.Says("[ RUN      ]")) << "no such case: " << filter;
  if (whole.Says("[  SKIPPED ]")) GTEST_SKIP() << whole.output;

  Outcome broken = RunCases(filter, engine, seeded.fault);
  ASSERT_TRUE(broken.ended) << "it hangs instead of failing\n" << broken.output;
  EXPECT_FALSE(broken.success) << broken.output;
  EXPECT_TRUE(broken.Says("Failure\n")) << "it must fail by an assertion\n"
                                        << broken.output;
}

}  // namespace
}  // namespace kevent::conformance

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (argc != 2) {
    fprintf(stderr, "usage: %s PROGRAM\n", argv[0]);
    return 2;
  }
  kevent::conformance::g_program = argv[1];
  return RUN_ALL_TESTS();
}
