// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_STATS_HISTOGRAM_H_
#define SERVER_STATS_HISTOGRAM_H_

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "server/stats/counters.h"

namespace kevent::stats {

struct HistogramSnapshot {
  static constexpr int kSubBits = 2;
  static constexpr int kUnitBits = 10;  // the unit is 1.024 us
  static constexpr int kOctaves = 25;
  static constexpr size_t kBuckets = size_t{kOctaves + 1} << kSubBits;

  static constexpr size_t BucketOf(int64_t ns) {
    const uint64_t units =
        static_cast<uint64_t>(std::max<int64_t>(ns, 0)) >> kUnitBits;
    constexpr uint64_t kSub = uint64_t{1} << kSubBits;
    if (units < kSub) return static_cast<size_t>(units);
    const int octave = std::bit_width(units) - kSubBits;  // from 1
    if (octave > kOctaves) return kBuckets - 1;
    return (static_cast<size_t>(octave) << kSubBits) +
           static_cast<size_t>((units >> (octave - 1)) - kSub);
  }

  static constexpr int64_t UpperNs(size_t bucket) {
    if (bucket >= kBuckets - 1) return INT64_MAX;
    constexpr size_t kSub = size_t{1} << kSubBits;
    const size_t next = bucket + 1;
    const uint64_t units =
        next < kSub ? next : (kSub + next % kSub) << (next / kSub - 1);
    return static_cast<int64_t>(units << kUnitBits);
  }
  // Nanoseconds: what is below it, and not below the bucket before, is in
  // `bucket`. INT64_MAX for the last.

  std::array<uint64_t, kBuckets> counts = {};
  uint64_t count = 0;
  uint64_t sum_ns = 0;

  void Add(const HistogramSnapshot& other) {
    for (size_t i = 0; i < kBuckets; ++i) counts[i] += other.counts[i];
    count += other.count;
    sum_ns += other.sum_ns;
  }

  int64_t PercentileNs(double fraction) const;
  // The upper end of the bucket in which that share of the values ends, so at
  // most a quarter too much; 0 if there are none. The last bucket has no end:
  // its lower one is given.
};
// Times in buckets of which each power of two has four, from 1 us to 68 s.

class Histogram {
 public:
  void Record(int64_t ns) {
    counts_[HistogramSnapshot::BucketOf(ns)].Add(1);
    sum_ns_.Add(static_cast<uint64_t>(std::max<int64_t>(ns, 0)));
  }

  HistogramSnapshot snapshot() const {
    HistogramSnapshot s;
    for (size_t i = 0; i < HistogramSnapshot::kBuckets; ++i) {
      s.counts[i] = counts_[i].value();
      s.count += s.counts[i];
    }
    s.sum_ns = sum_ns_.value();
    return s;
  }
  // The count is that of the buckets; the sum may be of a moment later.

 private:
  std::array<Counter, HistogramSnapshot::kBuckets> counts_;
  Counter sum_ns_;
};
// Written by one thread, read by any, without locked instructions.

inline int64_t HistogramSnapshot::PercentileNs(double fraction) const {
  if (count == 0) return 0;
  const auto wanted = static_cast<uint64_t>(std::clamp(fraction, 0.0, 1.0) *
                                            static_cast<double>(count));
  uint64_t seen = 0;
  for (size_t i = 0; i < kBuckets - 1; ++i) {
    seen += counts[i];
    if (seen > 0 && seen >= wanted) return UpperNs(i);
  }
  return UpperNs(kBuckets - 2);
}

}  // namespace kevent::stats

#endif  // SERVER_STATS_HISTOGRAM_H_
