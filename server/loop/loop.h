// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_LOOP_LOOP_H_
#define SERVER_LOOP_LOOP_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "kevent/queue/queue.h"
#include "kevent/queue/timer_heap.h"
#include "server/loop/timer.h"

namespace kevent::loop {

class Loop;
template <typename T>
class Task;

using CompletionFn = void (*)(Loop* loop, Operation* op, const Entry& entry);
// What an operation's entries are handed to; it stands in Operation::user_data.
// The operation is a member or base of whatever waits for it, found by a
// static_cast or offsetof.

using WatchFn = absl::AnyInvocable<void(const Entry& entry)>;

struct WatchId {
  uint32_t index = 0;
  uint32_t generation = 0;  // 0 is no watch's

  friend bool operator==(const WatchId&, const WatchId&) = default;
};
// Names a watch of one Loop; never reused.

struct DetachedTask {
  DetachedTask* prev = nullptr;
  DetachedTask* next = nullptr;
  void (*destroy)(DetachedTask*) = nullptr;
};
// A spawned coroutine in its loop's list; see task.h.

struct CloseHook {
  CloseHook* prev = nullptr;
  CloseHook* next = nullptr;
  void (*fn)(CloseHook*) = nullptr;
};
// See Loop::AddCloseHook.

int64_t MonotonicNs();
// CLOCK_MONOTONIC as it is now: reads the clock, as Loop::now_ns does not.

class Loop {
 public:
  struct Options {
    Queue::Options queue;

    uint32_t wake_entries = 1;
    int64_t wake_delay_ns = -1;
    // Waits for that many entries, or until the delay has passed since it began
    // to wait, then for one. More than one trades latency for fewer wake-ups.
    // Negative: no delay, `wake_entries` counts alone, so leave it at 1 then.
  };

  struct Stats {
    uint64_t turns = 0;
    uint64_t entries = 0;  // dispatched
    uint64_t dropped = 0;  // of watches removed within their batch
    uint64_t timers = 0;   // fired
    uint64_t posts = 0;    // run
  };

  static constexpr size_t kBatch = 256;
  static constexpr size_t kTimersPerTurn = 256;
  static constexpr uint32_t kInlinePerTurn = 512;

  static absl::StatusOr<std::unique_ptr<Loop>> Create(const Options& options);
  // Unavailable: no engine works, the message says why. Any thread may create
  // it; the thread that runs it first owns it from then on.

  ~Loop();
  // In this order: what was given to DeleteSoon is deleted, posted closures are
  // destroyed unrun, operations are cancelled and forgotten without a callback,
  // timers become idle, watches go, suspended spawned tasks are destroyed.
  // Descriptors stay open, except those owned by what is destroyed.

  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // --- Running.

  void Run();
  // Turns until Stop. May be called again afterwards.

  int RunOnce(int64_t timeout_ns);
  // One turn: waits at most `timeout_ns` (nanoseconds; negative: no limit) for
  // the first entry, then runs, in this order: the batch of up to kBatch
  // entries, posted closures, timers that are due (at most kTimersPerTurn),
  // what was deferred. Returns how many callbacks that were, or a negative
  // errno of Queue::Enter. Signal handlers do not shorten the wait. Not from
  // within a callback.

  void Stop();
  // Any thread: Run returns after its current turn, or at once if it is called
  // later. The loop must outlive the call, which goes on after Run was told.

  int64_t now_ns() const { return now_ns_; }
  // CLOCK_MONOTONIC as of the beginning of this turn's batch.

  int64_t UpdateNow();
  // Reads the clock anew, for a callback that has worked for long.

  bool InLoopThread() const {
    return owner_.load(std::memory_order_relaxed) == std::this_thread::get_id();
  }
  // False until the first turn, for every thread.

  // --- Completions.

  Queue& queue() { return *queue_; }
  // For buffer pools, statistics, and Cancel of what was submitted here.
  // Interests are added by Watch alone: the loop reads their user_data.

  static void SetCompletion(Operation* op, CompletionFn fn) {
    op->user_data = reinterpret_cast<uintptr_t>(fn);
  }
  // For operations that are submitted as links of another; null drops entries.

  int Submit(Operation* op, CompletionFn fn) {
    SetCompletion(op, fn);
    return queue_->Submit(op);
  }
  // Queue::Submit; `fn` is called for each entry, from RunOnce, never from
  // within Submit.
  //
  // An operation may be used again or destroyed when `fn` was *called* with its
  // last entry (no kEntryMore). in_flight() is not that: it turns false when
  // the batch is copied out, and the entry may then still stand in the batch,
  // behind the one being handled. So an object with several operations counts
  // what it has submitted and what came back; or, when nothing is in_flight()
  // any more, it is given to DeleteSoon and answers the callbacks that still
  // come.

  int Cancel(Operation* op) { return queue_->Cancel(op); }

  bool TakeInline() {
    if (inline_left_ == 0) return false;
    --inline_left_;
    return true;
  }
  // Whether one more operation of this turn may be submitted with
  // kOpSkipInline: true kInlinePerTurn times, so that one coroutine whose
  // operations all complete at once does not keep the others waiting.

  int Close(int fd);
  // Queue::Close, and plain close(2) while the loop is being destroyed. Watches
  // on `fd` are dead from then on, their entries in the current batch included,
  // but keep their place until Unwatch. With a CloseOp, Unwatch comes first.

  void AddCloseHook(CloseHook* hook);
  void RemoveCloseHook(CloseHook* hook);
  // `hook->fn` is called after each Close, until it is removed: for those that
  // wait for a free descriptor. It may not add or remove hooks.

  bool closing() const { return queue_ == nullptr; }
  // Within ~Loop, after the queue was taken down: buffers of its pools are
  // gone.

  // --- Timers.

  void SetTimer(Timer* timer, int64_t deadline_ns) {
    timers_.Set(timer, deadline_ns);
  }
  // Fires at the first turn at or after `deadline_ns` of now_ns()'s clock;
  // moves it if it is pending. Never fires within this call. Order of equal
  // deadlines is unspecified.
  //
  // A deadline that moves with every request need not move in the heap each
  // time: keep the true deadline in the object, set the timer only if it is not
  // pending or pends for later than that, and when it fires with
  // `deadline > loop->now_ns()`, set it again for `deadline`. A connection then
  // pays one store for each request and one heap operation for each time-out
  // period.

  void CancelTimer(Timer* timer) { timers_.Remove(timer); }
  // It will not fire. Nothing if it is not pending.

  // --- Other threads.

  void Post(absl::AnyInvocable<void()> fn);
  // Any thread: runs `fn` in the loop's thread, in the order of each posting
  // thread. One allocation. The loop must outlive the call. What is not run
  // when the loop is destroyed is destroyed there.

  // --- Ends of objects.

  void Defer(void (*fn)(void*), void* arg) { deferred_.push_back({fn, arg}); }
  // Calls `fn(arg)` at the end of this turn (of the next one outside of Run),
  // or from ~Loop. What it defers runs a turn later, in ~Loop at once.

  template <typename T>
  void DeleteSoon(T* object) {
    Defer([](void* p) { delete static_cast<T*>(p); }, object);
  }
  // Deletes `object` when no entry of the current batch can name it any more.
  // None of its operations may be in_flight().

  // --- Watches: interests of the queue with a callback.

  int Watch(const Interest& interest, WatchFn fn, WatchId* id);
  // Queue::Add; `interest.user_data` is ignored. `fn` is called for each entry
  // until Unwatch, or until the one without kEntryMore. It may do anything to
  // its own watch, and is destroyed at the end of the turn then.
  int Modify(WatchId id, uint32_t events, uint32_t flags);
  int SetTimerWatch(WatchId id, int64_t first_ns, int64_t interval_ns,
                    bool absolute);
  int Enable(WatchId id);
  int Disable(WatchId id);
  int Unwatch(WatchId id);
  // As Modify, SetTimer, Enable, Disable, Remove of Queue. Entries of that
  // watch in the batch being dispatched are dropped too, but for Enable.
  bool watching(WatchId id) const;

  // --- Tasks.

  void Spawn(Task<void> task);
  // Starts it and runs it detached, until it first waits. Defined in task.cc.
  size_t tasks() const { return task_count_; }
  // Spawned and not ended.

  void AddTask(DetachedTask* task);
  void RemoveTask(DetachedTask* task);
  // For Spawn and the end of what it started.

  Stats stats() const { return stats_; }
  // In the loop's thread.

 private:
  struct Deferred {
    void (*fn)(void*);
    void* arg;
  };
  struct Posted {
    Posted* next;
    absl::AnyInvocable<void()> fn;
  };
  struct WatchSlot {
    WatchFn fn;
    Handle handle;
    int fd = -1;              // kPoll
    uint32_t generation = 0;  // odd while in use
    uint32_t next_free = 0;
    uint64_t withdrawn = 0;  // entries of that turn's batch are not delivered
  };

  explicit Loop(const Options& options) : options_(options) {}

  void DispatchWatch(const Entry& entry);
  WatchSlot* FindWatch(WatchId id) const;
  int64_t WaitUntil(int64_t timeout_ns) const;
  void FreeWatch(uint32_t index);
  void ReleaseWatch(uint32_t index);
  void DropPosted();
  size_t RunPosted();
  size_t RunTimers();
  size_t RunDeferred();

  const Options options_;
  std::unique_ptr<Queue> queue_;
  int64_t now_ns_ = 0;
  TimerHeap timers_;
  std::vector<Deferred> deferred_;
  std::vector<Deferred> deferred_now_;
  std::vector<std::unique_ptr<WatchSlot>> watches_;
  std::vector<uint32_t> dead_watches_;  // their callbacks go after the batch
  uint32_t free_watch_ = ~0u;
  uint32_t watch_count_ = 0;
  std::vector<int> closed_;  // by Close within this turn
  uint32_t inline_left_ = kInlinePerTurn;
  bool in_turn_ = false;
  CloseHook* close_hooks_ = nullptr;
  DetachedTask* task_list_ = nullptr;
  size_t task_count_ = 0;
  Stats stats_;
  std::atomic<std::thread::id> owner_{};

  alignas(64) std::atomic<Posted*> posted_{nullptr};  // newest first
  std::atomic<bool> stop_{false};

  alignas(64) std::array<Entry, kBatch> batch_;
};
// An event loop: one Queue and the thread that runs it. Reactor and Proactor
// are its two faces. Everything but Post, Stop and InLoopThread belongs to that
// thread (before its first turn, to the thread that will run it).

}  // namespace kevent::loop

#endif  // SERVER_LOOP_LOOP_H_
