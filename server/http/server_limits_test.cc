// SPDX-License-Identifier: Apache-2.0
//
// Clients that go away, clients that are slow, and too many of them.

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/http/server.h"
#include "server/http/server_fixture.h"
#include "server/http/test_client.h"
#include "server/loop/test_util.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define KEVENT_SANITIZED 1
#else
#define KEVENT_SANITIZED 0
#endif

namespace kevent::http {
namespace {

using ServerLimitsTest = ServerTest;

// Of this process, all threads.
int64_t CpuNs() {
  timespec ts;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
  return ts.tv_sec * 1'000'000'000 + ts.tv_nsec;
}

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return to;
}

// --- Clients that go away or are slow.

TEST_P(ServerLimitsTest, ClientKilledInTheMiddleOfAResponse) {
  Start();
  UseFile(32 << 20);
  for (const char* target : {"/file", "/big?33554432"}) {
    for (bool reset : {true, false}) {
      SCOPED_TRACE(target);
      TestClient client(port(), 16 << 10);
      ASSERT_TRUE(client.Send(TestClient::Request("GET", target)));
      char some[4096];
      ASSERT_GT(client.Read(some, sizeof some), 0);
      if (reset) {
        client.Reset();
      } else {
        client.Close();
      }
      EXPECT_TRUE(server_->AwaitConnections(0));
    }
  }
  EXPECT_EQ(shared_.released.load(), 2);
  ExpectCount(counters().aborted, 4);
  ExpectAlive();
}

TEST_P(ServerLimitsTest, ClientKilledInTheMiddleOfARequest) {
  Start();
  const std::string request = TestClient::Request("GET", "/x");
  for (size_t size : {size_t{0}, size_t{1}, request.size() - 1}) {
    for (bool reset : {true, false}) {
      TestClient client(port());
      ASSERT_TRUE(client.Send(request.substr(0, size)));
      Settle();
      if (reset) {
        client.Reset();
      } else {
        client.Close();
      }
      EXPECT_TRUE(server_->AwaitConnections(0));
    }
  }
  EXPECT_EQ(shared_.handled.load(), 0);
  ExpectAlive();
}

TEST_P(ServerLimitsTest, ClientKilledInTheMiddleOfABody) {
  Start();
  int expected = 0;
  for (const char* framing :
       {"Content-Length: 1000\r\n", "Transfer-Encoding: chunked\r\n"}) {
    for (bool reset : {true, false}) {
      TestClient client(port());
      ASSERT_TRUE(client.Send(TestClient::Request("POST", "/echo", framing) +
                              "3e8\r\npart"));
      ++expected;
      ASSERT_TRUE(
          server_->Await([&] { return shared_.handled.load() == expected; }));
      if (reset) {
        client.Reset();
      } else {
        client.Close();
      }
      EXPECT_TRUE(server_->AwaitConnections(0));
    }
  }
  // Its callback was destroyed, and not called.
  EXPECT_TRUE(server_->Await(
      [&] { return shared_.bodies_dropped.load() == expected; }));
  ExpectCount(counters().requests, 0);
  ExpectAlive();
}

TEST_P(ServerLimitsTest, ClientKilledWhileItsBodyIsSkipped) {
  Start();
  TestClient client(port());
  ASSERT_TRUE(client.Send(
      TestClient::Request("POST", "/ignored", "Content-Length: 1000\r\n")));
  ClientResponse r;
  ASSERT_TRUE(client.Receive(&r));
  ASSERT_TRUE(client.Send("part"));
  Settle();
  client.Reset();
  EXPECT_TRUE(server_->AwaitConnections(0));
  ExpectAlive();
}

TEST_P(ServerLimitsTest, ReaderThatStopsIsReset) {
  HttpServer::Options options;
  options.send_timeout_ns = 300 * kMs;
  Start(options);
  UseFile(32 << 20);
  uint64_t resets = 0;
  for (const char* target : {"/file", "/big?33554432"}) {
    SCOPED_TRACE(target);
    TestClient client(port(), 16 << 10);
    auto start = Clock::now();
    ASSERT_TRUE(client.Send(TestClient::Request("GET", target)));
    EXPECT_TRUE(client.AwaitReset());
    EXPECT_GE(MsSince(start), 300);
    EXPECT_TRUE(server_->AwaitConnections(0));
    EXPECT_EQ(counters().timeouts.value(), ++resets);
    ExpectAlive();
    EXPECT_TRUE(server_->AwaitConnections(0));
  }
}

// However far the response had come by then.
TEST_P(ServerLimitsTest, ReaderThatStopsIsResetOneTimeoutLater) {
  constexpr int kTimeoutMs = 1'000;
  HttpServer::Options options;
  options.send_timeout_ns = kTimeoutMs * kMs;
  Start(options);
  UseFile(32 << 20);
  TestClient at_once(port(), 16 << 10);
  TestClient later(port(), 64 << 10);
  const auto start = Clock::now();
  ASSERT_TRUE(at_once.Send(TestClient::Request("GET", "/big?33554432")));
  ASSERT_TRUE(later.Send(TestClient::Request("GET", "/file")));
  // A pace, not a wait.
  std::vector<char> buffer(1 << 20);
  auto last = start;
  while (MsSince(start) < kTimeoutMs / 2) {
    ASSERT_GT(later.Read(buffer.data(), buffer.size()), 0);
    last = Clock::now();
    poll(nullptr, 0, 20);
  }
  EXPECT_TRUE(at_once.AwaitReset());
  EXPECT_GE(MsSince(start), kTimeoutMs);
  EXPECT_LT(MsSince(start), kTimeoutMs * 7 / 4);
  EXPECT_TRUE(later.AwaitReset());
  // Its last reads may have been too small to let go of more.
  EXPECT_GE(MsSince(last), kTimeoutMs * 3 / 4);
  EXPECT_LT(MsSince(last), kTimeoutMs * 7 / 5);
  EXPECT_EQ(counters().timeouts.value(), 2u);
}

// The send time-out counts from the last progress, not from the beginning.
TEST_P(ServerLimitsTest, SlowButSteadyReaderGetsEverything) {
  HttpServer::Options options;
  options.send_timeout_ns = 400 * kMs;
  Start(options);
  constexpr size_t kSize = 12 << 20;
  UseFile(kSize);
  for (const char* target : {"/file", "/big?12582912"}) {
    SCOPED_TRACE(target);
    TestClient client(port(), 64 << 10);
    auto start = Clock::now();
    ASSERT_TRUE(client.Send(TestClient::Request("GET", target)));
    client.reader().Expect(false);
    std::vector<char> buffer(kSize);
    ClientResponse r;
    while (!client.reader().Take(&r)) {
      // A pace, not a wait: about 1.2 s for the whole.
      size_t budget = kSize / 12;
      while (budget > 0) {
        ssize_t n = client.Read(buffer.data(), budget);
        ASSERT_GT(n, 0) << "after " << MsSince(start) << " ms";
        ASSERT_TRUE(client.reader().Feed({buffer.data(), size_t(n)}));
        if (client.reader().idle()) break;
        budget -= static_cast<size_t>(n);
      }
      poll(nullptr, 0, 100);
    }
    EXPECT_GT(MsSince(start), 800);
    EXPECT_EQ(r.body.size(), kSize);
  }
  EXPECT_EQ(counters().timeouts.value(), 0u);
}

// What it does not read would stay in the kernel for minutes.
TEST_P(ServerLimitsTest, IdleClientThatHasNotReadIsReset) {
  HttpServer::Options options;
  options.idle_timeout_ns = 200 * kMs;
  Start(options);
  TestClient client(port(), 4 << 10);
  ASSERT_TRUE(client.Send(TestClient::Request("GET", "/big?20000")));
  ASSERT_TRUE(server_->Await([&] { return counters().requests.value() == 1; }));
  EXPECT_TRUE(client.AwaitReset());
  EXPECT_TRUE(server_->AwaitConnections(0));
}

TEST_P(ServerLimitsTest, SlowHeadIs408) {
  HttpServer::Options options;
  options.header_timeout_ns = 300 * kMs;
  Start(options);
  TestClient client(port());
  // On a connection that has worked before, too.
  EXPECT_EQ(client.Get("/first").body, "/first");
  auto start = Clock::now();
  // A byte now and then does not extend it.
  ASSERT_TRUE(client.Send("GET /slow HTTP/1.1\r\nHost: a\r\nX: "));
  while (!client.Readable(40) && MsSince(start) < kClientDeadlineMs) {
    if (!client.Send("x")) break;
  }
  EXPECT_GE(MsSince(start), 300);
  EXPECT_LT(MsSince(start), 5'000);
  ClientResponse r;
  ASSERT_TRUE(client.Receive(&r));
  EXPECT_EQ(r.status, 408);
  EXPECT_EQ(r.Get("Connection"), "close");
  EXPECT_NE(client.AwaitEnd(), End::kData);
  EXPECT_TRUE(server_->AwaitConnections(0));
  EXPECT_EQ(counters().timeouts.value(), 1u);
}

TEST_P(ServerLimitsTest, SlowBodyIs408) {
  HttpServer::Options options;
  options.body_timeout_ns = 300 * kMs;
  Start(options);
  uint64_t late = 0;
  for (const char* framing :
       {"Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n"}) {
    SCOPED_TRACE(framing);
    TestClient client(port());
    auto start = Clock::now();
    ASSERT_TRUE(
        client.Send(TestClient::Request("POST", "/echo", framing) + "3\r\nab"));
    ClientResponse r;
    ASSERT_TRUE(client.Receive(&r));
    EXPECT_GE(MsSince(start), 300);
    EXPECT_EQ(r.status, 408);
    EXPECT_EQ(r.Get("Connection"), "close");
    // What comes after all is not taken for a request, and resets nothing.
    ASSERT_TRUE(client.Send("c\r\n0\r\n\r\n"));
    EXPECT_EQ(client.AwaitEnd(), End::kClosed);
    client.Close();
    EXPECT_TRUE(server_->AwaitConnections(0));
    EXPECT_EQ(counters().timeouts.value(), ++late);
    // Its handler was told, and the log is.
    EXPECT_EQ(shared_.handled.load(), static_cast<int>(late));
    EXPECT_EQ(counters().by_class[4].value(), late);
  }
}

// It has its answer already.
TEST_P(ServerLimitsTest, SlowBodyThatNobodyWantsIsClosed) {
  HttpServer::Options options;
  options.body_timeout_ns = 300 * kMs;
  Start(options);
  TestClient client(port());
  auto start = Clock::now();
  ASSERT_TRUE(client.Send(
      TestClient::Request("POST", "/ignored", "Content-Length: 10\r\n") +
      "abc"));
  ClientResponse r;
  ASSERT_TRUE(client.Receive(&r));
  EXPECT_EQ(r.status, 200);
  EXPECT_EQ(client.AwaitEnd(), End::kClosed);
  EXPECT_GE(MsSince(start), 300);
  EXPECT_TRUE(server_->AwaitConnections(0));
}

TEST_P(ServerLimitsTest, IdleConnectionsAreClosed) {
  HttpServer::Options options;
  options.idle_timeout_ns = 300 * kMs;
  options.header_timeout_ns = 500 * kMs;
  Start(options);
  TestClient used(port());
  TestClient unused(port());
  auto start = Clock::now();
  // Use moves the deadline. Its time is before that of the response, however
  // late this thread is told of it.
  auto last = start;
  while (MsSince(start) < 400) {
    last = Clock::now();
    EXPECT_EQ(used.Get("/x").body, "/x");
  }
  EXPECT_EQ(used.AwaitEnd(), End::kClosed);
  EXPECT_GE(MsSince(last), 290);
  // One that never sent a byte has the time of a head.
  EXPECT_EQ(unused.AwaitEnd(), End::kClosed);
  EXPECT_GE(MsSince(start), 500);
  EXPECT_TRUE(server_->AwaitConnections(0));
}

// More than are closed in one turn of the loop.
TEST_P(ServerLimitsTest, AllOfManyIdleConnectionsAreClosed) {
  constexpr size_t kClients = 600;
  DescriptorLimit limit;
  if (!limit.Raise(2 * kClients + 200)) GTEST_SKIP() << "descriptors";
  HttpServer::Options options;
  options.idle_timeout_ns = 300 * kMs;
  options.header_timeout_ns = 300 * kMs;
  Start(options);
  std::vector<std::unique_ptr<TestClient>> clients;
  for (size_t i = 0; i < kClients; ++i) {
    clients.push_back(std::make_unique<TestClient>(port()));
    if (i % 2 == 0) {
      EXPECT_EQ(clients.back()->Get("/x").body, "/x");
    }
  }
  // They are all late at once.
  server_->Call([] { poll(nullptr, 0, 400); });
  for (auto& client : clients) EXPECT_EQ(client->AwaitEnd(), End::kClosed);
  EXPECT_TRUE(server_->AwaitConnections(0));
  EXPECT_EQ(counters().timeouts.value(), kClients);
}

// Who waits already waits for as long as those who come later.
TEST_P(ServerLimitsTest, ANewIdleTimeoutHoldsForAllWhoWait) {
  HttpServer::Options options;
  options.idle_timeout_ns = 60'000 * kMs;
  Start(options);
  FunctionHandler handler(
      [](Exchange* x) { x->Reply(200, "text/plain", "y"); });
  auto configure = [&](int64_t idle_timeout_ns) {
    server_->Call([&] {
      options.idle_timeout_ns = idle_timeout_ns;
      server_->server()->Configure(&handler, options);
    });
  };
  TestClient client(port());
  EXPECT_EQ(client.Get("/x").body, "/x");
  auto start = Clock::now();
  configure(200 * kMs);
  EXPECT_EQ(client.AwaitEnd(), End::kClosed);
  EXPECT_LT(MsSince(start), 30'000);
  TestClient other(port());
  EXPECT_EQ(other.Get("/x").body, "y");
  configure(60'000 * kMs);
  EXPECT_FALSE(other.Readable(400));
  EXPECT_EQ(other.Get("/x").body, "y");
  server_.reset();
}

// --- Limits.

TEST_P(ServerLimitsTest, MoreConnectionsWaitInTheBacklog) {
  HttpServer::Options options;
  options.max_connections = 2;
  Start(options);
  TestClient first(port());
  TestClient second(port());
  EXPECT_EQ(first.Get("/1").body, "/1");
  EXPECT_EQ(second.Get("/2").body, "/2");
  TestClient third(port());
  ASSERT_TRUE(third.connected());
  ASSERT_TRUE(third.Send(TestClient::Request("GET", "/3")));
  EXPECT_FALSE(third.Readable(150));
  EXPECT_EQ(server_->connections(), 2u);
  EXPECT_EQ(first.Get("/1").body, "/1");
  first.Close();
  ClientResponse r;
  ASSERT_TRUE(third.Receive(&r));
  EXPECT_EQ(r.body, "/3");
  EXPECT_EQ(second.Get("/2").body, "/2");
}

TEST_P(ServerLimitsTest, ManyMoreThanMaxConnectionsAreAllServed) {
  HttpServer::Options options;
  options.max_connections = 4;
  Start(options);
  std::vector<std::unique_ptr<TestClient>> clients;
  for (int i = 0; i < 60; ++i) {
    clients.push_back(std::make_unique<TestClient>(port()));
    ASSERT_TRUE(clients[i]->Send(
        TestClient::Request("GET", "/x", "Connection: close\r\n")));
  }
  for (auto& client : clients) {
    ClientResponse r;
    ASSERT_TRUE(client->Receive(&r));
    EXPECT_EQ(r.body, "/x");
  }
  EXPECT_TRUE(server_->AwaitConnections(0));
}

class AllDescriptors {
 public:
  AllDescriptors() {
    for (int fd; (fd = dup(STDIN_FILENO)) >= 0;) taken_.push_back(fd);
  }
  ~AllDescriptors() { GiveBack(); }

  void GiveBack() {
    for (int fd : taken_) close(fd);
    taken_.clear();
  }

 private:
  std::vector<int> taken_;
};
// Takes what the limit leaves.

// io_uring looks at the limit when an accept is submitted: it is lowered before
// the server starts, and reached later.
TEST_P(ServerLimitsTest, OutOfDescriptorsItWaitsAndGoesOn) {
  DescriptorLimit limit;
  limit.LowerTo(256);
  Start();
  TestClient served(port());
  EXPECT_EQ(served.Get("/1").body, "/1");
  int raw[2];
  for (int& fd : raw) fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  AllDescriptors all;
  const sockaddr_in to = Loopback(port());
  const std::string request = TestClient::Request("GET", "/waited");
  for (int fd : raw) {
    ASSERT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to),
              0);
    ASSERT_EQ(send(fd, request.data(), request.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(request.size()));
  }
  ASSERT_TRUE(
      server_->Await([&] { return counters().accept_failures.value() > 0; }));
  // Nobody is accepted, and nobody is busy trying.
  const int64_t cpu = CpuNs();
  const uint64_t failures = counters().accept_failures.value();
  pollfd waiting[2] = {{raw[0], POLLIN, 0}, {raw[1], POLLIN, 0}};
  EXPECT_EQ(poll(waiting, 2, 700), 0);
  EXPECT_LT(CpuNs() - cpu, 100 * kMs);
  EXPECT_LE(counters().accept_failures.value() - failures, 10u);
  EXPECT_GE(counters().accept_failures.value() - failures, 2u);
  // Those it has are served meanwhile.
  EXPECT_EQ(served.Get("/2").body, "/2");
  all.GiveBack();
  for (int fd : raw) {
    pollfd p = {fd, POLLIN, 0};
    ASSERT_EQ(poll(&p, 1, kClientDeadlineMs), 1);
    char buffer[1000];
    ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    ASSERT_GT(n, 0);
    EXPECT_NE(std::string(buffer, static_cast<size_t>(n)).find("/waited"),
              std::string::npos);
    close(fd);
  }
  ExpectAlive();
}

// The one descriptor there is comes from a connection that ends.
TEST_P(ServerLimitsTest, OutOfDescriptorsTheNextFreeOneIsUsed) {
  DescriptorLimit limit;
  limit.LowerTo(256);
  Start();
  TestClient served(port());
  EXPECT_EQ(served.Get("/1").body, "/1");
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  AllDescriptors all;
  const sockaddr_in to = Loopback(port());
  ASSERT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
  ASSERT_TRUE(
      server_->Await([&] { return counters().accept_failures.value() > 0; }));
  EXPECT_EQ(counters().accepted.value(), 1u);
  // The server closes its end, the client keeps its own.
  served.CloseWrite();
  EXPECT_TRUE(server_->Await([&] { return counters().accepted.value() == 2; }));
  close(fd);
}

// --- Draining.

TEST_P(ServerLimitsTest, DrainLetsRequestsFinish) {
  Start();
  UseFile(16 << 20);
  TestClient idle(port());
  TestClient fresh(port());
  TestClient held(port());
  TestClient half(port());
  TestClient sending(port(), 16 << 10);
  EXPECT_EQ(idle.Get("/x").body, "/x");
  ASSERT_TRUE(held.Send(TestClient::Request("GET", "/hold")));
  const std::string request = TestClient::Request("GET", "/half");
  ASSERT_TRUE(half.Send(request.substr(0, 10)));
  ASSERT_TRUE(sending.Send(TestClient::Request("GET", "/file")));
  ASSERT_TRUE(sending.Readable(kClientDeadlineMs));
  ASSERT_TRUE(server_->Await([&] { return shared_.held.size() == 1; }));
  ASSERT_TRUE(server_->AwaitConnections(5));
  Settle();

  std::atomic<bool> drained{false};
  server_->Call([&] { server_->server()->Drain([&] { drained = true; }); });
  EXPECT_EQ(idle.AwaitEnd(), End::kClosed);
  EXPECT_EQ(fresh.AwaitEnd(), End::kClosed);
  TestClient late(port());
  EXPECT_FALSE(late.connected());
  EXPECT_FALSE(drained.load());

  server_->Call([&] { shared_.held[0]->Reply(200, "text/plain", "held"); });
  ClientResponse r;
  ASSERT_TRUE(held.Receive(&r));
  EXPECT_EQ(r.body, "held");
  EXPECT_EQ(r.Get("Connection"), "close");
  EXPECT_EQ(held.AwaitEnd(), End::kClosed);
  ASSERT_TRUE(half.Send(request.substr(10)));
  ASSERT_TRUE(half.Receive(&r));
  EXPECT_EQ(r.body, "/half");
  EXPECT_EQ(r.Get("Connection"), "close");
  EXPECT_FALSE(drained.load());
  ASSERT_TRUE(sending.Receive(&r));
  EXPECT_EQ(r.body.size(), 16u << 20);
  EXPECT_EQ(sending.AwaitEnd(), End::kClosed);
  EXPECT_TRUE(server_->Await([&] { return drained.load(); }));
  EXPECT_EQ(server_->connections(), 0u);
}

TEST_P(ServerLimitsTest, DrainWithoutConnectionsIsDoneAtOnce) {
  Start();
  std::atomic<bool> drained{false};
  server_->Call([&] { server_->server()->Drain([&] { drained = true; }); });
  EXPECT_TRUE(server_->Await([&] { return drained.load(); }));
}

TEST_P(ServerLimitsTest, CloseAllEndsADrain) {
  Start();
  UseFile(32 << 20);
  TestClient stalled(port(), 16 << 10);
  TestClient half(port());
  ASSERT_TRUE(stalled.Send(TestClient::Request("GET", "/file")));
  ASSERT_TRUE(half.Send("GET /"));
  ASSERT_TRUE(stalled.Readable(kClientDeadlineMs));
  ASSERT_TRUE(server_->AwaitConnections(2));
  Settle();
  std::atomic<bool> drained{false};
  server_->Call([&] { server_->server()->Drain([&] { drained = true; }); });
  Settle();
  EXPECT_FALSE(drained.load());
  server_->Call([&] { server_->server()->CloseAll(); });
  EXPECT_TRUE(server_->Await([&] { return drained.load(); }));
  EXPECT_EQ(shared_.released.load(), 1);
}

// Destruction with everything under way; the sanitizers look on.
TEST_P(ServerLimitsTest, DestroyedWithConnectionsInEveryState) {
  Start();
  UseFile(32 << 20);
  TestClient idle(port()), fresh(port()), half(port()), body(port()),
      skipping(port()), lingering(port()), sending(port(), 16 << 10);
  EXPECT_EQ(idle.Get("/x").body, "/x");
  ASSERT_TRUE(half.Send("GET / HTTP/1.1\r\nHo"));
  ASSERT_TRUE(body.Send(
      TestClient::Request("POST", "/echo", "Content-Length: 10\r\n") + "a"));
  ASSERT_TRUE(skipping.Send(
      TestClient::Request("POST", "/x", "Content-Length: 10\r\n") + "a"));
  ASSERT_TRUE(lingering.Send("nonsense\r\n\r\n"));
  ASSERT_TRUE(sending.Send(TestClient::Request("GET", "/file")));
  for (TestClient* c : {&skipping, &lingering, &sending}) {
    ASSERT_TRUE(c->Readable(kClientDeadlineMs));
  }
  ASSERT_TRUE(server_->AwaitConnections(7));
  Settle();
  server_.reset();
  EXPECT_EQ(shared_.released.load(), 1);
  EXPECT_EQ(shared_.bodies_dropped.load(), 1);
  EXPECT_NE(idle.AwaitEnd(), End::kTimeout);
  EXPECT_TRUE(sending.AwaitReset());
}

// --- Many.

// From malloc, by all threads.
size_t HeapBytes() {
  struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

// In a process of its own, which needs as many descriptors again: connects when
// it reads a port from `in`, reports by a byte to `out`, waits for the end of
// `in`.
[[noreturn]] void IdleClients(int count, int in, int out) {
  uint16_t port;
  if (read(in, &port, sizeof port) != sizeof port) _exit(1);
  const sockaddr_in to = Loopback(port);
  const char request[] = "GET /idle HTTP/1.1\r\nHost: a\r\n\r\n";
  char ok = 'y';
  for (int i = 0; i < count; ++i) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char buffer[512];
    // All have had a request, so that what it took is to be given back.
    if (fd < 0 ||
        connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) < 0 ||
        send(fd, request, sizeof request - 1, MSG_NOSIGNAL) < 0 ||
        recv(fd, buffer, sizeof buffer, 0) <= 0) {
      ok = 'n';
      break;
    }
  }
  if (write(out, &ok, 1) != 1) _exit(1);
  char byte;
  while (read(in, &byte, 1) > 0) {
  }
  _exit(0);
}

TEST_P(ServerLimitsTest, TenThousandIdleConnections) {
  constexpr int kCount = 10'000;
  DescriptorLimit limit;
  if (!limit.Raise(kCount + 200)) {
    GTEST_SKIP() << "needs " << kCount + 200
                 << " descriptors; the hard limit (ulimit -Hn) is "
                 << limit.hard();
  }
  int to_child[2];
  int from_child[2];
  ASSERT_EQ(pipe2(to_child, O_CLOEXEC), 0);
  ASSERT_EQ(pipe2(from_child, O_CLOEXEC), 0);
  // Before there is another thread here.
  pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    close(to_child[1]);
    close(from_child[0]);
    IdleClients(kCount, to_child[0], from_child[1]);
  }
  close(to_child[0]);
  close(from_child[1]);
  Start();
  ExpectAlive();
  ASSERT_TRUE(server_->AwaitConnections(0));
  const size_t before = HeapBytes();
  uint16_t p = port();
  ASSERT_EQ(write(to_child[1], &p, sizeof p), static_cast<ssize_t>(sizeof p));
  char ok = 0;
  ASSERT_EQ(read(from_child[0], &ok, 1), 1);
  EXPECT_EQ(ok, 'y');
  EXPECT_EQ(server_->connections(), static_cast<size_t>(kCount));
  const size_t after = HeapBytes();
  const double each = static_cast<double>(after - before) / kCount;
  printf("%.0f bytes for each idle connection (beside the kernel's)\n", each);
  RecordProperty("bytes_per_idle_connection", std::to_string(each));
  if (!KEVENT_SANITIZED) {  // which have a malloc of their own
    EXPECT_GT(each, 0);
    EXPECT_LT(each, 400);
  }

  TestClient client(port());
  auto start = Clock::now();
  constexpr int kRequests = 1000;
  for (int i = 0; i < kRequests; ++i) {
    ASSERT_EQ(client.Get("/quick").body, "/quick");
  }
  const int64_t us = MsSince(start) * 1000 / kRequests;
  printf("%lld us for each request beside them\n", static_cast<long long>(us));
  EXPECT_LT(us, 5000);

  close(to_child[1]);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(server_->AwaitConnections(1));
  EXPECT_EQ(client.Get("/after").body, "/after");
  close(from_child[0]);
}

TEST_P(ServerLimitsTest, ManyConnectionsOneRequestEach) {
  Start();
  for (int i = 0; i < 500; ++i) {
    TestClient client(port());
    ASSERT_EQ(client.Get("/x", "Connection: close\r\n").body, "/x");
  }
  EXPECT_TRUE(server_->AwaitConnections(0));
  EXPECT_EQ(counters().accepted.value(), 500u);
}

INSTANTIATE_FOR_ENGINES(ServerLimitsTest);

}  // namespace
}  // namespace kevent::http
