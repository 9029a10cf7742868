// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_HTTP_ENDPOINT_H_
#define SERVER_ADMIN_HTTP_ENDPOINT_H_

#include <functional>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "proto/kevent/admin/v1/admin.pb.h"
#include "server/http/router.h"
#include "server/http/server.h"
#include "server/loop/loop.h"
#include "server/net/address.h"
#include "server/net/listener.h"

namespace kevent::admin {

class HttpEndpoint {
 public:
  using StatsFn = absl::AnyInvocable<void(const v1::Stats&)>;
  struct Source {
    std::function<void(StatsFn)> collect;
    std::function<bool()> draining;
  };

  static absl::StatusOr<std::unique_ptr<HttpEndpoint>> Listen(
      loop::Loop* loop, const net::Address& address, Source source);
  // Before `loop`, the admin loop, runs.

  const net::Address& address() const { return listener_.address(); }
  // With the port it got.

  void Stop(absl::AnyInvocable<void()> done);
  // In the loop: ends all connections, then calls `done`. What was collected
  // for them must still come. To be destroyed when the loop does not run.

 private:
  HttpEndpoint(net::Listener listener, Source source);

  net::Listener listener_;
  const Source source_;
  http::Router router_;
  std::unique_ptr<http::HttpServer> server_;
};
// /metrics, /healthz, /readyz and a live page, over plain HTTP, for those who
// do not speak gRPC. Nothing can be changed by it.

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_HTTP_ENDPOINT_H_
