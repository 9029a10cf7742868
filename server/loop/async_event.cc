// SPDX-License-Identifier: Apache-2.0
#include "server/loop/async_event.h"

#include <cstdio>
#include <cstdlib>

namespace kevent::loop {

WaitList::Await::~Await() {
  if (linked_) list_->Remove(this);
}

bool WaitList::Await::await_suspend(std::coroutine_handle<> waiter) {
  if (int r = Refused(); r != 0) {
    result_ = r;
    return false;
  }
  list_->PushBack(this);
  Begin(waiter, Stop);
  return true;
}

void WaitList::Await::Stop(AwaitBase* base, int error) {
  auto* self = static_cast<Await*>(base);
  self->list_->Remove(self);
  if (error == -ETIMEDOUT) {
    self->End(error);
  } else {
    self->EndSoon(error);
  }
}

WaitList::~WaitList() {
  if (head_) {
    fprintf(stderr,
            "kevent: an event or semaphore was destroyed while a coroutine "
            "waits for it\n");
    abort();
  }
}

bool WaitList::WakeOne() {
  Await* await = head_;
  if (!await) return false;
  Remove(await);
  await->EndSoon(0);
  return true;
}

void WaitList::PushBack(Await* await) {
  await->linked_ = true;
  await->prev_ = tail_;
  await->next_ = nullptr;
  (tail_ ? tail_->next_ : head_) = await;
  tail_ = await;
}

void WaitList::Remove(Await* await) {
  await->linked_ = false;
  (await->prev_ ? await->prev_->next_ : head_) = await->next_;
  (await->next_ ? await->next_->prev_ : tail_) = await->prev_;
}

}  // namespace kevent::loop
