// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <vector>

#include "kevent/queue/core.h"
#include "kevent/queue/engine.h"
#include "kevent/queue/tags.h"
#include "kevent/queue/transfer.h"

namespace kevent::internal {
namespace {

constexpr unsigned kSubmissions = 1024;
constexpr size_t kGathers = 128;      // gather lists in one submission
constexpr size_t kGatherPieces = 16;  // of each, handed over at a time
constexpr int64_t kSecond = 1'000'000'000;

// Operation::q.started.
constexpr uint8_t kNotInKernel = 0;
constexpr uint8_t kInKernel = 1;
constexpr uint8_t kPolling = 2;  // waits for readiness, then is tried again

// Whether the kernel may lose signals to a registered eventfd, see
// RenewPollable. Linux 7.1 never does. Old ones do not either, but kernels of
// distributions have newer parts than their number tells.
bool MayLoseSignals() {
  utsname name;
  unsigned major, minor;
  if (uname(&name) < 0 || sscanf(name.release, "%u.%u", &major, &minor) != 2) {
    return true;
  }
  return major < 7 || (major == 7 && minor < 1);
}

struct Gather {
  msghdr message;
  iovec pieces[kGatherPieces];
};

struct Ring {
  io_uring_buf_ring* entries = nullptr;
  size_t bytes = 0;
  BufferPool* buffers = nullptr;
};

class UringEngine final : public Engine {
 public:
  explicit UringEngine(Core* core) : core_(core) {}
  ~UringEngine() override;

  absl::Status Init();

  int64_t Start(Operation* op, Descriptor* d) override;
  bool Cancel(Operation* op, Descriptor* d) override;
  int Arm(uint32_t index, Slot* slot, Descriptor* d) override;
  void Disarm(uint32_t index, Slot* slot, Descriptor* d) override;
  void Retest(std::span<const uint32_t> slots) override;
  void Forget(int fd, Descriptor* d) override;
  int AddPool(Pool* pool) override;
  void Provide(Pool* pool, uint16_t id) override;
  int Flush() override;
  int Poll(int64_t until_ns, const sigset_t* mask) override;
  void Process() override;
  void Wake() override {
    uint64_t one = 1;
    ssize_t r = write(wake_, &one, sizeof one);
    static_cast<void>(r);
  }
  bool HasUnprocessed() const override {
    return io_uring_cq_ready(&ring_) > 0 || io_uring_cq_has_overflow(&ring_);
  }
  int PollableFd() override;
  void Shutdown() override;

 private:
  io_uring_sqe* Get();
  Gather* GetGather();
  void FreeGathers();
  void Enable();
  void ArmWake();
  void RenewPollable();
  void Issue(Operation* op, Descriptor* d, io_uring_sqe* sqe, uint8_t how);
  void PollFor(Operation* op, Descriptor* d);
  bool Handle(const io_uring_cqe& cqe);
  bool HandleOperation(Operation* op, const io_uring_cqe& cqe);
  void HandleSlot(const io_uring_cqe& cqe);

  Core* const core_;
  io_uring ring_ = {};
  bool open_ = false;
  bool enabled_ = false;
  bool cancels_waiting_ = false;  // in the submission queue
  int wake_ = -1;
  int pollable_ = -1;  // eventfd that the kernel writes with each entry
  bool renews_pollable_ = false;
  uint64_t in_kernel_ = 0;  // operations it holds
  std::unique_ptr<Gather[]> gathers_;
  size_t gathers_used_ = 0;
  std::vector<Ring> rings_;  // by pool group
};

absl::Status UringEngine::Init() {
  wake_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (wake_ < 0) return absl::ErrnoToStatus(errno, "eventfd");
  io_uring_params p = {};
  p.flags =
      IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_R_DISABLED;
  if (!core_->many_threads()) {
    p.flags |= IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
               IORING_SETUP_TASKRUN_FLAG;
  }
  constexpr uint32_t kMaxCompletions = 1 << 16;  // the kernel's
  p.cq_entries = std::clamp(
      std::bit_ceil(std::min(core_->ring_entries(), kMaxCompletions)),
      2 * kSubmissions, kMaxCompletions);
  int r = io_uring_queue_init_params(kSubmissions, &ring_, &p);
  if (r == -EINVAL) {
    return absl::UnavailableError("io_uring of Linux 6.1 or later is needed");
  }
  if (r < 0) {
    return absl::ErrnoToStatus(-r, "io_uring_setup is refused");
  }
  open_ = true;
  constexpr unsigned kFeatures =
      IORING_FEAT_EXT_ARG | IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE;
  io_uring_probe* probe = io_uring_get_probe_ring(&ring_);
  // SEND_ZC came with Linux 6.0, as did multishot recv, which cannot be asked
  // for.
  bool supported = probe && io_uring_opcode_supported(probe, IORING_OP_SEND_ZC);
  if (probe) io_uring_free_probe(probe);
  if (!supported || (p.features & kFeatures) != kFeatures) {
    return absl::UnavailableError("io_uring of Linux 6.1 or later is needed");
  }
  gathers_.reset(new Gather[kGathers]);
  ArmWake();
  return absl::OkStatus();
}

UringEngine::~UringEngine() {
  if (open_) io_uring_queue_exit(&ring_);
  if (wake_ >= 0) close(wake_);
  if (pollable_ >= 0) close(pollable_);
  for (Ring& ring : rings_) {
    if (ring.entries) free(ring.entries);
  }
}

// The ring belongs to the thread that enables it.
void UringEngine::Enable() {
  if (enabled_) return;
  enabled_ = true;
  // Debian 12's liburing declares io_uring_enable_rings without exporting it.
  syscall(SYS_io_uring_register, ring_.ring_fd, IORING_REGISTER_ENABLE_RINGS,
          nullptr, 0);
}

io_uring_sqe* UringEngine::Get() {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  while (!sqe) {
    Flush();
    sqe = io_uring_get_sqe(&ring_);
  }
  return sqe;
}

Gather* UringEngine::GetGather() {
  if (gathers_used_ == kGathers) Flush();
  return gathers_used_ == kGathers ? nullptr : &gathers_[gathers_used_++];
}

// What has not been submitted still points at them.
void UringEngine::FreeGathers() {
  if (io_uring_sq_ready(&ring_) == 0) gathers_used_ = 0;
}

int UringEngine::Flush() {
  Enable();
  int r = 0;
  if (io_uring_sq_ready(&ring_) > 0) r = io_uring_submit(&ring_);
  FreeGathers();
  return r;
}

void UringEngine::ArmWake() {
  io_uring_sqe* sqe = Get();
  io_uring_prep_poll_multishot(sqe, wake_, POLLIN);
  sqe->user_data = kTagWake;
}

// --- Operations.

void UringEngine::Issue(Operation* op, Descriptor* d, io_uring_sqe* sqe,
                        uint8_t how) {
  sqe->user_data = TagOf(op);
  op->q.started = how;
  ++in_kernel_;
  core_->EnterKernel(op, d);
}

void UringEngine::PollFor(Operation* op, Descriptor* d) {
  const bool reads =
      op->opcode == Opcode::kAccept || op->opcode == Opcode::kRecv;
  io_uring_sqe* sqe = Get();
  io_uring_prep_poll_add(sqe, op->fd, reads ? POLLIN | POLLRDHUP : POLLOUT);
  Issue(op, d, sqe, kPolling);
}

int64_t UringEngine::Start(Operation* op, Descriptor* d) {
  if (op->q.started != kNotInKernel) return kPending;
  const bool multishot = op->flags & kOpMultishot;
  if (multishot && !core_->HasRoom()) {
    core_->Stall(op);
    return kPending;
  }
  switch (op->opcode) {
    case Opcode::kAccept: {
      io_uring_sqe* sqe = Get();
      // Non-blocking for the sake of sendfile(2), which has no flag for it.
      constexpr int kFlags = SOCK_CLOEXEC | SOCK_NONBLOCK;
      if (multishot) {
        io_uring_prep_multishot_accept(sqe, op->fd, nullptr, nullptr, kFlags);
      } else {
        io_uring_prep_accept(sqe, op->fd, nullptr, nullptr, kFlags);
      }
      Issue(op, d, sqe, kInKernel);
      return kPending;
    }
    case Opcode::kConnect: {
      auto* connect = static_cast<ConnectOp*>(op);
      io_uring_sqe* sqe = Get();
      io_uring_prep_connect(sqe, op->fd,
                            reinterpret_cast<sockaddr*>(&connect->address),
                            connect->address_length);
      Issue(op, d, sqe, kInKernel);
      return kPending;
    }
    case Opcode::kRecv: {
      auto* recv = static_cast<RecvOp*>(op);
      if (recv->pool && core_->PoolOf(recv->pool)->available == 0) {
        core_->Starve(core_->PoolOf(recv->pool), op);
        return kPending;
      }
      op->q.bits &= ~kBitServed;
      io_uring_sqe* sqe = Get();
      if (multishot) {
        io_uring_prep_recv_multishot(sqe, op->fd, nullptr, 0, 0);
      } else {
        io_uring_prep_recv(sqe, op->fd, recv->pool ? nullptr : recv->buffer,
                           recv->pool ? recv->pool->buffer_size() : recv->size,
                           0);
      }
      if (recv->pool) {
        sqe->flags |= IOSQE_BUFFER_SELECT;
        sqe->buf_group = core_->PoolOf(recv->pool)->group;
      }
      if (op->flags & kOpPollFirst) sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
      Issue(op, d, sqe, kInKernel);
      return kPending;
    }
    case Opcode::kSend: {
      auto* send = static_cast<SendOp*>(op);
      // By reference: the ring could only copy. If another one follows: it goes
      // no further than the socket, and needs no turn of the ring.
      if ((send->by_reference && core_->SendsByReference()) ||
          (send->more && TotalLength(*send) - op->q.done <= kShort)) {
        int64_t r = core_->SendNow(send, d);
        if (r == kPending) return kPending;
        if (r == 0) return TotalLength(*send);
        if (r != -EAGAIN) return core_->EarlyEnd(op, static_cast<int>(r));
        PollFor(op, d);
        return kPending;
      }
      bool all;
      int flags = MSG_NOSIGNAL | MSG_WAITALL | (send->more ? MSG_MORE : 0);
      if (Fault(FaultPoint::kShortSendDone)) flags &= ~MSG_WAITALL;
      if (send->pieces.size() == 1) {
        const iovec& piece = send->pieces[0];
        const size_t done = static_cast<size_t>(op->q.done);
        const size_t size = std::min(piece.iov_len - done, kMaxTransfer);
        if (size < piece.iov_len - done) flags |= MSG_MORE;
        io_uring_sqe* sqe = Get();
        io_uring_prep_send(sqe, op->fd,
                           static_cast<char*>(piece.iov_base) + done, size,
                           flags);
        Issue(op, d, sqe, kInKernel);
        return kPending;
      }
      Gather* gather = GetGather();
      if (!gather) {  // the kernel takes nothing just now
        core_->Yield(op);
        return kPending;
      }
      size_t pieces = RestOf(*send, gather->pieces, &all);
      if (pieces == 0) return op->q.done;
      if (!all) flags |= MSG_MORE;
      gather->message = {};
      gather->message.msg_iov = gather->pieces;
      gather->message.msg_iovlen = pieces;
      // Get may flush and so give the gather up: it is taken again then.
      io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
      if (!sqe) {
        Flush();
        return Start(op, d);
      }
      io_uring_prep_sendmsg(sqe, op->fd, &gather->message,
                            static_cast<unsigned>(flags));
      Issue(op, d, sqe, kInKernel);
      return kPending;
    }
    case Opcode::kSendfile: {
      auto* sendfile = static_cast<SendfileOp*>(op);
      if (sendfile->s.job || op->q.bits & kBitYield) return kPending;
      if (op->q.bits & kBitWriteWait) {
        op->q.bits &= ~kBitWriteWait;
        PollFor(op, d);
        return kPending;
      }
      if (int r = Core::MakeNonBlocking(op->fd, d); r < 0) return r;
      bool would_block;
      int64_t r = core_->TrySendfile(sendfile, &would_block);
      if (r == kPending && would_block) PollFor(op, d);
      return r;
    }
    default:
      return -EINVAL;
  }
}

bool UringEngine::Cancel(Operation* op, Descriptor*) {
  if (op->q.started == kNotInKernel) return true;
  io_uring_sqe* sqe = Get();
  io_uring_prep_cancel64(sqe, TagOf(op), 0);
  sqe->user_data = kTagIgnore;
  cancels_waiting_ = true;
  return false;
}

// --- Poll interests.

int UringEngine::Arm(uint32_t index, Slot* slot, Descriptor*) {
  io_uring_sqe* sqe = Get();
  ++slot->arm;
  if (slot->internal || (slot->flags & kEdge && !(slot->flags & kOneShot) &&
                         !(slot->flags & kDispatch))) {
    io_uring_prep_poll_multishot(sqe, slot->fd, slot->events);
  } else {
    io_uring_prep_poll_add(sqe, slot->fd, slot->events);
  }
  sqe->user_data = TagOf(index, *slot);
  slot->armed = true;
  return 0;
}

void UringEngine::Disarm(uint32_t index, Slot* slot, Descriptor*) {
  io_uring_sqe* sqe = Get();
  io_uring_prep_cancel64(sqe, TagOf(index, *slot), 0);
  sqe->user_data = kTagIgnore;
  cancels_waiting_ = true;
  ++slot->arm;  // what it still reports is of the past
  slot->armed = false;
}

void UringEngine::Retest(std::span<const uint32_t> slots) {
  for (uint32_t index : slots) {
    Slot& slot = core_->slot(index);
    if (!slot.armed) Arm(index, &slot, nullptr);
  }
}

void UringEngine::Forget(int, Descriptor*) {
  // A poll that is still waiting would hold the file open.
  if (!cancels_waiting_) return;
  cancels_waiting_ = false;
  Enable();
  io_uring_submit_and_get_events(&ring_);
  FreeGathers();
}

// --- Buffer pools.

int UringEngine::AddPool(Pool* pool) {
  const uint32_t n = pool->buffers->size();
  Ring ring;
  ring.bytes = n * sizeof(io_uring_buf);
  ring.buffers = pool->buffers;
  void* memory = nullptr;
  if (posix_memalign(&memory, 4096, std::max<size_t>(ring.bytes, 4096)) != 0) {
    return -ENOMEM;
  }
  ring.entries = static_cast<io_uring_buf_ring*>(memory);
  io_uring_buf_reg reg = {};
  reg.ring_addr = reinterpret_cast<uintptr_t>(memory);
  reg.ring_entries = n;
  reg.bgid = pool->group;
  int r = io_uring_register_buf_ring(&ring_, &reg, 0);
  if (r < 0) {
    free(memory);
    return r;
  }
  io_uring_buf_ring_init(ring.entries);
  rings_.resize(pool->group + 1u);
  rings_[pool->group] = ring;
  for (uint32_t i = 0; i < n; ++i) Provide(pool, static_cast<uint16_t>(i));
  return 0;
}

void UringEngine::Provide(Pool* pool, uint16_t id) {
  Ring& ring = rings_[pool->group];
  io_uring_buf_ring_add(ring.entries, ring.buffers->data(id),
                        ring.buffers->buffer_size(), id,
                        io_uring_buf_ring_mask(ring.buffers->size()), 0);
  io_uring_buf_ring_advance(ring.entries, 1);
}

// --- Waiting.

// The ring's own descriptor does not announce work that is deferred to the next
// call (IORING_SETUP_DEFER_TASKRUN).
int UringEngine::PollableFd() {
  if (pollable_ >= 0) return pollable_;
  int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (fd < 0) return -errno;
  if (int r = io_uring_register_eventfd(&ring_, fd); r < 0) {
    close(fd);
    return r;
  }
  // Other rings are signalled by tasks only, which needs no deferring.
  renews_pollable_ = !core_->many_threads() && MayLoseSignals();
  return pollable_ = fd;
}

// A kernel that finds work for this ring within a wake-up may have to leave the
// signal to an RCU callback: where the wake-up is that of an eventfd, and since
// 6.12.114 and its like in all of them. It notes that the callback is under
// way, so as not to queue it twice, and without "io_uring/eventfd: reset
// deferred signal state" it never drops that note: the second such signal and
// all later ones are lost. The note belongs to the registration. While the
// callback is under way the eventfd is yet to become readable, so it is enough
// to register anew when a signal was read. Work that is found in between
// signals nobody: the kernel has to be asked after this. By the same fault such
// a kernel never frees a registration that it has noted so, 64 bytes.
void UringEngine::RenewPollable() {
  io_uring_unregister_eventfd(&ring_);
  if (io_uring_register_eventfd(&ring_, pollable_) == 0) return;
  uint64_t one = 1;  // no memory: stays readable, so that it is tried again
  ssize_t r = write(pollable_, &one, sizeof one);
  static_cast<void>(r);
}

int UringEngine::Poll(int64_t until_ns, const sigset_t* mask) {
  bool renewed = false;
  if (pollable_ >= 0) {
    uint64_t count;  // before the entries are looked at
    ssize_t r = read(pollable_, &count, sizeof count);
    if (r > 0 && renews_pollable_) {
      RenewPollable();
      renewed = true;
    }
  }
  if (core_->many_threads()) {
    if (io_uring_cq_ready(&ring_) > 0) return 0;
    const int64_t left_ns = LeftNs(until_ns);
    if (left_ns == 0) return 0;
    const __kernel_timespec ts = {left_ns / kSecond, left_ns % kSecond};
    io_uring_getevents_arg arg = {};
    arg.sigmask = reinterpret_cast<uintptr_t>(mask);
    arg.sigmask_sz = _NSIG / 8;
    arg.ts = left_ns < 0 ? 0 : reinterpret_cast<uintptr_t>(&ts);
    int r = io_uring_enter2(static_cast<unsigned>(ring_.ring_fd), 0, 1,
                            IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG,
                            reinterpret_cast<sigset_t*>(&arg), sizeof arg);
    return r == -EINTR ? r : 0;
  }
  Enable();
  int r;
  cancels_waiting_ = false;
  const int64_t left_ns = io_uring_cq_ready(&ring_) > 0 ? 0 : LeftNs(until_ns);
  if (left_ns == 0) {
    constexpr unsigned kWork = IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW;
    if (!renewed && io_uring_sq_ready(&ring_) == 0 &&
        !(__atomic_load_n(ring_.sq.kflags, __ATOMIC_RELAXED) & kWork)) {
      return 0;
    }
    r = io_uring_submit_and_get_events(&ring_);
  } else {
    io_uring_cqe* cqe;
    __kernel_timespec ts = {left_ns / kSecond, left_ns % kSecond};
    const unsigned submitted = io_uring_sq_ready(&ring_);
    r = io_uring_submit_and_wait_timeout(&ring_, &cqe, 1,
                                         left_ns < 0 ? nullptr : &ts,
                                         const_cast<sigset_t*>(mask));
    // A call that has submitted something returns that and not why it ended.
    if (r >= 0 && submitted > 0 && io_uring_cq_ready(&ring_) == 0 &&
        NowNs(CLOCK_MONOTONIC) < until_ns) {
      r = -EINTR;
    }
  }
  FreeGathers();
  return r == -EINTR ? r : 0;
}

void UringEngine::Process() {
  io_uring_cqe* cqe;
  unsigned head;
  unsigned handled = 0;
  io_uring_for_each_cqe(&ring_, head, cqe) {
    if (!Handle(*cqe)) break;
    ++handled;
  }
  io_uring_cq_advance(&ring_, handled);
}

bool UringEngine::Handle(const io_uring_cqe& cqe) {
  switch (cqe.user_data & kTagMask) {
    case kTagOperation:
      return HandleOperation(OperationOf(cqe.user_data), cqe);
    case kTagSlot:
      HandleSlot(cqe);
      return true;
    case kTagWake:
      if (!(cqe.flags & IORING_CQE_F_MORE)) ArmWake();
      return true;
    default:
      return true;
  }
}

void UringEngine::HandleSlot(const io_uring_cqe& cqe) {
  uint32_t index = SlotIndexOf(cqe.user_data);
  if (index >= core_->slots().size()) return;
  Slot& slot = core_->slot(index);
  if (!IsOfArm(cqe.user_data, slot) || !slot.armed) return;
  const bool more = cqe.flags & IORING_CQE_F_MORE;
  if (!more) slot.armed = false;
  if (cqe.res == -ECANCELED) {
    // Not by us: the thread that had submitted it has ended.
    Arm(index, &slot, nullptr);
    return;
  }
  uint32_t arm = slot.arm;
  core_->Fire(index,
              cqe.res < 0 ? uint32_t{POLLERR} : static_cast<uint32_t>(cqe.res));
  const bool edge = slot.internal || slot.flags & kEdge;
  if (!more && edge && slot.arm == arm && slot.enabled() && !slot.armed &&
      cqe.res >= 0) {
    Arm(index, &slot, nullptr);
  }
}

// False: there is no room for its entry, it stays in the completion queue.
bool UringEngine::HandleOperation(Operation* op, const io_uring_cqe& cqe) {
  const bool multishot = op->flags & kOpMultishot;
  const bool more = cqe.flags & IORING_CQE_F_MORE;
  const int res = cqe.res;
  const bool delivers =
      multishot && (res > 0 || (res == 0 && op->opcode == Opcode::kAccept)) &&
      op->q.started == kInKernel;
  if (delivers && !core_->HasRoom()) return false;
  Descriptor* d = core_->Get(op->fd);
  const uint8_t how = op->q.started;
  if (!more) {
    op->q.started = kNotInKernel;
    --in_kernel_;
    core_->LeaveKernel(op, d);
  }
  const bool cancelled = op->q.bits & kBitCancel;
  if (how == kPolling) {
    if (cancelled) {
      core_->Complete(op, core_->EarlyEnd(op, -ECANCELED));
    } else {
      core_->Resume(op);
    }
    return true;
  }
  if (res == -EAGAIN && !more && !cancelled) {
    PollFor(op, d);  // kernels that fail non-blocking files at once
    return true;
  }
  if ((res == -EINTR || (res == -ECANCELED && !cancelled)) && !more) {
    core_->Resume(op);  // the thread that had submitted it has ended
    return true;
  }
  switch (op->opcode) {
    case Opcode::kAccept:
      if (res >= 0) core_->NewDescriptor(res, SOCK_STREAM);
      if (res == -ECONNABORTED && !cancelled && !more) {
        core_->Resume(op);
        return true;
      }
      break;
    case Opcode::kRecv: {
      auto* recv = static_cast<RecvOp*>(op);
      if (cqe.flags & IORING_CQE_F_BUFFER) {
        Pool* pool = core_->PoolOf(recv->pool);
        uint16_t id =
            static_cast<uint16_t>(cqe.flags >> IORING_CQE_BUFFER_SHIFT);
        if (res <= 0) {
          Provide(pool, id);
        } else {
          core_->Lend(pool, id);
          op->q.bits |= kBitServed;
          recv->buffer_id = id;
          if (!multishot) op->q.bits |= kBitBuffer;
        }
      }
      if (res == -ENOBUFS && recv->pool && !cancelled) {
        core_->Starve(core_->PoolOf(recv->pool), op,
                      !(op->q.bits & kBitServed));
        return true;
      }
      break;
    }
    case Opcode::kSend:
      if (res >= 0) {
        op->q.done += res;
        if (Fault(FaultPoint::kShortSendDone)) {
          op->q.done = TotalLength(*static_cast<SendOp*>(op));
        }
        if (op->q.done < TotalLength(*static_cast<SendOp*>(op)) && !cancelled &&
            res > 0) {
          core_->Resume(op);
          return true;
        }
        core_->Complete(op, op->q.done);
      } else {
        core_->Complete(op, core_->EarlyEnd(op, res));
      }
      return true;
    default:
      break;
  }
  if (delivers) {
    bool buffer = cqe.flags & IORING_CQE_F_BUFFER;
    core_->Deliver(op, res,
                   buffer ? static_cast<RecvOp*>(op)->buffer_id : uint16_t{0},
                   buffer);
    if (more) return true;
    if (cancelled) {
      core_->Complete(op, -ECANCELED);
    } else {
      core_->Resume(op);
    }
    return true;
  }
  core_->Complete(op, res);
  return true;
}

void UringEngine::Shutdown() {
  if (!open_ || !enabled_) return;
  io_uring_sqe* sqe = Get();
  io_uring_prep_cancel64(sqe, 0,
                         IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
  sqe->user_data = kTagIgnore;
  for (int turn = 0; in_kernel_ > 0 && turn < 100; ++turn) {
    __kernel_timespec ts = {0, 100'000'000};
    io_uring_cqe* cqe;
    int r = io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &ts, nullptr);
    // Another thread's ring: that thread has ended and all of it was cancelled.
    if (r == -EEXIST) return;
    unsigned head;
    unsigned handled = 0;
    io_uring_for_each_cqe(&ring_, head, cqe) {
      ++handled;
      if ((cqe->user_data & kTagMask) != kTagOperation) continue;
      Operation* op = OperationOf(cqe->user_data);
      if (op->opcode == Opcode::kAccept && cqe->res >= 0) close(cqe->res);
      if (!(cqe->flags & IORING_CQE_F_MORE)) --in_kernel_;
    }
    io_uring_cq_advance(&ring_, handled);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> NewUringEngine(Core* core) {
  auto engine = std::make_unique<UringEngine>(core);
  if (absl::Status s = engine->Init(); !s.ok()) return s;
  return engine;
}

}  // namespace kevent::internal
