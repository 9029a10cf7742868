// SPDX-License-Identifier: Apache-2.0
//
// What an event costs with many idle interests beside it: epoll and kevent.ko
// in the same kernel. Run it in the guest with deterministic instruction counts
// (./kev bench vm): there the clock advances by one nanosecond for each
// instruction, and so it prints instructions; elsewhere nanoseconds.
//
//   events [--tcp] [--events=EVENTS] N...
//
// N stream sockets are watched, Unix or TCP ones. In each round a byte is
// written to the peers of some of them, chosen by a fixed sequence; then the
// events are waited for, and the bytes read. "none" does the same without an
// event layer, told by the sequence itself; what the others cost beyond it is
// the cost of an event.

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "benchmarks/vm/common.h"
#include "kevent/uapi/kevent.h"

namespace kevent::bench {
namespace {

constexpr uint32_t kRing = 256;
constexpr uint16_t kPort = 8081;

struct Pairs {
  Pairs(size_t count, bool with_tcp)
      : tcp(with_tcp), ours(count), peers(count) {
    const int listener = tcp ? Listen(kPort, 0) : -1;
    for (size_t i = 0; i < count; ++i) {
      int fds[2];
      if (tcp) {
        fds[1] = Connect(kPort);
        fds[0] = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
        if (fds[0] < 0) Die("accept4");
        // A byte must not wait for the answer to the one before.
        NoDelay(fds[1]);
      } else if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) < 0) {
        Die("socketpair");
      }
      ours[i] = fds[0];
      peers[i] = fds[1];
    }
    if (tcp) close(listener);
  }
  ~Pairs() {
    for (int fd : ours) close(fd);
    for (int fd : peers) close(fd);
  }
  const bool tcp;
  std::vector<int> ours, peers;
};

void Drain(int fd) {
  char byte;
  if (read(fd, &byte, 1) != 1) Die("read");
}

// Waits for events, and drains their sockets; returns how many.
class Layer {
 public:
  virtual ~Layer() = default;
  virtual size_t Turn(size_t expected) = 0;
};

class NoLayer final : public Layer {
 public:
  NoLayer(const Pairs& pairs, const std::vector<size_t>& active)
      : pairs_(pairs), active_(active) {}
  size_t Turn(size_t) override {
    for (size_t i : active_) Drain(pairs_.ours[i]);
    return active_.size();
  }

 private:
  const Pairs& pairs_;
  const std::vector<size_t>& active_;
};

class Epoll final : public Layer {
 public:
  Epoll(const Pairs& pairs, bool edge) : epoll_(epoll_create1(0)) {
    for (int fd : pairs.ours) {
      epoll_event e = {};
      e.events = EPOLLIN | (edge ? uint32_t{EPOLLET} : 0);
      e.data.fd = fd;
      if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &e) < 0) Die("epoll_ctl");
    }
  }
  ~Epoll() override { close(epoll_); }
  size_t Turn(size_t) override {
    int n = epoll_wait(epoll_, events_, kRing, -1);
    if (n < 0) Die("epoll_wait");
    for (int i = 0; i < n; ++i) Drain(events_[i].data.fd);
    return static_cast<size_t>(n);
  }

 private:
  const int epoll_;
  epoll_event events_[kRing];
};

class Kevent final : public Layer {
 public:
  // `mapped`: reads the ring itself, and enters the kernel when it is empty.
  Kevent(const Pairs& pairs, bool edge, bool mapped) : mapped_(mapped) {
    queue_ = open("/dev/kevent", O_RDWR | O_CLOEXEC);
    if (queue_ < 0) Die("/dev/kevent");
    kevent_setup setup = {};
    setup.size = sizeof setup;
    setup.abi_version = KEVENT_ABI_VERSION;
    setup.cq_entries = kRing;
    if (ioctl(queue_, KEVENT_SETUP, &setup) < 0) Die("KEVENT_SETUP");
    bytes_ = setup.ring_bytes;
    void* map =
        mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, queue_, 0);
    if (map == MAP_FAILED) Die("mmap");
    ring_ = static_cast<kevent_ring*>(map);
    entries_ = reinterpret_cast<kevent_entry*>(static_cast<char*>(map) +
                                               ring_->cq_offset);
    std::vector<kevent_sqe> changes(pairs.ours.size());
    for (size_t i = 0; i < changes.size(); ++i) {
      changes[i].opcode = KEVENT_OP_ADD;
      changes[i].source = KEVENT_SOURCE_SOCKET;
      changes[i].flags = edge ? KEVENT_EDGE : 0;
      changes[i].fd = pairs.ours[i];
      changes[i].events = KEVENT_IN;
      changes[i].user_data = static_cast<uint64_t>(pairs.ours[i]);
    }
    for (size_t done = 0; done < changes.size();) {
      kevent_control control = {};
      control.size = sizeof control;
      control.count = static_cast<uint32_t>(
          std::min<size_t>(changes.size() - done, KEVENT_MAX_CHANGES));
      control.changes = reinterpret_cast<uintptr_t>(&changes[done]);
      if (ioctl(queue_, KEVENT_CONTROL, &control) !=
          static_cast<int>(control.count)) {
        Die("KEVENT_CONTROL");
      }
      done += control.count;
    }
    for (const kevent_sqe& change : changes) {
      if (change.result != 0) Die("KEVENT_OP_ADD");
    }
  }
  ~Kevent() override {
    munmap(ring_, bytes_);
    close(queue_);
  }

  size_t Turn(size_t) override {
    kevent_enter enter = {};
    enter.size = sizeof enter;
    enter.min = 1;
    enter.timeout_ns = -1;
    enter.min_wait_ns = -1;
    enter.clock = CLOCK_MONOTONIC;
    if (!mapped_) {
      enter.entries = reinterpret_cast<uintptr_t>(copies_);
      enter.max = kRing;
      int n = ioctl(queue_, KEVENT_ENTER, &enter);
      if (n < 0) Die("KEVENT_ENTER");
      for (int i = 0; i < n; ++i) Drain(static_cast<int>(copies_[i].user_data));
      return static_cast<size_t>(n);
    }
    uint32_t head = ring_->cq_head;
    uint32_t tail = __atomic_load_n(&ring_->cq_tail, __ATOMIC_ACQUIRE);
    if (head == tail) {
      if (ioctl(queue_, KEVENT_ENTER, &enter) < 0) Die("KEVENT_ENTER");
      tail = __atomic_load_n(&ring_->cq_tail, __ATOMIC_ACQUIRE);
    }
    size_t count = 0;
    for (; head != tail; ++count) {
      const uint64_t fd = entries_[head & (kRing - 1)].user_data;
      __atomic_store_n(&ring_->cq_head, ++head, __ATOMIC_RELEASE);
      Drain(static_cast<int>(fd));
    }
    return count;
  }

 private:
  const bool mapped_;
  int queue_;
  size_t bytes_;
  kevent_ring* ring_;
  kevent_entry* entries_;
  kevent_entry copies_[kRing];
};

void Measure(const char* name, const Pairs& pairs, size_t wanted,
             std::vector<size_t>* active, Layer* layer) {
  // What the layer before has left to be freed later is none of this one's.
  const timespec pause = {0, 500'000'000};
  nanosleep(&pause, nullptr);
  const size_t rounds = wanted / active->size();
  uint64_t random = 1;
  int64_t spent = 0;
  size_t events = 0;
  // The first rounds fill caches of the kernel's allocators.
  for (size_t round = 0; round < rounds + 5; ++round) {
    for (size_t& i : *active) {
      // Strides over the sockets: none twice in a round.
      random = random * 6364136223846793005 + 1442695040888963407;
      const size_t slot = static_cast<size_t>(&i - active->data());
      const size_t span = pairs.ours.size() / active->size();
      i = slot * span + (random >> 33) % span;
    }
    const int64_t begin = Now();
    for (size_t i : *active) {
      if (write(pairs.peers[i], "x", 1) != 1) Die("write");
    }
    size_t got = 0;
    while (got < active->size()) got += layer->Turn(active->size());
    if (round >= 5) {
      spent += Now() - begin;
      events += got;
    }
  }
  printf(
      "{\"sockets\": \"%s\", \"layer\": \"%s\", \"interests\": %zu, "
      "\"active\": %zu, "
      "\"instructions_per_event\": %.1f}\n",
      pairs.tcp ? "tcp" : "unix", name, pairs.ours.size(), active->size(),
      static_cast<double>(spent) / static_cast<double>(events));
  fflush(stdout);
}

void MeasureAll(size_t count, bool tcp, size_t wanted) {
  Pairs pairs(count, tcp);
  for (size_t at_once : {size_t{1}, size_t{64}}) {
    if (at_once > count) continue;
    std::vector<size_t> active(at_once);
    auto run = [&](const char* name, Layer&& layer) {
      Measure(name, pairs, wanted, &active, &layer);
    };
    run("none", NoLayer(pairs, active));
    run("epoll level", Epoll(pairs, false));
    run("epoll edge", Epoll(pairs, true));
    run("kevent level", Kevent(pairs, false, false));
    run("kevent edge", Kevent(pairs, true, false));
    run("kevent level, ring", Kevent(pairs, false, true));
    run("kevent edge, ring", Kevent(pairs, true, true));
  }
}

}  // namespace
}  // namespace kevent::bench

int main(int argc, char** argv) {
  rlimit limit = {1 << 18, 1 << 18};
  if (setrlimit(RLIMIT_NOFILE, &limit) < 0) kevent::bench::Die("setrlimit");
  std::vector<size_t> counts;
  bool tcp = false;
  size_t wanted = 2000;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--tcp") {
      tcp = true;
    } else if (argument.starts_with("--events=")) {
      wanted = strtoul(argv[i] + 9, nullptr, 10);
    } else {
      counts.push_back(strtoul(argv[i], nullptr, 10));
    }
  }
  if (counts.empty()) counts = {1, 64, 1000, 100'000};
  for (size_t count : counts) kevent::bench::MeasureAll(count, tcp, wanted);
}
