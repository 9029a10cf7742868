// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_LOOP_RUNTIME_H_
#define SERVER_LOOP_RUNTIME_H_

#include <pthread.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/loop/loop.h"

namespace kevent::loop {

class Runtime {
 public:
  struct Options {
    size_t loops = 0;  // 0: one for each CPU this process may run on
    bool pin = true;
    // Thread i runs on the i-th of those CPUs alone, beginning anew behind the
    // last (sched_setaffinity(2)).
    Loop::Options loop;
  };

  static absl::StatusOr<std::unique_ptr<Runtime>> Create(
      const Options& options);
  // Makes the loops, and no thread yet. Errors are those of Loop::Create and of
  // sched_getaffinity(2).

  ~Runtime();
  // Stop, Join, and destroys the loops, in the calling thread.

  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  absl::Status Start();
  // Once: starts the threads. Signals are blocked in them, but for those a
  // fault raises. On an error none is left running.

  size_t size() const { return workers_.size(); }
  Loop& loop(size_t index) { return *workers_[index].loop; }
  // Its thread's own but for Post and Stop; anybody's before Start and after
  // Join.

  template <typename F>
  void ForEach(const F& fn) {
    for (size_t i = 0; i < workers_.size(); ++i) {
      Loop* loop = workers_[i].loop.get();
      loop->Post([fn, loop, i] { fn(*loop, i); });
    }
  }
  // Posts a copy of `fn` to each loop, as fn(Loop&, size_t index). Any thread.

  void Stop();
  // Any thread: every loop leaves Run after its turn.
  void Join();
  // Waits until every thread has ended. Not from one of them.

 private:
  struct Worker {
    std::unique_ptr<Loop> loop;
    int cpu = -1;  // to pin it to
    pthread_t thread = {};
    bool running = false;
  };

  Runtime() = default;
  static void* RunWorker(void* worker);

  std::vector<Worker> workers_;  // does not grow after Create
  bool started_ = false;
};
// One loop for each core, each in a thread of its own; they share nothing and
// reach each other by Post.

}  // namespace kevent::loop

#endif  // SERVER_LOOP_RUNTIME_H_
