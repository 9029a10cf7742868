// SPDX-License-Identifier: Apache-2.0
#include "server/loop/task.h"

namespace kevent::loop {

namespace {

struct Root {
  class promise_type : public DetachedTask {
   public:
    static void* operator new(size_t size) { return FramePool::Allocate(size); }
    static void operator delete(void* frame, size_t size) {
      FramePool::Free(frame, size);
    }
    promise_type(Loop* loop, Task<void>&) : loop_(loop) {
      destroy = [](DetachedTask* task) {
        std::coroutine_handle<promise_type>::from_promise(
            *static_cast<promise_type*>(task))
            .destroy();
      };
      loop->AddTask(this);
    }
    Root get_return_object() noexcept { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept {
      loop_->RemoveTask(this);
      return {};
    }
    void unhandled_exception() noexcept { abort(); }
    void return_void() noexcept {}

   private:
    Loop* loop_;
  };
};

Root RunDetached(Loop*, Task<void> task) { co_await task; }

}  // namespace

void Loop::Spawn(Task<void> task) { RunDetached(this, std::move(task)); }

Task<void> WhenAll(std::vector<Task<void>> tasks) {
  internal::JoinState state;
  std::vector<internal::JoinOne> all;
  all.reserve(tasks.size());
  for (Task<void>& task : tasks) {
    all.push_back(internal::Join(&state, &task));
  }
  co_await internal::JoinAwaiter(&state, &all);
}

}  // namespace kevent::loop
