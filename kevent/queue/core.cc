// SPDX-License-Identifier: Apache-2.0
#include "kevent/queue/core.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace kevent {

void Operation::DestroyedInFlight(const Operation* op) {
  fprintf(stderr,
          "kevent: operation %p (opcode %d, descriptor %d) was destroyed in "
          "flight\n",
          static_cast<const void*>(op), static_cast<int>(op->opcode), op->fd);
  abort();
}

}  // namespace kevent

namespace kevent::internal {

using State = Operation::State;

namespace {

// While an operation is blocked, `done` is its predecessor's address: should it
// end first, the predecessor must not touch its link any more.
void SetBefore(Operation* op, Operation* before) {
  op->q.done = static_cast<int64_t>(reinterpret_cast<uintptr_t>(before));
}

Operation* TakeBefore(Operation* op) {
  auto* before = reinterpret_cast<Operation*>(
      static_cast<uintptr_t>(std::exchange(op->q.done, 0)));
  return before;
}

bool IsSendSide(Opcode opcode) {
  return opcode == Opcode::kSend || opcode == Opcode::kSendfile ||
         opcode == Opcode::kShutdown || opcode == Opcode::kConnect;
}

}  // namespace

Core::Core(const Queue::Options& options)
    : options_(options),
      many_threads_(options.sharing == Queue::Sharing::kManyThreads),
      ring_(std::bit_ceil(std::clamp(options.ring_entries, 2u, 1u << 24))),
      timers_(this),
      signals_(this),
      inodes_(this),
      populator_(options.populate_threads) {
  populator_.SetDone(OnPopulated, this);
}

void Core::Attach(std::unique_ptr<Engine> engine, EngineKind kind,
                  std::string reason) {
  engine_ = std::move(engine);
  kind_ = kind;
  reason_ = std::move(reason);
}

Core::~Core() {
  populator_.Stop();
  if (engine_) engine_->Shutdown();
  auto forget = [](Operation* op) { op->q.state = State::kIdle; };
  descriptors_.ForEach([&](int, Descriptor* d) {
    while (Operation* op = d->recv.PopFront()) forget(op);
    while (Operation* op = d->send.PopFront()) {
      if (op->q.bits & kBitCorked) Uncork(op->fd);
      forget(op);
    }
  });
  for (auto& [fd, closer] : closers_) forget(closer);
  // Nobody else knows of a connection whose entry was not taken.
  auto drop = [](const Operation* op, int64_t result) {
    if (op->opcode == Opcode::kAccept && result >= 0) {
      close(static_cast<int>(result));
    }
  };
  while (Operation* op = overflow_.PopFront()) {
    drop(op, op->q.done);
    forget(op);
  }
  while (ring_.size() > 0) {
    const Entry& e = ring_.Pop();
    if (e.operation) drop(e.operation, e.result);
    // A multishot operation's earlier entries name it, too; its state may have
    // been set above, which does no harm.
    if (e.operation && !(e.flags & kEntryMore)) forget(e.operation);
  }
  for (PostOp* op = posted_.exchange(nullptr); op;) {
    PostOp* next = op->next_posted;
    forget(op);
    op = next;
  }
  engine_.reset();
  for (auto& pool : pools_) delete pool->buffers;
  if (pollable_ >= 0) close(pollable_);
  if (unread_event_ >= 0) close(unread_event_);
  if (wake_event_ >= 0) close(wake_event_);
}

OpList* Core::ListOf(Operation* op, Descriptor* d) {
  return IsSendSide(op->opcode) ? &d->send : &d->recv;
}

// --- Submitting.

int Core::Check(Operation* op) {
  if (op->opcode == Opcode::kPost || op->q.state != State::kIdle)
    return -EINVAL;
  if (op->fd < 0) return -EBADF;
  if (op->opcode != Opcode::kClose && Get(op->fd)->closing) return -EBADF;
  constexpr uint16_t kQuiet = kOpSkipSuccess | kOpSkipInline;
  if (op->flags & ~(kOpMultishot | kQuiet | kOpPollFirst)) return -EINVAL;
  if (op->flags & kOpMultishot) {
    if ((op->flags & kQuiet) || op->link) return -EINVAL;
    bool pool_recv = op->opcode == Opcode::kRecv &&
                     static_cast<RecvOp*>(op)->pool != nullptr;
    if (op->opcode != Opcode::kAccept && !pool_recv) return -EINVAL;
  }
  // Their results are in the entry.
  if (op->flags & kQuiet) {
    if (op->opcode == Opcode::kAccept ||
        (op->opcode == Opcode::kRecv &&
         static_cast<RecvOp*>(op)->pool != nullptr)) {
      return -EINVAL;
    }
  }
  switch (op->opcode) {
    case Opcode::kSend:
      if (static_cast<SendOp*>(op)->pieces.size() > kMaxGather) return -EINVAL;
      break;
    case Opcode::kSendfile: {
      auto* sendfile = static_cast<SendfileOp*>(op);
      if (sendfile->offset < 0 || sendfile->length < 0 ||
          sendfile->length > INT64_MAX - sendfile->offset) {
        return -EINVAL;
      }
      if (sendfile->length > 0 && sendfile->file < 0) return -EBADF;
      break;
    }
    case Opcode::kConnect: {
      auto* connect = static_cast<ConnectOp*>(op);
      if (connect->address_length == 0 ||
          connect->address_length > sizeof connect->address) {
        return -EINVAL;
      }
      break;
    }
    default:
      break;
  }
  return 0;
}

int Core::Submit(Operation* op) {
  if (!op) return -EINVAL;
  uint32_t count = 0;
  int error = 0;
  for (Operation* o = op; o && !error; o = o->link) {
    error = o->q.bits & kBitAccepted ? -EINVAL : Check(o);
    if (error == 0) {
      o->q.bits = kBitAccepted;
      ++count;
    }
  }
  if (error == 0 && uint64_t{operations_} + count > options_.max_operations) {
    error = -EAGAIN;
  }
  uint32_t seen = 0;
  for (Operation* o = op; o && seen < count; o = o->link, ++seen) o->q.bits = 0;
  if (error) return error;

  for (Operation* o = op; o; o = o->link) Accept(o);
  for (Operation* o = op; o->link; o = o->link) {
    o->link->q.state = State::kBlocked;
    SetBefore(o->link, o);
  }
  operations_ += count;
  stats_.submitted += count;
  submitting_ = op;
  submitted_done_ = false;
  StartIfHead(op);
  Pump();
  submitting_ = nullptr;
  EndCall();
  return submitted_done_ ? Queue::kDone : 0;
}

void Core::Accept(Operation* op) {
  op->q.state = State::kQueued;
  op->q.done = 0;
  op->q.bits = 0;
  op->q.started = 0;
  ++stats_.submitted_by_opcode[static_cast<size_t>(op->opcode)];
  if (op->opcode == Opcode::kSendfile) static_cast<SendfileOp*>(op)->s = {};
  if (op->opcode != Opcode::kClose) {
    ListOf(op, Get(op->fd))->PushBack(op);
  }
}

void Core::StartIfHead(Operation* op) {
  if (op->q.state != State::kQueued) return;
  if (op->opcode == Opcode::kClose || ListOf(op, Get(op->fd))->head == op ||
      (Fault(FaultPoint::kReorderSends) && IsSendSide(op->opcode))) {
    runnable_.push_back(op);
  }
}

void Core::Pump() {
  if (pumping_) return;
  pumping_ = true;
  // Starting one may make others runnable, at the end of the list.
  for (size_t i = 0; i < runnable_.size(); ++i) Run(runnable_[i]);
  runnable_.clear();
  // Of sends that have ended without it, or had to go another way.
  if (pages_.expects()) pages_.Forget();
  pumping_ = false;
}

void Core::Run(Operation* op) {
  // It may have come to an end since it was put on the list, or stand there
  // twice.
  if (op->q.state != State::kQueued &&
      !(op->q.state == State::kStarted && (op->q.bits & kBitResume))) {
    return;
  }
  Descriptor* d = Get(op->fd);
  op->q.state = State::kStarted;
  op->q.bits &= ~kBitResume;
  if (op->opcode == Opcode::kClose) {
    if (d->closing) {
      Complete(op, -EBADF);
      return;
    }
    closers_[op->fd] = static_cast<CloseOp*>(op);
    CloseDescriptor(op->fd);
    return;
  }
  if (op->opcode == Opcode::kShutdown) {
    int r = shutdown(op->fd, static_cast<ShutdownOp*>(op)->how);
    d->send_failed = false;
    Complete(op, r < 0 ? -errno : 0);
    return;
  }
  if (d->send_failed && !Fault(FaultPoint::kNoPoison) &&
      (op->opcode == Opcode::kSend || op->opcode == Opcode::kSendfile)) {
    Complete(op, -ECANCELED);
    return;
  }
  int64_t result = engine_->Start(op, d);
  if (result != kPending) Complete(op, result);
}

// --- Completing.

bool Core::TransferredAll(Operation* op, int64_t result) const {
  if (result < 0) return false;
  switch (op->opcode) {
    case Opcode::kSend:
      return result == TotalLength(*static_cast<SendOp*>(op));
    case Opcode::kSendfile: {
      auto* s = static_cast<SendfileOp*>(op);
      return result == static_cast<int64_t>(s->header.size()) + s->length +
                           static_cast<int64_t>(s->trailer.size());
    }
    case Opcode::kRecv: {
      auto* r = static_cast<RecvOp*>(op);
      return r->pool ? result > 0 : result == static_cast<int64_t>(r->size);
    }
    default:
      return true;
  }
}

void Core::Retire(Operation* op) {
  op->q.state = State::kIdle;
  --operations_;
}

void Core::LeaveSets(Operation* op) {
  if (op->q.bits & kBitStalled) {
    stalled_.Remove(op);
    if (op->opcode == Opcode::kRecv) {
      if (BufferPool* pool = static_cast<RecvOp*>(op)->pool) {
        PoolOf(pool)->starved.Remove(op);
        PoolOf(pool)->lost.Remove(op);
      }
    }
  }
  if (op->q.bits & kBitYield) {
    yielded_.Remove(op);
    bunch_.Remove(op);
    senders_.Remove(op);
  }
  op->q.bits &= ~(kBitStalled | kBitYield);
}

void Core::Complete(Operation* op, int64_t result) {
  // One after the other: the chain may be longer than the stack is deep.
  while ((op = CompleteOne(op, result)) != nullptr) result = -ECANCELED;
}

// Returns the one that is to be cancelled with it, if any.
Operation* Core::CompleteOne(Operation* op, int64_t result) {
  Descriptor* d = Get(op->fd);
  const bool all = TransferredAll(op, result);
  if (op->q.state == State::kBlocked) {
    if (Operation* before = TakeBefore(op)) before->q.bits |= kBitCut;
  }
  Operation* follower = op->q.bits & kBitCut ? nullptr : op->link;
  OpList* list = op->opcode == Opcode::kClose ? nullptr : ListOf(op, d);
  if (list) list->Remove(op);
  if (op->q.bits & kBitKernel) LeaveKernel(op, d);
  if (op->q.bits & (kBitStalled | kBitYield)) LeaveSets(op);
  if (op->opcode == Opcode::kSendfile && !populate_waiters_.empty()) {
    std::erase(populate_waiters_, static_cast<SendfileOp*>(op));
  }
  if (op->q.bits & kBitCorked) Uncork(op->fd);
  if ((op->opcode == Opcode::kSend || op->opcode == Opcode::kSendfile) &&
      !all && result > 0) {
    d->send_failed = true;
  }
  op->q.state = State::kDone;
  op->q.done = result;
  if (all && (op->flags & kOpSkipSuccess)) {
    Retire(op);
  } else if (all && (op->flags & kOpSkipInline) && op == submitting_) {
    Retire(op);
    submitted_done_ = true;
    ++stats_.completed_inline;
  } else {
    if (op == submitting_) ++stats_.completed_inline;
    PushCompletion(op);
  }
  if (list && list->head) StartIfHead(list->head);
  if (follower) {
    TakeBefore(follower);
    follower->q.state = State::kQueued;
    if (all || Fault(FaultPoint::kIgnoreLink)) {
      StartIfHead(follower);
      follower = nullptr;
    }
  }
  if (d->closing && d->in_kernel == 0 && d->recv.empty() && d->send.empty()) {
    FinishClose(op->fd, d);
  }
  return follower;
}

void Core::WriteCompletion(Operation* op) {
  Entry* e = ring_.Push();
  *e = Entry();
  e->user_data = op->user_data;
  e->operation = op;
  e->result = op->q.done;
  if (op->q.bits & kBitBuffer) {
    auto* recv = static_cast<RecvOp*>(op);
    e->flags = kEntryBuffer;
    e->data[0] = reinterpret_cast<uintptr_t>(recv->pool->data(recv->buffer_id));
    e->data[1] = recv->buffer_id;
  }
}

void Core::PushCompletion(Operation* op) {
  if (HasRoom()) {
    WriteCompletion(op);
  } else {
    ++stats_.overflow_deferred;
    if (Fault(FaultPoint::kDropOverflow)) return;
    overflow_.PushBack(op);
    ++overflow_size_;
  }
}

bool Core::Deliver(Operation* op, int64_t result, uint16_t buffer,
                   bool has_buffer) {
  if (!HasRoom()) return false;
  Entry* e = ring_.Push();
  *e = Entry();
  e->user_data = op->user_data;
  e->operation = op;
  e->result = result;
  e->flags = kEntryMore;
  if (has_buffer) {
    e->flags |= kEntryBuffer;
    e->data[0] = reinterpret_cast<uintptr_t>(
        static_cast<RecvOp*>(op)->pool->data(buffer));
    e->data[1] = buffer;
  }
  return true;
}

void Core::WaitIn(OpFifo* set, OpBits bit, Operation* op) {
  if (op->q.bits & bit) return;
  if (op->q.bits & (kBitStalled | kBitYield)) LeaveSets(op);
  op->q.bits |= bit;
  set->Add(op);
}

void Core::Stall(Operation* op) { WaitIn(&stalled_, kBitStalled, op); }

void Core::Starve(Pool* pool, Operation* op, bool lost) {
  WaitIn(lost ? &pool->lost : &pool->starved, kBitStalled, op);
  starving_ = true;
}

void Core::Yield(Operation* op) { WaitIn(&yielded_, kBitYield, op); }

void Core::AwaitTurn(Operation* op) { WaitIn(&senders_, kBitYield, op); }

void Core::ResumeAll(OpFifo* set, OpBits bit) {
  while (!set->empty()) {
    Operation* op = set->PopFront();
    op->q.bits &= ~bit;
    Resume(op);
  }
}

void Core::Resume(Operation* op) {
  op->q.bits |= kBitResume;
  runnable_.push_back(op);
}

void Core::EnterKernel(Operation* op, Descriptor* d) {
  if (op->q.bits & kBitKernel) return;
  op->q.bits |= kBitKernel;
  ++d->in_kernel;
}

void Core::LeaveKernel(Operation* op, Descriptor* d) {
  if (!(op->q.bits & kBitKernel)) return;
  op->q.bits &= ~kBitKernel;
  --d->in_kernel;
}

// --- Cancelling and closing.

void Core::CancelOne(Operation* op, Descriptor* d) {
  switch (op->q.state) {
    case State::kBlocked:
    case State::kQueued:
      Complete(op, -ECANCELED);
      return;
    case State::kStarted:
      break;
    default:
      return;
  }
  op->q.bits |= kBitCancel;
  if (op->opcode == Opcode::kClose) return;
  if (op->opcode == Opcode::kSendfile &&
      !CancelSendfile(static_cast<SendfileOp*>(op))) {
    return;
  }
  if (!engine_->Cancel(op, d)) return;
  int64_t result = EarlyEnd(op, -ECANCELED);
  Complete(op, result);
  if (Fault(FaultPoint::kDoubleTerminal)) {
    Entry* e = ring_.Push();
    *e = Entry();
    e->operation = op;
    e->user_data = op->user_data;
    e->result = result;
    ++operations_;
  }
}

int Core::Cancel(Operation* op) {
  if (op->q.state == State::kIdle || op->q.state == State::kDone ||
      op->opcode == Opcode::kPost) {
    return -ENOENT;
  }
  CancelOne(op, Get(op->fd));
  Pump();
  EndCall();
  return 0;
}

void Core::CancelAll(Descriptor* d) {
  // Those not started are held back first, so that none of them is started by
  // the end of the one before it.
  for (OpList* list : {&d->recv, &d->send}) {
    for (Operation* op = list->tail(); op;) {
      Operation* before = op == list->head ? nullptr : op->q.prev;
      if (op->q.state != State::kStarted) {
        op->q.state = State::kBlocked;
      }
      op = before;
    }
  }
  for (OpList* list : {&d->recv, &d->send}) {
    // A completion may cancel links further down the list: begin anew each
    // time.
    for (bool again = true; again;) {
      again = false;
      for (Operation* op = list->head; op; op = op->q.next) {
        if (op->q.bits & kBitCancel) continue;
        CancelOne(op, d);
        again = true;
        break;
      }
    }
  }
}

int Core::Close(int fd) {
  int r = CloseDescriptor(fd);
  Pump();
  EndCall();
  return r;
}

int Core::CloseDescriptor(int fd) {
  if (fd < 0) return -EBADF;
  Descriptor* d = Get(fd);
  if (d->closing) return -EBADF;
  while (d->interests != kNoSlot) RemoveSlot(d->interests);
  d->closing = true;
  CancelAll(d);
  if (d->closing && d->in_kernel == 0 && d->recv.empty() && d->send.empty()) {
    return FinishClose(fd, d);
  }
  return 0;
}

int Core::FinishClose(int fd, Descriptor* d) {
  CloseOp* closer = nullptr;
  if (auto it = closers_.find(fd); it != closers_.end()) {
    closer = it->second;
    closers_.erase(it);
  }
  engine_->Forget(fd, d);
  uint32_t epoch = d->epoch;
  if (!Fault(FaultPoint::kReusedDescriptor)) {
    *d = Descriptor();
    d->epoch = epoch + 1;
  } else {
    d->closing = false;
  }
  int r = close(fd) < 0 ? -errno : 0;
  if (r == -EINTR) r = 0;  // Linux has closed it (close(2))
  if (closer) Complete(closer, r);
  return r;
}

void Core::NewDescriptor(int fd, uint8_t type) {
  Descriptor* d = Get(fd);
  if (!d->idle()) {
    // Somebody closed that number behind our back; nothing will come for it.
    while (d->interests != kNoSlot) RemoveSlot(d->interests);
    CancelAll(d);
    // What the kernel still holds ends soon; those of the new tenant wait.
    if (!d->idle()) return;
  }
  if (Fault(FaultPoint::kReusedDescriptor)) return;
  uint32_t epoch = d->epoch;
  *d = Descriptor();
  d->epoch = epoch + 1;
  d->type = type;
  d->non_blocking = true;
}

// --- Buffer pools.

absl::StatusOr<BufferPool*> Core::AddBufferPool(uint32_t buffers,
                                                uint32_t bytes) {
  if (buffers == 0 || buffers > 32768 || !std::has_single_bit(buffers) ||
      bytes == 0 || bytes > (1u << 30) / buffers) {
    return absl::InvalidArgumentError(
        "a buffer pool has a power of two of buffers, at most 32768, and at "
        "most 1 GiB");
  }
  auto pool = std::make_unique<Pool>();
  pool->group = static_cast<uint16_t>(pools_.size());
  void* memory = mmap(nullptr, size_t{buffers} * bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return absl::ResourceExhaustedError("no memory for a buffer pool");
  }
  pool->buffers = new BufferPool(this, pool->group, buffers, bytes);
  pool->buffers->memory_ = static_cast<std::byte*>(memory);
  pool->lent.assign(buffers, false);
  pool->available = buffers;
  pool->free.reserve(buffers);
  if (int r = engine_->AddPool(pool.get()); r < 0) {
    delete pool->buffers;
    return absl::ErrnoToStatus(-r, "cannot register a buffer pool");
  }
  pools_.push_back(std::move(pool));
  return pools_.back()->buffers;
}

void Core::Lend(Pool* pool, uint16_t id) {
  pool->lent[id] = true;
  --pool->available;
}

void Core::Release(uint16_t group, uint16_t id) {
  auto lock = Lock();
  Pool* pool = pools_[group].get();
  if (id >= pool->lent.size() || !pool->lent[id]) {
    fprintf(stderr, "kevent: buffer %u of pool %u is not lent out\n", id,
            group);
    abort();
  }
  pool->lent[id] = false;
  ++pool->available;
  engine_->Provide(pool, id);
  if (!pool->waits()) return;
  if (many_threads_) engine_->Wake();
  if (pollable()) EndCall();
}

}  // namespace kevent::internal

namespace kevent {

BufferPool::BufferPool(internal::Core* core, uint16_t group, uint32_t buffers,
                       uint32_t bytes)
    : core_(core), group_(group), buffers_(buffers), bytes_(bytes) {}

BufferPool::~BufferPool() {
  if (memory_) munmap(memory_, size_t{buffers_} * bytes_);
}

void BufferPool::Release(uint16_t id) { core_->Release(group_, id); }

}  // namespace kevent
