// SPDX-License-Identifier: Apache-2.0
#include "kevent/queue/signals.h"

#include <errno.h>
#include <unistd.h>

#include "kevent/queue/core.h"

namespace kevent::internal {

Signals::~Signals() {
  if (fd_ >= 0) close(fd_);
}

int Signals::Add(uint32_t index, int signo) {
  if (signo < 1 || signo >= _NSIG || signo == SIGKILL || signo == SIGSTOP) {
    return -EINVAL;
  }
  sigset_t mask = mask_;
  sigaddset(&mask, signo);
  int fd = signalfd(fd_, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
  if (fd < 0) return -errno;
  mask_ = mask;
  if (fd_ < 0) {
    fd_ = fd;
    core_->AddInternal(fd_, OnDescriptor);
  }
  Slot& slot = core_->slot(index);
  slot.next = heads_[signo] ? heads_[signo] - 1 : kNoSlot;
  heads_[signo] = index + 1;
  ++counts_[signo];
  // A signal that was pending before the mask grew raises no edge.
  pending_ = true;
  return 0;
}

void Signals::Remove(uint32_t index, int signo) {
  uint32_t after = core_->slot(index).next;
  if (next_ == index + 1) next_ = after == kNoSlot ? 0 : after + 1;
  if (heads_[signo] == index + 1) {
    heads_[signo] = after == kNoSlot ? 0 : after + 1;
  } else {
    for (uint32_t i = heads_[signo] - 1; i != kNoSlot;
         i = core_->slot(i).next) {
      if (core_->slot(i).next == index) {
        core_->slot(i).next = after;
        break;
      }
    }
  }
  if (--counts_[signo] == 0) {
    sigdelset(&mask_, signo);
    signalfd(fd_, &mask_, SFD_NONBLOCK | SFD_CLOEXEC);
  }
}

void Signals::OnDescriptor(Core* core) {
  core->signals_.pending_ = true;
  core->signals_.Run();
}

void Signals::Run() {
  while (pending_) {
    if (!held_) {
      if (!core_->HasRoom()) return;
      if (read(fd_, &info_, sizeof info_) != sizeof info_) {
        pending_ = false;
        return;
      }
      held_ = true;
      next_ = heads_[info_.ssi_signo];
    }
    while (next_) {
      uint32_t index = next_ - 1;
      Slot& slot = core_->slot(index);
      uint32_t after = slot.next;
      if (slot.enabled()) {
        bool last = slot.flags & kOneShot;
        uint64_t who = uint64_t{info_.ssi_pid} << 32 | info_.ssi_uid;
        if (!core_->FireData(index, info_.ssi_signo, 0, 0, who, info_.ssi_ptr,
                             last)) {
          return;
        }
      }
      next_ = after == kNoSlot ? 0 : after + 1;
    }
    held_ = false;
  }
}

}  // namespace kevent::internal
