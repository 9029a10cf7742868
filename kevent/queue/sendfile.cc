// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "kevent/queue/core.h"
#include "kevent/queue/syscalls.h"

namespace kevent::internal {
namespace {

constexpr int64_t kWindow = 2 << 20;
// Bytes of a file that are read off the thread at a time.

constexpr int64_t kProbeWindow = 4 << 20;

constexpr int64_t kCork = 512 << 10;
// Bytes without a copy from which on the socket is corked. MSG_MORE holds a
// part of a segment back only until the next acknowledgement; without the cork
// large bodies leave in segments of nine tenths, and of three quarters where
// many connections share the turns. For less it costs more than it saves.

constexpr int64_t kMemoNs = 50'000'000;
// How long pages that were seen in the page cache are taken to be there still.

// Where the part from `at` on ends that is known to be resident; `at` if none.
int64_t Remembered(const FileMemo* memo, int64_t at) {
  if (!memo || at < memo->begin || at >= memo->end) return at;
  return NowNs(CLOCK_MONOTONIC_COARSE) < memo->until_ns ? memo->end : at;
}

void Remember(FileMemo* memo, int64_t begin, int64_t end) {
  if (!memo) return;
  int64_t now = NowNs(CLOCK_MONOTONIC_COARSE);
  if (now < memo->until_ns && begin >= memo->begin && begin <= memo->end) {
    // It grows, but lives no longer than its oldest part.
    memo->end = std::max(memo->end, end);
    return;
  }
  *memo = {begin, end, now + kMemoNs};
}

int64_t SendPiece(int fd, std::span<const std::byte> piece, int64_t skip,
                  bool more) {
  ssize_t n;
  do {
    n = SysSend(fd, piece.data() + skip,
                piece.size() - static_cast<size_t>(skip),
                MSG_NOSIGNAL | MSG_DONTWAIT | (more ? MSG_MORE : 0));
  } while (n < 0 && errno == EINTR);
  return n < 0 ? -errno : n;
}

// True if it changed the socket: one that the user has corked stays so.
bool Cork(int fd) {
  int on = 0;
  socklen_t size = sizeof on;
  if (getsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, &size) < 0 || on) return false;
  on = 1;
  return setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on) == 0;
}

}  // namespace

void Core::CorkIfLarge(Operation* op, int64_t bytes) {
  if (op->q.done > 0 || bytes < kCork || (op->q.bits & kBitCorked)) return;
  if (Cork(op->fd)) op->q.bits |= kBitCorked;
}

int64_t Core::SendNow(SendOp* op, Descriptor* d) {
  if (op->q.bits & kBitYield) return kPending;
  if (op->by_reference) {
    if (int r = MakeNonBlocking(op->fd, d); r < 0) return r;
  }
  if (MayBunch(*op)) {
    op->q.bits |= kBitBunched;
    WaitIn(&bunch_, kBitYield, op);
    if (bunch_.size() == kBunch) BeginBunch();
    return kPending;
  }
  return SendTurn(op, op->by_reference && pages_.Open() ? &pages_ : nullptr);
}

void Core::BeginBunch() {
  iovec messages[kBunch];
  Operation* others[kBunch];
  size_t n = 0, m = 0;
  bunch_.TakeAll([&](Operation* op) {
    op->q.bits &= ~kBitYield;
    const auto* send = static_cast<const SendOp*>(op);
    const int64_t size = TotalLength(*send);
    if (send->by_reference && send->pieces.size() == 1 &&
        size >= kLeastByReference && size <= kShort) {
      messages[n++] = send->pieces[0];
      Resume(op);
    } else {
      others[m++] = op;
    }
  });
  // Behind them: one among them would leave the pipe empty for the next.
  for (Operation* op : std::span(others, m)) Resume(op);
  if (n > 1) pages_.Expect({messages, n});
}

int64_t Core::SendTurn(SendOp* op, PagePipe* pages) {
  if (!MayBegin() && MustWait(op, TotalLength(*op))) return kPending;
  // To take the cork away sends the last part, which `more` holds back.
  if (pages != nullptr && !op->more) CorkIfLarge(op, TotalLength(*op));
  const int64_t before = op->q.done;
  const int64_t result = TrySend(op, pages);
  sent_ += op->q.done - before;
  if (result == kPending) AwaitTurn(op);
  return result;
}

// Unless it is short.
bool Core::MustWait(Operation* op, int64_t total) {
  if (total - op->q.done <= kShort) return false;
  AwaitTurn(op);
  return true;
}

bool Core::SendsByReference() {
  return kind_ == EngineKind::kModule ? engine_->SendsByReference()
                                      : pages_.Open();
}

void Core::Uncork(int fd) {
  int off = 0;
  setsockopt(fd, IPPROTO_TCP, TCP_CORK, &off, sizeof off);
}

int64_t Core::TrySendfile(SendfileOp* op, bool* would_block) {
  *would_block = false;
  const int64_t header = static_cast<int64_t>(op->header.size());
  const int64_t trailer = static_cast<int64_t>(op->trailer.size());
  const int64_t body_end = header + op->length;
  const int64_t total =
      body_end + (Fault(FaultPoint::kSkipTrailer) ? 0 : trailer);
  int64_t budget = kTurn;
  if (!MayBegin() && MustWait(op, total)) return kPending;
  CorkIfLarge(op, op->length);
  while (op->q.done < total) {
    if (budget <= 0) {
      if (MustWait(op, total)) return kPending;
      budget = kShort;
    }
    int64_t n;
    if (op->q.done < header) {
      n = SendPiece(op->fd, op->header, op->q.done, header < total);
    } else if (op->q.done >= body_end) {
      n = SendPiece(op->fd, op->trailer, op->q.done - body_end, false);
    } else {
      const int64_t at = op->offset + (op->q.done - header);
      int64_t want = std::min(op->offset + op->length - at, budget);
      if (Fault(FaultPoint::kBlockingSendfile)) op->s.resident_end = INT64_MAX;
      if (at >= op->s.resident_end) {
        op->s.resident_end = Remembered(op->memo, at);
      }
      if (at >= op->s.resident_end) {
        int64_t probe = std::min(op->offset + op->length - at, kProbeWindow);
        Residency residency = Probe(op->file, at, probe);
        if (residency != Residency::kResident) {
          if (StartPopulate(op, at, residency)) return kPending;
          // No thread to be had: better slow than never.
        } else {
          Remember(op->memo, at, at + probe);
        }
        op->s.resident_end = at + probe;
      }
      want = std::min(want, op->s.resident_end - at);
      off_t offset = at;
      do {
        n = sendfile(op->fd, op->file, &offset, static_cast<size_t>(want));
      } while (n < 0 && errno == EINTR);
      if (n < 0) n = -errno;
      if (n == 0) return EarlyEnd(op, 0);  // the file ends here
    }
    if (n == -EAGAIN) {
      *would_block = true;
      return kPending;
    }
    if (n < 0) return EarlyEnd(op, static_cast<int>(n));
    // A header charged to the turn would leave a call for its few bytes at the
    // end of each.
    if (op->q.done >= header) budget -= n;
    op->q.done += n;
    sent_ += n;
  }
  return op->q.done;
}

bool Core::StartPopulate(SendfileOp* op, int64_t at, Residency residency) {
  PopulateJob* job = populator_.Take();
  if (!job) {
    // As many reads as we allow are under way: try again when one is done.
    if (std::find(populate_waiters_.begin(), populate_waiters_.end(), op) ==
        populate_waiters_.end()) {
      populate_waiters_.push_back(op);
    }
    return true;
  }
  job->op = op;
  job->offset = at;
  job->length = std::min(op->offset + op->length - at, kWindow);
  job->file = fcntl(op->file, F_DUPFD_CLOEXEC, 0);
  bool ok = job->file >= 0;
  if (ok && residency == Residency::kUnknown) {
    job->socket = fcntl(op->fd, F_DUPFD_CLOEXEC, 0);
    ok = job->socket >= 0;
  }
  if (!ok || !populator_.Submit(job)) {
    populator_.Put(job);
    return false;
  }
  op->s.job = job;
  ++stats_.cold_sendfiles;
  return true;
}

bool Core::CancelSendfile(SendfileOp* op) {
  if (PopulateJob* job = op->s.job) {
    if (job->socket >= 0) return false;
    job->op = nullptr;  // the read goes on for nobody
    op->s.job = nullptr;
  }
  std::erase(populate_waiters_, op);
  return true;
}

void Core::OnPopulated(void* context, PopulateJob* job) {
  Core* core = static_cast<Core*>(context);
  PopulateJob* head = core->populated_.load(std::memory_order_relaxed);
  do {
    job->next = head;
  } while (!core->populated_.compare_exchange_weak(head, job));
  core->WakeEngine();
}

void Core::RunPopulated() {
  if (!populated_.load(std::memory_order_relaxed)) return;
  PopulateJob* job = populated_.exchange(nullptr);
  while (job) {
    PopulateJob* next = job->next;
    SendfileOp* op = job->op;
    int64_t result = job->result;
    bool by_thread = job->socket >= 0;
    int64_t end = job->offset + job->length;
    stats_.populate_ns += static_cast<uint64_t>(job->took_ns);
    populator_.Put(job);
    if (op) {
      op->s.job = nullptr;
      if (!by_thread) {
        op->s.resident_end = end;
        Resume(op);
      } else if (result > 0) {
        op->q.done += result;
        if (op->q.bits & kBitCancel) {
          Complete(op, EarlyEnd(op, -ECANCELED));
        } else {
          Resume(op);
        }
      } else if (result == -EAGAIN && !(op->q.bits & kBitCancel)) {
        op->q.bits |= kBitWriteWait;
        Resume(op);
      } else {
        if (op->q.bits & kBitCancel) result = -ECANCELED;
        Complete(op, EarlyEnd(op, static_cast<int>(result)));
      }
    }
    job = next;
  }
  std::vector<SendfileOp*> waiters;
  waiters.swap(populate_waiters_);
  for (SendfileOp* op : waiters) Resume(op);
}

}  // namespace kevent::internal
