// SPDX-License-Identifier: Apache-2.0
#include "server/admin/drainer.h"

#include <atomic>
#include <memory>
#include <utility>

#include "server/admin/errors.h"
#include "server/admin/grpc_status.h"

namespace kevent::admin {
namespace {

constexpr int64_t kPatience = 2'000'000'000;
// Nanoseconds to wait for being in service again.

}  // namespace

void Drainer::Call::OnCancel() {
  drainer_->context_.mailbox->Post([this] {
    std::erase(drainer_->waiting_, this);
    drainer_->Answer(this, absl::CancelledError("the call was cancelled"));
  });
}

void Drainer::Call::OnDone() {
  // Behind what OnCancel may have posted.
  if (!drainer_->context_.mailbox->Post([this] { delete this; })) delete this;
}

Drainer::~Drainer() {
  context_.loop->CancelTimer(&deadline_);
  context_.loop->CancelTimer(&patience_);
}

void Drainer::Start(Call* call) {
  if (call->answered_) return;  // cancelled before
  if (state_ == State::kServing) {
    state_ = State::kDraining;
    const uint64_t round = ++round_;
    set_serving_(false);
    if (context_.target->drain) {
      context_.target->drain(call->timeout_ns_,
                             [this, round, mailbox = context_.mailbox] {
                               mailbox->Post([this, round] { Drained(round); });
                             });
    } else {
      DrainServers(call->timeout_ns_);
    }
  }
  if (call->wait_ && state_ != State::kDrained) {
    waiting_.push_back(call);
  } else {
    Answer(call, absl::OkStatus());
  }
}

void Drainer::DrainServers(int64_t timeout_ns) {
  auto left = std::make_shared<std::atomic<size_t>>(1);
  auto done = [this, round = round_, left, mailbox = context_.mailbox] {
    if (left->fetch_sub(1) == 1) {
      mailbox->Post([this, round] { Drained(round); });
    }
  };
  for (const Worker& worker : context_.target->workers) {
    if (!worker.server) continue;
    left->fetch_add(1);
    worker.loop->Post([server = worker.server, done] { server->Drain(done); });
  }
  context_.loop->SetTimer(&deadline_, context_.loop->UpdateNow() + timeout_ns);
  done();
}

void Drainer::OnDeadline(loop::Loop*, loop::Timer* timer) {
  Drainer* d = static_cast<Deadline*>(timer)->drainer;
  for (const Worker& worker : d->context_.target->workers) {
    if (!worker.server) continue;
    worker.loop->Post([server = worker.server] {
      if (server->draining()) server->CloseAll();
    });
  }
}

void Drainer::Drained(uint64_t round) {
  if (round != round_ || state_ != State::kDraining) return;
  state_ = State::kDrained;
  context_.loop->CancelTimer(&deadline_);
  AnswerAll(absl::OkStatus());
}

void Drainer::Undrain(FinishFn finish) {
  if (state_ == State::kServing) {
    return finish(FailedPrecondition(v1::NOT_DRAINING, "it does not drain",
                                     {{"state", "it is serving"}}));
  }
  if (!context_.target->undrain) {
    return finish(NoSuchFeature(
        "undrain", "this service cannot be taken into service again"));
  }
  if (std::exchange(undraining_, true)) {
    return finish(FailedPrecondition(
        v1::UNDRAIN_UNDER_WAY, "it is being taken into service already",
        {{"state", "another call takes it into service"}}));
  }
  undrain_finish_ = std::move(finish);
  // Who is asked may be about to end.
  context_.loop->SetTimer(&patience_, context_.loop->UpdateNow() + kPatience);
  context_.target->undrain([this,
                            mailbox = context_.mailbox](absl::Status status) {
    mailbox->Post([this, status = std::move(status)] { Undrained(status); });
  });
}

void Drainer::Undrained(const absl::Status& status) {
  undraining_ = false;
  context_.loop->CancelTimer(&patience_);
  if (status.ok()) {
    state_ = State::kServing;
    ++round_;
    context_.loop->CancelTimer(&deadline_);
    set_serving_(true);
    AnswerAll(Error(absl::StatusCode::kAborted, v1::UNDRAINED,
                    "it was taken into service again"));
  }
  if (undrain_finish_) {
    std::exchange(undrain_finish_,
                  nullptr)(Explained(status, v1::CANNOT_SERVE, "addresses"));
  }
}

// What is under way goes on, but nobody waits for it any more.
void Drainer::OnPatience(loop::Loop*, loop::Timer* timer) {
  Drainer* d = static_cast<Patience*>(timer)->drainer;
  if (!d->undrain_finish_) return;
  std::exchange(d->undrain_finish_,
                nullptr)(Busy("the service does not answer"));
}

void Drainer::Answer(Call* call, const absl::Status& status) {
  if (std::exchange(call->answered_, true)) return;
  uint64_t connections = 0;
  for (const Worker& worker : context_.target->workers) {
    if (!worker.server) continue;
    connections += worker.server->counters().connections.value();
  }
  call->response_->set_drained(state_ == State::kDrained);
  call->response_->set_connections(connections);
  call->Finish(ToGrpc(status));
}

void Drainer::AnswerAll(const absl::Status& status) {
  for (Call* call : std::exchange(waiting_, {})) Answer(call, status);
}

}  // namespace kevent::admin
