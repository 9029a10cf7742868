// SPDX-License-Identifier: Apache-2.0
#include "server/net/accept_loop.h"

#include <errno.h>

#include <utility>

#include "server/loop/await.h"
#include "server/loop/proactor.h"

namespace kevent::net {

namespace {

using loop::AwaitBase;
using loop::AwaitOptions;
using loop::Loop;
using OnConnection = absl::AnyInvocable<void(int fd)>;

class AcceptMany : public AwaitBase, public AcceptOp {
 public:
  AcceptMany(Loop* loop, int listener, OnConnection* fn, bool* accepted,
             const AwaitOptions& options)
      : AwaitBase(loop, options), fn_(fn), accepted_(accepted) {
    fd = listener;
    flags = kOpMultishot;
  }

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> waiter) {
    result_ = Refused();
    if (result_ == 0) result_ = loop_->Submit(this, OnEntry);
    if (result_ != 0) return false;
    Begin(waiter, Stop);
    return true;
  }
  int64_t await_resume() const noexcept { return result_; }

 private:
  static void OnEntry(Loop*, Operation* op, const Entry& entry) {
    auto* self = static_cast<AcceptMany*>(static_cast<AcceptOp*>(op));
    if (entry.result >= 0) {
      *self->accepted_ = true;
      (*self->fn_)(static_cast<int>(entry.result));
    }
    if (!(entry.flags & kEntryMore)) self->End(entry.result);
  }
  static void Stop(AwaitBase* base, int) {
    auto* self = static_cast<AcceptMany*>(base);
    self->loop_->Cancel(self);
  }

  OnConnection* const fn_;
  bool* const accepted_;
};
// Ends with the result of the last entry.

class Pause : public AwaitBase, private loop::CloseHook {
 public:
  Pause(Loop* loop, const AwaitOptions& options) : AwaitBase(loop, options) {
    CloseHook::fn = OnClose;
  }
  ~Pause() {
    if (hooked_) loop_->RemoveCloseHook(this);
  }

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> waiter) {
    result_ = Refused();
    if (result_ != 0) return false;
    loop_->AddCloseHook(this);
    hooked_ = true;
    Begin(waiter, Stop);
    return true;
  }
  int64_t await_resume() const noexcept { return result_; }

 private:
  static void OnClose(loop::CloseHook* hook) {
    static_cast<Pause*>(hook)->EndSoon(0);
  }
  static void Stop(AwaitBase* base, int error) {
    auto* self = static_cast<Pause*>(base);
    if (error == -ETIMEDOUT) {
      self->End(0);
    } else {
      self->EndSoon(error);
    }
  }

  bool hooked_ = false;
};
// Until its deadline or the next Loop::Close.

bool IsFinal(int64_t error) {
  switch (-error) {
    case ECANCELED:
    case EBADF:
    case EINVAL:
    case ENOTSOCK:
    case EOPNOTSUPP:
    case EFAULT:
      return true;
    default:
      return false;
  }
}

}  // namespace

loop::Task<int64_t> AcceptLoop(Loop* loop, int listener,
                               OnConnection on_connection,
                               AcceptLoopOptions options) {
  bool paused = false;
  for (;;) {
    bool accepted = false;
    AwaitOptions until_cancelled;
    until_cancelled.cancel = options.cancel;
    int64_t r = co_await AcceptMany(loop, listener, &on_connection, &accepted,
                                    until_cancelled);
    if (r >= 0) continue;
    if (IsFinal(r)) co_return r;
    if (accepted) paused = false;
    if (!paused && options.on_pause) options.on_pause(static_cast<int>(-r));
    paused = true;
    AwaitOptions pause;
    pause.cancel = options.cancel;
    pause.deadline_ns = loop->now_ns() + options.pause_ns;
    if (co_await Pause(loop, pause) < 0) co_return -ECANCELED;
  }
}

}  // namespace kevent::net
