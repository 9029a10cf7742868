// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_SAMPLER_H_
#define SERVER_ADMIN_SAMPLER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "kevent/queue/queue.h"
#include "server/admin/mailbox.h"
#include "server/admin/target.h"
#include "server/files/file_cache.h"
#include "server/loop/loop.h"
#include "server/loop/timer.h"

namespace kevent::admin {

struct WorkerSample {
  int64_t at_ns = 0;   // CLOCK_MONOTONIC; 0: the loop has not answered yet
  bool stale = false;  // it did not answer in time: these are older figures
  Queue::Stats queue;
  loop::Loop::Stats loop;
  std::optional<files::FileCache::Stats> cache;
};
// What only a worker's own thread may read.

using Sample = std::vector<WorkerSample>;

class Sampler {
 public:
  static constexpr int64_t kPatience = 500'000'000;
  // Nanoseconds after which a loop that has not answered is left out.
  static constexpr int64_t kPause = 5'000'000;
  // Between two rounds, however many ask.

  Sampler(loop::Loop* loop, std::shared_ptr<Mailbox> mailbox,
          std::shared_ptr<const Target> target);
  ~Sampler();
  Sampler(const Sampler&) = delete;
  Sampler& operator=(const Sampler&) = delete;

  using DoneFn = absl::AnyInvocable<void(const Sample&)>;
  void Collect(DoneFn done);
  // Asks every loop and calls `done` when all have answered, at the latest
  // after kPatience and kPause. The figures are of a time after this call, but
  // for those marked as stale. All who ask meanwhile share a round.

 private:
  struct Round : loop::Timer {
    explicit Round(Sampler* s) : loop::Timer(OnTimer), sampler(s) {}
    Sampler* const sampler;
  };

  static void OnTimer(loop::Loop* loop, loop::Timer* timer);
  void Start();
  void Answered(size_t worker, const WorkerSample& sample);
  void Finish();

  loop::Loop* const loop_;
  const std::shared_ptr<Mailbox> mailbox_;
  const std::shared_ptr<const Target> target_;
  Sample last_;
  std::vector<bool> asked_;    // and have not answered
  std::vector<bool> waiting_;  // of these, those this round waits for
  size_t left_ = 0;
  bool running_ = false;
  int64_t ended_ns_ = 0;
  std::vector<DoneFn> now_;   // of this round
  std::vector<DoneFn> next_;  // came after it had begun
  Round timer_;
};
// Gathers what the workers' loops alone may read, by a closure posted to each.
// The admin loop's thread alone.

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_SAMPLER_H_
