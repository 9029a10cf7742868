// SPDX-License-Identifier: Apache-2.0
#include "kevent/vm/tests/pollables.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <termios.h>

#include <utility>

namespace kevent::raw {
namespace {

// ---- Sockets ----

// Those of loopback are larger than the buffers here: the window would open
// only by its timer.
constexpr int kSegment = 1400;

class SocketRecv : public Pollable {
 public:
  explicit SocketRecv(Pair pair) : pair_(std::move(pair)) {}
  int fd() const override { return pair_.ours.get(); }
  void MakeReady() override {
    Send(pair_.peer.get(), "x");
    EXPECT_TRUE(WaitPoll(fd(), POLLIN));
  }
  void MakeIdle() override {
    // Datagrams too: each read takes one.
    Drain(fd());
    EXPECT_EQ(0, PollNow(fd(), POLLIN));
  }
  bool is_socket() const override { return true; }

 private:
  Pair pair_;
};

class SocketSend : public Pollable {
 public:
  explicit SocketSend(Pair pair) : pair_(std::move(pair)) {
    // Much more waits here than is on its way: acknowledgements that come late
    // do not make it ready again.
    int size = 200 << 10;
    setsockopt(fd(), SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    size = 16 << 10;
    setsockopt(pair_.peer.get(), SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    MakeIdle();
  }
  int fd() const override { return pair_.ours.get(); }
  uint32_t events() const override { return KEVENT_OUT; }
  void MakeReady() override {
    ReadExactly(pair_.peer.get(), sent_);
    sent_ = 0;
    EXPECT_TRUE(WaitPoll(fd(), POLLOUT));
  }
  void MakeIdle() override {
    const int64_t deadline = NowNs() + PatienceNs();
    do {
      sent_ += Fill(fd());
      ASSERT_LT(NowNs(), deadline);
    } while (PollNow(fd(), POLLOUT));
  }
  bool repeats() const override { return false; }
  bool is_socket() const override { return true; }

 private:
  Pair pair_;
  size_t sent_ = 0;
};

class Listener : public Pollable {
 public:
  explicit Listener(int family) : listener_(Listen(family)) {
    SetNonBlocking(fd());
  }
  int fd() const override { return listener_.get(); }
  void MakeReady() override {
    clients_.push_back(ConnectTo(listener_));
    EXPECT_TRUE(WaitPoll(fd(), POLLIN));
  }
  void MakeIdle() override {
    // Each that connected will appear; the last perhaps a moment later.
    while (!clients_.empty()) {
      ASSERT_TRUE(WaitPoll(fd(), POLLIN));
      Fd accepted(accept4(fd(), nullptr, nullptr, SOCK_CLOEXEC));
      ASSERT_TRUE(accepted) << strerror(errno);
      clients_.pop_back();
    }
  }
  bool is_socket() const override { return true; }

 private:
  Fd listener_;
  std::vector<Fd> clients_;
};

class Udp : public Pollable {
 public:
  explicit Udp(int family)
      : ours_(socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0)),
        peer_(socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_storage storage = {};
    storage.ss_family = static_cast<sa_family_t>(family);
    socklen_t length = sizeof(sockaddr_in);
    if (family == AF_INET6) {
      reinterpret_cast<sockaddr_in6*>(&storage)->sin6_addr = in6addr_loopback;
      length = sizeof(sockaddr_in6);
    } else {
      reinterpret_cast<sockaddr_in*>(&storage)->sin_addr.s_addr =
          htonl(INADDR_LOOPBACK);
    }
    auto* address = reinterpret_cast<sockaddr*>(&storage);
    EXPECT_EQ(0, bind(fd(), address, length)) << strerror(errno);
    EXPECT_EQ(0, getsockname(fd(), address, &length));
    EXPECT_EQ(0, connect(peer_.get(), address, length)) << strerror(errno);
  }
  int fd() const override { return ours_.get(); }
  void MakeReady() override {
    Send(peer_.get(), "x");
    EXPECT_TRUE(WaitPoll(fd(), POLLIN));
  }
  void MakeIdle() override { Drain(fd()); }
  bool is_socket() const override { return true; }

 private:
  Fd ours_, peer_;
};

// ---- Pipes ----

class PipeRead : public Pollable {
 public:
  explicit PipeRead(Pair pair) : pair_(std::move(pair)) {}
  int fd() const override { return pair_.ours.get(); }
  void MakeReady() override { Send(pair_.peer.get(), "x"); }
  void MakeIdle() override { Drain(fd()); }

 private:
  Pair pair_;
};

class PipeWrite : public Pollable {
 public:
  PipeWrite() : pair_(PipePair()) { MakeIdle(); }
  int fd() const override { return pair_.peer.get(); }
  uint32_t events() const override { return KEVENT_OUT; }
  void MakeReady() override { Drain(pair_.ours.get()); }
  void MakeIdle() override { Fill(fd()); }
  bool repeats() const override { return false; }

 private:
  Pair pair_;
};

Pair Fifo() {
  std::string folder = TempFolder() + "/fifo_XXXXXX";
  EXPECT_NE(nullptr, mkdtemp(folder.data()));
  const std::string name = folder + "/fifo";
  EXPECT_EQ(0, mkfifo(name.c_str(), 0600));
  Pair pair;
  pair.ours = Fd(open(name.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  pair.peer = Fd(open(name.c_str(), O_WRONLY | O_CLOEXEC));
  EXPECT_TRUE(pair.peer) << strerror(errno);
  unlink(name.c_str());
  rmdir(folder.c_str());
  return pair;
}

// ---- Others ----

class EventFd : public Pollable {
 public:
  EventFd() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  int fd() const override { return fd_.get(); }
  void MakeReady() override { EXPECT_EQ(0, eventfd_write(fd(), 1)); }
  void MakeIdle() override {
    eventfd_t value;
    eventfd_read(fd(), &value);
  }

 private:
  Fd fd_;
};

class TimerFd : public Pollable {
 public:
  TimerFd()
      : fd_(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) {}
  int fd() const override { return fd_.get(); }
  void MakeReady() override {
    itimerspec spec = {};
    spec.it_value.tv_nsec = 1;
    EXPECT_EQ(0, timerfd_settime(fd(), 0, &spec, nullptr));
    EXPECT_TRUE(WaitPoll(fd(), POLLIN));
  }
  void MakeIdle() override {
    uint64_t expirations;
    EXPECT_EQ(8, read(fd(), &expirations, 8));
  }
  // Setting it again makes it idle first.
  bool repeats() const override { return false; }

 private:
  Fd fd_;
};

// Either end of a pseudo terminal.
class Pty : public Pollable {
 public:
  bool prompt() const override { return false; }
  explicit Pty(bool watch_master)
      : master_(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)) {
    EXPECT_TRUE(master_) << strerror(errno);
    EXPECT_EQ(0, grantpt(master_.get()));
    EXPECT_EQ(0, unlockpt(master_.get()));
    slave_ = Fd(static_cast<int>(
        ioctl(master_.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC)));
    EXPECT_TRUE(slave_) << strerror(errno);
    termios raw;
    EXPECT_EQ(0, tcgetattr(slave_.get(), &raw));
    cfmakeraw(&raw);
    EXPECT_EQ(0, tcsetattr(slave_.get(), TCSANOW, &raw));
    ours_ = watch_master ? &master_ : &slave_;
    peer_ = watch_master ? &slave_ : &master_;
    SetNonBlocking(fd());
  }
  int fd() const override { return ours_->get(); }
  void MakeReady() override {
    Send(peer_->get(), "x");
    // A kernel worker carries it over.
    EXPECT_TRUE(WaitPoll(fd(), POLLIN));
  }
  void MakeIdle() override { Drain(fd()); }

 private:
  Fd master_, slave_;
  Fd* ours_;
  Fd* peer_;
};

class SignalFd : public Pollable {
 public:
  bool prompt() const override { return false; }
  bool needs_call() const override { return true; }
  SignalFd() {
    sigemptyset(&mask_);
    sigaddset(&mask_, SIGRTMIN + 5);
    pthread_sigmask(SIG_BLOCK, &mask_, &before_);
    fd_ = Fd(signalfd(-1, &mask_, SFD_CLOEXEC | SFD_NONBLOCK));
  }
  ~SignalFd() override {
    Drain(fd());
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  int fd() const override { return fd_.get(); }
  void MakeReady() override { EXPECT_EQ(0, kill(getpid(), SIGRTMIN + 5)); }
  void MakeIdle() override { Drain(fd()); }

 private:
  sigset_t mask_, before_;
  Fd fd_;
};

class Inotify : public Pollable {
 public:
  bool prompt() const override { return false; }
  Inotify()
      : fd_(inotify_init1(IN_CLOEXEC | IN_NONBLOCK)),
        folder_(TempFolder() + "/inotify_XXXXXX") {
    EXPECT_NE(nullptr, mkdtemp(folder_.data()));
    EXPECT_GE(inotify_add_watch(fd(), folder_.c_str(), IN_CREATE), 0);
  }
  ~Inotify() override {
    for (int i = 0; i < files_; ++i) unlink(Path(i).c_str());
    rmdir(folder_.c_str());
  }
  int fd() const override { return fd_.get(); }
  void MakeReady() override {
    Fd file(open(Path(files_++).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    EXPECT_TRUE(file) << strerror(errno);
  }
  void MakeIdle() override { Drain(fd()); }

 private:
  std::string Path(int i) const { return folder_ + "/" + std::to_string(i); }

  Fd fd_;
  std::string folder_;
  int files_ = 0;
};

struct Kind {
  const char* name;
  bool socket;
  std::unique_ptr<Pollable> (*make)();
};

template <typename T, auto... kArgs>
std::unique_ptr<Pollable> New() {
  return std::make_unique<T>(kArgs...);
}

const Kind kKinds[] = {
    {"tcp4", true,
     [] { return std::unique_ptr<Pollable>(new SocketRecv(TcpPair())); }},
    {"tcp6", true,
     [] {
       return std::unique_ptr<Pollable>(new SocketRecv(TcpPair(AF_INET6)));
     }},
    {"tcp4_send", true,
     [] {
       return std::unique_ptr<Pollable>(
           new SocketSend(TcpPair(AF_INET, kSegment)));
     }},
    {"tcp6_send", true,
     [] {
       return std::unique_ptr<Pollable>(
           new SocketSend(TcpPair(AF_INET6, kSegment)));
     }},
    {"listener4", true, New<Listener, AF_INET>},
    {"listener6", true, New<Listener, AF_INET6>},
    {"udp4", true, New<Udp, AF_INET>},
    {"udp6", true, New<Udp, AF_INET6>},
    {"unix_stream", true,
     [] {
       return std::unique_ptr<Pollable>(
           new SocketRecv(SocketPair(SOCK_STREAM)));
     }},
    {"unix_dgram", true,
     [] {
       return std::unique_ptr<Pollable>(new SocketRecv(SocketPair(SOCK_DGRAM)));
     }},
    {"unix_seqpacket", true,
     [] {
       return std::unique_ptr<Pollable>(
           new SocketRecv(SocketPair(SOCK_SEQPACKET)));
     }},
    {"unix_send", true,
     [] {
       return std::unique_ptr<Pollable>(
           new SocketSend(SocketPair(SOCK_STREAM)));
     }},
    {"pipe_read", false,
     [] { return std::unique_ptr<Pollable>(new PipeRead(PipePair())); }},
    {"pipe_write", false, New<PipeWrite>},
    {"fifo", false,
     [] { return std::unique_ptr<Pollable>(new PipeRead(Fifo())); }},
    {"eventfd", false, New<EventFd>},
    {"timerfd", false, New<TimerFd>},
    {"pty_master", false, New<Pty, true>},
    {"pty_slave", false, New<Pty, false>},
    {"signalfd", false, New<SignalFd>},
    {"inotify", false, New<Inotify>},
};

const Kind* Find(const std::string& name) {
  for (const Kind& kind : kKinds) {
    if (name == kind.name) return &kind;
  }
  return nullptr;
}

}  // namespace

std::vector<std::string> PollableNames() {
  std::vector<std::string> names;
  for (const Kind& kind : kKinds) names.emplace_back(kind.name);
  return names;
}

bool IsSocket(const std::string& name) {
  const Kind* kind = Find(name);
  return kind && kind->socket;
}

std::unique_ptr<Pollable> MakePollable(const std::string& name) {
  const Kind* kind = Find(name);
  return kind ? kind->make() : nullptr;
}

}  // namespace kevent::raw
