// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_LOOP_AWAIT_H_
#define SERVER_LOOP_AWAIT_H_

#include <errno.h>

#include <coroutine>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "server/loop/cancel.h"
#include "server/loop/loop.h"
#include "server/loop/timer.h"

namespace kevent::loop {

inline constexpr int64_t kNoDeadline = INT64_MAX;

struct AwaitOptions {
  int64_t deadline_ns = kNoDeadline;
  // A time of Loop::now_ns(); the result is -ETIMEDOUT when it has passed.
  CancelToken cancel;
  // The result is -ECANCELED when its source is cancelled.
};
// Both end an operation by cancelling it: what it has transferred by then
// counts and is the result, for instance the bytes of a send that was half out
// (the later sends on that socket are then refused, see operation.h). With a
// deadline that has passed or a cancelled token nothing is begun.

class AwaitBase : private CancelNode, private Timer {
 public:
  AwaitBase(Loop* loop, const AwaitOptions& options)
      : Timer(OnTimer), loop_(loop), options_(options) {
    CancelNode::fn = OnCancel;
  }
  AwaitBase(const AwaitBase&) = delete;
  AwaitBase& operator=(const AwaitBase&) = delete;

 protected:
  ~AwaitBase() {
    if (waiter_) [[unlikely]] {
      Abandon();
    }
  }

  using StopFn = void (*)(AwaitBase*, int error);

  int Refused() const {
    if (options_.cancel.cancelled()) return -ECANCELED;
    if (options_.deadline_ns <= loop_->now_ns()) return -ETIMEDOUT;
    return 0;
  }
  // Not zero: do not begin.

  void Begin(std::coroutine_handle<> waiter, StopFn stop) {
    waiter_ = waiter;
    stop_ = stop;
    if (options_.deadline_ns != kNoDeadline) {
      loop_->SetTimer(this, options_.deadline_ns);
    }
    if (options_.cancel.source_) options_.cancel.source_->Add(this);
  }
  // It waits from now on. `stop` is called at most once, in the loop's thread:
  // with -ETIMEDOUT when the deadline has passed (End may be called in there),
  // or with -ECANCELED (it may not, somebody is at work; EndSoon may). One of
  // them must follow.

  void End(int64_t result) {
    result_ = result;
    Unregister();
    std::exchange(waiter_, {}).resume();
  }
  // `this` may be gone afterwards.

  void EndSoon(int64_t result) {
    result_ = result;
    LeaveSource();
    ending_ = true;
    loop_->SetTimer(this, loop_->now_ns() + 1);
  }
  // End, but in the next turn.

  Loop* const loop_;
  const AwaitOptions options_;
  int64_t result_ = 0;
  int stopped_ = 0;  // why: -ETIMEDOUT, -ECANCELED

 private:
  static void OnTimer(Loop*, Timer* timer);
  static void OnCancel(CancelNode* node);
  void Unregister() {
    loop_->CancelTimer(this);
    LeaveSource();
  }
  void LeaveSource() {
    // Once it was cancelled the source may be gone.
    if (CancelNode::linked) options_.cancel.source_->Remove(this);
  }
  void StopFor(int error);
  void Abandon();

  StopFn stop_ = nullptr;
  std::coroutine_handle<> waiter_;
  bool ending_ = false;
};
// What all awaits share: who waits, until when, and with which token. They live
// in the coroutine's frame for the length of the co_await expression; nothing
// is allocated.

template <typename Op>
class [[nodiscard]] OperationAwait : public AwaitBase, public Op {
 public:
  OperationAwait(Loop* loop, int fd, const AwaitOptions& options)
      : AwaitBase(loop, options) {
    this->fd = fd;
  }

  bool await_ready() const noexcept { return false; }

  bool await_suspend(std::coroutine_handle<> waiter) {
    if (int r = Refused(); r != 0) {
      result_ = r;
      return false;
    }
    if (MayEndInline() && loop_->TakeInline()) this->flags |= kOpSkipInline;
    int r = loop_->Submit(this, OnEntry);
    if (r != 0) {
      result_ = r == Queue::kDone ? FullLength() : r;
      return false;
    }
    Begin(waiter, Stop);
    return true;
  }

  int64_t await_resume() noexcept { return result_; }

 private:
  bool MayEndInline() const {
    // These bring a descriptor or a buffer in their entry.
    if constexpr (std::is_same_v<Op, AcceptOp>) return false;
    if constexpr (std::is_same_v<Op, RecvOp>) return !this->pool;
    return true;
  }

  int64_t FullLength() const {
    if constexpr (std::is_same_v<Op, RecvOp>) {
      return this->size;
    } else if constexpr (std::is_same_v<Op, SendOp>) {
      int64_t total = 0;
      for (const iovec& piece : this->pieces) {
        total += static_cast<int64_t>(piece.iov_len);
      }
      return total;
    } else if constexpr (std::is_same_v<Op, SendfileOp>) {
      return static_cast<int64_t>(this->header.size()) + this->length +
             static_cast<int64_t>(this->trailer.size());
    } else {
      return 0;
    }
  }

  static void OnEntry(Loop*, Operation* op, const Entry& entry) {
    auto* self = static_cast<OperationAwait*>(static_cast<Op*>(op));
    if constexpr (std::is_same_v<Op, RecvOp>) {
      if (entry.flags & kEntryBuffer) {
        self->buffer = reinterpret_cast<void*>(entry.data[0]);
        self->buffer_id = static_cast<uint16_t>(entry.data[1]);
      }
    }
    int64_t result = entry.result;
    if (result == -ECANCELED && self->stopped_) result = self->stopped_;
    self->End(result);
  }

  static void Stop(AwaitBase* base, int) {
    auto* self = static_cast<OperationAwait*>(base);
    // -ENOENT: its result is on the way already, and wins.
    self->loop_->Cancel(self);
  }
};
// One operation, in the frame of the coroutine that awaits it. What completes
// within Submit does not suspend the coroutine.

class [[nodiscard]] SleepAwait : public AwaitBase {
 public:
  SleepAwait(Loop* loop, int64_t until_ns, CancelToken cancel)
      : AwaitBase(loop,
                  {until_ns > loop->now_ns() ? until_ns : loop->now_ns() + 1,
                   cancel}) {}

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> waiter) {
    if (options_.cancel.cancelled()) {
      result_ = -ECANCELED;
      return false;
    }
    Begin(waiter, Stop);
    return true;
  }
  int64_t await_resume() const noexcept { return result_; }

 private:
  static void Stop(AwaitBase* base, int error) {
    auto* self = static_cast<SleepAwait*>(base);
    if (error == -ETIMEDOUT) {
      self->End(0);
    } else {
      self->EndSoon(error);
    }
  }
};

}  // namespace kevent::loop

#endif  // SERVER_LOOP_AWAIT_H_
