// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_QUEUE_POPULATE_H_
#define KEVENT_QUEUE_POPULATE_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "kevent/queue/operation.h"

namespace kevent::internal {

enum class Residency {
  kResident,
  kMissing,
  kUnknown,  // the file system cannot tell: nothing about the file is inline
};

Residency Probe(int file, int64_t offset, int64_t length);
// Whether the pages of the range are in the page cache and can be sent without
// waiting. cachestat(2) where there is one, and preadv2(2) with RWF_NOWAIT at
// steps. Does not read from the device.

struct PopulateJob {
  PopulateJob* next = nullptr;
  SendfileOp* op = nullptr;  // nullptr: it was cancelled meanwhile
  int file = -1;             // duplicate, owned
  int socket = -1;           // duplicate, owned; -1: only read
  int64_t offset = 0;
  int64_t length = 0;
  int64_t result = 0;
  // Reading: 0. With a socket: what sendfile(2) returned, or negative errno.
  int64_t took_ns = 0;
};

class Populator {
 public:
  explicit Populator(uint32_t threads) : max_threads_(threads ? threads : 1) {}
  ~Populator();

  void Stop();
  // Waits for reads under way; none starts afterwards.

  using DoneFn = void (*)(void* context, PopulateJob* job);
  void SetDone(DoneFn fn, void* context) {
    done_ = fn;
    context_ = context;
  }
  // Called by the reading thread.

  PopulateJob* Take();
  // An unused job, or nullptr if there are kJobs of them under way.
  void Put(PopulateJob* job);
  // Closes its descriptors. Owner's thread, as Take.

  bool Submit(PopulateJob* job);
  // False if no thread could be started; the job is untouched.

 private:
  static constexpr size_t kJobs = 64;

  void Work();
  void Do(PopulateJob* job, char* scratch);

  const uint32_t max_threads_;
  DoneFn done_ = nullptr;
  void* context_ = nullptr;
  std::vector<std::unique_ptr<PopulateJob>> jobs_;
  PopulateJob* unused_ = nullptr;

  std::mutex mu_;
  std::condition_variable wake_;
  std::vector<std::thread> threads_;
  PopulateJob* head_ = nullptr;
  PopulateJob* tail_ = nullptr;
  size_t queued_ = 0;
  size_t idle_ = 0;
  bool stop_ = false;
};
// Threads that read pages of files into the page cache, so that the thread
// which sends them does not wait for the device.

}  // namespace kevent::internal

#endif  // KEVENT_QUEUE_POPULATE_H_
