// SPDX-License-Identifier: Apache-2.0
#include "server/http/test_server.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "server/loop/test_util.h"
#include "server/net/address.h"
#include "server/net/listener.h"

namespace kevent::http {

TestServer::TestServer(EngineKind engine, const MakeHandler& make,
                       const HttpServer::Options& options) {
  thread_ = std::thread([&] { Run(engine, make, options); });
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return ready_; });
}

TestServer::~TestServer() {
  loop_->Stop();
  thread_.join();
}

void TestServer::Run(EngineKind engine, const MakeHandler& make,
                     const HttpServer::Options& options) {
  owned_loop_ = loop::MakeLoop(engine);
  loop::Loop* loop = owned_loop_.get();
  std::unique_ptr<Handler> handler = make(loop);
  auto server = HttpServer::Create(loop, handler.get(), options);
  auto listener =
      net::Listener::Listen(*net::Address::Parse("127.0.0.1:0"), {});
  if (!server.ok() || !listener.ok()) {
    fprintf(stderr, "%s %s\n", server.status().ToString().c_str(),
            listener.status().ToString().c_str());
    abort();
  }
  (*server)->Listen(listener->Release());
  {
    std::lock_guard<std::mutex> lock(mutex_);
    port_ = listener->address().port();
    loop_ = loop;
    server_ = server->get();
    ready_ = true;
    // Under the lock: the constructor's caller may destroy us right after.
    changed_.notify_one();
  }
  loop->Run();
  server->reset();
}

void TestServer::Call(std::function<void()> fn) {
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  loop_->Post([&] {
    fn();
    std::lock_guard<std::mutex> lock(mutex);
    done = true;
    changed.notify_one();
  });
  std::unique_lock<std::mutex> lock(mutex);
  changed.wait(lock, [&] { return done; });
}

size_t TestServer::connections() {
  size_t count = 0;
  Call([&] { count = server_->connections(); });
  return count;
}

bool TestServer::Await(const std::function<bool()>& condition) {
  const auto deadline =
      std::chrono::steady_clock::now() + std::chrono::seconds(30);
  for (bool held = false; !held;) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    // The loop has turned at least once more when this returns.
    Call([&] { held = condition(); });
  }
  return true;
}

}  // namespace kevent::http
