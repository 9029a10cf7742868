// SPDX-License-Identifier: Apache-2.0
//
// Timers: the heap under them, and the queue's timer interests.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "benchmark/benchmark.h"
#include "kevent/queue/queue.h"
#include "kevent/queue/timer_heap.h"

namespace kevent {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

void Check(bool ok) {
  if (!ok) abort();
}

// A heap of `range` timers at random times within a minute.
struct Filled {
  explicit Filled(int64_t size) : nodes(static_cast<size_t>(size)) {
    for (TimerNode& node : nodes) heap.Set(&node, Random());
  }
  ~Filled() {
    for (TimerNode& node : nodes) heap.Remove(&node);
  }
  int64_t Random() {
    return static_cast<int64_t>(random() % static_cast<uint64_t>(60 * kSecond));
  }

  std::mt19937_64 random{1};
  std::vector<TimerNode> nodes;
  TimerHeap heap;
};

// Set and cancelled before it fires: the usual fate of a time-out.
void BM_HeapSetAndRemove(benchmark::State& state) {
  Filled filled(state.range(0));
  TimerNode node;
  int64_t now = 0;
  for (auto _ : state) {
    filled.heap.Set(&node, now++ + 30 * kSecond);
    filled.heap.Remove(&node);
  }
}
BENCHMARK(BM_HeapSetAndRemove)->Arg(0)->Arg(1000)->Arg(100'000);

// A connection's deadline moves on with each request.
void BM_HeapMoveLater(benchmark::State& state) {
  Filled filled(state.range(0));
  size_t at = 0;
  int64_t now = 60 * kSecond;
  for (auto _ : state) {
    filled.heap.Set(&filled.nodes[at], now++);
    if (++at == filled.nodes.size()) at = 0;
  }
}
BENCHMARK(BM_HeapMoveLater)->Arg(64)->Arg(1000)->Arg(100'000);

// The earliest fires and is set again.
void BM_HeapFire(benchmark::State& state) {
  Filled filled(state.range(0));
  for (auto _ : state) {
    TimerNode* node = filled.heap.earliest();
    const int64_t due = node->deadline_ns;
    filled.heap.Remove(node);
    filled.heap.Set(node, due + filled.Random());
  }
}
BENCHMARK(BM_HeapFire)->Arg(64)->Arg(1000)->Arg(100'000);

std::unique_ptr<Queue> NewQueue() {
  auto queue = Queue::Create(Queue::Options());
  Check(queue.ok());
  return *std::move(queue);
}

// A timer interest started anew, `range` others waiting beside it.
void BM_QueueSetTimer(benchmark::State& state) {
  auto queue = NewQueue();
  Interest interest;
  interest.source = Source::kTimer;
  interest.first_ns = 3600 * kSecond;
  Handle handle;
  for (int64_t i = 0; i <= state.range(0); ++i) {
    Check(queue->Add(interest, &handle) == 0);
  }
  for (auto _ : state) {
    Check(queue->SetTimer(handle, 3600 * kSecond, 0, false) == 0);
  }
}
BENCHMARK(BM_QueueSetTimer)->Arg(0)->Arg(1000);

void BM_QueueAddAndRemoveTimer(benchmark::State& state) {
  auto queue = NewQueue();
  Interest interest;
  interest.source = Source::kTimer;
  interest.first_ns = 3600 * kSecond;
  for (auto _ : state) {
    Handle handle;
    Check(queue->Add(interest, &handle) == 0);
    Check(queue->Remove(handle) == 0);
  }
}
BENCHMARK(BM_QueueAddAndRemoveTimer);

// A timer that is due at once: set, waited for, taken.
void BM_QueueFireTimer(benchmark::State& state) {
  auto queue = NewQueue();
  Interest interest;
  interest.source = Source::kTimer;
  interest.first_ns = 1;
  std::array<Entry, 4> entries;
  for (auto _ : state) {
    Handle handle;
    Check(queue->Add(interest, &handle) == 0);
    Check(queue->Enter(entries, Wait()) == 1);
  }
}
BENCHMARK(BM_QueueFireTimer);

}  // namespace
}  // namespace kevent
