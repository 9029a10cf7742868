// SPDX-License-Identifier: Apache-2.0
//
// Taking the module out and putting it in again. KEVENT_MODULE names its file.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <stop_token>
#include <string>
#include <thread>

#include "kevent/vm/tests/pool_fixture.h"

namespace kevent::raw {
namespace {

int Unload() {
  return syscall(SYS_delete_module, "kevent", O_NONBLOCK) == 0 ? 0 : -errno;
}

bool IsLoaded() { return access("/sys/module/kevent", F_OK) == 0; }

class UnloadTest : public testing::Test {
 protected:
  void SetUp() override {
    const char* path = getenv("KEVENT_MODULE");
    if (getuid() != 0) GTEST_SKIP() << "needs root";
    ASSERT_TRUE(path && *path) << "KEVENT_MODULE is not set";
    module_ = Fd(open(path, O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(module_) << path << ": " << strerror(errno);
    ASSERT_EQ(0, stat("/dev/kevent", &device_)) << strerror(errno);
  }
  void TearDown() override {
    if (module_ && !IsLoaded()) Load();
  }
  void Load() {
    ASSERT_EQ(0, syscall(SYS_finit_module, module_.get(), "", 0))
        << strerror(errno);
    // The node is a new one; it is to be as the tests after this find it.
    ASSERT_EQ(0, chown("/dev/kevent", device_.st_uid, device_.st_gid));
    ASSERT_EQ(0, chmod("/dev/kevent", device_.st_mode & 07777));
  }
  // Files that were closed may be gone a moment later.
  void ExpectUnloads() {
    const int64_t deadline = NowNs() + PatienceNs();
    int r;
    while ((r = Unload()) == -EWOULDBLOCK && NowNs() < deadline) sched_yield();
    ASSERT_EQ(0, r) << strerror(-r);
    EXPECT_FALSE(IsLoaded());
    EXPECT_NE(0, access("/dev/kevent", F_OK));
  }
  static void ExpectRefused() {
    const int r = Unload();
    EXPECT_TRUE(r == -EWOULDBLOCK || r == -EBUSY) << r;
    EXPECT_TRUE(IsLoaded());
  }

 private:
  Fd module_;
  struct stat device_;
};

TEST_F(UnloadTest, RefusedWhileAQueueIsOpen) {
  Queue queue;
  ASSERT_EQ(0, queue.Open());
  kevent_sqe user = AddUser();
  ASSERT_EQ(0, queue.Make(&user));
  for (int i = 0; i < 3; ++i) ExpectRefused();
  // And it has not suffered.
  EXPECT_EQ(0, queue.Ready(user.handle, 5));
  kevent_entry entry = {};
  ASSERT_TRUE(queue.Take(&entry));
  EXPECT_EQ(5u, entry.data[0]);
  queue.Close();
  ExpectUnloads();
  Load();
  ASSERT_EQ(0, queue.Open());
}

TEST_F(UnloadTest, RefusedWhileItIsMapped) {
  Queue queue;
  ASSERT_EQ(0, queue.Open());
  close(queue.ReleaseFd());
  ExpectRefused();
  kevent_entry entry;
  EXPECT_FALSE(queue.Take(&entry));
  queue.Close();
  ExpectUnloads();
}

TEST_F(UnloadTest, RefusedWhileADescriptorIsUnderWay) {
  Pair pair = SocketPair(SOCK_STREAM);
  Fd fd(OpenDevice());
  ASSERT_TRUE(fd);
  SendDescriptor(pair.ours.get(), fd.get());
  fd.Reset();
  ExpectRefused();
  pair.ours.Reset();
  pair.peer.Reset();
  ExpectUnloads();
}

TEST_F(UnloadTest, ConnectionsOfAWatchedListenerStay) {
  Fd listener = Listen();
  Fd client, accepted;
  {
    Queue queue;
    ASSERT_EQ(0, queue.Open());
    kevent_sqe add = AddSocket(listener.get(), KEVENT_SOCKET_ACCEPT);
    ASSERT_EQ(0, queue.Make(&add));
    client = ConnectTo(listener);
    ASSERT_EQ(1, queue.Wait(1, PatienceNs()));
    accepted = Fd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    ASSERT_TRUE(accepted);
  }
  ExpectUnloads();
  // Neither they nor the listener need it.
  Send(client.get(), "x");
  ReadExactly(accepted.get(), 1);
  Fd another = ConnectTo(listener);
  accepted.Reset();
  EXPECT_TRUE(AtEnd(client.get()));
}

TEST_F(UnloadTest, WatchedSocketsOutliveTheQueue) {
  std::vector<Pair> pairs;
  pairs.push_back(TcpPair());
  pairs.push_back(TcpPair(AF_INET6));
  pairs.push_back(SocketPair(SOCK_STREAM));
  pairs.push_back(SocketPair(SOCK_DGRAM));
  {
    Queue queue;
    ASSERT_EQ(0, queue.Open());
    for (Pair& pair : pairs) {
      kevent_sqe add = AddSocket(pair.ours.get(), KEVENT_IN);
      ASSERT_EQ(0, queue.Make(&add));
    }
  }
  // It may be needed by them still; if not, they work without it.
  int r = Unload();
  EXPECT_TRUE(r == 0 || r == -EWOULDBLOCK) << r;
  for (Pair& pair : pairs) {
    Send(pair.peer.get(), "x");
    ReadExactly(pair.ours.get(), 1);
  }
  pairs.clear();
  if (r != 0) ExpectUnloads();
}

TEST_F(UnloadTest, AFileThatWasWatched) {
  Pair pipe = PipePair();
  {
    Queue queue;
    ASSERT_EQ(0, queue.Open());
    kevent_sqe add = AddPoll(pipe.ours.get(), KEVENT_IN);
    ASSERT_EQ(0, queue.Make(&add));
    const std::string folder = TempFolder();
    Fd path(open(folder.c_str(), O_PATH | O_CLOEXEC));
    add = AddInode(path.get(), KEVENT_INODE_CREATE);
    ASSERT_EQ(0, queue.Make(&add));
    add = AddTimer(kMs, kMs);
    ASSERT_EQ(0, queue.Make(&add));
  }
  ExpectUnloads();
  Send(pipe.peer.get(), "x");
  ReadExactly(pipe.ours.get(), 1);
  const std::string name = TempFolder() + "/file";
  Fd file(open(name.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  EXPECT_TRUE(file);
  unlink(name.c_str());
}

TEST_F(UnloadTest, RightAfterAProcessWasKilled) {
  for (int round = 0; round < 5; ++round) {
    Pair report = PipePair();
    Child child([&] {
      Queue queue;
      CHILD_CHECK(queue.Open() == 0);
      std::vector<kevent_sqe> adds(1000, AddTimer(kMs, 100'000));
      Pair tcp = TcpPair();
      adds.push_back(AddSocket(tcp.ours.get(), KEVENT_IN));
      CHILD_CHECK(queue.Control(adds) == 1001);
      CHILD_CHECK(write(report.peer.get(), "x", 1) == 1);
      for (;;) queue.Wait(1, -1);
    });
    ReadExactly(report.ours.get(), 1);
    child.Kill(SIGKILL);
    child.Wait();
    ExpectUnloads();
    Load();
  }
}

TEST_F(UnloadTest, WhileDataArrivesForAPinnedPool) {
  for (int round = 0; round < 10; ++round) {
    Pair pair = TcpPair();
    std::jthread sender([&](std::stop_token stop) {
      const std::string text(500, 'x');
      while (!stop.stop_requested()) {
        send(pair.peer.get(), text.data(), text.size(), MSG_DONTWAIT);
      }
    });
    {
      Queue queue;
      ASSERT_EQ(0, queue.Open());
      TestPool pool(64, 4096);
      ASSERT_EQ(0, pool.Register(queue));
      pool.ProvideAll();
      ASSERT_TRUE(queue.Put(pool.Recv(pair.ours.get(), KEVENT_MULTISHOT, 1)));
      ASSERT_GE(queue.Submit(1), 0);
      EXPECT_TRUE(Until([&] { return queue.Unread() > 4; }));
    }
    ExpectUnloads();
    sender.request_stop();
    sender.join();
    EXPECT_GT(Drain(pair.ours.get()), 0u);
    Load();
  }
}

TEST_F(UnloadTest, OverAndOver) {
  for (int round = 0; round < 10; ++round) {
    ExpectUnloads();
    Load();
    Queue queue;
    ASSERT_EQ(0, queue.Open());
    kevent_sqe timer = AddTimer(0, 0, KEVENT_ALWAYS_QUEUE);
    ASSERT_EQ(0, queue.Make(&timer));
    ASSERT_EQ(1, queue.Wait(1, PatienceNs()));
  }
}

TEST_F(UnloadTest, OpenedWhileItGoes) {
  Child child([] {
    for (int i = 0; i < 20'000; ++i) {
      Queue queue;
      const int r = queue.Open({8, 8, 0});
      CHILD_CHECK(r == 0 || r == -ENOENT || r == -ENODEV || r == -ENXIO ||
                  r == -EACCES);
    }
  });
  int unloaded = 0;
  for (int i = 0; i < 200; ++i) {
    if (Unload() == 0) {
      ++unloaded;
      Load();
    }
  }
  child.Kill(SIGKILL);
  child.Wait();
  printf("taken out %d times of 200\n", unloaded);
  ExpectUnloads();
}

}  // namespace
}  // namespace kevent::raw
