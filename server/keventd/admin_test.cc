// SPDX-License-Identifier: Apache-2.0
//
// keventd's admin service through kevctl.

#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/admin/test_certificates.h"
#include "server/http/test_client.h"
#include "server/keventd/test_daemon.h"

namespace kevent::keventd {
namespace {

using http::ClientResponse;
using http::TestClient;
using testing::HasSubstr;
using testing::Not;

constexpr char kKevctl[] = "server/kevctl/kevctl";

struct Result {
  int status;
  std::string out;
  std::string err;
};

Result RunToEnd(const std::vector<std::string>& command) {
  Process process(command);
  const int status = process.Wait();
  return {status, process.out(), process.err()};
}

class AdminTest : public testing::Test {
 protected:
  // Bazel's own directories are too long for the path of a socket.
  AdminTest() {
    if (!mkdtemp(dir_.data())) abort();
    mkdir((dir_ + "/root").c_str(), 0755);
    std::ofstream(dir_ + "/root/a.txt") << "hello";
    unsetenv("RUNTIME_DIRECTORY");
    setenv("XDG_RUNTIME_DIR", dir_.c_str(), 1);
  }
  ~AdminTest() override {
    std::error_code error;
    std::filesystem::remove_all(dir_, error);
  }

  std::vector<std::string> Flags(std::vector<std::string> more) const {
    more.insert(more.begin(), {"--root=" + dir_ + "/root",
                               "--listen=127.0.0.1:0", "--workers=2"});
    return more;
  }
  std::unique_ptr<TestDaemon> Daemon(std::vector<std::string> more = {}) {
    auto daemon = std::make_unique<TestDaemon>(
        Flags(more.empty() ? std::vector<std::string>{"--admin=" + address()}
                           : std::move(more)));
    EXPECT_TRUE(daemon->AwaitReady());
    return daemon;
  }
  Result Kevctl(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {kKevctl, "--admin=" + address()});
    return RunToEnd(arguments);
  }
  void ExpectRefused(const std::string& admin,
                     const std::vector<std::string>& words) {
    TestDaemon daemon(Flags({admin}));
    EXPECT_EQ(daemon.Wait(), 1);
    EXPECT_EQ(daemon.out(), "");
    EXPECT_EQ(daemon.err().find('\n'), daemon.err().size() - 1);
    for (const std::string& word : words) {
      EXPECT_THAT(daemon.err(), HasSubstr(word));
    }
  }

  std::string path() const { return dir_ + "/own.sock"; }
  std::string address() const { return "unix:" + path(); }
  static mode_t ModeOf(const std::string& path) {
    struct stat st;
    return stat(path.c_str(), &st) < 0 ? 0 : st.st_mode & 07777;
  }

  std::string dir_ = "/tmp/keventd-admin.XXXXXX";
};

// --- The socket.

TEST_F(AdminTest, DefaultSocketIsTheUsersOwn) {
  TestDaemon daemon(Flags({"--admin="}));
  ASSERT_TRUE(daemon.AwaitReady());
  EXPECT_EQ(ModeOf(dir_ + "/kevent"), 0700u);
  EXPECT_EQ(ModeOf(dir_ + "/kevent/admin.sock"), 0600u);
  const Result result = RunToEnd({kKevctl, "info"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("pid " + std::to_string(daemon.pid())));

  // One at a time.
  ExpectRefused("--admin=", {"/kevent/admin.sock", "another server answers",
                             "--admin=unix:PATH"});
  daemon.Signal(SIGTERM);
  EXPECT_EQ(daemon.Wait(), 0);
  EXPECT_FALSE(std::filesystem::exists(dir_ + "/kevent/admin.sock"));
}

TEST_F(AdminTest, SocketOfAKilledOneIsReplaced) {
  auto killed = Daemon();
  killed->Signal(SIGKILL);
  killed->Wait();
  ASSERT_TRUE(std::filesystem::exists(path()));
  Result result = Kevctl({"info"});
  EXPECT_EQ(result.status, 3);
  EXPECT_THAT(result.err, HasSubstr("nobody answers at " + path()));
  auto daemon = Daemon();
  result = Kevctl({"info"});
  EXPECT_EQ(result.status, 0) << result.err;
}

TEST_F(AdminTest, ServesWhereTheDefaultDirectoryCannotBeMade) {
  setenv("RUNTIME_DIRECTORY", (dir_ + "/no/where").c_str(), 1);
  TestDaemon daemon(Flags({"--admin="}));
  ASSERT_TRUE(daemon.AwaitReady());
  TestClient client(daemon.port());
  EXPECT_EQ(client.Get("/a.txt").body, "hello");
  daemon.Signal(SIGTERM);
  EXPECT_EQ(daemon.Wait(), 0);
  EXPECT_THAT(daemon.err(), HasSubstr("no admin service: cannot make"));
  EXPECT_THAT(daemon.err(), HasSubstr("--admin=unix:PATH"));
}

TEST_F(AdminTest, RefusesAnAddressThatWillNotDo) {
  ExpectRefused("--admin=unix:" + dir_ + "/no/where.sock",
                {"where.sock", "No such file", "--admin=off"});
  ExpectRefused("--admin=127.0.0.1:0",
                {"127.0.0.1:0", "mutual TLS", "unix:PATH"});
  ExpectRefused("--admin=nonsense", {"nonsense"});
}

TEST_F(AdminTest, OffIsOff) {
  auto daemon = Daemon({"--admin=off"});
  EXPECT_FALSE(std::filesystem::exists(dir_ + "/kevent"));
  const Result result = RunToEnd({kKevctl, "info"});
  EXPECT_EQ(result.status, 3);
  EXPECT_THAT(result.err, HasSubstr("there is no socket"));
}

TEST_F(AdminTest, WhoMayNotOpenItIsToldSo) {
  auto daemon = Daemon();
  // Not its owner either, unless capabilities say otherwise.
  ASSERT_EQ(chmod(path().c_str(), 0), 0);
  std::vector<std::string> command = {kKevctl, "--admin=" + address(), "info"};
  if (geteuid() == 0) {
    command.insert(command.begin(), {"setpriv", "--bounding-set=-all"});
  }
  const Result result = RunToEnd(command);
  EXPECT_EQ(result.status, 4) << result.err;
  EXPECT_THAT(result.err, HasSubstr("not permitted to open " + path()));
}

// --- The calls.

TEST_F(AdminTest, StatsCountRequests) {
  auto daemon = Daemon();
  TestClient client(daemon->port());
  for (int i = 0; i < 5; ++i) EXPECT_EQ(client.Get("/a.txt").status, 200);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(client.Get("/none").status, 404);
  Result result = Kevctl({"stats", "--format=json"});
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("\"responses_4xx\": \"2\""));
  EXPECT_THAT(result.out, HasSubstr("\"hits\""));
  result = Kevctl({"stats"});
  EXPECT_THAT(result.out, HasSubstr("File caches"));
  EXPECT_THAT(result.out, HasSubstr("total"));
}

TEST_F(AdminTest, WatchPrintsALineForEachInterval) {
  auto daemon = Daemon();
  Result result = Kevctl({"watch", "--interval=20ms", "--count=3"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 4)
      << result.out;
  result = Kevctl({"--format=json", "watch", "--interval=20ms", "--count=3"});
  EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 3);
  result = Kevctl({"watch", "--interval=1ms"});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("interval"));
}

TEST_F(AdminTest, EndsWhileItIsWatched) {
  auto daemon = Daemon();
  Process watch({kKevctl, "--admin=" + address(), "watch", "--interval=20ms"});
  ASSERT_TRUE(watch.AwaitLine());
  daemon->Signal(SIGTERM);
  EXPECT_EQ(daemon->Wait(), 0) << daemon->err();
  EXPECT_NE(watch.Wait(), 0);
  EXPECT_THAT(watch.err(), HasSubstr("kevctl: "));
}

TEST_F(AdminTest, ConnectionsAreListedAndClosed) {
  auto daemon = Daemon();
  TestClient first(daemon->port());
  TestClient second(daemon->port());
  EXPECT_EQ(first.Get("/a.txt").status, 200);
  EXPECT_EQ(second.Get("/a.txt").status, 200);
  Result result = Kevctl({"connections", "--peer=127.0.0.1", "--state=idle"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 3)
      << result.out;
  EXPECT_THAT(result.out, HasSubstr(" idle "));
  result = Kevctl({"connections", "--limit=1"});
  EXPECT_THAT(result.err, HasSubstr("there are more"));
  const size_t line = result.out.find('\n') + 1;
  const std::string id =
      result.out.substr(line, result.out.find(' ', line) - line);
  EXPECT_EQ(Kevctl({"close", id}).status, 0);
  result = Kevctl({"close", id});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("there is no connection " + id));
  result = Kevctl({"connections", "--format=json"});
  EXPECT_THAT(result.out, HasSubstr("\"state\": \"IDLE\""));
  EXPECT_THAT(result.out, Not(HasSubstr("\"" + id + "\"")));
  EXPECT_EQ(Kevctl({"connections", "--peer=x"}).status, 1);
  EXPECT_EQ(Kevctl({"connections", "--state=x"}).status, 2);
}

TEST_F(AdminTest, DrainsAndServesAgain) {
  auto daemon = Daemon();
  const uint16_t port = daemon->port();
  for (int i = 0; i < 3; ++i) {
    TestClient idle(port);
    EXPECT_EQ(idle.Get("/a.txt").status, 200);
    Result result = Kevctl({"drain", "--wait", "--within=20s"});
    EXPECT_EQ(result.status, 0) << result.err;
    EXPECT_EQ(result.out, "drained\n");
    EXPECT_EQ(idle.AwaitEnd(), TestClient::End::kClosed);
    TestClient refused(port);
    EXPECT_FALSE(refused.connected());
    EXPECT_THAT(Kevctl({"info"}).out, HasSubstr("draining"));
    result = Kevctl({"undrain"});
    EXPECT_EQ(result.status, 0) << result.err;
    // Every worker takes connections again.
    for (int k = 0; k < 20; ++k) {
      TestClient client(port);
      ASSERT_EQ(client.Get("/a.txt").body, "hello");
    }
  }
  EXPECT_EQ(Kevctl({"undrain"}).status, 1);
  // Told to end while it drains.
  TestClient half(port);
  ASSERT_TRUE(half.Send("GET /"));
  EXPECT_EQ(Kevctl({"drain"}).out, "draining, 1 connection left\n");
  daemon->Signal(SIGTERM);
  half.Close();
  EXPECT_EQ(daemon->Wait(), 0) << daemon->err();
}

TEST_F(AdminTest, UndrainNeedsTheAddress) {
  auto daemon = Daemon();
  ASSERT_EQ(Kevctl({"drain", "--wait"}).status, 0);
  TestDaemon other({"--root=" + dir_ + "/root",
                    "--listen=127.0.0.1:" + std::to_string(daemon->port())});
  ASSERT_TRUE(other.AwaitReady());
  const Result result = Kevctl({"undrain"});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("in use"));
  other.Signal(SIGTERM);
  EXPECT_EQ(other.Wait(), 0);
  EXPECT_EQ(Kevctl({"undrain"}).status, 0);
  TestClient client(daemon->port());
  EXPECT_EQ(client.Get("/a.txt").body, "hello");
}

TEST_F(AdminTest, LogIsTailed) {
  auto daemon = Daemon();
  Process tail({kKevctl, "--admin=" + address(), "log", "--recent=1",
                "--source=server"});
  ASSERT_TRUE(tail.AwaitLine());  // the engine
  EXPECT_THAT(tail.out(), HasSubstr("info engine "));
  tail.Signal(SIGKILL);
  tail.Wait();
  Process accesses({kKevctl, "--admin=" + address(), "log", "--source=access",
                    "--contains=GET /a.txt"});
  // Until somebody looks on there are no such lines.
  TestClient client(daemon->port());
  const auto start = std::chrono::steady_clock::now();
  do {
    ASSERT_EQ(client.Get("/none").status, 404);
    ASSERT_EQ(client.Get("/a.txt?q").status, 200);
    ASSERT_LT(std::chrono::steady_clock::now() - start,
              std::chrono::seconds(30));
  } while (!accesses.AwaitLine(10));
  EXPECT_THAT(accesses.out(), HasSubstr("\"GET /a.txt?q\" 200 "));
  EXPECT_THAT(accesses.out(), Not(HasSubstr("/none")));
  EXPECT_EQ(Kevctl({"loglevel", "error"}).out, "was info\n");
  EXPECT_THAT(Kevctl({"info"}).out, HasSubstr("error"));
  EXPECT_EQ(Kevctl({"loglevel", "loud"}).status, 2);
}

TEST_F(AdminTest, CacheIsListedAndPurged) {
  auto daemon = Daemon();
  TestClient client(daemon->port());
  EXPECT_EQ(client.Get("/a.txt").status, 200);
  EXPECT_EQ(client.Get("/none").status, 404);
  Result result = Kevctl({"cache"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("/a.txt"));
  EXPECT_THAT(result.out, HasSubstr("/none (No such file or directory)"));
  EXPECT_THAT(Kevctl({"cache", "/a.txt"}).out, Not(HasSubstr("/none")));
  EXPECT_EQ(Kevctl({"purge", "/a.txt"}).out, "1 entry dropped\n");
  EXPECT_THAT(Kevctl({"cache"}).out, Not(HasSubstr("/a.txt")));
  EXPECT_EQ(Kevctl({"purge", "--below", "/"}).status, 0);
  EXPECT_EQ(Kevctl({"purge", "--all"}).out, "0 entries dropped\n");
  EXPECT_EQ(Kevctl({"purge"}).status, 2);
  EXPECT_EQ(Kevctl({"purge", "a.txt"}).status, 1);
  EXPECT_EQ(client.Get("/a.txt").body, "hello");
}

TEST_F(AdminTest, QueuesAreShown) {
  auto daemon = Daemon();
  Result result = Kevctl({"queues"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 3);
  result = Kevctl({"interests", "0"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("source"));
  result = Kevctl({"interests", "7"});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("there is no worker 7"));
  EXPECT_EQ(Kevctl({"interests", "x"}).status, 2);
}

TEST_F(AdminTest, MetricsOverHttp) {
  auto daemon =
      Daemon({"--admin=off", "--admin_http=unix:" + dir_ + "/m.sock"});
  EXPECT_EQ(ModeOf(dir_ + "/m.sock"), 0600u);
  daemon.reset();
  daemon = Daemon({"--admin=" + address(), "--admin_http=127.0.0.1:0"});
  const Result log = Kevctl({"config"});
  EXPECT_EQ(log.status, 0);
  daemon->Signal(SIGTERM);
  EXPECT_EQ(daemon->Wait(), 0);
  const std::string& err = daemon->err();
  EXPECT_THAT(err, HasSubstr("keventd: metrics at 127.0.0.1:"));
  ExpectRefused("--admin_http=nonsense", {"nonsense"});
}

// --- The configuration.

class AdminConfigTest : public AdminTest {
 protected:
  AdminConfigTest() {
    mkdir((dir_ + "/other").c_str(), 0755);
    std::ofstream(dir_ + "/other/a.txt") << "other";
    Write("root: \"" + dir_ + "/root\"\nlisten: \"127.0.0.1:0\"\nworkers: 2\n");
  }
  void Write(const std::string& text) { std::ofstream(file()) << text; }
  std::string file() const { return dir_ + "/kevent.textproto"; }
  std::unique_ptr<TestDaemon> Start(std::vector<std::string> more = {}) {
    more.insert(more.end(), {"--config=" + file(), "--admin=" + address()});
    auto daemon = std::make_unique<TestDaemon>(more);
    EXPECT_TRUE(daemon->AwaitReady());
    return daemon;
  }
  std::string Other() const {
    return "root: \"" + dir_ +
           "/other\"\nlisten: \"127.0.0.1:0\"\nworkers: 2\n";
  }
};

TEST_F(AdminConfigTest, IsShownAppliedAndRolledBack) {
  auto daemon = Start();
  Result result = Kevctl({"config"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("# version 1, "));
  EXPECT_THAT(result.out, HasSubstr("root: \"" + dir_ + "/root\"\n"));
  // What it prints may be applied again.
  Write(result.out);
  EXPECT_EQ(Kevctl({"validate", file()}).out, "valid, and in force\n");

  TestClient client(daemon->port());
  EXPECT_EQ(client.Get("/a.txt").body, "hello");
  Write(Other() + "http { server_name: \"second\" }\n");
  EXPECT_EQ(Kevctl({"validate", file()}).out, "valid\n");
  result = Kevctl({"apply", file(), "--if_version=1"});
  EXPECT_EQ(result.out, "version 2 is in force\n") << result.err;
  // The same connection goes by it, and so does every worker.
  ClientResponse response = client.Get("/a.txt");
  EXPECT_EQ(response.body, "other");
  EXPECT_EQ(response.Get("Server"), "second");
  for (int i = 0; i < 20; ++i) {
    TestClient fresh(daemon->port());
    ASSERT_EQ(fresh.Get("/a.txt").body, "other");
  }
  result = Kevctl({"apply", file(), "--if_version=1"});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("version 2 is in force, not 1"));
  EXPECT_THAT(result.err, HasSubstr("reason: VERSION_MISMATCH "
                                    "(current_version=2, if_version=1)"));
  EXPECT_EQ(Kevctl({"rollback"}).out, "version 3 is in force\n");
  EXPECT_EQ(client.Get("/a.txt").body, "hello");
  EXPECT_EQ(Kevctl({"rollback", "2"}).out, "version 4 is in force\n");
  EXPECT_EQ(client.Get("/a.txt").body, "other");
  EXPECT_EQ(Kevctl({"rollback", "99"}).status, 1);
  EXPECT_THAT(Kevctl({"config"}).out, HasSubstr(", rollback to 2, "));
  EXPECT_THAT(Kevctl({"config", "1"}).out, HasSubstr("/root\"\n"));
  EXPECT_EQ(Kevctl({"config", "77"}).status, 1);
}

TEST_F(AdminConfigTest, WhatIsWrongChangesNothing) {
  auto daemon = Start();
  TestClient client(daemon->port());
  struct Case {
    std::string text;
    const char* word;
    std::vector<std::string> details;
  };
  for (const Case& wrong :
       {Case{"rooot: \"x\"",
             "configuration:1:",
             {"field: text\n", "reason: INVALID_CONFIG (column=", "line=1"}},
        {Other() + "http { header_count: 9999 }",
         "http.header_count",
         {"reason: INVALID_CONFIG (field=http.header_count)"}},
        {Other() + "engine: \"epoll\"\nhttp { header_bytes: 9000 }",
         "engine, http.header_bytes: cannot be changed without a restart",
         {"reason: RESTART_NEEDED", "unmet: engine\n",
          "unmet: http.header_bytes\n"}},
        {Other() + "files { cache_hot_bytes: 16777217 }",
         "files.cache_hot_bytes: at most 16777216",
         {"reason: INVALID_CONFIG (field=files.cache_hot_bytes)"}},
        {Other() + "defer_accept_s: 5",
         "defer_accept_s: cannot be changed without a restart",
         {"unmet: defer_accept_s\n"}},
        {Other() + "defer_accept_s: 4000",
         "defer_accept_s: at most 3600",
         {"reason: INVALID_CONFIG (field=defer_accept_s)"}},
        {"root: \"" + dir_ + "/none\"\nworkers: 2\n",
         "does not exist",
         {"reason: CANNOT_APPLY", "unmet: root\n"}},
        {Other() + "access_log: \"" + dir_ + "/no/log\"",
         "No such file",
         {"reason: CANNOT_APPLY", "unmet: access_log\n"}},
        {Other() + "listen: \"192.0.2.1:0\"",
         "192.0.2.1",
         {"reason: CANNOT_APPLY", "unmet: listen\n"}},
        {Other() + std::string(2 << 20, '#'),
         "1 MiB",
         {"reason: INVALID_CONFIG"}}}) {
    Write(wrong.text);
    const Result result = Kevctl({"apply", file()});
    EXPECT_EQ(result.status, 1) << wrong.text.substr(0, 200);
    EXPECT_THAT(result.err, HasSubstr(wrong.word));
    for (const std::string& detail : wrong.details) {
      EXPECT_THAT(result.err, HasSubstr(detail));
    }
    EXPECT_EQ(client.Get("/a.txt").body, "hello");
  }
  EXPECT_THAT(Kevctl({"config"}).out, Not(HasSubstr("version 2")));
  EXPECT_EQ(Kevctl({"apply", dir_ + "/none"}).status, 2);
}

TEST_F(AdminConfigTest, AddressesComeAndGo) {
  auto daemon = Start();
  TestClient old(daemon->port());
  EXPECT_EQ(old.Get("/a.txt").status, 200);
  const std::string base = "root: \"" + dir_ + "/root\"\nworkers: 2\n";
  Write(base + "listen: \"127.0.0.1:0\"\nlisten: \"[::1]:0\"\nlisten: \"unix:" +
        dir_ + "/http.sock\"\n");
  Result result = Kevctl({"apply", file()});
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(old.Get("/a.txt").status, 200);
  std::string info = Kevctl({"info"}).out;
  EXPECT_THAT(info, HasSubstr("127.0.0.1:" + std::to_string(daemon->port())));
  EXPECT_THAT(info, HasSubstr("[::1]:"));
  EXPECT_TRUE(std::filesystem::exists(dir_ + "/http.sock"));
  // The first address goes; its connections stay.
  Write(base + "listen: \"[::1]:0\"\n");
  result = Kevctl({"apply", file()});
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_FALSE(std::filesystem::exists(dir_ + "/http.sock"));
  EXPECT_EQ(old.Get("/a.txt").status, 200);
  info = Kevctl({"info"}).out;
  EXPECT_THAT(info, Not(HasSubstr("127.0.0.1")));
  const auto start = std::chrono::steady_clock::now();
  while (TestClient(daemon->port()).connected()) {
    ASSERT_LT(std::chrono::steady_clock::now() - start,
              std::chrono::seconds(30));
  }
}

TEST_F(AdminConfigTest, HangupReadsTheFileAnew) {
  auto daemon = Start({"--listing"});
  TestClient client(daemon->port());
  EXPECT_EQ(client.Get("/a.txt").body, "hello");
  Write(Other());
  daemon->Signal(SIGHUP);
  const auto start = std::chrono::steady_clock::now();
  while (client.Get("/a.txt").body != "other") {
    ASSERT_LT(std::chrono::steady_clock::now() - start,
              std::chrono::seconds(30));
  }
  EXPECT_THAT(Kevctl({"config"}).out, HasSubstr("listing: true"))
      << "flags win over the file";
  EXPECT_THAT(Kevctl({"config"}).out, HasSubstr("SIGHUP"));
  Write("nonsense");
  daemon->Signal(SIGHUP);
  daemon->Signal(SIGTERM);
  EXPECT_EQ(daemon->Wait(), 0);
  EXPECT_THAT(daemon->err(), HasSubstr("is in force as version 2"));
}

// Changes of every kind again and again while requests come: none is lost.
TEST_F(AdminConfigTest, ApplyingUnderLoadLosesNoRequest) {
  auto daemon = Start();
  std::atomic<bool> done{false};
  std::atomic<uint64_t> sent{0};
  std::string error;
  std::thread load([&] {
    error = http::RunLoad(
        daemon->port(), 16, 4,
        [&](http::LoadRequest* next) {
          next->text = TestClient::Request("GET", "/a.txt");
          sent.fetch_add(1);
          return !done.load();
        },
        [&](size_t, const ClientResponse& response) {
          EXPECT_EQ(response.status, 200);
          EXPECT_TRUE(response.body == "hello" || response.body == "other");
        });
  });
  const std::string root = "root: \"" + dir_ + "/root\"\n";
  const std::string common = "workers: 2\nlisten: \"127.0.0.1:0\"\n";
  const std::vector<std::string> texts = {
      Other(), root + common + "listen: \"[::1]:0\"\n",
      root + common + "access_log: \"" + dir_ + "/log\"\n",
      root + common + "http { idle_timeout_ms: 50000 max_connections: 100 }",
      Other() + "files { cache_entries: 10 }\n"};
  for (int i = 0; i < 40; ++i) {
    Write(texts[i % texts.size()]);
    const Result result = Kevctl({"apply", file()});
    ASSERT_EQ(result.status, 0) << result.err;
  }
  done = true;
  load.join();
  EXPECT_EQ(error, "");
  EXPECT_GT(sent.load(), 100u);
}

TEST_F(AdminTest, TcpWithMutualTls) {
  admin::TestAuthority authority;
  const auto write = [&](const std::string& name, const std::string& text) {
    std::ofstream(dir_ + "/" + name) << text;
    return dir_ + "/" + name;
  };
  const std::string ca = write("ca.pem", authority.certificate());
  const auto issue = [&](const std::string& name) {
    const admin::PemPair pair = authority.Issue(name);
    write(name + ".pem", pair.certificate);
    write(name + ".key", pair.key);
  };
  for (const char* name : {"server", "alice", "bob"}) issue(name);
  auto daemon = Daemon({"--admin=127.0.0.1:0", "--admin_tls_ca=" + ca,
                        "--admin_tls_cert=" + dir_ + "/server.pem",
                        "--admin_tls_key=" + dir_ + "/server.key",
                        "--admin_operators=alice"});
  const std::string said = "admin service at ";
  while (daemon->err().find("engine ") == std::string::npos) {
    ASSERT_TRUE(daemon->AwaitMore());
  }
  const size_t at = daemon->err().find(said);
  ASSERT_NE(at, std::string::npos) << daemon->err();
  const std::string address = daemon->err().substr(
      at + said.size(), daemon->err().find('\n', at) - at - said.size());
  const auto kevctl = [&](const std::string& who, const std::string& command) {
    return RunToEnd({kKevctl, "--admin=" + address, "--tls_ca=" + ca,
                     "--tls_cert=" + dir_ + "/" + who + ".pem",
                     "--tls_key=" + dir_ + "/" + who + ".key", command});
  };
  Result result = kevctl("bob", "info");
  EXPECT_EQ(result.status, 0) << result.err;
  result = kevctl("bob", "drain");
  EXPECT_EQ(result.status, 4) << result.err;
  EXPECT_THAT(result.err, HasSubstr("may look, but change nothing"));
  EXPECT_EQ(kevctl("alice", "drain").status, 0);
  EXPECT_EQ(kevctl("alice", "undrain").status, 0);
  result = RunToEnd({kKevctl, "--admin=" + address, "info"});
  EXPECT_EQ(result.status, 2);
  EXPECT_THAT(result.err, HasSubstr("--tls_ca"));
  ExpectRefused("--admin_tls_ca=" + ca, {"--admin_tls_cert is missing"});
}

// Scripts get an object, on standard error, whoever refused.
TEST_F(AdminTest, ErrorsAsJson) {
  auto daemon = Daemon();
  Result result = Kevctl({"--format=json", "connections", "--peer=nobody"});
  EXPECT_EQ(result.status, 1);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(result.err.find("{\"error\":{\"code\":\"INVALID_ARGUMENT\","), 0u)
      << result.err;
  for (const char* word : {"\"field\":\"peer\"", "\"reason\":\"INVALID_FIELD\"",
                           "type.googleapis.com/google.rpc.BadRequest"}) {
    EXPECT_THAT(result.err, HasSubstr(word));
  }
  EXPECT_EQ(result.err.find('\n'), result.err.size() - 1);
  // A server may well answer within the shortest time-out there is; not one
  // that is stopped.
  daemon->Signal(SIGSTOP);
  siginfo_t stopped;
  ASSERT_EQ(waitid(P_PID, daemon->pid(), &stopped, WSTOPPED), 0);
  result = Kevctl({"--format=json", "--timeout=1ns", "info"});
  daemon->Signal(SIGCONT);
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("\"code\":\"DEADLINE_EXCEEDED\""));
  result = Kevctl({"--format=json", "--admin=" + address() + "x", "info"});
  EXPECT_EQ(result.status, 3);
  EXPECT_EQ(result.err.find("{\"error\":{\"code\":\"UNAVAILABLE\","), 0u)
      << result.err;
}

TEST_F(AdminTest, BadUsageIsTold) {
  auto daemon = Daemon();
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"bogus"},
        {"info", "more"},
        {"--format=xml", "info"},
        {"--timeout=0s", "info"},
        {"--format=json", "top"},
        {}}) {
    const Result result = Kevctl(arguments);
    EXPECT_EQ(result.status, 2) << testing::PrintToString(arguments);
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.err, HasSubstr("kevctl"));
  }
  const Result result = Kevctl({"help"});
  EXPECT_EQ(result.status, 0);
  EXPECT_THAT(result.out, HasSubstr("watch"));
}

}  // namespace
}  // namespace kevent::keventd
