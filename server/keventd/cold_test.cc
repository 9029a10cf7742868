// SPDX-License-Identifier: Apache-2.0
//
// Proof that cold files do not stop a loop: the disk below /dm hangs, and hot
// requests are answered all the same. In the guest alone.

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"
#include "server/http/test_client.h"
#include "server/keventd/test_daemon.h"
#include "server/loop/test_util.h"

namespace kevent::keventd {
namespace {

using http::ClientResponse;
using http::TestClient;
using Clock = std::chrono::steady_clock;

constexpr char kDevice[] = "kevent-dm";
constexpr size_t kColdBytes = 8 << 20;
constexpr int kColdClients = 4;
constexpr int kHotRequests = 300;

int Dmsetup(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "dmsetup");
  Process process(arguments);
  const int status = process.Wait();
  if (status != 0) fputs(process.err().c_str(), stderr);
  return status;
}

// Reads from the disk wait from the first on, until the second.
int Suspend() { return Dmsetup({"suspend", "--nolockfs", kDevice}); }
int Resume() { return Dmsetup({"resume", kDevice}); }

class Suspension {
 public:
  ~Suspension() {
    if (active_) Resume();
  }
  int Begin() {
    active_ = true;
    return Suspend();
  }
  int End() {
    active_ = false;
    return Resume();
  }

 private:
  bool active_ = false;
};

std::string Content(size_t size, char first) {
  std::string text(size, ' ');
  for (size_t i = 0; i < size; ++i) {
    text[i] = static_cast<char>(first + (i / 4096 + i) % 64);
  }
  return text;
}

// Pages of a file in the cache. Its owner is told the truth (mincore(2)).
size_t ResidentPages(const std::string& path, size_t size) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  void* map = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  if (map == MAP_FAILED) return ~size_t{0};
  std::vector<unsigned char> pages((size + 4095) / 4096);
  const int r = mincore(map, size, pages.data());
  munmap(map, size);
  if (r != 0) return ~size_t{0};
  return static_cast<size_t>(
      std::count_if(pages.begin(), pages.end(), [](int p) { return p & 1; }));
}

class ColdTest : public testing::TestWithParam<EngineKind> {
 protected:
  void SetUp() override {
    if (access("/dm", W_OK) != 0 ||
        access("/dev/mapper/kevent-dm", F_OK) != 0) {
      GTEST_SKIP() << "no disk that can be suspended: runs in the guest";
    }
    char dir[] = "/dm/cold-XXXXXX";
    ASSERT_NE(nullptr, mkdtemp(dir));
    root_ = dir;
    ASSERT_EQ(0, chmod(dir, 0755));
  }
  void TearDown() override {
    if (!root_.empty()) {
      for (const char* name : {"cold", "lukewarm", "small", "hot", "warm"}) {
        unlink((root_ + "/" + name).c_str());
      }
      rmdir(root_.c_str());
    }
  }

  std::string Path(const std::string& name) const { return root_ + "/" + name; }

  void Write(const std::string& name, std::string_view text) {
    const int fd =
        open(Path(name).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(static_cast<ssize_t>(text.size()),
              write(fd, text.data(), text.size()));
    ASSERT_EQ(0, fsync(fd));
    close(fd);
  }

  void MakeCold(const std::string& name, size_t size, size_t from = 0) {
    const int fd = open(Path(name).c_str(), O_RDONLY | O_CLOEXEC);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(0, fsync(fd));
    ASSERT_EQ(
        0, posix_fadvise(fd, static_cast<off_t>(from), 0, POSIX_FADV_DONTNEED));
    close(fd);
    ASSERT_EQ((from + 4095) / 4096, ResidentPages(Path(name), size));
  }

  // Returns when what was being read of the (small) file is in memory.
  void AwaitRead(const std::string& name) {
    const int fd = open(Path(name).c_str(), O_RDONLY | O_CLOEXEC);
    ASSERT_GE(fd, 0);
    char block[8192];
    ASSERT_GT(read(fd, block, sizeof block), 0);
    close(fd);
  }

  // Changes the times of the file, in a way that reading it does not again.
  void Touch(const std::string& name) {
    const time_t now = time(nullptr);
    const timespec times[2] = {{now + 60, 0}, {now - 60, 0}};
    const int fd = open(Path(name).c_str(), O_RDONLY | O_CLOEXEC);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(0, futimens(fd, times));
    ASSERT_EQ(0, fsync(fd));
    close(fd);
  }

  std::string root_;
};

INSTANTIATE_TEST_SUITE_P(Engines, ColdTest,
                         testing::ValuesIn(loop::TestEngines()),
                         loop::EngineParamName);

TEST_P(ColdTest, HotRequestsAreAnsweredWhileTheDiskHangs) {
  const std::string cold = Content(kColdBytes, '0');
  const std::string lukewarm = Content(kColdBytes, '1');
  const std::string small = Content(5000, 'A');
  const std::string hot = Content(1000, 'B');
  const std::string warm = Content(100'000, 'C');
  constexpr size_t kWarmPart = 1 << 20;
  Write("cold", cold);
  Write("lukewarm", lukewarm);
  Write("small", small);
  Write("hot", hot);
  Write("warm", warm);
  // Not to be found when the server first looks, or it would keep its body.
  MakeCold("small", small.size());
  TestDaemon daemon({"--root=" + root_, "--listen=127.0.0.1:0", "--workers=1",
                     "--access_log=off",
                     "--engine=" + std::string(EngineName(GetParam()))});
  ASSERT_TRUE(daemon.AwaitReady());
  TestClient client(daemon.port());
  // What opens a file is the file system's: inodes and names are in memory.
  for (const char* name : {"/cold", "/lukewarm", "/small", "/hot", "/warm"}) {
    ASSERT_EQ(200, client.Head(name).status) << name;
  }
  ASSERT_EQ(hot, client.Get("/hot").body);
  ASSERT_EQ(warm, client.Get("/warm").body);
  MakeCold("cold", kColdBytes);
  MakeCold("lukewarm", kColdBytes, kWarmPart);
  // The server asked for the body without waiting, which newer kernels take as
  // a reason to read ahead: it may be on its way still, and the server may have
  // it. A change makes the server look again.
  AwaitRead("small");
  MakeCold("small", small.size());
  Touch("small");
  ASSERT_EQ(200, client.Head("/hot").status);

  Suspension suspension;
  ASSERT_EQ(0, suspension.Begin());
  struct Cold {
    std::string target;
    const std::string* body;
    std::unique_ptr<TestClient> client;
  };
  std::vector<Cold> colds;
  for (int i = 0; i < kColdClients; ++i) {
    for (auto [target, body] :
         {std::pair<const char*, const std::string*>{"/cold", &cold},
          {"/lukewarm", &lukewarm},
          {"/small", &small}}) {
      colds.push_back(
          {target, body, std::make_unique<TestClient>(daemon.port())});
      ASSERT_TRUE(colds.back().client->Send(
          TestClient::Request("GET", colds.back().target)));
    }
  }

  std::chrono::nanoseconds longest{0};
  for (int i = 0; i < kHotRequests; ++i) {
    const auto start = Clock::now();
    const bool big = i % 3 == 0;
    const ClientResponse response = client.Get(big ? "/warm" : "/hot");
    ASSERT_EQ(200, response.status) << "request " << i << " was not answered";
    ASSERT_EQ(big ? warm : hot, response.body);
    longest = std::max(longest, Clock::now() - start);
  }
  printf("%d hot requests, the longest took %.1f ms\n", kHotRequests,
         static_cast<double>(longest.count()) / 1e6);

  // All that time the disk did hang, and nothing was made up.
  EXPECT_EQ(0u, ResidentPages(Path("cold"), kColdBytes));
  EXPECT_EQ(0u, ResidentPages(Path("small"), small.size()));
  EXPECT_LT(ResidentPages(Path("lukewarm"), kColdBytes), kColdBytes / 4096 / 2);
  for (Cold& c : colds) {
    if (c.target == "/lukewarm") continue;
    // At most the header.
    if (c.client->Readable(0)) {
      char some[4096];
      EXPECT_LT(c.client->Read(some, sizeof some), 1024) << c.target;
      c.client.reset();
    }
  }
  ASSERT_EQ(0, suspension.End());
  for (Cold& c : colds) {
    if (!c.client) continue;
    ClientResponse response;
    ASSERT_TRUE(c.client->Receive(&response)) << c.target;
    EXPECT_EQ(200, response.status);
    EXPECT_TRUE(*c.body == response.body) << c.target;
  }
  daemon.Signal(SIGTERM);
  EXPECT_EQ(0, daemon.Wait());
}

}  // namespace
}  // namespace kevent::keventd
