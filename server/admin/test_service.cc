// SPDX-License-Identifier: Apache-2.0
#include "server/admin/test_service.h"

#include <stdlib.h>

#include <chrono>
#include <future>
#include <utility>

#include "server/net/listener.h"

namespace kevent::admin {

TestService::TestService(size_t workers) {
  loop::Runtime::Options options;
  options.loops = workers;
  runtime_ = loop::Runtime::Create(options).value();
  for (size_t i = 0; i < workers; ++i) {
    auto part = std::make_unique<Part>();
    Part* p = part.get();
    p->loop = &runtime_->loop(i);
    p->router.Get("/hello", [](http::Exchange* x) {
      x->Reply(200, "text/plain", "hello");
    });
    p->router.Get("/hold", [p](http::Exchange* x) { p->held.push_back(x); });
    p->server = http::HttpServer::Create(p->loop, &p->router,
                                         http::HttpServer::Options())
                    .value();
    auto listener =
        net::Listener::Listen(net::Address::Parse("127.0.0.1:0").value(), {})
            .value();
    p->port = listener.address().port();
    p->server->Listen(listener.Release());
    parts_.push_back(std::move(part));
  }
  if (!runtime_->Start().ok()) abort();
}

TestService::~TestService() {
  // In the loops' own threads: another one could not cancel what is in flight.
  for (auto& part : parts_) {
    std::promise<void> drained;
    part->loop->Post([&] {
      for (http::Exchange* x : std::exchange(part->held, {})) {
        x->Reply(200, "text/plain", "held");
      }
      part->server->CloseAll();
      part->server->Drain([&] { drained.set_value(); });
    });
    drained.get_future().wait();
  }
  runtime_->Stop();
  runtime_->Join();
  parts_.clear();
}

Target TestService::target() const {
  Target target;
  target.name = "test";
  target.version = "1.2.3";
  for (const auto& part : parts_) {
    target.addresses.push_back("127.0.0.1:" + std::to_string(part->port));
    target.workers.push_back({part->loop, part->server.get(), nullptr});
  }
  return target;
}

void TestService::Call(size_t worker, const std::function<void()>& fn) {
  std::promise<void> done;
  parts_[worker]->loop->Post([&] {
    fn();
    done.set_value();
  });
  done.get_future().wait();
}

void TestService::ReleaseHeld(size_t worker) {
  Call(worker, [&] {
    for (http::Exchange* x : std::exchange(parts_[worker]->held, {})) {
      x->Reply(200, "text/plain", "held");
    }
  });
}

bool TestService::Await(size_t worker, const std::function<bool()>& condition) {
  const auto deadline =
      std::chrono::steady_clock::now() + std::chrono::seconds(30);
  for (bool held = false; !held;) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    Call(worker, [&] { held = condition(); });
  }
  return true;
}

std::string MakeSocketDirectory() {
  std::string name = "/tmp/kevent-admin.XXXXXX";
  if (!mkdtemp(name.data())) abort();
  return name;
}

}  // namespace kevent::admin
