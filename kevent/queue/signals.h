// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_QUEUE_SIGNALS_H_
#define KEVENT_QUEUE_SIGNALS_H_

#include <signal.h>
#include <sys/signalfd.h>

#include <cstdint>

#include "kevent/queue/slot.h"

namespace kevent::internal {

class Core;

class Signals {
 public:
  explicit Signals(Core* core) : core_(core) { sigemptyset(&mask_); }
  ~Signals();

  int Add(uint32_t index, int signo);
  void Remove(uint32_t index, int signo);
  // Unlinks the slot.

  void Run();
  // Reads signals while there is room for their entries.

  bool pending() const { return pending_; }
  // The kernel may hold signals that have not been read.

 private:
  static void OnDescriptor(Core* core);

  Core* const core_;
  int fd_ = -1;  // signalfd(2)
  sigset_t mask_;
  uint32_t heads_[_NSIG] = {};  // slot index + 1 of the first interest
  uint32_t counts_[_NSIG] = {};
  bool pending_ = false;
  bool held_ = false;  // `info_` was read and has not been delivered in full
  uint32_t next_ = 0;  // slot index + 1 that gets it next
  signalfd_siginfo info_ = {};
};
// Signal interests, by one signalfd. Signals wait in the kernel until the ring
// has room.

}  // namespace kevent::internal

#endif  // KEVENT_QUEUE_SIGNALS_H_
