// SPDX-License-Identifier: Apache-2.0
//
// The bare floor: what a server of one file is when it only moves bytes.
// Edge-triggered epoll; recv; one send of head and body up to 16 KiB, above it
// send(MSG_MORE) and sendfile; with --pages head and body by vmsplice and
// splice instead, in memory of huge pages; with --ring all by io_uring, and
// head and body by one send. It neither parses requests nor opens files:
// whatever comes is a request, and has the same answer. Prints one line with
// its port when it listens.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "benchmarks/load/floor_ring.h"

ABSL_FLAG(std::string, head, "", "file with the head of the answer, verbatim");
ABSL_FLAG(std::string, body, "", "file with its body");
ABSL_FLAG(bool, close, false, "close the connection after an answer");
ABSL_FLAG(bool, pages, false, "send memory without copying it");
ABSL_FLAG(bool, ring, false, "by io_uring; not with --pages");
ABSL_FLAG(int, workers, 1, "processes, each with a listener of its own");

namespace {

constexpr size_t kOneSend = 16 * 1024;
constexpr int kBatch = 256;
constexpr uint32_t kEnd = EPOLLRDHUP | EPOLLERR | EPOLLHUP;
constexpr int kDeferSeconds = 60;
constexpr size_t kHugePage = size_t{2} << 20;
constexpr int kPipeBytes = 1 << 20;

[[noreturn]] void Die(const std::string& what) {
  fprintf(stderr, "floor: %s: %s\n", what.c_str(), strerror(errno));
  exit(1);
}

std::string ReadWhole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) Die(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Port 0 takes a free one.
int Listen(uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  // As in nginx's configurations: accepted when the request is there.
  setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &kDeferSeconds,
             sizeof kDeferSeconds);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0 ||
      listen(fd, 4096) < 0) {
    Die("listen");
  }
  return fd;
}

uint16_t Port(int listener) {
  sockaddr_in address = {};
  socklen_t size = sizeof address;
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

// Hands memory that does not change to sockets, not copying it.
class Pages {
 public:
  explicit Pages(const std::string& bytes) {
    void* room =
        mmap(nullptr, bytes.size() + 2 * kHugePage, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED) Die("mmap");
    const auto at = reinterpret_cast<uintptr_t>(room) + kHugePage - 1;
    begin_ = reinterpret_cast<char*>(at / kHugePage * kHugePage);
    madvise(begin_, bytes.size() + kHugePage, MADV_HUGEPAGE);
    memcpy(begin_, bytes.data(), bytes.size());
    Open();
  }

  // As send(2): how many of these bytes went out, or -1.
  ssize_t Send(int fd, size_t offset, size_t size) {
    iovec piece = {begin_ + offset, size};
    const ssize_t in = vmsplice(pipe_[1], &piece, 1, SPLICE_F_NONBLOCK);
    if (in < 0) Die("vmsplice");
    const auto filled = static_cast<size_t>(in);
    const unsigned more = filled < size ? SPLICE_F_MORE : 0;
    const ssize_t out = splice(pipe_[0], nullptr, fd, nullptr, filled,
                               SPLICE_F_NONBLOCK | more);
    if (out < in) {
      // What the socket did not take goes with the pipe.
      const int error = errno;
      close(pipe_[0]);
      close(pipe_[1]);
      Open();
      errno = error;
    }
    return out;
  }

 private:
  void Open() {
    if (pipe2(pipe_, O_NONBLOCK) < 0) Die("pipe2");
    fcntl(pipe_[1], F_SETPIPE_SZ, kPipeBytes);
  }

  char* begin_ = nullptr;
  int pipe_[2] = {-1, -1};
};

// One process, one thread.
class Floor {
 public:
  Floor(int listener, const std::string& head, const std::string& body_path,
        bool close_after, bool by_pages)
      : listener_(listener),
        epoll_(epoll_create1(0)),
        file_(open(body_path.c_str(), O_RDONLY)),
        close_after_(close_after),
        memory_(head) {
    struct stat s;
    if (file_ < 0 || fstat(file_, &s) < 0) Die(body_path);
    const auto body = static_cast<size_t>(s.st_size);
    total_ = head.size() + body;
    if (by_pages) {
      pages_ = std::make_unique<Pages>(head + ReadWhole(body_path));
    } else if (body <= kOneSend) {
      memory_ += ReadWhole(body_path);
    }
    Add(listener_, EPOLLIN);
  }

  [[noreturn]] void Run() {
    epoll_event events[kBatch];
    for (;;) {
      const int n = epoll_wait(epoll_, events, kBatch, -1);
      for (int i = 0; i < n; ++i) {
        const int fd = events[i].data.fd;
        if (fd == listener_) {
          Accept();
        } else if (Serve(fd, events[i].events & kEnd) == After::kClose) {
          close(fd);
        }
      }
    }
  }

 private:
  enum class After : uint8_t { kWait, kClose };

  void Add(int fd, uint32_t events) const {
    epoll_event e = {};
    e.events = events;
    e.data.fd = fd;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &e) < 0) Die("epoll_ctl");
  }

  void Accept() {
    // To ask is cheaper than an accept that finds none.
    pollfd more = {listener_, POLLIN, 0};
    do {
      const int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK);
      if (fd < 0) return;
      const auto index = static_cast<size_t>(fd);
      if (index >= left_.size()) left_.resize(2 * index + 1);
      left_[index] = 0;
      const int on = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      // A connection of one request that is answered at once is never watched.
      if (Serve(fd, false) == After::kClose) {
        close(fd);
      } else {
        Add(fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
      }
    } while (poll(&more, 1, 0) > 0);
  }

  // Goes on with the answer that is under way, or takes a request.
  After Serve(int fd, bool ended) {
    size_t& left = left_[static_cast<size_t>(fd)];
    if (left == 0) {
      char request[4096];
      const ssize_t n = recv(fd, request, sizeof request, 0);
      if (n < 0 && errno == EAGAIN && !ended) return After::kWait;
      if (n <= 0) return After::kClose;
      left = total_;
    }
    while (left > 0) {
      const size_t sent = total_ - left;
      ssize_t n;
      if (pages_) {
        n = pages_->Send(fd, sent, left);
      } else if (sent < memory_.size()) {
        // So the end of the stream leaves with the last of it.
        const bool more = close_after_ || memory_.size() < total_;
        n = send(fd, memory_.data() + sent, memory_.size() - sent,
                 MSG_NOSIGNAL | (more ? MSG_MORE : 0));
      } else {
        auto offset = static_cast<off_t>(sent - memory_.size());
        n = sendfile(fd, file_, &offset, left);
      }
      if (n < 0 && errno == EAGAIN) return After::kWait;
      if (n <= 0) return After::kClose;
      left -= static_cast<size_t>(n);
    }
    // An end that came with the request makes no edge of its own.
    return close_after_ || ended ? After::kClose : After::kWait;
  }

  const int listener_;
  const int epoll_;
  const int file_;
  const bool close_after_;
  std::unique_ptr<Pages> pages_;  // head and body, if they are not copied
  std::string memory_;            // the head, and a small body
  size_t total_ = 0;              // bytes of an answer
  std::vector<size_t> left_;      // bytes of it to send, by descriptor
};

}  // namespace

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("A server of one file that only moves bytes.");
  if (absl::ParseCommandLine(argc, argv).size() > 1) {
    fprintf(stderr, "floor: unexpected argument\n");
    return 2;
  }
  if (absl::GetFlag(FLAGS_ring) && absl::GetFlag(FLAGS_pages)) {
    fprintf(stderr, "floor: --ring copies: not with --pages\n");
    return 2;
  }
  // sendfile(2) has no MSG_NOSIGNAL.
  signal(SIGPIPE, SIG_IGN);
  const std::string head = ReadWhole(absl::GetFlag(FLAGS_head));
  std::vector<int> listeners = {Listen(0)};
  const uint16_t port = Port(listeners[0]);
  const int workers = absl::GetFlag(FLAGS_workers);
  for (int i = 1; i < workers; ++i) listeners.push_back(Listen(port));
  int mine = listeners[0];
  const pid_t parent = getpid();
  for (int i = 1; i < workers && getpid() == parent; ++i) {
    if (fork() == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) return 1;
      mine = listeners[static_cast<size_t>(i)];
    }
  }
  // A listener that nobody serves must not get connections.
  for (int listener : listeners) {
    if (listener != mine) close(listener);
  }
  std::optional<kevent::bench::RingFloor> ring;
  if (absl::GetFlag(FLAGS_ring)) {
    ring.emplace(mine, head + ReadWhole(absl::GetFlag(FLAGS_body)),
                 absl::GetFlag(FLAGS_close));
  }
  if (getpid() == parent) {
    printf("listening on http://127.0.0.1:%d\n", port);
    fflush(stdout);
  }
  if (ring) ring->Run();
  Floor(mine, head, absl::GetFlag(FLAGS_body), absl::GetFlag(FLAGS_close),
        absl::GetFlag(FLAGS_pages))
      .Run();
}
