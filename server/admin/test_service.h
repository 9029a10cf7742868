// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_TEST_SERVICE_H_
#define SERVER_ADMIN_TEST_SERVICE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "server/admin/target.h"
#include "server/http/router.h"
#include "server/http/server.h"
#include "server/loop/loop.h"
#include "server/loop/runtime.h"

namespace kevent::admin {

class TestService {
 public:
  explicit TestService(size_t workers);
  ~TestService();
  TestService(const TestService&) = delete;
  TestService& operator=(const TestService&) = delete;

  Target target() const;
  uint16_t port(size_t worker) const { return parts_[worker]->port; }
  loop::Loop* loop(size_t worker) { return parts_[worker]->loop; }
  http::HttpServer* server(size_t worker) {
    return parts_[worker]->server.get();
  }

  void Call(size_t worker, const std::function<void()>& fn);
  // Runs `fn` in the loop's thread and waits for it.
  void ReleaseHeld(size_t worker);
  // Answers what came for /hold.
  bool Await(size_t worker, const std::function<bool()>& condition);
  // Until it holds there; false after 30 s.

 private:
  struct Part {
    loop::Loop* loop = nullptr;
    http::Router router;
    std::unique_ptr<http::HttpServer> server;
    std::vector<http::Exchange*> held;
    uint16_t port = 0;
  };

  std::unique_ptr<loop::Runtime> runtime_;
  std::vector<std::unique_ptr<Part>> parts_;
};
// An HTTP service of some workers, each with a port of its own: /hello, and
// /hold, which is answered when the client goes away or the service ends.

std::string MakeSocketDirectory();
// With a path short enough for a unix socket; the caller removes it.

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_TEST_SERVICE_H_
