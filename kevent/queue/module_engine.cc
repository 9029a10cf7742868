// SPDX-License-Identifier: Apache-2.0
//
// The engine on kevent.ko (kevent/uapi/kevent.h): operations go through the
// rings, and the kernel does what the other engines do with readiness.
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "kevent/queue/core.h"
#include "kevent/queue/engine.h"
#include "kevent/queue/tags.h"
#include "kevent/uapi/kevent.h"

namespace kevent::internal {
namespace {

constexpr uint32_t kSubmissions = 1024;

// Bytes of a pool that is pinned: larger ones are populated as they are used.
constexpr uint64_t kMaxPinned = 16 << 20;

// From how many bytes on what is sent alone goes by reference (`./kev bench vm
// requests --sizes 16K,32K,48K --connections 1`). What is sent with others
// costs no system call of its own that way, and does so from kLeastByReference
// on.
constexpr int64_t kLeastByReferenceAlone = 32 << 10;

// Operation::q.started.
constexpr uint8_t kNotInKernel = 0;
constexpr uint8_t kInKernel = 1;

static_assert(sizeof(iovec) == sizeof(kevent_vector));

uint64_t Address(const void* p) { return reinterpret_cast<uintptr_t>(p); }

uint32_t Acquire(const uint32_t& word) {
  return __atomic_load_n(&word, __ATOMIC_ACQUIRE);
}

void Release(uint32_t* word, uint32_t value) {
  __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

struct FreeMemory {
  void operator()(kevent_pool_ring* ring) const { free(ring); }
};

struct ModulePool {
  std::unique_ptr<kevent_pool_ring, FreeMemory> ring;
  uint32_t id = 0;    // the kernel's
  uint32_t mask = 0;  // buffers - 1
};

class ModuleEngine final : public Engine {
 public:
  explicit ModuleEngine(Core* core) : core_(core) {}
  ~ModuleEngine() override { Unmap(); }

  absl::Status Init();

  int64_t Start(Operation* op, Descriptor* d) override;
  bool Cancel(Operation* op, Descriptor* d) override;
  int Arm(uint32_t index, Slot* slot, Descriptor* d) override;
  void Disarm(uint32_t index, Slot* slot, Descriptor* d) override;
  void Retest(std::span<const uint32_t> slots) override;
  void Forget(int, Descriptor*) override {}
  int AddPool(Pool* pool) override;
  void Provide(Pool* pool, uint16_t id) override;
  int Flush() override;
  bool SendsByReference() const override { return references_; }
  int Poll(int64_t until_ns, const sigset_t* mask) override;
  void Process() override;
  void Wake() override;
  int PollableFd() override;
  void Shutdown() override;

 private:
  kevent_sqe* Get();
  uint32_t InSubmission() const { return sq_tail_ - Acquire(ring_->sq_head); }
  uint32_t Unread() const { return Acquire(ring_->cq_tail) - ring_->cq_head; }
  uint32_t Flags() const {
    return __atomic_load_n(&ring_->flags, __ATOMIC_RELAXED);
  }
  int Enter(uint32_t submit, uint32_t min, int64_t until_ns,
            const sigset_t* mask);
  int EnterAtOnce();
  int Control(std::span<kevent_sqe> changes) const;
  int Make(kevent_sqe* change) const;
  void SubmitCancels();
  static bool SendsInParts(const SendOp& op);
  bool SendNextPart(SendOp* op, int64_t sent);
  bool ByReference(const SendOp& op) const;
  bool TakeAlone();
  bool SendAlone(const SendOp& op);
  void SetSend(const SendOp& op, kevent_sqe* sqe);
  void SetSendfile(SendfileOp* op, kevent_sqe* sqe);
  void HandleOperation(Operation* op, const kevent_entry& entry);
  void HandleSlot(const kevent_entry& entry);
  void HandleCancel(const kevent_entry& entry);
  int OpenNest();
  int PollNest(int64_t until_ns, const sigset_t* mask);
  int ArmNested(uint32_t index, Slot* slot);
  void DisarmNested(uint32_t index);
  void HandleNested();
  int Register(kevent_register* r) const;
  void Unmap();

  Core* const core_;
  int fd_ = -1;
  kevent_ring* ring_ = nullptr;
  size_t ring_bytes_ = 0;
  kevent_entry* cq_ = nullptr;
  kevent_sqe* sq_ = nullptr;
  uint32_t cq_mask_ = 0;
  uint32_t sq_mask_ = 0;
  uint32_t sq_tail_ = 0;
  std::unique_ptr<kevent_parts[]> parts_;  // of each element of sq_
  uint64_t wake_ = 0;                      // handle of the interest
  int nest_ = -1;  // epoll with fd_ and with what the module refuses to watch
  bool pollable_ = false;
  bool pins_ = false;                          // the kernel has pinned pools
  bool references_ = false;                    // and sends by reference
  absl::flat_hash_map<uint32_t, int> nested_;  // by slot: a duplicate in nest_
  std::atomic<size_t> nests_{0};               // their number, for Poll
  std::vector<epoll_event> nested_events_;     // of the last Poll
  uint64_t in_kernel_ = 0;                     // operations it holds
  uint32_t batch_ = 0;     // entries that Process has read; 0 after TakeAlone
  bool provided_ = false;  // buffers of which the kernel has not been told
  std::vector<uint64_t> handles_;              // by index of the slot
  std::vector<kevent_sqe> changes_;            // scratch
  std::vector<ModulePool> pools_;              // by group
  absl::flat_hash_set<Operation*> cancelled_;  // and not ended yet
  std::vector<Operation*> cancels_;            // to be submitted
};

absl::Status ModuleEngine::Init() {
  fd_ = open("/dev/kevent", O_RDWR | O_CLOEXEC);
  if (fd_ < 0) {
    if (errno == ENOENT || errno == ENXIO) {
      return absl::UnavailableError("/dev/kevent is not there");
    }
    return absl::ErrnoToStatus(errno, "/dev/kevent cannot be opened");
  }
  kevent_setup setup = {};
  setup.size = sizeof setup;
  setup.abi_version = KEVENT_ABI_VERSION;
  setup.cq_entries = std::clamp(std::bit_ceil(core_->ring_entries()),
                                2 * kSubmissions, uint32_t{KEVENT_MAX_RING});
  setup.sq_entries = kSubmissions;
  setup.max_interests = KEVENT_MAX_INTERESTS;  // the core has its own limit
  if (ioctl(fd_, KEVENT_SETUP, &setup) < 0) {
    return absl::ErrnoToStatus(errno, "/dev/kevent refuses a queue");
  }
  if (!(setup.features & KEVENT_FEATURE_NAIO)) {
    return absl::UnavailableError("kevent.ko is too old");
  }
  pins_ = setup.features & KEVENT_FEATURE_PINNED_POOLS;
  references_ = setup.features & KEVENT_FEATURE_REFERENCE;
  void* map = mmap(nullptr, setup.ring_bytes, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_POPULATE, fd_, 0);
  if (map == MAP_FAILED) {
    return absl::ErrnoToStatus(errno, "the rings cannot be mapped");
  }
  ring_ = static_cast<kevent_ring*>(map);
  ring_bytes_ = setup.ring_bytes;
  char* base = static_cast<char*>(map);
  cq_ = reinterpret_cast<kevent_entry*>(base + ring_->cq_offset);
  sq_ = reinterpret_cast<kevent_sqe*>(base + ring_->sq_offset);
  cq_mask_ = setup.cq_entries - 1;
  sq_mask_ = setup.sq_entries - 1;
  parts_ = std::make_unique<kevent_parts[]>(setup.sq_entries);
  kevent_sqe wake = {};
  wake.opcode = KEVENT_OP_ADD;
  wake.source = KEVENT_SOURCE_USER;
  wake.user_data = kTagWake;
  if (int r = Make(&wake); r < 0) {
    return absl::ErrnoToStatus(-r, "kevent.ko refuses an interest");
  }
  wake_ = wake.handle;
  return absl::OkStatus();
}

void ModuleEngine::Unmap() {
  if (ring_) munmap(ring_, ring_bytes_);
  ring_ = nullptr;
  for (auto& [index, fd] : nested_) close(fd);
  nested_.clear();
  for (int* fd : {&fd_, &nest_}) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
  }
}

// --- Calls.

int ModuleEngine::Enter(uint32_t submit, uint32_t min, int64_t until_ns,
                        const sigset_t* mask) {
  kevent_enter enter = {};
  enter.size = sizeof enter;
  enter.to_submit = submit;
  enter.min = min;
  enter.flags = KEVENT_ENTER_ABSOLUTE;
  enter.timeout_ns = until_ns == INT64_MAX ? -1 : until_ns;
  enter.min_wait_ns = -1;
  enter.clock = CLOCK_MONOTONIC;
  if (mask) {
    enter.sigmask = Address(mask);
    enter.sigmask_size = _NSIG / 8;
  }
  int r = ioctl(fd_, KEVENT_ENTER, &enter);
  return r < 0 ? -errno : r;
}

int ModuleEngine::Control(std::span<kevent_sqe> changes) const {
  kevent_control control = {};
  control.size = sizeof control;
  control.count = static_cast<uint32_t>(changes.size());
  control.changes = Address(changes.data());
  int r = ioctl(fd_, KEVENT_CONTROL, &control);
  return r < 0 ? -errno : r;
}

int ModuleEngine::Make(kevent_sqe* change) const {
  int r;
  // A signal may meet it while it waits for another thread in the kernel.
  do {
    r = Control({change, 1});
  } while (r == -EINTR);
  return r < 0 ? r : change->result;
}

// A cleared element of the submission ring, or nullptr: the kernel takes no
// more of them before entries have been read. Submitted by the next call.
kevent_sqe* ModuleEngine::Get() {
  if (InSubmission() > sq_mask_) {
    Flush();
    if (InSubmission() > sq_mask_) return nullptr;
  }
  kevent_sqe* sqe = &sq_[sq_tail_ & sq_mask_];
  *sqe = {};
  Release(&ring_->sq_tail, ++sq_tail_);
  return sqe;
}

int ModuleEngine::Flush() {
  SubmitCancels();
  if (InSubmission() == 0 && !provided_) return 0;
  provided_ = false;
  return EnterAtOnce();
}

// Submits what is in the ring, without waiting and whatever signals come.
int ModuleEngine::EnterAtOnce() {
  int r;
  do {
    r = Enter(InSubmission(), 0, kPast, nullptr);
  } while (r == -EINTR);
  return r;
}

void ModuleEngine::Wake() {
  kevent_sqe ready = {};
  ready.opcode = KEVENT_OP_READY;
  ready.handle = wake_;
  Make(&ready);
}

// --- Operations.

void ModuleEngine::SetSend(const SendOp& op, kevent_sqe* sqe) {
  sqe->opcode = KEVENT_OP_SEND;
  if (ByReference(op)) sqe->events |= KEVENT_SEND_REFERENCE;
  if (SendsInParts(op)) {
    bool all;
    const iovec next = NextOf(op, &all);
    if (op.more || !all) sqe->events |= KEVENT_SEND_MORE;
    sqe->arg[0] = Address(next.iov_base);
    sqe->arg[1] = next.iov_len;
    return;
  }
  if (op.more) sqe->events |= KEVENT_SEND_MORE;
  sqe->events |= KEVENT_SEND_VECTOR;
  sqe->arg[0] = Address(op.pieces.data());
  sqe->arg[1] = op.pieces.size();
  sqe->arg[2] = static_cast<uint64_t>(op.q.done);
}

// One piece, or several that are too much for the module together.
bool ModuleEngine::SendsInParts(const SendOp& op) {
  return op.pieces.size() == 1 ||
         TotalLength(op) > static_cast<int64_t>(kMaxTransfer);
}

bool ModuleEngine::ByReference(const SendOp& op) const {
  return references_ && op.by_reference && TotalLength(op) >= kLeastByReference;
}

// False if that was its end.
bool ModuleEngine::SendNextPart(SendOp* op, int64_t sent) {
  bool all;
  if (sent <= 0 || (op->q.bits & kBitCancel) || !SendsInParts(*op) ||
      sent != static_cast<int64_t>(NextOf(*op, &all).iov_len) || all) {
    return false;
  }
  op->q.done += sent;
  core_->Resume(op);
  return true;
}

// Whether this is the first operation since one entry alone has come, and
// nothing else is to be submitted: what was told alone is answered alone.
bool ModuleEngine::TakeAlone() {
  const bool alone = batch_ == 1 && !core_->many_threads() && Unread() == 0 &&
                     InSubmission() == 0;
  if (alone) batch_ = 0;
  return alone;
}

// Submits the newest in the ring at once and takes its entry: a turn of the
// loop less. True if it is sent; else it is left to the next call.
bool ModuleEngine::SendAlone(const SendOp& op) {
  provided_ = false;
  EnterAtOnce();
  const uint32_t head = ring_->cq_head;
  if (Unread() == 0) return false;
  const kevent_entry& entry = cq_[head & cq_mask_];
  if (entry.user_data != TagOf(&op) ||
      op.q.done + entry.result != TotalLength(op)) {
    return false;
  }
  Release(&ring_->cq_head, head + 1);
  return true;
}

void ModuleEngine::SetSendfile(SendfileOp* op, kevent_sqe* sqe) {
  kevent_parts* parts = &parts_[static_cast<size_t>(sqe - sq_)];
  *parts = {};
  parts->header = Address(op->header.data());
  parts->header_bytes = op->header.size();
  parts->trailer = Address(op->trailer.data());
  parts->trailer_bytes =
      Fault(FaultPoint::kSkipTrailer) ? 0 : op->trailer.size();
  parts->progress = Address(&op->q.done);
  sqe->opcode = KEVENT_OP_SENDFILE;
  sqe->arg[0] = static_cast<uint64_t>(op->offset);
  sqe->arg[1] = static_cast<uint64_t>(op->length);
  sqe->arg[2] = Address(parts);
  sqe->arg[3] = op->length > 0 ? static_cast<uint64_t>(op->file) : 0;
}

int64_t ModuleEngine::Start(Operation* op, Descriptor* d) {
  if (op->q.started != kNotInKernel || (op->q.bits & kBitYield)) {
    return kPending;
  }
  const bool multishot = op->flags & kOpMultishot;
  if (multishot && !core_->HasRoom()) {
    core_->Stall(op);
    return kPending;
  }
  BufferPool* pool =
      op->opcode == Opcode::kRecv ? static_cast<RecvOp*>(op)->pool : nullptr;
  if (pool && core_->PoolOf(pool)->available == 0) {
    core_->Starve(core_->PoolOf(pool), op);
    return kPending;
  }
  auto* send = op->opcode == Opcode::kSend ? static_cast<SendOp*>(op) : nullptr;
  const bool by_reference = send && ByReference(*send);
  const bool alone = by_reference && TakeAlone();
  const bool by_copy =
      send &&
      (!by_reference || (alone && TotalLength(*send) < kLeastByReferenceAlone));
  if (by_copy) {
    // Most go out at once: then no entry has to come for them.
    int64_t r = core_->SendTurn(send, nullptr);
    if (r == kPending) return kPending;
    if (r == 0) {
      return Fault(FaultPoint::kShortSendDone) ? TotalLength(*send)
                                               : op->q.done;
    }
    if (r != -EAGAIN) return core_->EarlyEnd(op, static_cast<int>(r));
  }
  kevent_sqe* sqe = Get();
  if (!sqe) {
    core_->Yield(op);
    return kPending;
  }
  sqe->fd = op->fd;
  sqe->user_data = TagOf(op);
  if (multishot) sqe->flags = KEVENT_MULTISHOT;
  switch (op->opcode) {
    case Opcode::kAccept:
      sqe->opcode = KEVENT_OP_ACCEPT;
      sqe->arg[0] = SOCK_CLOEXEC | SOCK_NONBLOCK;
      break;
    case Opcode::kConnect: {
      auto* connect = static_cast<ConnectOp*>(op);
      sqe->opcode = KEVENT_OP_CONNECT;
      sqe->arg[0] = Address(&connect->address);
      sqe->arg[1] = connect->address_length;
      break;
    }
    case Opcode::kRecv: {
      auto* recv = static_cast<RecvOp*>(op);
      sqe->opcode = KEVENT_OP_RECV;
      if (op->flags & kOpPollFirst) sqe->events |= KEVENT_RECV_WAIT;
      if (pool) {
        sqe->events |= KEVENT_RECV_POOL;
        sqe->arg[0] = pools_[core_->PoolOf(pool)->group].id;
      } else {
        sqe->arg[0] = Address(recv->buffer);
        sqe->arg[1] = recv->size;
      }
      break;
    }
    case Opcode::kSend:
      SetSend(*send, sqe);
      if (alone && !by_copy && SendAlone(*send)) return TotalLength(*send);
      break;
    case Opcode::kSendfile:
      SetSendfile(static_cast<SendfileOp*>(op), sqe);
      break;
    default:
      break;  // the core's
  }
  op->q.started = kInKernel;
  ++in_kernel_;
  core_->EnterKernel(op, d);
  return kPending;
}

bool ModuleEngine::Cancel(Operation* op, Descriptor*) {
  if (op->q.started == kNotInKernel) return true;
  if (cancelled_.insert(op).second) cancels_.push_back(op);
  return false;
}

void ModuleEngine::SubmitCancels() {
  while (!cancels_.empty()) {
    Operation* op = cancels_.back();
    if (cancelled_.contains(op)) {
      if (InSubmission() > sq_mask_) return;
      kevent_sqe* sqe = Get();
      sqe->opcode = KEVENT_OP_CANCEL;
      sqe->flags = KEVENT_SKIP_SUCCESS;
      sqe->fd = op->fd;
      sqe->arg[0] = TagOf(op);
      sqe->user_data = TagOf(op) | kTagCancel;
    }
    cancels_.pop_back();
  }
}

// It was not found: it ends by itself just now, or its descriptor was closed
// behind our back and the operation holds what it was.
void ModuleEngine::HandleCancel(const kevent_entry& entry) {
  Operation* op = OperationOf(entry.user_data);
  if (entry.result >= 0 || !cancelled_.contains(op)) return;
  kevent_sqe* sqe = Get();
  if (!sqe) {
    cancels_.push_back(op);
    return;
  }
  sqe->opcode = KEVENT_OP_CANCEL;
  sqe->flags = KEVENT_SKIP_SUCCESS;
  sqe->fd = -1;
  sqe->arg[0] = TagOf(op);
  sqe->user_data = kTagIgnore;
}

// --- Poll interests.

int ModuleEngine::Arm(uint32_t index, Slot* slot, Descriptor*) {
  const bool once = slot->flags & (kOneShot | kDispatch);
  kevent_sqe add = {};
  ++slot->arm;
  add.opcode = KEVENT_OP_ADD;
  add.source = KEVENT_SOURCE_POLL;
  add.fd = slot->fd;
  add.events = slot->events;
  add.user_data = TagOf(index, *slot);
  add.flags = KEVENT_ALWAYS_QUEUE;
  if (slot->internal) {
    add.flags |= KEVENT_EDGE;
  } else if (once) {
    add.flags |= KEVENT_ONESHOT;
  } else {
    // A level is tested again when the core says that its entry was taken.
    add.flags |= slot->flags & kEdge ? KEVENT_EDGE : KEVENT_DISPATCH;
  }
  int r = Make(&add);
  if (r == -EINVAL && !slot->internal) return ArmNested(index, slot);
  if (r < 0) return r;
  if (handles_.size() <= index) handles_.resize(index + 1);
  handles_[index] = add.handle;
  slot->armed = true;
  return 0;
}

void ModuleEngine::Disarm(uint32_t index, Slot* slot, Descriptor*) {
  if (!nested_.empty() && nested_.contains(index)) {
    DisarmNested(index);
  } else {
    kevent_sqe remove = {};
    remove.opcode = KEVENT_OP_REMOVE;
    remove.handle = handles_[index];
    Make(&remove);
  }
  ++slot->arm;  // what is in the ring still is of the past
  slot->armed = false;
}

void ModuleEngine::Retest(std::span<const uint32_t> slots) {
  changes_.clear();
  for (uint32_t index : slots) {
    Slot& slot = core_->slot(index);
    if (!slot.armed || (!nested_.empty() && nested_.contains(index))) {
      if (slot.armed) Disarm(index, &slot, nullptr);
      Arm(index, &slot, nullptr);
      continue;
    }
    kevent_sqe& enable = changes_.emplace_back();
    enable.opcode = KEVENT_OP_ENABLE;
    enable.handle = handles_[index];
  }
  for (size_t done = 0; done < changes_.size();) {
    const size_t count =
        std::min<size_t>(changes_.size() - done, KEVENT_MAX_CHANGES);
    int r = Control({&changes_[done], count});
    if (r == -EINTR) continue;
    if (r <= 0) return;
    done += static_cast<size_t>(r);
  }
}

// Another queue, an epoll or an io_uring: the kernel's queues do not watch each
// other, for they could wake each other for ever. An epoll knows how to, and is
// asked instead for as long as there are such interests.

int ModuleEngine::OpenNest() {
  if (nest_ >= 0) return 0;
  nest_ = epoll_create1(EPOLL_CLOEXEC);
  if (nest_ < 0) return -errno;
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.u64 = kTagIgnore;
  return epoll_ctl(nest_, EPOLL_CTL_ADD, fd_, &event) < 0 ? -errno : 0;
}

int ModuleEngine::ArmNested(uint32_t index, Slot* slot) {
  if (int r = OpenNest(); r < 0) return r;
  // There may be several interests in one file.
  const int fd = fcntl(slot->fd, F_DUPFD_CLOEXEC, 0);
  if (fd < 0) return -errno;
  epoll_event event = {};
  const bool edge =
      slot->flags & kEdge && !(slot->flags & (kOneShot | kDispatch));
  event.events = slot->events | (edge ? EPOLLET : EPOLLONESHOT);
  event.data.u64 = TagOf(index, *slot);
  if (epoll_ctl(nest_, EPOLL_CTL_ADD, fd, &event) < 0) {
    const int error = errno;
    close(fd);
    return -error;
  }
  nested_[index] = fd;
  nests_ = nested_.size();
  slot->armed = true;
  if (core_->many_threads()) Wake();  // who waits does not look there yet
  return 0;
}

void ModuleEngine::DisarmNested(uint32_t index) {
  const auto it = nested_.find(index);
  epoll_ctl(nest_, EPOLL_CTL_DEL, it->second, nullptr);
  close(it->second);
  nested_.erase(it);
  nests_ = nested_.size();
}

void ModuleEngine::HandleNested() {
  for (const epoll_event& event : nested_events_) {
    if ((event.data.u64 & kTagMask) != kTagSlot) continue;
    const uint32_t index = SlotIndexOf(event.data.u64);
    Slot& slot = core_->slot(index);
    if (IsOfArm(event.data.u64, slot) && slot.armed) {
      core_->Fire(index, event.events);
    }
  }
  nested_events_.clear();
}

// --- Buffer pools.

// What arrives for a pinned pool is there without a call of ours, and an entry
// wakes nobody who waits for more. Where the user may not pin that much, the
// pool is an ordinary one.
int ModuleEngine::Register(kevent_register* r) const {
  if (pins_ && r->bytes <= kMaxPinned) {
    r->opcode = KEVENT_REGISTER_PINNED_POOL;
    if (ioctl(fd_, KEVENT_REGISTER, r) == 0) return 0;
    if (errno != ENOMEM) return -errno;
  }
  r->opcode = KEVENT_REGISTER_POOL;
  return ioctl(fd_, KEVENT_REGISTER, r) < 0 ? -errno : 0;
}

int ModuleEngine::AddPool(Pool* pool) {
  const uint32_t n = pool->buffers->size();
  ModulePool own;
  own.ring.reset(static_cast<kevent_pool_ring*>(
      calloc(1, sizeof(kevent_pool_ring) + n * sizeof(uint16_t))));
  if (!own.ring) return -ENOMEM;
  kevent_register r = {};
  r.size = sizeof r;
  r.address = Address(pool->buffers->data(0));
  r.buffer_bytes = pool->buffers->buffer_size();
  r.bytes = uint64_t{n} * r.buffer_bytes;
  r.ring = Address(own.ring.get());
  if (int e = Register(&r); e < 0) return e;
  own.id = r.id;
  own.mask = n - 1;
  pools_.resize(pool->group + 1u);
  pools_[pool->group] = std::move(own);
  for (uint32_t i = 0; i < n; ++i) Provide(pool, static_cast<uint16_t>(i));
  return 0;
}

void ModuleEngine::Provide(Pool* pool, uint16_t id) {
  ModulePool& own = pools_[pool->group];
  const uint32_t tail = own.ring->tail;
  own.ring->id[tail & own.mask] = id;
  // The kernel sets the flag, then looks for buffers: one of us sees the other.
  __atomic_exchange_n(&own.ring->tail, tail + 1, __ATOMIC_SEQ_CST);
  if (!(__atomic_load_n(&ring_->flags, __ATOMIC_SEQ_CST) &
        KEVENT_RING_STARVED)) {
    return;
  }
  // Who waits in the kernel, or for our descriptor, is not told by Poll.
  if (core_->many_threads() || pollable_) {
    Enter(0, 0, kPast, nullptr);
  } else {
    provided_ = true;
  }
}

// --- Waiting.

int ModuleEngine::Poll(int64_t until_ns, const sigset_t* mask) {
  uint32_t submit = 0;
  bool enter = Flags() & KEVENT_RING_PENDING;
  if (!core_->many_threads()) {
    SubmitCancels();
    submit = InSubmission();
    while (!cancels_.empty()) {
      // The ring was full. While the kernel takes nothing either, entries must
      // be read first.
      EnterAtOnce();
      if (InSubmission() == submit) {
        until_ns = kPast;
        break;
      }
      SubmitCancels();
      submit = InSubmission();
    }
    enter |= submit > 0 || provided_;
    provided_ = false;
  }
  int r = 0;
  if (nests_.load(std::memory_order_acquire) > 0) {
    if (enter) EnterAtOnce();
    r = PollNest(Unread() > 0 ? kPast : until_ns, mask);
    if (r > 0) r = Enter(0, 0, kPast, nullptr);
  } else if (until_ns == kPast || Unread() > 0) {
    if (enter) r = Enter(submit, 0, kPast, mask);
  } else {
    r = Enter(submit, 1, until_ns, mask);
  }
  return r == -EINTR ? r : 0;
}

int ModuleEngine::PollNest(int64_t until_ns, const sigset_t* mask) {
  const int64_t timeout_ns = LeftNs(until_ns);
  constexpr int64_t kSecond = 1'000'000'000;
  const timespec timeout = {timeout_ns / kSecond, timeout_ns % kSecond};
  nested_events_.resize(64);
  int n = epoll_pwait2(nest_, nested_events_.data(),
                       static_cast<int>(nested_events_.size()),
                       timeout_ns < 0 ? nullptr : &timeout, mask);
  nested_events_.resize(n < 0 ? 0 : static_cast<size_t>(n));
  return n < 0 ? -errno : n;
}

int ModuleEngine::PollableFd() {
  if (int r = OpenNest(); r < 0) return r;
  pollable_ = true;
  return nest_;
}

void ModuleEngine::Process() {
  if (!nested_events_.empty()) HandleNested();
  batch_ = 0;
  while (Unread() > 0) {
    const uint32_t head = ring_->cq_head;
    // It counts as read before it is acted upon: see kevent_entry.
    const kevent_entry entry = cq_[head & cq_mask_];
    const bool operation = (entry.user_data & kTagMask) == kTagOperation;
    if (operation && (entry.flags & KEVENT_ENTRY_MORE) && !core_->HasRoom()) {
      return;
    }
    Release(&ring_->cq_head, head + 1);
    ++batch_;
    switch (entry.user_data & kTagMask) {
      case kTagOperation:
        HandleOperation(OperationOf(entry.user_data), entry);
        break;
      case kTagSlot:
        HandleSlot(entry);
        break;
      case kTagCancel:
        HandleCancel(entry);
        break;
      default:
        break;
    }
  }
}

void ModuleEngine::HandleSlot(const kevent_entry& entry) {
  const uint32_t index = SlotIndexOf(entry.user_data);
  if (index >= core_->slots().size()) return;
  Slot& slot = core_->slot(index);
  if (!IsOfArm(entry.user_data, slot) || !slot.armed) return;
  if (entry.flags & KEVENT_ENTRY_DONE) slot.armed = false;
  core_->Fire(index, entry.flags & KEVENT_ENTRY_BROKEN ? uint32_t{POLLNVAL}
                                                       : entry.events);
}

void ModuleEngine::HandleOperation(Operation* op, const kevent_entry& entry) {
  const bool more = entry.flags & KEVENT_ENTRY_MORE;
  const bool buffer = entry.flags & KEVENT_ENTRY_BUFFER;
  int64_t result = entry.result;
  if (!more) {
    op->q.started = kNotInKernel;
    --in_kernel_;
    core_->LeaveKernel(op, core_->Get(op->fd));
    if (op->q.bits & kBitCancel) cancelled_.erase(op);
  }
  if (op->opcode == Opcode::kAccept && result >= 0) {
    core_->NewDescriptor(static_cast<int>(result), SOCK_STREAM);
  }
  if (op->opcode == Opcode::kSendfile && entry.data[0] > 0) {
    core_->CountColdSendfile();
  }
  if (buffer) {
    auto* recv = static_cast<RecvOp*>(op);
    recv->buffer_id = static_cast<uint16_t>(entry.data[0]);
    core_->Lend(core_->PoolOf(recv->pool), recv->buffer_id);
    if (!more) op->q.bits |= kBitBuffer;
  }
  if (more) {
    core_->Deliver(op, result, static_cast<uint16_t>(entry.data[0]), buffer);
    return;
  }
  if (op->opcode == Opcode::kSend) {
    if (SendNextPart(static_cast<SendOp*>(op), result)) return;
    if (op->q.done > 0) result = op->q.done + std::max<int64_t>(result, 0);
  }
  core_->Complete(op, result);
}

void ModuleEngine::Shutdown() {
  if (!ring_) return;
  // Connections that were accepted and will be taken by nobody.
  kevent_sqe* sqe = Get();
  if (sqe) {
    sqe->opcode = KEVENT_OP_CANCEL;
    sqe->flags = KEVENT_SKIP_SUCCESS;
    sqe->fd = -1;
    sqe->events = KEVENT_CANCEL_ANY;
    sqe->user_data = kTagIgnore;
  }
  for (int turn = 0; in_kernel_ > 0 && turn < 1000; ++turn) {
    if (Enter(InSubmission(), 0, kPast, nullptr) == -EXDEV) break;
    uint32_t head = ring_->cq_head;
    for (; head != Acquire(ring_->cq_tail); ++head) {
      const kevent_entry& entry = cq_[head & cq_mask_];
      if ((entry.user_data & kTagMask) != kTagOperation) continue;
      if (OperationOf(entry.user_data)->opcode == Opcode::kAccept &&
          entry.result >= 0) {
        close(static_cast<int>(entry.result));
      }
      if (entry.flags & KEVENT_ENTRY_DONE) --in_kernel_;
    }
    Release(&ring_->cq_head, head);
  }
  // The kernel lets go of all operations with the last descriptor.
  Unmap();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> NewModuleEngine(Core* core) {
  auto engine = std::make_unique<ModuleEngine>(core);
  if (absl::Status s = engine->Init(); !s.ok()) return s;
  return engine;
}

}  // namespace kevent::internal
