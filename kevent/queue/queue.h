// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_QUEUE_QUEUE_H_
#define KEVENT_QUEUE_QUEUE_H_

#include <signal.h>
#include <time.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "kevent/queue/buffer_pool.h"
#include "kevent/queue/entry.h"
#include "kevent/queue/operation.h"

namespace kevent {

namespace internal {
class Core;
}

enum class EngineKind { kAuto, kModule, kUring, kEpoll };

std::string_view EngineName(EngineKind kind);
// "auto", "module", "uring" or "epoll".

enum InterestFlags : uint32_t {
  kEdge = 1u << 0,
  // kPoll: an entry for each change to ready. Without it level: an entry as
  // long as it is ready, at most one of them unread; re-tested by the next
  // Enter after it was taken, so that one call returns it once.
  kOneShot = 1u << 1,   // removed with its first entry
  kDispatch = 1u << 2,  // disabled with each entry, until Enable
  kWakeAll = 1u << 3,   // Sharing::kManyThreads: wakes every waiter, not one
  kLastCheck = 1u << 4,
  // kPoll: tested once more when Enter copies its entry out; not ready any
  // more: not delivered.
  kDisabled = 1u << 5,  // added, but makes no entry until Enable
  kAbsolute = 1u << 6,  // kTimer: `first_ns` is a time of `clock`, not a delay
};

struct Interest {
  Source source = Source::kPoll;
  int fd = -1;
  // kPoll: a file with poll support; it must stay open until Remove or
  // Queue::Close. Regular files are refused with -EPERM.
  uint32_t events = 0;
  // kPoll: POLLIN, POLLOUT, POLLPRI, POLLRDHUP (POLLERR and POLLHUP always
  // count). kInode: IN_* of inotify(7).
  uint32_t flags = 0;  // InterestFlags
  uint64_t user_data = 0;

  clockid_t clock = CLOCK_MONOTONIC;
  // kTimer: CLOCK_MONOTONIC, CLOCK_REALTIME or CLOCK_BOOTTIME. When
  // CLOCK_REALTIME is set an absolute time follows it, a delay does not.
  int64_t first_ns = 0;
  // kTimer: nanoseconds until the first expiration, or its time (kAbsolute).
  int64_t interval_ns = 0;
  // kTimer: period; 0 is a timer that fires once and is then removed.

  int signo = 0;
  // kSignal: the caller keeps the signal blocked in every thread
  // (pthread_sigmask(3)).

  const char* path = nullptr;
  // kInode: what to watch, followed if it is a symlink unless `events` has
  // IN_DONT_FOLLOW. Read by Add only.
};

struct InterestInfo {
  Handle handle;
  Source source = Source::kPoll;
  int fd = -1;              // kPoll; kSignal: the signal's number
  uint32_t events = 0;      // asked for
  uint32_t flags = 0;       // InterestFlags
  bool unread = false;      // an entry for it has not been taken
  int64_t interval_ns = 0;  // kTimer
};
// What Queue::ListInterests tells of one.

struct Wait {
  size_t min = 1;
  // Returns when that many entries are there. 0 looks, and does not wait.
  int64_t timeout_ns = -1;
  // Nanoseconds, or with `absolute` a time of `clock`; negative: no limit.
  bool absolute = false;
  clockid_t clock = CLOCK_MONOTONIC;  // or CLOCK_REALTIME, CLOCK_BOOTTIME
  // It is read when the wait begins: one that is set, or a suspended machine,
  // does not move the end. A timer's end moves with its clock.
  int64_t min_wait_ns = -1;
  // Once this has passed since the call, one entry is enough; negative: off.
  const sigset_t* signal_mask = nullptr;
  // Put in place for the wait alone, as by ppoll(2). Of several threads it
  // works for the one that waits in the kernel.
};

class Queue {
 public:
  enum class Sharing { kOneThread, kManyThreads };

  struct Options {
    EngineKind engine = EngineKind::kAuto;
    Sharing sharing = Sharing::kOneThread;
    // kOneThread: only the thread that calls Enter first may call anything but
    // Post and Wake. kManyThreads: any thread may call anything; each entry
    // goes to one of them.
    uint32_t ring_entries = 4096;
    // Unread entries kept before sources are left waiting; a power of two. The
    // kernel may read ahead by as many as its own ring holds (io_uring).
    uint32_t max_operations = 1u << 20;
    // Submit is refused with -EAGAIN above it.
    uint32_t max_interests = 1u << 20;
    // Add is refused with -ENOSPC above it.
    uint32_t populate_threads = 4;
    // Most threads that read cold file pages; started when the first is met.
  };

  struct Stats {
    uint64_t entries = 0;    // taken
    uint64_t enters = 0;     // calls of Enter
    uint64_t waits = 0;      // system calls that waited for or polled events
    uint64_t sleeps = 0;     // of these, those that were allowed to wait
    uint64_t wakes = 0;      // calls of Enter that Wake ended early
    uint64_t submitted = 0;  // operations
    std::array<uint64_t, kOpcodes> submitted_by_opcode = {};
    // By the number of their Opcode, links and posts included.
    uint64_t completed_inline = 0;  // within Submit
    uint64_t cold_sendfiles = 0;  // windows that had to be read off the thread
    uint64_t populate_ns = 0;
    // How long threads of this library took to read them, added up; the module
    // reads in the kernel, and does not tell.
    uint64_t overflow_deferred =
        0;  // entries that found the ring full and waited
    uint32_t ring_high_water = 0;
    uint32_t interests = 0;
    uint32_t operations = 0;  // in flight
  };

  static constexpr int kDone = 1;

  static absl::StatusOr<std::unique_ptr<Queue>> Create(const Options& options);
  // Unavailable: no engine of that kind works here; the message says why. If
  // the process still has SIGPIPE at its default, it is ignored from then on: a
  // peer that goes away in mid-sendfile, or in a send by reference, would end
  // the process otherwise.

  ~Queue();
  // Cancels what is in flight and forgets it: operations are idle afterwards,
  // without an entry. Descriptors stay open.

  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  EngineKind engine() const;
  bool sends_by_reference();
  // Whether SendOp::by_reference saves the copy: the module does, and io_uring
  // and epoll where the process may vmsplice(2) and, now, has three descriptors
  // to spare, which the queue then keeps. It is never an error.
  const std::string& engine_reason() const;
  // Why this engine was chosen, and why not those before it; for a log.

  int Submit(Operation* op);
  // 0: accepted with its links, each will make its entries. kDone: see
  // kOpSkipInline. -EAGAIN: max_operations reached. -EINVAL: a malformed
  // request or one in flight. -EBADF: fd is negative or being closed by this
  // queue. Whatever is refused is untouched. Errors found while it runs come by
  // entry. It may not begin before the next Enter (io_uring; sends for several
  // entries), unless pollable_fd was called or many threads share the queue: a
  // plain system call on the descriptor may be quicker, and what has not begun
  // ends with the queue.

  int Cancel(Operation* op);
  // Asks for an early end; its last entry (-ECANCELED, or its result) follows.
  // -ENOENT: not in flight here or complete already, its entry may be unread.

  int Add(const Interest& interest, Handle* handle);
  // 0, -EINVAL, -EBADF, -EPERM, -ENOSPC, -ENOMEM, or what epoll_ctl(2),
  // signalfd(2), inotify_add_watch(2) say.
  int Modify(Handle handle, uint32_t events, uint32_t flags);
  // kPoll: replaces both. An unread entry is withdrawn, and it is tested anew.
  // -EINVAL for other sources.
  int SetTimer(Handle handle, int64_t first_ns, int64_t interval_ns,
               bool absolute);
  // Starts a kTimer interest anew; an unread expiration is withdrawn.
  int Enable(Handle handle);
  int Disable(Handle handle);
  int Remove(Handle handle);
  // After any of Disable and Remove no entry is taken for it, unread ones
  // included. All: 0, or -ENOENT for a handle that names no interest.

  size_t ListInterests(uint32_t* index, std::span<InterestInfo> out);
  // Fills `out` with interests from number `*index` on, in the order of
  // Handle::index, and sets `*index` to where to go on. Looks at no more than
  // ten times as many places as `out` has room for, so that it may return less
  // than that, even 0; at the end `*index` is UINT32_MAX.

  int Post(PostOp* op);
  // Any thread, any time: `op` makes an entry. Lock-free; wakes the queue if it
  // waits. -EINVAL if `op` is in flight.

  void Wake();
  // Any thread: the current or next Enter returns early, perhaps with nothing.

  int Enter(std::span<Entry> out, const Wait& wait);
  // Hands all that was submitted to the kernel, waits as `wait` says, and
  // copies entries out, oldest first. Returns how many: fewer than `wait.min`
  // when the time is over, Wake was called or the wait was interrupted. -EINTR:
  // nothing is there and a signal handler ran, or the kernel interrupted the
  // wait for work of its own; -EINVAL. `min` is clipped to the room in `out`.

  size_t Take(std::span<Entry> out);
  // Copies out entries that are there. No system call.

  int Close(int fd);
  // Cancels every operation and removes every interest of this queue on `fd`,
  // then closes it. Each operation still makes its last entry; interests make
  // none. The descriptor is closed before Close returns, or as soon as the
  // kernel has let go of the last operation. 0, or -EBADF.

  absl::StatusOr<BufferPool*> AddBufferPool(uint32_t buffers, uint32_t bytes);
  // A pool of `buffers` (a power of two, at most 32768) of `bytes` each, which
  // lives as long as the queue. The module's engine pins one of at most 16 MiB,
  // unless RLIMIT_MEMLOCK forbids it.

  int pollable_fd();
  // A descriptor that polls readable (POLLIN) while Enter would find something.
  // Costs extra system calls from the first call on. The queue's own: not to be
  // read or closed. Negative errno on failure.

  Stats stats() const;

 private:
  explicit Queue(std::unique_ptr<internal::Core> core);
  std::unique_ptr<internal::Core> core_;
};
// One queue for socket, file, timer, signal, inode and user events, and for
// network I/O: operations complete, interests report readiness. It is of use to
// the process that made it alone: after fork(2) the child must not touch it.

}  // namespace kevent

#endif  // KEVENT_QUEUE_QUEUE_H_
