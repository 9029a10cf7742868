// SPDX-License-Identifier: Apache-2.0
#include "benchmarks/load/histogram.h"

#include <cstdint>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace kevent::load {
namespace {

TEST(HistogramTest, EmptyHasNoPercentile) {
  Histogram h;
  EXPECT_EQ(h.count(), 0u);
  EXPECT_EQ(h.Percentile(0.5), 0);
}

TEST(HistogramTest, SmallValuesAreExact) {
  Histogram h;
  for (int64_t v = 1; v <= 100; ++v) h.Add(v);
  EXPECT_EQ(h.Percentile(0.5), 50);
  EXPECT_EQ(h.Percentile(0.99), 99);
  EXPECT_EQ(h.Percentile(1), 100);
  EXPECT_EQ(h.max_ns(), 100);
}

TEST(HistogramTest, EveryMagnitudeIsWithinOneSixtyFourth) {
  std::mt19937_64 random(1);
  for (int bits = 1; bits < 40; ++bits) {
    for (int i = 0; i < 100; ++i) {
      const int64_t v =
          static_cast<int64_t>(random() & ((uint64_t{1} << bits) - 1));
      Histogram h;
      h.Add(v);
      // A larger one, so that the result is the bucket's end, not the maximum.
      h.Add(int64_t{1} << 39);
      int64_t upper = h.Percentile(0.5);
      EXPECT_GE(upper, v);
      EXPECT_LE(upper - v, v / 64) << v;
    }
  }
}

TEST(HistogramTest, BucketsGrowAndAddUp) {
  Histogram h;
  std::mt19937_64 random(2);
  for (int i = 0; i < 10000; ++i) {
    h.Add(static_cast<int64_t>(random() >> (24 + random() % 40)));
  }
  int64_t last = -1;
  uint64_t total = 0;
  h.ForEach([&](int64_t upper, uint64_t count) {
    EXPECT_GT(upper, last);
    last = upper;
    total += count;
  });
  EXPECT_EQ(total, 10000u);
}

TEST(HistogramTest, OutOfRangeIsKept) {
  Histogram h;
  h.Add(-5);
  h.Add(INT64_MAX);
  EXPECT_EQ(h.count(), 2u);
  EXPECT_EQ(h.Percentile(0.5), 0);
  EXPECT_EQ(h.max_ns(), INT64_MAX);
}

}  // namespace
}  // namespace kevent::load
