// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "kevent/queue/core.h"
#include "kevent/queue/engine.h"
#include "kevent/queue/transfer.h"

namespace kevent::internal {
namespace {

static_assert(EPOLLIN == POLLIN && EPOLLOUT == POLLOUT && EPOLLPRI == POLLPRI &&
              EPOLLERR == POLLERR && EPOLLHUP == POLLHUP &&
              EPOLLRDHUP == POLLRDHUP);

constexpr uint32_t kForOperations = EPOLLIN | EPOLLOUT | EPOLLRDHUP;
constexpr uint32_t kEnd = EPOLLHUP | EPOLLERR;
constexpr int kBatch = 256;  // events looked for at a time
// The same where receives wait for most of them: they are all run before their
// completions are looked at. Linux gives what was received back to the CPU that
// has sent it, and interrupts that for each 32 in a row (net.core.skb_defer_max
// / 2); and what was received is in the cache still.
constexpr int kRecvBatch = 24;
constexpr int kAcceptTurn = 64;
constexpr int64_t kSecond = 1'000'000'000;

class EpollEngine final : public Engine {
 public:
  EpollEngine(Core* core, int epoll) : core_(core), epoll_(epoll) {}

  ~EpollEngine() override {
    close(epoll_);
    if (wake_ >= 0) close(wake_);
  }

  absl::Status Init() {
    wake_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (wake_ < 0) return absl::ErrnoToStatus(errno, "eventfd");
    epoll_event e = {};
    // Edge-triggered and never read: every write is an edge.
    e.events = EPOLLIN | EPOLLET;
    e.data.u64 = kWakeTag;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_, &e) < 0) {
      return absl::ErrnoToStatus(errno, "epoll_ctl");
    }
    return absl::OkStatus();
  }

  int64_t Start(Operation* op, Descriptor* d) override;
  bool Cancel(Operation*, Descriptor*) override { return true; }
  int Arm(uint32_t index, Slot* slot, Descriptor* d) override;
  void Disarm(uint32_t index, Slot* slot, Descriptor* d) override;
  void Retest(std::span<const uint32_t> slots) override;
  void Hush(uint32_t index, Slot* slot, Descriptor* d) override;
  void Forget(int fd, Descriptor* d) override;
  int AddPool(Pool* pool) override;
  void Provide(Pool* pool, uint16_t id) override { pool->free.push_back(id); }
  int Flush() override { return 0; }
  int Poll(int64_t until_ns, const sigset_t* mask) override;
  void Process() override;
  void Wake() override {
    uint64_t one = 1;
    ssize_t r = write(wake_, &one, sizeof one);
    static_cast<void>(r);
  }
  int PollableFd() override { return epoll_; }
  void Shutdown() override {}

 private:
  static constexpr uint64_t kWakeTag = ~uint64_t{0};

  int64_t StartAccept(AcceptOp* op, Descriptor* d);
  int64_t StartConnect(ConnectOp* op, Descriptor* d);
  int64_t StartRecv(RecvOp* op, Descriptor* d);
  int64_t StartSend(SendOp* op, Descriptor* d);
  int64_t StartSendfile(SendfileOp* op, Descriptor* d);
  int64_t Watch(int fd, Descriptor* d);
  int Register(int fd, Descriptor* d);
  uint32_t Wanted(const Descriptor& d) const;
  bool NativeLevel(const Descriptor& d) const {
    return d.registered != 0 && !(d.registered & EPOLLET);
  }

  Core* const core_;
  const int epoll_;
  int wake_ = -1;
  int batch_ = kBatch;  // of the next Poll
  int found_ = 0;
  epoll_event events_[kBatch];
  // Scratch of Retest: what is asked, and the slots it is asked for.
  std::vector<pollfd> polls_;
  std::vector<uint32_t> polled_;
};

// --- Registration. A descriptor with operations is registered once, edge-
// triggered, for everything. One with nothing but plain level interests is
// registered level-triggered. In a mixture level is made out of edges by
// Retest.

uint32_t EpollEngine::Wanted(const Descriptor& d) const {
  uint32_t events = d.has_operations ? kForOperations | EPOLLET : 0;
  bool any = d.has_operations;
  for (uint32_t i = d.interests; i != kNoSlot; i = core_->slot(i).next) {
    const Slot& slot = core_->slot(i);
    if (!slot.armed) continue;
    any = true;
    events |= slot.events;
    if (slot.internal || slot.hushed ||
        (slot.flags & (kEdge | kOneShot | kDispatch))) {
      events |= EPOLLET;
    }
  }
  // Errors and hang-ups are reported even for an empty set.
  return any ? (events | EPOLLERR | EPOLLHUP) : 0;
}

int EpollEngine::Register(int fd, Descriptor* d) {
  uint32_t wanted = Wanted(*d);
  if (wanted == d->registered) return 0;
  epoll_event e = {};
  e.events = wanted;
  int r;
  if (wanted == 0) {
    r = epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, &e);
    d->registered = 0;
    return r < 0 ? -errno : 0;
  }
  if (d->registered == 0) ++d->epoch;
  e.data.u64 = uint64_t{d->epoch} << 32 | static_cast<uint32_t>(fd);
  r = epoll_ctl(epoll_, d->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &e);
  // The number may have been closed, or closed and opened again, without us.
  if (r < 0 && errno == ENOENT) r = epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &e);
  if (r < 0 && errno == EEXIST) r = epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &e);
  if (r < 0) return -errno;
  d->registered = wanted;
  return 0;
}

int64_t EpollEngine::Watch(int fd, Descriptor* d) {
  if (d->has_operations) return kPending;
  d->has_operations = true;
  int r = Register(fd, d);
  if (r == 0) return kPending;
  d->has_operations = false;
  return r;
}

int EpollEngine::Arm(uint32_t index, Slot* slot, Descriptor* d) {
  slot->armed = true;
  uint32_t before = d->registered;
  int r = Register(slot->fd, d);
  if (r < 0) {
    slot->armed = false;
    return r;
  }
  if (before != 0 && before == d->registered && (before & EPOLLET)) {
    // No call was made that would have told what is ready already.
    pollfd p = {slot->fd, static_cast<short>(slot->events), 0};
    PollNow({&p, 1});
    if (p.revents) core_->Fire(index, static_cast<uint32_t>(p.revents));
  }
  return 0;
}

void EpollEngine::Disarm(uint32_t, Slot* slot, Descriptor* d) {
  slot->armed = false;
  slot->hushed = false;
  // An edge-triggered registration costs nothing while it is silent, and will
  // probably be wanted again.
  if (slot->flags & kOneShot || slot->flags & kDispatch || d->has_operations) {
    if (d->registered & EPOLLET) return;
  }
  Register(slot->fd, d);
}

// The kernel would report it at once, over and over.
void EpollEngine::Hush(uint32_t, Slot* slot, Descriptor* d) {
  if (!NativeLevel(*d)) return;
  slot->hushed = true;
  Register(slot->fd, d);
}

void EpollEngine::Retest(std::span<const uint32_t> slots) {
  // First, for it may change how others of the same descriptor are watched.
  for (uint32_t index : slots) {
    Slot& slot = core_->slot(index);
    if (!slot.hushed) continue;
    slot.hushed = false;
    Register(slot.fd, core_->Get(slot.fd));
  }
  polls_.clear();
  polled_.clear();
  for (uint32_t index : slots) {
    const Slot& slot = core_->slot(index);
    // Where the registration is level-triggered the kernel tests it.
    if (NativeLevel(*core_->Get(slot.fd))) continue;
    polls_.push_back({slot.fd, static_cast<short>(slot.events), 0});
    polled_.push_back(index);
  }
  PollNow(polls_);
  for (size_t i = 0; i < polls_.size(); ++i) {
    if (short revents = polls_[i].revents) {
      core_->Fire(polled_[i], static_cast<uint32_t>(revents));
    }
  }
}

void EpollEngine::Forget(int fd, Descriptor* d) {
  // Closing removes an edge-triggered registration well enough: should a
  // duplicate live on, its events carry an old epoch.
  if (NativeLevel(*d)) {
    epoll_event e = {};
    epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, &e);
  }
}

int EpollEngine::AddPool(Pool* pool) {
  for (uint32_t i = pool->buffers->size(); i > 0; --i) {
    pool->free.push_back(static_cast<uint16_t>(i - 1));
  }
  return 0;
}

// --- Operations: tried first, armed on EAGAIN.

int64_t EpollEngine::Start(Operation* op, Descriptor* d) {
  switch (op->opcode) {
    case Opcode::kAccept:
      return StartAccept(static_cast<AcceptOp*>(op), d);
    case Opcode::kConnect:
      return StartConnect(static_cast<ConnectOp*>(op), d);
    case Opcode::kRecv:
      return StartRecv(static_cast<RecvOp*>(op), d);
    case Opcode::kSend:
      return StartSend(static_cast<SendOp*>(op), d);
    case Opcode::kSendfile:
      return StartSendfile(static_cast<SendfileOp*>(op), d);
    default:
      return -EINVAL;
  }
}

int64_t EpollEngine::StartAccept(AcceptOp* op, Descriptor* d) {
  if (op->q.started == 0) {
    op->q.started = 1;
    // Whatever was seen of that number before: on a listener that blocks the
    // whole queue would hang.
    d->non_blocking = false;
    if (int r = Core::MakeNonBlocking(op->fd, d); r < 0) return r;
    if (d->type == 0) d->type = SocketType(op->fd);
  }
  const bool multishot = op->flags & kOpMultishot;
  for (int turn = 0; d->may_read; ++turn) {
    if (multishot && !core_->HasRoom()) {
      core_->Stall(op);
      return kPending;
    }
    if (turn == kAcceptTurn) {
      core_->Yield(op);
      return kPending;
    }
    int r = TryAccept(op->fd);
    if (r == -EAGAIN) {
      d->may_read = false;
      break;
    }
    if (r < 0) return r;
    core_->NewDescriptor(r, d->type);
    if (!multishot) return r;
    core_->Deliver(op, r, 0, false);
    // To ask is cheap; accept makes a file before it finds that there is none
    // to be had, and takes ten times as long to say so.
    d->may_read = IsReady(op->fd, POLLIN);
  }
  // Registering reports what comes between; once registered an edge does.
  return Watch(op->fd, d);
}

int64_t EpollEngine::StartConnect(ConnectOp* op, Descriptor* d) {
  if (op->q.started == 0) {
    if (int r = Core::MakeNonBlocking(op->fd, d); r < 0) return r;
    op->q.started = 1;
    if (connect(op->fd, reinterpret_cast<sockaddr*>(&op->address),
                op->address_length) == 0) {
      return 0;
    }
    if (errno != EINPROGRESS && errno != EINTR) return -errno;
    // What was known of the unconnected socket is void.
    d->may_read = d->may_write = true;
    d->hang_up = false;
    return Watch(op->fd, d);
  }
  if (!IsReady(op->fd, POLLOUT)) return kPending;
  int error = 0;
  socklen_t length = sizeof error;
  if (getsockopt(op->fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0) {
    return -errno;
  }
  d->hang_up = false;
  return -error;
}

int64_t EpollEngine::StartRecv(RecvOp* op, Descriptor* d) {
  if (op->flags & kOpPollFirst && op->q.started == 0) {
    op->q.started = 1;
    if (d->registered == 0) d->may_read = false;
  }
  const bool multishot = op->flags & kOpMultishot;
  Pool* pool = op->pool ? core_->PoolOf(op->pool) : nullptr;
  while (d->may_read) {
    void* buffer = op->buffer;
    uint32_t size = op->size;
    uint16_t id = 0;
    if (pool) {
      if (multishot && !core_->HasRoom()) {
        core_->Stall(op);
        return kPending;
      }
      if (pool->free.empty()) {
        core_->Starve(pool, op);
        return kPending;
      }
      id = pool->free.back();
      buffer = op->pool->data(id);
      size = op->pool->buffer_size();
    }
    int64_t n = TryRecv(op->fd, buffer, size);
    if (n == -EAGAIN) {
      d->may_read = false;
      break;
    }
    if (n > 0 && n < size && d->registered & EPOLLET && !d->hang_up) {
      // epoll(7): a short read of a stream says that it is drained, and the
      // next byte makes an edge. The end of the stream may have been announced
      // already.
      if (d->type == 0) d->type = SocketType(op->fd);
      if (d->type == SOCK_STREAM) d->may_read = false;
    }
    if (pool && n > 0) {
      pool->free.pop_back();
      core_->Lend(pool, id);
      if (multishot) {
        core_->Deliver(op, n, id, true);
        continue;
      }
      op->buffer_id = id;
      op->q.bits |= kBitBuffer;
    }
    return n;
  }
  return Watch(op->fd, d);
}

int64_t EpollEngine::StartSend(SendOp* op, Descriptor* d) {
  if (d->may_write) {
    int64_t r = core_->SendNow(op, d);
    if (r == kPending) return kPending;
    if (r == 0) {
      return Fault(FaultPoint::kShortSendDone) ? TotalLength(*op) : op->q.done;
    }
    if (r != -EAGAIN) return core_->EarlyEnd(op, static_cast<int>(r));
    d->may_write = false;
  }
  int64_t r = Watch(op->fd, d);
  return r == kPending ? r : core_->EarlyEnd(op, static_cast<int>(r));
}

int64_t EpollEngine::StartSendfile(SendfileOp* op, Descriptor* d) {
  if (int r = Core::MakeNonBlocking(op->fd, d); r < 0) return r;
  // A thread reads for it: room in the socket is of no use now.
  if (op->s.job || op->q.bits & kBitYield) return kPending;
  if (op->q.bits & kBitWriteWait) {
    // Another thread met the full socket: the edge may have passed meanwhile.
    // Setting the mask again reports what is ready.
    op->q.bits &= ~kBitWriteWait;
    d->may_write = false;
    d->has_operations = true;
    if (d->registered) d->registered = ~0u;
    int r = Register(op->fd, d);
    return r < 0 ? core_->EarlyEnd(op, r) : kPending;
  }
  if (d->may_write) {
    bool would_block;
    int64_t r = core_->TrySendfile(op, &would_block);
    if (r != kPending || !would_block) return r;
    d->may_write = false;
  }
  int64_t r = Watch(op->fd, d);
  return r == kPending ? r : core_->EarlyEnd(op, static_cast<int>(r));
}

// --- Waiting.

int EpollEngine::Poll(int64_t until_ns, const sigset_t* mask) {
  found_ = 0;
  const int64_t timeout_ns = LeftNs(until_ns);
  int n;
  if (timeout_ns <= 0 && !mask) {
    n = epoll_wait(epoll_, events_, batch_, timeout_ns < 0 ? -1 : 0);
  } else {
    timespec ts = {timeout_ns / kSecond, timeout_ns % kSecond};
    n = epoll_pwait2(epoll_, events_, batch_, timeout_ns < 0 ? nullptr : &ts,
                     mask);
    if (n < 0 && errno == ENOSYS) {  // before Linux 5.11
      int64_t ms =
          std::min<int64_t>((timeout_ns + 999'999) / 1'000'000, 1 << 30);
      n = epoll_pwait(epoll_, events_, kBatch,
                      timeout_ns < 0 ? -1 : static_cast<int>(ms), mask);
    }
  }
  if (n < 0) return -errno;
  found_ = n;
  return 0;
}

void EpollEngine::Process() {
  int n = found_;
  found_ = 0;
  int receives = 0;
  for (int i = 0; i < n; ++i) {
    const epoll_event& e = events_[i];
    if (e.data.u64 == kWakeTag) continue;
    int fd = static_cast<int>(e.data.u64 & 0xffffffff);
    Descriptor* d = core_->Get(fd);
    if (d->epoch != static_cast<uint32_t>(e.data.u64 >> 32)) continue;
    if (e.events & (EPOLLRDHUP | kEnd)) d->hang_up = true;
    if (e.events & (EPOLLIN | EPOLLRDHUP | kEnd)) {
      d->may_read = true;
      if (d->recv.head) {
        core_->ResumeStarted(d->recv.head);
        ++receives;
      }
    }
    if (e.events & (EPOLLOUT | kEnd)) {
      d->may_write = true;
      if (d->send.head) core_->ResumeStarted(d->send.head);
    }
    for (uint32_t s = d->interests; s != kNoSlot;) {
      uint32_t next = core_->slot(s).next;
      if (core_->slot(s).armed) core_->Fire(s, e.events);
      s = next;
    }
  }
  if (n > 0) batch_ = 2 * receives > n ? kRecvBatch : kBatch;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> NewEpollEngine(Core* core) {
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0) return absl::ErrnoToStatus(errno, "epoll_create1");
  auto engine = std::make_unique<EpollEngine>(core, epoll);
  if (absl::Status s = engine->Init(); !s.ok()) return s;
  return engine;
}

}  // namespace kevent::internal
