// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_HTTP_SERVER_FIXTURE_H_
#define SERVER_HTTP_SERVER_FIXTURE_H_

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/http/server.h"
#include "server/http/test_client.h"
#include "server/http/test_server.h"
#include "server/loop/test_util.h"

namespace kevent::http {

inline constexpr int64_t kMs = 1'000'000;
inline constexpr size_t kEchoLimit = 1 << 20;  // of the body /echo takes

std::string Pattern(size_t size);
int PatternFile(size_t size);
// A file in memory with Pattern's bytes.

class DescriptorLimit {
 public:
  DescriptorLimit() { getrlimit(RLIMIT_NOFILE, &old_); }
  ~DescriptorLimit() { setrlimit(RLIMIT_NOFILE, &old_); }

  bool Raise(rlim_t count) {
    rlimit limit = old_;
    if (limit.rlim_max < count) return false;
    limit.rlim_cur = std::max(limit.rlim_cur, count);
    return setrlimit(RLIMIT_NOFILE, &limit) == 0;
  }
  void LowerTo(rlim_t count) {
    rlimit limit = old_;
    limit.rlim_cur = std::min(limit.rlim_cur, count);
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  rlim_t hard() const { return old_.rlim_max; }

 private:
  rlimit old_;
};
// Of this process; put back at the end.

class ServerTest : public testing::TestWithParam<EngineKind> {
 protected:
  using Clock = std::chrono::steady_clock;
  using End = TestClient::End;

  static int64_t MsSince(Clock::time_point start) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() -
                                                                 start)
        .count();
  }

  // What the handler shares with the test.
  struct Shared {
    ~Shared() {
      if (file >= 0) close(file);
    }
    // The loop's thread alone.
    int file = -1;
    int64_t file_promised = 0;
    std::vector<Exchange*> held;

    std::atomic<int> handled{0};
    std::atomic<int> released{0};  // responses with the file
    std::atomic<int> bodies_dropped{0};
  };

  void Start(const HttpServer::Options& options = {});
  // Paths with a meaning: /echo (the body), /later, /hold (until the test
  // answers), /close, /redirect, /split (a Location with a line end in it),
  // /big?BYTES, /file, /missing (404). Others are answered with the target.

  void UseFile(size_t size, int64_t promised);
  void UseFile(size_t size) { UseFile(size, static_cast<int64_t>(size)); }
  // What /file sends, after Start.
  void SendFile(Exchange* x);

  uint16_t port() const { return server_->port(); }
  const stats::HttpCounters& counters() const {
    return server_->server()->counters();
  }

  void ExpectCount(const stats::Counter& counter, uint64_t count) {
    EXPECT_TRUE(server_->Await([&] { return counter.value() >= count; }));
    EXPECT_EQ(counter.value(), count);
  }
  // A client may have its response before the server counts it.

  void Settle() {
    server_->Call([] {});
    server_->Call([] {});
  }
  // What was sent before has reached the server.

  void ExpectAlive() {
    TestClient client(port());
    EXPECT_EQ(client.Get("/alive").body, "/alive");
  }

  Shared shared_;
  std::unique_ptr<TestServer> server_;

 private:
  void Handle(Exchange* x);
};

}  // namespace kevent::http

#endif  // SERVER_HTTP_SERVER_FIXTURE_H_
