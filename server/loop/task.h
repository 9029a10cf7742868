// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_LOOP_TASK_H_
#define SERVER_LOOP_TASK_H_

#include <coroutine>
#include <cstddef>
#include <cstdlib>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "server/loop/frame_pool.h"
#include "server/loop/loop.h"

namespace kevent::loop {

template <typename T = void>
class Task;

namespace internal {

class PromiseBase {
 public:
  static void* operator new(size_t size) { return FramePool::Allocate(size); }
  static void operator delete(void* frame, size_t size) {
    FramePool::Free(frame, size);
  }

  std::suspend_always initial_suspend() noexcept { return {}; }

  struct FinalAwaiter {
    bool await_ready() noexcept { return false; }
    template <typename Promise>
    std::coroutine_handle<> await_suspend(
        std::coroutine_handle<Promise> h) noexcept {
      PromiseBase& promise = h.promise();
      promise.done_ = true;
      // Ended while being started: the one that awaits is still in Start.
      if (promise.starting_) return std::noop_coroutine();
      return promise.continuation_;
    }
    void await_resume() noexcept {}
  };
  FinalAwaiter final_suspend() noexcept { return {}; }
  void unhandled_exception() noexcept { abort(); }

  template <typename Promise>
  static bool Start(std::coroutine_handle<Promise> h,
                    std::coroutine_handle<> continuation) {
    PromiseBase& promise = h.promise();
    promise.continuation_ = continuation;
    promise.starting_ = true;
    h.resume();
    promise.starting_ = false;
    return !promise.done_;
  }
  // Runs it until it waits or ends. True: it waits, and goes on to
  // `continuation` by symmetric transfer when it ends. A tail call in both
  // directions would grow the stack with each task that never waits wherever
  // the compiler makes no tail calls (sanitizers, -O0).

 private:
  std::coroutine_handle<> continuation_;
  bool starting_ = false;
  bool done_ = false;
};

template <typename T>
class Promise : public PromiseBase {
 public:
  Task<T> get_return_object() noexcept;
  template <typename U>
  void return_value(U&& value) {
    value_.emplace(std::forward<U>(value));
  }
  T Take() { return *std::move(value_); }

 private:
  std::optional<T> value_;
};

template <>
class Promise<void> : public PromiseBase {
 public:
  Task<void> get_return_object() noexcept;
  void return_void() noexcept {}
  void Take() noexcept {}
};

}  // namespace internal

template <typename T>
class [[nodiscard]] Task {
 public:
  using promise_type = internal::Promise<T>;
  using Handle = std::coroutine_handle<promise_type>;

  Task() = default;
  explicit Task(Handle handle) : handle_(handle) {}
  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
  Task& operator=(Task&& other) noexcept {
    if (this != &other) {
      if (handle_) handle_.destroy();
      handle_ = std::exchange(other.handle_, {});
    }
    return *this;
  }
  ~Task() {
    if (handle_) handle_.destroy();
  }

  explicit operator bool() const { return static_cast<bool>(handle_); }

  class Awaiter {
   public:
    explicit Awaiter(Handle handle) : handle_(handle) {}
    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> continuation) {
      return internal::PromiseBase::Start(handle_, continuation);
    }
    T await_resume() { return handle_.promise().Take(); }

   private:
    Handle handle_;
  };
  Awaiter operator co_await() const& { return Awaiter(handle_); }
  // Once. The task must outlive the await.
  Awaiter operator co_await() && { return Awaiter(handle_); }

 private:
  Handle handle_;
};
// A coroutine that starts when it is awaited or spawned (Loop::Spawn), runs in
// the thread of its loop and gives one T. Frames come from FramePool. No
// exceptions.
//
// What a coroutine lambda captures lives in the lambda, not in the frame: pass
// it as parameters, which do, by value.
//
// Destroying a task destroys its frame and all it awaits. One that waits for
// something of a loop (any await of this library) must not be destroyed: that
// aborts the program, because the kernel may be writing into the frame. The way
// to end it is a CancelSource or a deadline; then it runs to its end. Only
// ~Loop destroys suspended tasks, after its queue has let go of every
// operation.

namespace internal {

template <typename T>
Task<T> Promise<T>::get_return_object() noexcept {
  return Task<T>(std::coroutine_handle<Promise>::from_promise(*this));
}

inline Task<void> Promise<void>::get_return_object() noexcept {
  return Task<void>(std::coroutine_handle<Promise>::from_promise(*this));
}

struct JoinState {
  size_t left = 0;
  std::coroutine_handle<> waiter;
};

class JoinOne {
 public:
  class promise_type {
   public:
    static void* operator new(size_t size) { return FramePool::Allocate(size); }
    static void operator delete(void* frame, size_t size) {
      FramePool::Free(frame, size);
    }
    template <typename T>
    promise_type(JoinState* state, Task<T>*, std::optional<T>*)
        : state_(state) {}
    promise_type(JoinState* state, Task<void>*) : state_(state) {}

    JoinOne get_return_object() noexcept {
      return JoinOne(std::coroutine_handle<promise_type>::from_promise(*this));
    }
    std::suspend_always initial_suspend() noexcept { return {}; }
    struct FinalAwaiter {
      bool await_ready() noexcept { return false; }
      std::coroutine_handle<> await_suspend(
          std::coroutine_handle<promise_type> h) noexcept {
        JoinState* state = h.promise().state_;
        if (--state->left == 0) return state->waiter;
        return std::noop_coroutine();
      }
      void await_resume() noexcept {}
    };
    FinalAwaiter final_suspend() noexcept { return {}; }
    void unhandled_exception() noexcept { abort(); }
    void return_void() noexcept {}

   private:
    JoinState* state_;
  };

  explicit JoinOne(std::coroutine_handle<promise_type> handle)
      : handle_(handle) {}
  JoinOne(JoinOne&& other) noexcept
      : handle_(std::exchange(other.handle_, {})) {}
  JoinOne& operator=(JoinOne&&) = delete;
  ~JoinOne() {
    if (handle_) handle_.destroy();
  }
  void Start() { handle_.resume(); }

 private:
  std::coroutine_handle<promise_type> handle_;
};

template <typename T>
JoinOne Join(JoinState*, Task<T>* task, std::optional<T>* result) {
  result->emplace(co_await *task);
}

inline JoinOne Join(JoinState*, Task<void>* task) { co_await *task; }

class JoinAwaiter {
 public:
  JoinAwaiter(JoinState* state, std::vector<JoinOne>* all)
      : state_(state), all_(all) {}
  bool await_ready() const noexcept { return all_->empty(); }
  bool await_suspend(std::coroutine_handle<> waiter) {
    // One more than there are: the last to end must not go on to the waiter
    // while it is in here.
    state_->left = all_->size() + 1;
    state_->waiter = waiter;
    for (JoinOne& one : *all_) one.Start();
    return --state_->left > 0;
  }
  void await_resume() const noexcept {}

 private:
  JoinState* state_;
  std::vector<JoinOne>* all_;
};

}  // namespace internal

template <typename T>
Task<std::vector<T>> WhenAll(std::vector<Task<T>> tasks) {
  std::vector<std::optional<T>> results(tasks.size());
  {
    internal::JoinState state;
    std::vector<internal::JoinOne> all;
    all.reserve(tasks.size());
    for (size_t i = 0; i < tasks.size(); ++i) {
      all.push_back(internal::Join(&state, &tasks[i], &results[i]));
    }
    co_await internal::JoinAwaiter(&state, &all);
  }
  std::vector<T> values;
  values.reserve(results.size());
  for (std::optional<T>& result : results) values.push_back(*std::move(result));
  co_return values;
}
// Starts all of them, in order, and waits until the last has ended. Results in
// the order of `tasks`.

Task<void> WhenAll(std::vector<Task<void>> tasks);

}  // namespace kevent::loop

#endif  // SERVER_LOOP_TASK_H_
