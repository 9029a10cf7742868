// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_EXPECT_H_
#define SERVER_ADMIN_EXPECT_H_

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/admin/errors.h"
#include "server/admin/lists.h"
#include "server/loop/timer.h"

namespace kevent::admin {

inline constexpr int64_t kExpectPatience = 5'000'000'000;
// Nanoseconds.

template <typename R>
class Expectation : private loop::Timer {
 public:
  using FillFn = absl::AnyInvocable<void(const R&)>;

  Expectation(loop::Loop* loop, FinishFn finish, FillFn fill)
      : loop::Timer(OnTimer),
        loop_(loop),
        finish_(std::move(finish)),
        fill_(std::move(fill)) {}

  static void Begin(std::shared_ptr<Expectation> e) {
    e->loop_->SetTimer(e.get(), e->loop_->UpdateNow() + kExpectPatience);
    e->self_ = std::move(e);
  }

  void Answer(const absl::StatusOr<R>& result) {
    if (!finish_) return;
    loop_->CancelTimer(this);
    auto keep = std::move(self_);
    if (result.ok()) fill_(*result);
    std::exchange(finish_, nullptr)(result.status());
  }

 private:
  static void OnTimer(loop::Loop*, loop::Timer* timer) {
    static_cast<Expectation*>(timer)->Answer(
        Busy("the service is busy and has not answered"));
  }

  loop::Loop* const loop_;
  FinishFn finish_;
  FillFn fill_;
  std::shared_ptr<Expectation> self_;  // until it was answered
};

template <typename R>
absl::AnyInvocable<void(absl::StatusOr<R>)> Expect(
    const Context& context, FinishFn finish,
    absl::AnyInvocable<void(const R&)> fill) {
  auto e = std::make_shared<Expectation<R>>(context.loop, std::move(finish),
                                            std::move(fill));
  Expectation<R>::Begin(e);
  return [e, mailbox = context.mailbox](absl::StatusOr<R> result) {
    mailbox->Post([e, result = std::move(result)] { e->Answer(result); });
  };
}
// What others are asked to call, from whatever thread, with their answer to a
// call. In the admin loop it fills the response and finishes the call; so does
// the time if the answer does not come. Called in the admin loop.

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_EXPECT_H_
