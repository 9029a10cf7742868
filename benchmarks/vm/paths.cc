// SPDX-License-Identifier: Apache-2.0
//
// What aio_sendfile_path was measured by in 2006: files of a folder, all in the
// page cache, sent one behind the other on one TCP connection; the sender opens
// each by its name. Prints nanoseconds for each file (in the guest with
// deterministic counts: instructions, of the whole machine).
//
//   paths epoll|kevent FOLDER FILES ROUNDS
//
// The folder has files 0, 1, ... FILES-1 of one size. "epoll" opens, calls
// sendfile(2), waits for room by epoll, and closes. "kevent" submits
// KEVENT_OP_SENDFILE_PATH to kevent.ko, some ahead. A child receives and
// discards.
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "benchmarks/vm/common.h"
#include "kevent/uapi/kevent.h"

namespace kevent::bench {
namespace {

constexpr uint16_t kPort = 8082;

// Discards what comes, and sends a byte back for each `unit` of it.
[[noreturn]] void Receive(int fd, size_t unit) {
  static char buffer[1 << 20];
  size_t got = 0;
  for (;;) {
    // MSG_TRUNC: not even copied (tcp(7)).
    const ssize_t n = recv(fd, buffer, sizeof buffer, MSG_TRUNC);
    if (n <= 0) _exit(n < 0);
    got += static_cast<size_t>(n);
    if (got >= unit) {
      got -= unit;
      if (send(fd, "x", 1, MSG_NOSIGNAL) != 1) _exit(1);
    }
  }
}

class Sender {
 public:
  virtual ~Sender() = default;
  // Sends all files, each once.
  virtual void Send(const std::vector<std::string>& names) = 0;
};

class ByEpoll final : public Sender {
 public:
  ByEpoll(int folder, int fd)
      : folder_(folder), fd_(fd), epoll_(epoll_create1(0)) {
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0) Die("O_NONBLOCK");
    epoll_event e = {};
    e.events = EPOLLOUT | EPOLLET;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &e) < 0) Die("epoll_ctl");
  }

  void Send(const std::vector<std::string>& names) override {
    for (const std::string& name : names) {
      const int file = openat(folder_, name.c_str(), O_RDONLY | O_CLOEXEC);
      struct stat st;
      if (file < 0 || fstat(file, &st) < 0) Die("open");
      off_t offset = 0;
      while (offset < st.st_size) {
        const ssize_t n = sendfile(fd_, file, &offset,
                                   static_cast<size_t>(st.st_size - offset));
        if (n > 0) continue;
        if (n == 0 || errno != EAGAIN) Die("sendfile");
        epoll_event e;
        epoll_wait(epoll_, &e, 1, -1);
      }
      close(file);
    }
  }

 private:
  const int folder_, fd_, epoll_;
};

class ByKevent final : public Sender {
 public:
  ByKevent(int folder, int fd) : folder_(folder), fd_(fd) {
    queue_ = open("/dev/kevent", O_RDWR | O_CLOEXEC);
    if (queue_ < 0) Die("/dev/kevent");
    kevent_setup setup = {};
    setup.size = sizeof setup;
    setup.abi_version = KEVENT_ABI_VERSION;
    setup.cq_entries = setup.sq_entries = kAhead;
    if (ioctl(queue_, KEVENT_SETUP, &setup) < 0) Die("KEVENT_SETUP");
    void* map = mmap(nullptr, setup.ring_bytes, PROT_READ | PROT_WRITE,
                     MAP_SHARED, queue_, 0);
    if (map == MAP_FAILED) Die("mmap");
    ring_ = static_cast<kevent_ring*>(map);
    char* bytes = static_cast<char*>(map);
    sqes_ = reinterpret_cast<kevent_sqe*>(bytes + ring_->sq_offset);
    entries_ = reinterpret_cast<kevent_entry*>(bytes + ring_->cq_offset);
  }

  void Send(const std::vector<std::string>& names) override {
    size_t submitted = 0, completed = 0;
    while (completed < names.size()) {
      uint32_t tail = ring_->sq_tail, added = 0;
      while (submitted < names.size() && submitted - completed < kAhead) {
        Fill(&sqes_[tail & (kAhead - 1)], names[submitted],
             &paths_[submitted % kAhead]);
        ++tail, ++added, ++submitted;
      }
      __atomic_store_n(&ring_->sq_tail, tail, __ATOMIC_RELEASE);
      kevent_enter enter = {};
      enter.size = sizeof enter;
      enter.to_submit = added;
      // Half of what is under way: it goes on with the rest meanwhile.
      enter.min = static_cast<uint32_t>((submitted - completed + 1) / 2);
      enter.timeout_ns = enter.min_wait_ns = -1;
      enter.clock = CLOCK_MONOTONIC;
      if (ioctl(queue_, KEVENT_ENTER, &enter) < 0) Die("KEVENT_ENTER");
      completed += Take();
    }
  }

 private:
  static constexpr uint32_t kAhead = 16;

  void Fill(kevent_sqe* sqe, const std::string& name, kevent_path* path) const {
    *path = {};
    path->path = reinterpret_cast<uintptr_t>(name.c_str());
    path->directory = folder_;
    *sqe = {};
    sqe->opcode = KEVENT_OP_SENDFILE_PATH;
    sqe->fd = fd_;
    sqe->arg[1] = ~uint64_t{0};
    sqe->arg[3] = reinterpret_cast<uintptr_t>(path);
  }

  size_t Take() {
    const uint32_t tail = __atomic_load_n(&ring_->cq_tail, __ATOMIC_ACQUIRE);
    uint32_t head = ring_->cq_head;
    size_t count = 0;
    for (; head != tail; ++head, ++count) {
      const kevent_entry& entry = entries_[head & (kAhead - 1)];
      // All of it, or it was no measurement.
      if (entry.result < 0 ||
          static_cast<uint64_t>(entry.result) != entry.data[1]) {
        errno = static_cast<int>(-entry.result);
        Die("KEVENT_OP_SENDFILE_PATH");
      }
    }
    __atomic_store_n(&ring_->cq_head, head, __ATOMIC_RELEASE);
    return count;
  }

  const int folder_, fd_;
  int queue_;
  kevent_ring* ring_;
  kevent_sqe* sqes_;
  kevent_entry* entries_;
  kevent_path paths_[kAhead];
};

double Measure(Sender* sender, int fd, const std::vector<std::string>& names,
               int rounds) {
  int64_t begin = 0;
  // The first reads the files.
  for (int round = 0; round <= rounds; ++round) {
    if (round == 1) begin = Now();
    sender->Send(names);
    // Until all has arrived.
    char byte;
    while (recv(fd, &byte, 1, 0) != 1) {
      if (errno != EAGAIN) Die("recv");
      pollfd p = {.fd = fd, .events = POLLIN, .revents = 0};
      poll(&p, 1, -1);
    }
  }
  return static_cast<double>(Now() - begin) / rounds /
         static_cast<double>(names.size());
}

}  // namespace
}  // namespace kevent::bench

int main(int argc, char** argv) {
  using namespace kevent::bench;  // NOLINT(google-build-using-namespace)
  if (argc != 5) {
    fprintf(stderr, "usage: paths epoll|kevent FOLDER FILES ROUNDS\n");
    return 2;
  }
  std::vector<std::string> names(strtoul(argv[3], nullptr, 10));
  for (size_t i = 0; i < names.size(); ++i) names[i] = std::to_string(i);
  const int folder = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  struct stat st;
  if (folder < 0 || fstatat(folder, "0", &st, 0) < 0) Die(argv[2]);
  const int listener = Listen(kPort, 0);
  const pid_t child = fork();
  if (child < 0) Die("fork");
  if (child == 0) {
    Receive(Connect(kPort), static_cast<size_t>(st.st_size) * names.size());
  }
  const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  if (fd < 0) Die("accept4");
  if (std::string_view(argv[1]) == "kevent") {
    ByKevent sender(folder, fd);
    printf("%.0f\n", Measure(&sender, fd, names, atoi(argv[4])));
  } else {
    ByEpoll sender(folder, fd);
    printf("%.0f\n", Measure(&sender, fd, names, atoi(argv[4])));
  }
  shutdown(fd, SHUT_RDWR);
  int status;
  if (waitpid(child, &status, 0) != child || status != 0) Die("the receiver");
}
