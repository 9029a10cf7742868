// SPDX-License-Identifier: Apache-2.0
//
// Random but structured calls of /dev/kevent: objects that are valid, and
// corrupted fields, addresses and ring indices among them, from several threads
// of processes that are killed now and then. What it checks itself is little;
// the kernel must stay clean, which the test bed sees.
//
//   fuzz [--seed=N] [--round=N] [--calls=N] [--full]
//
// A round is a process. Its seed is that of the run and its number, so one
// round can be run again alone, as far as threads run the same way twice.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "kevent/vm/tests/fuzz_files.h"
#include "kevent/vm/tests/raw.h"

namespace kevent::raw {
namespace {

constexpr int kThreads = 3;
constexpr uint64_t kCallsOfRound = 5000;
constexpr size_t kArena = 64 << 10;
constexpr size_t kGuard = 2 * KEVENT_MAX_CHANGES * sizeof(kevent_sqe);
constexpr uint64_t kAcceptTag = 0xacce'97ull << 40;  // of user_data

// Shared with the rounds' processes.
struct Shared {
  std::atomic<uint64_t> calls;
  std::atomic<uint64_t> succeeded;
  std::atomic<uint64_t> entries;
  std::atomic<uint64_t> forks;
};
Shared* shared = nullptr;

[[noreturn]] void Fail(const std::string& what) {
  dprintf(2, "fuzz: %s\n", what.c_str());
  _exit(66);
}

// ---- A thread's calls ----

// Memory that calls name: read and written by all threads and the kernel. What
// decides how long a call may sleep is kept elsewhere.
std::array<char, kArena>* arena = nullptr;

uint64_t Address(const void* p) { return reinterpret_cast<uintptr_t>(p); }

class Caller {
 public:
  Caller(uint64_t seed, Files* files, Queue* common, const std::string& folder)
      : dice_(seed), files_(files), common_(common), folder_(folder) {
    for (auto& handle : handles_) handle = 0;
  }

  void Run(uint64_t calls) {
    for (uint64_t i = 0; i < calls; ++i) {
      if (!own_.is_open() || dice_.OneIn(300)) Reopen();
      Call();
      ++shared->calls;
      if (dice_.OneIn(3)) Stir(&dice_, files_, folder_);
      if (dice_.OneIn(5)) MakeFiles(&dice_, files_, folder_);
      if (dice_.OneIn(8)) files_->Drop(&dice_);
      if (dice_.OneIn(60)) Quiesce();
      if (dice_.OneIn(700)) Fork();
    }
    Quiesce();
  }

 private:
  void Reopen() {
    handles_.fill(0);
    dying_.clear();
    dead_.clear();
    Options options;
    options.cq_entries = 1u << dice_(10);
    options.sq_entries = 1u << dice_(6);
    options.max_interests =
        dice_.OneIn(4) ? 1 + static_cast<uint32_t>(dice_(8)) : 0;
    const int r = own_.Open(options);
    if (r != 0 && r != -ENOMEM && r != -EMFILE) {
      Fail("cannot open a queue: " + std::to_string(r));
    }
    expected_ = 0;
  }

  uint64_t BadAddress() {
    switch (dice_(6)) {
      case 0:
        return 0;
      case 1:
        return dice_(4096);
      case 2:
        return 0xffff888000000000 + dice_(1 << 20);
      case 3:
        return 0x7ffffffff000 - dice_(64);
      case 4:
        return Address(arena) + kArena - dice_(100);  // its end
      default:
        return dice_.Any();
    }
  }
  // A place in the common memory, aligned or not.
  char* Place(size_t bytes) {
    const size_t at = dice_(kArena - bytes);
    return arena->data() + (dice_.OneIn(8) ? at : at & ~size_t{7});
  }

  uint64_t SomeHandle() {
    const uint64_t handle = handles_[dice_(handles_.size())];
    switch (dice_(12)) {
      case 0:
        return handle + (uint64_t{1} << 32);
      case 1:
        return dice_.Number();
      default:
        return handle;
    }
  }

  kevent_sqe Sqe() {
    static constexpr std::array<uint16_t, 8> kFlags = {
        0,
        KEVENT_EDGE,
        KEVENT_ONESHOT,
        KEVENT_DISPATCH,
        KEVENT_EDGE | KEVENT_ONESHOT,
        KEVENT_ALWAYS_QUEUE,
        KEVENT_LAST_CHECK,
        KEVENT_WAKE_ALL};
    kevent_sqe sqe = {};
    sqe.user_data = dice_.Any();
    if (dice_.OneIn(2)) {
      sqe.opcode = KEVENT_OP_ADD;
      sqe.flags = dice_.Of(kFlags);
      if (dice_.OneIn(4)) sqe.flags |= dice_.Of(kFlags);
      sqe.source = static_cast<uint8_t>(1 + dice_(6));
      switch (sqe.source) {
        case KEVENT_SOURCE_SOCKET:
        case KEVENT_SOURCE_POLL:
          sqe.fd = files_->Pick(&dice_);
          sqe.events = dice_.Of(std::array<uint32_t, 5>{
              KEVENT_IN, KEVENT_OUT, KEVENT_IN | KEVENT_OUT,
              KEVENT_IN | KEVENT_RDHUP, KEVENT_PRI});
          break;
        case KEVENT_SOURCE_INODE:
          sqe.fd = files_->Pick(&dice_);
          sqe.events = static_cast<uint32_t>(dice_.Any()) & KEVENT_INODE_EVENTS;
          break;
        case KEVENT_SOURCE_TIMER:
          sqe.fd = dice_.Of(std::array<int, 3>{CLOCK_MONOTONIC, CLOCK_REALTIME,
                                               CLOCK_BOOTTIME});
          sqe.arg[0] = dice_(kMs);
          if (dice_.OneIn(2)) sqe.arg[1] = KEVENT_TIMER_MIN_NS + dice_(kMs);
          if (dice_.OneIn(8)) sqe.flags |= KEVENT_ABSOLUTE;
          break;
        case KEVENT_SOURCE_SIGNAL:
          sqe.fd = kMutedSignal;
          break;
        default:
          break;
      }
    } else {
      sqe.opcode = static_cast<uint8_t>(dice_.Of(std::array<int, 6>{
          KEVENT_OP_NOP, KEVENT_OP_MODIFY, KEVENT_OP_REMOVE, KEVENT_OP_DISABLE,
          KEVENT_OP_ENABLE, KEVENT_OP_READY}));
      if (sqe.opcode != KEVENT_OP_NOP) sqe.handle = SomeHandle();
      if (sqe.opcode == KEVENT_OP_MODIFY) {
        sqe.flags = dice_.Of(kFlags);
        sqe.events = dice_.OneIn(2) ? KEVENT_IN : 0;
        if (dice_.OneIn(2)) sqe.arg[0] = dice_(kMs);
      }
      if (sqe.opcode == KEVENT_OP_READY) sqe.arg[0] = dice_.Any();
    }
    if (dice_.OneIn(10)) {
      Corrupt(&sqe, sizeof sqe);
      if (Writes(sqe)) sqe.opcode = KEVENT_OP_CANCEL;
    }
    return sqe;
  }

  // Addresses are in the arena or bad: results may be written there any time.
  kevent_sqe Operation(bool own) {
    kevent_sqe sqe = {};
    sqe.user_data = dice_.Any() & ~kAcceptTag;
    sqe.opcode = dice_.Of(std::array<uint8_t, 13>{
        KEVENT_OP_SENDFILE_PATH, KEVENT_OP_ACCEPT, KEVENT_OP_CONNECT,
        KEVENT_OP_RECV, KEVENT_OP_RECV, KEVENT_OP_RECV, KEVENT_OP_SEND,
        KEVENT_OP_SEND, KEVENT_OP_SENDFILE, KEVENT_OP_SENDFILE,
        KEVENT_OP_SHUTDOWN, KEVENT_OP_CLOSE, KEVENT_OP_CANCEL});
    sqe.fd = files_->Pick(&dice_);
    const uint64_t bytes = dice_.OneIn(4) ? 0 : 1 + dice_(kArena / 4);
    const uint64_t address =
        dice_.OneIn(12) ? BadAddress() : Address(Place(bytes));
    switch (sqe.opcode) {
      case KEVENT_OP_ACCEPT:
        if (!own) sqe.opcode = KEVENT_OP_SHUTDOWN;
        if (!own) break;
        sqe.user_data |= kAcceptTag;
        sqe.arg[0] = dice_.OneIn(2) ? SOCK_CLOEXEC : SOCK_NONBLOCK;
        if (dice_.OneIn(2)) sqe.flags = KEVENT_MULTISHOT;
        if (dice_.OneIn(2)) {
          sqe.events = KEVENT_ACCEPT_RECV;
          sqe.arg[1] = dice_(4);
        }
        break;
      case KEVENT_OP_CONNECT:
        sqe.arg[0] = address;
        sqe.arg[1] = dice_(sizeof(sockaddr_storage) + 2);
        break;
      case KEVENT_OP_RECV:
        sqe.arg[0] = address;
        sqe.arg[1] = bytes;
        if (dice_.OneIn(2)) {
          sqe.events = KEVENT_RECV_POOL;
          sqe.arg[0] = dice_(4);
          sqe.arg[1] = 0;
          if (dice_.OneIn(2)) sqe.flags = KEVENT_MULTISHOT;
        }
        if (dice_.OneIn(4)) sqe.events |= KEVENT_RECV_WAIT;
        break;
      case KEVENT_OP_SEND:
        sqe.arg[0] = address;
        sqe.arg[1] = bytes;
        if (dice_.OneIn(3)) {
          sqe.events = KEVENT_SEND_VECTOR;
          auto* pieces = reinterpret_cast<kevent_vector*>(
              Place(4 * sizeof(kevent_vector)));
          for (int i = 0; i < 4; ++i) {
            const kevent_vector piece = {Address(Place(4096)), dice_(4096)};
            memcpy(pieces + i, &piece, sizeof piece);
          }
          sqe.arg[0] = Address(pieces);
          sqe.arg[1] = dice_(5);
        }
        if (dice_.OneIn(2)) sqe.events |= KEVENT_SEND_REFERENCE;
        break;
      case KEVENT_OP_SENDFILE:
        sqe.arg[0] = dice_.OneIn(8) ? dice_.Number() : dice_(100'000);
        sqe.arg[1] = dice_.OneIn(8) ? dice_.Number() : dice_(400'000);
        if (dice_.OneIn(2)) {
          kevent_parts parts = {
              Address(Place(512)), dice_(512), Address(Place(512)),
              dice_(512),          0,          {}};
          if (dice_.OneIn(2)) parts.progress = Address(Place(8));
          if (dice_.OneIn(20)) parts.progress = BadAddress();
          char* at = Place(sizeof parts);
          memcpy(at, &parts, sizeof parts);
          sqe.arg[2] = dice_.OneIn(12) ? BadAddress() : Address(at);
        }
        sqe.arg[3] = static_cast<uint32_t>(dice_.OneIn(4) ? files_->Pick(&dice_)
                                                          : files_->file());
        break;
      case KEVENT_OP_SENDFILE_PATH: {
        static constexpr std::array<const char*, 6> kPaths = {
            "sent", "1", "../x", "none", "./sent", "3x"};
        char* name = Place(16);
        strcpy(name, dice_.Of(kPaths));
        kevent_path path = {};
        path.path = dice_.OneIn(12) ? BadAddress() : Address(name);
        path.directory = dice_.OneIn(3) ? files_->Pick(&dice_) : files_->root();
        if (dice_.OneIn(12)) Corrupt(&path, sizeof path);
        char* at = Place(sizeof path);
        memcpy(at, &path, sizeof path);
        sqe.arg[0] = dice_.OneIn(8) ? dice_.Number() : dice_(100'000);
        sqe.arg[1] = dice_.OneIn(2) ? ~0ull : dice_.Number();
        sqe.arg[3] = dice_.OneIn(12) ? BadAddress() : Address(at);
        break;
      }
      case KEVENT_OP_SHUTDOWN:
        sqe.arg[0] = dice_(4);
        break;
      case KEVENT_OP_CLOSE:
        sqe.fd = dup(sqe.fd);
        break;
      default:
        sqe.arg[0] = dice_.Any();
        if (dice_.OneIn(2)) {
          sqe.events = KEVENT_CANCEL_ANY;
          sqe.arg[0] = 0;
        }
        if (dice_.OneIn(6)) sqe.fd = -1;
    }
    if (dice_.OneIn(3)) sqe.flags |= KEVENT_SKIP_SUCCESS;
    if (dice_.OneIn(2)) sqe.flags |= KEVENT_LINK;
    if (dice_.OneIn(12)) {
      const kevent_sqe sane = sqe;
      Corrupt(&sqe, sizeof sqe);
      if (Writes(sqe) || Writes(sane)) {
        sqe.opcode = sane.opcode;
        sqe.fd = sane.fd;
        sqe.user_data = sane.user_data;
        memcpy(sqe.arg, sane.arg, sizeof sqe.arg);
        sqe.events = sane.events;
      }
    }
    return sqe;
  }
  // To memory or descriptors that must not be just any.
  static bool Writes(const kevent_sqe& sqe) {
    return sqe.opcode == KEVENT_OP_RECV || sqe.opcode == KEVENT_OP_CLOSE ||
           sqe.opcode == KEVENT_OP_ACCEPT;
  }

  void CallRegister(Queue* queue) {
    kevent_register g = {};
    g.size = sizeof g;
    if (dice_.OneIn(3)) {
      g.opcode = KEVENT_UNREGISTER;
      g.id = static_cast<uint32_t>(dice_(4));
    } else {
      const uint64_t count = uint64_t{1} << dice_(6);
      g.opcode =
          dice_.OneIn(2) ? KEVENT_REGISTER_PINNED_POOL : KEVENT_REGISTER_POOL;
      g.buffer_bytes = 1 + static_cast<uint32_t>(dice_(256));
      g.bytes = count * g.buffer_bytes;
      g.address = dice_.OneIn(8) ? BadAddress() : Address(Place(g.bytes));
      char* ring = Place(sizeof(kevent_pool_ring) + count * 2);
      const uint32_t tail = static_cast<uint32_t>(dice_(2 * count));
      memcpy(ring, &tail, sizeof tail);
      for (uint64_t i = 0; i < count; ++i) {
        const auto id = static_cast<uint16_t>(dice_(count + 1));
        memcpy(ring + sizeof(kevent_pool_ring) + 2 * i, &id, 2);
      }
      g.ring = dice_.OneIn(8) ? BadAddress() : Address(ring);
    }
    if (dice_.OneIn(8)) {
      const kevent_register sane = g;
      Corrupt(&g, sizeof g);
      if (g.address != sane.address || g.bytes > sane.bytes) {
        g.address = BadAddress();
      }
      if (g.ring != sane.ring) g.ring = BadAddress();
    }
    Ioctl(*queue, KEVENT_REGISTER,
          dice_.OneIn(30) ? BadAddress() : Address(&g));
  }

  void Corrupt(void* p, size_t bytes) {
    auto* at = static_cast<unsigned char*>(p);
    switch (dice_(3)) {
      case 0:
        at[dice_(bytes)] ^= static_cast<unsigned char>(1u << dice_(8));
        break;
      case 1: {
        const uint64_t number = dice_.Number();
        const size_t word = dice_(bytes / 8) * 8;
        memcpy(at + word, &number, 8);
        break;
      }
      default: {
        const auto number = static_cast<uint32_t>(dice_.Number());
        const size_t word = dice_(bytes / 4) * 4;
        memcpy(at + word, &number, 4);
      }
    }
  }

  int Ioctl(const Queue& queue, unsigned long request, uint64_t address) {
    int r = ioctl(queue.fd(), request, address);
    if (r >= 0) {
      ++shared->succeeded;
      return r;
    }
    return -errno;
  }

  // A queue of one's own is watched closely; the common one is hammered.
  Queue& Target() { return dice_.OneIn(4) ? *common_ : own_; }

  void Call() {
    switch (dice_(15)) {
      case 0:
      case 1:
      case 2:
      case 3:
        CallControl(&Target());
        break;
      case 4:
      case 5:
      case 6:
      case 7:
        CallEnter(&Target());
        break;
      case 8:
      case 11:
      case 12:
        CallSubmit(&Target());
        break;
      case 13:
        CallRegister(&Target());
        break;
      case 9:
        ScribbleIndices();
        break;
      case 10:
        Other(&Target());
        break;
      default:
        ReadRing();
    }
  }

  void CallControl(Queue* queue) {
    const size_t count = 1 + dice_(dice_.OneIn(10) ? 64 : 4);
    std::vector<kevent_sqe> changes;
    for (size_t i = 0; i < count; ++i) changes.push_back(Sqe());
    if (queue == common_ || dice_.OneIn(6)) {
      // Where others write at the same time.
      kevent_control control = {};
      control.size = sizeof control;
      control.count = static_cast<uint32_t>(count);
      char* at = Place(count * sizeof(kevent_sqe));
      memcpy(at, changes.data(), count * sizeof(kevent_sqe));
      control.changes = dice_.OneIn(6) ? BadAddress() : Address(at);
      if (dice_.OneIn(8)) {
        const uint64_t changes_before = control.changes;
        Corrupt(&control, sizeof control);
        // Not into memory of ours that is not the arena.
        if (control.changes != changes_before) control.changes = BadAddress();
      }
      // Not so many changes of whatever lies there.
      if (control.count > 512 && !dice_.OneIn(50)) control.count = 512;
      Ioctl(*queue, KEVENT_CONTROL,
            dice_.OneIn(30) ? BadAddress() : Address(&control));
      return;
    }
    const int made = queue->Control(changes);
    if (made < 0) return;
    ++shared->succeeded;
    for (int i = 0; i < made; ++i) {
      const kevent_sqe& change = changes[static_cast<size_t>(i)];
      if (change.opcode == KEVENT_OP_ADD && change.result >= 0) {
        if (KEVENT_HANDLE_GENERATION(change.handle) == 0) {
          Fail("a handle without a generation");
        }
        handles_[dice_(handles_.size())] = change.handle;
      }
      if (change.opcode == KEVENT_OP_REMOVE && change.result == 0) {
        dying_.push_back(change.handle);
      }
    }
  }

  // What a call that may sleep says: never for long, and it can be interrupted.
  kevent_enter SafeEnter() {
    kevent_enter enter = MakeEnter();
    enter.min = static_cast<uint32_t>(dice_(3));
    enter.timeout_ns = static_cast<int64_t>(dice_(200'000));
    enter.clock = dice_.Of(std::array<uint32_t, 3>{
        CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME});
    if (dice_.OneIn(4)) enter.min_wait_ns = static_cast<int64_t>(dice_(50'000));
    if (dice_.OneIn(10)) {
      enter.flags = KEVENT_ENTER_ABSOLUTE;
      enter.timeout_ns = static_cast<int64_t>(dice_(kSecond));  // long ago
    }
    if (dice_.OneIn(6)) {
      // Nothing that would keep it from being ended.
      sigmask_ = dice_.OneIn(2) ? 0 : uint64_t{1} << (kMutedSignal - 1);
      enter.sigmask = Address(&sigmask_);
      enter.sigmask_size = 8;
    }
    return enter;
  }

  void CallEnter(Queue* queue) {
    kevent_enter enter = SafeEnter();
    const uint32_t most = 1 + static_cast<uint32_t>(dice_(32));
    const bool checked = queue == &own_ && !dice_.OneIn(4);
    std::vector<kevent_entry> out;
    if (checked) {
      out.resize(most);
      enter.entries = Address(out.data());
      enter.max = most;
    } else if (dice_.OneIn(2)) {
      enter.entries = dice_.OneIn(6)
                          ? BadAddress()
                          : Address(Place(most * sizeof(kevent_entry)));
      enter.max = most;
    }
    std::vector<kevent_sqe> changes;
    if (!checked && dice_.OneIn(3)) {
      enter.nr_changes = 1 + static_cast<uint32_t>(dice_(4));
      for (uint32_t i = 0; i < enter.nr_changes; ++i) changes.push_back(Sqe());
      enter.changes = dice_.OneIn(6) ? BadAddress() : Address(changes.data());
      if (enter.changes == Address(changes.data())) {
        // Its removals are not followed.
        for (kevent_sqe& change : changes) {
          if (change.opcode == KEVENT_OP_REMOVE) change.opcode = KEVENT_OP_NOP;
        }
      }
    }
    if (!checked && dice_.OneIn(4)) {
      const kevent_enter sane = enter;
      Corrupt(&enter, sizeof enter);
      // Everything but what makes it sleep, or writes to memory of ours that
      // is not the arena.
      enter.timeout_ns = sane.timeout_ns;
      enter.flags &= dice_.OneIn(2) ? ~0u : sane.flags;
      if (enter.flags & KEVENT_ENTER_ABSOLUTE) enter.timeout_ns = 1;
      enter.sigmask = sane.sigmask;
      if (enter.entries != sane.entries) enter.entries = BadAddress();
      if (enter.changes != sane.changes ||
          enter.nr_changes != sane.nr_changes) {
        enter.changes = BadAddress();
        enter.nr_changes = std::min(enter.nr_changes, 512u);
      }
      if (enter.max > most) enter.max = most;
    }
    uint64_t address = Address(&enter);
    if (!checked && dice_.OneIn(40)) address = BadAddress();
    if (!checked && dice_.OneIn(10)) {
      // It may change while the kernel reads it.
      char* at = Place(sizeof enter);
      // Then nothing in it may point to memory of ours that is not the arena.
      if (enter.nr_changes > 0) {
        char* to = Place(changes.size() * sizeof(kevent_sqe));
        memcpy(to, changes.data(), changes.size() * sizeof(kevent_sqe));
        if (enter.changes == Address(changes.data())) {
          enter.changes = Address(to);
        }
      }
      enter.sigmask = enter.sigmask_size = 0;
      memcpy(at, &enter, sizeof enter);
      address = Address(at);
    }
    const int r = Ioctl(*queue, KEVENT_ENTER, address);
    if (!checked) return;
    if (r > static_cast<int>(most)) Fail("more entries than asked for");
    for (int i = 0; i < r; ++i) Check(out[static_cast<size_t>(i)]);
  }

  void CallSubmit(Queue* queue) {
    // On the common one several threads write, without agreement.
    uint32_t put = 0;
    for (uint64_t i = 1 + dice_(6); i > 0; --i) {
      kevent_sqe sqe = dice_.OneIn(4) ? Sqe() : Operation(queue == &own_);
      if (sqe.opcode == KEVENT_OP_REMOVE) sqe.opcode = KEVENT_OP_DISABLE;
      if (dice_.OneIn(8)) sqe.flags |= KEVENT_SKIP_SUCCESS;
      if (queue->Put(sqe)) ++put;
    }
    queue->Submit(dice_.OneIn(10) ? static_cast<uint32_t>(dice_.Number())
                                  : put);
  }

  // Nonsense in the ring's words, for a while.
  void ScribbleIndices() {
    kevent_ring* ring = common_->ring();
    uint32_t* words[] = {&ring->cq_head, &ring->sq_tail, &ring->cq_tail,
                         &ring->sq_head, &ring->flags,   &ring->cq_entries};
    uint32_t* word = words[dice_(std::size(words))];
    __atomic_store_n(word, static_cast<uint32_t>(dice_.Number()),
                     __ATOMIC_RELAXED);
    // One's own: and right again afterwards.
    const uint32_t head = own_.head(), tail = own_.sq_tail();
    const uint32_t next = head + static_cast<uint32_t>(dice_.Number());
    const uint32_t written = own_.tail();  // once: more come at any time
    const bool nonsense = written - next > own_.cq_entries();
    // What was read shall not come again, and be taken for the kernel's fault.
    if (!nonsense && static_cast<int32_t>(next - head) < 0) return;
    // Nor shall it become true by what happens meanwhile.
    if (nonsense && next - written < 1000) return;
    own_.set_head(next);
    if (dice_.OneIn(2)) own_.set_sq_tail(static_cast<uint32_t>(dice_.Number()));
    const int r = own_.Look();
    if (nonsense && r >= 0) Fail("nonsense in cq_head was not seen");
    if (dice_.OneIn(3)) own_.Ready(SomeHandle());
    if (dice_.OneIn(3)) PollIt(own_.fd());
    if (nonsense) own_.set_head(head);
    own_.set_sq_tail(tail);
  }

  static void PollIt(int fd) {
    pollfd p = {fd, POLLIN | POLLOUT, 0};
    poll(&p, 1, 0);
  }

  void Other(Queue* queue) {
    switch (dice_(9)) {
      case 0:
        Ioctl(*queue, _IO(KEVENT_IOC_MAGIC, static_cast<unsigned>(dice_(8))),
              BadAddress());
        break;
      case 1:
        Ioctl(*queue, static_cast<uint32_t>(dice_.Any()), Address(Place(256)));
        break;
      case 2: {
        kevent_setup setup = MakeSetup();
        setup.cq_entries = static_cast<uint32_t>(dice_.Number());
        setup.sq_entries = static_cast<uint32_t>(dice_.Number());
        if (dice_.OneIn(2)) Corrupt(&setup, sizeof setup);
        const int fd = OpenDevice();
        ioctl(fd, KEVENT_SETUP, dice_.OneIn(8) ? nullptr : &setup);
        if (dice_.OneIn(2)) ioctl(fd, KEVENT_SETUP, &setup);
        // It may be watched like any other file, or be lost.
        files_->Put(&dice_, fd);
        break;
      }
      case 3: {
        void* map = mmap(
            nullptr, dice_.OneIn(2) ? queue->ring_bytes() : 4096 << dice_(6),
            static_cast<int>(dice_(8)),
            dice_.OneIn(3) ? MAP_PRIVATE : MAP_SHARED, queue->fd(),
            dice_.OneIn(3) ? static_cast<off_t>(dice_(4) * 4096) : 0);
        if (map != MAP_FAILED) munmap(map, queue->ring_bytes());
        break;
      }
      case 4:
        PollIt(queue->fd());
        break;
      case 5: {
        char block[64];
        if (read(queue->fd(), block, sizeof block) >= 0) {
          Fail("a queue can be read");
        }
        break;
      }
      case 6: {
        const std::string path =
            "/proc/self/fdinfo/" + std::to_string(queue->fd());
        const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
        char block[2048];
        while (read(fd, block, sizeof block) > 0) {
        }
        close(fd);
        break;
      }
      case 7: {
        // Into an epoll, or over a socket, where it may be forgotten.
        const int epoll = epoll_create1(EPOLL_CLOEXEC);
        epoll_event event = {};
        event.events = EPOLLIN;
        epoll_ctl(epoll, EPOLL_CTL_ADD, queue->fd(), &event);
        epoll_wait(epoll, &event, 1, 0);
        files_->Put(&dice_, epoll);
        break;
      }
      default:
        SendIt(queue->fd(), files_->Pick(&dice_));
    }
  }

  static void SendIt(int what, int where) {
    char byte = 'd';
    iovec vector = {&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof what)] = {};
    msghdr message = {};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof what);
    memcpy(CMSG_DATA(header), &what, sizeof what);
    sendmsg(where, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  }

  void ReadRing() {
    kevent_entry entry;
    for (uint64_t i = dice_(16); i > 0 && own_.Take(&entry); --i) Check(entry);
  }

  void Check(const kevent_entry& entry) {
    ++shared->entries;
    // Dropped ones have had a number: it goes up only.
    if (static_cast<int32_t>(entry.sequence - expected_) < 0) {
      Fail("numbers go back: " + Describe(entry) + ", expected " +
           std::to_string(expected_));
    }
    expected_ = entry.sequence + 1;
    if (entry.source == KEVENT_SOURCE_OPERATION &&
        (entry.user_data & kAcceptTag) == kAcceptTag && entry.result > 2) {
      close(static_cast<int>(entry.result));
    }
    if (entry.reserved != 0) Fail("reserved is set: " + Describe(entry));
    if (dead_.contains(entry.handle) &&
        entry.source != KEVENT_SOURCE_OPERATION) {
      Fail("an entry of a removed interest: " + Describe(entry));
    }
  }

  // Everything is read: from now on no entry of what was removed may appear.
  void Quiesce() {
    const uint64_t removed = dying_.size();
    if (!own_.is_open()) return;
    own_.Look();
    kevent_entry entry;
    while (own_.Take(&entry)) Check(entry);
    if (dead_.size() > 5000) dead_.clear();
    for (uint64_t i = 0; i < removed; ++i) dead_.insert(dying_[i]);
    dying_.clear();
    own_.Look();
    while (own_.Take(&entry)) Check(entry);
  }

  // A child with the descriptors alone. Only system calls: other threads exist.
  void Fork() {
    ++shared->forks;
    const int own = own_.fd(), common = common_->fd();
    const uint64_t how = dice_(3);
    const pid_t pid = fork();
    if (pid == 0) {
      kevent_enter enter = MakeEnter();
      const bool right =
          ioctl(own, KEVENT_ENTER, &enter) == -1 && errno == EXDEV &&
          ioctl(common, KEVENT_ENTER, &enter) == -1 && errno == EXDEV;
      if (how == 0) kill(getpid(), SIGKILL);
      _exit(right ? 0 : 67);
    }
    if (pid < 0) return;
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) != 0) {
      Fail("a child could use its parent's queue");
    }
  }

  Dice dice_;
  Files* files_;
  Queue* common_;
  std::string folder_;
  Queue own_;
  uint64_t sigmask_ = 0;
  std::array<uint64_t, 32> handles_;
  std::vector<uint64_t> dying_;
  std::set<uint64_t> dead_;
  uint32_t expected_ = 0;
};

// ---- A round ----

void Nothing(int) {}

// Interrupts a thread again and again: a call of nonsense may sleep for long.
timer_t Interrupt(pid_t thread) {
  sigevent event = {};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = SIGALRM;
  event._sigev_un._tid = thread;
  timer_t timer = nullptr;
  if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) Fail("timer_create");
  itimerspec spec = {};
  spec.it_value.tv_nsec = spec.it_interval.tv_nsec = 50 * kMs;
  timer_settime(timer, 0, &spec, nullptr);
  return timer;
}

[[noreturn]] void Round(uint64_t seed, uint64_t calls,
                        const std::string& folder) {
  signal(SIGPIPE, SIG_IGN);
  struct sigaction action = {};
  action.sa_handler = Nothing;
  sigaction(SIGALRM, &action, nullptr);
  sigaction(kMutedSignal, &action, nullptr);  // a call may let it through
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, kMutedSignal);
  sigprocmask(SIG_BLOCK, &mask, nullptr);
  // An arena, and after it more that cannot be touched than any call may name:
  // a hole would be filled by another mapping.
  void* map = mmap(nullptr, kArena + kGuard, PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map == MAP_FAILED || mprotect(map, kArena, PROT_READ | PROT_WRITE) != 0) {
    Fail("no memory");
  }
  arena = static_cast<std::array<char, kArena>*>(map);
  Dice dice(seed);
  Files files;
  auto common = std::make_unique<Queue>();
  if (int r = common->Open({64, 64, 0}); r != 0) {
    Fail("cannot open a queue: " + std::to_string(r));
  }
  const int file =
      open((folder + "/sent").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (ftruncate(file, 300'000) != 0) Fail("no file");
  files.set_file(file);
  files.set_root(open(folder.c_str(), O_PATH | O_CLOEXEC));
  for (int i = 0; i < 30; ++i) MakeFiles(&dice, &files, folder);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, thread_seed = dice.Any()] {
      const timer_t timer = Interrupt(static_cast<pid_t>(syscall(SYS_gettid)));
      auto caller =
          std::make_unique<Caller>(thread_seed, &files, common.get(), folder);
      caller->Run(calls / kThreads + 1);
      timer_delete(timer);
    });
  }
  for (std::thread& thread : threads) thread.join();
  _exit(0);
}

// True if it ended as it should. A stuck one is killed; a call that slept for
// long is no fault, one that cannot be killed is.
bool RunRound(uint64_t number, uint64_t seed, uint64_t calls, Dice* dice,
              const std::string& folder) {
  const bool doomed = dice->OneIn(5);
  const uint64_t when = dice->Any() % (200 * kMs);
  fflush(nullptr);
  const pid_t pid = fork();
  if (pid < 0) Fail("fork");
  if (pid == 0) Round(seed, calls, folder);
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  timespec wait = {};
  const int64_t patience = doomed ? static_cast<int64_t>(when) : PatienceNs();
  wait.tv_sec = patience / kSecond;
  wait.tv_nsec = patience % kSecond;
  pollfd p = {pidfd, POLLIN, 0};
  bool slow = false;
  if (ppoll(&p, 1, &wait, nullptr) == 0) {
    slow = !doomed;
    if (slow) printf("round %lu is stuck, it is killed\n", number);
    kill(pid, SIGKILL);
    if (poll(&p, 1, static_cast<int>(PatienceNs() / kMs)) == 0) {
      printf("round %lu cannot be killed\n", number);
      return false;
    }
  }
  close(pidfd);
  int status = 0;
  waitpid(pid, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return true;
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && (doomed || slow)) {
    return true;
  }
  printf("round %lu ended with status 0x%x: --seed and --round repeat it\n",
         number, static_cast<unsigned>(status));
  return false;
}

int Main(int argc, char** argv) {
  uint64_t calls = Full() ? 3'000'000 : 100'000;
  int64_t seed = -1, only = -1;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    auto value = [&](const char* name, auto* to) {
      const std::string prefix = std::string(name) + "=";
      if (argument.rfind(prefix, 0) != 0) return false;
      *to = strtoll(argument.c_str() + prefix.size(), nullptr, 0);
      return true;
    };
    if (argument == "--full") {
      calls = 3'000'000;
    } else if (!value("--seed", &seed) && !value("--round", &only) &&
               !value("--calls", &calls)) {
      fprintf(stderr,
              "usage: fuzz [--seed=N] [--round=N] [--calls=N] [--full]\n");
      return 2;
    }
  }
  if (seed < 0) seed = Seed();
  printf("--seed=%ld\n", seed);
  void* map = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) return 2;
  shared = new (map) Shared();
  const char* tmp = getenv("TEST_TMPDIR");
  std::string folder = std::string(tmp && *tmp ? tmp : "/tmp") + "/fuzz_XXXXXX";
  if (!mkdtemp(folder.data())) return 2;

  bool good = true;
  const int64_t start = NowNs();
  for (uint64_t round = 0; good && shared->calls < calls; ++round) {
    Dice dice(static_cast<uint64_t>(seed) * 1'000'003 + round);
    const uint64_t round_seed = dice.Any();
    if (only >= 0 && round != static_cast<uint64_t>(only)) {
      if (round > static_cast<uint64_t>(only)) break;
      continue;
    }
    good = RunRound(round, round_seed, kCallsOfRound, &dice, folder);
  }
  printf("%lu calls, %lu succeeded, %lu entries, %lu forks, %.1f s\n",
         shared->calls.load(), shared->succeeded.load(), shared->entries.load(),
         shared->forks.load(), static_cast<double>(NowNs() - start) / kSecond);
  if (system(("rm -rf '" + folder + "'").c_str()) != 0) good = false;
  // Mere failures would prove nothing.
  if (only < 0 && (shared->succeeded < shared->calls / 5 ||
                   shared->entries < shared->calls / 50)) {
    printf("too few calls succeeded\n");
    good = false;
  }
  return good ? 0 : 1;
}

}  // namespace
}  // namespace kevent::raw

int main(int argc, char** argv) { return kevent::raw::Main(argc, argv); }
