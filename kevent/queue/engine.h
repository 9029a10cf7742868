// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_QUEUE_ENGINE_H_
#define KEVENT_QUEUE_ENGINE_H_

#include <signal.h>

#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "kevent/queue/operation.h"

namespace kevent::internal {

class Core;
struct Descriptor;
struct Slot;
struct Pool;

inline constexpr int64_t kPending = INT64_MIN;

inline constexpr int64_t kPast = 0;
// A time of CLOCK_MONOTONIC.

class Engine {
 public:
  virtual ~Engine() = default;

  virtual int64_t Start(Operation* op, Descriptor* d) = 0;
  // Runs `op`, the first of its descriptor and direction, or goes on with it.
  // Returns its final result, or kPending: then Core::Complete or another Start
  // follows. Entries of a multishot operation go through Core::Deliver.

  virtual bool Cancel(Operation* op, Descriptor* d) = 0;
  // `op` is pending here. True: the engine has let go of it, the core completes
  // it. False: its completion will come by itself.

  virtual int Arm(uint32_t index, Slot* slot, Descriptor* d) = 0;
  // Watch slot->fd for slot->events and call Core::Fire, at once if it is
  // ready. A slot that is neither edge nor internal is armed again by Retest.
  virtual void Disarm(uint32_t index, Slot* slot, Descriptor* d) = 0;
  virtual void Retest(std::span<const uint32_t> slots) = 0;
  // Level interests whose entry was taken: fire those still ready, watch on.
  virtual void Hush(uint32_t index, Slot* slot, Descriptor* d) {}
  // A level interest need not fire and must not end a Poll before its Retest.

  virtual void Forget(int fd, Descriptor* d) = 0;
  // `fd` is about to be closed; nothing of it is pending here.

  virtual int AddPool(Pool* pool) = 0;
  virtual void Provide(Pool* pool, uint16_t id) = 0;
  // A buffer is free again.

  virtual bool SendsByReference() const { return false; }
  // It has a way of its own to do so.

  virtual int Flush() = 0;
  // Hands what was started to the kernel, without waiting.

  virtual int Poll(int64_t until_ns, const sigset_t* mask) = 0;
  // Waits for kernel events, until that time of CLOCK_MONOTONIC at the latest
  // (kPast: not at all; INT64_MAX: no limit). 0 or -EINTR. With
  // Sharing::kManyThreads it is called without the queue's lock, by one thread
  // at a time, and touches nothing that Start, Cancel and Arm touch; otherwise
  // it also does what Flush does.
  virtual void Process() = 0;
  // Reports, under the lock, what Poll found.

  virtual void Wake() = 0;
  // Any thread: ends the current or next Poll.

  virtual bool HasUnprocessed() const { return false; }
  // Process left something, for lack of room, that the descriptor below does
  // not tell of again.

  virtual int PollableFd() = 0;
  // A descriptor that polls readable when Poll would find something, or
  // negative errno. From the first call on Poll may cost more.

  virtual void Shutdown() = 0;
  // Takes every pending operation back; none is the kernel's afterwards.
};
// What an event mechanism of the system does for the Core. All but Poll, Wake
// and fd are called under the queue's lock (or by its one thread). Everything a
// mechanism may lack (order, links, timers, signals, inodes, sendfile, limits)
// stands in the core.

absl::StatusOr<std::unique_ptr<Engine>> NewModuleEngine(Core* core);
absl::StatusOr<std::unique_ptr<Engine>> NewEpollEngine(Core* core);
absl::StatusOr<std::unique_ptr<Engine>> NewUringEngine(Core* core);

}  // namespace kevent::internal

#endif  // KEVENT_QUEUE_ENGINE_H_
