// SPDX-License-Identifier: Apache-2.0
#include "server/files/handler.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/files/mime.h"
#include "server/files/root.h"
#include "server/http/test_client.h"
#include "server/http/test_server.h"
#include "server/loop/test_util.h"

namespace kevent::files {
namespace {

using http::ClientResponse;
using http::TestClient;
using Clock = std::chrono::steady_clock;

std::string Pattern(size_t size) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) {
    text[i] = static_cast<char>((i * 31 + i / 255) & 0xff);
  }
  return text;
}

std::string Range(std::string_view spec) {
  return "Range: bytes=" + std::string(spec) + "\r\n";
}

// Seconds since the epoch; -1 if it is no IMF-fixdate.
time_t ParseDate(std::string_view text) {
  tm parts = {};
  const char* end =
      strptime(std::string(text).c_str(), "%a, %d %b %Y %H:%M:%S GMT", &parts);
  return end && text.size() == 29 ? timegm(&parts) : -1;
}

class HandlerTest : public testing::TestWithParam<EngineKind> {
 protected:
  HandlerTest() {
    std::string name = testing::TempDir() + "/handler_test.XXXXXX";
    if (!mkdtemp(name.data())) abort();
    base_ = name;
    top_ = name + "/root";
    // What lies beside the root is not served.
    Write(base_ + "/secret.txt", "secret");
    mkdir(top_.c_str(), 0755);
    auto root = Root::Create(top_, SymlinkPolicy::kBeneath);
    if (!root.ok()) abort();
    root_.emplace(*std::move(root));
  }
  ~HandlerTest() override {
    server_.reset();
    std::error_code error;
    std::filesystem::remove_all(base_, error);
  }

  static void Write(const std::string& path, std::string_view text) {
    int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    while (!text.empty()) {
      ssize_t n = write(fd, text.data(), text.size());
      if (n <= 0) abort();
      text.remove_prefix(static_cast<size_t>(n));
    }
    close(fd);
  }

  std::string Path(std::string_view name) const {
    return top_ + "/" + std::string(name);
  }
  void Put(std::string_view name, std::string_view text) {
    std::error_code error;
    std::filesystem::create_directories(
        std::filesystem::path(Path(name)).parent_path(), error);
    Write(Path(name), text);
  }
  void Link(const std::string& to, std::string_view name) {
    ASSERT_EQ(symlink(to.c_str(), Path(name).c_str()), 0);
  }

  void Start() {
    server_ = std::make_unique<http::TestServer>(
        GetParam(), [this](loop::Loop* loop) {
          auto handler =
              std::make_unique<StaticHandler>(loop, &*root_, &mime_, options_);
          handler_ = handler.get();
          return handler;
        });
  }

  uint16_t port() const { return server_->port(); }

  ClientResponse Get(std::string_view target, std::string_view fields = {}) {
    if (!client_) client_ = std::make_unique<TestClient>(port());
    return client_->Get(target, fields);
  }
  ClientResponse Head(std::string_view target, std::string_view fields = {}) {
    if (!client_) client_ = std::make_unique<TestClient>(port());
    return client_->Head(target, fields);
  }

  std::string base_;
  std::string top_;
  std::optional<Root> root_;
  MimeTypes mime_;  // the built-in ones: the same everywhere
  StaticHandler::Options options_;
  StaticHandler* handler_ = nullptr;  // for the loop's thread
  std::unique_ptr<http::TestServer> server_;
  std::unique_ptr<TestClient> client_;
};

// --- Whole files.

TEST_P(HandlerTest, ServesAFile) {
  Put("a.txt", "hello");
  timespec times[2] = {{1'000'000'000, 0}, {1'000'000'000, 0}};
  utimensat(AT_FDCWD, Path("a.txt").c_str(), times, 0);
  Start();
  ClientResponse r = Get("/a.txt");
  EXPECT_EQ(r.status, 200);
  EXPECT_EQ(r.body, "hello");
  EXPECT_EQ(r.Get("Content-Type"), "text/plain; charset=utf-8");
  EXPECT_EQ(r.Get("Content-Length"), "5");
  EXPECT_EQ(r.Get("Last-Modified"), "Sun, 09 Sep 2001 01:46:40 GMT");
  EXPECT_EQ(r.Get("Accept-Ranges"), "bytes");
  EXPECT_EQ(r.Get("Server"), "kevent");
  EXPECT_EQ(r.Get("ETag").front(), '"');
  EXPECT_EQ(r.Get("ETag").back(), '"');
  EXPECT_FALSE(r.Has("Connection"));
}

TEST_P(HandlerTest, HeadHasTheFieldsOfGet) {
  Put("a.txt", "hello");
  Put("big", Pattern(500'000));
  Start();
  for (const char* target : {"/a.txt", "/big"}) {
    ClientResponse get = Get(target);
    ClientResponse head = Head(target);
    EXPECT_EQ(head.status, 200);
    EXPECT_EQ(head.body, "");
    for (const char* name : {"Content-Type", "Content-Length", "Last-Modified",
                             "ETag", "Accept-Ranges", "Server"}) {
      EXPECT_EQ(head.Get(name), get.Get(name)) << name;
      EXPECT_TRUE(head.Has(name)) << name;
    }
  }
}

TEST_P(HandlerTest, ServesWithAnyConnectionField) {
  Put("a.txt", "hello");
  Start();
  for (int i = 0; i < 3; ++i) {
    TestClient close(port());
    ClientResponse r = close.Get("/a.txt", "Connection: close\r\n");
    EXPECT_EQ(r.body, "hello");
    EXPECT_EQ(r.Get("Connection"), "close");
    EXPECT_EQ(close.AwaitEnd(), TestClient::End::kClosed);
    TestClient old(port());
    r = old.Ask("GET /a.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    EXPECT_EQ(r.body, "hello");
    EXPECT_EQ(r.Get("Connection"), "keep-alive");
    EXPECT_EQ(Get("/a.txt").body, "hello");
  }
}

TEST_P(HandlerTest, EmptyFile) {
  Put("empty.txt", "");
  Start();
  for (int i = 0; i < 2; ++i) {
    ClientResponse r = Get("/empty.txt");
    EXPECT_EQ(r.status, 200);
    EXPECT_EQ(r.Get("Content-Length"), "0");
    EXPECT_EQ(r.body, "");
  }
  EXPECT_EQ(Head("/empty.txt").Get("Content-Length"), "0");
  EXPECT_EQ(Get("/empty.txt", Range("0-0")).status, 416);
}

TEST_P(HandlerTest, FileOfExactlyTheCachedSizeAndOneMore) {
  options_.cache.max_body_bytes = 10'000;
  const std::string text = Pattern(10'001);
  Put("exact", text.substr(1));
  Put("more", text);
  Start();
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(Get("/exact").body == text.substr(1));
    EXPECT_TRUE(Get("/more").body == text);
  }
  FileCache::Stats stats;
  server_->Call([&] { stats = handler_->cache().stats(); });
  EXPECT_EQ(stats.entries, 2u);
  EXPECT_EQ(stats.descriptors, 1u);
  EXPECT_GE(stats.body_bytes, 10'000u);
  EXPECT_LT(stats.body_bytes, 20'000u);
}

TEST_P(HandlerTest, ContentTypes) {
  Start();
  for (auto [name, type] : std::vector<std::pair<std::string, std::string>>{
           {"a.html", "text/html; charset=utf-8"},
           {"a.CSS", "text/css; charset=utf-8"},
           {"a.png", "image/png"},
           {"a.tar.unknown", "application/octet-stream"},
           {"Makefile", "application/octet-stream"}}) {
    Put(name, "x");
    ClientResponse r = Get("/" + name);
    EXPECT_EQ(r.status, 200) << name;
    EXPECT_EQ(r.Get("Content-Type"), type) << name;
  }
}

TEST_P(HandlerTest, DateIsCurrent) {
  Put("a.txt", "hello");
  Start();
  for (const char* target : {"/a.txt", "/missing"}) {
    const time_t before = time(nullptr);
    const time_t date = ParseDate(Get(target).Get("Date"));
    EXPECT_GE(date, before - 1);
    EXPECT_LE(date, time(nullptr) + 1);
  }
  // The ready-made head follows the clock.
  const std::string first(Get("/a.txt").Get("Date"));
  const auto start = Clock::now();
  ClientResponse r;
  do {
    r = Get("/a.txt");
    ASSERT_EQ(r.body, "hello");
  } while (r.Get("Date") == first &&
           Clock::now() - start < std::chrono::seconds(10));
  EXPECT_GT(ParseDate(r.Get("Date")), ParseDate(first));
}

// The ready-made head is lent to a response, the others need another one.
TEST_P(HandlerTest, DateIsCurrentWhileAResponseIsUnderWay) {
  Put("big", Pattern(8 << 20));
  Start();
  TestClient slow(port(), 8 << 10);
  ASSERT_TRUE(slow.Send(TestClient::Request("GET", "/big")));
  ASSERT_TRUE(slow.Readable(http::kClientDeadlineMs));
  const std::string first(Head("/big").Get("Date"));
  const auto start = Clock::now();
  ClientResponse r;
  do {
    r = Head("/big");
  } while (r.Get("Date") == first &&
           Clock::now() - start < std::chrono::seconds(10));
  EXPECT_GT(ParseDate(r.Get("Date")), ParseDate(first));
  ASSERT_TRUE(slow.Receive(&r));
  EXPECT_TRUE(r.body == Pattern(8 << 20));
  EXPECT_LE(ParseDate(r.Get("Date")), ParseDate(first));
}

// --- Files in demand, whose bodies are sent by reference.

TEST_P(HandlerTest, FilesInDemand) {
  for (size_t size :
       {6'144u, 16'384u, 102'400u, 131'073u, 1u << 20, (1u << 20) + 1}) {
    const std::string text = Pattern(size);
    const std::string target = "/" + std::to_string(size);
    Put(std::to_string(size), text);
    if (!server_) Start();
    for (int i = 0; i < 40; ++i) {
      ClientResponse r = Get(target);
      ASSERT_EQ(r.status, 200);
      ASSERT_TRUE(r.body == text) << size << " at " << i;
    }
    EXPECT_EQ(Head(target).body, "");
    EXPECT_TRUE(Get(target, Range("5000-6000")).body ==
                text.substr(5000, 1001));
    if (size > 40'000) {
      EXPECT_TRUE(Get(target, Range("100-39999")).body ==
                  text.substr(100, 39'900));
      EXPECT_TRUE(Get(target, Range("4097-")).body == text.substr(4097));
    }
    TestClient close(port());
    ClientResponse r = close.Get(target, "Connection: close\r\n");
    EXPECT_TRUE(r.body == text);
    EXPECT_EQ(r.Get("Connection"), "close");
    EXPECT_EQ(close.AwaitEnd(), TestClient::End::kClosed);
    EXPECT_EQ(Get(target, "If-None-Match: *\r\n").status, 304);
  }
  FileCache::Stats stats;
  server_->Call([&] { stats = handler_->cache().stats(); });
  EXPECT_EQ(stats.entries, 6u);
  EXPECT_EQ(stats.descriptors, 1u) << "the last one may change yet";
}

TEST_P(HandlerTest, FilesInDemandHaveACurrentDate) {
  Put("x", Pattern(16 << 10));
  Start();
  std::string first;
  for (int i = 0; i < 40; ++i) first = Get("/x").Get("Date");
  const auto start = Clock::now();
  // Several seconds, so that there are several heads.
  for (int second = 0; second < 3; ++second) {
    ClientResponse r;
    do {
      r = Get("/x");
      ASSERT_TRUE(r.body == Pattern(16 << 10));
    } while (r.Get("Date") == first &&
             Clock::now() - start < std::chrono::seconds(20));
    EXPECT_GT(ParseDate(r.Get("Date")), ParseDate(first));
    first = r.Get("Date");
  }
}

// Asked for so often within a second that head and body lie in one piece; and
// seldom again.
TEST_P(HandlerTest, FilesInGreatDemand) {
  Start();
  for (size_t size : {6'144u, 65'536u}) {
    const std::string text = Pattern(size);
    const std::string name = std::to_string(size);
    Put(name, text);
    uint64_t before = 0;
    uint64_t made = 0;
    server_->Call([&] { before = handler_->wholes_made(); });
    const auto start = Clock::now();
    time_t last = 0;
    while (made < before + 2 &&
           Clock::now() - start < std::chrono::seconds(30)) {
      for (int i = 0; i < 20; ++i) {
        ClientResponse r = Get("/" + name);
        ASSERT_EQ(r.status, 200);
        ASSERT_TRUE(r.body == text);
        const time_t date = ParseDate(r.Get("Date"));
        EXPECT_GE(date, last);
        last = date;
      }
      EXPECT_GE(last, time(nullptr) - 2);
      server_->Call([&] { made = handler_->wholes_made(); });
    }
    EXPECT_GE(made, before + 2) << size;
    if (size < 10'000) continue;
    // HEAD is no use of it.
    while (ParseDate(Head("/" + name).Get("Date")) < last + 2 &&
           Clock::now() - start < std::chrono::seconds(60)) {
    }
    ClientResponse r = Get("/" + name);
    EXPECT_TRUE(r.body == text);
    EXPECT_GE(ParseDate(r.Get("Date")), last + 2);
    server_->Call([&] { before = handler_->wholes_made(); });
    EXPECT_EQ(before, made) << "one request does not pay for a copy";
  }
}

// More of them than there is room for: they must not push each other out, with
// a copy for each request.
TEST_P(HandlerTest, TooManyFilesInGreatDemand) {
  constexpr int kFiles = 300;
  constexpr uint64_t kInASlab = 256;  // at most
  const std::string text = Pattern(6'144);
  for (int i = 0; i < kFiles; ++i) Put(std::to_string(i), text);
  Start();
  const auto start = Clock::now();
  int requests = 0;
  while (Clock::now() - start < std::chrono::milliseconds(2'500)) {
    ClientResponse r = Get("/" + std::to_string(requests++ % kFiles));
    ASSERT_TRUE(r.body == text);
  }
  const int64_t seconds = (Clock::now() - start) / std::chrono::seconds(1);
  uint64_t made = 0;
  server_->Call([&] { made = handler_->wholes_made(); });
  // A slab every two seconds, and two of them just so.
  EXPECT_LE(made, kInASlab * (static_cast<uint64_t>(seconds) / 2 + 2))
      << requests << " requests";
}

// What a slow client gets stays what it was, head and body.
TEST_P(HandlerTest, FilesInDemandAreReplaced) {
  const std::string text = Pattern(128 << 10);
  Put("x", text);
  Start();
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(Get("/x").body == text);
  std::vector<std::unique_ptr<TestClient>> slow;
  for (int i = 0; i < 10; ++i) {
    slow.push_back(std::make_unique<TestClient>(port(), 8 << 10));
    ASSERT_TRUE(slow.back()->Send(TestClient::Request("GET", "/x")));
    ASSERT_TRUE(slow.back()->Readable(http::kClientDeadlineMs));
  }
  const std::string other(100'000, 'o');
  Put("x.tmp", other);
  ASSERT_EQ(rename(Path("x.tmp").c_str(), Path("x").c_str()), 0);
  const auto start = Clock::now();
  while (Get("/x").body != other &&
         Clock::now() - start < std::chrono::seconds(10)) {
  }
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(Get("/x").body == other);
  server_->Call([&] { handler_->cache().PurgeAll(); });
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(Get("/x").body == other);
  for (auto& client : slow) {
    ClientResponse r;
    ASSERT_TRUE(client->Receive(&r));
    EXPECT_TRUE(r.body == text);
  }
}

// Clients that read nothing, and their end, harm no other.
TEST_P(HandlerTest, FilesInDemandAndStalledClients) {
  const std::string text = Pattern(128 << 10);
  Put("x", text);
  Start();
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(Get("/x").body == text);
  {
    std::vector<std::unique_ptr<TestClient>> stalled;
    for (int i = 0; i < 50; ++i) {
      stalled.push_back(std::make_unique<TestClient>(port(), 8 << 10));
      std::string requests;
      for (int k = 0; k < 10; ++k) {
        requests += TestClient::Request("GET", "/x");
      }
      ASSERT_TRUE(stalled.back()->Send(requests));
      ASSERT_TRUE(stalled.back()->Readable(http::kClientDeadlineMs));
    }
    for (int i = 0; i < 40; ++i) ASSERT_TRUE(Get("/x").body == text);
    client_.reset();
    server_->Call([&] { handler_->cache().PurgeAll(); });
  }
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(Get("/x").body == text);
}

// --- Conditions.

TEST_P(HandlerTest, NotModified) {
  Put("a.txt", "hello");
  Start();
  ClientResponse whole = Get("/a.txt");
  const std::string etag(whole.Get("ETag"));
  const std::string modified(whole.Get("Last-Modified"));
  for (const std::string& fields :
       {"If-None-Match: " + etag + "\r\n", "If-None-Match: W/" + etag + "\r\n",
        "If-None-Match: \"x\", " + etag + "\r\n",
        std::string("If-None-Match: *\r\n"),
        "If-Modified-Since: " + modified + "\r\n"}) {
    for (bool head : {false, true}) {
      ClientResponse r = head ? Head("/a.txt", fields) : Get("/a.txt", fields);
      EXPECT_EQ(r.status, 304) << fields;
      EXPECT_EQ(r.Get("ETag"), etag);
      EXPECT_EQ(r.Get("Last-Modified"), modified);
      EXPECT_EQ(r.Get("Date").size(), 29u);
      EXPECT_FALSE(r.Has("Content-Type"));
    }
  }
  for (const std::string& fields :
       {std::string("If-None-Match: \"x\"\r\n"),
        std::string("If-Modified-Since: Sun, 09 Sep 2001 01:46:40 GMT\r\n"),
        std::string("If-Modified-Since: yesterday\r\n"),
        // The tag decides.
        "If-None-Match: \"x\"\r\nIf-Modified-Since: " + modified + "\r\n"}) {
    ClientResponse r = Get("/a.txt", fields);
    EXPECT_EQ(r.status, 200) << fields;
    EXPECT_EQ(r.body, "hello");
  }
}

TEST_P(HandlerTest, PreconditionFailed) {
  Put("a.txt", "hello");
  Start();
  const std::string etag(Get("/a.txt").Get("ETag"));
  const std::string past = "Sun, 09 Sep 2001 01:46:40 GMT";
  EXPECT_EQ(Get("/a.txt", "If-Match: \"x\"\r\n").status, 412);
  EXPECT_EQ(Get("/a.txt", "If-Match: W/" + etag + "\r\n").status, 412);
  EXPECT_EQ(Get("/a.txt", "If-Unmodified-Since: " + past + "\r\n").status, 412);
  EXPECT_EQ(Get("/a.txt", "If-Match: " + etag + "\r\n").body, "hello");
  EXPECT_EQ(Get("/a.txt", "If-Match: *\r\n").body, "hello");
  EXPECT_EQ(Get("/missing", "If-Match: \"x\"\r\n").status, 404);
}

// --- Ranges.

TEST_P(HandlerTest, Ranges) {
  options_.cache.max_body_bytes = 1000;
  const std::string small = Pattern(1000);
  const std::string large = Pattern(3'000'000);
  Put("small", small);
  Put("large", large);
  Start();
  for (const auto& [target, text] :
       {std::pair<std::string, std::string>("/small", small),
        std::pair<std::string, std::string>("/large", large)}) {
    const size_t size = text.size();
    struct Case {
      std::string spec;
      size_t first, last;
    };
    for (const Case& c : std::vector<Case>{
             {"0-0", 0, 0},
             {"0-499", 0, 499},
             {"200-699", 200, 699},
             {"900-", 900, size - 1},
             {"-1", size - 1, size - 1},
             {"-100", size - 100, size - 1},
             {"-99999999", 0, size - 1},
             {"0-99999999", 0, size - 1},
             {std::to_string(size - 1) + "-", size - 1, size - 1}}) {
      SCOPED_TRACE(target + " " + c.spec);
      ClientResponse r = Get(target, Range(c.spec));
      EXPECT_EQ(r.status, 206);
      EXPECT_TRUE(r.body == text.substr(c.first, c.last - c.first + 1));
      EXPECT_EQ(r.Get("Content-Range"), "bytes " + std::to_string(c.first) +
                                            "-" + std::to_string(c.last) + "/" +
                                            std::to_string(size));
      EXPECT_EQ(r.Get("Content-Length"), std::to_string(r.body.size()));
      EXPECT_EQ(r.Get("ETag"), Head(target).Get("ETag"));
    }
    for (const std::string& spec :
         {std::to_string(size) + "-", std::to_string(size) + "-99999999999",
          std::string("-0")}) {
      ClientResponse r = Get(target, Range(spec));
      EXPECT_EQ(r.status, 416) << spec;
      EXPECT_EQ(r.Get("Content-Range"), "bytes */" + std::to_string(size));
    }
    // Ignored: several, other units, nonsense.
    for (const char* field :
         {"Range: bytes=0-1,3-4\r\n", "Range: lines=0-1\r\n",
          "Range: bytes=5-2\r\n", "Range: bytes=a\r\n", "Range: bytes=\r\n"}) {
      ClientResponse r = Get(target, field);
      EXPECT_EQ(r.status, 200) << field;
      EXPECT_TRUE(r.body == text) << field;
    }
    EXPECT_EQ(Head(target, Range("0-1")).status, 200);
    // Preconditions come first.
    EXPECT_EQ(Get(target, Range("0-1") + "If-None-Match: *\r\n").status, 304);
  }
}

TEST_P(HandlerTest, IfRange) {
  Put("a.txt", "hello");
  timespec times[2] = {{1'000'000'000, 0}, {1'000'000'000, 0}};
  utimensat(AT_FDCWD, Path("a.txt").c_str(), times, 0);
  Start();
  const std::string etag(Get("/a.txt").Get("ETag"));
  const std::string modified(Get("/a.txt").Get("Last-Modified"));
  for (const std::string& value : {etag, modified}) {
    ClientResponse r =
        Get("/a.txt", Range("1-2") + "If-Range: " + value + "\r\n");
    EXPECT_EQ(r.status, 206) << value;
    EXPECT_EQ(r.body, "el");
  }
  for (const std::string& value :
       {"W/" + etag, std::string("\"x\""),
        std::string("Sun, 09 Sep 2001 01:46:39 GMT")}) {
    ClientResponse r =
        Get("/a.txt", Range("1-2") + "If-Range: " + value + "\r\n");
    EXPECT_EQ(r.status, 200) << value;
    EXPECT_EQ(r.body, "hello");
  }
}

// --- Names.

TEST_P(HandlerTest, NotFound) {
  Put("a.txt", "hello");
  Put("dir/b.txt", "b");
  Start();
  for (const char* target : {"/missing", "/a.txt/", "/a.txt/b", "/dir/missing",
                             "/A.TXT", "/...", "/dir/b.txt/."}) {
    ClientResponse r = Get(target);
    EXPECT_EQ(r.status, 404) << target;
    EXPECT_EQ(r.Get("Content-Type"), "text/html") << target;
  }
  EXPECT_EQ(Get("/" + std::string(5000, 'n')).status, 404);
  EXPECT_EQ(Head("/missing").status, 404);
  EXPECT_EQ(Get("/a.txt").body, "hello");
}

TEST_P(HandlerTest, OtherMethods) {
  Put("a.txt", "hello");
  Start();
  TestClient client(port());
  for (const char* method :
       {"POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"}) {
    ClientResponse r = client.Ask(
        TestClient::Request(method, "/a.txt", "Content-Length: 4\r\n") +
        "body");
    EXPECT_EQ(r.status, 405) << method;
    EXPECT_EQ(r.Get("Allow"), "GET, HEAD") << method;
  }
  EXPECT_EQ(client.Ask(TestClient::Request("OPTIONS", "*")).status, 405);
  for (const char* method : {"BREW", "get"}) {
    EXPECT_EQ(client.Ask(TestClient::Request(method, "/a.txt")).status, 501);
  }
  EXPECT_EQ(client.Get("/a.txt").body, "hello");
}

TEST_P(HandlerTest, PathsStayBeneathTheRoot) {
  Put("a.txt", "hello");
  Put("dir/b.txt", "b");
  Put("\\evil", "back");
  Start();
  for (const char* target :
       {"/../secret.txt", "/%2e%2e/secret.txt", "/%2E%2E%2fsecret.txt",
        "/dir/../../secret.txt", "/dir/%2e%2e/%2e%2e/secret.txt", "/..",
        "/a.txt%00", "/%00", "/a%0d%0ab", "/%zz", "/%2"}) {
    ClientResponse r = Get(target);
    EXPECT_EQ(r.status, 400) << target;
    EXPECT_EQ(r.body.find("secret"), std::string::npos);
  }
  for (const char* target :
       {"/%2fetc/passwd", "//etc/passwd", "/dir%5c..%5c..%5csecret.txt",
        "/..%5csecret.txt", "/%252e%252e/secret.txt"}) {
    EXPECT_EQ(Get(target).status, 404) << target;
  }
  for (const char* target :
       {"/dir/../a.txt", "/./a.txt", "//a.txt", "/%61.txt", "/dir/.././a.txt",
        "http://test/a.txt", "/dir%2f..%2fa.txt"}) {
    EXPECT_EQ(Get(target).body, "hello") << target;
  }
  EXPECT_EQ(Get("/%5cevil").body, "back");
}

TEST_P(HandlerTest, NamesOfAnyBytes) {
  Put("space and %.txt", "1");
  Put("\xff\xfe", "2");
  Put("caf\xc3\xa9", "3");
  Put("q?#", "4");
  Start();
  EXPECT_EQ(Get("/space%20and%20%25.txt").body, "1");
  EXPECT_EQ(Get("/%ff%fe").body, "2");
  EXPECT_EQ(Get("/caf%c3%a9").body, "3");
  EXPECT_EQ(Get("/q%3f%23").body, "4");
}

TEST_P(HandlerTest, Symlinks) {
  Put("a.txt", "hello");
  Put("dir/b.txt", "b");
  Link("a.txt", "inside");
  Link("../a.txt", "dir/up");
  Link("dir", "linked");
  Link("../secret.txt", "outside");
  Link("..", "parent");
  Link("/etc/passwd", "absolute");
  Link(Path("a.txt"), "back");
  Link("loop", "loop");
  Link("nothing", "dangling");
  Link("/proc/self/fd/0", "magic");
  Start();
  EXPECT_EQ(Get("/inside").body, "hello");
  EXPECT_EQ(Get("/dir/up").body, "hello");
  EXPECT_EQ(Get("/linked/b.txt").body, "b");
  EXPECT_EQ(Get("/linked").status, 301);
  for (const char* target :
       {"/outside", "/parent", "/parent/secret.txt", "/absolute", "/back",
        "/loop", "/dangling", "/magic"}) {
    EXPECT_EQ(Get(target).status, 404) << target;
  }
}

TEST_P(HandlerTest, WhatIsNeitherFileNorDirectory) {
  ASSERT_EQ(mkfifo(Path("fifo").c_str(), 0666), 0);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  // Through the directory's descriptor: the path may be too long.
  int directory = open(top_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/socket",
           directory);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  // Only root may.
  const bool device =
      mknod(Path("null").c_str(), S_IFCHR | 0666, makedev(1, 3)) == 0;
  Start();
  EXPECT_EQ(Get("/fifo").status, 404);
  EXPECT_EQ(Get("/socket").status, 404);
  if (device) {
    EXPECT_EQ(Get("/null").status, 404);
  }
  close(directory);
  close(fd);
}

// --- Directories.

TEST_P(HandlerTest, DirectoriesRedirect) {
  Put("dir/index.html", "index");
  Put("dir/sub dir/x", "x");
  Start();
  struct Case {
    const char* target;
    const char* location;
  };
  for (const Case& c : {Case{"/dir", "/dir/"},
                        {"/dir?a=b&c=/d", "/dir/?a=b&c=/d"},
                        {"/dir?", "/dir/?"},
                        {"/dir/sub%20dir", "/dir/sub%20dir/"},
                        // Two slashes would name another host.
                        {"//dir", "/dir/"},
                        {"///dir", "/dir/"},
                        {"//dir?//host", "/dir/?//host"},
                        {"http://test/dir", "/dir/"}}) {
    SCOPED_TRACE(c.target);
    ClientResponse r = Get(c.target);
    EXPECT_EQ(r.status, 301);
    EXPECT_EQ(r.Get("Location"), c.location);
    EXPECT_EQ(Head(c.target).status, 301);
  }
  // No directory, no redirect, whatever it looks like.
  EXPECT_EQ(Get("//example.org/").status, 404);
  EXPECT_EQ(Get("//example.org/..").status, 403);
}

// Browsers take a backslash for a slash.
TEST_P(HandlerTest, RedirectsNowhereElseByABackslash) {
  ASSERT_EQ(mkdir(Path("\\example.org").c_str(), 0755), 0);
  Start();
  ClientResponse r = Get("/\\example.org");
  EXPECT_EQ(r.status, 301);
  EXPECT_EQ(r.Get("Location"), "/%5Cexample.org/");
}

TEST_P(HandlerTest, IndexFiles) {
  options_.index = {"index.html", "index.txt"};
  Put("index.html", "top");
  Put("second/index.txt", "second");
  Put("both/index.txt", "no");
  Put("both/index.html", "both");
  Put("none/x", "x");
  ASSERT_EQ(mkdir(Path("odd").c_str(), 0755), 0);
  ASSERT_EQ(mkdir(Path("odd/index.html").c_str(), 0755), 0);
  Start();
  ClientResponse r = Get("/");
  EXPECT_EQ(r.body, "top");
  EXPECT_EQ(r.Get("Content-Type"), "text/html; charset=utf-8");
  EXPECT_EQ(Get("/second/").body, "second");
  EXPECT_EQ(Get("/second/?x=y").body, "second");
  EXPECT_EQ(Get("/both/").body, "both");
  EXPECT_EQ(Get("/both/.").body, "both");
  EXPECT_EQ(Get("/none/").status, 403);
  EXPECT_EQ(Get("/odd/").status, 403);
  EXPECT_EQ(Get("/second/", "If-None-Match: *\r\n").status, 304);
  EXPECT_EQ(Get("/second/", Range("0-2")).body, "sec");
}

TEST_P(HandlerTest, ListsDirectoriesIfAsked) {
  options_.listing = true;
  Put("dir/<b>.txt", "b");
  Put("dir/sub/x", "x");
  Put("with/index.html", "index");
  Start();
  ClientResponse r = Get("/dir/");
  EXPECT_EQ(r.status, 200);
  EXPECT_EQ(r.Get("Content-Type"), "text/html; charset=utf-8");
  EXPECT_NE(r.body.find("sub/"), std::string::npos);
  EXPECT_NE(r.body.find("&lt;b&gt;.txt"), std::string::npos);
  EXPECT_EQ(r.body.find("<b>.txt"), std::string::npos);
  ClientResponse head = Head("/dir/");
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.Get("Content-Length"), r.Get("Content-Length"));
  EXPECT_EQ(Get("/with/").body, "index");
  EXPECT_EQ(Get("/missing/").status, 404);
}

// --- Changes.

TEST_P(HandlerTest, ReplacedFile) {
  Put("a.txt", "first");
  Put("big", Pattern(300'000));
  Start();
  const std::string etag(Get("/a.txt").Get("ETag"));
  const std::string big_etag(Get("/big").Get("ETag"));
  Put("new.txt", "second, longer");
  ASSERT_EQ(rename(Path("new.txt").c_str(), Path("a.txt").c_str()), 0);
  Put("big", "small now");
  const auto start = Clock::now();
  ClientResponse r;
  do {
    r = Get("/a.txt");
    // One or the other, whole.
    ASSERT_TRUE(r.body == "first" || r.body == "second, longer") << r.body;
    ASSERT_EQ(r.body == "first", r.Get("ETag") == etag);
  } while (r.body == "first" &&
           Clock::now() - start < std::chrono::seconds(10));
  EXPECT_EQ(r.body, "second, longer");
  EXPECT_NE(r.Get("ETag"), etag);
  EXPECT_EQ(Get("/a.txt", "If-None-Match: " + etag + "\r\n").status, 200);
  do {
    r = Get("/big");
  } while (r.body != "small now" &&
           Clock::now() - start < std::chrono::seconds(10));
  EXPECT_EQ(r.body, "small now");
  EXPECT_NE(r.Get("ETag"), big_etag);
}

TEST_P(HandlerTest, CreatedAndRemovedFiles) {
  Start();
  EXPECT_EQ(Get("/a.txt").status, 404);
  Put("a.txt", "here");
  const auto start = Clock::now();
  auto within = [&] { return Clock::now() - start < std::chrono::seconds(10); };
  while (Get("/a.txt").status != 200 && within()) {
  }
  EXPECT_EQ(Get("/a.txt").body, "here");
  ASSERT_EQ(unlink(Path("a.txt").c_str()), 0);
  while (Get("/a.txt").status != 404 && within()) {
  }
  EXPECT_EQ(Get("/a.txt").status, 404);
}

TEST_P(HandlerTest, FileTruncatedWhileItIsSent) {
  constexpr size_t kSize = 32 << 20;
  Put("big", Pattern(kSize));
  Start();
  TestClient slow(port(), 16 << 10);
  ASSERT_TRUE(slow.Send(TestClient::Request("GET", "/big")));
  ASSERT_TRUE(slow.Readable(http::kClientDeadlineMs));
  // It fills what the sockets hold, then waits for the client.
  server_->Call([] {});
  ASSERT_EQ(truncate(Path("big").c_str(), 1000), 0);
  ClientResponse r;
  EXPECT_FALSE(slow.Receive(&r));
  EXPECT_EQ(slow.reader().partial().status, 200);
  EXPECT_LT(slow.reader().partial().body.size(), kSize);
  EXPECT_TRUE(server_->Await(
      [&] { return server_->server()->counters().aborted.value() == 1; }));
  const auto start = Clock::now();
  do {
    r = Get("/big");
  } while (r.body.size() != 1000 &&
           Clock::now() - start < std::chrono::seconds(10));
  EXPECT_TRUE(r.body == Pattern(kSize).substr(0, 1000));
}

// --- Trouble.

// In a process of nobody's, if this one may read everything.
void AsNobody(const std::function<bool()>& test) {
  if (geteuid() != 0) {
    EXPECT_TRUE(test());
    return;
  }
  constexpr int kCannot = 77;
  pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    struct stat device;  // whose group may use the module
    const gid_t group =
        stat("/dev/kevent", &device) == 0 ? device.st_gid : 65534;
    if (setgroups(0, nullptr) < 0 || setgid(group) < 0 || setuid(65534) < 0) {
      _exit(kCannot);
    }
    _exit(test() ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status)) << status;
  if (WEXITSTATUS(status) == kCannot) {
    GTEST_SKIP() << "cannot become nobody here";
  }
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_P(HandlerTest, FilesThatMayNotBeRead) {
  Put("a.txt", "hello");
  Put("closed.txt", "x");
  Put("dir/a.txt", "x");
  Put("noread/index.html", "index");
  chmod(Path("closed.txt").c_str(), 0);
  chmod(Path("dir").c_str(), 0);
  chmod(Path("noread").c_str(), 0711);
  AsNobody([&] {
    Start();
    bool ok = true;
    auto expect = [&](const char* target, int status) {
      int got = Get(target).status;
      if (got == status) return;
      fprintf(stderr, "%s: %d, not %d\n", target, got, status);
      ok = false;
    };
    expect("/a.txt", 200);
    expect("/closed.txt", 403);
    expect("/closed.txt", 403);
    expect("/dir/a.txt", 403);
    expect("/dir", 301);
    expect("/dir/", 403);
    expect("/noread/", 200);  // searched, not listed
    client_.reset();
    server_.reset();
    return ok;
  });
  chmod(Path("dir").c_str(), 0755);
}

TEST_P(HandlerTest, OutOfDescriptors) {
  Put("a.txt", "hello");
  Put("b.txt", "later");
  rlimit old;
  getrlimit(RLIMIT_NOFILE, &old);
  rlimit low = old;
  low.rlim_cur = 256;
  setrlimit(RLIMIT_NOFILE, &low);
  Start();
  EXPECT_EQ(Get("/a.txt").body, "hello");
  std::vector<int> taken;
  for (int fd; (fd = dup(STDIN_FILENO)) >= 0;) taken.push_back(fd);
  ClientResponse cached = Get("/a.txt");
  ClientResponse fresh = Get("/b.txt");
  for (int fd : taken) close(fd);
  setrlimit(RLIMIT_NOFILE, &old);
  EXPECT_EQ(cached.body, "hello");
  EXPECT_EQ(fresh.status, 503);
  EXPECT_EQ(Get("/b.txt").body, "later");
}

// Neither waits for the other, and the file is never in memory as a whole.
TEST_P(HandlerTest, StalledClientOfALargeSparseFile) {
  constexpr size_t kSize = 100 << 20;
  Put("a.txt", "hello");
  Put("sparse", "");
  ASSERT_EQ(truncate(Path("sparse").c_str(), kSize), 0);
  Start();
  TestClient stalled(port(), 16 << 10);
  ASSERT_TRUE(stalled.Send(TestClient::Request("GET", "/sparse")));
  ASSERT_TRUE(stalled.Readable(http::kClientDeadlineMs));
  const auto start = Clock::now();
  for (int i = 0; i < 200; ++i) ASSERT_EQ(Get("/a.txt").body, "hello");
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(5));
  EXPECT_EQ(Get("/sparse", Range("-3")).body, std::string(3, '\0'));
  ClientResponse r;
  ASSERT_TRUE(stalled.Receive(&r));
  EXPECT_EQ(r.body.size(), kSize);
  EXPECT_EQ(r.body.find_first_not_of('\0'), std::string::npos);
}

// Eviction while responses are under way.
TEST_P(HandlerTest, ManyFilesThroughASmallCache) {
  options_.cache.max_entries = 8;
  options_.cache.max_descriptors = 2;
  options_.cache.max_body_bytes = 1000;
  constexpr size_t kFiles = 64;
  std::vector<std::string> texts;
  for (size_t i = 0; i < kFiles; ++i) {
    texts.push_back(std::to_string(i) + Pattern(i % 2 ? 500 : 200'000 + i));
    Put("f" + std::to_string(i), texts.back());
  }
  Start();
  size_t asked = 0;
  size_t right = 0;
  std::string error = http::RunLoad(
      port(), 24, 3,
      [&](http::LoadRequest* next) {
        next->tag = asked * 7 % kFiles;
        next->text =
            TestClient::Request("GET", "/f" + std::to_string(next->tag));
        return asked++ < 2000;
      },
      [&](size_t tag, const ClientResponse& r) {
        right += r.status == 200 && r.body == texts[tag];
      });
  EXPECT_EQ(error, "");
  EXPECT_EQ(right, 2000u);
}

INSTANTIATE_FOR_ENGINES(HandlerTest);

}  // namespace
}  // namespace kevent::files
