// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_LOOP_ASYNC_EVENT_H_
#define SERVER_LOOP_ASYNC_EVENT_H_

#include <cstddef>
#include <cstdint>

#include "server/loop/await.h"
#include "server/loop/loop.h"

namespace kevent::loop {

class WaitList {
 public:
  class [[nodiscard]] Await : public AwaitBase {
   public:
    Await(Loop* loop, WaitList* list, bool ready, const AwaitOptions& options)
        : AwaitBase(loop, options), list_(list), ready_(ready) {}
    ~Await();

    bool await_ready() const noexcept { return ready_; }
    bool await_suspend(std::coroutine_handle<> waiter);
    int64_t await_resume() const noexcept { return result_; }

   private:
    friend class WaitList;
    static void Stop(AwaitBase* base, int error);

    WaitList* const list_;
    const bool ready_;
    bool linked_ = false;
    Await* prev_ = nullptr;
    Await* next_ = nullptr;
  };

  WaitList() = default;
  WaitList(const WaitList&) = delete;
  WaitList& operator=(const WaitList&) = delete;
  ~WaitList();

  bool empty() const { return head_ == nullptr; }
  bool WakeOne();
  // The one that has waited longest; it goes on in the next turn. False: nobody
  // waits.

 private:
  void PushBack(Await* await);
  void Remove(Await* await);

  Await* head_ = nullptr;
  Await* tail_ = nullptr;
};
// Coroutines that wait for something of this loop, oldest first.

class AsyncEvent {
 public:
  explicit AsyncEvent(Loop* loop) : loop_(loop) {}

  void Set() {
    set_ = true;
    while (waiters_.WakeOne()) {
    }
  }
  // All that wait go on in the next turn; later ones do not wait.
  void Reset() { set_ = false; }
  bool is_set() const { return set_; }

  WaitList::Await Wait(const AwaitOptions& options = {}) {
    return WaitList::Await(loop_, &waiters_, set_, options);
  }
  // Result 0, -ETIMEDOUT or -ECANCELED.

 private:
  Loop* const loop_;
  bool set_ = false;
  WaitList waiters_;
};
// Something that happens once, until Reset. In the loop's thread. It must
// outlive those that wait for it.

class AsyncSemaphore {
 public:
  AsyncSemaphore(Loop* loop, size_t permits) : loop_(loop), left_(permits) {}

  WaitList::Await Acquire(const AwaitOptions& options = {}) {
    bool ready = left_ > 0;
    if (ready) --left_;
    return WaitList::Await(loop_, &waiters_, ready, options);
  }
  // Takes one permit, in the order of arrival. To be awaited at once. Result 0,
  // or -ETIMEDOUT or -ECANCELED and none is taken.

  void Release() {
    if (!waiters_.WakeOne()) ++left_;
  }
  // Gives one back. Whoever waits longest has it from now on.

  size_t available() const { return left_; }

 private:
  Loop* const loop_;
  size_t left_;
  WaitList waiters_;
};
// A count of permits. In the loop's thread. It must outlive those that wait.

}  // namespace kevent::loop

#endif  // SERVER_LOOP_ASYNC_EVENT_H_
