// SPDX-License-Identifier: Apache-2.0
//
// keventd from its flags to its exit.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/http/test_client.h"
#include "server/keventd/test_daemon.h"

namespace kevent::keventd {
namespace {

using http::ClientResponse;
using http::TestClient;
using testing::HasSubstr;
using testing::MatchesRegex;
using Clock = std::chrono::steady_clock;
using End = TestClient::End;

class StartupTest : public testing::Test {
 protected:
  StartupTest() : dir_(MakeTempDirectory()), root_(dir_ + "/root") {
    mkdir(root_.c_str(), 0755);
    Write(root_ + "/a.txt", "hello");
  }
  ~StartupTest() override {
    std::error_code error;
    std::filesystem::remove_all(dir_, error);
  }

  static void Write(const std::string& path, std::string_view text) {
    std::ofstream(path, std::ios::binary) << text;
  }
  static std::string Read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::string Root() const { return "--root=" + root_; }

  // It ends with a failure before it listens, and says why in one line.
  void ExpectRefused(const std::vector<std::string>& flags,
                     const std::vector<std::string>& words) {
    SCOPED_TRACE(testing::PrintToString(flags));
    TestDaemon daemon(flags);
    const int status = daemon.Wait();
    EXPECT_GT(status, 0);
    EXPECT_LT(status, 126) << "ended by a signal or not found";
    EXPECT_EQ(daemon.out(), "");
    const std::string& text = daemon.err();
    ASSERT_FALSE(text.empty());
    EXPECT_EQ(text.find('\n'), text.size() - 1) << text;
    EXPECT_EQ(text.find("INVALID_ARGUMENT"), std::string::npos) << text;
    for (const std::string& word : words) EXPECT_THAT(text, HasSubstr(word));
  }

  const std::string dir_;
  const std::string root_;
  const std::string any_ = "--listen=127.0.0.1:0";
};

// --- What it refuses.

TEST_F(StartupTest, UnknownFlag) {
  ExpectRefused({Root(), any_, "--bogus=1"}, {"bogus"});
  ExpectRefused({Root(), any_, "--wrokers=1"}, {"wrokers"});
}

TEST_F(StartupTest, BadFlagValue) {
  ExpectRefused({Root(), any_, "--workers=many"}, {"workers", "many"});
  ExpectRefused({Root(), any_, "--workers=-1"}, {"workers", "-1"});
  ExpectRefused({Root(), any_, "--workers=100000"}, {"workers", "1024"});
}

TEST_F(StartupTest, Roots) {
  ExpectRefused({any_}, {"--root"});
  ExpectRefused({any_, "--root=" + dir_ + "/missing"},
                {dir_ + "/missing", "does not exist"});
  ExpectRefused({any_, "--root=" + root_ + "/a.txt"},
                {root_ + "/a.txt", "not a directory"});
}

TEST_F(StartupTest, Arguments) {
  ExpectRefused({Root(), any_, "docs"}, {"docs", "--root"});
}

TEST_F(StartupTest, Addresses) {
  ExpectRefused({Root(), "--listen=127.0.0.1"}, {"127.0.0.1", "port"});
  ExpectRefused({Root(), "--listen=127.0.0.1:99999"}, {"99999", "65535"});
  ExpectRefused({Root(), "--listen=127.0.0.1:http"}, {"http", "65535"});
  ExpectRefused({Root(), "--listen=300.0.0.1:80"}, {"300.0.0.1"});
  ExpectRefused({Root(), "--listen=unix:"}, {"unix:"});
  ExpectRefused({Root(), any_, "--listen=nonsense"}, {"nonsense"});
  ExpectRefused({Root(), any_, "-listen", "nonsense"}, {"nonsense"});
  ExpectRefused({Root(), "--listen="}, {"--listen"});
  ExpectRefused({Root(), "--listen=192.0.2.1:0"}, {"192.0.2.1"});
  ExpectRefused({Root(), "--listen=unix:" + dir_ + "/missing/socket"},
                {dir_ + "/missing/socket"});
}

TEST_F(StartupTest, PortInUse) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(fd, 1), 0);
  ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  const std::string port = std::to_string(ntohs(address.sin_port));
  ExpectRefused({Root(), "--listen=127.0.0.1:" + port},
                {port, "in use", "--listen"});
  close(fd);
}

// SO_REUSEPORT, by which workers share a port, would let two daemons share it.
TEST_F(StartupTest, PortOfAnotherKeventd) {
  TestDaemon first({Root(), any_, "--workers=2"});
  ASSERT_TRUE(first.AwaitReady());
  const std::string port = std::to_string(first.port());
  ExpectRefused({Root(), "--listen=127.0.0.1:" + port, "--workers=2"},
                {port, "in use", "--listen"});
  TestClient client(first.port());
  EXPECT_EQ(client.Get("/a.txt").body, "hello");
}

TEST_F(StartupTest, Engines) {
  ExpectRefused({Root(), any_, "--engine=kqueue"}, {"kqueue", "epoll"});
  if (access("/dev/kevent", F_OK) != 0) {
    ExpectRefused({Root(), any_, "--engine=module"},
                  {"engine module: ", "; auto takes one that works\n"});
  }
}

TEST_F(StartupTest, Configurations) {
  const std::string path = dir_ + "/kevent.textproto";
  const std::string flag = "--config=" + path;
  ExpectRefused({Root(), any_, flag}, {path, "No such file"});
  ExpectRefused({Root(), any_, "--config=" + dir_}, {dir_});
  Write(path, "root: \"/tmp\"\nworkers: 2\nlisten \"x\"\n");
  ExpectRefused({any_, flag}, {path + ":3:8"});
  Write(path, "rooot: \"/tmp\"\n");
  ExpectRefused({any_, flag}, {path + ":1:", "rooot"});
  Write(path, "workers: -2");
  ExpectRefused({any_, flag}, {path + ":1:"});
  Write(path, "http { header_bytes: 1000000 }");
  ExpectRefused({Root(), any_, flag}, {"http.header_bytes", "65536"});
  Write(path, "files { index: \"../x\" }");
  ExpectRefused({Root(), any_, flag}, {"files.index", "../x"});
  Write(path, "http { server_name: \"a\\r\\nb\" }");
  ExpectRefused({Root(), any_, flag}, {"http.server_name"});
}

TEST_F(StartupTest, AccessLogs) {
  const std::string path = dir_ + "/missing/access.log";
  ExpectRefused({Root(), any_, "--access_log=" + path}, {path, "No such file"});
}

// --- What it says when it runs.

TEST_F(StartupTest, HelpNamesTheFlags) {
  TestDaemon daemon({"--help"});
  daemon.Wait();
  for (const char* flag : {"--root ", "--listen ", "--engine ", "--workers ",
                           "--config ", "--access_log "}) {
    EXPECT_THAT(daemon.out(), HasSubstr(flag));
  }
}

TEST_F(StartupTest, ReadyLine) {
  {
    TestDaemon daemon({Root(), any_, "--engine=epoll", "--workers=1"});
    ASSERT_TRUE(daemon.AwaitReady());
    EXPECT_EQ(daemon.ready_line(),
              "listening on http://127.0.0.1:" + std::to_string(daemon.port()) +
                  " (engine epoll, 1 worker)");
    EXPECT_NE(daemon.port(), 0);
  }
  TestDaemon daemon({Root(), any_, "--workers=3"});
  ASSERT_TRUE(daemon.AwaitReady());
  EXPECT_THAT(daemon.ready_line(),
              MatchesRegex(R"(listening on http://127\.0\.0\.1:[0-9]+ )"
                           R"(\(engine (module|uring|epoll), 3 workers\))"));
  // Every worker answers.
  for (int i = 0; i < 100; ++i) {
    TestClient client(daemon.port());
    ASSERT_EQ(client.Get("/a.txt").body, "hello");
  }
}

TEST_F(StartupTest, SeveralAddresses) {
  for (const std::vector<std::string>& flags :
       {std::vector<std::string>{any_, any_},
        {"--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"},
        {"-listen=127.0.0.1:0", "-listen", "127.0.0.1:0"},
        {"--listen=127.0.0.1:0,127.0.0.1:0"}}) {
    std::vector<std::string> all = flags;
    all.push_back(Root());
    TestDaemon daemon(all);
    ASSERT_TRUE(daemon.AwaitReady());
    ASSERT_EQ(daemon.ports().size(), 2u) << daemon.ready_line();
    EXPECT_NE(daemon.ports()[0], daemon.ports()[1]);
    for (uint16_t port : daemon.ports()) {
      TestClient client(port);
      EXPECT_EQ(client.Get("/a.txt").body, "hello");
    }
  }
}

TEST_F(StartupTest, UnixSocket) {
  const std::string path = dir_ + "/socket";
  sockaddr_un address = {};
  if (path.size() >= sizeof address.sun_path) {
    GTEST_SKIP() << "the temporary directory's path is too long";
  }
  TestDaemon daemon({Root(), any_, "--listen=unix:" + path});
  ASSERT_TRUE(daemon.AwaitReady());
  EXPECT_THAT(daemon.ready_line(), HasSubstr(", unix:" + path));
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, path.size());
  ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address),
            0);
  const std::string request =
      TestClient::Request("GET", "/a.txt", "Connection: close\r\n");
  ASSERT_EQ(write(fd, request.data(), request.size()),
            static_cast<ssize_t>(request.size()));
  std::string text;
  char buffer[1000];
  for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;) {
    text.append(buffer, static_cast<size_t>(n));
  }
  close(fd);
  EXPECT_THAT(text, HasSubstr("\r\n\r\nhello"));
  daemon.Signal(SIGTERM);
  EXPECT_EQ(daemon.Wait(), 0);
  EXPECT_NE(access(path.c_str(), F_OK), 0);
}

TEST_F(StartupTest, FlagsWinOverTheConfiguration) {
  const std::string path = dir_ + "/kevent.textproto";
  Write(path,
        "root: \"/nonexistent\"\n"
        "listen: \"127.0.0.1:0\"\n"
        "workers: 1\n"
        "engine: \"epoll\"\n"
        "http { server_name: \"configured\" }\n"
        "files { index: \"a.txt\" }\n");
  TestDaemon daemon({"--config=" + path, Root(), "--workers=2"});
  ASSERT_TRUE(daemon.AwaitReady());
  EXPECT_THAT(daemon.ready_line(), HasSubstr("(engine epoll, 2 workers)"));
  TestClient client(daemon.port());
  ClientResponse r = client.Get("/");
  EXPECT_EQ(r.body, "hello");
  EXPECT_EQ(r.Get("Server"), "configured");
}

// --- How it ends.

TEST_F(StartupTest, SignalsEndIt) {
  for (const char* engine : {"epoll", "auto"}) {
    for (int signo : {SIGTERM, SIGINT}) {
      TestDaemon daemon(
          {Root(), any_, std::string("--engine=") + engine, "--workers=2"});
      ASSERT_TRUE(daemon.AwaitReady());
      TestClient idle(daemon.port());
      EXPECT_EQ(idle.Get("/a.txt").body, "hello");
      const auto start = Clock::now();
      daemon.Signal(signo);
      EXPECT_EQ(idle.AwaitEnd(), End::kClosed);
      EXPECT_EQ(daemon.Wait(), 0) << daemon.err();
      EXPECT_LT(Clock::now() - start, std::chrono::seconds(10));
      TestClient late(daemon.port());
      EXPECT_FALSE(late.connected());
    }
  }
}

TEST_F(StartupTest, ResponsesUnderWayAreFinished) {
  constexpr size_t kSize = 32 << 20;
  Write(root_ + "/big", "");
  ASSERT_EQ(truncate((root_ + "/big").c_str(), kSize), 0);
  TestDaemon daemon({Root(), any_, "--workers=2"});
  ASSERT_TRUE(daemon.AwaitReady());
  TestClient slow(daemon.port(), 16 << 10);
  TestClient idle(daemon.port());
  EXPECT_EQ(idle.Get("/a.txt").body, "hello");
  ASSERT_TRUE(slow.Send(TestClient::Request("GET", "/big")));
  ASSERT_TRUE(slow.Readable(http::kClientDeadlineMs));
  daemon.Signal(SIGTERM);
  EXPECT_EQ(idle.AwaitEnd(), End::kClosed);
  // The listeners are closed by now, at least that of this worker.
  ClientResponse r;
  ASSERT_TRUE(slow.Receive(&r));
  EXPECT_EQ(r.body.size(), kSize);
  EXPECT_EQ(slow.AwaitEnd(), End::kClosed);
  EXPECT_EQ(daemon.Wait(), 0) << daemon.err();
}

TEST_F(StartupTest, DrainingHasAnEnd) {
  Write(root_ + "/big", "");
  ASSERT_EQ(truncate((root_ + "/big").c_str(), 32 << 20), 0);
  const std::string path = dir_ + "/kevent.textproto";
  Write(path, "drain_timeout_ms: 300");
  TestDaemon daemon({Root(), any_, "--config=" + path});
  ASSERT_TRUE(daemon.AwaitReady());
  TestClient stalled(daemon.port(), 16 << 10);
  ASSERT_TRUE(stalled.Send(TestClient::Request("GET", "/big")));
  ASSERT_TRUE(stalled.Readable(http::kClientDeadlineMs));
  const auto start = Clock::now();
  daemon.Signal(SIGTERM);
  EXPECT_EQ(daemon.Wait(), 0) << daemon.err();
  EXPECT_GE(Clock::now() - start, std::chrono::milliseconds(300));
  EXPECT_TRUE(stalled.AwaitReset());
}

TEST_F(StartupTest, ASecondSignalEndsItAtOnce) {
  Write(root_ + "/big", "");
  ASSERT_EQ(truncate((root_ + "/big").c_str(), 32 << 20), 0);
  TestDaemon daemon({Root(), any_});
  ASSERT_TRUE(daemon.AwaitReady());
  TestClient stalled(daemon.port(), 16 << 10);
  TestClient idle(daemon.port());
  EXPECT_EQ(idle.Get("/a.txt").body, "hello");
  ASSERT_TRUE(stalled.Send(TestClient::Request("GET", "/big")));
  ASSERT_TRUE(stalled.Readable(http::kClientDeadlineMs));
  daemon.Signal(SIGTERM);
  EXPECT_EQ(idle.AwaitEnd(), End::kClosed);  // so it has seen the first
  daemon.Signal(SIGTERM);
  EXPECT_EQ(daemon.Wait(), 128 + SIGTERM);
}

TEST_F(StartupTest, TheSamePortAgain) {
  std::string listen = any_;
  for (int i = 0; i < 3; ++i) {
    TestDaemon daemon({Root(), listen});
    ASSERT_TRUE(daemon.AwaitReady());
    listen = "--listen=127.0.0.1:" + std::to_string(daemon.port());
    TestClient client(daemon.port());
    // Closed by the server: the address is in TIME_WAIT.
    EXPECT_EQ(client.Get("/a.txt", "Connection: close\r\n").body, "hello");
    EXPECT_EQ(client.AwaitEnd(), End::kClosed);
    daemon.Signal(SIGTERM);
    EXPECT_EQ(daemon.Wait(), 0);
  }
}

// --- The access log.

TEST_F(StartupTest, AccessLogLines) {
  const std::string path = dir_ + "/access.log";
  TestDaemon daemon({Root(), any_, "--access_log=" + path, "--workers=2"});
  ASSERT_TRUE(daemon.AwaitReady());
  {
    TestClient client(daemon.port());
    EXPECT_EQ(client.Get("/a.txt?x=1").status, 200);
    EXPECT_EQ(client.Head("/missing").status, 404);
    EXPECT_EQ(client.Get("/\"\\x").status, 404);
    EXPECT_EQ(client.Ask("\x1b[31m\r\n\r\n").status, 400);
  }
  daemon.Signal(SIGTERM);
  EXPECT_EQ(daemon.Wait(), 0);
  const std::string log = Read(path);
  const std::string from =
      R"(127\.0\.0\.1 \[[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} )"
      R"([0-9]{2}:[0-9]{2}:[0-9]{2} GMT\] )";
  // Status, bytes, microseconds.
  const std::string to = " [0-9]+ [0-9]+\n";
  EXPECT_THAT(log, MatchesRegex(from + R"("GET /a\.txt\?x=1" 200)" + to +  //
                                from + R"("HEAD /missing" 404)" + to +     //
                                from + R"("GET /\\x22\\x5Cx" 404)" + to +  //
                                from + "\"[^\"\x1b]* [^\"\x1b]*\" 400" + to));
}

TEST_F(StartupTest, SighupOpensTheLogAnew) {
  const std::string path = dir_ + "/access.log";
  const std::string old = dir_ + "/access.log.1";
  TestDaemon daemon({Root(), any_, "--access_log=" + path, "--workers=2"});
  ASSERT_TRUE(daemon.AwaitReady());
  TestClient client(daemon.port());
  EXPECT_EQ(client.Get("/a.txt?before").status, 200);
  ASSERT_EQ(rename(path.c_str(), old.c_str()), 0);
  daemon.Signal(SIGHUP);
  const auto start = Clock::now();
  // Of the two workers this connection's is the one to wait for: what it logs
  // from then on goes to the new file within a second.
  std::string log;
  do {
    ASSERT_EQ(client.Get("/a.txt?after").status, 200);
    log = Read(path);
  } while (log.find("?after\" 200 ") == std::string::npos &&
           Clock::now() - start < std::chrono::seconds(20));
  EXPECT_THAT(log, HasSubstr("\"GET /a.txt?after\" 200 "));
  EXPECT_EQ(log.find("?before"), std::string::npos);
  EXPECT_THAT(Read(old), HasSubstr("?before"));
  client.Close();
  daemon.Signal(SIGTERM);
  EXPECT_EQ(daemon.Wait(), 0);
}

}  // namespace
}  // namespace kevent::keventd
