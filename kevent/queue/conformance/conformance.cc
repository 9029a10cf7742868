// SPDX-License-Identifier: Apache-2.0
#include "kevent/queue/conformance/conformance.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <sstream>
#include <thread>

namespace kevent::conformance {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

EngineKind KindOf(std::string_view name) {
  for (EngineKind kind : {EngineKind::kAuto, EngineKind::kModule,
                          EngineKind::kUring, EngineKind::kEpoll}) {
    if (EngineName(kind) == name) return kind;
  }
  fprintf(stderr, "KEVENT_ENGINES: no engine is called %.*s\n",
          static_cast<int>(name.size()), name.data());
  abort();
}

void SetOption(int fd, int level, int option, int value) {
  ASSERT_EQ(0, setsockopt(fd, level, option, &value, sizeof value))
      << strerror(errno);
}

// Some default algorithms pace what they send; this one does not.
void SetCongestionControl(int fd) {
  static_cast<void>(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
}

void SetNonBlocking(int fd) {
  ASSERT_EQ(0, fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK));
}

// Few of the fixture's tests have signal handlers, but the end of another
// io_uring of the process interrupts epoll_wait(2) as one would.
int Patient(int r) { return r == -EINTR ? 0 : r; }

}  // namespace

int64_t NowNs(clockid_t clock) {
  timespec ts;
  clock_gettime(clock, &ts);
  return ts.tv_sec * kSecond + ts.tv_nsec;
}

int64_t PatienceNs() {
  static const int64_t patience = [] {
    const char* ms = getenv("KEVENT_WAIT_MS");
    return (ms && *ms ? atoll(ms) : 10'000) * kMs;
  }();
  return patience;
}

uint32_t Seed() {
  const char* given = getenv("KEVENT_SEED");
  uint32_t seed = given && *given
                      ? static_cast<uint32_t>(strtoul(given, nullptr, 0))
                      : std::random_device()();
  printf("KEVENT_SEED=%u\n", seed);
  return seed;
}

std::vector<std::string> Engines() {
  const char* given = getenv("KEVENT_ENGINES");
  std::stringstream list(given && *given ? given : "epoll,uring");
  std::vector<std::string> engines;
  for (std::string name; std::getline(list, name, ',');) {
    if (!name.empty()) engines.push_back(name);
  }
  return engines;
}

std::string Pattern(size_t size, uint32_t seed) {
  std::string bytes(size, '\0');
  uint32_t state = seed * 2654435761u + 1;
  for (char& byte : bytes) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<char>(state >> 24);
  }
  return bytes;
}

std::string Describe(const Entry& e) {
  std::ostringstream text;
  text << "entry of source " << static_cast<int>(e.source) << ", user_data "
       << e.user_data << ", result " << e.result << ", events " << e.events
       << ", flags " << e.flags;
  if (e.operation) {
    text << ", opcode " << static_cast<int>(e.operation->opcode);
  }
  return text.str();
}

void Spin(uint32_t turns) {
  for (uint32_t i = 0; i < turns; ++i) {
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
}

SignalStorm::SignalStorm() {
  sender_ = std::thread([this, self = pthread_self(), seed = Seed()] {
    for (std::mt19937 random(seed); !stop_.load(); Spin(random() % 50'000)) {
      pthread_kill(self, SIGUSR2);
    }
  });
}

SignalStorm::~SignalStorm() {
  stop_.store(true);
  sender_.join();
}

std::string TempFolder() {
  const char* folder = getenv("TEST_TMPDIR");
  return folder && *folder ? folder : testing::TempDir();
}

absl::StatusOr<std::unique_ptr<Queue>> QueueTest::Create(
    Queue::Options options) {
  options.engine = KindOf(GetParam());
  return Queue::Create(options);
}

void QueueTest::SetUp() {
  auto queue = Create({});
  if (!queue.ok()) {
    GTEST_SKIP() << "engine " << GetParam()
                 << " does not work here: " << queue.status();
  }
  queue_ = std::move(*queue);
}

void QueueTest::TearDown() {
  if (queue_ && !HasFailure()) {
    Look();
    for (const Entry& e : taken_) {
      ADD_FAILURE() << "left over: " << Describe(e);
    }
  }
  queue_.reset();
  bool all_idle = true;
  for (Operation* op : operations_) {
    EXPECT_FALSE(op->in_flight()) << "opcode " << static_cast<int>(op->opcode);
    if (op->in_flight()) all_idle = false;
  }
  // Destroying one would abort, and hide what the other tests find.
  static auto* stuck = new std::list<std::shared_ptr<void>>;
  if (!all_idle) stuck->splice(stuck->end(), owned_);
  owned_.clear();
  for (int fd : fds_) close(fd);
}

void QueueTest::Reopen(Queue::Options options) {
  queue_.reset();
  taken_.clear();
  outstanding_.clear();
  auto queue = Create(options);
  ASSERT_TRUE(queue.ok()) << queue.status();
  queue_ = std::move(*queue);
}

// --- What the fixture owns.

SendOp* QueueTest::NewSend(int fd, std::string_view bytes) {
  SendOp* op = New<SendOp>(fd);
  op->Set(bytes.data(), bytes.size());
  return op;
}

RecvOp* QueueTest::NewRecv(int fd, std::string* buffer) {
  RecvOp* op = New<RecvOp>(fd);
  op->buffer = buffer->data();
  op->size = static_cast<uint32_t>(buffer->size());
  return op;
}

SendfileOp* QueueTest::NewSendfile(int fd, int file, int64_t offset,
                                   int64_t length) {
  SendfileOp* op = New<SendfileOp>(fd);
  op->file = file;
  op->offset = offset;
  op->length = length;
  return op;
}

std::string* QueueTest::Bytes(std::string contents) {
  buffers_.push_back(std::move(contents));
  return &buffers_.back();
}

int QueueTest::Own(int fd) {
  EXPECT_GE(fd, 0) << strerror(errno);
  if (fd >= 0) fds_.insert(fd);
  return fd;
}

void QueueTest::CloseOwned(int fd) {
  fds_.erase(fd);
  close(fd);
}

int QueueTest::CloseByQueue(int fd) {
  fds_.erase(fd);
  return queue_->Close(fd);
}

TestListener QueueTest::Listen(int backlog) {
  TestListener listener;
  listener.fd = Own(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  listener.address.sin_family = AF_INET;
  listener.address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof listener.address;
  auto* address = reinterpret_cast<sockaddr*>(&listener.address);
  EXPECT_EQ(0, bind(listener.fd, address, length)) << strerror(errno);
  EXPECT_EQ(0, listen(listener.fd, backlog)) << strerror(errno);
  EXPECT_EQ(0, getsockname(listener.fd, address, &length));
  return listener;
}

int QueueTest::ConnectTo(const TestListener& listener) {
  int fd = Own(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(0, connect(fd, reinterpret_cast<const sockaddr*>(&listener.address),
                       sizeof listener.address))
      << strerror(errno);
  SetOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  SetNonBlocking(fd);
  return fd;
}

Pair QueueTest::TcpPair(int buffer_bytes) {
  TestListener listener = Listen();
  SetCongestionControl(listener.fd);
  Pair pair;
  pair.peer = Own(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  SetCongestionControl(pair.peer);
  if (buffer_bytes) {
    // Before the handshake, which tells the other side of the window.
    SetOption(pair.peer, SOL_SOCKET, SO_RCVBUF, buffer_bytes);
    SetOption(listener.fd, SOL_SOCKET, SO_SNDBUF, buffer_bytes);
  }
  EXPECT_EQ(0, connect(pair.peer,
                       reinterpret_cast<const sockaddr*>(&listener.address),
                       sizeof listener.address))
      << strerror(errno);
  pair.ours = Own(accept4(listener.fd, nullptr, nullptr, SOCK_CLOEXEC));
  SetOption(pair.peer, IPPROTO_TCP, TCP_NODELAY, 1);
  SetNonBlocking(pair.peer);
  CloseOwned(listener.fd);
  return pair;
}

void QueueTest::ResetPeer(int peer) {
  linger reset = {1, 0};
  ASSERT_EQ(0, setsockopt(peer, SOL_SOCKET, SO_LINGER, &reset, sizeof reset));
}

std::pair<int, int> QueueTest::Pipe() {
  int fds[2] = {-1, -1};
  EXPECT_EQ(0, pipe2(fds, O_CLOEXEC | O_NONBLOCK));
  return {Own(fds[0]), Own(fds[1])};
}

int QueueTest::File(std::string_view contents) {
  std::string name = TempFolder() + "/kevent_XXXXXX";
  int fd = Own(mkostemp(name.data(), O_CLOEXEC));
  unlink(name.c_str());
  while (!contents.empty()) {
    ssize_t n = write(fd, contents.data(), contents.size());
    EXPECT_GT(n, 0) << strerror(errno);
    if (n <= 0) break;
    contents.remove_prefix(static_cast<size_t>(n));
  }
  return fd;
}

bool QueueTest::MakeRoom(int fd, int bytes) {
  return setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) == 0;
}

int QueueTest::Corked(int fd) {
  int on = -1;
  socklen_t size = sizeof on;
  EXPECT_EQ(0, getsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, &size));
  return on;
}

void QueueTest::Fill(int fd) {
  std::string bytes(4096, 'f');
  for (size_t size = bytes.size(); size > 0;) {
    ssize_t n = send(fd, bytes.data(), size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) size /= 2;
    if (n < 0 && errno != EAGAIN) {
      ADD_FAILURE() << strerror(errno);
      return;
    }
  }
}

// --- Running the queue.

int QueueTest::Submit(Operation* op) {
  int r = queue_->Submit(op);
  if (r == 0 || r == Queue::kDone) {
    for (Operation* o = op; o; o = o->link) {
      if (o != op || r == 0) outstanding_.insert(o);
    }
  }
  return r;
}

Handle QueueTest::MustAdd(const Interest& interest) {
  Handle handle;
  EXPECT_EQ(0, queue_->Add(interest, &handle));
  EXPECT_NE(handle, Handle());
  return handle;
}

void QueueTest::Note(const Entry& e) {
  if (e.source != Source::kOperation) {
    EXPECT_EQ(e.operation, nullptr) << Describe(e);
    EXPECT_NE(e.handle, Handle()) << Describe(e);
    return;
  }
  EXPECT_EQ(e.handle, Handle()) << Describe(e);
  if (!outstanding_.contains(e.operation)) {
    ADD_FAILURE() << "nobody waits for this " << Describe(e);
  } else if (e.flags & kEntryMore) {
    EXPECT_TRUE(e.operation->flags & kOpMultishot) << Describe(e);
  } else {
    EXPECT_FALSE(e.operation->in_flight()) << Describe(e);
    outstanding_.erase(e.operation);
  }
}

std::vector<Entry> QueueTest::WaitFor(size_t n) {
  std::vector<Entry> out;
  const int64_t end = NowNs() + PatienceNs();
  while (out.size() < n) {
    if (!taken_.empty()) {
      out.push_back(taken_.front());
      taken_.pop_front();
      continue;
    }
    Entry batch[64];
    std::span<Entry> room(batch, std::min<size_t>(64, n - out.size()));
    Wait wait;
    wait.timeout_ns = std::max<int64_t>(end - NowNs(), 0);
    int r = Patient(queue_->Enter(room, wait));
    if (r < 0) {
      ADD_FAILURE() << "Enter: " << strerror(-r);
      break;
    }
    for (int i = 0; i < r; ++i) {
      Note(batch[i]);
      out.push_back(batch[i]);
    }
    if (r == 0 && NowNs() >= end) {
      ADD_FAILURE() << out.size() << " entries came instead of " << n;
      break;
    }
  }
  Entry missing;
  missing.result = kNoResult;
  out.resize(n, missing);
  return out;
}

int64_t QueueTest::ResultOf(Operation* op) {
  Entry e = One();
  if (e.result == kNoResult) return kNoResult;
  EXPECT_EQ(e.operation, op) << Describe(e);
  EXPECT_EQ(e.user_data, op->user_data);
  EXPECT_FALSE(e.flags & kEntryMore) << Describe(e);
  return e.result;
}

void QueueTest::Turn(int64_t timeout_ns) {
  Entry batch[64];
  Wait wait;
  wait.min = timeout_ns > 0 ? 1 : 0;
  wait.timeout_ns = timeout_ns;
  int r = Patient(queue_->Enter(batch, wait));
  EXPECT_GE(r, 0) << strerror(-r);
  for (int i = 0; i < r; ++i) {
    Note(batch[i]);
    taken_.push_back(batch[i]);
  }
}

void QueueTest::Look() { Turn(0); }

void QueueTest::ExpectNothing(int64_t for_ns) {
  const int64_t end = NowNs() + for_ns;
  do {
    Turn(std::max<int64_t>(end - NowNs(), 0));
    for (const Entry& e : taken_) {
      ADD_FAILURE() << "nothing should come: " << Describe(e);
    }
    taken_.clear();
  } while (NowNs() < end);
}

// --- The peer.

void QueueTest::PeerSend(int peer, std::string_view bytes) {
  const int64_t end = NowNs() + PatienceNs();
  while (!bytes.empty()) {
    ssize_t n =
        send(peer, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) {
      bytes.remove_prefix(static_cast<size_t>(n));
    } else if (errno != EAGAIN || NowNs() > end) {
      ADD_FAILURE() << "the peer cannot send: " << strerror(errno);
      return;
    } else if (queue_) {
      Turn();
    }
  }
}

std::string QueueTest::PeerRead(int peer, size_t size) {
  std::string bytes;
  const int64_t end = NowNs() + PatienceNs();
  std::vector<char> buffer(64 << 10);
  while (bytes.size() < size) {
    ssize_t n =
        recv(peer, buffer.data(), std::min(buffer.size(), size - bytes.size()),
             MSG_DONTWAIT);
    if (n > 0) {
      bytes.append(buffer.data(), static_cast<size_t>(n));
    } else if (n == 0 || errno != EAGAIN || NowNs() > end) {
      ADD_FAILURE() << "the peer read " << bytes.size() << " bytes of " << size
                    << ": " << (n == 0 ? "end of stream" : strerror(errno));
      break;
    } else if (queue_) {
      Turn();
    }
  }
  return bytes;
}

std::string QueueTest::PeerReadToEnd(int peer) {
  std::string bytes;
  const int64_t end = NowNs() + PatienceNs();
  std::vector<char> buffer(64 << 10);
  for (;;) {
    ssize_t n = recv(peer, buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n == 0) return bytes;
    if (n > 0) {
      bytes.append(buffer.data(), static_cast<size_t>(n));
    } else if (errno != EAGAIN || NowNs() > end) {
      ADD_FAILURE() << "the peer read " << bytes.size()
                    << " bytes without an end: " << strerror(errno);
      return bytes;
    } else if (queue_) {
      Turn();
    }
  }
}

void QueueTest::PeerRoundTrip(const Pair& pair) {
  const int64_t end = NowNs() + PatienceNs();
  int unsent = 0;
  do {
    ASSERT_EQ(0, ioctl(pair.peer, TIOCOUTQ, &unsent));
  } while (unsent > 0 && NowNs() < end);
  ASSERT_EQ(unsent, 0);
}

// --- Of every program of the suite.

TEST(ConformanceEngines, OneWorksHere) {
  std::string why;
  for (const std::string& name : Engines()) {
    Queue::Options options;
    options.engine = KindOf(name);
    auto queue = Queue::Create(options);
    if (queue.ok()) return;
    why += queue.status().ToString() + "\n";
  }
  FAIL() << "no engine of KEVENT_ENGINES works here:\n" << why;
}

}  // namespace kevent::conformance
