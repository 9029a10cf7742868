// SPDX-License-Identifier: Apache-2.0
#include "server/loop/test_util.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <random>
#include <utility>

namespace kevent::loop {

std::vector<EngineKind> TestEngines() {
  const char* names = getenv("KEVENT_ENGINES");
  std::vector<EngineKind> engines;
  for (EngineKind kind :
       {EngineKind::kModule, EngineKind::kUring, EngineKind::kEpoll}) {
    if (names) {
      std::string_view list = names;
      if (list.find(EngineName(kind)) != std::string_view::npos) {
        engines.push_back(kind);
      }
      continue;
    }
    Queue::Options options;
    options.engine = kind;
    if (Queue::Create(options).ok()) engines.push_back(kind);
  }
  return engines;
}

std::unique_ptr<Loop> MakeLoop(EngineKind engine) {
  Loop::Options options;
  options.queue.engine = engine;
  absl::StatusOr<std::unique_ptr<Loop>> loop = Loop::Create(options);
  if (!loop.ok()) {
    fprintf(stderr, "%s\n", loop.status().ToString().c_str());
    abort();
  }
  return *std::move(loop);
}

std::string EngineParamName(const testing::TestParamInfo<EngineKind>& info) {
  return std::string(EngineName(info.param));
}

uint64_t TestSeed() {
  const char* given = getenv("KEVENT_SEED");
  uint64_t seed = given ? strtoull(given, nullptr, 10) : std::random_device()();
  printf("KEVENT_SEED=%llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

SocketPair::SocketPair() {
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) abort();
}

SocketPair::~SocketPair() {
  for (int fd : fds) {
    if (fd >= 0) close(fd);
  }
}

void WriteAll(int fd, std::string_view data) {
  while (!data.empty()) {
    ssize_t n = write(fd, data.data(), data.size());
    if (n < 0) abort();
    data.remove_prefix(static_cast<size_t>(n));
  }
}

}  // namespace kevent::loop
