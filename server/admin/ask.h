// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_ASK_H_
#define SERVER_ADMIN_ASK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "server/admin/mailbox.h"
#include "server/loop/loop.h"
#include "server/loop/timer.h"

namespace kevent::admin {

inline constexpr int64_t kAskPatience = 2'000'000'000;
// Nanoseconds in which a worker's loop must have done what it is asked.

template <typename R>
class Ask : private loop::Timer, public std::enable_shared_from_this<Ask<R>> {
 public:
  using StepFn = absl::AnyInvocable<bool(R* result)>;
  using DoneFn = absl::AnyInvocable<void(std::optional<R> result)>;

  static void Start(loop::Loop* admin, std::shared_ptr<Mailbox> mailbox,
                    loop::Loop* worker, StepFn step, DoneFn done) {
    std::shared_ptr<Ask> ask(new Ask(admin, std::move(done)));
    ask->self_ = ask;
    admin->SetTimer(ask.get(), admin->UpdateNow() + kAskPatience);
    auto task = std::make_shared<Task>();
    task->step = std::move(step);
    task->worker = worker;
    task->mailbox = std::move(mailbox);
    task->ask = ask;
    Run(std::move(task));
  }

 private:
  // What goes to the worker's loop and comes back.
  struct Task {
    StepFn step;
    R result = {};
    loop::Loop* worker = nullptr;
    std::shared_ptr<Mailbox> mailbox;
    std::shared_ptr<Ask> ask;  // touched by the admin loop alone
  };

  Ask(loop::Loop* admin, DoneFn done)
      : loop::Timer(OnTimer), admin_(admin), done_(std::move(done)) {}

  static void Run(std::shared_ptr<Task> task) {
    loop::Loop* worker = task->worker;
    worker->Post([task = std::move(task)]() mutable {
      if (task->step(&task->result)) {
        Run(std::move(task));  // when the loop has seen to others
        return;
      }
      // Its step may hold what belongs to this thread.
      task->step = nullptr;
      Mailbox* mailbox = task->mailbox.get();
      mailbox->Post([task] { task->ask->Finish(std::move(task->result)); });
    });
  }

  static void OnTimer(loop::Loop*, loop::Timer* timer) {
    static_cast<Ask*>(timer)->Finish(std::nullopt);
  }

  void Finish(std::optional<R> result) {
    if (!done_) return;
    admin_->CancelTimer(this);
    auto keep = std::move(self_);
    std::exchange(done_, nullptr)(std::move(result));
  }

  loop::Loop* const admin_;
  DoneFn done_;
  std::shared_ptr<Ask> self_;  // until it has finished
};
// Runs `step` in a worker's loop, again and again as long as it returns true,
// each time as a closure of its own, so that what takes long does not hold the
// loop up. Then `done` gets the result in the admin loop, from which Start is
// called; or nothing if the loop did not get to its end in time, which it then
// does for nobody.

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_ASK_H_
