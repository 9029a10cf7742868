// SPDX-License-Identifier: Apache-2.0
#include "kevent/queue/inodes.h"

#include <errno.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "kevent/queue/core.h"

namespace kevent::internal {

Inodes::~Inodes() {
  if (fd_ >= 0) close(fd_);
}

int Inodes::Add(uint32_t index, const char* path) {
  if (!path) return -EINVAL;
  Slot& slot = core_->slot(index);
  constexpr uint32_t kOptions =
      IN_DONT_FOLLOW | IN_EXCL_UNLINK | IN_ONLYDIR | IN_MASK_ADD;
  if (!(slot.events & IN_ALL_EVENTS) ||
      (slot.events & ~(IN_ALL_EVENTS | kOptions))) {
    return -EINVAL;
  }
  if (fd_ < 0) {
    fd_ = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd_ < 0) return -errno;
    buffer_.reset(new char[kBuffer]);
    core_->AddInternal(fd_, OnDescriptor);
  }
  // Two interests in one inode share its watch: the mask only grows.
  int wd = inotify_add_watch(fd_, path, slot.events | IN_MASK_ADD);
  if (wd < 0) return -errno;
  Watch& watch = watches_[wd];
  // One event must fit into the ring for all of them.
  if (watch.count >= core_->ring_.capacity()) return -ENOSPC;
  slot.fd = wd;
  slot.next = watch.head;
  watch.head = index;
  ++watch.count;
  return 0;
}

void Inodes::Remove(uint32_t index) {
  Slot& slot = core_->slot(index);
  if (slot.fd < 0) return;
  auto it = watches_.find(slot.fd);
  if (it == watches_.end()) return;
  if (next_ == index) next_ = slot.next;
  if (it->second.head == index) {
    it->second.head = slot.next;
  } else {
    for (uint32_t i = it->second.head; i != kNoSlot; i = core_->slot(i).next) {
      if (core_->slot(i).next == index) {
        core_->slot(i).next = slot.next;
        break;
      }
    }
  }
  if (--it->second.count == 0) {
    inotify_rm_watch(fd_, slot.fd);
    watches_.erase(it);
  }
  slot.fd = -1;
}

void Inodes::OnDescriptor(Core* core) {
  core->inodes_.pending_ = true;
  core->inodes_.Run();
}

bool Inodes::Overflow() {
  for (auto& [wd, watch] : watches_) {
    for (uint32_t i = watch.head; i != kNoSlot; i = core_->slot(i).next) {
      Slot& slot = core_->slot(i);
      // Merged into one unread entry for each interest, so that it needs room
      // for no more than that however often it is tried again.
      if (slot.enabled() && !(slot.ready & IN_Q_OVERFLOW)) {
        if (!core_->FireData(i, 0, kEntryOverflow, 0, 0, 0, false))
          return false;
        slot.ready |= IN_Q_OVERFLOW;
      }
    }
  }
  for (auto& [wd, watch] : watches_) {
    for (uint32_t i = watch.head; i != kNoSlot; i = core_->slot(i).next) {
      core_->slot(i).ready = 0;
    }
  }
  return true;
}

bool Inodes::Deliver(const inotify_event& event) {
  auto it = watches_.find(event.wd);
  if (it == watches_.end()) return true;
  if (!started_) {
    started_ = true;
    next_ = it->second.head;
  }
  bool gone = event.mask & IN_IGNORED;
  while (next_ != kNoSlot) {
    uint32_t index = next_;
    Slot& slot = core_->slot(index);
    uint32_t mask = event.mask & (slot.events | IN_ISDIR | IN_UNMOUNT);
    bool wanted = gone || (mask & (IN_ALL_EVENTS | IN_UNMOUNT));
    if (wanted && (slot.enabled() || (gone && !slot.finished))) {
      bool last = gone || (slot.flags & kOneShot);
      if (!core_->FireData(index, gone ? IN_IGNORED : mask,
                           gone ? uint32_t{kEntryBroken} : 0u, 0, event.cookie,
                           0, last)) {
        return false;
      }
    }
    next_ = slot.next;
  }
  if (gone) {
    // The watch descriptor is free for another inode now.
    for (uint32_t i = it->second.head; i != kNoSlot;) {
      Slot& slot = core_->slot(i);
      i = slot.next;
      slot.fd = -1;
      slot.next = kNoSlot;
    }
    watches_.erase(it);
  }
  return true;
}

void Inodes::Run() {
  while (pending_) {
    if (begin_ == end_) {
      if (!core_->HasRoom()) return;
      ssize_t n = read(fd_, buffer_.get(), kBuffer);
      if (n <= 0) {
        pending_ = false;
        return;
      }
      begin_ = 0;
      end_ = static_cast<size_t>(n);
    }
    inotify_event event;  // the buffer's alignment is not ours to trust
    __builtin_memcpy(&event, buffer_.get() + begin_, sizeof event);
    if (event.mask & IN_Q_OVERFLOW) {
      if (!Overflow()) return;
    } else if (!Deliver(event)) {
      return;
    }
    started_ = false;
    next_ = kNoSlot;
    begin_ += sizeof event + event.len;
  }
}

}  // namespace kevent::internal
