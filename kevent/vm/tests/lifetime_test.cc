// SPDX-License-Identifier: Apache-2.0
//
// Descriptors, processes and address spaces that end while they are watched.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <array>
#include <atomic>
#include <random>
#include <thread>

#include "kevent/vm/tests/fixture.h"

namespace kevent::raw {
namespace {

#ifndef TCP_ULP
#define TCP_ULP 31
#endif

Fd TakeDescriptor(int socket) {
  char byte;
  iovec vector = {&byte, 1};
  int fd = -1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr message = {};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1) return Fd();
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header && header->cmsg_type == SCM_RIGHTS) {
    memcpy(&fd, CMSG_DATA(header), sizeof fd);
  }
  return Fd(fd);
}

// How often the module is held; -1 if that cannot be seen.
int References() {
  FILE* file = fopen("/sys/module/kevent/refcnt", "re");
  int count = -1;
  if (!file || fscanf(file, "%d", &count) != 1) count = -1;
  if (file) fclose(file);
  return count;
}

class LifetimeTest : public QueueTest {
 protected:
  void SetUp() override {
    signal(SIGPIPE, SIG_IGN);
    references_ = References();
    QueueTest::SetUp();
  }
  void TearDown() override {
    QueueTest::TearDown();
    // What was closed may be gone a moment later.
    const int64_t deadline = NowNs() + 5 * kSecond;
    while (References() != references_ && NowNs() < deadline) sched_yield();
    EXPECT_EQ(references_, References())
        << "the module is held once for each that holds it";
  }
  // The entry that tells of the close; others of the handle may come before.
  void ExpectBroken(uint64_t handle) {
    for (int i = 0; i < 20; ++i) {
      kevent_entry entry = Next();
      ASSERT_EQ(handle, entry.handle) << Describe(entry);
      if (!(entry.flags & KEVENT_ENTRY_BROKEN)) continue;
      EXPECT_TRUE(entry.flags & KEVENT_ENTRY_DONE) << Describe(entry);
      EXPECT_LT(entry.result, 0);
      EXPECT_EQ(-ENOENT, queue().Remove(handle));
      return;
    }
    FAIL() << "not broken";
  }

 private:
  int references_ = -1;
};

// ---- close(2) ----

TEST_F(LifetimeTest, CloseOfAConnectionEndsItAtBothEnds) {
  for (int family : {AF_INET, AF_INET6, AF_UNIX}) {
    for (uint16_t flags :
         {0, KEVENT_EDGE, KEVENT_ONESHOT, KEVENT_DISPATCH, KEVENT_DISABLED}) {
      Pair pair = family == AF_UNIX ? SocketPair(SOCK_STREAM) : TcpPair(family);
      const uint64_t handle =
          MustAdd(AddSocket(pair.ours.get(), KEVENT_SOCKET_RECV, flags, 8));
      pair.ours.Reset();
      EXPECT_TRUE(AtEnd(pair.peer.get())) << family << " " << flags;
      ExpectBroken(handle);
      ExpectNothing();
    }
  }
}

TEST_F(LifetimeTest, CloseWithItsEntryUnread) {
  Pair pair = TcpPair();
  const uint64_t handle = MustAdd(AddSocket(pair.ours.get(), KEVENT_IN));
  Send(pair.peer.get(), "x");
  ASSERT_TRUE(WaitPoll(queue().fd(), POLLIN));
  pair.ours.Reset();
  EXPECT_TRUE(AtEnd(pair.peer.get()));
  ExpectBroken(handle);
  ExpectNothing();
}

TEST_F(LifetimeTest, CloseOfDatagramSockets) {
  for (int family : {AF_INET, AF_INET6, AF_UNIX}) {
    Fd fd(socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const uint64_t handle = MustAdd(AddSocket(fd.get(), KEVENT_IN));
    fd.Reset();
    ExpectBroken(handle);
  }
}

TEST_F(LifetimeTest, CloseOfTheLastDuplicateCounts) {
  Pair pair = TcpPair();
  Fd copy(dup(pair.ours.get()));
  const uint64_t handle = MustAdd(AddSocket(pair.ours.get(), KEVENT_IN));
  pair.ours.Reset();
  ExpectNothing();
  // The interest is in what is open, not in the descriptor's number.
  Send(pair.peer.get(), "x");
  Expect(handle, KEVENT_IN);
  Drain(copy.get());
  ExpectNothing();
  copy.Reset();
  EXPECT_TRUE(AtEnd(pair.peer.get()));
  ExpectBroken(handle);
}

TEST_F(LifetimeTest, AChildHoldsItOpen) {
  Pair pair = TcpPair();
  Pair gate = PipePair();
  const uint64_t handle = MustAdd(AddSocket(pair.ours.get(), KEVENT_IN));
  Child child([&] {
    gate.peer.Reset();
    char byte;
    CHILD_CHECK(read(gate.ours.get(), &byte, 1) == 0);
  });
  pair.ours.Reset();
  Send(pair.peer.get(), "x");
  Expect(handle, KEVENT_IN);
  gate.peer.Reset();
  EXPECT_CHILD_OK(child);
  EXPECT_TRUE(AtEnd(pair.peer.get()));
  ExpectBroken(handle);
}

TEST_F(LifetimeTest, CloseOfAListenerRefuses) {
  for (int family : {AF_INET, AF_INET6}) {
    Fd listener = Listen(family);
    sockaddr_storage address;
    socklen_t length = sizeof address;
    ASSERT_EQ(0, getsockname(listener.get(),
                             reinterpret_cast<sockaddr*>(&address), &length));
    const uint64_t handle =
        MustAdd(AddSocket(listener.get(), KEVENT_SOCKET_ACCEPT));
    Fd client = ConnectTo(listener);
    Expect(handle, KEVENT_IN);
    Fd accepted(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    ASSERT_TRUE(accepted);
    listener.Reset();
    Fd late(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(
        -1, connect(late.get(), reinterpret_cast<sockaddr*>(&address), length));
    EXPECT_EQ(ECONNREFUSED, errno);
    // What was accepted from it lives on.
    Send(client.get(), "x");
    ReadExactly(accepted.get(), 1);
    // It ends silently; whether it is still known is nobody's concern.
    const int r = queue().Remove(handle);
    EXPECT_TRUE(r == 0 || r == -ENOENT) << r;
    kevent_entry entry;
    queue().Look();
    while (queue().Unread() > 0) {
      entry = Next();
      EXPECT_EQ(handle, entry.handle);
    }
    ExpectNothing();
  }
}

TEST_F(LifetimeTest, ConnectionsOfAWatchedListenerAreOrdinary) {
  Fd listener = Listen();
  MustAdd(AddSocket(listener.get(), KEVENT_SOCKET_ACCEPT, KEVENT_EDGE));
  for (int i = 0; i < 20; ++i) {
    Fd client = ConnectTo(listener);
    Fd accepted(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    ASSERT_TRUE(accepted);
    kevent_sqe add = AddSocket(accepted.get(), KEVENT_IN);
    ASSERT_EQ(0, queue().Make(&add));
    for (bool seen = false; !seen;) {
      Send(client.get(), "x");
      kevent_entry entry = Next();
      ASSERT_NE(kNoHandle, entry.handle);
      seen = entry.handle == add.handle;
    }
    accepted.Reset();
    EXPECT_TRUE(AtEnd(client.get()));
    for (;;) {
      kevent_entry entry = Next();
      ASSERT_NE(kNoHandle, entry.handle);
      if (entry.handle == add.handle && entry.flags & KEVENT_ENTRY_BROKEN) {
        break;
      }
    }
  }
}

TEST_F(LifetimeTest, ASocketThatBecomesAListenerWhileWatched) {
  Fd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(0, bind(listener.get(), reinterpret_cast<sockaddr*>(&address),
                    sizeof address));
  kevent_sqe add = AddSocket(listener.get(), KEVENT_IN, KEVENT_EDGE);
  ASSERT_GE(queue().Make(&add), 0);
  ASSERT_EQ(0, listen(listener.get(), 8));
  Fd client = ConnectTo(listener);
  for (;;) {
    kevent_entry entry = Next();
    ASSERT_EQ(add.handle, entry.handle);
    if (entry.events & KEVENT_IN) break;
  }
  Fd accepted(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  ASSERT_TRUE(accepted);
  listener.Reset();
  queue().Close();
  Send(client.get(), "x");
  ReadExactly(accepted.get(), 1);
  accepted.Reset();
  EXPECT_TRUE(AtEnd(client.get()));
}

TEST_F(LifetimeTest, AReusedNumberHasNoEventsOfTheOldHandle) {
  for (int round = 0; round < 10; ++round) {
    Pair pair = TcpPair();
    const int number = pair.ours.get();
    const uint64_t old = MustAdd(AddSocket(number, KEVENT_IN, KEVENT_EDGE, 1));
    pair.ours.Reset();
    ExpectBroken(old);
    Pair next = TcpPair();
    Fd same(dup2(next.ours.get(), number));
    ASSERT_EQ(number, same.get());
    Send(next.peer.get(), "x");
    ASSERT_TRUE(WaitPoll(number, POLLIN));
    ExpectNothing();
    kevent_sqe add = AddSocket(number, KEVENT_IN, KEVENT_EDGE, 2);
    ASSERT_EQ(KEVENT_READY, queue().Make(&add));
    EXPECT_NE(old, add.handle);
    EXPECT_EQ(0, queue().Remove(add.handle));
  }
}

TEST_F(LifetimeTest, OtherFilesStayOpenUntilRemove) {
  Pair pipe = PipePair();
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  Fd copy(dup(fd));
  const uint64_t event = MustAdd(AddPoll(fd, KEVENT_IN, KEVENT_EDGE));
  const uint64_t reading = MustAdd(AddPoll(pipe.ours.get(), KEVENT_IN));
  close(fd);
  pipe.ours.Reset();
  ASSERT_EQ(0, eventfd_write(copy.get(), 1));
  Expect(event, KEVENT_IN);
  EXPECT_EQ(1, write(pipe.peer.get(), "x", 1)) << "the interest reads on";
  Expect(reading, KEVENT_IN);
  EXPECT_EQ(0, queue().Remove(reading));
  // The last reference may go a moment after the call.
  EXPECT_TRUE(WaitPoll(pipe.peer.get(), POLLERR));
  EXPECT_EQ(-1, write(pipe.peer.get(), "x", 1));
  EXPECT_EQ(EPIPE, errno);
  EXPECT_EQ(0, queue().Remove(event));
}

TEST_F(LifetimeTest, TheQueueEndsWithItsLastDescriptor) {
  Pair pipe = PipePair();
  {
    Queue own;
    ASSERT_EQ(0, own.Open());
    kevent_sqe add = AddPoll(pipe.ours.get(), KEVENT_IN);
    ASSERT_EQ(0, own.Make(&add));
    pipe.ours.Reset();
    EXPECT_EQ(1, write(pipe.peer.get(), "x", 1));
    Fd copy(dup(own.fd()));
    own.Close();
    EXPECT_EQ(1, write(pipe.peer.get(), "x", 1));
  }
  EXPECT_TRUE(WaitPoll(pipe.peer.get(), POLLERR));
}

TEST_F(LifetimeTest, ClosedWhileAThreadWaits) {
  for (int round = 0; round < 20; ++round) {
    Queue own;
    ASSERT_EQ(0, own.Open());
    kevent_sqe user = AddUser();
    ASSERT_EQ(0, own.Make(&user));
    const int fd = own.fd();
    Fd copy(dup(fd));
    std::thread waiter([fd] {
      kevent_enter enter = MakeEnter();
      enter.min = 1;
      // It finds the queue, or nothing any more.
      const int r = ioctl(fd, KEVENT_ENTER, &enter);
      EXPECT_TRUE(r == 1 || errno == EBADF) << strerror(errno);
    });
    if (round % 2) sched_yield();
    close(own.ReleaseFd());
    kevent_sqe ready = Change(KEVENT_OP_READY, user.handle);
    kevent_control control = {};
    control.size = sizeof control;
    control.count = 1;
    control.changes = reinterpret_cast<uintptr_t>(&ready);
    EXPECT_EQ(1, ioctl(copy.get(), KEVENT_CONTROL, &control));
    waiter.join();
  }
}

TEST_F(LifetimeTest, ClosedWhileItIsRemoved) {
  // The last close(2) in one thread, the end of its interests in another.
  for (int round = 0; round < 500; ++round) {
    Pair pair;
    switch (round % 3) {
      case 0:
        pair = TcpPair();
        break;
      case 1:
        pair = SocketPair(SOCK_STREAM);
        break;
      default:
        pair = TcpPair(AF_INET6);
    }
    const int fds[2] = {pair.ours.Release(), pair.peer.Release()};
    std::array<kevent_sqe, 4> adds = {
        AddSocket(fds[0], KEVENT_IN), AddSocket(fds[1], KEVENT_IN),
        AddSocket(fds[0], KEVENT_IN | KEVENT_OUT, KEVENT_EDGE),
        AddSocket(fds[1], KEVENT_RDHUP, KEVENT_ONESHOT)};
    ASSERT_EQ(4, queue().Control(adds));
    std::atomic<bool> go = false;
    std::thread closer([&] {
      while (!go) {
      }
      close(fds[0]);
      close(fds[1]);
    });
    go = true;
    for (const kevent_sqe& add : adds) {
      const int r = queue().Remove(add.handle);
      EXPECT_TRUE(r == 0 || r == -ENOENT) << r;
    }
    closer.join();
    kevent_entry entry;
    while (queue().Take(&entry)) {
    }
  }
}

TEST_F(LifetimeTest, AddedWhileItIsClosed) {
  for (int round = 0; round < 500; ++round) {
    Pair pair = round % 2 ? TcpPair() : SocketPair(SOCK_STREAM);
    const int fd = pair.ours.Release();
    std::atomic<bool> go = false;
    std::thread closer([&] {
      while (!go) {
      }
      close(fd);
    });
    go = true;
    kevent_sqe add = AddSocket(fd, KEVENT_IN, KEVENT_EDGE);
    const int r = queue().Make(&add);
    EXPECT_TRUE(r == 0 || r == -EBADF || r == KEVENT_READY) << r;
    closer.join();
    EXPECT_TRUE(AtEnd(pair.peer.get()));
    kevent_entry entry;
    while (queue().Take(&entry)) {
    }
    queue().Remove(add.handle);
  }
}

TEST_F(LifetimeTest, ASocketThatChangesItsFamily) {
  for (int type : {SOCK_STREAM, SOCK_DGRAM}) {
    // A socket of IPv6 that speaks to one of IPv4 may become one.
    sockaddr_in6 address = {};
    address.sin6_family = AF_INET6;
    ASSERT_EQ(1, inet_pton(AF_INET6, "::ffff:127.0.0.1", &address.sin6_addr));
    Fd listener;
    if (type == SOCK_STREAM) {
      listener = Listen(AF_INET);
    } else {
      listener = Fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
      sockaddr_in any = {};
      any.sin_family = AF_INET;
      ASSERT_EQ(0, bind(listener.get(), reinterpret_cast<sockaddr*>(&any),
                        sizeof any));
    }
    sockaddr_in bound;
    socklen_t length = sizeof bound;
    ASSERT_EQ(0, getsockname(listener.get(),
                             reinterpret_cast<sockaddr*>(&bound), &length));
    address.sin6_port = bound.sin_port;
    Fd fd(socket(AF_INET6, type | SOCK_CLOEXEC, 0));
    ASSERT_EQ(0, connect(fd.get(), reinterpret_cast<sockaddr*>(&address),
                         sizeof address))
        << strerror(errno);
    const uint64_t handle = MustAdd(AddSocket(fd.get(), KEVENT_IN));
    const int family = AF_INET;
    if (setsockopt(fd.get(), IPPROTO_IPV6, IPV6_ADDRFORM, &family,
                   sizeof family) != 0) {
      GTEST_SKIP() << "IPV6_ADDRFORM: " << strerror(errno);
    }
    fd.Reset();
    if (type == SOCK_STREAM) {
      Fd accepted(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
      EXPECT_TRUE(AtEnd(accepted.get()));
    }
    const int r = queue().Remove(handle);
    EXPECT_TRUE(r == 0 || r == -ENOENT) << r;
    kevent_entry entry;
    while (queue().Take(&entry)) {
    }
  }
}

// ---- Processes ----

TEST_F(LifetimeTest, AChildOfForkHasNoQueue) {
  Pair pipe = PipePair();
  const uint64_t handle = MustAdd(AddPoll(pipe.ours.get(), KEVENT_IN));
  Fd bare(OpenDevice());
  Child child([&] {
    kevent_sqe nop = Change(KEVENT_OP_NOP);
    CHILD_CHECK(queue().Control({&nop, 1}) == -EXDEV);
    CHILD_CHECK(queue().Look() == -EXDEV);
    kevent_setup setup = MakeSetup();
    CHILD_CHECK(ioctl(bare.get(), KEVENT_SETUP, &setup) == -1);
    CHILD_CHECK(errno == EXDEV);
    // Nor its rings, old or new.
    CHILD_CHECK(msync(queue().ring(), queue().ring_bytes(), MS_ASYNC) == -1);
    CHILD_CHECK(errno == ENOMEM);
    CHILD_CHECK(mmap(nullptr, queue().ring_bytes(), PROT_READ | PROT_WRITE,
                     MAP_SHARED, queue().fd(), 0) == MAP_FAILED);
    pollfd p = {queue().fd(), POLLIN, 0};
    CHILD_CHECK(poll(&p, 1, 0) >= 0);
    Queue own;
    CHILD_CHECK(own.Open() == 0);
    kevent_sqe user = AddUser();
    CHILD_CHECK(own.Make(&user) == 0);
  });
  EXPECT_CHILD_OK(child);
  Send(pipe.peer.get(), "x");
  Expect(handle, KEVENT_IN);
}

TEST_F(LifetimeTest, AChildKeepsTheDescriptorAlone) {
  Pair gate = PipePair();
  Pair pipe = PipePair();
  Queue own;
  ASSERT_EQ(0, own.Open());
  kevent_sqe add = AddPoll(pipe.ours.get(), KEVENT_IN, KEVENT_EDGE);
  ASSERT_EQ(0, own.Make(&add));
  Child child([&] {
    gate.peer.Reset();
    char byte;
    CHILD_CHECK(read(gate.ours.get(), &byte, 1) == 0);
  });
  own.Close();
  // Its interests live, without a process that could read of them.
  for (int i = 0; i < 10; ++i) Send(pipe.peer.get(), "x");
  gate.peer.Reset();
  EXPECT_CHILD_OK(child);
  Send(pipe.peer.get(), "x");
}

TEST_F(LifetimeTest, ATaskThatSharesTheMemoryMayUseIt) {
  // As vfork(2) and CLONE_VM make them.
  const uint64_t user = MustAdd(AddUser());
  const pid_t child = vfork();
  if (child == 0) {
    kevent_sqe ready = Change(KEVENT_OP_READY, user);
    kevent_control control = {};
    control.size = sizeof control;
    control.count = 1;
    control.changes = reinterpret_cast<uintptr_t>(&ready);
    _exit(syscall(SYS_ioctl, queue().fd(), KEVENT_CONTROL, &control) == 1 ? 0
                                                                          : 1);
  }
  int status = -1;
  ASSERT_EQ(child, waitpid(child, &status, 0));
  EXPECT_EQ(0, status);
  Expect(user, 0);
}

TEST_F(LifetimeTest, ADescriptorTableOfItsOwn) {
  const uint64_t user = MustAdd(AddUser());
  Pair tcp = TcpPair();
  const uint64_t handle = MustAdd(AddSocket(tcp.ours.get(), KEVENT_IN));
  std::thread other([&] {
    ASSERT_EQ(0, unshare(CLONE_FILES));
    // Of the same memory: it may, by its own descriptor.
    EXPECT_EQ(0, queue().Ready(user, 3));
    EXPECT_EQ(0, close(tcp.ours.get()));
    EXPECT_EQ(0, close(tcp.peer.get()));
  });
  other.join();
  EXPECT_EQ(3u, Expect(user, 0).data[0]);
  // Closed there is not closed here.
  ExpectNothing();
  Send(tcp.peer.get(), "x");
  Expect(handle, KEVENT_IN);
}

TEST_F(LifetimeTest, ExecLeavesTheQueueBehind) {
  const int fd = queue().fd();
  ASSERT_EQ(0, fcntl(fd, F_SETFD, 0));
  Child child([fd] {
    // A queue of its own, which has another address space after exec.
    Queue own;
    CHILD_CHECK(own.Open() == 0);
    CHILD_CHECK(fcntl(own.fd(), F_SETFD, 0) == 0);
    for (int i = 0; i < 10; ++i) {
      kevent_sqe add = AddTimer(kMs, kMs);
      CHILD_CHECK(own.Make(&add) == 0);
    }
    const std::string inherited = std::to_string(fd);
    const std::string ours = std::to_string(own.fd());
    execl("/proc/self/exe", "lifetime_test", "exec-child", inherited.c_str(),
          ours.c_str(), nullptr);
    CHILD_CHECK(false);
  });
  EXPECT_CHILD_OK(child);
  MustAdd(AddUser());
}

TEST_F(LifetimeTest, ExitWithManyInterests) {
  Child child([] {
    Queue own;
    CHILD_CHECK(own.Open({64, 64, 0}) == 0);
    Pair tcp = TcpPair();
    Pair pipe = PipePair();
    std::vector<kevent_sqe> adds;
    for (int i = 0; i < 10'000; ++i) {
      switch (i % 5) {
        case 0:
          adds.push_back(AddTimer(kMs + i, 10 * kMs));
          break;
        case 1:
          adds.push_back(AddUser());
          break;
        case 2:
          adds.push_back(AddSocket(tcp.ours.get(), KEVENT_IN));
          break;
        case 3:
          adds.push_back(AddPoll(pipe.ours.get(), KEVENT_IN));
          break;
        case 4:
          adds.push_back(AddTimer(3600 * kSecond));
          break;
      }
    }
    CHILD_CHECK(own.Control(adds) == 10'000);
    for (const kevent_sqe& add : adds) CHILD_CHECK(add.result == 0);
    CHILD_CHECK(write(tcp.peer.get(), "x", 1) == 1);
    CHILD_CHECK(write(pipe.peer.get(), "x", 1) == 1);
    own.Forget();
  });
  EXPECT_CHILD_OK(child);
}

// What the children that are killed do: everything, until then.
void RunWild(uint32_t seed, int report) {
  std::mt19937 random(seed);
  auto queue = std::make_unique<Queue>();
  CHILD_CHECK(queue->Open({16, 16, 0}) == 0);
  std::vector<std::thread> threads;
  std::atomic<uint32_t> turns = 0;
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR1);
  CHILD_CHECK(pthread_sigmask(SIG_BLOCK, &mask, nullptr) == 0);
  auto body = [&](uint32_t own_seed) {
    std::mt19937 own(own_seed);
    std::vector<uint64_t> handles;
    for (;;) {
      Pair pair = own() % 2 ? TcpPair() : PipePair();
      std::array<kevent_sqe, 4> adds = {
          AddPoll(pair.ours.get(), KEVENT_IN, own() % 2 ? KEVENT_EDGE : 0),
          AddTimer(own() % kMs, own() % 2 ? kMs : 0),
          AddUser(own() % 2 ? KEVENT_ONESHOT : 0), AddSignal(SIGUSR1)};
      queue->Control(adds);
      for (const kevent_sqe& add : adds) {
        if (add.result >= 0) handles.push_back(add.handle);
      }
      if (write(pair.peer.get(), "x", 1) != 1) continue;
      queue->Ready(adds[2].handle);
      if (own() % 4 == 0) kill(getpid(), SIGUSR1);
      kevent_entry entries[8];
      queue->Copy(entries, own() % 3, own() % kMs);
      while (handles.size() > 20) {
        const size_t i = own() % handles.size();
        queue->Remove(handles[i]);
        handles[i] = handles.back();
        handles.pop_back();
      }
      if (++turns == 5) {
        char byte = 'g';
        if (write(report, &byte, 1) != 1) _exit(98);
      }
      if (own() % 64 == 0) {
        Child grandchild([] {});
        grandchild.Wait();
      }
    }
  };
  for (int i = 0; i < 3; ++i) threads.emplace_back(body, random());
  for (std::thread& thread : threads) thread.join();
}

TEST_F(LifetimeTest, KilledAtRandomPoints) {
  std::mt19937 random(Seed());
  const int64_t end = NowNs() + (Full() ? 60 : 6) * kSecond;
  int killed = 0;
  while (NowNs() < end || killed < 5) {
    Pair report = PipePair();
    Child child([&] { RunWild(random(), report.peer.get()); });
    random.discard(1);
    report.peer.Reset();
    if (random() % 4) {
      ReadExactly(report.ours.get(), 1);  // it works by now
      for (uint32_t i = random() % 3000; i > 0; --i) sched_yield();
    }
    child.Kill(SIGKILL);
    const int status = child.Wait();
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        << "status " << status;
    ++killed;
  }
  printf("%d children killed\n", killed);
}

// ---- A queue sent over the socket that it watches ----

TEST_F(LifetimeTest, AQueueInItsOwnSocket) {
  for (int type : {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET}) {
    Pair pair = SocketPair(type);
    Pair witness = PipePair();
    Queue own;
    ASSERT_EQ(0, own.Open());
    for (int fd : {pair.ours.get(), pair.peer.get()}) {
      kevent_sqe add = AddSocket(fd, KEVENT_IN);
      ASSERT_EQ(0, own.Make(&add));
    }
    // The queue holds this end open, so its writer sees when the queue is gone.
    kevent_sqe add = AddPoll(witness.ours.get(), KEVENT_IN);
    ASSERT_EQ(0, own.Make(&add));
    witness.ours.Reset();
    SendDescriptor(pair.peer.get(), own.fd());
    SendDescriptor(pair.ours.get(), own.fd());
    own.Close();
    EXPECT_EQ(0, PollNow(witness.peer.get(), POLLERR));
    pair.ours.Reset();
    pair.peer.Reset();
    // The collector of AF_UNIX sockets runs when one is closed.
    const int64_t deadline = NowNs() + PatienceNs();
    while (!(PollNow(witness.peer.get(), POLLERR) & POLLERR) &&
           NowNs() < deadline) {
      SocketPair(SOCK_STREAM);
    }
    EXPECT_TRUE(PollNow(witness.peer.get(), POLLERR) & POLLERR)
        << "the queue is still there, and nobody can reach it";
  }
}

TEST_F(LifetimeTest, AQueueSentToAnotherProcess) {
  Pair pair = SocketPair(SOCK_STREAM);
  const uint64_t user = MustAdd(AddUser());
  Child child([&] {
    Fd fd = TakeDescriptor(pair.peer.get());
    CHILD_CHECK(fd);
    kevent_enter enter = MakeEnter();
    CHILD_CHECK(ioctl(fd.get(), KEVENT_ENTER, &enter) == -1);
    CHILD_CHECK(errno == EXDEV);
  });
  SendDescriptor(pair.ours.get(), queue().fd());
  EXPECT_CHILD_OK(child);
  EXPECT_EQ(0, queue().Ready(user));
  Expect(user, 0);
}

TEST_F(LifetimeTest, TheOwnerDiesAndItsQueueLivesOn) {
  const uint64_t seed = Seed();
  for (int round = 0; round < 10; ++round) {
    Pair pair = SocketPair(SOCK_STREAM);
    Pair tcp = TcpPair();
    Child child([&] {
      sigset_t mask;
      sigemptyset(&mask);
      sigaddset(&mask, SIGUSR1);
      CHILD_CHECK(pthread_sigmask(SIG_BLOCK, &mask, nullptr) == 0);
      Queue own;
      CHILD_CHECK(own.Open() == 0);
      // Both sit in a wait queue that dies with the process (POLLFREE).
      Fd signals(signalfd(-1, &mask, SFD_CLOEXEC));
      std::array<kevent_sqe, 5> adds = {
          AddPoll(signals.get(), KEVENT_IN), AddSignal(SIGUSR1),
          AddSocket(tcp.ours.get(), KEVENT_IN), AddTimer(kMs, kMs), AddUser()};
      CHILD_CHECK(own.Control(adds) == 5);
      for (const kevent_sqe& add : adds) CHILD_CHECK(add.result == 0);
      SendDescriptor(pair.peer.get(), own.fd());
      if ((seed + static_cast<uint64_t>(round)) % 2) kill(getpid(), SIGKILL);
      own.Forget();
    });
    Fd orphan = TakeDescriptor(pair.ours.get());
    ASSERT_TRUE(orphan);
    child.Wait();
    kevent_enter enter = MakeEnter();
    EXPECT_EQ(-1, ioctl(orphan.get(), KEVENT_ENTER, &enter));
    EXPECT_EQ(EXDEV, errno);
    Send(tcp.peer.get(), "x");
    EXPECT_GE(PollNow(orphan.get(), POLLIN), 0);
    tcp.ours.Reset();
    EXPECT_TRUE(AtEnd(tcp.peer.get()));
    orphan.Reset();
  }
}

TEST_F(LifetimeTest, ASignalfdOfAThreadThatExecs) {
  // exec gives the process a new table of handlers while the old one's wait
  // queue is watched, by a queue that another process holds.
  Pair pair = SocketPair(SOCK_STREAM);
  Child child([&] {
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &mask, nullptr);
    Queue own;
    CHILD_CHECK(own.Open() == 0);
    Fd signals(signalfd(-1, &mask, 0));
    kevent_sqe add = AddPoll(signals.get(), KEVENT_IN);
    CHILD_CHECK(own.Make(&add) == 0);
    add = AddSignal(SIGUSR1);
    CHILD_CHECK(own.Make(&add) == 0);
    SendDescriptor(pair.peer.get(), own.fd());
    execl("/proc/self/exe", "lifetime_test", "exec-child", nullptr);
    CHILD_CHECK(false);
  });
  Fd orphan = TakeDescriptor(pair.ours.get());
  ASSERT_TRUE(orphan);
  EXPECT_CHILD_OK(child);
  orphan.Reset();
}

// ---- Namespaces ----

TEST_F(LifetimeTest, ANetworkThatEnds) {
  if (getuid() != 0) GTEST_SKIP() << "a network namespace needs root";
  Fd fd;
  std::thread other([&] {
    if (unshare(CLONE_NEWNET) != 0) return;
    fd = Fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  });
  other.join();
  if (!fd) GTEST_SKIP() << "no network namespaces";
  const uint64_t handle = MustAdd(AddSocket(fd.get(), KEVENT_IN));
  fd.Reset();  // the last thing of that network
  ExpectBroken(handle);
}

// ---- kTLS ----

// Gives `fd` the upper layer "tls"; false if this kernel has none.
bool SetUlp(int fd) {
  return setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof "tls") == 0;
}

bool SetKeys(int fd, int direction) {
  tls12_crypto_info_aes_gcm_128 keys = {};
  keys.info.version = TLS_1_2_VERSION;
  keys.info.cipher_type = TLS_CIPHER_AES_GCM_128;
  memset(keys.key, 7, sizeof keys.key);
  return setsockopt(fd, SOL_TLS, direction, &keys, sizeof keys) == 0;
}

class TlsTest : public LifetimeTest, public testing::WithParamInterface<int> {
 protected:
  // Data through `pair` by kTLS, if the kernel has the cipher.
  void Use(Pair* pair, uint64_t handle) {
    if (!SetKeys(pair->peer.get(), TLS_TX) ||
        !SetKeys(pair->ours.get(), TLS_RX) ||
        !SetKeys(pair->ours.get(), TLS_TX)) {
      printf("no cipher for kTLS\n");
      return;
    }
    Send(pair->peer.get(), "hello");
    Expect(handle, KEVENT_IN);
    char text[8];
    ASSERT_EQ(5, read(pair->ours.get(), text, sizeof text));
    EXPECT_EQ(0, memcmp(text, "hello", 5));
  }
};

INSTANTIATE_TEST_SUITE_P(Families, TlsTest, testing::Values(AF_INET, AF_INET6),
                         [](const auto& info) {
                           return std::string(info.param == AF_INET ? "v4"
                                                                    : "v6");
                         });

// First a watched socket: the kernel may make its tables of what it finds
// there.
TEST_P(TlsTest, OnAWatchedSocketThatIsClosed) {
  Pair pair = TcpPair(GetParam());
  const uint64_t handle = MustAdd(AddSocket(pair.ours.get(), KEVENT_IN));
  if (!SetUlp(pair.ours.get())) GTEST_SKIP() << "no kTLS: " << strerror(errno);
  ASSERT_TRUE(SetUlp(pair.peer.get()));
  Use(&pair, handle);
  pair.ours.Reset();
  EXPECT_TRUE(AtEnd(pair.peer.get()));
  const int r = queue().Remove(handle);
  EXPECT_TRUE(r == 0 || r == -ENOENT) << r;
}

TEST_P(TlsTest, OnAnUnwatchedSocketAfterwards) {
  Pair pair = TcpPair(GetParam());
  if (!SetUlp(pair.ours.get())) GTEST_SKIP() << "no kTLS: " << strerror(errno);
  pair.ours.Reset();
  EXPECT_TRUE(AtEnd(pair.peer.get()));
}

TEST_P(TlsTest, OnASocketThatWasWatched) {
  Pair pair = TcpPair(GetParam());
  const uint64_t handle = MustAdd(AddSocket(pair.ours.get(), KEVENT_IN));
  EXPECT_EQ(0, queue().Remove(handle));
  if (!SetUlp(pair.ours.get())) GTEST_SKIP() << "no kTLS: " << strerror(errno);
  pair.ours.Reset();
  EXPECT_TRUE(AtEnd(pair.peer.get()));
}

TEST_P(TlsTest, WatchedAfterwards) {
  Pair pair = TcpPair(GetParam());
  if (!SetUlp(pair.ours.get())) GTEST_SKIP() << "no kTLS: " << strerror(errno);
  ASSERT_TRUE(SetUlp(pair.peer.get()));
  const uint64_t handle = MustAdd(AddSocket(pair.ours.get(), KEVENT_IN));
  Use(&pair, handle);
  pair.ours.Reset();
  EXPECT_TRUE(AtEnd(pair.peer.get()));
  const int r = queue().Remove(handle);
  EXPECT_TRUE(r == 0 || r == -ENOENT) << r;
}

TEST_P(TlsTest, TheQueueEndsFirst) {
  Pair pair = TcpPair(GetParam());
  MustAdd(AddSocket(pair.ours.get(), KEVENT_IN));
  if (!SetUlp(pair.ours.get())) GTEST_SKIP() << "no kTLS: " << strerror(errno);
  queue().Close();
  pair.ours.Reset();
  EXPECT_TRUE(AtEnd(pair.peer.get()));
}

// After exec: the descriptors in the arguments are queues of other memory.
int ExecChild(int argc, char** argv) {
  for (int i = 2; i < argc; ++i) {
    const int fd = atoi(argv[i]);
    kevent_enter enter = MakeEnter();
    CHILD_CHECK(ioctl(fd, KEVENT_ENTER, &enter) == -1 && errno == EXDEV);
    kevent_setup setup = MakeSetup();
    CHILD_CHECK(ioctl(fd, KEVENT_SETUP, &setup) == -1 && errno == EXDEV);
    CHILD_CHECK(mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0) ==
                MAP_FAILED);
  }
  Queue own;
  CHILD_CHECK(own.Open() == 0);
  return 0;
}

}  // namespace
}  // namespace kevent::raw

int main(int argc, char** argv) {
  if (argc > 1 && !strcmp(argv[1], "exec-child")) {
    return kevent::raw::ExecChild(argc, argv);
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
