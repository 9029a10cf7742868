// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_VM_TESTS_RAW_H_
#define KEVENT_VM_TESTS_RAW_H_

#include <sys/types.h>
#include <time.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kevent/uapi/kevent.h"

namespace kevent::raw {

inline constexpr int64_t kMs = 1'000'000;  // nanoseconds
inline constexpr int64_t kSecond = 1'000'000'000;

int64_t NowNs(clockid_t clock = CLOCK_MONOTONIC);

int64_t PatienceNs();
// How long something that must happen may take: KEVENT_WAIT_MS, else 20 s.

uint32_t Seed();
// KEVENT_SEED, else a new one; printed, so that a failure can be repeated.

bool Full();
// Whether KEVENT_FULL asks for long runs.

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.Release()) {}
  Fd& operator=(Fd&& other) noexcept;
  ~Fd() { Reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void Reset(int fd = -1);
  int Release();

 private:
  int fd_ = -1;
};
// A descriptor and its close(2).

// The structs with their sizes, and what is neither 0 nor obvious.
kevent_setup MakeSetup();
kevent_enter MakeEnter();
// Does not wait; without timeout, on CLOCK_MONOTONIC.

kevent_sqe Change(uint8_t opcode, uint64_t handle = 0);
kevent_sqe AddPoll(int fd, uint32_t events, uint16_t flags = 0,
                   uint64_t user_data = 0);
kevent_sqe AddSocket(int fd, uint32_t events, uint16_t flags = 0,
                     uint64_t user_data = 0);
kevent_sqe AddInode(int fd, uint32_t events, uint16_t flags = 0,
                    uint64_t user_data = 0);
kevent_sqe AddTimer(int64_t time_ns, int64_t period_ns = 0, uint16_t flags = 0,
                    uint64_t user_data = 0, int clock = CLOCK_MONOTONIC);
kevent_sqe AddSignal(int signo, uint16_t flags = 0, uint64_t user_data = 0);
kevent_sqe AddUser(uint16_t flags = 0, uint64_t user_data = 0);

std::string Describe(const kevent_entry& entry);

struct Options {
  uint32_t cq_entries = 0;  // 0: the kernel's default
  uint32_t sq_entries = 0;
  uint32_t max_interests = 0;
};

int OpenDevice();
// A descriptor of a new queue without rings, or -errno.

class Queue {
 public:
  Queue() = default;
  Queue(Queue&& other) noexcept { *this = std::move(other); }
  Queue& operator=(Queue&& other) noexcept;
  ~Queue() { Close(); }

  int Open(const Options& options = {});
  // Opens, sets up and maps. Returns 0 or -errno.
  void Close();
  void Forget();
  // Closes nothing and unmaps nothing: for a child after fork(2).
  int Unmap();
  // The mapping alone.

  bool is_open() const { return static_cast<bool>(fd_); }
  int fd() const { return fd_.get(); }
  int ReleaseFd() { return fd_.Release(); }
  kevent_ring* ring() const { return ring_; }
  uint64_t ring_bytes() const { return setup_.ring_bytes; }
  uint32_t cq_entries() const { return setup_.cq_entries; }
  uint32_t sq_entries() const { return setup_.sq_entries; }
  const kevent_setup& setup() const { return setup_; }

  // ---- System calls. They return -errno, or what the ioctl returned. ----

  int Control(std::span<kevent_sqe> changes) const;
  int Enter(kevent_enter* enter) const;
  int Make(kevent_sqe* change) const;
  // One change by KEVENT_CONTROL; returns its result.
  int Remove(uint64_t handle) const;
  int Enable(uint64_t handle) const;
  int Disable(uint64_t handle) const;
  int Ready(uint64_t handle, uint64_t value = 0) const;
  int Copy(std::span<kevent_entry> entries, uint32_t min,
           int64_t timeout_ns) const;
  // KEVENT_ENTER that copies entries out.
  int Wait(uint32_t min, int64_t timeout_ns) const;
  // KEVENT_ENTER that leaves them in the ring.
  int Look() const { return Wait(0, 0); }

  // ---- The completion ring; no system calls, one thread. ----

  bool Take(kevent_entry* entry);
  // Copies the oldest unread entry and moves cq_head past it.
  uint32_t Unread() const;
  uint32_t tail() const;
  uint32_t head() const;
  void set_head(uint32_t head);
  bool Pending() const;
  bool Starved() const;
  // Whether KEVENT_RING_PENDING and KEVENT_RING_STARVED are set.
  const kevent_entry& At(uint32_t number) const;

  // ---- The submission ring. ----

  bool Put(const kevent_sqe& sqe);
  // Appends to the submission ring; false if it is full.
  int Submit(uint32_t count, uint32_t* submitted = nullptr) const;
  // KEVENT_ENTER with to_submit, which does not wait.
  void set_sq_tail(uint32_t tail);
  uint32_t sq_head() const;
  uint32_t sq_tail() const;

 private:
  Fd fd_;
  kevent_setup setup_ = {};
  kevent_ring* ring_ = nullptr;
  kevent_entry* cq_ = nullptr;
  kevent_sqe* sq_ = nullptr;
};
// A queue by the raw ABI. System calls may be made by several threads.

}  // namespace kevent::raw

#endif  // KEVENT_VM_TESTS_RAW_H_
