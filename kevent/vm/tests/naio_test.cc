// SPDX-License-Identifier: Apache-2.0
//
// Network AIO: operations in the submission ring, their results in the other.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "kevent/vm/tests/fixture.h"
#include "kevent/vm/tests/hostile.h"
#include "kevent/vm/tests/naio_fixture.h"

namespace kevent::raw {
namespace {

// ---- recv ----

TEST_F(NaioTest, RecvOfWhatIsThere) {
  for (Pair& pair :
       std::array{TcpPair(), TcpPair(AF_INET6), SocketPair(SOCK_STREAM),
                  SocketPair(SOCK_DGRAM)}) {
    Send(pair.peer.get(), "hello");
    ASSERT_TRUE(WaitPoll(pair.ours.get(), POLLIN));
    char buffer[16] = {};
    Submit(Recv(pair.ours.get(), buffer, sizeof buffer, 7));
    ExpectResult(7, 5);
    EXPECT_STREQ("hello", buffer);
  }
}

TEST_F(NaioTest, RecvOfWhatComesLaterWithoutAnyCall) {
  for (Pair& pair : std::array{TcpPair(), SocketPair(SOCK_STREAM)}) {
    char buffer[16] = {};
    Submit(Recv(pair.ours.get(), buffer, sizeof buffer, 8));
    ExpectNothing();
    Send(pair.peer.get(), "later");
    // Nobody enters: a worker does it.
    const int64_t end = NowNs() + PatienceNs();
    while (queue().Unread() == 0 && NowNs() < end) {
    }
    ASSERT_EQ(1u, queue().Unread());
    ExpectResult(8, 5);
    EXPECT_STREQ("later", buffer);
  }
}

TEST_F(NaioTest, RecvOfTheEndAndOfAReset) {
  Pair pair = TcpPair();
  char buffer[4];
  Submit(Recv(pair.ours.get(), buffer, sizeof buffer, 1));
  shutdown(pair.peer.get(), SHUT_WR);
  ExpectResult(1, 0);
  Pair other = TcpPair();
  Submit(Recv(other.ours.get(), buffer, sizeof buffer, 2));
  const linger hard = {1, 0};
  setsockopt(other.peer.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  other.peer.Reset();
  ExpectResult(2, -ECONNRESET);
}

TEST_F(NaioTest, RecvWaitFirst) {
  Pair pair = TcpPair();
  char buffer[8];
  kevent_sqe sqe = Recv(pair.ours.get(), buffer, sizeof buffer, 1);
  sqe.events = KEVENT_RECV_WAIT;
  Submit(sqe);
  Send(pair.peer.get(), "a");
  ExpectResult(1, 1);
  Send(pair.peer.get(), "bc");
  ASSERT_TRUE(WaitPoll(pair.ours.get(), POLLIN));
  Submit(sqe);
  ExpectResult(1, 2);
}

class PoolTest : public NaioTest, public testing::WithParamInterface<Pool> {
 protected:
  static constexpr uint32_t kBuffers = 4, kBytes = 64;
  void SetUp() override {
    NaioTest::SetUp();
    kevent_register g =
        PoolOf(GetParam(), memory_, sizeof memory_, kBytes, &ring_);
    ASSERT_EQ(0, Ioctl(queue().fd(), KEVENT_REGISTER, &g));
    id_ = g.id;
  }
  void Provide(uint16_t id) {
    ring_.id[ring_.tail % kBuffers] = id;
    __atomic_store_n(&ring_.tail, ring_.tail + 1, __ATOMIC_RELEASE);
  }
  kevent_sqe FromPool(int fd, uint16_t flags, uint64_t user_data) {
    kevent_sqe sqe = Operation(KEVENT_OP_RECV, fd, user_data, id_);
    sqe.events = KEVENT_RECV_POOL;
    sqe.flags = flags;
    return sqe;
  }
  std::string Text(const kevent_entry& entry) {
    EXPECT_TRUE(entry.flags & KEVENT_ENTRY_BUFFER) << Describe(entry);
    EXPECT_LT(entry.data[0], kBuffers);
    return {memory_ + entry.data[0] % kBuffers * kBytes,
            static_cast<size_t>(std::max<int64_t>(entry.result, 0))};
  }
  char memory_[kBuffers * kBytes];
  struct {
    uint32_t tail = 0, reserved = 0;
    uint16_t id[kBuffers] = {};
  } ring_;
  uint64_t id_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Pools, PoolTest,
                         testing::Values(Pool::kOrdinary, Pool::kPinned),
                         PoolName);

TEST_P(PoolTest, Single) {
  Pair pair = TcpPair();
  Provide(2);
  Submit(FromPool(pair.ours.get(), 0, 5));
  ExpectNothing();
  Send(pair.peer.get(), "pool");
  kevent_entry entry = ExpectResult(5, 4);
  EXPECT_EQ(2u, entry.data[0]);
  EXPECT_EQ("pool", Text(entry));
}

TEST_P(PoolTest, MultishotUntilTheEnd) {
  Pair pair = TcpPair();
  for (uint16_t i = 0; i < kBuffers; ++i) Provide(i);
  Submit(FromPool(pair.ours.get(), KEVENT_MULTISHOT, 5));
  for (int i = 0; i < 50; ++i) {
    const std::string text = "piece " + std::to_string(i);
    Send(pair.peer.get(), text);
    kevent_entry entry =
        ExpectResult(5, static_cast<int64_t>(text.size()), true);
    EXPECT_EQ(text, Text(entry));
    Provide(static_cast<uint16_t>(entry.data[0]));
  }
  pair.peer.Reset();
  kevent_entry entry = ExpectResult(5, 0);
  EXPECT_FALSE(entry.flags & KEVENT_ENTRY_BUFFER);
}

TEST_P(PoolTest, EmptyLeavesTheDataWhereItIs) {
  Pair pair = TcpPair();
  const std::string text = Content(5 * kBytes + 7);
  Provide(3);
  Submit(FromPool(pair.ours.get(), KEVENT_MULTISHOT, 5));
  Send(pair.peer.get(), text);
  std::string got;
  while (got.size() < text.size()) {
    kevent_entry entry = Next();
    ASSERT_EQ(5u, entry.user_data);
    got += Text(entry);
    ExpectNothing();
    Provide(static_cast<uint16_t>(entry.data[0]));
  }
  EXPECT_TRUE(text == got);
}

TEST_P(PoolTest, HostileRing) {
  Pair pair = TcpPair();
  Send(pair.peer.get(), "x");
  ASSERT_TRUE(WaitPoll(pair.ours.get(), POLLIN));
  Provide(kBuffers);  // no such buffer
  EXPECT_EQ(-EINVAL, ResultOf(FromPool(pair.ours.get(), 0, 5)));
}

TEST_P(PoolTest, UnregisterWhileItIsUsed) {
  Pair pair = TcpPair();
  Provide(0);
  Submit(FromPool(pair.ours.get(), 0, 6));
  kevent_register g = Unregister(static_cast<uint32_t>(id_));
  EXPECT_EQ(-EBUSY, Ioctl(queue().fd(), KEVENT_REGISTER, &g));
  Send(pair.peer.get(), "x");
  ExpectResult(6, 1);
  EXPECT_EQ(0, Ioctl(queue().fd(), KEVENT_REGISTER, &g));
  EXPECT_EQ(-ENOENT, Ioctl(queue().fd(), KEVENT_REGISTER, &g));
}

// ---- send ----

TEST_F(NaioTest, SendAndSendVector) {
  for (Pair& pair : std::array{TcpPair(), SocketPair(SOCK_STREAM)}) {
    const std::string one = "one ", two = "two";
    Submit(SendOf(pair.ours.get(), one, 1));
    ExpectResult(1, 4);
    std::vector<kevent_vector> pieces(20, {Address(two.data()), two.size()});
    kevent_sqe sqe = Operation(KEVENT_OP_SEND, pair.ours.get(), 2,
                               Address(pieces.data()), pieces.size());
    sqe.events = KEVENT_SEND_VECTOR;
    Submit(sqe);
    ExpectResult(2, 60);
    EXPECT_EQ("one twotwotwo", ReadAll(pair.peer.get(), 13));
    ReadAll(pair.peer.get(), 51);
    sqe.arg[2] = 58;  // what is not sent
    Submit(sqe);
    ExpectResult(2, 2);
    EXPECT_EQ("wo", ReadAll(pair.peer.get(), 2));
    sqe.arg[2] = 60;
    Submit(sqe);
    ExpectResult(2, 0);
    sqe.arg[2] = 61;
    Submit(sqe);
    ExpectResult(2, -EINVAL);
    sqe.arg[2] = 0;
    sqe.flags = KEVENT_SKIP_SUCCESS;
    Submit(sqe);
    ExpectNothing();
  }
}

TEST_F(NaioTest, SendOfMoreThanFits) {
  for (Pair& pair : std::array{TcpPair(), SocketPair(SOCK_STREAM)}) {
    const std::string text = Content(12 << 20);
    Submit(SendOf(pair.ours.get(), text, 1));
    ExpectNothing();
    std::string got;
    std::thread reader([&] { got = ReadAll(pair.peer.get(), text.size()); });
    EXPECT_EQ(1, queue().Wait(1, PatienceNs()));
    ExpectResult(1, static_cast<int64_t>(text.size()));
    reader.join();
    EXPECT_TRUE(text == got);
  }
}

// Over TCP the very pages, as writing to them afterwards shows, which nobody
// must do; a copy where they may not be lent.
TEST_F(NaioTest, SendByReference) {
  constexpr size_t kBytes = 300'000;
  for (uint32_t events : {0u, uint32_t{KEVENT_SEND_VECTOR}}) {
    for (const bool tcp : {true, false}) {
      SCOPED_TRACE(testing::Message() << events << ", TCP " << tcp);
      Pair pair = tcp ? TcpPair() : SocketPair(SOCK_STREAM);
      std::string text = Content(kBytes);
      const kevent_vector pieces[] = {
          {Address(text.data()), 5},
          {Address(text.data() + 5), 0},
          {Address(text.data() + 5), kBytes - 5},
      };
      kevent_sqe sqe = SendOf(pair.ours.get(), text, 1);
      if (events != 0) {
        sqe.arg[0] = Address(pieces);
        sqe.arg[1] = 3;
      }
      sqe.events = static_cast<uint16_t>(events | KEVENT_SEND_REFERENCE);
      Submit(sqe);
      std::string got;
      std::thread reader([&] { got = ReadAll(pair.peer.get(), kBytes); });
      ExpectResult(1, kBytes);
      reader.join();
      EXPECT_TRUE(got == text);
      text.resize(20'000);
      sqe.arg[1] = events != 0 ? 1 : text.size();
      const kevent_vector all = {Address(text.data()), text.size()};
      if (events != 0) sqe.arg[0] = Address(&all);
      Submit(sqe);
      ExpectResult(1, 20'000);
      const std::string before = text;
      std::fill(text.begin(), text.end(), '!');
      EXPECT_TRUE((tcp ? text : before) ==
                  ReadAll(pair.peer.get(), text.size()));
    }
  }
}

TEST_F(NaioTest, ReferencesThatCannotBe) {
  // Of no stream, and in memory that is partly not there.
  Pair datagrams = SocketPair(SOCK_DGRAM);
  std::string text = Content(10'000);
  kevent_sqe sqe = SendOf(datagrams.ours.get(), text, 1);
  sqe.events = KEVENT_SEND_REFERENCE;
  Submit(sqe);
  ExpectResult(1, 10'000);
  EXPECT_TRUE(text == ReadAll(datagrams.peer.get(), text.size()));
  Pair pair = TcpPair();
  char* const map = static_cast<char*>(
      mmap(nullptr, 8192, PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
  ASSERT_NE(MAP_FAILED, map);
  ASSERT_EQ(0, munmap(map + 4096, 4096));
  sqe = Operation(KEVENT_OP_SEND, pair.ours.get(), 1, Address(map), 8192);
  sqe.events = KEVENT_SEND_REFERENCE;
  Submit(sqe);
  const kevent_entry entry = Next();
  EXPECT_TRUE(entry.result == 4096 || entry.result == -EFAULT)
      << Describe(entry);
  munmap(map, 4096);
}

TEST_F(NaioTest, OrderAndWhatFollowsAShortSend) {
  Pair pair = TcpPair();
  const std::string big = Content(12 << 20), small = "small";
  Submit(SendOf(pair.ours.get(), big, 1));
  Submit(SendOf(pair.ours.get(), small, 2));
  Submit(Operation(KEVENT_OP_SHUTDOWN, pair.ours.get(), 3, SHUT_WR));
  ExpectNothing();
  std::string got;
  std::thread reader([&] { got = ReadAll(pair.peer.get(), big.size() + 100); });
  ExpectResult(1, static_cast<int64_t>(big.size()));
  ExpectResult(2, 5);
  ExpectResult(3, 0);
  reader.join();
  EXPECT_TRUE(got == big + small);

  Pair other = TcpPair();
  Submit(SendOf(other.ours.get(), big, 1));
  Submit(SendOf(other.ours.get(), small, 2));
  kevent_sqe cancel = Operation(KEVENT_OP_CANCEL, other.ours.get(), 9, 1);
  Submit(cancel);
  kevent_entry entry = Next();
  EXPECT_EQ(1u, entry.user_data);
  EXPECT_GT(entry.result, 0);
  EXPECT_LT(entry.result, static_cast<int64_t>(big.size()));
  ExpectResult(2, -ECANCELED);
  ExpectResult(9, 1);
  EXPECT_EQ(-ENOENT, ResultOf(cancel));
}

TEST_F(NaioTest, APeerThatGoesAwayInTheMiddle) {
  Pair pair = TcpPair();
  const std::string big = Content(12 << 20);
  Submit(SendOf(pair.ours.get(), big, 1));
  ReadExactly(pair.peer.get(), 100'000);
  pair.peer.Reset();
  kevent_entry entry = Next();
  EXPECT_EQ(1u, entry.user_data);
  EXPECT_GE(entry.result, 100'000);
  EXPECT_LT(entry.result, static_cast<int64_t>(big.size()));
  EXPECT_LT(ResultOf(SendOf(pair.ours.get(), big, 2)), 0);
}

// ---- accept, connect, close ----

TEST_F(NaioTest, Accept) {
  for (int family : {AF_INET, AF_INET6}) {
    Fd listener = Listen(family);
    Submit(Operation(KEVENT_OP_ACCEPT, listener.get(), 1,
                     SOCK_CLOEXEC | SOCK_NONBLOCK));
    ExpectNothing();
    Fd peer = ConnectTo(listener);
    kevent_entry entry = Next();
    EXPECT_EQ(1u, entry.user_data);
    ASSERT_GE(entry.result, 0) << Describe(entry);
    Fd ours(static_cast<int>(entry.result));
    EXPECT_EQ(FD_CLOEXEC, fcntl(ours.get(), F_GETFD));
    EXPECT_TRUE(fcntl(ours.get(), F_GETFL) & O_NONBLOCK);
    Send(peer.get(), "hi");
    ReadExactly(ours.get(), 2);
  }
}

TEST_F(NaioTest, MultishotAcceptAndNoDescriptors) {
  Fd listener = Listen();
  kevent_sqe sqe = Operation(KEVENT_OP_ACCEPT, listener.get(), 1, SOCK_CLOEXEC);
  sqe.flags = KEVENT_MULTISHOT;
  Submit(sqe);
  std::vector<Fd> peers, ours;
  for (int i = 0; i < 100; ++i) {
    peers.push_back(ConnectTo(listener));
    kevent_entry entry = Next();
    ASSERT_GE(entry.result, 0) << Describe(entry);
    EXPECT_TRUE(entry.flags & KEVENT_ENTRY_MORE);
    ours.emplace_back(static_cast<int>(entry.result));
  }
  kevent_entry entry = {};
  rlimit before;
  ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &before));
  Fd more = ConnectTo(listener);
  rlimit none = before;
  none.rlim_cur = 1;
  ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
  entry = Next();
  setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_EQ(-EMFILE, entry.result) << Describe(entry);
  EXPECT_FALSE(entry.flags & KEVENT_ENTRY_MORE);
  // It stayed in the backlog.
  Submit(sqe);
  entry = Next();
  EXPECT_GE(entry.result, 0);
  close(static_cast<int>(entry.result));
}

TEST_F(NaioTest, AcceptsThatAWorkerCannotMake) {
  // A worker comes upon the operation while its owner is about to wait.
  std::mt19937 random(Seed());
  std::uniform_int_distribution<int64_t> wait_ns(0, 6'000'000);
  Fd listener = Listen();
  kevent_sqe sqe = Operation(KEVENT_OP_ACCEPT, listener.get(), 1, SOCK_CLOEXEC);
  sqe.flags = KEVENT_MULTISHOT;
  Submit(sqe);
  // What it has to do before.
  Pair pair = SocketPair(SOCK_STREAM);
  const std::string block(64 << 10, 'x');
  std::vector<char> buffer(block.size());
  kevent_sqe recv = Recv(pair.ours.get(), buffer.data(), buffer.size(), 2);
  recv.flags = KEVENT_SKIP_SUCCESS;
  for (int i = 0; i < 500 && !HasFailure(); ++i) {
    Submit(recv);
    Send(pair.peer.get(), block);
    Fd peer = ConnectTo(listener);
    const int64_t end = NowNs() + wait_ns(random);
    while (NowNs() < end) {
    }
    const int64_t begin = NowNs();
    kevent_entry entry = Next();
    ASSERT_GE(entry.result, 0) << Describe(entry);
    close(static_cast<int>(entry.result));
    EXPECT_LT(NowNs() - begin, PatienceNs() / 2) << "round " << i;
  }
}

TEST_F(NaioTest, Connect) {
  Fd listener = Listen();
  sockaddr_storage address = {};
  socklen_t length = sizeof address;
  ASSERT_EQ(0, getsockname(listener.get(),
                           reinterpret_cast<sockaddr*>(&address), &length));
  Fd ours(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(0, ResultOf(Operation(KEVENT_OP_CONNECT, ours.get(), 1,
                                  Address(&address), length)));
  Send(ours.get(), "x");
  listener.Reset();
  Fd other(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(-ECONNREFUSED, ResultOf(Operation(KEVENT_OP_CONNECT, other.get(), 2,
                                              Address(&address), length)));
}

TEST_F(NaioTest, Close) {
  Pair pair = TcpPair();
  const int fd = pair.ours.Release();
  EXPECT_EQ(0, ResultOf(Operation(KEVENT_OP_CLOSE, fd, 1)));
  EXPECT_TRUE(AtEnd(pair.peer.get()));
  EXPECT_EQ(-EBADF, ResultOf(Operation(KEVENT_OP_CLOSE, fd, 1)));
  // A queue, and the last descriptor of one.
  Queue other;
  ASSERT_EQ(0, other.Open());
  EXPECT_EQ(0, ResultOf(Operation(KEVENT_OP_CLOSE, dup(other.fd()), 2)));
  ASSERT_TRUE(queue().Put(Operation(KEVENT_OP_CLOSE, queue().fd(), 3)));
  EXPECT_EQ(1, queue().Submit(1));
  Reopen({});
}

TEST_F(NaioTest, TooMany) {
  // What the limit refuses ends by its entry; cancelling goes on.
  Reopen({64, 64, 0});
  Pair pair = TcpPair();
  char buffer[8];
  int pending = 0;
  kevent_sqe sqe = Recv(pair.ours.get(), buffer, sizeof buffer, 5);
  if (geteuid() == 0) GTEST_SKIP() << "root's limit is high";
  for (;;) {
    Submit(sqe);
    if (queue().Unread() > 0) break;
    ++pending;
  }
  ExpectResult(5, -EAGAIN);
  EXPECT_GT(pending, 1000);
  kevent_sqe any = Operation(KEVENT_OP_CANCEL, -1, 42);
  any.events = KEVENT_CANCEL_ANY;
  Submit(any);
  int cancelled = 0;  // in any order: the ring is too small for them
  for (int i = 0; i <= pending && !HasFailure(); ++i) {
    const kevent_entry entry = Next();
    if (entry.user_data == 42) {
      EXPECT_EQ(pending, entry.result);
    } else {
      EXPECT_EQ(-ECANCELED, entry.result);
      ++cancelled;
    }
  }
  EXPECT_EQ(pending, cancelled);
}

TEST_F(NaioTest, CancelOfManyAndOfAny) {
  std::vector<Pair> pairs;
  char buffer[8];
  for (int i = 0; i < 10; ++i) {
    pairs.push_back(TcpPair());
    Submit(Recv(pairs.back().ours.get(), buffer, sizeof buffer, 40));
  }
  Submit(Operation(KEVENT_OP_CANCEL, pairs[3].ours.get(), 41, 40));
  ExpectResult(40, -ECANCELED);
  ExpectResult(41, 1);
  kevent_sqe any = Operation(KEVENT_OP_CANCEL, -1, 42);
  any.events = KEVENT_CANCEL_ANY;
  Submit(any);
  for (int i = 0; i < 9; ++i) ExpectResult(40, -ECANCELED);
  ExpectResult(42, 9);
}

// ---- sendfile ----

class SendfileTest : public NaioTest,
                     public testing::WithParamInterface<const char*> {
 protected:
  std::string Folder() const {
    if (std::string_view(GetParam()) == "memory") return "/dev/shm";
    return TempFolder();
  }
  void SetUp() override {
    NaioTest::SetUp();
    if (access(Folder().c_str(), W_OK) != 0) GTEST_SKIP() << Folder();
  }
};

INSTANTIATE_TEST_SUITE_P(Where, SendfileTest, testing::Values("disk", "memory"),
                         [](const auto& p) { return std::string(p.param); });

TEST_P(SendfileTest, HeaderRangeAndTrailer) {
  const std::string content = Content(300'000);
  TestFile file(Folder(), content);
  const std::string header = "header ", trailer = " trailer";
  for (bool cold : {false, true}) {
    for (size_t offset :
         {size_t{0}, size_t{1}, size_t{4095}, size_t{200'000}}) {
      Pair pair = TcpPair();
      if (cold) file.MakeCold();
      const kevent_parts parts = Parts(header, trailer);
      const size_t length = std::min<size_t>(content.size() - offset, 99'999);
      const std::string want =
          header + content.substr(offset, length) + trailer;
      Submit(Sendfile(pair.ours.get(), file.fd(), offset, length, &parts, 1));
      std::string got;
      std::thread reader([&] { got = ReadAll(pair.peer.get(), want.size()); });
      ExpectResult(1, static_cast<int64_t>(want.size()));
      reader.join();
      EXPECT_TRUE(got == want) << offset;
    }
  }
}

TEST_P(SendfileTest, LargeToASlowReader) {
  const std::string content = Content(20 << 20);
  TestFile file(Folder(), content);
  for (Pair& pair : std::array{TcpPair(), SocketPair(SOCK_STREAM)}) {
    file.MakeCold();
    Submit(Sendfile(pair.ours.get(), file.fd(), 0, content.size(), nullptr, 1));
    std::string got;
    std::thread reader([&] { got = ReadAll(pair.peer.get(), content.size()); });
    ExpectResult(1, static_cast<int64_t>(content.size()));
    reader.join();
    EXPECT_TRUE(got == content);
  }
}

TEST_P(SendfileTest, TellsItsProgress) {
  const std::string content = Content(20 << 20);
  TestFile file(Folder(), content);
  Pair pair = TcpPair();
  uint64_t progress = 0;
  kevent_parts parts = {};
  parts.progress = Address(&progress);
  Submit(Sendfile(pair.ours.get(), file.fd(), 0, content.size(), &parts, 1));
  ExpectNothing();
  const uint64_t first = progress;
  EXPECT_GT(first, 0u);
  EXPECT_LT(first, content.size());
  std::thread reader([&] { ReadAll(pair.peer.get(), content.size()); });
  ExpectResult(1, static_cast<int64_t>(content.size()));
  reader.join();
  EXPECT_GT(progress, first);
  parts.reserved[2] = 1;
  EXPECT_EQ(-EINVAL,
            ResultOf(Sendfile(pair.ours.get(), file.fd(), 0, 1, &parts, 1)));
  parts = {};
  parts.progress = 1;  // nobody can write there: then nobody is told
  EXPECT_EQ(1, ResultOf(Sendfile(pair.peer.get(), file.fd(), 0, 1, &parts, 1)));
}

TEST_P(SendfileTest, AFileThatEndsEarly) {
  TestFile file(Folder(), Content(5000));
  const std::string header = "header ", trailer = "trailer";
  const kevent_parts parts = Parts(header, trailer);
  Pair pair = TcpPair();
  EXPECT_EQ(7 + 1000, ResultOf(Sendfile(pair.ours.get(), file.fd(), 4000, 2000,
                                        &parts, 1)));
  EXPECT_EQ(
      0, ResultOf(Sendfile(pair.ours.get(), file.fd(), 9000, 1, nullptr, 1)));
}

TEST_P(SendfileTest, ByReference) {
  // Proof: what is changed in place before the peer reads, the peer sees.
  const std::string content(64 << 10, 'a');
  TestFile file(Folder(), content);
  Pair pair = TcpPair();
  Submit(Sendfile(pair.ours.get(), file.fd(), 0, content.size(), nullptr, 1));
  ExpectResult(1, static_cast<int64_t>(content.size()));
  const std::string changed(content.size(), 'b');
  ASSERT_EQ(static_cast<ssize_t>(changed.size()),
            pwrite(file.fd(), changed.data(), changed.size(), 0));
  EXPECT_TRUE(changed == ReadAll(pair.peer.get(), content.size()));
}

TEST_P(SendfileTest, TruncatedMeanwhile) {
  const std::string content = Content(30 << 20);
  TestFile file(Folder(), content);
  Pair pair = TcpPair();
  Submit(Sendfile(pair.ours.get(), file.fd(), 0, content.size(), nullptr, 1));
  ExpectNothing();
  ASSERT_EQ(0, ftruncate(file.fd(), 25'000'001));
  std::thread reader([&] { ReadAll(pair.peer.get(), 25'000'001); });
  ExpectResult(1, 25'000'001);
  reader.join();
}

TEST_F(NaioTest, SendfileOfWhatIsNoFile) {
  Pair pair = TcpPair(), pipe = PipePair();
  EXPECT_EQ(-EINVAL, ResultOf(Sendfile(pair.ours.get(), pipe.ours.get(), 0, 1,
                                       nullptr, 1)));
  Fd folder(open("/", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(-EINVAL, ResultOf(Sendfile(pair.ours.get(), folder.get(), 0, 1,
                                       nullptr, 1)));
  Fd path(open("/proc/self/exe", O_PATH | O_CLOEXEC));
  EXPECT_EQ(-EBADF,
            ResultOf(Sendfile(pair.ours.get(), path.get(), 0, 1, nullptr, 1)));
  EXPECT_EQ(-EBADF,
            ResultOf(Sendfile(pair.ours.get(), 9999, 0, 1, nullptr, 1)));
  Fd exe(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(-EINVAL, ResultOf(Sendfile(pair.ours.get(), exe.get(), ~0ull, 1,
                                       nullptr, 1)));
  EXPECT_EQ(-EINVAL, ResultOf(Sendfile(pair.ours.get(), exe.get(), 1, INT64_MAX,
                                       nullptr, 1)));
  kevent_sqe sqe = Sendfile(pair.ours.get(), exe.get(), 0, 1, nullptr, 1);
  for (uint64_t address : kBadAddresses) {
    if (address == 0) continue;
    sqe.arg[2] = address;
    EXPECT_EQ(-EFAULT, ResultOf(sqe)) << address;
  }
}

// ---- Files that are opened by the kernel ----

class PathTest : public NaioTest {
 protected:
  void SetUp() override {
    NaioTest::SetUp();
    root_ = TempFolder() + "/root";
    ASSERT_EQ(0, mkdir(root_.c_str(), 0755));
    ASSERT_EQ(0, mkdir((root_ + "/folder").c_str(), 0755));
    directory_.Reset(open(root_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    Put("folder/file", kText);
    Put("../outside", "outside");
  }
  void TearDown() override {
    static_cast<void>(
        !system(("rm -rf '" + root_ + "' '" + root_ + "/../outside'").c_str()));
    NaioTest::TearDown();
  }
  void Put(const std::string& name, const std::string& text) {
    Fd fd(open((root_ + "/" + name).c_str(),
               O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    ASSERT_EQ(static_cast<ssize_t>(text.size()),
              write(fd.get(), text.data(), text.size()));
    fsync(fd.get());
  }
  kevent_entry SendPath(const Pair& pair, const std::string& path,
                        uint64_t offset = 0, uint64_t length = ~0ull,
                        int directory = -1) {
    kevent_path from = {};
    from.path = Address(path.c_str());
    from.directory = directory < 0 ? directory_.get() : directory;
    const std::string header = "<", trailer = ">";
    const kevent_parts parts = Parts(header, trailer);
    kevent_sqe sqe =
        Operation(KEVENT_OP_SENDFILE_PATH, pair.ours.get(), 3, offset, length);
    sqe.arg[2] = Address(&parts);
    sqe.arg[3] = Address(&from);
    Submit(sqe);
    return Next();
  }
  // And nothing was sent, the header neither.
  void ExpectRefused(int error, const std::string& path, int directory = -1) {
    Pair pair = TcpPair();
    EXPECT_EQ(-error, SendPath(pair, path, 0, ~0ull, directory).result) << path;
    Send(pair.ours.get(), "next");
    EXPECT_EQ("next", ReadAll(pair.peer.get(), 4)) << path;
  }
  const std::string kText = "text of the file";
  std::string root_;
  Fd directory_;
};

TEST_F(PathTest, Opens) {
  Pair pair = TcpPair();
  ASSERT_EQ(0, symlink("folder/../folder/file", (root_ + "/link").c_str()));
  for (const char* path :
       {"folder/file", "./folder/.././folder/file", "link"}) {
    kevent_entry entry = SendPath(pair, path);
    EXPECT_EQ(static_cast<int64_t>(kText.size() + 2), entry.result) << path;
    EXPECT_EQ(kText.size(), entry.data[1]) << path;
    EXPECT_EQ("<" + kText + ">", ReadAll(pair.peer.get(), kText.size() + 2));
  }
  EXPECT_EQ(6, SendPath(pair, "folder/file", 5, 4).result);
  EXPECT_EQ("<" + kText.substr(5, 4) + ">", ReadAll(pair.peer.get(), 6));
  // What lies behind the end, and what goes beyond it.
  EXPECT_EQ(2, SendPath(pair, "folder/file", 100).result);
  EXPECT_EQ(1 + 3, SendPath(pair, "folder/file", kText.size() - 3, 10).result);
}

TEST_F(PathTest, LooksUpOnTheDisk) {
  Fd drop(open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC));
  if (!drop) GTEST_SKIP() << "only root can drop the caches";
  int waited = 0;
  for (int i = 0; i < 10; ++i) {
    Pair pair = TcpPair();
    sync();
    ASSERT_EQ(1, write(drop.get(), "3", 1));
    kevent_entry entry = SendPath(pair, "folder/file");
    EXPECT_EQ(static_cast<int64_t>(kText.size() + 2), entry.result);
    EXPECT_EQ("<" + kText + ">", ReadAll(pair.peer.get(), kText.size() + 2));
    waited += entry.data[0] > 1;
    ASSERT_EQ(1, write(drop.get(), "3", 1));
    EXPECT_EQ(-ENOENT, SendPath(pair, "folder/none").result);
  }
  EXPECT_GT(waited, 0);
}

TEST_F(PathTest, NeverAboveTheDirectory) {
  ASSERT_EQ(0, symlink("../outside", (root_ + "/out").c_str()));
  ASSERT_EQ(0, symlink("/etc/passwd", (root_ + "/absolute").c_str()));
  ASSERT_EQ(0, symlink("loop", (root_ + "/loop").c_str()));
  for (const char* path : {"../outside", "folder/../../outside", "out",
                           "/etc/passwd", "absolute", ".."}) {
    ExpectRefused(EXDEV, path);
  }
  ExpectRefused(ELOOP, "loop");
  ExpectRefused(ENOENT, "folder/none");
  ExpectRefused(ENOENT, "");
  ExpectRefused(ENOTDIR, "folder/file/x");
  ExpectRefused(ENOTDIR, "folder/file/");
  ExpectRefused(EISDIR, "folder");
  ExpectRefused(EISDIR, ".");
  ExpectRefused(ENAMETOOLONG, std::string(300, 'x'));
  ExpectRefused(ENAMETOOLONG, std::string(5000, 'x'));
  // Links of /proc lead anywhere.
  Fd proc(open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC));
  ExpectRefused(ELOOP, "exe", proc.get());
  ExpectRefused(ELOOP, "fd/0", proc.get());
}

TEST_F(PathTest, RegularFilesThatMayBeReadOnly) {
  ASSERT_EQ(0, mkfifo((root_ + "/fifo").c_str(), 0644));
  ExpectRefused(EINVAL, "fifo");  // and at once: nobody will ever write
  Fd devices(open("/dev", O_PATH | O_DIRECTORY | O_CLOEXEC));
  ExpectRefused(EINVAL, "null", devices.get());
  Put("closed", "secret");
  ASSERT_EQ(0, chmod((root_ + "/closed").c_str(), 0));
  ASSERT_EQ(0, chmod((root_ + "/folder").c_str(), 0));
  if (geteuid() == 0) {
    Pair pair = TcpPair();
    EXPECT_EQ(8, SendPath(pair, "closed").result);
  } else {
    ExpectRefused(EACCES, "closed");
    ExpectRefused(EACCES, "folder/file");
  }
  chmod((root_ + "/folder").c_str(), 0755);
}

TEST_F(PathTest, ARenameCannotLeadOut) {
  // "a/../../outside" would lead out if `a` moved up while it is walked.
  ASSERT_EQ(0, mkdir((root_ + "/folder/a").c_str(), 0755));
  Put("outside", "inside");
  std::atomic<bool> stop{false};
  std::thread mover([&] {
    const std::string deep = root_ + "/folder/a", high = root_ + "/a";
    while (!stop) {
      rename(deep.c_str(), high.c_str());
      rename(high.c_str(), deep.c_str());
    }
  });
  std::map<int64_t, int> results;
  for (int i = 0; i < 3000 && !HasFailure(); ++i) {
    Pair pair = SocketPair(SOCK_STREAM);
    const int64_t result = SendPath(pair, "folder/a/../../outside").result;
    ++results[result];
    if (result > 0) {
      EXPECT_EQ("<inside>", ReadAll(pair.peer.get(), 8));
    } else {
      EXPECT_TRUE(result == -ENOENT || result == -EXDEV) << result;
    }
  }
  stop = true;
  mover.join();
  for (auto [result, count] : results) {
    printf("%ld: %d times\n", result, count);
  }
}

TEST_F(PathTest, BadInput) {
  Pair pair = TcpPair();
  ExpectRefused(ENOTDIR, "x", pair.peer.get());
  EXPECT_EQ(-EBADF, SendPath(pair, "x", 0, 1, 9999).result);
  EXPECT_EQ(-EINVAL, SendPath(pair, "folder/file", ~0ull, 1).result);
  EXPECT_EQ(-EINVAL, SendPath(pair, "folder/file", 1, INT64_MAX).result);
  kevent_path from = {};
  from.path = Address("x");
  from.directory = directory_.get();
  kevent_sqe sqe = Operation(KEVENT_OP_SENDFILE_PATH, pair.ours.get(), 3, 0, 1);
  sqe.arg[3] = Address(&from);
  from.flags = 1;
  EXPECT_EQ(-EINVAL, ResultOf(sqe));
  from.flags = 0;
  from.reserved[1] = 1;
  EXPECT_EQ(-EINVAL, ResultOf(sqe));
  from.reserved[1] = 0;
  for (uint64_t address : kBadAddresses) {
    sqe.arg[3] = address;
    EXPECT_EQ(-EFAULT, ResultOf(sqe)) << address;
    sqe.arg[3] = Address(&from);
    from.path = address;
    EXPECT_EQ(-EFAULT, ResultOf(sqe)) << address;
  }
}

// ---- Bad input ----

TEST_F(NaioTest, BadInput) {
  Pair pair = TcpPair();
  const int fd = pair.ours.get();
  char buffer[8];
  for (uint8_t opcode = KEVENT_OP_ACCEPT; opcode <= KEVENT_OP_CANCEL;
       ++opcode) {
    SCOPED_TRACE(int{opcode});
    const int64_t invalid = -EINVAL;
    for (uint16_t flags : {KEVENT_EDGE, 0x0800, 0x8000}) {
      kevent_sqe sqe = Operation(opcode, fd, opcode);
      sqe.flags = flags;
      EXPECT_EQ(invalid, ResultOf(sqe)) << flags;
    }
    kevent_sqe sqe = Operation(opcode, fd, opcode);
    sqe.events = 0x80;
    EXPECT_EQ(invalid, ResultOf(sqe));
    sqe.events = 0;
    sqe.source = 1;
    EXPECT_EQ(invalid, ResultOf(sqe));
    if (opcode != KEVENT_OP_SENDFILE && opcode != KEVENT_OP_SENDFILE_PATH) {
      sqe = Operation(opcode, fd, opcode, 0, 1);
      sqe.arg[3] = 1;
      EXPECT_EQ(invalid, ResultOf(sqe));
    }
  }
  EXPECT_EQ(-EBADF, ResultOf(Recv(9999, buffer, 8, 1)));
  EXPECT_EQ(-EBADF, ResultOf(Recv(-1, buffer, 8, 1)));
  EXPECT_EQ(-ENOTSOCK, ResultOf(Recv(PipePair().ours.get(), buffer, 8, 1)));
  EXPECT_EQ(-ENOTSOCK, ResultOf(Recv(queue().fd(), buffer, 8, 1)));
  kevent_sqe pool = Operation(KEVENT_OP_RECV, fd, 1, 63);
  pool.events = KEVENT_RECV_POOL;
  EXPECT_EQ(-ENOENT, ResultOf(pool));
  Send(pair.peer.get(), "x");
  ASSERT_TRUE(WaitPoll(fd, POLLIN));
  for (uint64_t address : kBadAddresses) {
    EXPECT_EQ(-EFAULT, ResultOf(Operation(KEVENT_OP_RECV, fd, 1, address, 8)));
    EXPECT_EQ(-EFAULT, ResultOf(Operation(KEVENT_OP_SEND, fd, 1, address, 8)));
    kevent_sqe vector = Operation(KEVENT_OP_SEND, fd, 1, address, 2);
    vector.events = KEVENT_SEND_VECTOR;
    EXPECT_EQ(-EFAULT, ResultOf(vector));
    vector.events |= KEVENT_SEND_REFERENCE;
    EXPECT_EQ(-EFAULT, ResultOf(vector));
    kevent_sqe reference = Operation(KEVENT_OP_SEND, fd, 1, address, 8);
    reference.events = KEVENT_SEND_REFERENCE;
    EXPECT_EQ(-EFAULT, ResultOf(reference));
  }
  kevent_sqe cancel = Operation(KEVENT_OP_CANCEL, fd, 1, 1);
  cancel.flags = KEVENT_LINK;
  EXPECT_EQ(-EINVAL, ResultOf(cancel));
  kevent_sqe nop = Change(KEVENT_OP_NOP);
  nop.flags = KEVENT_LINK;
  EXPECT_EQ(-EINVAL, ResultOf(nop));
  kevent_sqe control = Recv(fd, buffer, 8, 1);
  EXPECT_EQ(-EOPNOTSUPP, queue().Make(&control));
}

TEST_F(NaioTest, MoreResultsThanTheRingHolds) {
  Reopen({8, 64, 0});
  std::vector<Pair> pairs;
  char buffer[1];
  for (uint64_t i = 0; i < 50; ++i) {
    pairs.push_back(TcpPair());
    Submit(Recv(pairs.back().ours.get(), buffer, 1, i));
  }
  for (Pair& pair : pairs) Send(pair.peer.get(), "x");
  std::map<uint64_t, int> seen;
  for (int i = 0; i < 50; ++i) {
    kevent_entry entry = Next();
    EXPECT_EQ(1, entry.result);
    ++seen[entry.user_data];
  }
  EXPECT_EQ(50u, seen.size());
  ExpectNothing();
}

}  // namespace
}  // namespace kevent::raw
