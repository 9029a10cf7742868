// SPDX-License-Identifier: Apache-2.0
//
// Counts the instructions that a process executes in user space while a command
// runs, in the guest with deterministic instruction counts: the kernel's tracer
// notes each system call's begin and end by the time-stamp counter, which
// counts instructions there. What lies between the end of one and the begin of
// the next, interrupts left out, is the program's own.
//
//   user_cost PID COMMAND ARGUMENTS...
//
// Prints their number. What the tracer itself adds to each system call is found
// out first, by system calls with nothing between them, and taken off.
#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "benchmarks/vm/common.h"

namespace kevent::bench {
namespace {

constexpr char kTracer[] = "/sys/kernel/tracing/";

// What is nothing of the program's, though it happens between its calls.
constexpr const char* kEvents[] = {"raw_syscalls/sys_enter",
                                   "raw_syscalls/sys_exit",
                                   "irq_vectors/local_timer_entry",
                                   "irq_vectors/local_timer_exit",
                                   "irq/softirq_entry",
                                   "irq/softirq_exit",
                                   "sched/sched_switch"};

void Write(const std::string& name, const std::string& text) {
  std::ofstream file(kTracer + name);
  file << text;
  if (!file.flush()) Die(name.c_str());
}

struct Cost {
  int64_t instructions = 0;
  int64_t calls = 0;
};

// Follows one thread past the lines of the trace.
class Thread {
 public:
  void Take(std::string_view event, int64_t now, Cost* cost) {
    if (event == "sys_exit") {
      begin_ = now;
      out_ = 0;
    } else if (event == "sys_enter") {
      if (begin_ >= 0) {
        cost->instructions += now - begin_ - out_;
        ++cost->calls;
      }
      begin_ = -1;
    } else if (event.ends_with("_entry") || event == "away") {
      // An interrupt may find one of the others under way.
      if (depth_++ == 0) away_ = now;
    } else if (depth_ > 0 && --depth_ == 0) {
      out_ += now - away_;
    }
  }

 private:
  int64_t begin_ = -1;  // of what runs in user space now; -1: in the kernel
  int64_t out_ = 0;     // spent elsewhere since
  int64_t away_ = 0;
  int depth_ = 0;
};

// The thread in "   COMMAND-123   [000] .....  4567: sys_exit: ...".
int ThreadOf(const std::string& line) {
  const size_t end = line.find(" [");
  const size_t dash = line.rfind('-', end);
  return end == line.npos || dash == line.npos ? -1 : atoi(&line[dash + 1]);
}

Cost Read(const std::vector<int>& ids) {
  std::map<int, Thread> threads;
  for (int id : ids) threads[id];
  Cost cost;
  std::ifstream trace(std::string(kTracer) + "trace");
  for (std::string line; std::getline(trace, line);) {
    if (line.starts_with('#')) continue;
    const size_t bracket = line.find(']');
    if (bracket == line.npos) continue;
    std::istringstream rest(line.substr(bracket + 1));
    std::string flags, event;
    int64_t now;
    char colon;
    if (!(rest >> flags >> now >> colon >> event)) continue;
    event.pop_back();  // its colon
    if (event == "sched_switch") {
      // In the line of who goes, with next_pid=ID.
      const size_t next = line.find("next_pid=");
      const int to = next == line.npos ? -1 : atoi(&line[next + 9]);
      if (auto it = threads.find(ThreadOf(line)); it != threads.end()) {
        it->second.Take("away", now, &cost);
      }
      if (auto it = threads.find(to); it != threads.end()) {
        it->second.Take("back", now, &cost);
      }
    } else if (auto it = threads.find(ThreadOf(line)); it != threads.end()) {
      it->second.Take(event, now, &cost);
    }
  }
  return cost;
}

// What those threads execute while `run` does.
Cost Trace(const std::vector<int>& ids, const std::function<void()>& run) {
  std::string list;
  for (int id : ids) list += std::to_string(id) + "\n";
  Write("tracing_on", "0");
  Write("trace", "");
  Write("set_event_pid", list);
  Write("tracing_on", "1");
  run();
  Write("tracing_on", "0");
  std::ifstream stats(std::string(kTracer) + "per_cpu/cpu0/stats");
  for (std::string line; std::getline(stats, line);) {
    if (line.starts_with("overrun:") && line != "overrun: 0") {
      errno = ENOBUFS;
      Die("the trace");
    }
  }
  return Read(ids);
}

// Runs as a child: `go` tells when to begin.
[[noreturn]] void CallForNothing(int go) {
  char byte;
  if (read(go, &byte, 1) < 0) _exit(1);
  for (int i = 0; i < 1000; ++i) syscall(SYS_getppid);
  _exit(0);
}

// Instructions that a system call adds to what lies before it.
int64_t Overhead() {
  int go[2];
  if (pipe(go) < 0) Die("pipe");
  const pid_t child = fork();
  if (child < 0) Die("fork");
  if (child == 0) CallForNothing(go[0]);
  const Cost cost = Trace({child}, [&] {
    int status;
    if (write(go[1], "x", 1) != 1 || waitpid(child, &status, 0) != child) {
      Die("the child");
    }
  });
  if (cost.calls < 1000) Die("no calls in the trace");
  return cost.instructions / cost.calls;
}

std::vector<int> Threads(const std::string& pid) {
  std::vector<int> threads;
  DIR* dir = opendir(("/proc/" + pid + "/task").c_str());
  if (dir == nullptr) Die("the process");
  while (dirent* entry = readdir(dir)) {
    const int thread = atoi(entry->d_name);
    if (thread > 0) threads.push_back(thread);
  }
  closedir(dir);
  return threads;
}

void Run(char** command) {
  const pid_t child = fork();
  if (child < 0) Die("fork");
  if (child == 0) {
    // What it measures is the tracer.
    if (freopen("/dev/null", "w", stdout) == nullptr) Die("/dev/null");
    execvp(command[0], command);
    Die(command[0]);
  }
  int status;
  if (waitpid(child, &status, 0) != child || status != 0) Die(command[0]);
}

}  // namespace
}  // namespace kevent::bench

int main(int argc, char** argv) {
  using namespace kevent::bench;  // NOLINT(google-build-using-namespace)
  if (argc < 3) {
    fprintf(stderr, "usage: user_cost PID COMMAND ARGUMENTS...\n");
    return 2;
  }
  Write("trace_clock", "x86-tsc");
  Write("buffer_size_kb", "32768");
  for (const char* event : kEvents) {
    Write(std::string("events/") + event + "/enable", "1");
  }
  const int64_t overhead = Overhead();
  const Cost cost = Trace(Threads(argv[1]), [argv] { Run(argv + 2); });
  for (const char* event : kEvents) {
    Write(std::string("events/") + event + "/enable", "0");
  }
  if (getenv("USER_COST_VERBOSE") != nullptr) {
    fprintf(stderr, "%lld instructions between %lld calls, of them %lld each\n",
            static_cast<long long>(cost.instructions),
            static_cast<long long>(cost.calls),
            static_cast<long long>(overhead));
  }
  printf("%lld\n",
         static_cast<long long>(cost.instructions - cost.calls * overhead));
}
