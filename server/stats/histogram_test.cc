// SPDX-License-Identifier: Apache-2.0
#include "server/stats/histogram.h"

#include <atomic>
#include <thread>

#include "gtest/gtest.h"

namespace kevent::stats {
namespace {

using Snapshot = HistogramSnapshot;

TEST(HistogramTest, BucketsAreInOrderAndWithoutGaps) {
  int64_t lower = 0;
  for (size_t i = 0; i < Snapshot::kBuckets - 1; ++i) {
    const int64_t upper = Snapshot::UpperNs(i);
    ASSERT_GT(upper, lower) << i;
    EXPECT_EQ(Snapshot::BucketOf(lower), i);
    EXPECT_EQ(Snapshot::BucketOf(upper - 1), i);
    EXPECT_EQ(Snapshot::BucketOf(upper), i + 1);
    // A quarter of the value at most, but for the first few.
    if (lower >= 4096) {
      EXPECT_LE((upper - lower) * 4, lower) << i;
    }
    lower = upper;
  }
  EXPECT_GT(lower, 60'000'000'000);
  EXPECT_EQ(Snapshot::BucketOf(INT64_MAX), Snapshot::kBuckets - 1);
  EXPECT_EQ(Snapshot::UpperNs(Snapshot::kBuckets - 1), INT64_MAX);
}

TEST(HistogramTest, NegativeTimesCountAsNone) {
  Histogram h;
  h.Record(-5);
  const Snapshot s = h.snapshot();
  EXPECT_EQ(s.counts[0], 1u);
  EXPECT_EQ(s.sum_ns, 0u);
}

TEST(HistogramTest, Percentiles) {
  Histogram h;
  EXPECT_EQ(h.snapshot().PercentileNs(0.5), 0);
  for (int i = 1; i <= 1000; ++i) h.Record(i * 100'000);  // up to 100 ms
  const Snapshot s = h.snapshot();
  EXPECT_EQ(s.count, 1000u);
  EXPECT_EQ(s.sum_ns, 50'050'000'000u);
  for (double fraction : {0.1, 0.5, 0.9, 0.99, 1.0}) {
    const double exact = fraction * 100e6;
    const auto found = static_cast<double>(s.PercentileNs(fraction));
    EXPECT_GE(found, exact) << fraction;
    EXPECT_LE(found, exact * 1.3) << fraction;
  }
  Histogram late;
  late.Record(INT64_MAX / 2);
  EXPECT_EQ(late.snapshot().PercentileNs(0.5),
            Snapshot::UpperNs(Snapshot::kBuckets - 2));
}

TEST(HistogramTest, SnapshotsAddUp) {
  Histogram a;
  Histogram b;
  a.Record(5'000);
  b.Record(5'000);
  b.Record(7'000'000);
  Snapshot sum = a.snapshot();
  sum.Add(b.snapshot());
  EXPECT_EQ(sum.count, 3u);
  EXPECT_EQ(sum.sum_ns, 7'010'000u);
  EXPECT_EQ(sum.counts[Snapshot::BucketOf(5'000)], 2u);
}

TEST(HistogramTest, MayBeReadWhileItIsWritten) {
  Histogram h;
  std::atomic<bool> done{false};
  std::thread writer([&] {
    for (int i = 0; i < 200'000; ++i) h.Record(i);
    done = true;
  });
  uint64_t last = 0;
  while (!done) {
    const uint64_t count = h.snapshot().count;
    EXPECT_GE(count, last);
    last = count;
  }
  writer.join();
  EXPECT_EQ(h.snapshot().count, 200'000u);
}

}  // namespace
}  // namespace kevent::stats
