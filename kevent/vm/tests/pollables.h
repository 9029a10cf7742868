// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_VM_TESTS_POLLABLES_H_
#define KEVENT_VM_TESTS_POLLABLES_H_

#include <memory>
#include <string>
#include <vector>

#include "kevent/vm/tests/fixture.h"

namespace kevent::raw {

class Pollable {
 public:
  virtual ~Pollable() = default;

  virtual int fd() const = 0;
  virtual uint32_t events() const { return KEVENT_IN; }
  // What is waited for.
  virtual void MakeReady() = 0;
  // One more event; has happened when it returns.
  virtual void MakeIdle() = 0;
  // So that poll(2) does not show events() any more.
  virtual bool repeats() const { return true; }
  // Whether MakeReady does something when it is ready already.
  virtual bool is_socket() const { return false; }
  virtual bool prompt() const { return true; }
  // Whether a queue has heard of it when MakeReady returns.
  virtual bool needs_call() const { return false; }
  // Whether only the owner can find out, in a call.
};
// A file that a queue can watch, with the means to make it ready and idle.

std::vector<std::string> PollableNames();
bool IsSocket(const std::string& name);
std::unique_ptr<Pollable> MakePollable(const std::string& name);
// Null if this kernel has no such thing.

}  // namespace kevent::raw

#endif  // KEVENT_VM_TESTS_POLLABLES_H_
