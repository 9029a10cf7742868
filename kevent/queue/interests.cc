// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <sys/stat.h>

#include "kevent/queue/core.h"

namespace kevent::internal {
namespace {

constexpr uint32_t kPollEvents = POLLIN | POLLOUT | POLLPRI | POLLRDHUP;
constexpr uint32_t kAllFlags = kEdge | kOneShot | kDispatch | kWakeAll |
                               kLastCheck | kDisabled | kAbsolute;

}  // namespace

int Core::ArmSlot(uint32_t index) {
  Slot& slot = slots_.at(index);
  if (slot.armed || !slot.enabled()) return 0;
  int r = engine_->Arm(index, &slot, Get(slot.fd));
  return r;
}

void Core::DisarmSlot(uint32_t index) {
  Slot& slot = slots_.at(index);
  if (slot.armed) engine_->Disarm(index, &slot, Get(slot.fd));
  slot.armed = false;
}

int Core::Add(const Interest& interest, Handle* handle) {
  if (interest.flags & ~kAllFlags) return -EINVAL;
  if (slots_.used() - internal_slots_ >= options_.max_interests) {
    return -ENOSPC;
  }
  uint32_t index = slots_.Allocate();
  Slot& slot = slots_.at(index);
  slot.source = interest.source;
  slot.user_data = interest.user_data;
  slot.events = interest.events;
  slot.flags = interest.flags;
  int r = 0;
  switch (interest.source) {
    case Source::kPoll: {
      if (interest.fd < 0 || Get(interest.fd)->closing) {
        r = -EBADF;
        break;
      }
      if (interest.events & ~kPollEvents) {
        r = -EINVAL;
        break;
      }
      struct stat st;
      if (fstat(interest.fd, &st) < 0) {
        r = -errno;
        break;
      }
      if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) {
        r = -EPERM;  // epoll_ctl(2)
        break;
      }
      slot.fd = interest.fd;
      Descriptor* d = Get(interest.fd);
      slot.next = d->interests;
      d->interests = index;
      r = ArmSlot(index);
      if (r < 0) Unlink(index, &d->interests);
      break;
    }
    case Source::kTimer:
      slot.fd = static_cast<int>(index);  // where its timer node leads back to
      slot.clock = interest.clock;
      slot.interval_ns = interest.interval_ns;
      r = timers_.Set(&slot, interest.first_ns, interest.interval_ns,
                      interest.flags & kAbsolute);
      break;
    case Source::kSignal:
      slot.fd = interest.signo;
      r = signals_.Add(index, interest.signo);
      break;
    case Source::kInode:
      r = inodes_.Add(index, interest.path);
      break;
    default:
      r = -EINVAL;
  }
  if (r < 0) {
    slots_.Free(index);
    return r;
  }
  *handle = {index, slot.generation};
  EndCall();
  return 0;
}

uint32_t Core::AddInternal(int fd, void (*fn)(Core*)) {
  uint32_t index = slots_.Allocate();
  Slot& slot = slots_.at(index);
  slot.source = Source::kPoll;
  slot.internal = fn;
  ++internal_slots_;
  slot.fd = fd;
  slot.events = POLLIN;
  slot.flags = kEdge;
  Descriptor* d = Get(fd);
  *d = Descriptor();
  d->interests = index;
  ArmSlot(index);
  return index;
}

void Core::Unlink(uint32_t index, uint32_t* head) {
  for (uint32_t* at = head; *at != kNoSlot; at = &slots_.at(*at).next) {
    if (*at == index) {
      *at = slots_.at(index).next;
      return;
    }
  }
}

void Core::RemoveSlot(uint32_t index) {
  Slot& slot = slots_.at(index);
  switch (slot.source) {
    case Source::kPoll:
      DisarmSlot(index);
      Unlink(index, &Get(slot.fd)->interests);
      break;
    case Source::kTimer:
      timers_.Remove(&slot);
      break;
    case Source::kSignal:
      signals_.Remove(index, slot.fd);
      break;
    case Source::kInode:
      inodes_.Remove(index);
      break;
    default:
      break;
  }
  if (Fault(FaultPoint::kStaleGeneration) && slot.unread) return;
  slots_.Free(index);
}

size_t Core::ListInterests(uint32_t* index, std::span<InterestInfo> out) {
  size_t n = 0;
  for (size_t looked = 0; *index < slots_.size(); ++*index, ++looked) {
    if (n == out.size() || looked == 10 * out.size()) return n;
    const Slot& slot = slots_.at(*index);
    if (!(slot.generation & 1) || slot.internal) continue;
    InterestInfo& info = out[n++];
    info.handle = {*index, slot.generation};
    info.source = slot.source;
    info.fd = slot.source == Source::kInode ? -1 : slot.fd;
    info.events = slot.events;
    info.flags = slot.withheld ? slot.flags | kDisabled : slot.flags;
    info.unread = slot.unread;
    info.interval_ns = slot.interval_ns;
  }
  *index = UINT32_MAX;
  return n;
}

int Core::Remove(Handle handle) {
  Slot* slot = slots_.Find(handle);
  if (!slot || slot->internal) return -ENOENT;
  RemoveSlot(handle.index);
  EndCall();
  return 0;
}

namespace {

// An entry in the ring stands for its slot's generation: a new one withdraws
// it.
void Withdraw(Slot* slot) {
  slot->taken = false;
  slot->ready = 0;
  slot->count = 0;
}

}  // namespace

int Core::Modify(Handle handle, uint32_t events, uint32_t flags) {
  Slot* slot = slots_.Find(handle);
  if (!slot || slot->internal) return -ENOENT;
  if (slot->source != Source::kPoll || (events & ~kPollEvents) ||
      (flags & ~kAllFlags)) {
    return -EINVAL;
  }
  DisarmSlot(handle.index);
  Withdraw(slot);
  slot->events = events;
  slot->flags = flags;
  slot->finished = false;
  slot->withheld = flags & kDisabled;
  int r = ArmSlot(handle.index);
  EndCall();
  return r;
}

int Core::SetTimer(Handle handle, int64_t first_ns, int64_t interval_ns,
                   bool absolute) {
  Slot* slot = slots_.Find(handle);
  if (!slot) return -ENOENT;
  if (slot->source != Source::kTimer) return -EINVAL;
  int r = timers_.Set(slot, first_ns, interval_ns, absolute);
  if (r < 0) return r;
  Withdraw(slot);
  slot->finished = false;
  EndCall();
  return 0;
}

int Core::SetEnabled(Handle handle, bool enabled) {
  Slot* slot = slots_.Find(handle);
  if (!slot || slot->internal) return -ENOENT;
  if (enabled) {
    slot->flags &= ~kDisabled;
    slot->withheld = false;
    if (slot->source == Source::kPoll) {
      int r = ArmSlot(handle.index);
      EndCall();
      return r;
    }
    if (slot->source == Source::kTimer && slot->count > 0) {
      AnnounceOnce(handle.index);
    }
  } else {
    slot->flags |= kDisabled;
    slot->withheld = true;
    slot->taken = false;
    // What a disabled timer counts is told when it is enabled again.
    slot->ready = 0;
    if (slot->source == Source::kPoll) DisarmSlot(handle.index);
  }
  EndCall();
  return 0;
}

// --- Firing.

void Core::Announce(uint32_t index) {
  Slot& slot = slots_.at(index);
  if (slot.unread) return;
  slot.unread = true;
  if (HasRoom()) {
    Entry* e = ring_.Push();
    *e = Entry();
    e->source = slot.source;
    e->handle = {index, slot.generation};
    e->reserved[0] = 1;  // filled in when it is taken
  } else {
    ++stats_.overflow_deferred;
    if (Fault(FaultPoint::kDropOverflow)) return;
    slot_overflow_.push_back({index, slot.generation});
  }
  if (slot.flags & kWakeAll) wake_all_ = true;
}

void Core::AnnounceOnce(uint32_t index) {
  Slot& slot = slots_.at(index);
  if (slot.flags & kDispatch) slot.flags |= kDisabled;
  Announce(index);
}

void Core::Fire(uint32_t index, uint32_t ready) {
  Slot& slot = slots_.at(index);
  if (slot.internal) {
    slot.internal(this);
    return;
  }
  ready &= slot.events | POLLERR | POLLHUP | POLLNVAL;
  if (!ready || !slot.enabled() || slot.taken) return;
  slot.ready |= ready;
  if (slot.flags & kOneShot) {
    DisarmSlot(index);
    slot.finished = true;
  } else if (slot.flags & kDispatch) {
    DisarmSlot(index);
    slot.flags |= kDisabled;
  }
  Announce(index);
}

void Core::FireTimer(uint32_t index, uint64_t expirations, bool last) {
  Slot& slot = slots_.at(index);
  slot.count += expirations;
  if (last || (slot.flags & kOneShot)) {
    timers_.Remove(&slot);
    slot.finished = true;
  }
  if (!(slot.flags & kDisabled)) AnnounceOnce(index);
}

bool Core::FireData(uint32_t index, uint32_t events, uint32_t flags,
                    int64_t result, uint64_t data0, uint64_t data1, bool last) {
  if (!HasRoom()) return false;
  Slot& slot = slots_.at(index);
  Entry* e = ring_.Push();
  *e = Entry();
  e->source = slot.source;
  e->user_data = slot.user_data;
  e->handle = {index, slot.generation};
  e->events = events;
  e->flags = flags | (last ? 0u : uint32_t{kEntryMore});
  e->result = result;
  e->data[0] = data0;
  e->data[1] = data1;
  if (last) {
    slot.finished = true;
  } else if (slot.flags & kDispatch) {
    slot.flags |= kDisabled;
  }
  if (slot.flags & kWakeAll) wake_all_ = true;
  return true;
}

// --- Taking.

bool Core::StillReady(uint32_t index) {
  Slot& slot = slots_.at(index);
  if (slot.source != Source::kPoll) return true;
  if (IsReady(slot.fd, static_cast<short>(slot.events))) return true;
  // Not delivered: it goes on as if it had not fired.
  slot.ready = 0;
  if (slot.finished || (slot.flags & kDispatch)) {
    slot.finished = false;
    slot.flags &= ~kDisabled;
    ArmSlot(index);
  } else if (!(slot.flags & kEdge)) {
    retest_.push_back({index, slot.generation});
  }
  return false;
}

bool Core::FillFromSlot(Entry* e, bool check, uint64_t call) {
  Slot* slot = slots_.Find(e->handle);
  if (!slot) return false;
  const uint32_t index = e->handle.index;
  if (e->reserved[0] == 0) {
    if (slot->withheld) return false;
    if (!(e->flags & kEntryMore)) RemoveSlot(index);
    return true;
  }
  e->reserved[0] = 0;
  slot->unread = false;
  if (slot->ready == 0 && slot->count == 0) return false;  // withdrawn
  if (slot->withheld) return false;
  if (check && (slot->flags & kLastCheck) && !StillReady(index)) return false;
  e->user_data = slot->user_data;
  e->events = slot->ready;
  e->data[0] = slot->count;
  e->flags = slot->finished ? 0u : uint32_t{kEntryMore};
  slot->ready = 0;
  slot->count = 0;
  if (slot->finished) {
    RemoveSlot(index);
  } else if (slot->source == Source::kPoll &&
             !(slot->flags & (kEdge | kDispatch)) &&
             !Fault(FaultPoint::kLevelOnce)) {
    if (call == 0) {
      retest_.push_back(e->handle);
    } else {
      slot->taken = true;
      taken_.push_back({e->handle, call});
    }
  }
  return true;
}

}  // namespace kevent::internal
