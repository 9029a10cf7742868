// SPDX-License-Identifier: Apache-2.0
#ifndef BENCHMARKS_LOAD_USAGE_H_
#define BENCHMARKS_LOAD_USAGE_H_

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <vector>

namespace kevent::load {

// What one processor did, in microseconds since boot, to the clock tick
// (proc(5), /proc/stat).
struct CpuTimes {
  int cpu = 0;
  int64_t busy_us = 0;  // user, nice, system, irq, softirq
  int64_t softirq_us = 0;
  int64_t steal_us = 0;
  int64_t total_us = 0;
};

struct Usage {
  int64_t server_cpu_ns = 0;
  // Run time of all threads of the server's processes, those that have ended
  // included: the process's CPU clock (clock_getcpuclockid(3)), which is what
  // /proc/PID/schedstat adds up, but not as of the last clock tick.
  int64_t server_user_us = 0;  // /proc/PID/stat: how it is split, to the tick
  int64_t server_system_us = 0;
  int64_t voluntary_switches = 0;  // of the server's living threads
  int64_t involuntary_switches = 0;
  int64_t client_cpu_ns = 0;  // of this process
  std::vector<CpuTimes> cpus;
};

// Reads the counters now. A process that is gone counts as nothing.
Usage ReadUsage(std::span<const pid_t> server);

// What happened from `begin` to `end`.
Usage Difference(const Usage& end, const Usage& begin);

}  // namespace kevent::load

#endif  // BENCHMARKS_LOAD_USAGE_H_
