// SPDX-License-Identifier: Apache-2.0
#include "server/http/test_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstring>
#include <memory>

namespace kevent::http {
namespace {

using Clock = std::chrono::steady_clock;

bool SameName(std::string_view a, std::string_view b) {
  return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

bool Number(std::string_view text, int base, size_t* value) {
  const char* end = text.data() + text.size();
  auto [at, error] = std::from_chars(text.data(), end, *value, base);
  return !text.empty() && error == std::errc() && at == end;
}

int Connect(uint16_t port, int receive_buffer) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (receive_buffer > 0) {
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer,
               sizeof receive_buffer);
  }
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) < 0) {
    int error = errno;
    close(fd);
    errno = error;
    return -1;
  }
  return fd;
}

// Waits for one of `events`, an error or a hang-up; false at the deadline.
bool Await(int fd, short events, Clock::time_point deadline) {
  for (;;) {
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - Clock::now());
    pollfd p = {fd, events, 0};
    int r = poll(&p, 1, static_cast<int>(std::max<int64_t>(left.count(), 0)));
    if (r > 0) return true;
    if (r == 0) return false;
    if (errno != EINTR) return false;
  }
}

Clock::time_point Deadline() {
  return Clock::now() + std::chrono::milliseconds(kClientDeadlineMs);
}

}  // namespace

// --- ClientResponse.

bool ClientResponse::Has(std::string_view name) const {
  return std::any_of(fields.begin(), fields.end(),
                     [&](const auto& f) { return SameName(f.first, name); });
}

std::string_view ClientResponse::Get(std::string_view name) const {
  for (const auto& [key, value] : fields) {
    if (SameName(key, name)) return value;
  }
  return {};
}

// --- ResponseReader.

bool ResponseReader::Fail(std::string text) {
  error_ = std::move(text);
  return false;
}

bool ResponseReader::Feed(std::string_view data) {
  if (!error_.empty()) return false;
  if (state_ == State::kUntilEnd) {
    response_.body.append(data);
    return true;
  }
  // The middle of a long body does not pass through the buffer.
  if (state_ == State::kLength && used_ == input_.size()) {
    size_t n = std::min(left_, data.size());
    response_.body.append(data.substr(0, n));
    data.remove_prefix(n);
    left_ -= n;
    if (left_ == 0) Finish();
  }
  input_.append(data);
  bool more = true;
  while (more) {
    if (!Step(&more)) return false;
  }
  input_.erase(0, used_);
  used_ = 0;
  return true;
}

bool ResponseReader::TakeLine(std::string_view* line) {
  size_t end = input_.find("\r\n", used_);
  if (end == std::string::npos) return false;
  *line = std::string_view(input_).substr(used_, end - used_);
  used_ = end + 2;
  return true;
}

bool ResponseReader::Step(bool* more) {
  std::string_view rest = std::string_view(input_).substr(used_);
  std::string_view line;
  *more = false;
  switch (state_) {
    case State::kHead: {
      if (rest.empty()) return true;
      if (heads_.empty()) return Fail("bytes that belong to no response");
      size_t end = rest.find("\r\n\r\n");
      if (end == std::string_view::npos) return true;
      used_ += end + 4;
      *more = true;
      return ParseHead(rest.substr(0, end + 2));
    }
    case State::kLength: {
      size_t n = std::min(left_, rest.size());
      response_.body.append(rest.substr(0, n));
      used_ += n;
      left_ -= n;
      if (left_ > 0) return true;
      Finish();
      *more = true;
      return true;
    }
    case State::kUntilEnd:
      response_.body.append(rest);
      used_ = input_.size();
      return true;
    case State::kChunkSize:
      if (!TakeLine(&line)) return true;
      if (!Number(line, 16, &left_)) return Fail("a bad chunk size");
      state_ = left_ ? State::kChunkData : State::kTrailer;
      *more = true;
      return true;
    case State::kChunkData: {
      size_t n = std::min(left_, rest.size());
      response_.body.append(rest.substr(0, n));
      used_ += n;
      left_ -= n;
      if (left_ > 0) return true;
      state_ = State::kChunkEnd;
      *more = true;
      return true;
    }
    case State::kChunkEnd:
      if (rest.size() < 2) return true;
      if (!TakeLine(&line) || !line.empty()) return Fail("a chunk has no end");
      state_ = State::kChunkSize;
      *more = true;
      return true;
    case State::kTrailer:
      if (!TakeLine(&line)) return true;
      if (line.empty()) Finish();
      *more = true;
      return true;
  }
  return true;
}

bool ResponseReader::ParseHead(std::string_view head) {
  response_ = ClientResponse();
  bool first = true;
  while (!head.empty()) {
    size_t end = head.find("\r\n");
    std::string_view line = head.substr(0, end);
    head.remove_prefix(end + 2);
    if (line.find_first_of(std::string_view("\r\n\0", 3)) !=
        std::string_view::npos) {
      return Fail("a control character in the head");
    }
    if (first) {
      size_t status;
      if (line.size() < 13 || line.substr(0, 7) != "HTTP/1." ||
          (line[7] != '0' && line[7] != '1') || line[8] != ' ' ||
          line[12] != ' ' || !Number(line.substr(9, 3), 10, &status)) {
        return Fail("a bad status line: " + std::string(line));
      }
      response_.minor = line[7] - '0';
      response_.status = static_cast<int>(status);
      first = false;
      continue;
    }
    size_t colon = line.find(':');
    if (colon == 0 || colon == std::string_view::npos ||
        line.substr(0, colon).find_first_of(" \t") != std::string_view::npos) {
      return Fail("a bad field line: " + std::string(line));
    }
    std::string_view value = line.substr(colon + 1);
    while (!value.empty() && value.front() == ' ') value.remove_prefix(1);
    response_.fields.emplace_back(line.substr(0, colon), value);
  }
  const int status = response_.status;
  if (status / 100 == 1) {
    done_.push_back(std::move(response_));
    return true;
  }
  if (heads_.front() || status == 204 || status == 304) {
    Finish();
    return true;
  }
  auto count = [this](std::string_view name) {
    return std::count_if(
        response_.fields.begin(), response_.fields.end(),
        [&](const auto& f) { return SameName(f.first, name); });
  };
  if (count("Content-Length") + count("Transfer-Encoding") > 1) {
    return Fail("the body's length is given twice");
  }
  if (response_.Get("Transfer-Encoding") == "chunked") {
    state_ = State::kChunkSize;
  } else if (response_.Has("Content-Length")) {
    if (!Number(response_.Get("Content-Length"), 10, &left_)) {
      return Fail("a bad Content-Length");
    }
    state_ = State::kLength;
  } else {
    state_ = State::kUntilEnd;
  }
  return true;
}

void ResponseReader::Finish() {
  heads_.pop_front();
  done_.push_back(std::move(response_));
  response_ = ClientResponse();
  state_ = State::kHead;
}

bool ResponseReader::End() {
  if (state_ == State::kUntilEnd) Finish();
  return idle();
}

bool ResponseReader::Take(ClientResponse* out) {
  if (done_.empty()) return false;
  *out = std::move(done_.front());
  done_.pop_front();
  return true;
}

// --- TestClient.

TestClient::TestClient(uint16_t port, int receive_buffer)
    : fd_(Connect(port, receive_buffer)) {}

bool TestClient::Send(std::string_view data) {
  const Clock::time_point deadline = Deadline();
  while (!data.empty()) {
    ssize_t n =
        send(fd_, data.data(), data.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      data.remove_prefix(static_cast<size_t>(n));
    } else if (errno == EAGAIN) {
      if (!Await(fd_, POLLOUT, deadline)) return false;
    } else if (errno != EINTR) {
      return false;
    }
  }
  return true;
}

ssize_t TestClient::Read(char* to, size_t size) {
  const Clock::time_point deadline = Deadline();
  for (;;) {
    ssize_t n = recv(fd_, to, size, MSG_DONTWAIT);
    if (n >= 0) return n;
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return -errno;
    if (!Await(fd_, POLLIN, deadline)) return -ETIMEDOUT;
  }
}

bool TestClient::Receive(ClientResponse* out, bool head) {
  *out = ClientResponse();
  if (reader_.Take(out)) return true;
  // A 1xx response, and a pipeline, leave more to be expected.
  if (reader_.expected() == 0) reader_.Expect(head);
  auto buffer = std::make_unique<char[]>(64 << 10);
  for (;;) {
    ssize_t n = Read(buffer.get(), 64 << 10);
    if (n <= 0) {
      if (n == 0) reader_.End();
      return reader_.Take(out);
    }
    if (!reader_.Feed({buffer.get(), static_cast<size_t>(n)})) return false;
    if (reader_.Take(out)) return true;
  }
}

ClientResponse TestClient::Ask(std::string_view request, bool head) {
  ClientResponse response;
  if (Send(request)) Receive(&response, head);
  return response;
}

std::string TestClient::Request(std::string_view method,
                                std::string_view target,
                                std::string_view fields) {
  std::string text(method);
  text.append(" ").append(target).append(" HTTP/1.1\r\nHost: test\r\n");
  return text.append(fields).append("\r\n");
}

ClientResponse TestClient::Get(std::string_view target,
                               std::string_view fields) {
  return Ask(Request("GET", target, fields));
}

ClientResponse TestClient::Head(std::string_view target,
                                std::string_view fields) {
  return Ask(Request("HEAD", target, fields), true);
}

TestClient::End TestClient::AwaitEnd() {
  char byte;
  ssize_t n = Read(&byte, 1);
  if (n > 0) return End::kData;
  if (n == 0) return End::kClosed;
  return n == -ETIMEDOUT ? End::kTimeout : End::kReset;
}

bool TestClient::Readable(int timeout_ms) {
  return Await(fd_, POLLIN,
               Clock::now() + std::chrono::milliseconds(timeout_ms));
}

bool TestClient::AwaitReset() {
  if (!Await(fd_, 0, Deadline())) return false;
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size);
  return error == ECONNRESET || error == EPIPE;
}

void TestClient::CloseWrite() { shutdown(fd_, SHUT_WR); }

void TestClient::Reset() {
  linger reset = {1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  Close();
}

void TestClient::Close() {
  if (fd_ >= 0) close(std::exchange(fd_, -1));
}

// --- RunLoad.

namespace {

struct LoadConnection {
  ~LoadConnection() {
    if (fd >= 0) close(fd);
  }
  int fd = -1;
  ResponseReader reader;
  std::deque<size_t> tags;
  std::string output;
  size_t sent = 0;
};

}  // namespace

std::string RunLoad(
    uint16_t port, size_t connections, size_t depth,
    const std::function<bool(LoadRequest* next)>& next,
    const std::function<void(size_t tag, const ClientResponse&)>& done) {
  std::vector<LoadConnection> all(connections);
  std::vector<pollfd> polled(connections);
  for (LoadConnection& c : all) {
    c.fd = Connect(port, 0);
    if (c.fd < 0) return std::string("connect: ") + strerror(errno);
  }
  auto fill = [&](LoadConnection& c) {
    c.output.clear();
    c.sent = 0;
    LoadRequest request;
    while (c.tags.size() < depth && next(&request)) {
      c.output += request.text;
      c.tags.push_back(request.tag);
      c.reader.Expect(request.head);
      request = LoadRequest();
    }
  };
  for (LoadConnection& c : all) fill(c);
  auto buffer = std::make_unique<char[]>(256 << 10);
  for (;;) {
    size_t busy = 0;
    for (size_t i = 0; i < connections; ++i) {
      LoadConnection& c = all[i];
      const bool sends = c.sent < c.output.size();
      polled[i] = {c.tags.empty() ? -1 : c.fd,
                   static_cast<short>(POLLIN | (sends ? POLLOUT : 0)), 0};
      busy += !c.tags.empty();
    }
    if (busy == 0) return "";
    int r = poll(polled.data(), polled.size(), kClientDeadlineMs);
    if (r < 0 && errno == EINTR) continue;
    if (r <= 0) return "no answer within the deadline";
    for (size_t i = 0; i < connections; ++i) {
      LoadConnection& c = all[i];
      if (c.tags.empty() || polled[i].revents == 0) continue;
      if (polled[i].revents & POLLOUT) {
        ssize_t n = send(c.fd, c.output.data() + c.sent,
                         c.output.size() - c.sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) c.sent += static_cast<size_t>(n);
      }
      if (!(polled[i].revents & ~POLLOUT)) continue;
      ssize_t n = recv(c.fd, buffer.get(), 256 << 10, MSG_DONTWAIT);
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
      const std::string which = " (request " + std::to_string(c.tags.front()) +
                                ", connection " + std::to_string(i) + ")";
      if (n <= 0) {
        return (n == 0 ? std::string("the connection was closed")
                       : std::string("recv: ") + strerror(errno)) +
               which;
      }
      if (!c.reader.Feed({buffer.get(), static_cast<size_t>(n)})) {
        return c.reader.error() + which;
      }
      ClientResponse response;
      while (!c.tags.empty() && c.reader.Take(&response)) {
        done(c.tags.front(), response);
        c.tags.pop_front();
      }
      if (c.tags.empty()) fill(c);
    }
  }
}

}  // namespace kevent::http
