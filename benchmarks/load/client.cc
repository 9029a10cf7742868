// SPDX-License-Identifier: Apache-2.0
#include "benchmarks/load/client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <utility>

namespace kevent::load {
namespace {

// The first read of an answer: all of a small one with its head. What lies
// beyond is discarded without copying.
constexpr size_t kFirstRead = 4096;
constexpr size_t kMaxHead = 16 * 1024;
constexpr uint64_t kMaxErrors = 1000;
constexpr int kBatch = 256;
constexpr int64_t kConnectNs = 10'000'000'000;

int64_t Now() {
  timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * int64_t{1'000'000'000} + ts.tv_nsec;
}

}  // namespace

bool ParseAnswerHead(std::string_view text, AnswerHead* head) {
  constexpr std::string_view kVersion = "HTTP/1.1 ";
  constexpr std::string_view kLength = "content-length:";
  constexpr std::string_view kClose = "connection: close";
  if (text.substr(0, kVersion.size()) != kVersion) return false;
  text.remove_prefix(kVersion.size());
  auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), head->status);
  if (error != std::errc() || end - text.data() != 3) return false;
  head->length = -1;
  head->close = false;
  for (size_t at; (at = text.find("\r\n")) != text.npos;) {
    text.remove_prefix(at + 2);
    if (text.size() >= kClose.size() &&
        strncasecmp(text.data(), kClose.data(), kClose.size()) == 0) {
      head->close = true;
    }
    if (text.size() <= kLength.size() ||
        strncasecmp(text.data(), kLength.data(), kLength.size()) != 0) {
      continue;
    }
    std::string_view value = text.substr(kLength.size());
    while (!value.empty() && value.front() == ' ') value.remove_prefix(1);
    if (std::from_chars(value.data(), value.data() + value.size(), head->length)
            .ec != std::errc()) {
      return false;
    }
  }
  return true;
}

Client::Client(const Options& options, std::function<void()> at_window)
    : options_(options),
      at_window_(std::move(at_window)),
      connections_(static_cast<size_t>(options.connections)),
      buffer_(new char[kMaxHead]) {
  char address[INET_ADDRSTRLEN];
  inet_ntop(AF_INET, &options.address.sin_addr, address, sizeof address);
  std::string rest = std::string(" HTTP/1.1\r\nHost: ") + address + ":" +
                     std::to_string(ntohs(options.address.sin_port)) +
                     "\r\nUser-Agent: kevent-load\r\nAccept: */*\r\n" +
                     (options.close ? "Connection: close\r\n\r\n" : "\r\n");
  for (const Target& target : options.targets) {
    std::string& request = requests_.emplace_back();
    for (int i = 0; i < options.pipeline; ++i) {
      request += "GET " + target.path + rest;
    }
  }
  if (options.rate > 0) interval_ns_ = 1e9 / options.rate;
}

Client::~Client() {
  for (Connection& c : connections_) {
    if (c.fd >= 0) close(c.fd);
  }
  if (epoll_ >= 0) close(epoll_);
}

absl::Status Client::Run() {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_ < 0) return absl::ErrnoToStatus(errno, "epoll_create1");
  if (absl::Status s = ConnectAll(); !s.ok()) return s;

  now_ = Now();
  const bool open_loop = options_.rate > 0;
  int64_t window_begin = now_ + options_.warmup_ns;
  first_due_ = now_;
  phase_ = Phase::kWarmup;
  if (!open_loop) {
    for (Connection* c : std::exchange(free_, {})) Begin(c, now_);
  }
  while (status_.ok()) {
    now_ = Now();
    if (open_loop) SendDue(now_);
    int64_t until = 0;
    switch (phase_) {
      case Phase::kWarmup:
        until = window_begin;
        if (now_ < until) break;
        at_window_();
        now_ = Now();  // that took a while
        window_begin_ = now_;
        window_end_ = now_ + options_.window_ns;
        phase_ = Phase::kWindow;
        [[fallthrough]];
      case Phase::kWindow:
        until = window_end_;
        if (now_ < until) break;
        at_window_();
        result_.seconds = static_cast<double>(now_ - window_begin_) / 1e9;
        phase_ = Phase::kGrace;
        if (!open_loop) return status_;
        [[fallthrough]];
      default:
        until = window_end_ + options_.grace_ns;
        if (now_ < until && !AllAnswered()) break;
        GiveUp();
        return status_;
    }
    if (options_.rest && open_loop) {
      if (phase_ != Phase::kGrace) until = std::min(until, NextDue());
    } else if (open_loop || options_.spin) {
      until = now_;
    }
    Wait(until);
  }
  return status_;
}

absl::Status Client::ConnectAll() {
  const int64_t until = Now() + kConnectNs;
  for (Connection& c : connections_) {
    if (options_.close) {
      free_.push_back(&c);
    } else if (status_.ok()) {
      Open(&c);
    }
  }
  while (status_.ok() && free_.size() < connections_.size()) {
    now_ = Now();
    if (now_ >= until) {
      return absl::DeadlineExceededError("connections are not accepted");
    }
    Wait(until);
  }
  return status_;
}

// Handles what happens until then at the latest, or without waiting if that is
// now or past.
void Client::Wait(int64_t until) {
  epoll_event events[kBatch];
  const int64_t left = std::max<int64_t>(until - now_, 0);
  const timespec timeout = {left / 1'000'000'000, left % 1'000'000'000};
  int n = epoll_pwait2(epoll_, events, kBatch, &timeout, nullptr);
  if (n < 0 && errno != EINTR) {
    status_ = absl::ErrnoToStatus(errno, "epoll_wait");
  }
  for (int i = 0; i < n && status_.ok(); ++i) {
    OnEvents(static_cast<Connection*>(events[i].data.ptr), events[i].events);
  }
}

bool Client::AllAnswered() const {
  return waiting_.empty() &&
         std::none_of(connections_.begin(), connections_.end(), Asked);
}

// A request is under way on it.
bool Client::Asked(const Connection& c) {
  return c.state == State::kHead || c.state == State::kBody ||
         (c.state == State::kConnecting && c.due_ns != 0);
}

// Open loop: what has no answer after the grace time.
void Client::GiveUp() {
  auto give_up = [this](int64_t due_ns) {
    if (!InWindow(due_ns)) return;
    ++result_.unanswered;
    result_.latency.Add(now_ - due_ns);
  };
  for (const Connection& c : connections_) {
    if (Asked(c)) give_up(c.due_ns);
  }
  for (int64_t due : waiting_) give_up(due);
}

int64_t Client::NextDue() const {
  return first_due_ +
         static_cast<int64_t>(static_cast<double>(sent_) * interval_ns_);
}

void Client::SendDue(int64_t now) {
  while (phase_ != Phase::kGrace) {
    const int64_t due = NextDue();
    if (due > now) return;
    ++sent_;
    if (free_.empty()) {
      waiting_.push_back(due);
      result_.most_waiting =
          std::max<uint64_t>(result_.most_waiting, waiting_.size());
      continue;
    }
    Connection* c = free_.front();
    free_.pop_front();
    Begin(c, due);
  }
}

// Starts a request that was due at `due_ns`.
void Client::Begin(Connection* c, int64_t due_ns) {
  c->due_ns = due_ns;
  if (c->state == State::kFree) {
    SendRequest(c);
  } else {
    Open(c);
  }
}

// A connection with `due_ns` sends its request once it is there.
void Client::Open(Connection* c) {
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (c->fd < 0) {
    status_ = absl::ErrnoToStatus(errno, "socket");
    return;
  }
  int one = 1;
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  c->state = State::kConnecting;
  if (connect(c->fd, reinterpret_cast<const sockaddr*>(&options_.address),
              sizeof options_.address) < 0 &&
      errno != EINPROGRESS) {
    status_ = absl::ErrnoToStatus(errno, "connect");
    return;
  }
  epoll_event e = {};
  e.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  e.data.ptr = c;
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, c->fd, &e) < 0) {
    status_ = absl::ErrnoToStatus(errno, "epoll_ctl");
  }
}

void Client::Shut(Connection* c) {
  close(c->fd);
  c->fd = -1;
  c->state = State::kClosed;
  c->partial.clear();
}

void Client::Fail(Connection* c, uint64_t* kind) {
  ++*kind;
  if (result_.errors.total() > kMaxErrors) {
    status_ = absl::UnavailableError("the server goes on failing");
  }
  Shut(c);
  if (status_.ok()) Next(c);
}

void Client::Connected(Connection* c) {
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) {
    Fail(c, &result_.errors.connect);
    return;
  }
  c->state = State::kFree;
  if (c->due_ns != 0) {
    SendRequest(c);
  } else {
    Next(c);
  }
}

uint32_t Client::NextTarget() {
  const auto& sequence = options_.sequence;
  const size_t now = next_;
  const size_t count = sequence.empty() ? requests_.size() : sequence.size();
  if (++next_ == count) next_ = 0;
  return sequence.empty() ? static_cast<uint32_t>(now) : sequence[now];
}

void Client::SendRequest(Connection* c) {
  c->target = NextTarget();
  c->pending = options_.pipeline;
  if (!options_.evict_root.empty()) Evict(options_.targets[c->target]);
  const std::string& request = requests_[c->target];
  c->state = State::kHead;
  ssize_t n =
      send(c->fd, request.data(), request.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  // The socket's buffer is empty: less than all of it is a broken connection.
  if (n != static_cast<ssize_t>(request.size())) {
    Fail(c, &result_.errors.io);
  }
}

void Client::Evict(const Target& target) {
  int fd =
      open((options_.evict_root + target.path).c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  close(fd);
}

void Client::OnEvents(Connection* c, uint32_t events) {
  if (c->state == State::kConnecting) {
    if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) Connected(c);
    return;
  }
  constexpr uint32_t kEnd = EPOLLRDHUP | EPOLLERR | EPOLLHUP;
  if (!(events & (EPOLLIN | kEnd))) return;
  // A short read says that the socket is drained, and that what comes next
  // makes an edge (epoll(7)): but for an end that this event told of already.
  const bool ended = events & kEnd;
  for (bool more = true; more && status_.ok();) {
    switch (c->state) {
      case State::kHead:
        more = ReceiveHead(c, ended);
        break;
      case State::kBody:
        more = ReceiveBody(c, ended);
        break;
      case State::kEnding:
        more = false;
        if (ended) {
          Shut(c);
          Next(c);
        }
        break;
      case State::kFree:
        more = false;
        // Nothing was asked for: it can only be the end.
        Fail(c, &result_.errors.io);
        break;
      default:
        more = false;
    }
  }
}

// True: there may be more to receive now.
bool Client::ReceiveHead(Connection* c, bool ended) {
  const size_t before = c->partial.size();
  if (before + kFirstRead > kMaxHead) {
    Fail(c, &result_.errors.head);
    return false;
  }
  ssize_t n = recv(c->fd, buffer_.get() + before, kFirstRead, MSG_DONTWAIT);
  if (n < 0 && errno == EAGAIN) return false;
  if (n <= 0) {
    Fail(c, &result_.errors.io);
    return false;
  }
  if (before != 0) memcpy(buffer_.get(), c->partial.data(), before);
  std::string_view text(buffer_.get(), before + static_cast<size_t>(n));
  const bool in_window = phase_ == Phase::kWindow;
  if (in_window) result_.bytes += static_cast<size_t>(n);
  c->partial.clear();
  const bool more = ended || n == kFirstRead;
  // Pipelined answers come together.
  for (;;) {
    const size_t end = text.find("\r\n\r\n");
    if (end == text.npos) {
      c->partial = text;
      return more;
    }
    AnswerHead head;
    if (!ParseAnswerHead(text.substr(0, end + 2), &head) || head.length < 0) {
      Fail(c, &result_.errors.head);
      return false;
    }
    if (head.status != 200) {
      Fail(c, &result_.errors.status);
      return false;
    }
    c->ends = head.close || options_.close;
    // It may leave out what was asked for behind it (RFC 9112, section 9.6).
    if (c->ends) c->pending = 1;
    const bool last = c->pending == 1;
    text.remove_prefix(end + 4);
    if (head.length != options_.targets[c->target].length ||
        (last && static_cast<int64_t>(text.size()) > head.length)) {
      Fail(c, &result_.errors.length);
      return false;
    }
    const size_t body = std::min(text.size(), static_cast<size_t>(head.length));
    text.remove_prefix(body);
    if (in_window) result_.body_bytes += body;
    c->left = head.length - static_cast<int64_t>(body);
    c->state = State::kBody;
    if (c->left > 0) return more;
    Answered(c);
    if (last) return c->state == State::kEnding;
  }
}

bool Client::ReceiveBody(Connection* c, bool ended) {
  ssize_t n = recv(c->fd, nullptr, static_cast<size_t>(c->left),
                   MSG_TRUNC | MSG_DONTWAIT);
  if (n < 0 && errno == EAGAIN) return false;
  if (n <= 0) {
    Fail(c, &result_.errors.io);
    return false;
  }
  if (phase_ == Phase::kWindow) {
    result_.bytes += static_cast<size_t>(n);
    result_.body_bytes += static_cast<size_t>(n);
  }
  c->left -= n;
  if (c->left > 0) return ended;
  const bool last = c->pending == 1;
  Answered(c);
  return !last || c->state == State::kEnding;
}

void Client::Answered(Connection* c) {
  now_ = Now();
  if (phase_ == Phase::kWindow) ++result_.answers_in_time;
  if (options_.rate > 0 ? InWindow(c->due_ns) : phase_ == Phase::kWindow) {
    ++result_.answers;
    result_.latency.Add(now_ - c->due_ns);
  }
  if (--c->pending > 0) {
    c->state = State::kHead;
  } else if (c->ends) {
    c->state = State::kEnding;
  } else {
    c->state = State::kFree;
    Next(c);
  }
}

// Finds the next work for a connection that has none.
void Client::Next(Connection* c) {
  const bool ready = c->state == State::kFree || options_.close;
  if (phase_ != Phase::kConnect && options_.rate == 0) {
    Begin(c, now_);
  } else if (!waiting_.empty()) {
    const int64_t due = waiting_.front();
    waiting_.pop_front();
    Begin(c, due);
  } else if (ready) {
    free_.push_back(c);
  } else {
    c->due_ns = 0;
    Open(c);
  }
}

}  // namespace kevent::load
