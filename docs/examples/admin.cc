// SPDX-License-Identifier: Apache-2.0
// An HTTP service with an admin service: kevctl --admin=unix:hello.sock stats
// shows its connections, latencies and greetings.
#include <cstdio>
#include <string>
#include <utility>

#include "server/admin/admin_server.h"
#include "server/http/router.h"
#include "server/net/listener.h"
#include "server/stats/registry.h"

int main(int argc, char** argv) {
  auto loop = kevent::loop::Loop::Create({}).value();
  kevent::stats::Counter greetings;
  kevent::http::Router router;
  router.Get("/hello", [&](kevent::http::Exchange* x) {
    greetings.Add(1);
    x->Reply(200, "text/plain", "Hello, world\n");
  });
  auto server =
      kevent::http::HttpServer::Create(loop.get(), &router, {}).value();
  auto address =
      kevent::net::Address::Parse(argc > 1 ? argv[1] : "127.0.0.1:8080")
          .value();
  auto listener = kevent::net::Listener::Listen(address, {}).value();
  server->Listen(listener.Release());

  // What is counted beside what the framework counts by itself.
  kevent::stats::Registry registry;
  if (!registry
           .AddCounter("hello_greetings_total", "Greetings sent.", {&greetings})
           .ok()) {
    return 1;
  }
  kevent::admin::Target target;
  target.name = "hello";
  target.version = "1.0";
  target.addresses = {listener.address().ToString()};
  target.workers = {{loop.get(), server.get(), nullptr}};
  target.registry = &registry;
  kevent::admin::AdminServer::Options options;
  options.address = argc > 2 ? argv[2] : "unix:hello.sock";
  auto admin = kevent::admin::AdminServer::Start(std::move(target), options);
  if (!admin.ok()) {
    fprintf(stderr, "%s\n", std::string(admin.status().message()).c_str());
    return 1;
  }
  printf("listening on http://%s\n", listener.address().ToString().c_str());
  fflush(stdout);
  loop->Run();
}
