// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_STATS_COUNTERS_H_
#define SERVER_STATS_COUNTERS_H_

#include <atomic>
#include <cstdint>

namespace kevent::stats {

class Counter {
 public:
  void Add(uint64_t n) {
    value_.store(value_.load(std::memory_order_relaxed) + n,
                 std::memory_order_relaxed);
  }
  void Sub(uint64_t n) { Add(~n + 1); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};
// Written by one thread, read by any: no locked instruction on the writing
// side.

}  // namespace kevent::stats

#endif  // SERVER_STATS_COUNTERS_H_
