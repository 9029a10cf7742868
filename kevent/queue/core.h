// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_QUEUE_CORE_H_
#define KEVENT_QUEUE_CORE_H_

#include <poll.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "kevent/queue/descriptor.h"
#include "kevent/queue/engine.h"
#include "kevent/queue/entry_ring.h"
#include "kevent/queue/fault.h"
#include "kevent/queue/inodes.h"
#include "kevent/queue/populate.h"
#include "kevent/queue/queue.h"
#include "kevent/queue/signals.h"
#include "kevent/queue/slot.h"
#include "kevent/queue/timers.h"
#include "kevent/queue/transfer.h"

namespace kevent::internal {

enum OpBits : uint16_t {
  kBitCancel = 1u << 0,     // an early end was asked for
  kBitStalled = 1u << 1,    // waits for room in the ring or a pool's buffer
  kBitKernel = 1u << 2,     // counted in Descriptor::in_kernel
  kBitAccepted = 1u << 3,   // scratch: seen by the check of a chain
  kBitWriteWait = 1u << 4,  // uring: sendfile waits for room in the socket
  kBitBuffer = 1u << 5,     // its last entry carries a buffer
  kBitYield = 1u << 6,      // had its turn, or awaits it
  kBitResume = 1u << 7,     // started before, to be started again
  kBitCut = 1u << 8,        // its link has been completed without it
  kBitCorked = 1u << 9,     // holds the socket's last segment back
  kBitServed = 1u << 10,    // uring: a recv that got a buffer since its start
  kBitBunched = 1u << 11,   // a send whose begin was put off, once
};

struct Taken {
  Handle handle;
  uint64_t call;  // of Enter
};
// A level interest whose entry a call holds that waits for more of them.

struct Pool {
  BufferPool* buffers = nullptr;
  std::vector<uint16_t> free;  // unused by engines that keep them in the kernel
  uint32_t available = 0;      // buffers not lent out
  std::vector<bool> lent;
  OpFifo starved;  // multishot and single recvs without a buffer
  OpFifo lost;     // the same: started for one, and another was quicker
  uint16_t group = 0;

  bool waits() const { return !lost.empty() || !starved.empty(); }
  Operation* NextWaiting() {
    return lost.empty() ? starved.PopFront() : lost.PopFront();
  }
};

class Core {
 public:
  explicit Core(const Queue::Options& options);
  ~Core();

  void Attach(std::unique_ptr<Engine> engine, EngineKind kind,
              std::string reason);

  std::unique_lock<std::mutex> Lock() {
    return many_threads_ ? std::unique_lock(mu_)
                         : std::unique_lock<std::mutex>();
  }
  // Held around each of the following, but for Post, Wake and those that say
  // otherwise.

  // What Queue offers; see queue.h.
  int Submit(Operation* op);
  int Cancel(Operation* op);
  int Add(const Interest& interest, Handle* handle);
  int Modify(Handle handle, uint32_t events, uint32_t flags);
  int SetTimer(Handle handle, int64_t first_ns, int64_t interval_ns,
               bool absolute);
  int SetEnabled(Handle handle, bool enabled);
  int Remove(Handle handle);
  size_t ListInterests(uint32_t* index, std::span<InterestInfo> out);
  int Post(PostOp* op);
  void Wake();
  int Close(int fd);
  absl::StatusOr<BufferPool*> AddBufferPool(uint32_t buffers, uint32_t bytes);

  // These lock by themselves.
  int Enter(std::span<Entry> out, const Wait& wait);
  size_t Take(std::span<Entry> out);
  void Release(uint16_t group, uint16_t id);
  int PollableFd();
  Queue::Stats stats();

  EngineKind kind() const { return kind_; }
  const std::string& reason() const { return reason_; }

  // What engines call, under the lock.
  void Complete(Operation* op, int64_t result);
  // `op` has ended; its turn passes to the next of its socket and direction.
  void Lend(Pool* pool, uint16_t id);
  // Its next entry hands that buffer out.
  bool Deliver(Operation* op, int64_t result, uint16_t buffer, bool has_buffer);
  // One of several results of a multishot operation. False: the ring has no
  // room and nothing was taken; see Stall.
  void Stall(Operation* op);
  // A multishot operation found no room: it is started again when there is
  // some.
  void Starve(Pool* pool, Operation* op, bool lost = false);
  // A recv found the pool empty: it is started again when a buffer is back. If
  // it was started for one and `lost` that to another, it keeps its place.
  void Yield(Operation* op);
  // Started again by the next Enter, after others had their turn.
  void AwaitTurn(Operation* op);
  // Of a send or sendfile: started again when it is its turn, see kPass.
  void Resume(Operation* op);
  // Started again when Process has ended.
  void ResumeStarted(Operation* op) {
    if (op->q.state == Operation::State::kStarted) Resume(op);
  }
  void Fire(uint32_t index, uint32_t ready);
  // A poll interest is ready.
  void FireTimer(uint32_t index, uint64_t expirations, bool last);
  bool FireData(uint32_t index, uint32_t events, uint32_t flags, int64_t result,
                uint64_t data0, uint64_t data1, bool last);
  // An entry that carries its own data (signal, inode). False: no room.
  void EnterKernel(Operation* op, Descriptor* d);
  void LeaveKernel(Operation* op, Descriptor* d);

  bool HasRoom() const {
    return ring_.room() > 0 && overflow_.empty() && slot_overflow_.empty();
  }
  Descriptor* Get(int fd) { return descriptors_.Get(fd); }
  Slot& slot(uint32_t index) { return slots_.at(index); }
  SlotTable& slots() { return slots_; }
  Pool* pool(uint16_t group) { return pools_[group].get(); }
  Pool* PoolOf(const BufferPool* buffers) {
    return pools_[buffers->group_].get();
  }
  void NewDescriptor(int fd, uint8_t type);
  // The kernel has just made `fd`, non-blocking: whatever is known of that
  // number is old.
  static int MakeNonBlocking(int fd, Descriptor* d) {
    if (d->non_blocking) return 0;
    int r = SetNonBlocking(fd);
    d->non_blocking = r == 0;
    return r;
  }
  uint32_t AddInternal(int fd, void (*fn)(Core*));
  // Watches a descriptor of the core's own, edge-triggered.
  int64_t TrySendfile(SendfileOp* op, bool* would_block);
  // Sends what can be sent now. A result, or kPending: `*would_block` says that
  // the socket is full; otherwise it goes on by itself.
  int64_t SendNow(SendOp* op, Descriptor* d);
  // As SendTurn, but kPending also where it is to begin with others.
  int64_t SendTurn(SendOp* op, PagePipe* pages);  // null: copies
  // Sends what the socket takes now. 0 when all is out, or negative errno;
  // -EAGAIN when it is full; kPending: it goes on by itself.
  bool SendsByReference();
  static void CorkIfLarge(Operation* op, int64_t bytes);
  // Before its first byte: a part of a segment waits for what follows, so that
  // many bytes leave in few segments.
  static void Uncork(int fd);
  // Sends what kBitCorked held back.
  void CountColdSendfile() { ++stats_.cold_sendfiles; }
  bool CancelSendfile(SendfileOp* op);
  // False: a thread is at work on the socket, the completion follows.
  int64_t EarlyEnd(Operation* op, int error) const {
    return op->q.done > 0 ? op->q.done : error;
  }
  bool many_threads() const { return many_threads_; }
  uint32_t ring_entries() const { return options_.ring_entries; }

 private:
  friend class Inodes;
  friend class Signals;
  friend class Timers;

  OpList* ListOf(Operation* op, Descriptor* d);
  int Check(Operation* op);
  void Accept(Operation* op);
  void StartIfHead(Operation* op);
  void Run(Operation* op);
  void Pump();
  Operation* CompleteOne(Operation* op, int64_t result);
  void Retire(Operation* op);
  void LeaveSets(Operation* op);
  void WaitIn(OpFifo* set, OpBits bit, Operation* op);
  void ResumeAll(OpFifo* set, OpBits bit);
  void PushCompletion(Operation* op);
  void WriteCompletion(Operation* op);
  bool TransferredAll(Operation* op, int64_t result) const;
  void CancelOne(Operation* op, Descriptor* d);
  void CancelAll(Descriptor* d);
  int CloseDescriptor(int fd);
  int FinishClose(int fd, Descriptor* d);
  void Announce(uint32_t index);
  void AnnounceOnce(uint32_t index);
  void RemoveSlot(uint32_t index);
  void Unlink(uint32_t index, uint32_t* head);
  int ArmSlot(uint32_t index);
  void DisarmSlot(uint32_t index);

  size_t TakeLocked(std::span<Entry> out, bool check, uint64_t call);
  void RefillRing();
  bool FillFromSlot(Entry* e, bool check, uint64_t call);
  void HushTaken(uint64_t call);
  void EndTaking(uint64_t call);
  bool StillReady(uint32_t index);
  size_t Unread() const;
  void BeforePoll();
  void AfterPoll();
  void RunPosts();
  void RunPopulated();
  int Look(std::unique_lock<std::mutex>* lock, int64_t until,
           const sigset_t* mask);
  void Follow(std::unique_lock<std::mutex>* lock, int64_t deadline);
  void HandOver();
  void HandToLeader();
  bool TakeWake();
  bool StartPopulate(SendfileOp* op, int64_t at, Residency residency);
  static void OnPopulated(void* context, PopulateJob* job);
  void EndCall();
  bool NeedsEnter() const;
  bool HasWaiting() const {
    return !yielded_.empty() || !bunch_.empty() || !senders_.empty() ||
           (starving_ && CanServe());
  }
  // BeforePoll would start something again.
  bool CanServe() const;
  // A receive that waits for a buffer: there is one.
  void RunStarved();
  void RunSenders();
  bool MayBegin() const {
    return sent_ < kPass && (running_senders_ || senders_.empty());
  }
  // No send has to wait for the kernel to be looked at.
  bool MustWait(Operation* op, int64_t total);
  void BeginBunch();
  // Whether it is to begin with others. What goes on, or follows another one on
  // its socket, does not: nobody would begin it before the kernel is asked.
  bool MayBunch(const SendOp& op) const {
    return &op == submitting_ && !(op.q.bits & kBitBunched) &&
           taken_now_ >= kBunchFrom && !many_threads_ && !pollable() &&
           (!op.more || op.by_reference);
  }
  void WakeEngine();
  bool pollable() const { return pollable_ >= 0; }

  const Queue::Options options_;
  const bool many_threads_;
  EngineKind kind_ = EngineKind::kEpoll;
  std::string reason_;

  // Everything below but `posted_`, `populated_`, `sleeping_` and `woken_`
  // belongs to the queue's one thread, or is guarded by mu_.
  std::mutex mu_;
  std::condition_variable followers_;
  int followers_waiting_ = 0;
  bool leader_ = false;          // a thread is in Engine::Poll
  int64_t leader_deadline_ = 0;  // and returns by then

  DescriptorTable descriptors_;
  absl::flat_hash_map<int, CloseOp*> closers_;  // of descriptors being closed
  SlotTable slots_;
  EntryRing ring_;
  OpList overflow_;                    // completions that found the ring full
  std::vector<Handle> slot_overflow_;  // interests that did, oldest first
  size_t slot_overflow_begin_ = 0;     // those before it are in the ring
  std::vector<Operation*> runnable_;   // to be started by Pump
  OpFifo stalled_;                     // multishot without room in the ring
  OpFifo yielded_;                     // go on at the next Enter
  OpFifo bunch_;                       // sends that begin at the next Enter
  OpFifo senders_;                     // sends that await their turn
  bool starving_ = false;              // a pool may have some that wait
  bool running_senders_ = false;       // RunSenders gives it to one of them
  int64_t sent_ = 0;                   // bytes, since the kernel was looked at
  std::vector<SendfileOp*> populate_waiters_;  // for a thread to read for them
  std::vector<Handle> retest_;        // level interests whose entry was taken
  std::vector<uint32_t> retest_now_;  // scratch
  std::vector<Taken> taken_;          // come to retest_ when their call ends
  uint64_t calls_ = 0;                // that may wait after they took some
  size_t taken_now_ = 0;   // entries since Enter, without those of the bunch
  bool wake_all_ = false;  // an interest with kWakeAll has fired
  std::vector<std::unique_ptr<Pool>> pools_;
  bool pumping_ = false;
  Operation* submitting_ = nullptr;
  bool submitted_done_ = false;
  uint32_t operations_ = 0;
  uint32_t internal_slots_ = 0;
  size_t overflow_size_ = 0;

  Timers timers_;
  Signals signals_;
  Inodes inodes_;
  Populator populator_;
  PagePipe pages_;

  std::atomic<PostOp*> posted_{nullptr};  // newest first
  std::atomic<PopulateJob*> populated_{nullptr};
  std::atomic<bool> sleeping_{false};
  std::atomic<bool> woken_{false};

  int pollable_ = -1;
  int unread_event_ = -1;
  std::atomic<int> wake_event_{-1};  // shows posts and Wake to whoever polls
  bool unread_shown_ = false;

  Queue::Stats stats_;
  std::unique_ptr<Engine> engine_;  // destroyed first
};
// The part of a queue that all engines share: order of operations, links, the
// ring of entries, interests, timers, signals, inodes, sendfile.
//
// Entries of completed operations and of fired interests go to the ring; when
// it is full they wait in their own objects (overflow_, slot_overflow_).

}  // namespace kevent::internal

#endif  // KEVENT_QUEUE_CORE_H_
