// SPDX-License-Identifier: Apache-2.0
//
// Transfers of more than one call of the kernel moves: 2 GiB less a page.
#include <errno.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "kevent/queue/conformance/conformance.h"

namespace kevent::conformance {
namespace {

constexpr size_t kCall = 0x7ffff000;  // write(2), sendfile(2)
constexpr size_t kLarge = kCall + (1 << 20) + 3;

class Zeros {
 public:
  explicit Zeros(size_t size)
      : size_(size),
        data_(mmap(nullptr, size, PROT_READ,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {}
  ~Zeros() {
    if (data_ != MAP_FAILED) munmap(data_, size_);
  }
  Zeros(const Zeros&) = delete;
  Zeros& operator=(const Zeros&) = delete;

  bool ok() const { return data_ != MAP_FAILED; }
  std::span<std::byte> bytes() const {
    return {static_cast<std::byte*>(data_), size_};
  }

 private:
  const size_t size_;
  void* const data_;
};
// That take no memory.

class LargeTest : public QueueTest {
 protected:
  // The whole of it, but for an emulated machine, which takes 20 s for that.
  void Expect(Operation* op, const Pair& pair, size_t bytes) {
    if (getenv("KEVENT_GUEST") && !getenv("KEVENT_FULL")) {
      ExpectGoesOn(op, pair);
    } else {
      ExpectTransfers(op, pair, bytes);
    }
  }
  // Runs it against a peer that drops what it receives.
  void ExpectTransfers(Operation* op, const Pair& pair, size_t bytes) {
    std::atomic<size_t> received{0};
    std::thread peer([&] {
      while (received < bytes) {
        pollfd p = {pair.peer, POLLIN, 0};
        if (poll(&p, 1, static_cast<int>(PatienceNs() / kMs)) <= 0) break;
        const ssize_t n = recv(pair.peer, nullptr, 4 << 20, MSG_TRUNC);
        if (n == 0 || (n < 0 && errno != EAGAIN)) break;
        if (n > 0) received += static_cast<size_t>(n);
      }
    });
    MustSubmit(op);
    size_t before;
    do {
      before = received;
      RunUntil([&] { return !taken_.empty() || received != before; });
    } while (taken_.empty() && received != before);
    EXPECT_EQ(ResultOf(op), static_cast<int64_t>(bytes));
    // The rest of them if it has ended short.
    shutdown(pair.ours, SHUT_WR);
    peer.join();
    EXPECT_EQ(received, bytes);
  }
  // Its beginning only.
  void ExpectGoesOn(Operation* op, const Pair& pair) {
    constexpr size_t kSome = 8 << 20;
    MustSubmit(op);
    EXPECT_TRUE(PeerRead(pair.peer, kSome) == std::string(kSome, '\0'));
    EXPECT_TRUE(op->in_flight());
    EXPECT_EQ(0, queue().Cancel(op));
    EXPECT_GE(ResultOf(op), static_cast<int64_t>(kSome));
  }
};
KEVENT_CONFORMANCE(LargeTest);

TEST_P(LargeTest, SendOfOnePiece) {
  const Zeros zeros(kLarge);
  ASSERT_TRUE(zeros.ok());
  const Pair pair = TcpPair();
  SendOp* send = New<SendOp>(pair.ours);
  send->Set(zeros.bytes().data(), zeros.bytes().size());
  Expect(send, pair, kLarge);
}

TEST_P(LargeTest, SendOfSeveralPieces) {
  const Zeros zeros(kLarge / 2 + 1);
  ASSERT_TRUE(zeros.ok());
  const Pair pair = TcpPair();
  SendOp* send = New<SendOp>(pair.ours);
  const iovec half = {zeros.bytes().data(), zeros.bytes().size()};
  const iovec pieces[] = {half, half};
  send->pieces = pieces;
  Expect(send, pair, 2 * half.iov_len);
}

// Lengths of 32 bits are none for it.
TEST_P(LargeTest, SendOfMoreThan4GiB) {
  const Zeros zeros((size_t{4} << 30) + 10);
  ASSERT_TRUE(zeros.ok());
  const Pair pair = TcpPair();
  SendOp* send = New<SendOp>(pair.ours);
  send->Set(zeros.bytes().data(), zeros.bytes().size());
  ExpectGoesOn(send, pair);
}

TEST_P(LargeTest, Sendfile) {
  const int file = Own(memfd_create("large", MFD_CLOEXEC));
  ASSERT_EQ(0, ftruncate(file, kLarge));  // a hole
  const Pair pair = TcpPair();
  SendfileOp* sendfile = NewSendfile(pair.ours, file, 0, kLarge);
  Expect(sendfile, pair, kLarge);
}

}  // namespace
}  // namespace kevent::conformance
