// SPDX-License-Identifier: Apache-2.0
//
// The loop: posts from its own and from another thread, turns, and coroutines.
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <thread>

#include "benchmark/benchmark.h"
#include "server/loop/loop.h"
#include "server/loop/proactor.h"
#include "server/loop/task.h"
#include "server/loop/timer.h"

namespace kevent::loop {
namespace {

void Check(bool ok) {
  if (!ok) abort();
}

std::unique_ptr<Loop> NewLoop() {
  auto loop = Loop::Create({});
  Check(loop.ok());
  return *std::move(loop);
}

// A turn that finds nothing.
void BM_EmptyTurn(benchmark::State& state) {
  auto loop = NewLoop();
  for (auto _ : state) Check(loop->RunOnce(0) == 0);
}
BENCHMARK(BM_EmptyTurn);

// `range` closures posted by the loop's own thread, and run in one turn.
void BM_PostToSelf(benchmark::State& state) {
  auto loop = NewLoop();
  int64_t ran = 0;
  for (auto _ : state) {
    const int64_t before = ran;
    for (int64_t i = 0; i < state.range(0); ++i) {
      loop->Post([&ran] { ++ran; });
    }
    while (ran < before + state.range(0)) loop->RunOnce(-1);
  }
  state.SetItemsProcessed(ran);
}
BENCHMARK(BM_PostToSelf)->Arg(1)->Arg(64);

// One thread posts without pause, the loop runs what comes: the time of the one
// that posts. It stops where the other is far behind.
void BM_PostFromAnotherThread(benchmark::State& state) {
  auto loop = NewLoop();
  std::thread thread([&loop] { loop->Run(); });
  std::atomic<int64_t> ran = 0;
  int64_t posted = 0;
  for (auto _ : state) {
    loop->Post([&ran] { ran.fetch_add(1, std::memory_order_relaxed); });
    ++posted;
    while (posted - ran.load(std::memory_order_relaxed) > 1024) sched_yield();
  }
  loop->Stop();
  thread.join();
  state.SetItemsProcessed(posted);
}
BENCHMARK(BM_PostFromAnotherThread)->UseRealTime();

// To another loop that sleeps and back again: two wake-ups of a thread.
void BM_PostRoundTrip(benchmark::State& state) {
  auto here = NewLoop();
  auto there = NewLoop();
  std::thread thread([&there] { there->Run(); });
  bool back = false;
  for (auto _ : state) {
    back = false;
    there->Post([&] { here->Post([&back] { back = true; }); });
    while (!back) here->RunOnce(-1);
  }
  there->Stop();
  thread.join();
}
BENCHMARK(BM_PostRoundTrip)->UseRealTime();

// A timer set for now, and fired by the turn.
void BM_TimerTurn(benchmark::State& state) {
  struct Mine : Timer {
    explicit Mine(int64_t* count) : Timer(&Fire), fired(count) {}
    static void Fire(Loop*, Timer* timer) {
      ++*static_cast<Mine*>(timer)->fired;
    }
    int64_t* const fired;
  };
  auto loop = NewLoop();
  int64_t fired = 0;
  Mine timer(&fired);
  for (auto _ : state) {
    loop->SetTimer(&timer, loop->now_ns());
    loop->RunOnce(0);
  }
  Check(fired == static_cast<int64_t>(state.iterations()));
}
BENCHMARK(BM_TimerTurn);

Task<int> Leaf(int value) { co_return value; }

Task<int> Nested(int depth) {
  if (depth == 0) co_return 1;
  co_return co_await Nested(depth - 1) + 1;
}

Task<void> Measure(benchmark::State* state, bool* done, Task<void> (*body)()) {
  for (auto _ : *state) co_await body();
  *done = true;
}

// A coroutine called, and ended without a wait: its frame comes from the pool.
void BM_TaskCall(benchmark::State& state) {
  auto loop = NewLoop();
  bool done = false;
  loop->Spawn(Measure(&state, &done, []() -> Task<void> {
    int value = co_await Leaf(1);
    benchmark::DoNotOptimize(value);
  }));
  while (!done) loop->RunOnce(0);
}
BENCHMARK(BM_TaskCall);

// Sixteen that call each other.
void BM_TaskNested(benchmark::State& state) {
  auto loop = NewLoop();
  bool done = false;
  loop->Spawn(Measure(&state, &done, []() -> Task<void> {
    int value = co_await Nested(16);
    benchmark::DoNotOptimize(value);
  }));
  while (!done) loop->RunOnce(0);
}
BENCHMARK(BM_TaskNested);

void BM_SpawnTask(benchmark::State& state) {
  auto loop = NewLoop();
  int ran = 0;
  for (auto _ : state) {
    loop->Spawn([](int* count) -> Task<void> {
      ++*count;
      co_return;
    }(&ran));
  }
  benchmark::DoNotOptimize(ran);
}
BENCHMARK(BM_SpawnTask);

// Waits until it is resumed from outside: the bare switch into a coroutine and
// out of it.
struct Pause {
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) noexcept {
    *waiter = handle;
  }
  void await_resume() const noexcept {}
  std::coroutine_handle<>* waiter;
};

void BM_CoroutineSwitch(benchmark::State& state) {
  auto loop = NewLoop();
  std::coroutine_handle<> waiter;
  bool stop = false;
  loop->Spawn([](std::coroutine_handle<>* w, bool* end) -> Task<void> {
    while (!*end) co_await Pause{w};
  }(&waiter, &stop));
  for (auto _ : state) waiter.resume();
  stop = true;
  waiter.resume();
  Check(loop->tasks() == 0);
}
BENCHMARK(BM_CoroutineSwitch);

Task<void> Answer(Loop* loop, int fd) {
  std::array<std::byte, 64> buffer;
  for (;;) {
    const int64_t n = co_await Proactor(loop).Recv(fd, buffer);
    if (n <= 0) co_return;
    co_await Proactor(loop).Send(
        fd, std::span(buffer.data(), static_cast<size_t>(n)));
  }
}

Task<void> Ask(Loop* loop, int fd, benchmark::State* state, bool* done) {
  std::array<std::byte, 64> buffer = {};
  for (auto _ : *state) {
    co_await Proactor(loop).Send(fd, buffer);
    const int64_t n = co_await Proactor(loop).Recv(fd, buffer);
    Check(n == static_cast<int64_t>(buffer.size()));
  }
  *done = true;
}

// Two coroutines of one loop that send 64 bytes to each other and back.
void BM_CoroutinePingPong(benchmark::State& state) {
  auto loop = NewLoop();
  int fds[2];
  Check(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
  bool done = false;
  loop->Spawn(Answer(loop.get(), fds[1]));
  loop->Spawn(Ask(loop.get(), fds[0], &state, &done));
  while (!done) loop->RunOnce(-1);
  loop->Close(fds[0]);
  while (loop->tasks() > 0) loop->RunOnce(-1);
  loop->Close(fds[1]);
}
BENCHMARK(BM_CoroutinePingPong);

}  // namespace
}  // namespace kevent::loop
