// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_HTTP_TEST_SERVER_H_
#define SERVER_HTTP_TEST_SERVER_H_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "server/http/server.h"
#include "server/loop/loop.h"

namespace kevent::http {

class FunctionHandler final : public Handler {
 public:
  explicit FunctionHandler(std::function<void(Exchange*)> fn)
      : fn_(std::move(fn)) {}
  void Handle(Exchange* exchange) override { fn_(exchange); }

 private:
  const std::function<void(Exchange*)> fn_;
};

class TestServer {
 public:
  using MakeHandler = std::function<std::unique_ptr<Handler>(loop::Loop*)>;

  TestServer(EngineKind engine, const MakeHandler& make,
             const HttpServer::Options& options = {});
  // Listens on a free port of 127.0.0.1. `make` is called in the loop's thread.
  ~TestServer();
  TestServer(const TestServer&) = delete;
  TestServer& operator=(const TestServer&) = delete;

  uint16_t port() const { return port_; }
  loop::Loop* loop() { return loop_; }
  HttpServer* server() { return server_; }
  // For the loop's thread, but for counters() and Post.

  void Call(std::function<void()> fn);
  // Runs `fn` in the loop's thread and waits for it.

  size_t connections();
  bool Await(const std::function<bool()>& condition);
  // Waits until it holds in the loop's thread; false after 30 s.
  bool AwaitConnections(size_t count) {
    return Await([this, count] { return server_->connections() == count; });
  }

 private:
  void Run(EngineKind engine, const MakeHandler& make,
           const HttpServer::Options& options);

  std::mutex mutex_;
  std::condition_variable changed_;
  bool ready_ = false;  // of mutex_
  uint16_t port_ = 0;
  // Outlives the thread: Stop and Post touch it after they have woken it.
  std::unique_ptr<loop::Loop> owned_loop_;
  loop::Loop* loop_ = nullptr;
  HttpServer* server_ = nullptr;
  std::thread thread_;
};
// A server and its loop in a thread of their own, for as long as this lives.

}  // namespace kevent::http

#endif  // SERVER_HTTP_TEST_SERVER_H_
