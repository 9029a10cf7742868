// SPDX-License-Identifier: Apache-2.0
//
// What workers do while nobody is in KEVENT_ENTER, when the memory that they
// need is paged in by hand (userfaultfd(2)).
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "kevent/vm/tests/naio_fixture.h"

namespace kevent::raw {
namespace {

constexpr size_t kHugePage = 2 << 20;

size_t PageSize() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

// Memory whose pages come when somebody says so.
class SlowMemory {
 public:
  // False if the user may not have it.
  bool Open() {
    fd_.Reset(
        static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
    uffdio_api api = {};
    api.api = UFFD_API;
    return fd_ && ioctl(fd_.get(), UFFDIO_API, &api) == 0;
  }
  // Of pages that are huge, or not.
  bool Map(size_t pages, bool huge = false) {
    page_bytes_ = huge ? kHugePage : PageSize();
    void* map =
        mmap(nullptr, pages * page_bytes_, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | (huge ? MAP_HUGETLB : 0), -1, 0);
    if (map == MAP_FAILED) return false;
    data_ = static_cast<char*>(map);
    bytes_ = pages * page_bytes_;
    uffdio_register range = {};
    range.range = {Address(data_), bytes_};
    range.mode = UFFDIO_REGISTER_MODE_MISSING;
    return ioctl(fd_.get(), UFFDIO_REGISTER, &range) == 0;
  }
  ~SlowMemory() {
    fd_.Reset();
    if (bytes_) munmap(data_, bytes_);
  }
  char* page(size_t i) const { return data_ + i * page_bytes_; }
  // Until one more thread has met a page that is not there, and waits.
  bool AwaitMiss() const {
    pollfd poll_fd = {fd_.get(), POLLIN, 0};
    uffd_msg message;
    return poll(&poll_fd, 1, static_cast<int>(PatienceNs() / kMs)) == 1 &&
           read(fd_.get(), &message, sizeof message) == sizeof message;
  }
  bool Bring(size_t i) {
    const std::string zeros(page_bytes_, '\0');
    uffdio_copy copy = {};
    copy.dst = Address(page(i));
    copy.src = Address(zeros.data());
    copy.len = page_bytes_;
    return ioctl(fd_.get(), UFFDIO_COPY, &copy) == 0;
  }

 private:
  Fd fd_;
  char* data_ = nullptr;
  size_t bytes_ = 0;
  size_t page_bytes_ = 0;
};

// An ordinary pool of one buffer, a page.
class PoolOfOne {
 public:
  PoolOfOne(const Queue& queue, void* page) {
    auto* ring = reinterpret_cast<kevent_pool_ring*>(words_);
    kevent_register g = PoolOf(Pool::kOrdinary, page, PageSize(),
                               static_cast<uint32_t>(PageSize()), ring);
    EXPECT_EQ(0, ioctl(queue.fd(), KEVENT_REGISTER, &g));
    id_ = g.id;
    __atomic_store_n(&ring->tail, 1u, __ATOMIC_RELEASE);
  }
  uint32_t id() const { return id_; }

 private:
  uint64_t words_[2] = {};  // the ring; the buffer's number is 0
  uint32_t id_ = 0;
};

class WorkersTest : public NaioTest {
 protected:
  void SetUp() override {
    NaioTest::SetUp();
    if (!memory_.Open()) GTEST_SKIP() << strerror(errno);
    ASSERT_TRUE(memory_.Map(2));
  }
  // Until a worker has tried what is ready, and left it.
  void AwaitWorker() {
    EXPECT_TRUE(WorkerRan(queue()));
    EXPECT_TRUE(WaitPoll(queue().fd(), POLLIN));
    EXPECT_EQ(0u, queue().Unread());
    EXPECT_TRUE(queue().Pending());
  }
  static bool WorkerRan(const Queue& queue) {
    const int64_t end = NowNs() + PatienceNs();
    while (Counter(queue, "worker-runs") == 0) {
      if (NowNs() > end) return false;
      sched_yield();
    }
    return true;
  }
  // A send, of bytes of page 0, which is there, and of page 1, which is not,
  // behind one that its socket has no room for.
  void ExpectSendGoesOn(SlowMemory* memory, kevent_sqe sqe, size_t bytes) {
    Pair pair = TcpPair();
    ASSERT_TRUE(memory->Bring(0));
    sqe.fd = pair.ours.get();
    const size_t before = Fill(pair.ours.get());
    const std::string one = "x";
    kevent_sqe first = SendOf(sqe.fd, one, 9);
    first.flags = KEVENT_SKIP_SUCCESS;
    Submit(first);
    Submit(sqe);
    ReadExactly(pair.peer.get(), before + 1);
    AwaitWorker();
    ASSERT_TRUE(memory->Bring(1));
    ExpectResult(sqe.user_data, static_cast<int64_t>(bytes));
    ReadExactly(pair.peer.get(), bytes);
  }

  SlowMemory memory_;
};

// Whoever brings the page may be the process that is to end.
TEST_F(WorkersTest, WhoIsKilledEnds) {
  for (bool memory_first : {true, false}) {
    SCOPED_TRACE(memory_first);
    Pair pair = TcpPair();
    Child child([&] {
      SlowMemory memory;
      Queue own;
      if (!memory_first) CHILD_CHECK(own.Open() == 0);
      CHILD_CHECK(memory.Open() && memory.Map(1));
      if (memory_first) CHILD_CHECK(own.Open() == 0);
      CHILD_CHECK(own.Put(Recv(pair.ours.get(), memory.page(0), 1, 1)));
      CHILD_CHECK(own.Submit(1) >= 0);
      Send(pair.peer.get(), "x");
      CHILD_CHECK(WorkerRan(own) && own.Unread() == 0);
      raise(SIGKILL);
    });
    const int status = child.Wait();
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
  }
}

TEST_F(WorkersTest, AnOwnerReceivesWhereAPageIsMissing) {
  for (const bool datagrams : {false, true}) {
    Pair pair = datagrams ? SocketPair(SOCK_DGRAM) : TcpPair();
    Reopen({});
    const size_t page = datagrams ? 1 : 0;
    Submit(Recv(pair.ours.get(), memory_.page(page), 3, 1));
    Send(pair.peer.get(), "abc");
    AwaitWorker();
    ASSERT_TRUE(memory_.Bring(page));
    ExpectResult(1, 3);
    EXPECT_EQ("abc", std::string(memory_.page(page), 3));
  }
}

// Nor does it try again each time that somebody asks.
TEST_F(WorkersTest, AskingForItWakesNobody) {
  Pair pair = TcpPair();
  Submit(Recv(pair.ours.get(), memory_.page(0), 1, 1));
  Send(pair.peer.get(), "x");
  AwaitWorker();
  Fd epoll(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event = {};
  event.events = EPOLLIN | EPOLLET;
  ASSERT_EQ(0, epoll_ctl(epoll.get(), EPOLL_CTL_ADD, queue().fd(), &event));
  EXPECT_EQ(1, epoll_wait(epoll.get(), &event, 1, 0));
  EXPECT_EQ(0, epoll_wait(epoll.get(), &event, 1, 0));
  ASSERT_TRUE(memory_.Bring(0));
  ExpectResult(1, 1);
}

TEST_F(WorkersTest, AnOwnerReceivesIntoAPoolThatIsMissing) {
  Pair pair = TcpPair();
  PoolOfOne pool(queue(), memory_.page(0));
  kevent_sqe recv = Operation(KEVENT_OP_RECV, pair.ours.get(), 1, pool.id());
  recv.events = KEVENT_RECV_POOL;
  recv.flags = KEVENT_MULTISHOT;
  Submit(recv);
  Send(pair.peer.get(), "abc");
  AwaitWorker();
  ASSERT_TRUE(memory_.Bring(0));
  ExpectResult(1, 3, true);
  EXPECT_EQ("abc", std::string(memory_.page(0), 3));
}

// A recv that ended short because of it would end the chain.
TEST_F(WorkersTest, AnOwnerGoesOnWithAChain) {
  Pair first = SocketPair(SOCK_STREAM), pair = SocketPair(SOCK_STREAM);
  Send(pair.peer.get(), std::string(PageSize(), 'x'));
  Send(pair.peer.get(), std::string(PageSize() + 1, 'y'));
  char bytes[2];
  kevent_sqe begin = Recv(first.ours.get(), &bytes[0], 1, 1);
  begin.flags = KEVENT_LINK | KEVENT_SKIP_SUCCESS;
  kevent_sqe whole = Recv(pair.ours.get(), memory_.page(0), 2 * PageSize(), 2);
  whole.flags = KEVENT_LINK;
  ASSERT_TRUE(memory_.Bring(0));
  for (const kevent_sqe& sqe :
       {begin, whole, Recv(pair.ours.get(), &bytes[1], 1, 3)}) {
    ASSERT_TRUE(queue().Put(sqe));
  }
  ASSERT_GE(queue().Submit(3), 0);
  Send(first.peer.get(), "x");
  AwaitWorker();
  ASSERT_TRUE(memory_.Bring(1));
  ExpectResult(2, static_cast<int64_t>(2 * PageSize()));
  ExpectResult(3, 1);
}

// It asks by poll(2) as soon as there is a connection, before a worker comes.
TEST_F(WorkersTest, AskingDoesNotAccept) {
  Fd listener(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  socklen_t length = sizeof(sa_family_t);  // any abstract name
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  ASSERT_EQ(0, bind(listener.get(), generic, length));
  ASSERT_EQ(0, listen(listener.get(), 1));
  length = sizeof address;
  ASSERT_EQ(0, getsockname(listener.get(), generic, &length));
  PoolOfOne pool(queue(), memory_.page(0));
  kevent_sqe accept =
      Operation(KEVENT_OP_ACCEPT, listener.get(), 1, 0, pool.id());
  accept.events = KEVENT_ACCEPT_RECV;
  Submit(accept);
  Fd client(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  ASSERT_EQ(0, connect(client.get(), generic, length));
  Send(client.get(), "abc");
  EXPECT_TRUE(WaitPoll(queue().fd(), POLLIN));
  EXPECT_EQ(0u, queue().Unread());
  ASSERT_TRUE(memory_.Bring(0));
  const kevent_entry entry = Next();
  Own(static_cast<int>(entry.result));
  EXPECT_TRUE(entry.flags & KEVENT_ENTRY_BUFFER) << Describe(entry);
  EXPECT_EQ(3u, entry.data[1]);
  EXPECT_EQ("abc", std::string(memory_.page(0), 3));
}

TEST_F(WorkersTest, AnOwnerSendsWhatIsMissing) {
  ExpectSendGoesOn(&memory_,
                   Operation(KEVENT_OP_SEND, -1, 1, Address(memory_.page(0)),
                             2 * PageSize()),
                   2 * PageSize());
}

TEST_F(WorkersTest, AnOwnerSendsWhatIsMissingByReference) {
  for (const bool huge : {false, true}) {
    SlowMemory memory;
    ASSERT_TRUE(memory.Open());
    if (huge) {
      std::ofstream("/proc/sys/vm/nr_hugepages") << 4;
      if (!memory.Map(2, huge)) GTEST_SKIP() << "no huge pages";
    } else {
      ASSERT_TRUE(memory.Map(2));
    }
    kevent_sqe send =
        Operation(KEVENT_OP_SEND, -1, 1, Address(memory.page(1) - PageSize()),
                  2 * PageSize());
    send.events = KEVENT_SEND_REFERENCE;
    Reopen({});
    ExpectSendGoesOn(&memory, send, 2 * PageSize());
  }
}

TEST_F(WorkersTest, AnOwnerSendsAHeaderThatIsMissing) {
  TestFile file(TempFolder(), Content(10'000));
  uint64_t progress = 0;
  kevent_parts parts = {};
  parts.header = Address(memory_.page(0));
  parts.header_bytes = 2 * PageSize();
  parts.progress = Address(&progress);
  ExpectSendGoesOn(&memory_, Sendfile(-1, file.fd(), 0, 10'000, &parts, 1),
                   2 * PageSize() + 10'000);
}

// Queues of another user whose workers all wait for a socket that one of his
// threads has locked, and keeps.
void StickWorkers(int count, int ready, int go_on) {
  const auto each = static_cast<size_t>(count);
  SlowMemory memory;
  CHILD_CHECK(memory.Open() && memory.Map(1));
  rlimit limit = {20'000, 20'000};
  CHILD_CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
  BecomeUser();
  std::vector<Pair> locked, first;
  std::vector<Queue> queues(each);
  std::vector<std::thread> threads;
  char bytes[2];
  for (size_t i = 0; i < each; ++i) {
    locked.push_back(TcpPair());
    first.push_back(SocketPair(SOCK_STREAM));
    CHILD_CHECK(queues[i].Open({16, 16, 16}) == 0);
    kevent_sqe recv = Recv(first[i].ours.get(), &bytes[0], 1, 1);
    recv.flags = KEVENT_LINK;
    CHILD_CHECK(queues[i].Put(recv));
    CHILD_CHECK(queues[i].Put(Recv(locked[i].ours.get(), &bytes[1], 1, 2)));
    CHILD_CHECK(queues[i].Submit(2) >= 0);
    Send(locked[i].peer.get(), "x");
    threads.emplace_back([&, i] {
      CHILD_CHECK(read(locked[i].ours.get(), memory.page(0), 1) == 1);
    });
  }
  for (int i = 0; i < count; ++i) CHILD_CHECK(memory.AwaitMiss());
  for (Pair& pair : first) Send(pair.peer.get(), "x");
  CHILD_CHECK(write(ready, "x", 1) == 1);
  ReadExactly(go_on, 1);
  CHILD_CHECK(memory.Bring(0));
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < each; ++i) {
    Send(locked[i].peer.get(), "y");
    CHILD_CHECK(queues[i].Wait(2, PatienceNs()) >= 0);
    CHILD_CHECK(queues[i].Unread() == 2);
  }
}

TEST_F(WorkersTest, AUserHasNotAllOfThem) {
  int ready[2], go_on[2];
  ASSERT_EQ(0, pipe2(ready, O_CLOEXEC));
  ASSERT_EQ(0, pipe2(go_on, O_CLOEXEC));
  Child child([&] { StickWorkers(300, ready[1], go_on[0]); });
  ReadExactly(ready[0], 1);
  Pair pair = TcpPair();
  // Each comes from a worker.
  for (uint64_t round = 0; round < 50; ++round) {
    char byte;
    Submit(Recv(pair.ours.get(), &byte, 1, round));
    Send(pair.peer.get(), "x");
    const int64_t end = NowNs() + PatienceNs();
    while (queue().Unread() == 0 && NowNs() < end) sched_yield();
    ASSERT_EQ(1u, queue().Unread());
    ExpectResult(round, 1);
  }
  EXPECT_EQ(1, write(go_on[1], "x", 1));
  EXPECT_CHILD_OK(child);
  for (int fd : {ready[0], ready[1], go_on[0], go_on[1]}) close(fd);
}

}  // namespace
}  // namespace kevent::raw
