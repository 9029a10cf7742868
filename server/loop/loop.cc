// SPDX-License-Identifier: Apache-2.0
#include "server/loop/loop.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <utility>

namespace kevent::loop {

int64_t MonotonicNs() {
  timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return int64_t{ts.tv_sec} * 1000000000 + ts.tv_nsec;
}

namespace {

uint64_t Pack(WatchId id) { return uint64_t{id.generation} << 32 | id.index; }

WatchId Unpack(uint64_t user_data) {
  return {static_cast<uint32_t>(user_data),
          static_cast<uint32_t>(user_data >> 32)};
}

}  // namespace

void Timer::DestroyedPending(const Timer* timer) {
  fprintf(stderr, "kevent: timer %p was destroyed while pending\n",
          static_cast<const void*>(timer));
  abort();
}

absl::StatusOr<std::unique_ptr<Loop>> Loop::Create(const Options& options) {
  std::unique_ptr<Loop> loop(new Loop(options));
  absl::StatusOr<std::unique_ptr<Queue>> queue = Queue::Create(options.queue);
  if (!queue.ok()) return queue.status();
  loop->queue_ = *std::move(queue);
  loop->UpdateNow();
  return loop;
}

Loop::~Loop() {
  // What a deferred function defers is run, too: nobody else would.
  while (RunDeferred() > 0) {
  }
  DropPosted();
  queue_.reset();
  while (!timers_.empty()) timers_.Remove(timers_.earliest());
  // Operations are idle now, so frames that wait for one may go. A frame that
  // goes may end watches, and take the frames it awaits with it.
  while (task_list_) {
    DetachedTask* task = task_list_;
    RemoveTask(task);
    task->destroy(task);
  }
  in_turn_ = true;  // callbacks that end other watches leave the slots alone
  for (auto& slot : watches_) slot->fn = nullptr;
  while (RunDeferred() > 0) {
  }
  DropPosted();
}

void Loop::DropPosted() {
  for (Posted* p = posted_.exchange(nullptr, std::memory_order_acquire); p;) {
    Posted* next = p->next;
    delete p;
    p = next;
  }
}

int64_t Loop::UpdateNow() { return now_ns_ = MonotonicNs(); }

void Loop::Run() {
  while (!stop_.load(std::memory_order_acquire)) {
    int r = RunOnce(-1);
    if (r < 0) {
      // Only a broken set of options gets here, and then at the first turn.
      fprintf(stderr, "kevent: the loop cannot wait for events: errno %d\n",
              -r);
      abort();
    }
  }
  stop_.store(false, std::memory_order_relaxed);
}

void Loop::Stop() {
  stop_.store(true, std::memory_order_release);
  queue_->Wake();
}

int64_t Loop::WaitUntil(int64_t timeout_ns) const {
  int64_t until = INT64_MAX;
  if (timeout_ns >= 0) {
    // The cached time is stale by whatever the caller did since.
    int64_t now = MonotonicNs();
    until = timeout_ns > INT64_MAX - now ? INT64_MAX : now + timeout_ns;
  }
  if (!timers_.empty()) until = std::min(until, timers_.earliest_ns());
  return until;
}

int Loop::RunOnce(int64_t timeout_ns) {
  if (in_turn_) {
    fprintf(stderr, "kevent: a loop was run from within its own callback\n");
    abort();
  }
  if (stats_.turns == 0) {
    owner_.store(std::this_thread::get_id(), std::memory_order_relaxed);
  }
  Wait wait;
  if (timeout_ns == 0 || !deferred_.empty() ||
      posted_.load(std::memory_order_relaxed)) {
    wait.min = 0;
  } else {
    int64_t until = WaitUntil(timeout_ns);
    if (until <= now_ns_) {
      wait.min = 0;
    } else {
      wait.min = options_.wake_entries;
      wait.min_wait_ns = options_.wake_delay_ns;
      if (until != INT64_MAX) {
        wait.timeout_ns = until;
        wait.absolute = true;
      }
    }
  }
  // A signal handler that wants the loop's attention has Stop and Post, which
  // wake it; and the kernel interrupts for its own ends, too, such as the work
  // that a closed io_uring leaves behind.
  int n;
  do {
    n = queue_->Enter(batch_, wait);
  } while (n == -EINTR);
  UpdateNow();
  ++stats_.turns;
  if (n < 0) return n;
  in_turn_ = true;
  inline_left_ = kInlinePerTurn;
  for (int i = 0; i < n; ++i) {
    const Entry& e = batch_[i];
    if (i + 1 < n) __builtin_prefetch(batch_[i + 1].operation);
    if (e.operation) {
      if (auto fn = reinterpret_cast<CompletionFn>(e.user_data)) {
        fn(this, e.operation, e);
      }
    } else {
      DispatchWatch(e);
    }
  }
  stats_.entries += n;
  size_t done = n;
  done += RunPosted();
  done += RunTimers();
  done += RunDeferred();
  in_turn_ = false;
  closed_.clear();
  if (!dead_watches_.empty()) {
    for (uint32_t index : std::exchange(dead_watches_, {})) ReleaseWatch(index);
  }
  return static_cast<int>(done);
}

// --- Posted, timed and deferred.

void Loop::Post(absl::AnyInvocable<void()> fn) {
  auto* node = new Posted{nullptr, std::move(fn)};
  Posted* head = posted_.load(std::memory_order_relaxed);
  do {
    node->next = head;
  } while (!posted_.compare_exchange_weak(head, node, std::memory_order_release,
                                          std::memory_order_relaxed));
  // Whoever posted to the empty list wakes for all behind it: the loop empties
  // the list after every wake-up. Its own thread looks before it waits.
  if (!head && !InLoopThread()) queue_->Wake();
}

size_t Loop::RunPosted() {
  if (!posted_.load(std::memory_order_relaxed)) return 0;
  Posted* list = posted_.exchange(nullptr, std::memory_order_acquire);
  Posted* oldest = nullptr;
  while (list) {
    Posted* next = list->next;
    list->next = oldest;
    oldest = list;
    list = next;
  }
  size_t n = 0;
  while (oldest) {
    Posted* next = oldest->next;
    oldest->fn();
    delete oldest;
    oldest = next;
    ++n;
  }
  stats_.posts += n;
  return n;
}

size_t Loop::RunTimers() {
  size_t n = 0;
  while (n < kTimersPerTurn && !timers_.empty() &&
         timers_.earliest_ns() <= now_ns_) {
    auto* timer = static_cast<Timer*>(timers_.earliest());
    timers_.Remove(timer);
    timer->fn(this, timer);
    ++n;
  }
  stats_.timers += n;
  return n;
}

size_t Loop::RunDeferred() {
  if (deferred_.empty()) return 0;
  deferred_now_.swap(deferred_);
  for (const Deferred& d : deferred_now_) d.fn(d.arg);
  size_t n = deferred_now_.size();
  deferred_now_.clear();
  return n;
}

int Loop::Close(int fd) {
  if (!queue_) return ::close(fd) < 0 && errno != EINTR ? -errno : 0;
  if (in_turn_ && watch_count_ > 0) closed_.push_back(fd);
  int r = queue_->Close(fd);
  for (CloseHook* hook = close_hooks_; hook; hook = hook->next) hook->fn(hook);
  return r;
}

void Loop::AddCloseHook(CloseHook* hook) {
  hook->prev = nullptr;
  hook->next = close_hooks_;
  if (close_hooks_) close_hooks_->prev = hook;
  close_hooks_ = hook;
}

void Loop::RemoveCloseHook(CloseHook* hook) {
  (hook->prev ? hook->prev->next : close_hooks_) = hook->next;
  if (hook->next) hook->next->prev = hook->prev;
}

// --- Watches.

Loop::WatchSlot* Loop::FindWatch(WatchId id) const {
  if (id.index >= watches_.size() || !(id.generation & 1)) return nullptr;
  WatchSlot* slot = watches_[id.index].get();
  return slot->generation == id.generation ? slot : nullptr;
}

bool Loop::watching(WatchId id) const { return FindWatch(id) != nullptr; }

int Loop::Watch(const Interest& interest, WatchFn fn, WatchId* id) {
  if (!queue_) return -ECANCELED;
  uint32_t index = free_watch_;
  if (index != ~0u) {
    free_watch_ = watches_[index]->next_free;
  } else {
    index = static_cast<uint32_t>(watches_.size());
    watches_.push_back(std::make_unique<WatchSlot>());
  }
  WatchSlot* slot = watches_[index].get();
  ++slot->generation;
  slot->withdrawn = 0;
  WatchId made = {index, slot->generation};
  Interest own = interest;
  own.user_data = Pack(made);
  if (int r = queue_->Add(own, &slot->handle); r < 0) {
    ++slot->generation;
    slot->next_free = free_watch_;
    free_watch_ = index;
    return r;
  }
  slot->fn = std::move(fn);
  slot->fd = interest.source == Source::kPoll ? interest.fd : -1;
  ++watch_count_;
  *id = made;
  return 0;
}

void Loop::DispatchWatch(const Entry& entry) {
  WatchId id = Unpack(entry.user_data);
  WatchSlot* slot = FindWatch(id);
  if (!slot || slot->withdrawn == stats_.turns ||
      (slot->fd >= 0 &&
       std::find(closed_.begin(), closed_.end(), slot->fd) != closed_.end())) {
    ++stats_.dropped;
    return;
  }
  slot->fn(entry);
  if (!(entry.flags & kEntryMore) && slot->generation == id.generation) {
    FreeWatch(id.index);
  }
}

void Loop::FreeWatch(uint32_t index) {
  ++watches_[index]->generation;
  --watch_count_;
  if (in_turn_) {
    dead_watches_.push_back(index);  // its callback may be running
  } else {
    ReleaseWatch(index);
  }
}

void Loop::ReleaseWatch(uint32_t index) {
  WatchSlot* slot = watches_[index].get();
  WatchFn fn = std::move(slot->fn);
  slot->fn = nullptr;
  slot->next_free = free_watch_;
  free_watch_ = index;
  // `fn` goes last: what it owns may add and remove watches.
}

int Loop::Modify(WatchId id, uint32_t events, uint32_t flags) {
  WatchSlot* slot = FindWatch(id);
  if (!slot || !queue_) return -ENOENT;
  int r = queue_->Modify(slot->handle, events, flags);
  if (r == 0) slot->withdrawn = stats_.turns;
  return r;
}

int Loop::SetTimerWatch(WatchId id, int64_t first_ns, int64_t interval_ns,
                        bool absolute) {
  WatchSlot* slot = FindWatch(id);
  if (!slot || !queue_) return -ENOENT;
  int r = queue_->SetTimer(slot->handle, first_ns, interval_ns, absolute);
  if (r == 0) slot->withdrawn = stats_.turns;
  return r;
}

int Loop::Enable(WatchId id) {
  WatchSlot* slot = FindWatch(id);
  return slot && queue_ ? queue_->Enable(slot->handle) : -ENOENT;
}

int Loop::Disable(WatchId id) {
  WatchSlot* slot = FindWatch(id);
  if (!slot || !queue_) return -ENOENT;
  int r = queue_->Disable(slot->handle);
  if (r == 0) slot->withdrawn = stats_.turns;
  return r;
}

int Loop::Unwatch(WatchId id) {
  WatchSlot* slot = FindWatch(id);
  if (!slot) return -ENOENT;
  // Its last entry may stand in the batch: then the queue knows it no more.
  if (queue_) queue_->Remove(slot->handle);
  FreeWatch(id.index);
  return 0;
}

// --- Tasks.

void Loop::AddTask(DetachedTask* task) {
  task->prev = nullptr;
  task->next = task_list_;
  if (task_list_) task_list_->prev = task;
  task_list_ = task;
  ++task_count_;
}

void Loop::RemoveTask(DetachedTask* task) {
  (task->prev ? task->prev->next : task_list_) = task->next;
  if (task->next) task->next->prev = task->prev;
  --task_count_;
}

}  // namespace kevent::loop
