// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_MAILBOX_H_
#define SERVER_ADMIN_MAILBOX_H_

#include <mutex>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "server/loop/loop.h"

namespace kevent::admin {

class Mailbox {
 public:
  explicit Mailbox(loop::Loop* loop) : loop_(loop) {}

  bool Post(absl::AnyInvocable<void()> fn) {
    std::lock_guard lock(mutex_);
    if (loop_) loop_->Post(std::move(fn));
    return loop_ != nullptr;
  }
  // Any thread: `fn` runs in the admin loop, in the order of the calls. False:
  // it was closed, and `fn` is gone.

  void Close() {
    std::lock_guard lock(mutex_);
    loop_ = nullptr;
  }

 private:
  std::mutex mutex_;
  loop::Loop* loop_;
};
// The way to the admin loop for those that may outlive it: a worker's loop that
// was busy answers late. Shared.

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_MAILBOX_H_
