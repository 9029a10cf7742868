// SPDX-License-Identifier: Apache-2.0
//
// What an administrator does to a server: looks at its connections, ends some,
// drains it and takes it into service again.

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/http/server.h"
#include "server/http/server_fixture.h"
#include "server/http/test_client.h"
#include "server/loop/test_util.h"
#include "server/net/listener.h"

namespace kevent::http {
namespace {

using Info = HttpServer::ConnectionInfo;
using State = HttpServer::ConnectionState;
using Verdict = HttpServer::Verdict;

class ServerWalkTest : public ServerTest {
 protected:
  // All connections, as one walk in steps of `count` meets them.
  std::vector<Info> WalkAll(size_t count, uint64_t below = UINT64_MAX) {
    std::vector<Info> all;
    server_->Call([&] {
      HttpServer::Walk walk(server_->server(), below);
      auto note = [&](const Info& info) {
        all.push_back(info);
        return Verdict::kKeep;
      };
      while (walk.Next(count, note)) {
      }
    });
    return all;
  }

  // Clients that send nothing.
  std::vector<std::unique_ptr<TestClient>> Connect(size_t count) const {
    std::vector<std::unique_ptr<TestClient>> clients;
    for (size_t i = 0; i < count; ++i) {
      clients.push_back(std::make_unique<TestClient>(port()));
    }
    return clients;
  }
};

TEST_P(ServerWalkTest, MeetsEachConnectionOnceNewestFirst) {
  Start();
  std::vector<std::unique_ptr<TestClient>> clients;
  for (size_t i = 1; i <= 7; ++i) {
    clients.push_back(std::make_unique<TestClient>(port()));
    ASSERT_TRUE(server_->AwaitConnections(i));
  }
  for (size_t count : {1u, 3u, 7u, 100u}) {
    const std::vector<Info> all = WalkAll(count);
    ASSERT_EQ(all.size(), 7u);
    for (size_t i = 1; i < all.size(); ++i) {
      EXPECT_LT(all[i].id, all[i - 1].id);
      EXPECT_GE(all[i].age_ns, all[i - 1].age_ns);
    }
  }
  const std::vector<Info> all = WalkAll(100);
  const std::vector<Info> older = WalkAll(2, all[2].id);
  ASSERT_EQ(older.size(), 4u);
  EXPECT_EQ(older[0].id, all[3].id);
}

TEST_P(ServerWalkTest, TellsWhatEachConnectionDoes) {
  Start();
  UseFile(16 << 20);
  TestClient idle(port());
  EXPECT_EQ(idle.Get("/x").body, "/x");
  TestClient held(port());
  ASSERT_TRUE(held.Send(TestClient::Request("GET", "/hold")));
  TestClient sending(port(), 16 << 10);
  ASSERT_TRUE(sending.Send(TestClient::Request("GET", "/file")));
  ASSERT_TRUE(sending.Readable(kClientDeadlineMs));
  ASSERT_TRUE(server_->Await([&] { return shared_.held.size() == 1; }));
  std::map<State, int> states;
  server_->Call([&] {
    HttpServer::Walk walk(server_->server());
    walk.Next(100, [&](const Info& info) {
      ++states[info.state];
      if (info.state == State::kResponse) {
        EXPECT_EQ(info.target, "/file");
        EXPECT_EQ(info.method, "GET");
        EXPECT_EQ(info.status, 200);
      } else {
        EXPECT_EQ(info.target, "");
      }
      return Verdict::kKeep;
    });
    shared_.held[0]->Reply(200, "text/plain", "held");
  });
  EXPECT_EQ(states[State::kIdle], 1);
  EXPECT_EQ(states[State::kRequest], 1);
  EXPECT_EQ(states[State::kResponse], 1);
}

// The connection at which a walk stands goes away between two steps.
TEST_P(ServerWalkTest, GoesOnWhereConnectionsEnd) {
  Start();
  std::vector<std::unique_ptr<TestClient>> clients;
  for (size_t i = 1; i <= 5; ++i) {
    clients.push_back(std::make_unique<TestClient>(port()));
    ASSERT_TRUE(server_->AwaitConnections(i));
  }
  std::set<uint64_t> seen;
  std::unique_ptr<HttpServer::Walk> walk;
  auto step = [&] {
    bool more = false;
    server_->Call([&] {
      if (!walk) walk = std::make_unique<HttpServer::Walk>(server_->server());
      more = walk->Next(1, [&](const Info& info) {
        EXPECT_TRUE(seen.insert(info.id).second);
        return Verdict::kKeep;
      });
    });
    return more;
  };
  ASSERT_TRUE(step());
  clients[3]->Close();  // it comes next
  ASSERT_TRUE(server_->AwaitConnections(4));
  TestClient later(port());  // is not met
  ASSERT_TRUE(server_->AwaitConnections(5));
  while (step()) {
  }
  EXPECT_EQ(seen.size(), 4u);
  server_->Call([&] { walk.reset(); });
}

// A handler may owe a response to a connection that was ended long ago, and its
// number be another's.
TEST_P(ServerWalkTest, EndingItAgainTouchesNoOtherDescriptor) {
  Start();
  TestClient client(port());
  ASSERT_TRUE(client.Send(TestClient::Request("GET", "/hold")));
  ASSERT_TRUE(server_->Await([&] { return shared_.held.size() == 1; }));
  const std::vector<Info> before = WalkAll(1);
  ASSERT_EQ(before.size(), 1u);
  const int number = before[0].fd;
  client.Reset();
  server_->Call([&] { server_->server()->CloseAll(); });
  ASSERT_TRUE(server_->Await([&] { return fcntl(number, F_GETFD) < 0; }));
  const int other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(other == number ? number : dup2(other, number), number);

  EXPECT_EQ(server_->connections(), 1u) << "the exchange is still lent";
  EXPECT_EQ(WalkAll(1).size(), 0u) << "it is closed";
  server_->Call([&] {
    HttpServer::Walk walk(server_->server());
    walk.Next(100, [](const Info&) { return Verdict::kAbort; });
    server_->server()->CloseAll();
  });
  linger set = {};
  socklen_t size = sizeof set;
  ASSERT_EQ(getsockopt(number, SOL_SOCKET, SO_LINGER, &set, &size), 0);
  EXPECT_EQ(set.l_onoff, 0) << "of a socket that is not the server's";
  server_->Call([&] { shared_.held[0]->Reply(200, "text/plain", "late"); });
  EXPECT_TRUE(server_->AwaitConnections(0));
  if (other != number) close(other);
  close(number);
}

TEST_P(ServerWalkTest, OutlivesTheServer) {
  Start();
  TestClient client(port());
  ASSERT_TRUE(server_->AwaitConnections(1));
  std::unique_ptr<HttpServer::Walk> walk;
  server_->Call(
      [&] { walk = std::make_unique<HttpServer::Walk>(server_->server()); });
  server_.reset();
  EXPECT_FALSE(walk->Next(10, [](const Info&) {
    ADD_FAILURE();
    return Verdict::kKeep;
  }));
}

TEST_P(ServerWalkTest, EndsConnections) {
  Start();
  TestClient held(port());
  ASSERT_TRUE(held.Send(TestClient::Request("GET", "/hold")));
  ASSERT_TRUE(server_->Await([&] { return shared_.held.size() == 1; }));
  TestClient idle(port());
  TestClient reset(port());
  ASSERT_TRUE(server_->AwaitConnections(3));
  server_->Call([&] {
    HttpServer::Walk walk(server_->server());
    int number = 0;
    walk.Next(100, [&](const Info&) {
      return number++ == 0 ? Verdict::kAbort : Verdict::kDrain;
    });
  });
  EXPECT_TRUE(reset.AwaitReset());
  EXPECT_EQ(idle.AwaitEnd(), End::kClosed);
  server_->Call([&] { shared_.held[0]->Reply(200, "text/plain", "held"); });
  ClientResponse r;
  ASSERT_TRUE(held.Receive(&r));
  EXPECT_EQ(r.Get("Connection"), "close");
  EXPECT_TRUE(server_->AwaitConnections(0));
  ExpectAlive();
}

TEST_P(ServerWalkTest, DrainedAndTakenIntoServiceAgain) {
  Start();
  const auto address =
      net::Address::Parse("127.0.0.1:" + std::to_string(port()));
  ASSERT_TRUE(address.ok());
  for (int i = 0; i < 3; ++i) {
    TestClient idle(port());
    EXPECT_EQ(idle.Get("/x").body, "/x");
    std::atomic<bool> drained{false};
    server_->Call([&] { server_->server()->Drain([&] { drained = true; }); });
    EXPECT_EQ(idle.AwaitEnd(), End::kClosed);
    ASSERT_TRUE(server_->Await([&] { return drained.load(); }));
    EXPECT_TRUE(server_->server()->draining());
    EXPECT_TRUE(
        server_->Await([&] { return !server_->server()->listening(); }));
    auto listener = net::Listener::Listen(*address, {});
    ASSERT_TRUE(listener.ok()) << listener.status();
    server_->Call([&] {
      server_->server()->Undrain();
      server_->server()->Listen(listener->Release());
    });
    ExpectAlive();
  }
}

// Others have their turn while thousands are closed.
TEST_P(ServerWalkTest, DrainsSomeAtATime) {
  constexpr size_t kClients = 2 * HttpServer::kDrainStep + 10;
  DescriptorLimit limit;
  if (!limit.Raise(2 * kClients + 200)) GTEST_SKIP() << "descriptors";
  Start();
  TestClient held(port());  // the oldest: it comes last
  ASSERT_TRUE(held.Send(TestClient::Request("GET", "/hold")));
  ASSERT_TRUE(server_->Await([&] { return shared_.held.size() == 1; }));
  auto idle = Connect(kClients);
  ASSERT_TRUE(server_->AwaitConnections(kClients + 1));
  std::atomic<bool> drained{false};
  server_->Call([&] {
    server_->server()->Drain([&] { drained = true; });
    size_t open = 0;
    HttpServer::Walk walk(server_->server());
    walk.Next(2 * kClients, [&](const Info&) {
      ++open;
      return Verdict::kKeep;
    });
    EXPECT_EQ(open, kClients + 1 - HttpServer::kDrainStep);
    // It has not been reached yet, and is told all the same.
    shared_.held[0]->Reply(200, "text/plain", "held");
  });
  ClientResponse r;
  ASSERT_TRUE(held.Receive(&r));
  EXPECT_EQ(r.Get("Connection"), "close");
  for (auto& client : idle) EXPECT_EQ(client->AwaitEnd(), End::kClosed);
  EXPECT_TRUE(server_->Await([&] { return drained.load(); }));
  EXPECT_EQ(server_->connections(), 0u);
}

TEST_P(ServerWalkTest, ClosesAllSomeAtATime) {
  constexpr size_t kClients = 2 * HttpServer::kDrainStep + 10;
  DescriptorLimit limit;
  if (!limit.Raise(2 * kClients + 200)) GTEST_SKIP() << "descriptors";
  Start();
  auto clients = Connect(kClients);
  ASSERT_TRUE(server_->AwaitConnections(kClients));
  size_t open = 0;
  server_->Call([&] {
    server_->server()->CloseAll();
    HttpServer::Walk walk(server_->server());
    walk.Next(kClients, [&](const Info&) {
      ++open;
      return Verdict::kKeep;
    });
  });
  EXPECT_EQ(open, kClients - HttpServer::kDrainStep);
  TestClient later(port());  // is not meant
  for (auto& client : clients) EXPECT_TRUE(client->AwaitReset());
  EXPECT_EQ(later.Get("/x").body, "/x");
}

// The drain has not come to it when it is given up.
TEST_P(ServerWalkTest, WhoWasToldToCloseDoesAfterUndrainToo) {
  constexpr size_t kClients = HttpServer::kDrainStep + 10;
  DescriptorLimit limit;
  if (!limit.Raise(2 * kClients + 200)) GTEST_SKIP() << "descriptors";
  Start();
  TestClient held(port());  // the oldest: it comes last
  ASSERT_TRUE(held.Send(TestClient::Request("GET", "/hold")));
  ASSERT_TRUE(server_->Await([&] { return shared_.held.size() == 1; }));
  auto idle = Connect(kClients);
  ASSERT_TRUE(server_->AwaitConnections(kClients + 1));
  server_->Call([&] {
    server_->server()->Drain([] {});
    // More than a socket takes: it is under way still.
    shared_.held[0]->Reply(200, "text/plain", Pattern(32 << 20));
    server_->server()->Undrain();
  });
  ClientResponse r;
  ASSERT_TRUE(held.Receive(&r));
  EXPECT_EQ(r.Get("Connection"), "close");
  EXPECT_EQ(held.AwaitEnd(), End::kClosed);
}

TEST_P(ServerWalkTest, AllWhoDrainAreTold) {
  Start();
  TestClient held(port());
  ASSERT_TRUE(held.Send(TestClient::Request("GET", "/hold")));
  ASSERT_TRUE(server_->Await([&] { return shared_.held.size() == 1; }));
  std::atomic<int> drained{0};
  server_->Call([&] {
    server_->server()->Drain([&] { ++drained; });
    server_->server()->Drain([&] { ++drained; });
    shared_.held[0]->Reply(200, "text/plain", "held");
  });
  EXPECT_TRUE(server_->Await([&] { return drained == 2; }));
  server_->Call([&] { server_->server()->Drain([&] { ++drained; }); });
  EXPECT_TRUE(server_->Await([&] { return drained == 3; }));
}

// Undrain before the drain is done: what was told to close does, and nothing
// else.
TEST_P(ServerWalkTest, DrainGivenUp) {
  Start();
  TestClient held(port());
  ASSERT_TRUE(held.Send(TestClient::Request("GET", "/hold")));
  ASSERT_TRUE(server_->Await([&] { return shared_.held.size() == 1; }));
  std::atomic<bool> drained{false};
  server_->Call([&] {
    EXPECT_TRUE(server_->server()->listening());
    server_->server()->Drain([&] { drained = true; });
  });
  ASSERT_TRUE(server_->Await([&] { return !server_->server()->listening(); }));
  auto listener = net::Listener::Listen(
      *net::Address::Parse("127.0.0.1:" + std::to_string(port())), {});
  ASSERT_TRUE(listener.ok()) << listener.status();
  server_->Call([&] {
    server_->server()->Undrain();
    server_->server()->Listen(listener->Release());
  });
  TestClient client(port());
  EXPECT_EQ(client.Get("/x").body, "/x");
  server_->Call([&] { shared_.held[0]->Reply(200, "text/plain", "held"); });
  ClientResponse r;
  ASSERT_TRUE(held.Receive(&r));
  EXPECT_EQ(r.Get("Connection"), "close");
  EXPECT_EQ(client.Get("/y").body, "/y");
  EXPECT_FALSE(drained.load());
}

TEST_P(ServerWalkTest, LatencyOfEveryResponseIsCounted) {
  Start();
  TestClient client(port());
  for (int i = 0; i < 10; ++i) EXPECT_EQ(client.Get("/x").status, 200);
  ExpectCount(counters().requests, 10);
  stats::HistogramSnapshot latency = counters().latency.snapshot();
  EXPECT_EQ(latency.count, 10u);
  EXPECT_GT(latency.sum_ns, 0u) << "even where it took but one turn";
  EXPECT_LT(latency.PercentileNs(1.0), 30'000 * kMs);
  // One that was held for a while lies above the time it was held for.
  ASSERT_TRUE(client.Send(TestClient::Request("GET", "/hold")));
  ASSERT_TRUE(server_->Await([&] { return shared_.held.size() == 1; }));
  const auto start = Clock::now();
  ASSERT_TRUE(server_->Await([&] { return MsSince(start) >= 20; }));
  server_->Call([&] { shared_.held[0]->Reply(200, "text/plain", "held"); });
  ClientResponse r;
  ASSERT_TRUE(client.Receive(&r));
  ExpectCount(counters().requests, 11);
  EXPECT_GE(counters().latency.snapshot().PercentileNs(1.0), 20 * kMs);
}

INSTANTIATE_FOR_ENGINES(ServerWalkTest);

}  // namespace
}  // namespace kevent::http
