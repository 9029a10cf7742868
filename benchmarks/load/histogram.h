// SPDX-License-Identifier: Apache-2.0
#ifndef BENCHMARKS_LOAD_HISTOGRAM_H_
#define BENCHMARKS_LOAD_HISTOGRAM_H_

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace kevent::load {

// Counts of durations in nanoseconds, each kept to within 1/64 of its value.
// Up to 2^40 ns (18 minutes); longer ones count as that. Not thread-safe.
class Histogram {
 public:
  void Add(int64_t ns) {
    ++counts_[Index(ns)];
    ++count_;
    if (ns > max_ns_) max_ns_ = ns;
  }

  uint64_t count() const { return count_; }
  int64_t max_ns() const { return max_ns_; }

  // The smallest bucket's upper end below or at which `share` (0 to 1) of the
  // durations lie, at most max_ns(); 0 if there are none.
  int64_t Percentile(double share) const;

  // Calls visit(upper_ns, count) for each bucket that is not empty, in order.
  template <typename Visitor>
  void ForEach(Visitor&& visit) const {
    for (size_t i = 0; i < counts_.size(); ++i) {
      if (counts_[i] != 0) visit(Upper(i), counts_[i]);
    }
  }

 private:
  static constexpr int kBits = 6;
  static constexpr int kMaxBits = 40;
  static constexpr size_t kSteps = size_t{1} << kBits;

  // Below 2^(kBits + 1) each value has its own bucket; from there each power of
  // two is cut in kSteps.
  static size_t Index(int64_t ns) {
    if (ns < 0) ns = 0;
    uint64_t v = static_cast<uint64_t>(ns);
    if (v >> kMaxBits) v = (uint64_t{1} << kMaxBits) - 1;
    const int width = std::bit_width(v);
    const int shift = width > kBits + 1 ? width - kBits - 1 : 0;
    return static_cast<size_t>(shift) * kSteps + (v >> shift);
  }

  static int64_t Upper(size_t index) {
    if (index < 2 * kSteps) return static_cast<int64_t>(index);
    const size_t shift = index / kSteps - 1;
    const uint64_t step = index - shift * kSteps;
    return static_cast<int64_t>(((step + 1) << shift) - 1);
  }

  std::array<uint64_t, (kMaxBits - kBits + 1)* kSteps> counts_ = {};
  uint64_t count_ = 0;
  int64_t max_ns_ = 0;
};

}  // namespace kevent::load

#endif  // BENCHMARKS_LOAD_HISTOGRAM_H_
