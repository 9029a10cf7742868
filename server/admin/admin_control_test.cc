// SPDX-License-Identifier: Apache-2.0
//
// The calls that look closely and those that change something.

#include <fcntl.h>
#include <google/protobuf/util/time_util.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/admin/admin_fixture.h"
#include "server/files/file_cache.h"
#include "server/files/root.h"
#include "server/http/test_client.h"
#include "server/log/server_log.h"
#include "server/log/tail.h"

namespace kevent::admin {
namespace {

using google::protobuf::util::TimeUtil;
using grpc::StatusCode;
using http::TestClient;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class AdminControlTest : public AdminTest {
 protected:
  using Clients = std::vector<std::unique_ptr<TestClient>>;

  // Connections of worker `worker`, accepted one after the other.
  void Connect(size_t worker, size_t count, Clients* clients) {
    for (size_t i = 0; i < count; ++i) {
      const uint64_t before =
          service_.server(worker)->counters().accepted.value();
      clients->push_back(std::make_unique<TestClient>(service_.port(worker)));
      ASSERT_TRUE(service_.Await(worker, [&] {
        return service_.server(worker)->counters().accepted.value() > before;
      }));
    }
  }

  grpc::Status List(const v1::ListConnectionsRequest& request,
                    v1::ListConnectionsResponse* response) {
    auto context = Context();
    response->Clear();
    return Stub()->ListConnections(context.get(), request, response);
  }
  size_t CountOf(const v1::ListConnectionsRequest& request) {
    v1::ListConnectionsResponse response;
    const grpc::Status status = List(request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return static_cast<size_t>(response.connections_size());
  }
  StatusCode CodeOf(const v1::ListConnectionsRequest& request) {
    v1::ListConnectionsResponse response;
    return List(request, &response).error_code();
  }
};

// --- Connections.

TEST_F(AdminControlTest, ListsConnectionsInPages) {
  Start();
  Clients clients;
  Connect(0, 5, &clients);
  Connect(1, 4, &clients);
  for (uint32_t size : {1u, 2u, 3u, 5u, 9u, 100u}) {
    SCOPED_TRACE(size);
    v1::ListConnectionsRequest request;
    request.set_page_size(size);
    std::vector<std::string> ids;
    size_t pages = 0;
    do {
      v1::ListConnectionsResponse response;
      ASSERT_TRUE(List(request, &response).ok());
      ASSERT_LE(response.connections_size(), static_cast<int>(size));
      for (const v1::Connection& c : response.connections()) {
        ids.push_back(c.id());
        EXPECT_THAT(c.peer(), HasSubstr("127.0.0.1:"));
        EXPECT_EQ(c.state(), v1::Connection::IDLE);
        EXPECT_EQ(c.worker(), ids.size() <= 5 ? 0u : 1u);
        EXPECT_GT(c.fd(), 0);
      }
      request.set_page_token(response.next_page_token());
      ASSERT_LT(++pages, 20u);
    } while (!request.page_token().empty());
    EXPECT_EQ(ids.size(), 9u);
    EXPECT_EQ(std::set<std::string>(ids.begin(), ids.end()).size(), 9u);
  }
}

TEST_F(AdminControlTest, FiltersConnections) {
  Start();
  Clients clients;
  Connect(0, 2, &clients);
  ASSERT_TRUE(clients[0]->Send(TestClient::Request("GET", "/hold")));
  v1::ListConnectionsRequest request;
  request.set_state(v1::Connection::REQUEST);
  ASSERT_TRUE(service_.Await(0, [&] {
    size_t busy = 0;
    http::HttpServer::Walk walk(service_.server(0));
    walk.Next(10, [&](const auto& info) {
      busy += info.state != http::HttpServer::ConnectionState::kIdle;
      return http::HttpServer::Verdict::kKeep;
    });
    return busy == 1;
  }));
  EXPECT_EQ(CountOf(request), 1u);
  request.set_state(v1::Connection::IDLE);
  EXPECT_EQ(CountOf(request), 1u);
  request.set_state(v1::Connection::RESPONSE);
  EXPECT_EQ(CountOf(request), 0u);
  request.Clear();
  for (auto [peer, count] : {std::pair<const char*, size_t>{"127.0.0.1", 2},
                             {"127.0.0.0/8", 2},
                             {"192.0.2.1", 0},
                             {"::1", 0},
                             {"unix", 0}}) {
    request.set_peer(peer);
    EXPECT_EQ(CountOf(request), count) << peer;
  }
  request.Clear();
  *request.mutable_min_age() = TimeUtil::SecondsToDuration(3600);
  EXPECT_EQ(CountOf(request), 0u);
  request.Clear();
  *request.mutable_max_age() = TimeUtil::SecondsToDuration(3600);
  EXPECT_EQ(CountOf(request), 2u);
}

TEST_F(AdminControlTest, RefusesBadListRequests) {
  Start();
  v1::ListConnectionsRequest request;
  request.set_page_size(1001);
  EXPECT_EQ(CodeOf(request), StatusCode::INVALID_ARGUMENT);
  for (const char* token :
       {"x", "0", "0-", "2-1", "4294967295-1", "-", "0-zz"}) {
    request.Clear();
    request.set_page_token(token);
    EXPECT_EQ(CodeOf(request), StatusCode::INVALID_ARGUMENT) << token;
  }
  request.Clear();
  request.set_peer("everybody");
  EXPECT_EQ(CodeOf(request), StatusCode::INVALID_ARGUMENT);
  request.Clear();
  request.set_state(static_cast<v1::Connection::State>(99));
  EXPECT_EQ(CodeOf(request), StatusCode::INVALID_ARGUMENT);
  request.Clear();
  request.mutable_min_age()->set_seconds(-1);
  EXPECT_EQ(CodeOf(request), StatusCode::INVALID_ARGUMENT);
}

TEST_F(AdminControlTest, ListsWhileALoopHangs) {
  Start();
  Clients clients;
  Connect(0, 1, &clients);
  std::promise<void> release;
  std::promise<void> blocked;
  service_.loop(1)->Post([&] {
    blocked.set_value();
    release.get_future().wait();
  });
  blocked.get_future().wait();
  v1::ListConnectionsResponse response;
  const grpc::Status status = List({}, &response);
  EXPECT_EQ(status.error_code(), StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(status.error_message(), HasSubstr("worker 1"));
  release.set_value();
  EXPECT_EQ(CountOf({}), 1u);
}

TEST_F(AdminControlTest, ClosesConnections) {
  Start();
  Clients clients;
  Connect(1, 3, &clients);
  v1::ListConnectionsResponse list;
  ASSERT_TRUE(List({}, &list).ok());
  ASSERT_EQ(list.connections_size(), 3);  // newest first
  auto stub = Stub();
  auto close = [&](const std::string& id, bool abort) {
    v1::CloseConnectionRequest request;
    request.set_id(id);
    request.set_abort(abort);
    v1::CloseConnectionResponse response;
    auto context = Context();
    return stub->CloseConnection(context.get(), request, &response)
        .error_code();
  };
  EXPECT_EQ(close(list.connections(1).id(), false), StatusCode::OK);
  EXPECT_EQ(clients[1]->AwaitEnd(), TestClient::End::kClosed);
  EXPECT_EQ(close(list.connections(1).id(), false), StatusCode::NOT_FOUND);
  EXPECT_EQ(close(list.connections(0).id(), true), StatusCode::OK);
  EXPECT_TRUE(clients[2]->AwaitReset());
  EXPECT_EQ(clients[0]->Get("/hello").body, "hello") << "the third lives on";
  for (const char* id : {"0-1", "7-1", "1-ffffffffffffffff", "1-0"}) {
    EXPECT_EQ(close(id, true), StatusCode::NOT_FOUND) << id;
  }
  for (const char* id : {"", "1", "x-y", "1-1-1"}) {
    EXPECT_EQ(close(id, true), StatusCode::INVALID_ARGUMENT) << id;
  }
}

// --- Draining.

TEST_F(AdminControlTest, DrainsWithoutHooks) {
  Start();
  Clients clients;
  Connect(0, 2, &clients);
  ASSERT_TRUE(clients[0]->Send(TestClient::Request("GET", "/hold")));
  EXPECT_EQ(clients[1]->Get("/hello").status, 200);
  auto stub = Stub();
  v1::DrainRequest request;
  v1::DrainResponse response;
  auto context = Context();
  *request.mutable_timeout() = TimeUtil::SecondsToDuration(3600);
  ASSERT_TRUE(stub->Drain(context.get(), request, &response).ok());
  EXPECT_FALSE(response.drained());
  EXPECT_EQ(Health(), 2);
  EXPECT_EQ(clients[1]->AwaitEnd(), TestClient::End::kClosed);
  // A second one waits, for as long as its client does.
  request.set_wait(true);
  auto hasty = Context();
  hasty->set_deadline(std::chrono::system_clock::now() +
                      std::chrono::milliseconds(50));
  EXPECT_EQ(stub->Drain(hasty.get(), request, &response).error_code(),
            StatusCode::DEADLINE_EXCEEDED);
  v1::UndrainResponse undrained;
  context = Context();
  EXPECT_EQ(stub->Undrain(context.get(), {}, &undrained).error_code(),
            StatusCode::UNIMPLEMENTED)
      << "it has no hook for it";
  auto waiting = std::async(std::launch::async, [&] {
    v1::DrainResponse last;
    auto c = Context();
    EXPECT_TRUE(stub->Drain(c.get(), request, &last).ok());
    return last;
  });
  clients[0]->Close();
  // Its handler still owes a response; CloseAll alone would not end it.
  service_.ReleaseHeld(0);
  const v1::DrainResponse last = waiting.get();
  EXPECT_TRUE(last.drained());
  EXPECT_EQ(last.connections(), 0u);
}

TEST_F(AdminControlTest, DrainClosesWhatIsLeftAtTheEnd) {
  Start();
  TestClient half(service_.port(0));
  ASSERT_TRUE(half.Send("GET /"));
  ASSERT_TRUE(service_.Await(
      0, [&] { return service_.server(0)->connections() == 1; }));
  v1::DrainRequest request;
  *request.mutable_timeout() = TimeUtil::MillisecondsToDuration(50);
  request.set_wait(true);
  v1::DrainResponse response;
  auto context = Context();
  ASSERT_TRUE(Stub()->Drain(context.get(), request, &response).ok());
  EXPECT_TRUE(response.drained());
  EXPECT_NE(half.AwaitEnd(), TestClient::End::kTimeout);
}

// Hundreds of calls of every kind while it drains; half of the clients go away
// in the middle.
TEST_F(AdminControlTest, ManyClientsWhileItDrains) {
  constexpr int kThreads = 8;
  constexpr int kCalls = 40;
  Start();
  Clients clients;
  Connect(0, 20, &clients);
  ASSERT_TRUE(clients[0]->Send(TestClient::Request("GET", "/hold")));
  v1::DrainRequest drain;
  *drain.mutable_timeout() = TimeUtil::SecondsToDuration(3600);
  v1::DrainResponse response;
  auto first = Context();
  ASSERT_TRUE(Stub()->Drain(first.get(), drain, &response).ok());
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kCalls; ++i) {
        auto stub = Stub();
        auto context = Context();
        v1::WatchStatsRequest watch;
        *watch.mutable_interval() = TimeUtil::MillisecondsToDuration(10);
        auto reader = stub->WatchStats(context.get(), watch);
        v1::Stats stats;
        EXPECT_TRUE(reader->Read(&stats));
        auto other = Context();
        v1::ListConnectionsResponse list;
        EXPECT_TRUE(stub->ListConnections(other.get(), {}, &list).ok());
        // Waits for what does not come, and gives up.
        auto waiting = Context();
        waiting->set_deadline(std::chrono::system_clock::now() +
                              std::chrono::milliseconds(5));
        v1::DrainRequest again;
        again.set_wait(true);
        v1::DrainResponse none;
        EXPECT_EQ(stub->Drain(waiting.get(), again, &none).error_code(),
                  StatusCode::DEADLINE_EXCEEDED);
        if ((i + t) % 2 == 0) continue;  // is gone with its connection
        context->TryCancel();
        while (reader->Read(&stats)) {
        }
        EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Health(), 2);
  service_.ReleaseHeld(0);
  drain.set_wait(true);
  auto last = Context();
  ASSERT_TRUE(Stub()->Drain(last.get(), drain, &response).ok());
  EXPECT_TRUE(response.drained());
}

TEST_F(AdminControlTest, DrainRefusesTimeouts) {
  Start();
  for (auto [seconds, nanos] : {std::pair<int64_t, int32_t>{-1, 0},
                                {86401, 0},
                                {0, -5},
                                {INT64_MAX, 0}}) {
    v1::DrainRequest request;
    request.mutable_timeout()->set_seconds(seconds);
    request.mutable_timeout()->set_nanos(nanos);
    v1::DrainResponse response;
    auto context = Context();
    EXPECT_EQ(Stub()->Drain(context.get(), request, &response).error_code(),
              StatusCode::INVALID_ARGUMENT);
  }
  EXPECT_EQ(Health(), 1);
}

TEST_F(AdminControlTest, UndrainsByItsHook) {
  Target target = service_.target();
  absl::Status outcome = absl::FailedPreconditionError("the port is taken");
  std::vector<int64_t> timeouts;
  Target::DoneFn late;
  target.drain = [&](int64_t timeout_ns, Target::DoneFn done) {
    timeouts.push_back(timeout_ns);
    late = std::move(done);
  };
  target.undrain = [&](Target::StatusFn done) { done(outcome); };
  target.drain_timeout_ns = 7;
  Start(std::move(target), {});
  auto stub = Stub();
  auto undrain = [&] {
    v1::UndrainResponse response;
    auto context = Context();
    return stub->Undrain(context.get(), {}, &response);
  };
  auto drain = [&](bool wait) {
    v1::DrainRequest request;
    request.set_wait(wait);
    v1::DrainResponse response;
    auto context = Context();
    return stub->Drain(context.get(), request, &response);
  };
  EXPECT_EQ(undrain().error_code(), StatusCode::FAILED_PRECONDITION);
  ASSERT_TRUE(drain(false).ok());
  EXPECT_THAT(timeouts, ElementsAre(7));
  EXPECT_EQ(undrain().error_message(), "the port is taken");
  EXPECT_EQ(Health(), 2);
  auto waiting = std::async(std::launch::async, [&] { return drain(true); });
  // Its call may come behind the undrain, and then drains anew.
  outcome = absl::OkStatus();
  while (waiting.wait_for(std::chrono::seconds(0)) !=
         std::future_status::ready) {
    undrain();
  }
  EXPECT_EQ(waiting.get().error_code(), StatusCode::ABORTED);
  EXPECT_EQ(Health(), 1);
  // The end of a drain that was taken back.
  late();
  EXPECT_EQ(Health(), 1);
  admin_.reset();
}

// --- The log.

TEST_F(AdminControlTest, LogLevels) {
  log::ServerLog log("test", open("/dev/null", O_WRONLY | O_CLOEXEC), nullptr);
  Target target = service_.target();
  target.log = &log;
  Start(std::move(target), {});
  auto stub = Stub();
  v1::SetLogLevelRequest request;
  v1::SetLogLevelResponse response;
  auto set = [&](v1::LogLevel level) {
    request.set_level(level);
    auto context = Context();
    return stub->SetLogLevel(context.get(), request, &response).error_code();
  };
  EXPECT_EQ(set(v1::ERROR), StatusCode::OK);
  EXPECT_EQ(response.previous(), v1::INFO);
  EXPECT_EQ(log.level(), log::Level::kError);
  EXPECT_EQ(set(v1::DEBUG), StatusCode::OK);
  EXPECT_EQ(response.previous(), v1::ERROR);
  EXPECT_EQ(set(v1::LOG_LEVEL_UNSPECIFIED), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(set(static_cast<v1::LogLevel>(77)), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(log.level(), log::Level::kDebug);
  v1::GetInfoResponse info;
  auto context = Context();
  ASSERT_TRUE(stub->GetInfo(context.get(), {}, &info).ok());
  EXPECT_EQ(info.log_level(), v1::DEBUG);
  admin_.reset();  // before its log
}

TEST_F(AdminControlTest, TailsTheLog) {
  log::Tail tail;
  log::ServerLog log("test", open("/dev/null", O_WRONLY | O_CLOEXEC), &tail);
  std::atomic<int> wanted{0};
  tail.SetWanted([&](bool on) { wanted += on ? 1 : -1; });
  Target target = service_.target();
  target.log = &log;
  target.tail = &tail;
  Start(std::move(target), {});
  log.Write(log::Level::kInfo, "before 1");
  log.Write(log::Level::kWarning, "before 2");
  auto stub = Stub();
  v1::TailLogRequest request;
  request.set_recent(1);
  request.set_min_level(v1::WARNING);
  auto context = Context();
  auto reader = stub->TailLog(context.get(), request);
  v1::TailLogResponse response;
  ASSERT_TRUE(reader->Read(&response));
  ASSERT_EQ(response.lines_size(), 1);
  EXPECT_EQ(response.lines(0).text(), "before 2");
  EXPECT_EQ(response.lines(0).level(), v1::WARNING);
  EXPECT_EQ(response.lines(0).source(), v1::TailLogRequest::SERVER);
  EXPECT_EQ(wanted, 1);
  log.Write(log::Level::kInfo, "not this one");
  log::Line access;
  access.kind = log::Line::Kind::kAccess;
  access.worker = 3;
  access.text = "GET /x";
  tail.Publish({access});
  ASSERT_TRUE(reader->Read(&response));
  ASSERT_EQ(response.lines_size(), 1);
  EXPECT_EQ(response.lines(0).text(), "GET /x");
  EXPECT_EQ(response.lines(0).worker(), 3u);
  EXPECT_EQ(response.lines(0).source(), v1::TailLogRequest::ACCESS);
  context->TryCancel();
  EXPECT_FALSE(reader->Read(&response));
  reader->Finish();
  // Nobody looks on any more: those who log are told.
  const auto deadline =
      std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (wanted != 0 && std::chrono::steady_clock::now() < deadline) {
    EXPECT_EQ(Health(), 1);
  }
  EXPECT_EQ(wanted, 0);

  request.Clear();
  request.set_contains(std::string(1001, 'x'));
  auto refused = Context();
  auto none = stub->TailLog(refused.get(), request);
  EXPECT_FALSE(none->Read(&response));
  EXPECT_EQ(none->Finish().error_code(), StatusCode::INVALID_ARGUMENT);
  admin_.reset();
}

// A client that does not read costs neither memory without end nor lines of
// others, and learns what it has missed.
TEST_F(AdminControlTest, SlowReadersOfTheLogLoseLines) {
  log::Tail tail;
  Target target = service_.target();
  target.tail = &tail;
  Start(std::move(target), {});
  std::promise<void> on;
  tail.SetWanted([&](bool wanted) {
    if (wanted) on.set_value();
  });
  auto stub = Stub();
  auto context = Context();
  auto reader = stub->TailLog(context.get(), {});
  on.get_future().wait();
  log::Line line;
  line.kind = log::Line::Kind::kAccess;
  line.text = std::string(2000, 'x');
  const std::vector<log::Line> many(1000, line);
  constexpr uint64_t kBatches = 100;
  for (uint64_t i = 0; i < kBatches; ++i) tail.Publish(many);
  uint64_t got = 0;
  uint64_t dropped = 0;
  v1::TailLogResponse response;
  // A last line, again and again, tells of what was lost before it.
  while (dropped == 0 || got + dropped < kBatches * 1000) {
    line.text = "last";
    tail.Publish({line});
    ASSERT_TRUE(reader->Read(&response));
    for (const auto& l : response.lines()) got += l.text() != "last";
    dropped += response.dropped();
  }
  EXPECT_GT(dropped, 0u);
  EXPECT_GT(got, 0u);
  context->TryCancel();
  while (reader->Read(&response)) {
  }
  reader->Finish();
  admin_.reset();
}

TEST_F(AdminControlTest, WithoutALogThereIsNothingToTail) {
  Start();
  auto stub = Stub();
  auto context = Context();
  auto reader = stub->TailLog(context.get(), {});
  v1::TailLogResponse response;
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::UNIMPLEMENTED);
  v1::SetLogLevelRequest request;
  request.set_level(v1::DEBUG);
  v1::SetLogLevelResponse set;
  context = Context();
  EXPECT_EQ(stub->SetLogLevel(context.get(), request, &set).error_code(),
            StatusCode::UNIMPLEMENTED);
}

// --- The cache.

class AdminCacheTest : public AdminControlTest {
 protected:
  AdminCacheTest() {
    const std::string www = dir_ + "/www";
    std::filesystem::create_directories(www + "/d");
    for (const char* path : {"/a", "/b%c", "/d/x", "/d/y"}) {
      std::ofstream(www + path) << "content";
    }
    root_.emplace(*files::Root::Create(www, files::SymlinkPolicy::kBeneath));
    Target target = service_.target();
    for (size_t i = 0; i < 2; ++i) {
      caches_.push_back(std::make_unique<files::FileCache>(
          &*root_, nullptr, [](files::Entry&, std::string*) {},
          files::FileCache::Options()));
      target.workers[i].cache = [cache = caches_[i].get()] { return cache; };
      service_.Call(i, [&] {
        for (const char* path : {"a", "b%c", "d", "d/x", "d/y", "none"}) {
          int error = 0;
          caches_[i]->Get(path, 1, &error);
        }
      });
    }
    Start(std::move(target), {});
  }
  ~AdminCacheTest() override { admin_.reset(); }

  std::vector<std::string> Paths(const std::string& prefix, uint32_t size) {
    std::vector<std::string> paths;
    v1::ListCacheRequest request;
    request.set_prefix(prefix);
    request.set_page_size(size);
    auto stub = Stub();
    do {
      v1::ListCacheResponse response;
      auto context = Context();
      const grpc::Status status =
          stub->ListCache(context.get(), request, &response);
      EXPECT_TRUE(status.ok()) << status.error_message();
      if (!status.ok()) break;
      for (const v1::CacheEntry& e : response.entries()) {
        paths.push_back(std::to_string(e.worker()) + e.path());
      }
      request.set_page_token(response.next_page_token());
    } while (!request.page_token().empty() && paths.size() < 100);
    return paths;
  }
  grpc::Status Purge(const v1::PurgeCacheRequest& request, uint64_t* dropped) {
    v1::PurgeCacheResponse response;
    auto context = Context();
    const grpc::Status status =
        Stub()->PurgeCache(context.get(), request, &response);
    *dropped = response.dropped();
    return status;
  }

  std::optional<files::Root> root_;
  std::vector<std::unique_ptr<files::FileCache>> caches_;
};

TEST_F(AdminCacheTest, ListsEntriesInPages) {
  for (uint32_t size : {1u, 2u, 5u, 6u, 7u, 100u}) {
    EXPECT_THAT(
        Paths("", size),
        ElementsAre("0/a", "0/b%25c", "0/d", "0/d/x", "0/d/y", "0/none", "1/a",
                    "1/b%25c", "1/d", "1/d/x", "1/d/y", "1/none"))
        << size;
  }
  EXPECT_THAT(Paths("/d", 2),
              ElementsAre("0/d", "0/d/x", "0/d/y", "1/d", "1/d/x", "1/d/y"));
  EXPECT_THAT(Paths("/d/", 100),
              ElementsAre("0/d", "0/d/x", "0/d/y", "1/d", "1/d/x", "1/d/y"));
  EXPECT_THAT(Paths("/b%25c", 100), ElementsAre("0/b%25c", "1/b%25c"));
  EXPECT_THAT(Paths("/nothing", 100), IsEmpty());
}

TEST_F(AdminCacheTest, TellsWhatAnEntryIs) {
  v1::ListCacheRequest request;
  v1::ListCacheResponse response;
  auto context = Context();
  ASSERT_TRUE(Stub()->ListCache(context.get(), request, &response).ok());
  const v1::CacheEntry& file = response.entries(0);
  EXPECT_EQ(file.kind(), v1::CacheEntry::FILE);
  EXPECT_EQ(file.size(), 7u);
  EXPECT_TRUE(file.in_memory());
  EXPECT_THAT(file.etag(), HasSubstr("-7\""));
  EXPECT_GT(file.modified().seconds(), 1'000'000'000);
  EXPECT_EQ(response.entries(2).kind(), v1::CacheEntry::DIRECTORY);
  EXPECT_EQ(response.entries(5).kind(), v1::CacheEntry::MISSING);
  EXPECT_EQ(response.entries(5).error(), "No such file or directory");
}

TEST_F(AdminCacheTest, RefusesBadRequests) {
  auto stub = Stub();
  for (const char* token : {"x", "9", "0-", "0-0-x", "0-0", "0-0-/%", "-1"}) {
    v1::ListCacheRequest request;
    request.set_page_token(token);
    v1::ListCacheResponse response;
    auto context = Context();
    EXPECT_EQ(stub->ListCache(context.get(), request, &response).error_code(),
              StatusCode::INVALID_ARGUMENT)
        << token;
  }
  uint64_t dropped = 0;
  v1::PurgeCacheRequest request;
  EXPECT_EQ(Purge(request, &dropped).error_code(),
            StatusCode::INVALID_ARGUMENT);
  request.set_all(false);
  EXPECT_EQ(Purge(request, &dropped).error_code(),
            StatusCode::INVALID_ARGUMENT);
  request.set_path("a");
  EXPECT_EQ(Purge(request, &dropped).error_code(),
            StatusCode::INVALID_ARGUMENT);
  request.set_prefix("/%4");
  EXPECT_EQ(Purge(request, &dropped).error_code(),
            StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Paths("", 100).size(), 12u) << "nothing was dropped";
}

TEST_F(AdminCacheTest, Purges) {
  uint64_t dropped = 0;
  v1::PurgeCacheRequest request;
  request.set_path("/b%25c");
  ASSERT_TRUE(Purge(request, &dropped).ok());
  EXPECT_EQ(dropped, 2u);
  request.set_path("/d");
  ASSERT_TRUE(Purge(request, &dropped).ok());
  EXPECT_EQ(dropped, 2u) << "not what is below";
  request.set_prefix("/d");
  ASSERT_TRUE(Purge(request, &dropped).ok());
  EXPECT_EQ(dropped, 4u);
  EXPECT_THAT(Paths("", 100), ElementsAre("0/a", "0/none", "1/a", "1/none"));
  request.set_all(true);
  ASSERT_TRUE(Purge(request, &dropped).ok());
  EXPECT_EQ(dropped, 4u);
  EXPECT_THAT(Paths("", 100), IsEmpty());
}

TEST_F(AdminControlTest, WithoutACacheThereIsNothingToList) {
  Start();
  auto stub = Stub();
  v1::ListCacheResponse list;
  auto context = Context();
  EXPECT_EQ(stub->ListCache(context.get(), {}, &list).error_code(),
            StatusCode::UNIMPLEMENTED);
  v1::PurgeCacheRequest request;
  request.set_all(true);
  v1::PurgeCacheResponse purged;
  context = Context();
  EXPECT_EQ(stub->PurgeCache(context.get(), request, &purged).error_code(),
            StatusCode::UNIMPLEMENTED);
}

// --- Queues.

TEST_F(AdminControlTest, ListsQueuesAndInterests) {
  Start();
  auto stub = Stub();
  v1::ListQueuesResponse queues;
  auto context = Context();
  ASSERT_TRUE(stub->ListQueues(context.get(), {}, &queues).ok());
  ASSERT_EQ(queues.queues_size(), 2);
  EXPECT_EQ(queues.queues(1).worker(), 1u);
  EXPECT_EQ(queues.queues(1).engine(),
            EngineName(service_.loop(1)->queue().engine()));
  EXPECT_GT(queues.queues(1).stats().enters(), 0u);
  EXPECT_GT(queues.queues(1).loop().turns(), 0u);

  // Timers and a pipe of the test's own.
  int pipe[2];
  ASSERT_EQ(pipe2(pipe, O_CLOEXEC | O_NONBLOCK), 0);
  std::vector<loop::WatchId> ids(4);
  service_.Call(0, [&] {
    for (int i = 0; i < 3; ++i) {
      Interest timer;
      timer.source = Source::kTimer;
      timer.first_ns = timer.interval_ns = 3600'000'000'000;
      ASSERT_EQ(service_.loop(0)->Watch(
                    timer, [](const auto&) {}, &ids[i]),
                0);
    }
    Interest poll;
    poll.fd = pipe[0];
    poll.events = 1;
    poll.flags = kEdge;
    ASSERT_EQ(service_.loop(0)->Watch(
                  poll, [](const auto&) {}, &ids[3]),
              0);
  });
  v1::ListInterestsRequest request;
  for (uint32_t size : {1u, 2u, 100u}) {
    request.Clear();
    request.set_page_size(size);
    std::vector<v1::Interest> all;
    do {
      v1::ListInterestsResponse response;
      context = Context();
      ASSERT_TRUE(stub->ListInterests(context.get(), request, &response).ok());
      ASSERT_LE(response.interests_size(), static_cast<int>(size));
      for (const auto& interest : response.interests()) all.push_back(interest);
      request.set_page_token(response.next_page_token());
      ASSERT_LT(all.size(), 20u);
    } while (!request.page_token().empty());
    ASSERT_EQ(all.size(), 4u);
    EXPECT_EQ(all[0].source(), v1::Interest::TIMER);
    EXPECT_EQ(all[0].interval().seconds(), 3600);
    EXPECT_EQ(all[3].source(), v1::Interest::POLL);
    EXPECT_EQ(all[3].fd(), pipe[0]);
    EXPECT_THAT(all[3].file(), HasSubstr("pipe:["));
    EXPECT_THAT(all[3].flags(), ElementsAre("edge"));
  }
  service_.Call(0, [&] {
    for (loop::WatchId id : ids) service_.loop(0)->Unwatch(id);
  });
  close(pipe[0]);
  close(pipe[1]);
  v1::ListInterestsResponse response;
  request.Clear();
  request.set_worker(2);
  context = Context();
  EXPECT_EQ(stub->ListInterests(context.get(), request, &response).error_code(),
            StatusCode::NOT_FOUND);
  request.Clear();
  request.set_page_token("x");
  context = Context();
  EXPECT_EQ(stub->ListInterests(context.get(), request, &response).error_code(),
            StatusCode::INVALID_ARGUMENT);
}

}  // namespace
}  // namespace kevent::admin
