// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_QUEUE_CONFORMANCE_CONFORMANCE_H_
#define KEVENT_QUEUE_CONFORMANCE_CONFORMANCE_H_

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <time.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "kevent/queue/queue.h"

namespace kevent::conformance {

inline constexpr int64_t kMs = 1'000'000;  // nanoseconds
inline constexpr int64_t kNoResult = INT64_MIN;
// The result of an entry that never came.

#if defined(__SANITIZE_THREAD__)
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif

int64_t NowNs(clockid_t clock = CLOCK_MONOTONIC);

int64_t PatienceNs();
// How long something that must happen may take: KEVENT_WAIT_MS, else 10 s.

uint32_t Seed();
// KEVENT_SEED, else a new one; printed, so that a failure can be repeated.

std::vector<std::string> Engines();
// KEVENT_ENGINES (names separated by commas), else all that need no module.

std::string Pattern(size_t size, uint32_t seed = 1);
// Bytes that repeat nowhere near, different for each seed.

std::string Describe(const Entry& e);

void Spin(uint32_t turns);
// Passes a little time without the kernel.

class WithHandler {
 public:
  explicit WithHandler(int signo) : signo_(signo) {
    struct sigaction action = {};
    action.sa_handler = [](int) { ran = ran + 1; };
    action.sa_flags = SA_RESTART;  // makes no difference to a wait
    sigaction(signo, &action, &before_);
    ran = 0;
  }
  ~WithHandler() { sigaction(signo_, &before_, nullptr); }

  static inline volatile sig_atomic_t ran = 0;

 private:
  const int signo_;
  struct sigaction before_;
};
// Handles a signal with a count while it lives. One at a time.

class SignalStorm {
 public:
  SignalStorm();
  ~SignalStorm();

 private:
  const WithHandler handler_{SIGUSR2};
  std::atomic<bool> stop_{false};
  std::thread sender_;
};
// While it lives the thread that made it is interrupted over and over, at any
// point.

struct Pair {
  int ours = -1;  // for the queue; in blocking mode
  int peer = -1;  // the test's end; non-blocking, without Nagle's delay
};

struct TestListener {
  int fd = -1;
  sockaddr_in address = {};
};

class QueueTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override;
  void TearDown() override;

  Queue& queue() { return *queue_; }
  void Reopen(Queue::Options options);
  // The same engine with other options.
  void Destroy() { queue_.reset(); }
  absl::StatusOr<std::unique_ptr<Queue>> Create(Queue::Options options);

  template <typename Op>
  Op* New(int fd = -1) {
    auto op = std::make_shared<Op>();
    op->fd = fd;
    owned_.push_back(op);
    operations_.push_back(op.get());
    return op.get();
  }
  // Owned by the fixture, destroyed after the queue. So are the following.
  SendOp* NewSend(int fd, std::string_view bytes);
  // `bytes` must stay.
  RecvOp* NewRecv(int fd, std::string* buffer);
  SendfileOp* NewSendfile(int fd, int file, int64_t offset, int64_t length);
  std::string* Bytes(std::string contents);
  std::string* Room(size_t size) { return Bytes(std::string(size, '\0')); }
  int Own(int fd);
  void CloseOwned(int fd);
  void Disown(int fd) { fds_.erase(fd); }
  // Somebody else has closed it, or will.
  int CloseByQueue(int fd);

  Pair TcpPair(int buffer_bytes = 0);
  // Connected over loopback. With `buffer_bytes` little more than that fits
  // between the two.
  TestListener Listen(int backlog = 128);
  int ConnectTo(const TestListener& listener);
  // A connected socket, as Pair::peer.
  static void ResetPeer(int peer);
  // The next close sends a reset.
  std::pair<int, int> Pipe();
  // Reading end, writing end; non-blocking.
  int File(std::string_view contents);
  // Open for reading and writing, in a folder of a real file system if there is
  // one.
  static bool MakeRoom(int fd, int bytes);
  // The socket's send buffer holds that much. False without the right to do so.
  static int Corked(int fd);
  // What TCP_CORK is.
  static void Fill(int fd);
  // Writes to `fd` until no byte more goes in. What Filled bytes are: 'f'.

  int Submit(Operation* op);
  // Queue::Submit, and remembers what must end.
  void MustSubmit(Operation* op) { ASSERT_EQ(0, Submit(op)); }
  Handle MustAdd(const Interest& interest);

  std::vector<Entry> WaitFor(size_t n);
  // The next `n` entries; a failure (and entries with kNoResult) if they do not
  // come in time.
  Entry One() { return WaitFor(1)[0]; }
  int64_t ResultOf(Operation* op);
  // The result of the next entry, which must be the last one of `op`.
  void Look();
  // An Enter that does not wait. What it finds is kept for WaitFor.
  void Turn(int64_t timeout_ns = kMs);
  // The same, waiting a little.
  template <typename F>
  bool RunUntil(F done) {
    for (int64_t end = NowNs() + PatienceNs(); !done();) {
      if (NowNs() > end) return false;
      Turn();
    }
    return true;
  }
  void ExpectNothing(int64_t for_ns = 10 * kMs);
  void Note(const Entry& e);
  // Checks an entry taken in another way against what was submitted.

  void PeerSend(int peer, std::string_view bytes);
  std::string PeerRead(int peer, size_t size);
  // That many bytes, running the queue meanwhile.
  std::string PeerReadToEnd(int peer);
  void PeerRoundTrip(const Pair& pair);
  // All that was written to `pair.peer` before has arrived at `pair.ours`.

  std::deque<Entry> taken_;  // by Turn, not yet by WaitFor

 private:
  std::unique_ptr<Queue> queue_;
  std::set<Operation*> outstanding_;
  std::list<std::shared_ptr<void>> owned_;
  std::vector<Operation*> operations_;
  std::list<std::string> buffers_;
  std::set<int> fds_;
};
// One engine's queue, and a peer for it in the test's own thread. Whatever a
// queue of the test uses outlives it, however the test ends. The engine is the
// parameter, known by its name only.

std::string TempFolder();
// Where File makes its files.

#define KEVENT_CONFORMANCE(Suite)                                              \
  INSTANTIATE_TEST_SUITE_P(Engines, Suite, testing::ValuesIn(Engines()),       \
                           [](const testing::TestParamInfo<std::string>& info) \
                               -> const std::string& { return info.param; })

}  // namespace kevent::conformance

#endif  // KEVENT_QUEUE_CONFORMANCE_CONFORMANCE_H_
