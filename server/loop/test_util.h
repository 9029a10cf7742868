// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_LOOP_TEST_UTIL_H_
#define SERVER_LOOP_TEST_UTIL_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"
#include "server/loop/loop.h"

namespace kevent::loop {

std::vector<EngineKind> TestEngines();
// Those that KEVENT_ENGINES names ("epoll,uring"), else all that work here.

std::unique_ptr<Loop> MakeLoop(EngineKind engine);
// Aborts if it does not work.

std::string EngineParamName(const testing::TestParamInfo<EngineKind>& info);

uint64_t TestSeed();
// KEVENT_SEED, else a new one; printed either way.

struct SocketPair {
  SocketPair();  // of unix stream sockets
  ~SocketPair();
  SocketPair(const SocketPair&) = delete;
  SocketPair& operator=(const SocketPair&) = delete;

  int fds[2];  // -1: the destructor leaves it alone
};

void WriteAll(int fd, std::string_view data);

template <typename Condition>
void RunUntil(Loop* loop, Condition condition) {
  while (!condition()) ASSERT_GE(loop->RunOnce(-1), 0);
}
// Turns until `condition()` holds; hangs, for the test's time limit to end it,
// if that never comes.

}  // namespace kevent::loop

#define INSTANTIATE_FOR_ENGINES(Suite)                                     \
  INSTANTIATE_TEST_SUITE_P(Engines, Suite,                                 \
                           testing::ValuesIn(kevent::loop::TestEngines()), \
                           kevent::loop::EngineParamName)

#endif  // SERVER_LOOP_TEST_UTIL_H_
