// SPDX-License-Identifier: Apache-2.0
//
// What workers do while nobody is in KEVENT_ENTER, when the memory that they
// need is paged in by hand (userfaultfd(2)).
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "kevent/vm/tests/naio_fixture.h"

namespace kevent::raw {
namespace {

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
  bool Map(size_t pages) {
    bytes_ = pages * PageSize();
    data_ = static_cast<char*>(mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (data_ == MAP_FAILED) return false;
    uffdio_register range = {};
    range.range = {Address(data_), bytes_};
    range.mode = UFFDIO_REGISTER_MODE_MISSING;
    return ioctl(fd_.get(), UFFDIO_REGISTER, &range) == 0;
  }
  ~SlowMemory() {
    fd_.Reset();
    if (bytes_) munmap(data_, bytes_);
  }
  char* page(size_t i) const { return data_ + i * PageSize(); }
  bool Bring(size_t i) {
    uffdio_zeropage zero = {};
    zero.range = {Address(page(i)), PageSize()};
    return ioctl(fd_.get(), UFFDIO_ZEROPAGE, &zero) == 0;
  }

 private:
  Fd fd_;
  char* data_ = nullptr;
  size_t bytes_ = 0;
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
  // A send, of a page that is there and one that is not, behind one that its
  // socket has no room for.
  void ExpectSendGoesOn(kevent_sqe sqe, size_t bytes) {
    Pair pair = TcpPair();
    ASSERT_TRUE(memory_.Bring(0));
    sqe.fd = pair.ours.get();
    const size_t before = Fill(pair.ours.get());
    const std::string one = "x";
    kevent_sqe first = SendOf(sqe.fd, one, 9);
    first.flags = KEVENT_SKIP_SUCCESS;
    Submit(first);
    Submit(sqe);
    ReadExactly(pair.peer.get(), before + 1);
    AwaitWorker();
    ASSERT_TRUE(memory_.Bring(1));
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

TEST_F(WorkersTest, AnOwnerReceivesIntoAPoolThatIsMissing) {
  Pair pair = TcpPair();
  uint64_t words[2] = {};  // the one buffer's number is 0
  auto* ring = reinterpret_cast<kevent_pool_ring*>(words);
  kevent_register g = PoolOf(Pool::kOrdinary, memory_.page(0), PageSize(),
                             static_cast<uint32_t>(PageSize()), ring);
  ASSERT_EQ(0, ioctl(queue().fd(), KEVENT_REGISTER, &g));
  __atomic_store_n(&ring->tail, 1u, __ATOMIC_RELEASE);
  kevent_sqe recv = Operation(KEVENT_OP_RECV, pair.ours.get(), 1, g.id);
  recv.events = KEVENT_RECV_POOL;
  recv.flags = KEVENT_MULTISHOT;
  Submit(recv);
  Send(pair.peer.get(), "abc");
  AwaitWorker();
  ASSERT_TRUE(memory_.Bring(0));
  ExpectResult(1, 3, true);
  EXPECT_EQ("abc", std::string(memory_.page(0), 3));
}

TEST_F(WorkersTest, AnOwnerSendsWhatIsMissing) {
  ExpectSendGoesOn(Operation(KEVENT_OP_SEND, -1, 1, Address(memory_.page(0)),
                             2 * PageSize()),
                   2 * PageSize());
}

TEST_F(WorkersTest, AnOwnerSendsWhatIsMissingByReference) {
  kevent_sqe send = Operation(KEVENT_OP_SEND, -1, 1, Address(memory_.page(0)),
                              2 * PageSize());
  send.events = KEVENT_SEND_REFERENCE;
  ExpectSendGoesOn(send, 2 * PageSize());
}

TEST_F(WorkersTest, AnOwnerSendsAHeaderThatIsMissing) {
  TestFile file(TempFolder(), Content(10'000));
  uint64_t progress = 0;
  kevent_parts parts = {};
  parts.header = Address(memory_.page(0));
  parts.header_bytes = 2 * PageSize();
  parts.progress = Address(&progress);
  ExpectSendGoesOn(Sendfile(-1, file.fd(), 0, 10'000, &parts, 1),
                   2 * PageSize() + 10'000);
}

}  // namespace
}  // namespace kevent::raw
