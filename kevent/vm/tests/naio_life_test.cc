// SPDX-License-Identifier: Apache-2.0
//
// Network AIO: what it costs, for whom it acts, and when it ends.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "kevent/vm/tests/naio_fixture.h"

namespace kevent::raw {
namespace {

// ---- Life and death ----

int Threads() {
  int count = 0;
  DIR* dir = opendir("/proc");
  while (dirent* entry = readdir(dir)) {
    if (atoi(entry->d_name) <= 0) continue;
    const std::string tasks = std::string("/proc/") + entry->d_name + "/task";
    if (DIR* inner = opendir(tasks.c_str())) {
      while (readdir(inner)) ++count;
      closedir(inner);
      count -= 2;
    }
  }
  closedir(dir);
  return count;
}

TEST_F(NaioTest, PendingOperationsCostNoThread) {
  // Proof (b): 10,000 recvs that wait and 1,000 sendfiles that are stuck.
  constexpr int kRecvs = 10'000, kFiles = 1'000;
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max =
      std::max<rlim_t>(limit.rlim_max, 2 * (kRecvs + kFiles) + 1000);
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) GTEST_SKIP() << "descriptors";
  TestFile file(TempFolder(), Content(4 << 20));
  const int before = Threads();
  std::vector<Pair> pairs;
  std::vector<char> buffers(kRecvs);
  for (int i = 0; i < kRecvs; ++i) {
    pairs.push_back(SocketPair(SOCK_STREAM));
    Submit(Recv(pairs.back().ours.get(), &buffers[static_cast<size_t>(i)], 1,
                static_cast<uint64_t>(i)));
  }
  for (int i = 0; i < kFiles; ++i) {
    pairs.push_back(SocketPair(SOCK_STREAM));
    Submit(Sendfile(pairs.back().ours.get(), file.fd(), 0, 4 << 20, nullptr,
                    1'000'000));
  }
  ExpectNothing();
  EXPECT_LE(Threads(),
            before + static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)));
  // All are alive.
  for (int i = 0; i < kRecvs; i += 97) {
    Send(pairs[static_cast<size_t>(i)].peer.get(), "y");
    ExpectResult(static_cast<uint64_t>(i), 1);
  }
}

TEST_F(NaioTest, KilledWithSendfilesUnderWay) {
  TestFile file(TempFolder(), Content(8 << 20));
  file.MakeCold();
  std::vector<Pair> pairs;
  for (int i = 0; i < 1000; ++i) {
    pairs.push_back(i % 2 ? TcpPair() : SocketPair(SOCK_STREAM));
  }
  int ready[2];
  ASSERT_EQ(0, pipe2(ready, O_CLOEXEC));
  Child child([&] {
    Queue own;
    CHILD_CHECK(own.Open({4096, 1024, 0}) == 0);
    for (Pair& pair : pairs) {
      CHILD_CHECK(own.Put(
          Sendfile(pair.ours.get(), file.fd(), 0, 8 << 20, nullptr, 1)));
    }
    CHILD_CHECK(own.Submit(1000) >= 0);
    CHILD_CHECK(write(ready[1], "x", 1) == 1);
    for (;;) own.Wait(1, -1);
  });
  ReadExactly(ready[0], 1);
  child.Kill(SIGKILL);
  child.Wait();
  // Only our own descriptors hold the sockets now.
  for (Pair& pair : pairs) {
    pair.ours.Reset();
    Drain(pair.peer.get());
    EXPECT_TRUE(AtEnd(pair.peer.get()));
  }
  close(ready[0]);
  close(ready[1]);
}

TEST_F(NaioTest, AChildThatKeepsTheQueueKeepsNoSocket) {
  // The opener ends while a child of it still has the descriptor.
  Pair pair = TcpPair();
  int hold[2], ready[2];
  ASSERT_EQ(0, pipe(hold));
  ASSERT_EQ(0, pipe(ready));
  Child child([&] {
    Queue own;
    CHILD_CHECK(own.Open() == 0);
    static char buffer[8];
    CHILD_CHECK(own.Put(Recv(pair.ours.get(), buffer, 8, 1)));
    CHILD_CHECK(own.Submit(1) >= 0);
    pair.peer.Reset();
    const pid_t pid = fork();
    if (pid == 0) {
      pair.ours.Reset();
      close(hold[1]);
      char byte;
      CHILD_CHECK(write(ready[1], "x", 1) == 1);
      static_cast<void>(!read(hold[0], &byte, 1));
      _exit(0);
    }
  });
  ReadExactly(ready[0], 1);
  EXPECT_CHILD_OK(child);
  pair.ours.Reset();
  EXPECT_TRUE(AtEnd(pair.peer.get()));
  for (int fd : {hold[0], hold[1], ready[0], ready[1]}) close(fd);
}

TEST_F(NaioTest, AUnixSocketThatCarriesTheQueueIsNotHeld) {
  // A circle: the queue waits for the socket in which it lies.
  Pair pair = SocketPair(SOCK_STREAM);
  Queue own;
  ASSERT_EQ(0, own.Open());
  char buffer[8];
  ASSERT_TRUE(own.Put(Recv(pair.peer.get(), buffer, 8, 1)));
  ASSERT_GE(own.Submit(1), 0);
  SendDescriptor(pair.ours.get(), own.fd());
  // The bed notices if the module cannot be unloaded after this.
}

TEST_F(NaioTest, ClosedWithOperationsUnderWay) {
  // Nothing is written into the memory afterwards.
  for (int round = 0; round < 50; ++round) {
    Pair pair = TcpPair();
    char buffer[8] = "before";
    {
      Queue own;
      ASSERT_EQ(0, own.Open({16, 16, 0}));
      ASSERT_TRUE(own.Put(Recv(pair.ours.get(), buffer, 8, 1)));
      ASSERT_GE(own.Submit(1), 0);
    }
    Send(pair.peer.get(), "after");
    ASSERT_TRUE(WaitPoll(pair.ours.get(), POLLIN));
    EXPECT_STREQ("before", buffer);
  }
}

TEST_F(NaioTest, ExecEndsThem) {
  // The program that comes keeps the descriptor, and nothing can go on.
  Pair pair = TcpPair();
  int hold[2];
  ASSERT_EQ(0, pipe2(hold, O_CLOEXEC));
  Child child([&] {
    Queue own;
    CHILD_CHECK(own.Open() == 0);
    CHILD_CHECK(fcntl(own.fd(), F_SETFD, 0) == 0);
    static char buffer[8];
    CHILD_CHECK(own.Put(Recv(pair.ours.get(), buffer, 8, 1)));
    CHILD_CHECK(own.Submit(1) >= 0);
    CHILD_CHECK(dup2(hold[0], 0) == 0);
    execl("/bin/cat", "cat", nullptr);  // until we close the pipe
    CHILD_CHECK(false);
  });
  pair.ours.Reset();
  EXPECT_TRUE(AtEnd(pair.peer.get()));
  close(hold[1]);
  EXPECT_CHILD_OK(child);
  close(hold[0]);
}

TEST_F(NaioTest, ResultsThatNobodyReadsCountAsOperations) {
  if (geteuid() == 0) GTEST_SKIP() << "root's limit is high";
  Reopen({64, 64, 0});
  int64_t submitted = 0;
  uint32_t n = 1;
  for (; n > 0; submitted += n) {
    while (queue().Put(Operation(KEVENT_OP_RECV, -1, 7))) {
    }
    ASSERT_GE(queue().Submit(64, &n), 0);
    ASSERT_LT(submitted, 2'000'000) << "no limit";
  }
  EXPECT_GT(submitted, 1000);
  // None is lost, and there is room again.
  for (int64_t i = 0; i < submitted; ++i) {
    ASSERT_EQ(-EBADF, Next().result) << i;
  }
  ASSERT_GE(queue().Submit(64, &n), 0);
  EXPECT_EQ(64u, n);
  for (; n > 0; --n) ASSERT_EQ(-EBADF, Next().result);
}

// ---- For whom ----

class Passer {
 public:
  explicit Passer(int fd) : fd_(fd) {
    const int on = 1;
    EXPECT_EQ(0, setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
  }

  bool Read() {
    char buffer[1 << 16];
    iovec iov = {buffer, sizeof buffer};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))] = {};
    msghdr message = {};
    message.msg_iov = &iov;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t n = recvmsg(fd_, &message, MSG_DONTWAIT);
    if (n <= 0) return false;
    bytes_ += static_cast<size_t>(n);
    const cmsghdr* header = CMSG_FIRSTHDR(&message);
    ucred who = {};
    if (header) memcpy(&who, CMSG_DATA(header), sizeof who);
    EXPECT_EQ(getpid(), who.pid) << "behind byte " << bytes_;
    EXPECT_EQ(geteuid(), who.uid) << "behind byte " << bytes_;
    return true;
  }
  size_t bytes() const { return bytes_; }

 private:
  const int fd_;
  size_t bytes_ = 0;
};
// Reads a stream whose sender must be this process.

TEST_F(NaioTest, AUnixSocketTellsWhoHasSent) {
  // The rest goes out when the peer has read, not by a worker of the kernel.
  Pair pair = SocketPair(SOCK_STREAM);
  Passer peer(pair.peer.get());
  const std::string text = Content(2 << 20);
  Submit(SendOf(pair.ours.get(), text, 1));
  while (peer.Read()) {
  }
  EXPECT_GT(peer.bytes(), 0u);
  // A worker would be at it by now.
  pollfd more = {pair.peer.get(), POLLIN, 0};
  EXPECT_EQ(0, poll(&more, 1, 100));
  while (queue().Unread() == 0) {
    ASSERT_GE(queue().Wait(0, 0), 0);
    while (peer.Read()) {
    }
  }
  ExpectResult(1, static_cast<int64_t>(text.size()));
  while (peer.Read()) {
  }
  EXPECT_EQ(text.size(), peer.bytes());
}

bool WriteFile(const std::string& path, const std::string& text) {
  Fd file(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  return write(file.get(), text.data(), text.size()) ==
         static_cast<ssize_t>(text.size());
}

// What a reader of the kernel reads counts as read by who has asked for it.
TEST_F(NaioTest, ReadingIsLimitedByTheGroup) {
  if (getuid() != 0) GTEST_SKIP() << "groups need root";
  constexpr int64_t kRate = 4 << 20;  // bytes a second
  const std::string groups = TempFolder() + "/groups";
  struct stat disk;
  ASSERT_EQ(0, stat(TempFolder().c_str(), &disk));
  mkdir(groups.c_str(), 0755);
  if (mount("none", groups.c_str(), "cgroup2", 0, nullptr) != 0) {
    rmdir(groups.c_str());
    GTEST_SKIP() << "no groups: " << strerror(errno);
  }
  const std::string group = groups + "/slow";
  mkdir(group.c_str(), 0755);
  const std::string limit = std::to_string(major(disk.st_dev)) + ":" +
                            std::to_string(minor(disk.st_dev)) +
                            " rbps=" + std::to_string(kRate);
  ASSERT_TRUE(WriteFile(groups + "/cgroup.subtree_control", "+io"));
  const bool limited = WriteFile(group + "/io.max", limit);
  if (limited) {
    Child child([&] {
      if (!WriteFile(group + "/cgroup.procs", "0")) _exit(2);
      Queue own;
      if (own.Open() != 0) _exit(3);
      const std::string content = Content(3 * kRate);
      TestFile file(TempFolder(), content);
      file.MakeCold();
      Pair pair = TcpPair();
      const int64_t start = NowNs();
      own.Put(
          Sendfile(pair.ours.get(), file.fd(), 0, content.size(), nullptr, 1));
      own.Submit(1);
      // A worker sends, since nobody is in KEVENT_ENTER.
      if (ReadAll(pair.peer.get(), content.size()) != content) _exit(3);
      // It begins with some credit.
      _exit(NowNs() - start > 3 * kSecond / 2 ? 0 : 4);
    });
    const int status = child.Wait();
    EXPECT_TRUE(WIFEXITED(status)) << status;
    EXPECT_EQ(0, WEXITSTATUS(status)) << "2: group, 3: bytes, 4: too quick";
  }
  rmdir(group.c_str());
  umount(groups.c_str());
  rmdir(groups.c_str());
  if (!limited) GTEST_SKIP() << "no limits of reading on " << limit;
}

TEST_F(NaioTest, AUnixListenerTellsWhoHasConnected) {
  // Behind an operation that a worker ends.
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "kevent-%d",
           getpid());
  Fd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(0, bind(listener.get(), reinterpret_cast<sockaddr*>(&address),
                    sizeof address));
  ASSERT_EQ(0, listen(listener.get(), 1));
  TestFile file(TempFolder(), Content(1 << 20));
  file.MakeCold();
  Fd ours(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_TRUE(
      queue().Put(Sendfile(ours.get(), file.fd(), 0, 4096, nullptr, 1)));
  ASSERT_TRUE(queue().Put(Operation(KEVENT_OP_CONNECT, ours.get(), 2,
                                    Address(&address), sizeof address)));
  ASSERT_GE(queue().Submit(2), 0);
  // The call itself connects if the file was read as quickly as that.
  if (queue().Unread() == 0) {
    // A worker would be at it by now.
    pollfd connected = {listener.get(), POLLIN, 0};
    EXPECT_EQ(0, poll(&connected, 1, 100));
  }
  const kevent_entry first = Next();
  EXPECT_EQ(-ENOTCONN, first.result) << Describe(first);
  ExpectResult(2, 0);
  Fd theirs(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  ASSERT_TRUE(static_cast<bool>(theirs));
  ucred who = {};
  socklen_t length = sizeof who;
  ASSERT_EQ(0,
            getsockopt(theirs.get(), SOL_SOCKET, SO_PEERCRED, &who, &length));
  EXPECT_EQ(getpid(), who.pid);
  EXPECT_EQ(geteuid(), who.uid);
}

TEST_F(NaioTest, AFullUnixBacklogIsAnError) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "kevent-%d",
           getpid());
  Fd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(0, bind(listener.get(), reinterpret_cast<sockaddr*>(&address),
                    sizeof address));
  ASSERT_EQ(0, listen(listener.get(), 0));
  std::vector<Fd> connected;
  int64_t result = 0;
  while (result == 0 && connected.size() < 10) {
    connected.emplace_back(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    result = ResultOf(Operation(KEVENT_OP_CONNECT, connected.back().get(), 1,
                                Address(&address), sizeof address));
  }
  EXPECT_EQ(-EAGAIN, result);
}

// ---- Files that are not what they seem ----

TEST_F(NaioTest, AFileShorterThanItsSizeSays) {
  // Attributes in sysfs have the size of a page.
  const char* path = "/sys/kernel/uevent_seqnum";
  Fd file(open(path, O_RDONLY | O_CLOEXEC));
  if (!file) GTEST_SKIP() << path;
  char text[4096];
  const ssize_t size = pread(file.get(), text, sizeof text, 0);
  ASSERT_GT(size, 0);
  Pair pair = TcpPair();
  const std::string header = "<", trailer = ">";
  const kevent_parts parts = Parts(header, trailer);
  Submit(Sendfile(pair.ours.get(), file.get(), 0, 4096, &parts, 1));
  ExpectResult(1, 1 + size);
  pair.ours.Reset();
  EXPECT_EQ("<" + std::string(text, static_cast<size_t>(size)),
            ReadAll(pair.peer.get(), 4096));
}

TEST_F(NaioTest, AFileOpenedForDirectReads) {
  const std::string content = Content(100'001);
  TestFile file(TempFolder(), content);
  const std::string path = "/proc/self/fd/" + std::to_string(file.fd());
  Fd direct(open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
  if (!direct) GTEST_SKIP() << "no direct reads here";
  for (const bool cold : {true, false}) {
    if (cold) file.MakeCold();
    Pair pair = TcpPair();
    Submit(Sendfile(pair.ours.get(), direct.get(), 1, 100'000, nullptr, 1));
    EXPECT_EQ(content.substr(1), ReadAll(pair.peer.get(), 100'000));
    ExpectResult(1, 100'000);
  }
}

}  // namespace
}  // namespace kevent::raw
