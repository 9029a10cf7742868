// SPDX-License-Identifier: Apache-2.0
#include "server/loop/runtime.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"

namespace kevent::loop {

namespace {

absl::StatusOr<std::vector<int>> AllowedCpus() {
  // The kernel refuses sets smaller than its own.
  for (size_t cpus = 1024; cpus <= 1u << 16; cpus *= 2) {
    cpu_set_t* set = CPU_ALLOC(cpus);
    size_t bytes = CPU_ALLOC_SIZE(cpus);
    int error = sched_getaffinity(0, bytes, set) < 0 ? errno : 0;
    std::vector<int> found;
    for (size_t i = 0; error == 0 && i < cpus; ++i) {
      if (CPU_ISSET_S(i, bytes, set)) found.push_back(static_cast<int>(i));
    }
    CPU_FREE(set);
    if (error == 0) return found;
    if (error != EINVAL) return absl::ErrnoToStatus(error, "sched_getaffinity");
  }
  return absl::InternalError("sched_getaffinity knows no size of set");
}

int PinTo(int cpu) {
  cpu_set_t* set = CPU_ALLOC(cpu + 1);
  size_t bytes = CPU_ALLOC_SIZE(cpu + 1);
  CPU_ZERO_S(bytes, set);
  CPU_SET_S(cpu, bytes, set);
  int r = sched_setaffinity(0, bytes, set) < 0 ? -errno : 0;
  CPU_FREE(set);
  return r;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Runtime>> Runtime::Create(
    const Options& options) {
  absl::StatusOr<std::vector<int>> cpus = AllowedCpus();
  if (!cpus.ok()) return cpus.status();
  std::unique_ptr<Runtime> runtime(new Runtime());
  runtime->workers_.resize(options.loops > 0 ? options.loops : cpus->size());
  size_t number = 0;
  for (Worker& worker : runtime->workers_) {
    absl::StatusOr<std::unique_ptr<Loop>> loop = Loop::Create(options.loop);
    if (!loop.ok()) {
      absl::Status error(loop.status().code(),
                         absl::StrCat("cannot create loop ", number + 1, " of ",
                                      runtime->workers_.size(), ": ",
                                      loop.status().message()));
      runtime->workers_.resize(number);
      return error;
    }
    worker.loop = *std::move(loop);
    if (options.pin) worker.cpu = (*cpus)[number % cpus->size()];
    ++number;
  }
  return runtime;
}

Runtime::~Runtime() {
  Stop();
  Join();
}

void* Runtime::RunWorker(void* arg) {
  auto* worker = static_cast<Worker*>(arg);
  // A CPU that was taken away meanwhile: running elsewhere is right.
  if (worker->cpu >= 0) PinTo(worker->cpu);
  worker->loop->Run();
  return nullptr;
}

absl::Status Runtime::Start() {
  if (started_) {
    return absl::FailedPreconditionError("the runtime was started before");
  }
  started_ = true;
  sigset_t block;
  sigset_t before;
  sigfillset(&block);
  for (int raised :
       {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP}) {
    sigdelset(&block, raised);
  }
  // Threads inherit the mask.
  pthread_sigmask(SIG_BLOCK, &block, &before);
  int error = 0;
  for (Worker& worker : workers_) {
    error = pthread_create(&worker.thread, nullptr, RunWorker, &worker);
    if (error != 0) break;
    worker.running = true;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error == 0) return absl::OkStatus();
  Stop();
  Join();
  return absl::ErrnoToStatus(error, "cannot start a thread");
}

void Runtime::Stop() {
  for (Worker& worker : workers_) worker.loop->Stop();
}

void Runtime::Join() {
  for (Worker& worker : workers_) {
    if (!worker.running) continue;
    pthread_join(worker.thread, nullptr);
    worker.running = false;
  }
}

}  // namespace kevent::loop
