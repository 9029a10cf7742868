// SPDX-License-Identifier: Apache-2.0
#include "benchmarks/load/usage.h"

#include <dirent.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <string>

namespace kevent::load {
namespace {

std::string ReadWhole(const std::string& path) {
  std::string text;
  FILE* file = fopen(path.c_str(), "re");
  if (!file) return text;
  char buffer[4096];
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, file)) > 0;) {
    text.append(buffer, n);
  }
  fclose(file);
  return text;
}

int64_t ClockNs(clockid_t clock) {
  timespec ts;
  if (clock_gettime(clock, &ts) < 0) return 0;
  return ts.tv_sec * int64_t{1'000'000'000} + ts.tv_nsec;
}

int64_t TickUs() {
  static const int64_t tick = 1'000'000 / sysconf(_SC_CLK_TCK);
  return tick;
}

int64_t NumberAfter(const std::string& text, const char* name) {
  size_t at = text.find(name);
  if (at == std::string::npos) return 0;
  return strtoll(text.c_str() + at + strlen(name), nullptr, 10);
}

void AddSwitches(pid_t pid, Usage* usage) {
  const std::string folder = "/proc/" + std::to_string(pid) + "/task";
  DIR* tasks = opendir(folder.c_str());
  if (!tasks) return;
  while (dirent* entry = readdir(tasks)) {
    if (entry->d_name[0] == '.') continue;
    std::string status = ReadWhole(folder + "/" + entry->d_name + "/status");
    usage->voluntary_switches +=
        NumberAfter(status, "\nvoluntary_ctxt_switches:");
    usage->involuntary_switches +=
        NumberAfter(status, "\nnonvoluntary_ctxt_switches:");
  }
  closedir(tasks);
}

void AddProcess(pid_t pid, Usage* usage) {
  clockid_t clock;
  if (clock_getcpuclockid(pid, &clock) == 0) {
    usage->server_cpu_ns += ClockNs(clock);
  }
  std::string stat = ReadWhole("/proc/" + std::to_string(pid) + "/stat");
  // The name in parentheses may hold anything.
  size_t at = stat.rfind(')');
  int64_t user = 0;
  int64_t system = 0;
  if (at != std::string::npos &&
      sscanf(stat.c_str() + at + 1,
             " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNd64
             " %" SCNd64,
             &user, &system) == 2) {
    usage->server_user_us += user * TickUs();
    usage->server_system_us += system * TickUs();
  }
  AddSwitches(pid, usage);
}

void ReadCpus(Usage* usage) {
  const std::string stat = ReadWhole("/proc/stat");
  size_t end;
  for (size_t at = 0; (end = stat.find('\n', at)) != std::string::npos;
       at = end + 1) {
    // The first line sums up; behind the processors come other counters.
    if (stat.compare(at, 4, "cpu ") == 0) continue;
    int64_t t[8];
    int cpu;
    if (sscanf(stat.c_str() + at,
               "cpu%d %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64
               " %" SCNd64 " %" SCNd64 " %" SCNd64,
               &cpu, &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6],
               &t[7]) != 9) {
      return;
    }
    const int64_t idle = t[3] + t[4];
    int64_t total = 0;
    for (int64_t ticks : t) total += ticks;
    usage->cpus.push_back({cpu, (total - idle - t[7]) * TickUs(),
                           t[6] * TickUs(), t[7] * TickUs(), total * TickUs()});
  }
}

}  // namespace

Usage ReadUsage(std::span<const pid_t> server) {
  Usage usage;
  ReadCpus(&usage);
  for (pid_t pid : server) AddProcess(pid, &usage);
  usage.client_cpu_ns = ClockNs(CLOCK_PROCESS_CPUTIME_ID);
  return usage;
}

Usage Difference(const Usage& end, const Usage& begin) {
  Usage d = end;
  d.server_cpu_ns -= begin.server_cpu_ns;
  d.server_user_us -= begin.server_user_us;
  d.server_system_us -= begin.server_system_us;
  d.voluntary_switches -= begin.voluntary_switches;
  d.involuntary_switches -= begin.involuntary_switches;
  d.client_cpu_ns -= begin.client_cpu_ns;
  for (CpuTimes& cpu : d.cpus) {
    auto same = [&](const CpuTimes& c) { return c.cpu == cpu.cpu; };
    auto b = std::find_if(begin.cpus.begin(), begin.cpus.end(), same);
    if (b == begin.cpus.end()) continue;
    cpu.busy_us -= b->busy_us;
    cpu.softirq_us -= b->softirq_us;
    cpu.steal_us -= b->steal_us;
    cpu.total_us -= b->total_us;
  }
  return d;
}

}  // namespace kevent::load
