// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "kevent/queue/core.h"

namespace kevent::internal {

using State = Operation::State;

// --- Entries out.

void Core::RefillRing() {
  while (ring_.room() > 0 && !overflow_.empty()) {
    WriteCompletion(overflow_.PopFront());
    --overflow_size_;
  }
  while (ring_.room() > 0 && slot_overflow_begin_ < slot_overflow_.size()) {
    Handle h = slot_overflow_[slot_overflow_begin_++];
    Slot* slot = slots_.Find(h);
    if (!slot) continue;
    Entry* e = ring_.Push();
    *e = Entry();
    e->source = slot->source;
    e->handle = h;
    e->reserved[0] = 1;
  }
  if (slot_overflow_begin_ == slot_overflow_.size()) {
    slot_overflow_.clear();
    slot_overflow_begin_ = 0;
  }
}

size_t Core::TakeLocked(std::span<Entry> out, bool check, uint64_t call) {
  size_t n = 0;
  while (n < out.size()) {
    if (ring_.size() == 0) {
      RefillRing();
      if (ring_.size() == 0) break;
    }
    Entry& e = out[n];
    e = ring_.Pop();
    if (e.operation) {
      // What began in a bunch ends in one, and alone makes no further.
      if (!(e.operation->q.bits & kBitBunched)) ++taken_now_;
      if (!(e.flags & kEntryMore)) {
        e.operation->q.state = State::kIdle;
        --operations_;
      }
      ++n;
    } else if (FillFromSlot(&e, check, call)) {
      ++taken_now_;
      ++n;
    }
  }
  // Keeps HasRoom true for sources while there is room.
  if (!overflow_.empty() || !slot_overflow_.empty()) RefillRing();
  stats_.entries += n;
  return n;
}

size_t Core::Take(std::span<Entry> out) {
  auto lock = Lock();
  return TakeLocked(out, false, 0);
}

// Who has taken an entry is there to act upon it only when his call returns.
void Core::EndTaking(uint64_t call) {
  std::erase_if(taken_, [&](const Taken& taken) {
    if (taken.call != call) return false;
    if (Slot* slot = slots_.Find(taken.handle)) {
      slot->taken = false;
      retest_.push_back(taken.handle);
    }
    return true;
  });
}

void Core::HushTaken(uint64_t call) {
  for (const Taken& taken : taken_) {
    Slot* slot = taken.call == call ? slots_.Find(taken.handle) : nullptr;
    if (!slot || !slot->armed) continue;
    engine_->Hush(taken.handle.index, slot, Get(slot->fd));
  }
}

size_t Core::Unread() const {
  return ring_.size() + overflow_size_ +
         (slot_overflow_.size() - slot_overflow_begin_);
}

// --- Work before and after the kernel is asked.

void Core::BeforePoll() {
  if (pollable()) {
    uint64_t count;  // before the posts are looked at
    ssize_t r = read(wake_event_, &count, sizeof count);
    static_cast<void>(r);
  }
  if (!retest_.empty()) {
    retest_now_.clear();
    for (Handle h : retest_) {
      Slot* slot = slots_.Find(h);
      if (slot && slot->enabled() && !slot->unread) {
        retest_now_.push_back(h.index);
      }
    }
    retest_.clear();
    if (!retest_now_.empty()) engine_->Retest(retest_now_);
  }
  if (!stalled_.empty() && HasRoom()) ResumeAll(&stalled_, kBitStalled);
  if (starving_) RunStarved();
  ResumeAll(&yielded_, kBitYield);
  if (!bunch_.empty()) BeginBunch();
  if (!senders_.empty()) RunSenders();
  if (signals_.pending()) signals_.Run();
  if (inodes_.pending()) inodes_.Run();
  RunPosts();
  Pump();
}

void Core::RunStarved() {
  starving_ = false;
  for (auto& pool : pools_) {
    // One for each buffer: most of the others would look for one in vain. (A
    // multishot one may take more than one of them.)
    for (uint32_t left = pool->available;
         left > 0 && pool->available > 0 && pool->waits() &&
         !Fault(FaultPoint::kPoolStall);
         --left) {
      Operation* op = pool->NextWaiting();
      op->q.bits &= ~kBitStalled;
      Resume(op);
      Pump();
    }
    if (pool->waits()) starving_ = true;
  }
}

void Core::RunSenders() {
  // What is short need not wait for them.
  Pump();
  engine_->Flush();
  running_senders_ = true;
  while (!senders_.empty() && sent_ < kPass) {
    Operation* op = senders_.PopFront();
    op->q.bits &= ~kBitYield;
    Resume(op);
    Pump();
  }
  running_senders_ = false;
}

void Core::AfterPoll() {
  sent_ = 0;
  engine_->Process();
  timers_.Run();
  RunPopulated();
  RunPosts();
  Pump();
}

int Core::Post(PostOp* op) {
  State idle = State::kIdle;
  if (!std::atomic_ref(op->q.state)
           .compare_exchange_strong(idle, State::kStarted)) {
    return -EINVAL;
  }
  op->q.bits = 0;
  PostOp* head = posted_.load(std::memory_order_relaxed);
  do {
    op->next_posted = head;
  } while (!posted_.compare_exchange_weak(head, op));
  // Pairs with the store to sleeping_ before the check of posted_ in Enter: one
  // of the two threads sees the other.
  if (sleeping_.load() && !Fault(FaultPoint::kLostWakeup)) WakeEngine();
  return 0;
}

void Core::WakeEngine() {
  engine_->Wake();
  if (int fd = wake_event_.load(); fd >= 0) {
    uint64_t one = 1;
    ssize_t r = write(fd, &one, sizeof one);
    static_cast<void>(r);
  }
}

void Core::RunPosts() {
  if (!posted_.load(std::memory_order_relaxed)) return;
  PostOp* list = posted_.exchange(nullptr);
  PostOp* oldest = nullptr;
  while (list) {
    PostOp* next = list->next_posted;
    list->next_posted = oldest;
    oldest = list;
    list = next;
  }
  while (oldest) {
    PostOp* next = oldest->next_posted;
    ++operations_;
    ++stats_.submitted_by_opcode[static_cast<size_t>(Opcode::kPost)];
    oldest->q.state = State::kDone;
    oldest->q.done = 0;
    PushCompletion(oldest);
    oldest = next;
  }
}

void Core::Wake() {
  woken_.store(true);
  WakeEngine();
}

bool Core::TakeWake() {
  if (!woken_.exchange(false)) return false;
  ++stats_.wakes;
  return true;
}

// --- Waiting.

// `ns` from now, on CLOCK_MONOTONIC.
static int64_t After(int64_t ns) {
  const int64_t now = NowNs(CLOCK_MONOTONIC);
  return ns > INT64_MAX - now ? INT64_MAX : now + ns;
}

// The clock is not read for a time of its own: loops wait for that.
static int64_t DeadlineOf(const Wait& wait) {
  if (wait.timeout_ns < 0) return INT64_MAX;
  if (wait.timeout_ns == 0) return kPast;
  if (!wait.absolute) return After(wait.timeout_ns);
  if (wait.clock == CLOCK_MONOTONIC) return wait.timeout_ns;
  return After(std::max<int64_t>(wait.timeout_ns - NowNs(wait.clock), 0));
}

int Core::Enter(std::span<Entry> out, const Wait& wait) {
  if (!Timers::Knows(wait.clock)) return -EINVAL;
  size_t min = std::min(wait.min, out.size());
  const int64_t deadline = min == 0 ? kPast : DeadlineOf(wait);
  const int64_t min_deadline =
      wait.min_wait_ns < 0 ? INT64_MAX : After(wait.min_wait_ns);
  auto lock = Lock();
  ++stats_.enters;
  taken_now_ = 0;

  size_t n = 0;
  bool looked = false;
  // Zero: it returns as soon as it has taken something.
  const uint64_t call = min > 1 ? ++calls_ : 0;
  for (;;) {
    BeforePoll();
    if (many_threads_ && leader_) {
      // Another thread looks at the kernel.
      n += TakeLocked(out.subspan(n), true, call);
      const int64_t now = NowNs(CLOCK_MONOTONIC);
      if (n >= min || now >= deadline || (n > 0 && now >= min_deadline)) break;
      if (TakeWake()) break;
      if (call != 0) HushTaken(call);
      HandToLeader();
      Follow(&lock, n > 0 ? std::min(deadline, min_deadline) : deadline);
      continue;
    }
    size_t there = n + (out.empty() ? 0 : Unread());
    bool ready = there >= std::max<size_t>(min, 1);
    int64_t until = kPast;
    if (!ready && runnable_.empty() && !HasWaiting()) {
      until = std::min(deadline, timers_.earliest_ns());
      if (there > 0) until = std::min(until, min_deadline);
    }
    int r = 0;
    if (!ready || !looked) {
      if (call != 0) HushTaken(call);
      r = Look(&lock, until, wait.signal_mask);
      looked = true;
    }
    n += TakeLocked(out.subspan(n), true, call);
    if (n >= min && (min > 0 || looked)) break;
    if (r == -EINTR) {
      if (n == 0) {
        EndCall();
        if (many_threads_) HandOver();
        return -EINTR;
      }
      break;
    }
    if (TakeWake()) break;
    const int64_t now = NowNs(CLOCK_MONOTONIC);
    if (now >= deadline || (n > 0 && now >= min_deadline)) break;
  }
  if (call != 0) EndTaking(call);
  EndCall();
  if (many_threads_) HandOver();
  return static_cast<int>(n);
}

int Core::Look(std::unique_lock<std::mutex>* lock, int64_t until,
               const sigset_t* mask) {
  if (many_threads_) engine_->Flush();
  if (until != kPast) {
    sleeping_.store(true);
    // Posted before that store: no wake-up was sent for it.
    if (posted_.load() || woken_.load()) until = kPast;
  }
  ++stats_.waits;
  if (until != kPast) ++stats_.sleeps;
  int r;
  if (many_threads_) {
    leader_ = true;
    leader_deadline_ = until;
    lock->unlock();
    r = engine_->Poll(until, mask);
    lock->lock();
    leader_ = false;
  } else {
    r = engine_->Poll(until, mask);
  }
  if (!pollable()) sleeping_.store(false);
  AfterPoll();
  return r;
}

void Core::Follow(std::unique_lock<std::mutex>* lock, int64_t deadline) {
  ++followers_waiting_;
  if (deadline == INT64_MAX) {
    followers_.wait(*lock);
  } else {
    followers_.wait_until(*lock, std::chrono::steady_clock::time_point(
                                     std::chrono::nanoseconds(deadline)));
  }
  --followers_waiting_;
}

void Core::HandOver() {
  if (wake_all_) {
    wake_all_ = false;
    followers_.notify_all();
    if (leader_) engine_->Wake();
    return;
  }
  // The next one takes what is left, or looks at the kernel.
  if (followers_waiting_ > 0 && (!leader_ || Unread() > 0)) {
    followers_.notify_one();
  } else if (leader_ && Unread() > 0) {
    engine_->Wake();
  }
}

// What this thread has begun and does not go on with.
void Core::HandToLeader() {
  engine_->Flush();
  if (leader_ && (timers_.earliest_ns() < leader_deadline_ || HasWaiting())) {
    engine_->Wake();
  }
}

void Core::EndCall() {
  if (many_threads_) {
    HandToLeader();
    if (Unread() > 0) HandOver();
  }
  if (pollable()) {
    engine_->Flush();
    bool show = NeedsEnter();
    if (show != unread_shown_) {
      unread_shown_ = show;
      uint64_t one = 1;
      ssize_t r = show ? write(unread_event_, &one, sizeof one)
                       : read(unread_event_, &one, sizeof one);
      static_cast<void>(r);  // EAGAIN at most, and then it shows what it should
    }
  }
}

bool Core::NeedsEnter() const {
  if (Unread() > 0 || !retest_.empty() || (!stalled_.empty() && HasRoom()) ||
      signals_.pending() || inodes_.pending() || engine_->HasUnprocessed()) {
    return true;
  }
  return HasWaiting();
}

bool Core::CanServe() const {
  return std::any_of(pools_.begin(), pools_.end(), [](const auto& pool) {
    return pool->waits() && pool->available > 0 &&
           !Fault(FaultPoint::kPoolStall);
  });
}

int Core::PollableFd() {
  auto lock = Lock();
  if (pollable_ >= 0) return pollable_;
  if (int r = timers_.UseDescriptors(); r < 0) return r;
  int engine_fd = engine_->PollableFd();
  if (engine_fd < 0) return engine_fd;
  int fd = epoll_create1(EPOLL_CLOEXEC);
  if (fd < 0) return -errno;
  int unread = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  int wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  int error = unread < 0 || wake < 0 ? errno : 0;
  for (int inner : {engine_fd, unread, wake}) {
    epoll_event e = {};
    e.events = EPOLLIN;
    if (error == 0 && epoll_ctl(fd, EPOLL_CTL_ADD, inner, &e) < 0) {
      error = errno;
    }
  }
  if (error != 0) {
    for (int opened : {fd, unread, wake}) {
      if (opened >= 0) close(opened);
    }
    return -error;
  }
  unread_event_ = unread;
  wake_event_ = wake;
  pollable_ = fd;
  sleeping_.store(true);  // whoever polls it may sleep at any time
  // Posted before that store: no wake-up was sent for it.
  if (posted_.load() || woken_.load()) WakeEngine();
  EndCall();
  return pollable_;
}

Queue::Stats Core::stats() {
  auto lock = Lock();
  Queue::Stats s = stats_;
  s.ring_high_water = ring_.high_water();
  s.interests = slots_.used() - internal_slots_;
  s.operations = operations_;
  return s;
}

}  // namespace kevent::internal
