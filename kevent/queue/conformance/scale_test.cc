// SPDX-License-Identifier: Apache-2.0
//
// Many operations cost no more each than few do.
#include <errno.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "kevent/queue/conformance/conformance.h"

namespace kevent::conformance {
namespace {

class ScaleTest : public QueueTest {
 protected:
  void SetUp() override {
    QueueTest::SetUp();
    constexpr rlim_t kDescriptors = 8'200;
    ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &before_));
    rlimit raised = before_;
    raised.rlim_cur = std::max(before_.rlim_cur, kDescriptors);
    if (raised.rlim_cur > raised.rlim_max) GTEST_SKIP() << "descriptors";
    ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &raised));
  }
  void TearDown() override {
    setrlimit(RLIMIT_NOFILE, &before_);
    QueueTest::TearDown();
  }

  // Each of a descriptor of its own of the same socket.
  std::vector<std::unique_ptr<RecvOp>> SubmitReceives(size_t n, int fd,
                                                      BufferPool* pool) {
    std::vector<std::unique_ptr<RecvOp>> recvs(n);
    for (auto& recv : recvs) {
      recv = std::make_unique<RecvOp>();
      recv->fd = Own(dup(fd));
      recv->pool = pool;
      EXPECT_EQ(0, queue().Submit(recv.get()));
    }
    return recvs;
  }

 private:
  rlimit before_;
};
KEVENT_CONFORMANCE(ScaleTest);

int64_t CpuNs() { return NowNs(CLOCK_THREAD_CPUTIME_ID); }

void ExpectCancelled(Queue* queue, size_t n) {
  std::vector<Entry> out(n);
  const int64_t end = NowNs() + PatienceNs();
  for (size_t got = 0; got < n;) {
    Wait wait;
    wait.timeout_ns = std::max<int64_t>(end - NowNs(), 0);
    const int r = queue->Enter(out, wait);
    for (int i = 0; i < r; ++i) EXPECT_EQ(out[i].result, -ECANCELED);
    got += static_cast<size_t>(std::max(r, 0));
    ASSERT_TRUE(got == n || NowNs() < end) << got << " of " << n;
  }
}

// `cost` of 8 times as many is nowhere near 64 times as much.
template <typename F>
void ExpectLinear(F cost) {
  constexpr size_t kFew = 1000;
  int64_t few = INT64_MAX;
  int64_t many = INT64_MAX;
  for (int round = 0; round < 5; ++round) {
    few = std::min<int64_t>(few, cost(kFew));
    many = std::min<int64_t>(many, cost(8 * kFew));
  }
  EXPECT_LT(many, 28 * few);
}

TEST_P(ScaleTest, CancelsAllOfOneDescriptor) {
  ExpectLinear([&](size_t n) {
    // TCP may find room once more, when what has been sent is acknowledged.
    int fds[2];
    EXPECT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
    const int ours = Own(fds[0]), peer = Own(fds[1]);
    Fill(ours);
    std::vector<std::unique_ptr<SendOp>> sends(n);
    for (auto& send : sends) {
      send = std::make_unique<SendOp>();
      send->fd = ours;
      send->Set("x", 1);
      EXPECT_EQ(0, queue().Submit(send.get()));
    }
    Look();
    const int64_t start = CpuNs();
    EXPECT_EQ(0, CloseByQueue(ours));
    const int64_t took = CpuNs() - start;
    ExpectCancelled(&queue(), n);
    CloseOwned(peer);
    return took;
  });
}

TEST_P(ScaleTest, CancelsManyThatWaitForABuffer) {
  BufferPool* pool = queue().AddBufferPool(1, 64).value();
  const Pair pair = TcpPair();
  RecvOp* holder = New<RecvOp>(pair.ours);
  holder->pool = pool;
  ASSERT_EQ(1, send(pair.peer, "x", 1, MSG_NOSIGNAL));
  MustSubmit(holder);
  ASSERT_EQ(1, ResultOf(holder));  // and keeps the only one
  ExpectLinear([&](size_t n) {
    const std::vector<std::unique_ptr<RecvOp>> recvs =
        SubmitReceives(n, pair.ours, pool);
    const int64_t start = CpuNs();
    for (auto& recv : recvs) EXPECT_EQ(0, queue().Cancel(recv.get()));
    const int64_t took = CpuNs() - start;
    ExpectCancelled(&queue(), n);
    for (auto& recv : recvs) EXPECT_EQ(0, CloseByQueue(recv->fd));
    return took;
  });
}

// A buffer that comes back is looked for by one of those that wait, not by all.
TEST_P(ScaleTest, ManyTakeTurnsWithOneBuffer) {
  BufferPool* pool = queue().AddBufferPool(1, 64).value();
  const Pair pair = TcpPair();
  RecvOp* holder = New<RecvOp>(pair.ours);
  holder->pool = pool;
  PeerSend(pair.peer, "x");
  MustSubmit(holder);
  Entry held = One();
  ASSERT_EQ(1, held.result);
  ExpectLinear([&](size_t n) {
    const std::vector<std::unique_ptr<RecvOp>> recvs =
        SubmitReceives(n, pair.ours, pool);
    Look();
    const int64_t start = CpuNs();
    for (size_t i = 0; i < n; ++i) {
      PeerSend(pair.peer, "x");
      pool->Release(static_cast<uint16_t>(held.data[1]));
      Wait wait;
      wait.timeout_ns = PatienceNs();
      Entry next;
      if (queue().Enter({&next, 1}, wait) != 1 || next.result != 1) {
        ADD_FAILURE() << i << " of " << n << ": " << Describe(next);
        break;
      }
      EXPECT_EQ(next.operation, recvs[i].get()) << "out of turn";
      held = next;
    }
    const int64_t took = CpuNs() - start;
    for (auto& recv : recvs) EXPECT_EQ(0, CloseByQueue(recv->fd));
    return took;
  });
}

}  // namespace
}  // namespace kevent::conformance
