// SPDX-License-Identifier: Apache-2.0
#include "server/loop/await.h"

#include <cstdio>
#include <cstdlib>

namespace kevent::loop {

void AwaitBase::OnTimer(Loop*, Timer* timer) {
  auto* self = static_cast<AwaitBase*>(timer);
  if (self->ending_) {
    self->End(self->result_);
  } else {
    self->StopFor(-ETIMEDOUT);
  }
}

void AwaitBase::OnCancel(CancelNode* node) {
  static_cast<AwaitBase*>(node)->StopFor(-ECANCELED);
}

void AwaitBase::StopFor(int error) {
  if (stopped_) return;
  stopped_ = error;
  stop_(this, error);
}

void AwaitBase::Abandon() {
  if (!loop_->closing()) {
    fprintf(stderr,
            "kevent: a coroutine was destroyed while it waits; cancel it "
            "instead\n");
    abort();
  }
  Unregister();
}

}  // namespace kevent::loop
