// SPDX-License-Identifier: Apache-2.0
#include "kevent/vm/tests/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <random>
#include <sstream>
#include <utility>

namespace kevent::raw {
namespace {

int Result(int r) { return r < 0 ? -errno : r; }

uint64_t Address(const void* pointer) {
  return static_cast<uint64_t>(reinterpret_cast<uintptr_t>(pointer));
}

// Words that the kernel writes are read with acquire, those that it reads are
// written with release: it pairs them the other way round.
uint32_t Acquire(const uint32_t* word) {
  return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}
void Release(uint32_t* word, uint32_t value) {
  __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

kevent_sqe AddFd(uint8_t source, int fd, uint32_t events, uint16_t flags,
                 uint64_t user_data) {
  kevent_sqe sqe = Change(KEVENT_OP_ADD);
  sqe.source = source;
  sqe.flags = flags;
  sqe.fd = fd;
  sqe.user_data = user_data;
  sqe.events = events;
  return sqe;
}

}  // namespace

int64_t NowNs(clockid_t clock) {
  timespec ts;
  clock_gettime(clock, &ts);
  return ts.tv_sec * kSecond + ts.tv_nsec;
}

int64_t PatienceNs() {
  static const int64_t patience = [] {
    const char* ms = getenv("KEVENT_WAIT_MS");
    return (ms && *ms ? atoll(ms) : 20'000) * kMs;
  }();
  return patience;
}

uint32_t Seed() {
  const char* given = getenv("KEVENT_SEED");
  uint32_t seed = given && *given
                      ? static_cast<uint32_t>(strtoul(given, nullptr, 0))
                      : std::random_device()();
  printf("KEVENT_SEED=%u\n", seed);
  fflush(stdout);
  return seed;
}

bool Full() {
  const char* full = getenv("KEVENT_FULL");
  return full && *full && *full != '0';
}

Fd& Fd::operator=(Fd&& other) noexcept {
  if (this != &other) Reset(other.Release());
  return *this;
}

void Fd::Reset(int fd) {
  if (fd_ >= 0) close(fd_);
  fd_ = fd;
}

int Fd::Release() { return std::exchange(fd_, -1); }

kevent_setup MakeSetup() {
  kevent_setup setup = {};
  setup.size = sizeof setup;
  setup.abi_version = KEVENT_ABI_VERSION;
  return setup;
}

kevent_enter MakeEnter() {
  kevent_enter enter = {};
  enter.size = sizeof enter;
  enter.timeout_ns = -1;
  enter.min_wait_ns = -1;
  enter.clock = CLOCK_MONOTONIC;
  return enter;
}

kevent_sqe Change(uint8_t opcode, uint64_t handle) {
  kevent_sqe sqe = {};
  sqe.opcode = opcode;
  sqe.handle = handle;
  return sqe;
}

kevent_sqe AddPoll(int fd, uint32_t events, uint16_t flags,
                   uint64_t user_data) {
  return AddFd(KEVENT_SOURCE_POLL, fd, events, flags, user_data);
}

kevent_sqe AddSocket(int fd, uint32_t events, uint16_t flags,
                     uint64_t user_data) {
  return AddFd(KEVENT_SOURCE_SOCKET, fd, events, flags, user_data);
}

kevent_sqe AddInode(int fd, uint32_t events, uint16_t flags,
                    uint64_t user_data) {
  return AddFd(KEVENT_SOURCE_INODE, fd, events, flags, user_data);
}

kevent_sqe AddTimer(int64_t time_ns, int64_t period_ns, uint16_t flags,
                    uint64_t user_data, int clock) {
  kevent_sqe sqe = AddFd(KEVENT_SOURCE_TIMER, clock, 0, flags, user_data);
  sqe.arg[0] = static_cast<uint64_t>(time_ns);
  sqe.arg[1] = static_cast<uint64_t>(period_ns);
  return sqe;
}

kevent_sqe AddSignal(int signo, uint16_t flags, uint64_t user_data) {
  return AddFd(KEVENT_SOURCE_SIGNAL, signo, 0, flags, user_data);
}

kevent_sqe AddUser(uint16_t flags, uint64_t user_data) {
  return AddFd(KEVENT_SOURCE_USER, 0, 0, flags, user_data);
}

std::string Describe(const kevent_entry& e) {
  std::ostringstream text;
  text << "entry " << e.sequence << ": source " << e.source << ", user_data "
       << e.user_data << ", handle " << KEVENT_HANDLE_INDEX(e.handle) << "/"
       << KEVENT_HANDLE_GENERATION(e.handle) << std::hex << ", events 0x"
       << e.events << ", flags 0x" << e.flags << std::dec << ", result "
       << e.result << ", data " << e.data[0] << " " << e.data[1] << " "
       << e.data[2];
  return text.str();
}

int OpenDevice() { return Result(open("/dev/kevent", O_RDWR | O_CLOEXEC)); }

// ---- Queue ----

Queue& Queue::operator=(Queue&& other) noexcept {
  if (this == &other) return *this;
  Close();
  fd_ = std::move(other.fd_);
  setup_ = std::exchange(other.setup_, {});
  ring_ = std::exchange(other.ring_, nullptr);
  cq_ = std::exchange(other.cq_, nullptr);
  sq_ = std::exchange(other.sq_, nullptr);
  return *this;
}

int Queue::Open(const Options& options) {
  Close();
  Fd fd(OpenDevice());
  if (fd.get() < 0) return fd.Release();
  kevent_setup setup = MakeSetup();
  setup.cq_entries = options.cq_entries;
  setup.sq_entries = options.sq_entries;
  setup.max_interests = options.max_interests;
  if (ioctl(fd.get(), KEVENT_SETUP, &setup) != 0) return -errno;
  void* map = mmap(nullptr, setup.ring_bytes, PROT_READ | PROT_WRITE,
                   MAP_SHARED, fd.get(), 0);
  if (map == MAP_FAILED) return -errno;
  fd_ = std::move(fd);
  setup_ = setup;
  ring_ = static_cast<kevent_ring*>(map);
  cq_ = reinterpret_cast<kevent_entry*>(static_cast<char*>(map) +
                                        ring_->cq_offset);
  sq_ =
      reinterpret_cast<kevent_sqe*>(static_cast<char*>(map) + ring_->sq_offset);
  return 0;
}

void Queue::Close() {
  Unmap();
  fd_.Reset();
}

void Queue::Forget() {
  ring_ = nullptr;
  fd_.Release();
}

int Queue::Unmap() {
  if (!ring_) return 0;
  return Result(munmap(std::exchange(ring_, nullptr), setup_.ring_bytes));
}

int Queue::Control(std::span<kevent_sqe> changes) const {
  kevent_control control = {};
  control.size = sizeof control;
  control.count = static_cast<uint32_t>(changes.size());
  control.changes = Address(changes.data());
  return Result(ioctl(fd_.get(), KEVENT_CONTROL, &control));
}

int Queue::Enter(kevent_enter* enter) const {
  return Result(ioctl(fd_.get(), KEVENT_ENTER, enter));
}

int Queue::Make(kevent_sqe* change) const {
  int made = Control({change, 1});
  return made == 1 ? change->result : made < 0 ? made : -EPROTO;
}

int Queue::Remove(uint64_t handle) const {
  kevent_sqe change = Change(KEVENT_OP_REMOVE, handle);
  return Make(&change);
}

int Queue::Enable(uint64_t handle) const {
  kevent_sqe change = Change(KEVENT_OP_ENABLE, handle);
  return Make(&change);
}

int Queue::Disable(uint64_t handle) const {
  kevent_sqe change = Change(KEVENT_OP_DISABLE, handle);
  return Make(&change);
}

int Queue::Ready(uint64_t handle, uint64_t value) const {
  kevent_sqe change = Change(KEVENT_OP_READY, handle);
  change.arg[0] = value;
  return Make(&change);
}

int Queue::Copy(std::span<kevent_entry> entries, uint32_t min,
                int64_t timeout_ns) const {
  kevent_enter enter = MakeEnter();
  enter.entries = Address(entries.data());
  enter.max = static_cast<uint32_t>(entries.size());
  enter.min = min;
  enter.timeout_ns = timeout_ns;
  return Enter(&enter);
}

int Queue::Wait(uint32_t min, int64_t timeout_ns) const {
  kevent_enter enter = MakeEnter();
  enter.min = min;
  enter.timeout_ns = timeout_ns;
  return Enter(&enter);
}

bool Queue::Take(kevent_entry* entry) {
  const uint32_t head = ring_->cq_head;
  if (head == Acquire(&ring_->cq_tail)) return false;
  *entry = At(head);
  Release(&ring_->cq_head, head + 1);
  return true;
}

uint32_t Queue::Unread() const {
  return Acquire(&ring_->cq_tail) - ring_->cq_head;
}

uint32_t Queue::tail() const { return Acquire(&ring_->cq_tail); }

uint32_t Queue::head() const { return Acquire(&ring_->cq_head); }

void Queue::set_head(uint32_t head) { Release(&ring_->cq_head, head); }

bool Queue::Pending() const {
  return Acquire(&ring_->flags) & KEVENT_RING_PENDING;
}

bool Queue::Starved() const {
  return Acquire(&ring_->flags) & KEVENT_RING_STARVED;
}

const kevent_entry& Queue::At(uint32_t number) const {
  return cq_[number & (setup_.cq_entries - 1)];
}

bool Queue::Put(const kevent_sqe& sqe) {
  const uint32_t tail = ring_->sq_tail;
  if (tail - Acquire(&ring_->sq_head) >= setup_.sq_entries) return false;
  sq_[tail & (setup_.sq_entries - 1)] = sqe;
  Release(&ring_->sq_tail, tail + 1);
  return true;
}

int Queue::Submit(uint32_t count, uint32_t* submitted) const {
  kevent_enter enter = MakeEnter();
  enter.to_submit = count;
  int r = Enter(&enter);
  if (submitted) *submitted = enter.submitted;
  return r;
}

void Queue::set_sq_tail(uint32_t tail) { Release(&ring_->sq_tail, tail); }

uint32_t Queue::sq_head() const { return Acquire(&ring_->sq_head); }

uint32_t Queue::sq_tail() const { return ring_->sq_tail; }

}  // namespace kevent::raw
