// SPDX-License-Identifier: Apache-2.0
//
// accept that brings the first bytes with the connection (KEVENT_ACCEPT_RECV).
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "kevent/vm/tests/naio_fixture.h"

namespace kevent::raw {
namespace {

class AcceptRecvTest : public NaioTest,
                       public testing::WithParamInterface<Pool> {
 protected:
  static constexpr uint32_t kBuffers = 8;
  // A buffer is a page, so that one may be taken away.
  void SetUp() override {
    NaioTest::SetUp();
    void* map = mmap(nullptr, kBuffers * kPage, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(MAP_FAILED, map);
    memory_ = static_cast<char*>(map);
    Register();
    listener_ = Listen();
  }
  void TearDown() override {
    NaioTest::TearDown();
    munmap(memory_, kBuffers * kPage);
  }
  void Register() {
    kevent_register g =
        PoolOf(GetParam(), memory_, kBuffers * kPage, kPage, &ring_);
    ASSERT_EQ(0, Ioctl(queue().fd(), KEVENT_REGISTER, &g));
    id_ = g.id;
  }
  void Provide(uint16_t id) {
    ring_.id[ring_.tail % kBuffers] = id;
    __atomic_store_n(&ring_.tail, ring_.tail + 1, __ATOMIC_RELEASE);
  }
  kevent_sqe Accept(int listener, uint16_t flags = 0) {
    kevent_sqe sqe = Operation(KEVENT_OP_ACCEPT, listener, 1,
                               SOCK_CLOEXEC | SOCK_NONBLOCK, id_);
    sqe.events = KEVENT_ACCEPT_RECV;
    sqe.flags = flags;
    return sqe;
  }
  // A connection whose bytes, and its end if `ends`, have arrived.
  Fd Client(const std::string& text, bool ends = false) {
    Fd peer = ConnectTo(listener_);
    if (!text.empty()) Send(peer.get(), text);
    if (ends) shutdown(peer.get(), SHUT_WR);
    if (!text.empty() || ends) AwaitAcknowledged(peer.get());
    return peer;
  }
  static void AwaitAcknowledged(int fd) {
    const int64_t end = NowNs() + PatienceNs();
    for (;;) {
      tcp_info info = {};
      socklen_t length = sizeof info;
      ASSERT_EQ(0, getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length));
      if (info.tcpi_unacked == 0) return;
      ASSERT_LT(NowNs(), end);
    }
  }
  // The connection of `entry`, with what it has brought.
  Fd Take(const kevent_entry& entry, const std::string& text) {
    EXPECT_EQ(1u, entry.user_data) << Describe(entry);
    EXPECT_GE(entry.result, 0) << Describe(entry);
    EXPECT_EQ(!text.empty(), (entry.flags & KEVENT_ENTRY_BUFFER) != 0)
        << Describe(entry);
    EXPECT_EQ(text.size(), entry.data[1]) << Describe(entry);
    if (entry.flags & KEVENT_ENTRY_BUFFER && entry.data[0] < kBuffers) {
      EXPECT_EQ(text, std::string(memory_ + entry.data[0] * kPage,
                                  std::min<uint64_t>(entry.data[1], kPage)));
    } else {
      EXPECT_EQ(0u, entry.data[0]) << Describe(entry);
    }
    return Fd(static_cast<int>(entry.result));
  }

  char* memory_ = nullptr;
  struct {
    uint32_t tail = 0, reserved = 0;
    uint16_t id[kBuffers] = {};
  } ring_;
  uint64_t id_ = 0;
  Fd listener_;
};

INSTANTIATE_TEST_SUITE_P(Pools, AcceptRecvTest,
                         testing::Values(Pool::kOrdinary, Pool::kPinned),
                         PoolName);

TEST_P(AcceptRecvTest, WhatIsThereComesWithIt) {
  Provide(5);
  Provide(2);
  Fd peer = Client("GET / HTTP/1.1");
  Submit(Accept(listener_.get()));
  kevent_entry entry = Next();
  EXPECT_TRUE(entry.flags & KEVENT_ENTRY_DONE);
  Fd ours = Take(entry, "GET / HTTP/1.1");
  EXPECT_EQ(5u, entry.data[0]);
  EXPECT_EQ(FD_CLOEXEC, fcntl(ours.get(), F_GETFD));
  // The rest is in the socket, and the next buffer the next one's.
  Send(peer.get(), "more");
  ASSERT_TRUE(WaitPoll(ours.get(), POLLIN));
  EXPECT_EQ("more", ReadAll(ours.get(), 4));
  Fd other = Client("second");
  Submit(Accept(listener_.get()));
  entry = Next();
  Take(entry, "second");
  EXPECT_EQ(2u, entry.data[0]);
}

TEST_P(AcceptRecvTest, OfEveryFamily) {
  for (uint16_t i = 0; i < 2; ++i) Provide(i);
  listener_ = Listen(AF_INET6);
  Fd peer = Client("six");
  Submit(Accept(listener_.get()));
  Take(Next(), "six");
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "accept-%d",
           getpid());
  Fd local(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(0, bind(local.get(), reinterpret_cast<sockaddr*>(&address),
                    sizeof address));
  ASSERT_EQ(0, listen(local.get(), 4));
  Fd one(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(0, connect(one.get(), reinterpret_cast<sockaddr*>(&address),
                       sizeof address));
  Send(one.get(), "local");
  Submit(Accept(local.get()));
  Take(Next(), "local");
}

TEST_P(AcceptRecvTest, MoreThanABufferHolds) {
  Provide(0);
  const std::string text = Content(kPage + 100);
  Fd peer = Client(text);
  Submit(Accept(listener_.get()));
  Fd ours = Take(Next(), text.substr(0, kPage));
  EXPECT_EQ(text.substr(kPage), ReadAll(ours.get(), 100));
}

TEST_P(AcceptRecvTest, NothingIsWaitedFor) {
  Provide(3);
  // No bytes yet: at once, and the buffer stays in the pool.
  Fd silent = Client("");
  Submit(Accept(listener_.get()));
  Fd ours = Take(Next(), "");
  // The end of the stream is told by recv.
  Fd ended = Client("", true);
  Submit(Accept(listener_.get()));
  ours = Take(Next(), "");
  char buffer[4];
  EXPECT_EQ(0, read(ours.get(), buffer, sizeof buffer));
  // Bytes before it are told.
  Fd last = Client("bye", true);
  Submit(Accept(listener_.get()));
  kevent_entry entry = Next();
  EXPECT_EQ(3u, entry.data[0]);
  ours = Take(entry, "bye");
  EXPECT_EQ(0, read(ours.get(), buffer, sizeof buffer));
}

TEST_P(AcceptRecvTest, AResetIsLeftToRecv) {
  Provide(0);
  for (const char* text : {"", "before it"}) {
    Fd peer = Client(text);
    const linger hard = {1, 0};
    ASSERT_EQ(
        0, setsockopt(peer.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard));
    peer.Reset();
    Submit(Accept(listener_.get()));
    Fd ours = Take(Next(), text);
    ASSERT_TRUE(WaitPoll(ours.get(), POLLIN | POLLERR));
    char buffer[4];
    EXPECT_EQ(-1, read(ours.get(), buffer, sizeof buffer));
    EXPECT_EQ(ECONNRESET, errno);
  }
}

TEST_P(AcceptRecvTest, AnEmptyPool) {
  Fd peer = Client("stays");
  Submit(Accept(listener_.get()));
  Fd ours = Take(Next(), "");
  EXPECT_EQ("stays", ReadAll(ours.get(), 5));
}

TEST_P(AcceptRecvTest, Multishot) {
  constexpr int kClients = 50;  // more than one turn
  for (uint16_t i = 0; i < 4; ++i) Provide(i);
  std::vector<Fd> peers;
  std::set<std::string> texts;
  for (int i = 0; i < kClients; ++i) {
    texts.insert("client " + std::to_string(i));
    peers.push_back(Client("client " + std::to_string(i)));
  }
  Submit(Accept(listener_.get(), KEVENT_MULTISHOT));
  int with = 0;
  std::vector<Fd> ours;
  for (int i = 0; i < kClients && !HasFailure(); ++i) {
    const kevent_entry entry = Next();
    EXPECT_TRUE(entry.flags & KEVENT_ENTRY_MORE) << Describe(entry);
    if (entry.flags & KEVENT_ENTRY_BUFFER) {
      ++with;
      ours.push_back(
          Take(entry, std::string(memory_ + entry.data[0] % kBuffers * kPage,
                                  entry.data[1])));
      EXPECT_EQ(
          1u, texts.erase(std::string(
                  memory_ + entry.data[0] % kBuffers * kPage, entry.data[1])));
    } else {
      ours.push_back(Take(entry, ""));
      char buffer[64];
      const ssize_t n = read(ours.back().get(), buffer, sizeof buffer);
      ASSERT_GT(n, 0);
      EXPECT_EQ(1u, texts.erase(std::string(buffer, static_cast<size_t>(n))));
    }
  }
  EXPECT_EQ(4, with);
  EXPECT_TRUE(texts.empty());
  // One with bytes after one without, in the same operation.
  Provide(7);
  Fd late = Client("late");
  const kevent_entry entry = Next();
  EXPECT_EQ(7u, entry.data[0]);
  ours.push_back(Take(entry, "late"));
  // The pool is in use.
  kevent_register g = {};
  g.size = sizeof g;
  g.opcode = KEVENT_UNREGISTER;
  g.id = static_cast<uint32_t>(id_);
  EXPECT_EQ(-EBUSY, Ioctl(queue().fd(), KEVENT_REGISTER, &g));
  Submit(Operation(KEVENT_OP_CANCEL, listener_.get(), 2, 1));
  kevent_entry cancelled = ExpectResult(1, -ECANCELED);
  EXPECT_FALSE(cancelled.flags & KEVENT_ENTRY_BUFFER);
  EXPECT_EQ(0u, cancelled.data[1]);
  ExpectResult(2, 1);
  EXPECT_EQ(0, Ioctl(queue().fd(), KEVENT_REGISTER, &g));
}

TEST_P(AcceptRecvTest, TheRingIsFull) {
  Reopen({8, 8, 0});
  Register();
  for (uint16_t i = 0; i < kBuffers; ++i) Provide(i);
  std::vector<Fd> peers;
  for (int i = 0; i < 12; ++i) peers.push_back(Client(std::to_string(i)));
  Submit(Accept(listener_.get(), KEVENT_MULTISHOT));
  for (int i = 0; i < 12; ++i) {
    const kevent_entry entry = Next();
    Take(entry, std::to_string(i));
    Provide(static_cast<uint16_t>(entry.data[0]));
  }
  ExpectNothing();
}

TEST_P(AcceptRecvTest, NoDescriptorIsLeft) {
  Provide(6);
  Fd peer = Client("patient");
  rlimit before;
  ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &before));
  rlimit none = before;
  none.rlim_cur = 1;
  ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
  Submit(Accept(listener_.get(), KEVENT_MULTISHOT));
  const kevent_entry entry = Next();
  setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_EQ(-EMFILE, entry.result) << Describe(entry);
  EXPECT_FALSE(entry.flags & (KEVENT_ENTRY_MORE | KEVENT_ENTRY_BUFFER));
  // Connection, bytes and buffer are where they were.
  Submit(Accept(listener_.get()));
  const kevent_entry again = Next();
  EXPECT_EQ(6u, again.data[0]);
  Take(again, "patient");
}

// What is pinned is there.
class UnpinnedAcceptRecvTest : public AcceptRecvTest {};

INSTANTIATE_TEST_SUITE_P(Pools, UnpinnedAcceptRecvTest,
                         testing::Values(Pool::kOrdinary), PoolName);

TEST_P(UnpinnedAcceptRecvTest, MemoryThatIsNotThere) {
  // Neither the connection nor a byte of it is lost.
  const std::string text = Content(300);
  ASSERT_EQ(0, mprotect(memory_ + kPage, kPage, PROT_READ));
  ASSERT_EQ(0, munmap(memory_ + 2 * kPage, kPage));
  for (uint16_t bad : {1, 2, 0xffff}) {
    SCOPED_TRACE(bad);
    ring_.tail = 0;
    Reopen({});
    Register();
    Provide(bad);
    Fd peer = Client(text);
    Submit(Accept(listener_.get()));
    Fd ours = Take(Next(), "");
    EXPECT_TRUE(text == ReadAll(ours.get(), text.size()));
  }
  // The pool's ring itself.
  ring_.tail = 0;
  Reopen({});
  void* ring = mmap(nullptr, kPage, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(MAP_FAILED, ring);
  kevent_register g = PoolOf(GetParam(), memory_, kPage, kPage, ring);
  ASSERT_EQ(0, Ioctl(queue().fd(), KEVENT_REGISTER, &g));
  id_ = g.id;
  ASSERT_EQ(0, munmap(ring, kPage));
  Fd peer = Client(text);
  Submit(Accept(listener_.get()));
  Fd ours = Take(Next(), "");
  EXPECT_TRUE(text == ReadAll(ours.get(), text.size()));
}

TEST_P(AcceptRecvTest, BadInput) {
  kevent_sqe sqe = Accept(listener_.get());
  for (uint64_t id : {id_ + 1, uint64_t{KEVENT_MAX_POOLS}, ~uint64_t{0}}) {
    sqe.arg[1] = id;
    EXPECT_EQ(-ENOENT, ResultOf(sqe)) << id;
  }
  sqe = Accept(listener_.get());
  sqe.events |= 0x0002;
  EXPECT_EQ(-EINVAL, ResultOf(sqe));
  sqe = Accept(listener_.get());
  sqe.arg[2] = 1;
  EXPECT_EQ(-EINVAL, ResultOf(sqe));
  sqe = Accept(listener_.get());
  sqe.events = 0;
  sqe.arg[1] = 1;
  EXPECT_EQ(-EINVAL, ResultOf(sqe));
}

}  // namespace
}  // namespace kevent::raw
