// SPDX-License-Identifier: Apache-2.0
#include "benchmarks/load/histogram.h"

#include <algorithm>
#include <cmath>

namespace kevent::load {

int64_t Histogram::Percentile(double share) const {
  const double rank = std::ceil(share * static_cast<double>(count_));
  const uint64_t wanted = std::max<uint64_t>(static_cast<uint64_t>(rank), 1);
  uint64_t seen = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    seen += counts_[i];
    if (seen >= wanted) return std::min(Upper(i), max_ns_);
  }
  return max_ns_;
}

}  // namespace kevent::load
