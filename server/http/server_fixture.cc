// SPDX-License-Identifier: Apache-2.0
#include "server/http/server_fixture.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <span>
#include <utility>

namespace kevent::http {

std::string Pattern(size_t size) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) {
    text[i] = static_cast<char>('a' + (i * 7 + i / 251) % 26);
  }
  return text;
}

int PatternFile(size_t size) {
  int fd = memfd_create("pattern", MFD_CLOEXEC);
  std::string text = Pattern(size);
  size_t done = 0;
  while (done < size) {
    ssize_t n = write(fd, text.data() + done, size - done);
    if (n <= 0) abort();
    done += static_cast<size_t>(n);
  }
  return fd;
}

namespace {

struct Token {
  explicit Token(std::atomic<int>* n) : count(n) {}
  ~Token() { count->fetch_add(1); }
  std::atomic<int>* const count;
};
// Counts its own end.

}  // namespace

void ServerTest::Start(const HttpServer::Options& options) {
  server_ = std::make_unique<TestServer>(
      GetParam(),
      [this](loop::Loop*) {
        return std::make_unique<FunctionHandler>(
            [this](Exchange* x) { Handle(x); });
      },
      options);
}

void ServerTest::UseFile(size_t size, int64_t promised) {
  const int file = PatternFile(size);
  server_->Call([&] {
    shared_.file = file;
    shared_.file_promised = promised;
  });
}

void ServerTest::SendFile(Exchange* x) {
  std::string head = "HTTP/1.1 200 OK\r\nContent-Length: " +
                     std::to_string(shared_.file_promised) + "\r\n" +
                     std::string(x->connection_field()) + "\r\n";
  std::span<char> scratch = x->scratch();
  memcpy(scratch.data(), head.data(), head.size());
  x->RespondFile(
      200, {scratch.data(), head.size()}, shared_.file, 0,
      shared_.file_promised,
      {[](void* p) { static_cast<std::atomic<int>*>(p)->fetch_add(1); },
       &shared_.released});
}

void ServerTest::Handle(Exchange* x) {
  shared_.handled.fetch_add(1);
  const Request& r = x->request();
  if (r.path == "/echo") {
    auto token = std::make_shared<Token>(&shared_.bodies_dropped);
    x->ReadBody(kEchoLimit, [token](Exchange* e, int status, std::string body) {
      if (status != 200) {
        e->RespondError(status);
      } else {
        e->Reply(200, "text/plain", std::move(body));
      }
    });
  } else if (r.path == "/later") {
    x->loop()->Post([x] { x->Reply(200, "text/plain", "later"); });
  } else if (r.path == "/hold") {
    shared_.held.push_back(x);
  } else if (r.path == "/close") {
    x->CloseAfter();
    x->Reply(200, "text/plain", "closing");
  } else if (r.path == "/redirect") {
    x->Redirect(307, "/echo?x=1");
  } else if (r.path == "/split") {
    x->Redirect(302, "/a\r\nSet-Cookie: b");
  } else if (r.path == "/big") {
    x->Reply(200, "application/octet-stream",
             std::string(std::stoul(std::string(r.query)), 'x'));
  } else if (r.path == "/file") {
    SendFile(x);
  } else if (r.path == "/missing") {
    x->RespondError(404, "X-Extra: 1\r\n");
  } else {
    x->Reply(200, "text/plain", std::string(r.target));
  }
}

}  // namespace kevent::http
