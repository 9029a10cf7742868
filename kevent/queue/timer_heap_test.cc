// SPDX-License-Identifier: Apache-2.0
#include "kevent/queue/timer_heap.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>

namespace kevent {
namespace {

uint32_t Seed() {
  const char* given = getenv("KEVENT_SEED");
  uint32_t seed = given && *given
                      ? static_cast<uint32_t>(strtoul(given, nullptr, 0))
                      : std::random_device()();
  printf("KEVENT_SEED=%u\n", seed);
  return seed;
}

using Model = std::multimap<int64_t, TimerNode*>;

void Erase(Model* model, TimerNode* node) {
  auto [from, to] = model->equal_range(node->deadline_ns);
  for (auto it = from; it != to; ++it) {
    if (it->second == node) {
      model->erase(it);
      return;
    }
  }
  FAIL() << "the model does not know a node that is pending";
}

void ExpectSame(const TimerHeap& heap, const Model& model) {
  ASSERT_EQ(heap.size(), model.size());
  ASSERT_EQ(heap.empty(), model.empty());
  if (model.empty()) return;
  ASSERT_EQ(heap.earliest_ns(), model.begin()->first);
  ASSERT_EQ(heap.earliest()->deadline_ns, heap.earliest_ns());
  ASSERT_TRUE(heap.earliest()->pending());
}

TEST(TimerHeapTest, Empty) {
  TimerHeap heap;
  EXPECT_TRUE(heap.empty());
  EXPECT_EQ(heap.size(), 0u);
  TimerNode node;
  EXPECT_FALSE(node.pending());
  heap.Remove(&node);
  EXPECT_TRUE(heap.empty());
}

TEST(TimerHeapTest, OneNode) {
  TimerHeap heap;
  TimerNode node;
  for (int64_t deadline : {5, 3, 9, 9}) {
    heap.Set(&node, deadline);
    EXPECT_TRUE(node.pending());
    EXPECT_EQ(heap.size(), 1u);
    EXPECT_EQ(heap.earliest(), &node);
    EXPECT_EQ(heap.earliest_ns(), deadline);
  }
  heap.Remove(&node);
  EXPECT_FALSE(node.pending());
  EXPECT_TRUE(heap.empty());
  heap.Remove(&node);
}

TEST(TimerHeapTest, ComesOutInOrder) {
  std::mt19937 random(Seed());
  for (size_t count : {1, 2, 4, 5, 6, 20, 21, 22, 85, 1000}) {
    // Many of the same time.
    const int64_t range = count > 20 ? static_cast<int64_t>(count) / 3 : 1'000;
    auto nodes = std::make_unique<TimerNode[]>(count);
    TimerHeap heap;
    for (size_t i = 0; i < count; ++i) {
      heap.Set(&nodes[i], static_cast<int64_t>(random()) % range);
    }
    int64_t last = INT64_MIN;
    for (size_t i = 0; i < count; ++i) {
      ASSERT_EQ(heap.size(), count - i);
      TimerNode* node = heap.earliest();
      ASSERT_GE(heap.earliest_ns(), last);
      last = heap.earliest_ns();
      heap.Remove(node);
      ASSERT_FALSE(node->pending());
    }
    EXPECT_TRUE(heap.empty());
  }
}

TEST(TimerHeapTest, ExtremesOfTheClock) {
  TimerHeap heap;
  TimerNode never, now, past;
  heap.Set(&never, INT64_MAX);
  heap.Set(&past, INT64_MIN);
  heap.Set(&now, 0);
  for (TimerNode* expected : {&past, &now, &never}) {
    EXPECT_EQ(heap.earliest(), expected);
    heap.Remove(expected);
  }
}

TEST(TimerHeapTest, AgainstAModel) {
  std::mt19937 random(Seed());
  constexpr size_t kNodes = 300;
  for (int round = 0; round < 20; ++round) {
    auto nodes = std::make_unique<TimerNode[]>(kNodes);
    TimerHeap heap;
    Model model;
    const uint32_t range = round % 2 ? 50 : 1'000'000;
    // Fills, swings and drains.
    for (int step = 0; step < 6'000; ++step) {
      TimerNode* node = &nodes[random() % kNodes];
      const uint32_t removes = step < 2'000 ? 1 : step < 4'000 ? 4 : 8;
      if (random() % 10 >= removes) {
        const int64_t deadline = random() % range;
        if (node->pending()) Erase(&model, node);
        heap.Set(node, deadline);
        model.emplace(deadline, node);
        ASSERT_EQ(node->deadline_ns, deadline);
      } else if (random() % 2 || model.empty()) {
        if (node->pending()) Erase(&model, node);
        heap.Remove(node);
      } else {
        node = heap.earliest();
        Erase(&model, node);
        heap.Remove(node);
        ASSERT_FALSE(node->pending());
      }
      ExpectSame(heap, model);
    }
    size_t pending = 0;
    for (size_t i = 0; i < kNodes; ++i) pending += nodes[i].pending();
    EXPECT_EQ(pending, model.size());
    while (!heap.empty()) {
      ExpectSame(heap, model);
      TimerNode* node = heap.earliest();
      Erase(&model, node);
      heap.Remove(node);
    }
    EXPECT_TRUE(model.empty());
  }
}

}  // namespace
}  // namespace kevent
