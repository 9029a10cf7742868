// SPDX-License-Identifier: Apache-2.0
#include "server/admin/admin_server.h"

#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/time_util.h>
#include <grpcpp/generic/generic_stub.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/admin/admin_fixture.h"
#include "server/http/test_client.h"

namespace kevent::admin {
namespace {

using google::protobuf::util::TimeUtil;
using grpc::StatusCode;
using http::TestClient;
using testing::HasSubstr;
using Clock = std::chrono::steady_clock;

class AdminServerTest : public AdminTest {
 protected:
  // Counters are written after the response.
  void AwaitRequests(size_t worker, uint64_t count) {
    EXPECT_TRUE(service_.Await(worker, [&] {
      return service_.server(worker)->counters().requests.value() >= count;
    }));
  }
};

// --- Starting.

TEST_F(AdminServerTest, SocketIsPrivateAndGoesAwayWithIt) {
  umask(0);
  Start();
  struct stat st;
  ASSERT_EQ(lstat(path().c_str(), &st), 0);
  EXPECT_TRUE(S_ISSOCK(st.st_mode));
  EXPECT_EQ(st.st_mode & 07777, 0600u);
  admin_.reset();
  EXPECT_NE(lstat(path().c_str(), &st), 0);
}

TEST_F(AdminServerTest, RefusesASocketThatIsServed) {
  Start();
  AdminServer::Options options;
  options.address = address();
  auto second = AdminServer::Start(service_.target(), options);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Health(), 1) << "the first one lives on";
}

TEST_F(AdminServerTest, RefusesAddresses) {
  AdminServer::Options options;
  for (const char* address : {"127.0.0.1:0", "unix:@name", "nonsense", ""}) {
    options.address = address;
    auto server = AdminServer::Start(service_.target(), options);
    EXPECT_EQ(server.status().code(), absl::StatusCode::kInvalidArgument)
        << address;
  }
}

// --- Calls.

TEST_F(AdminServerTest, GetInfo) {
  Target target = service_.target();

  Start(std::move(target), {});
  v1::GetInfoResponse info;
  auto context = Context();
  ASSERT_TRUE(Stub()->GetInfo(context.get(), {}, &info).ok());
  EXPECT_EQ(info.name(), "test");
  EXPECT_EQ(info.version(), "1.2.3");
  EXPECT_THAT(info.kernel(), HasSubstr("Linux "));
  const Queue& queue = service_.loop(0)->queue();
  EXPECT_EQ(info.engine(), EngineName(queue.engine()));
  EXPECT_EQ(info.engine_reason(), queue.engine_reason());
  EXPECT_EQ(info.pid(), getpid());
  EXPECT_EQ(info.workers(), 2u);
  EXPECT_EQ(info.addresses_size(), 2);
  EXPECT_EQ(info.config_digest(), "") << "it has no configuration";
  EXPECT_EQ(info.state(), v1::GetInfoResponse::SERVING);
  EXPECT_LT(info.start_time(),
            TimeUtil::GetCurrentTime() + TimeUtil::SecondsToDuration(2));
  EXPECT_GT(info.start_time(),
            TimeUtil::GetCurrentTime() - TimeUtil::SecondsToDuration(60));
  EXPECT_GE(info.uptime(), TimeUtil::SecondsToDuration(0));
}

TEST_F(AdminServerTest, GetStatsCountsWhatWasDone) {
  Start();
  auto stub = Stub();
  TestClient client(service_.port(1));
  for (uint64_t i = 1; i <= 5; ++i) {
    EXPECT_EQ(client.Get("/hello").status, 200);
    AwaitRequests(1, i);
    v1::Stats stats;
    auto context = Context();
    ASSERT_TRUE(stub->GetStats(context.get(), {}, &stats).ok());
    EXPECT_EQ(stats.workers(0).http().requests(), 0u);
    EXPECT_EQ(stats.workers(1).http().requests(), i);
    EXPECT_EQ(stats.total().http().requests(), i);
    EXPECT_EQ(stats.total().http().connections(), 1u);
    EXPECT_GE(stats.workers(1).queue().operations().at("send"), i);
    EXPECT_FALSE(stats.total().stale());
  }
}

TEST_F(AdminServerTest, WatchStatsSendsAsManyAsAskedFor) {
  Start();
  v1::WatchStatsRequest request;
  *request.mutable_interval() = TimeUtil::MillisecondsToDuration(20);
  request.set_count(5);
  auto stub = Stub();
  auto context = Context();
  const auto start = Clock::now();
  auto reader = stub->WatchStats(context.get(), request);
  TestClient client(service_.port(0));
  v1::Stats stats;
  uint64_t requests = 0;
  google::protobuf::Duration uptime;
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(reader->Read(&stats));
    EXPECT_GT(stats.uptime(), uptime);
    EXPECT_GE(stats.total().http().requests(), requests);
    uptime = stats.uptime();
    requests = stats.total().http().requests();
    EXPECT_EQ(client.Get("/hello").status, 200);
  }
  EXPECT_FALSE(reader->Read(&stats));
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_GE(Clock::now() - start, std::chrono::milliseconds(70));
  EXPECT_GE(requests, 3u);
}

TEST_F(AdminServerTest, WatchStatsRefusesIntervals) {
  Start();
  auto stub = Stub();
  for (auto [seconds, nanos] : {std::pair<int64_t, int32_t>{0, 0},
                                {0, 9'999'999},
                                {-1, 0},
                                {1, -1},
                                {0, 1'000'000'000},
                                {3601, 0},
                                {3600, 1},
                                {INT64_MAX, 0},
                                {INT64_MIN, INT32_MIN}}) {
    v1::WatchStatsRequest request;
    request.mutable_interval()->set_seconds(seconds);
    request.mutable_interval()->set_nanos(nanos);
    auto context = Context();
    auto reader = stub->WatchStats(context.get(), request);
    v1::Stats stats;
    EXPECT_FALSE(reader->Read(&stats));
    const grpc::Status status = reader->Finish();
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_message(), HasSubstr("interval"));
  }
}

// A loop that hangs makes its own figures old, and nothing else.
TEST_F(AdminServerTest, AnswersWhileALoopHangs) {
  Start();
  std::promise<void> release;
  std::promise<void> blocked;
  service_.loop(1)->Post([&] {
    blocked.set_value();
    release.get_future().wait();
  });
  blocked.get_future().wait();
  auto stub = Stub();
  v1::Stats stats;
  auto context = Context();
  EXPECT_TRUE(stub->GetStats(context.get(), {}, &stats).ok());
  EXPECT_FALSE(stats.workers(0).stale());
  EXPECT_TRUE(stats.workers(1).stale());
  EXPECT_FALSE(stats.workers(1).has_queue()) << "it has never answered";
  EXPECT_EQ(Health(), 1);
  release.set_value();
  context = Context();
  EXPECT_TRUE(stub->GetStats(context.get(), {}, &stats).ok());
  EXPECT_FALSE(stats.workers(1).stale());
}

// --- Health and reflection.

TEST_F(AdminServerTest, HealthFollowsServing) {
  Start();
  EXPECT_EQ(Health(), 1);
  admin_->SetServing(false);
  EXPECT_EQ(Health(), 2);
  v1::GetInfoResponse info;
  auto context = Context();
  ASSERT_TRUE(Stub()->GetInfo(context.get(), {}, &info).ok());
  EXPECT_EQ(info.state(), v1::GetInfoResponse::DRAINING);
  admin_->SetServing(true);
  EXPECT_EQ(Health(), 1);
}

TEST_F(AdminServerTest, ReflectionNamesTheServices) {
  Start();
  grpc::GenericStub stub(Channel());
  grpc::CompletionQueue queue;
  auto context = Context();
  auto await = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  auto call = stub.PrepareCall(
      context.get(),
      "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  call->StartCall(&queue);
  ASSERT_TRUE(await());
  // ServerReflectionRequest { list_services: "*" }
  const grpc::Slice slice("\x3a\x01*");
  call->WriteLast(grpc::ByteBuffer(&slice, 1), {}, &queue);
  ASSERT_TRUE(await());
  grpc::ByteBuffer answer;
  call->Read(&answer, &queue);
  ASSERT_TRUE(await());
  std::vector<grpc::Slice> slices;
  ASSERT_TRUE(answer.Dump(&slices).ok());
  std::string text;
  for (const grpc::Slice& part : slices) {
    text.append(reinterpret_cast<const char*>(part.begin()), part.size());
  }
  EXPECT_THAT(text, HasSubstr("kevent.admin.v1.Admin"));
  EXPECT_THAT(text, HasSubstr("grpc.health.v1.Health"));
  grpc::Status status;
  call->Finish(&status, &queue);
  ASSERT_TRUE(await());
  EXPECT_TRUE(status.ok()) << status.error_message();
}

// --- HTTP.

class AdminHttpTest : public AdminServerTest {
 protected:
  void StartHttp(bool grpc) {
    AdminServer::Options options;
    options.http_address = "127.0.0.1:0";
    if (grpc) options.address = address();
    auto admin = AdminServer::Start(service_.target(), options);
    ASSERT_TRUE(admin.ok()) << admin.status();
    admin_ = *std::move(admin);
    const std::string bound = admin_->http_address();
    port_ =
        static_cast<uint16_t>(std::stoi(bound.substr(bound.rfind(':') + 1)));
  }
  uint16_t port_ = 0;
};

TEST_F(AdminHttpTest, Metrics) {
  StartHttp(true);
  TestClient client(service_.port(1));
  for (uint64_t i = 1; i <= 3; ++i) {
    EXPECT_EQ(client.Get("/hello").status, 200);
    AwaitRequests(1, i);
  }
  TestClient scraper(port_);
  const http::ClientResponse response = scraper.Get("/metrics");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.Get("Content-Type"),
            "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_THAT(response.body,
              HasSubstr("kevent_http_responses_total{worker=\"1\",class=\"2xx\""
                        "} 3\n"));
  EXPECT_THAT(response.body, HasSubstr("kevent_draining 0\n"));
  EXPECT_EQ(scraper.Get("/nothing").status, 404);
  EXPECT_EQ(scraper.Ask(TestClient::Request("POST", "/metrics")).status, 405);
  EXPECT_EQ(Health(), 1) << "beside gRPC";
}

TEST_F(AdminHttpTest, PageNeedsNothingButItself) {
  StartHttp(false);
  TestClient client(port_);
  const http::ClientResponse page = client.Get("/");
  EXPECT_EQ(page.status, 200);
  EXPECT_EQ(page.Get("Content-Type"), "text/html; charset=utf-8");
  EXPECT_THAT(page.body, HasSubstr("</html>"));
  EXPECT_THAT(page.body, HasSubstr("fetch(\"stats.json\")"));
  for (const char* other : {"http:", "https:", "src=", "href=", "@import"}) {
    EXPECT_THAT(page.body, testing::Not(HasSubstr(other)));
  }
  const http::ClientResponse json = client.Get("/stats.json");
  EXPECT_EQ(json.Get("Content-Type"), "application/json");
  v1::Stats stats;
  ASSERT_TRUE(
      google::protobuf::util::JsonStringToMessage(json.body, &stats).ok());
  EXPECT_EQ(stats.workers_size(), 2);
  // All that the page reads, zeroes included.
  for (const char* field :
       {"\"requests\":", "\"connections\":", "\"buckets\":", "\"entries\":",
        "\"enters\":", "\"sleeps\":", "\"wakes\":", "\"in_flight\":",
        "\"ring_high_water\":", "\"stale\":", "\"uptime\":"}) {
    EXPECT_THAT(json.body, HasSubstr(field));
  }
}

TEST_F(AdminHttpTest, ReadinessFollowsDraining) {
  StartHttp(false);
  TestClient client(port_);
  EXPECT_EQ(client.Get("/readyz").status, 200);
  EXPECT_EQ(client.Get("/healthz").status, 200);
  admin_->SetServing(false);
  EXPECT_EQ(client.Get("/readyz").status, 503);
  EXPECT_EQ(client.Get("/healthz").status, 200);
  EXPECT_THAT(client.Get("/metrics").body, HasSubstr("kevent_draining 1\n"));
}

TEST_F(AdminHttpTest, HealthTellsOfALoopThatHangs) {
  StartHttp(false);
  std::promise<void> release;
  std::promise<void> blocked;
  service_.loop(1)->Post([&] {
    blocked.set_value();
    release.get_future().wait();
  });
  blocked.get_future().wait();
  TestClient client(port_);
  const http::ClientResponse response = client.Get("/healthz");
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(response.body, "worker 1 does not answer\n");
  // Ending with a request under way waits for its figures, not for the loop.
  ASSERT_TRUE(client.Send(TestClient::Request("GET", "/metrics")));
  admin_.reset();
  release.set_value();
}

TEST_F(AdminHttpTest, RefusesAnAddressInUse) {
  StartHttp(false);
  AdminServer::Options options;
  options.http_address = "127.0.0.1:" + std::to_string(port_);
  auto second = AdminServer::Start(service_.target(), options);
  EXPECT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("in use"));
}

// --- Hostile and careless clients.

TEST_F(AdminServerTest, RefusesMoreStreamsThanItMayHave) {
  AdminServer::Options options;
  options.max_streams = 3;
  Start(service_.target(), options);
  auto stub = Stub();
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::Stats>>> readers;
  v1::Stats stats;
  for (int i = 0; i < 3; ++i) {
    contexts.push_back(Context());
    readers.push_back(stub->WatchStats(contexts.back().get(), {}));
    ASSERT_TRUE(readers.back()->Read(&stats));
  }
  auto refused = Context();
  auto reader = stub->WatchStats(refused.get(), {});
  EXPECT_FALSE(reader->Read(&stats));
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::RESOURCE_EXHAUSTED);
  // Ended streams make room.
  contexts[1]->TryCancel();
  while (readers[1]->Read(&stats)) {
  }
  EXPECT_EQ(readers[1]->Finish().error_code(), StatusCode::CANCELLED);
  const auto deadline = Clock::now() + std::chrono::seconds(30);
  bool admitted = false;
  while (!admitted && Clock::now() < deadline) {
    auto again = Context();
    auto next = stub->WatchStats(again.get(), {});
    admitted = next->Read(&stats);
    again->TryCancel();
    while (next->Read(&stats)) {
    }
    next->Finish();
  }
  EXPECT_TRUE(admitted);
  for (auto& context : contexts) context->TryCancel();
  for (auto& r : readers) {
    while (r->Read(&stats)) {
    }
  }
  readers[0]->Finish();
  readers[2]->Finish();
}

TEST_F(AdminServerTest, RefusesOversizedRequests) {
  Start();
  v1::GetStatsRequest request;
  request.GetReflection()->MutableUnknownFields(&request)->AddLengthDelimited(
      99, std::string(3 << 20, 'x'));
  auto stub = Stub();
  v1::Stats stats;
  auto context = Context();
  EXPECT_EQ(stub->GetStats(context.get(), request, &stats).error_code(),
            StatusCode::RESOURCE_EXHAUSTED);
  context = Context();
  EXPECT_TRUE(stub->GetStats(context.get(), {}, &stats).ok());
}

TEST_F(AdminServerTest, SurvivesNonsense) {
  Start();
  sockaddr_un to = {};
  to.sun_family = AF_UNIX;
  path().copy(to.sun_path, sizeof to.sun_path - 1);
  for (const std::string& bytes :
       {std::string("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        std::string(100'000, '\xff'), std::string(),
        std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") +
            std::string(1000, '\x7f')}) {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
    // The server may end it half-way.
    send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    close(fd);
  }
  std::string response;
  EXPECT_FALSE(CallRaw(Channel(), "/kevent.admin.v1.Admin/GetStats",
                       "\xff\xff\xff", &response)
                   .ok())
      << "bytes that are no message";
  EXPECT_EQ(CallRaw(Channel(), "/kevent.admin.v1.Admin/Nothing", "", &response)
                .error_code(),
            StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(Health(), 1);
}

TEST_F(AdminServerTest, HundredsOfClientsAtOnceAndGoingAway) {
  constexpr size_t kThreads = 8;
  constexpr size_t kClients = 40;
  Start();
  std::atomic<bool> done{false};
  std::thread load([&] {
    TestClient client(service_.port(0));
    while (!done) {
      if (client.Get("/hello").status != 200) {
        ADD_FAILURE() << "the service itself failed";
        return;
      }
    }
  });
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::vector<std::unique_ptr<v1::Admin::Stub>> stubs;
      std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
      std::vector<std::unique_ptr<grpc::ClientReader<v1::Stats>>> readers;
      v1::WatchStatsRequest request;
      *request.mutable_interval() = TimeUtil::MillisecondsToDuration(50);
      for (size_t i = 0; i < kClients; ++i) {
        stubs.push_back(Stub());
        contexts.push_back(Context());
        readers.push_back(stubs[i]->WatchStats(contexts[i].get(), request));
      }
      v1::Stats stats;
      for (size_t i = 0; i < kClients; ++i) {
        EXPECT_TRUE(readers[i]->Read(&stats));
        EXPECT_EQ(stats.workers_size(), 2);
        auto context = Context();
        EXPECT_TRUE(stubs[i]->GetStats(context.get(), {}, &stats).ok());
      }
      for (size_t i = 0; i < kClients; ++i) {
        // Some end their call, others are gone with their connection.
        contexts[i]->TryCancel();
        if ((i + t) % 2 == 0) {
          while (readers[i]->Read(&stats)) {
          }
          EXPECT_EQ(readers[i]->Finish().error_code(), StatusCode::CANCELLED);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  done = true;
  load.join();
  v1::Stats stats;
  auto context = Context();
  ASSERT_TRUE(Stub()->GetStats(context.get(), {}, &stats).ok());
  EXPECT_GT(stats.total().http().requests(), 0u);
  EXPECT_EQ(stats.total().http().aborted(), 0u);
}

TEST_F(AdminServerTest, EndsWithCallsUnderWay) {
  Start();
  auto stub = Stub();
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::Stats>>> readers;
  v1::Stats stats;
  for (int i = 0; i < 20; ++i) {
    contexts.push_back(Context());
    readers.push_back(stub->WatchStats(contexts.back().get(), {}));
    ASSERT_TRUE(readers.back()->Read(&stats));
  }
  const auto start = Clock::now();
  admin_.reset();
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(10));
  for (auto& reader : readers) {
    while (reader->Read(&stats)) {
    }
    EXPECT_FALSE(reader->Finish().ok());
  }
  TestClient client(service_.port(0));
  EXPECT_EQ(client.Get("/hello").body, "hello") << "the service goes on";
}

}  // namespace
}  // namespace kevent::admin
