// SPDX-License-Identifier: Apache-2.0
// An HTTP service: curl http://127.0.0.1:8080/hello
#include <cstdio>

#include "server/http/router.h"
#include "server/net/listener.h"

int main(int argc, char** argv) {
  auto loop = kevent::loop::Loop::Create({}).value();
  kevent::http::Router router;
  router.Get("/hello", [](kevent::http::Exchange* x) {
    x->Reply(200, "text/plain", "Hello, world\n");
  });
  auto server =
      kevent::http::HttpServer::Create(loop.get(), &router, {}).value();
  auto address =
      kevent::net::Address::Parse(argc > 1 ? argv[1] : "127.0.0.1:8080")
          .value();
  auto listener = kevent::net::Listener::Listen(address, {}).value();
  server->Listen(listener.Release());
  printf("listening on http://%s\n", listener.address().ToString().c_str());
  fflush(stdout);
  loop->Run();
}
