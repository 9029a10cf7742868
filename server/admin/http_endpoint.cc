// SPDX-License-Identifier: Apache-2.0
#include "server/admin/http_endpoint.h"

#include <google/protobuf/util/json_util.h>

#include <string>
#include <utility>

#include "server/admin/metrics.h"

namespace kevent::admin {
namespace {

constexpr char kText[] = "text/plain; charset=utf-8";
constexpr char kPage[] =
#include "server/admin/status_page.inc"
    ;
// Draws what stats.json says.

constexpr char kMetrics[] = "text/plain; version=0.0.4; charset=utf-8";

}  // namespace

HttpEndpoint::HttpEndpoint(net::Listener listener, Source source)
    : listener_(std::move(listener)), source_(std::move(source)) {
  router_.Get("/metrics", [this](http::Exchange* x) {
    source_.collect([this, x](const v1::Stats& stats) {
      x->Reply(200, kMetrics, MetricsText(stats, source_.draining()));
    });
  });
  router_.Get("/", [](http::Exchange* x) {
    x->Reply(200, "text/html; charset=utf-8", kPage);
  });
  router_.Get("/stats.json", [this](http::Exchange* x) {
    source_.collect([x](const v1::Stats& stats) {
      google::protobuf::util::JsonPrintOptions options;
      options.always_print_primitive_fields = true;
      options.preserve_proto_field_names = true;
      std::string text;
      if (!google::protobuf::util::MessageToJsonString(stats, &text, options)
               .ok()) {
        return x->RespondError(500);
      }
      x->Reply(200, "application/json", std::move(text));
    });
  });
  // Alive: every loop turns.
  router_.Get("/healthz", [this](http::Exchange* x) {
    source_.collect([x](const v1::Stats& stats) {
      std::string busy;
      for (const v1::WorkerStats& worker : stats.workers()) {
        if (!worker.stale()) continue;
        busy +=
            "worker " + std::to_string(worker.worker()) + " does not answer\n";
      }
      x->Reply(busy.empty() ? 200 : 503, kText, busy.empty() ? "ok\n" : busy);
    });
  });
  router_.Get("/readyz", [this](http::Exchange* x) {
    const bool draining = source_.draining();
    x->Reply(draining ? 503 : 200, kText, draining ? "draining\n" : "ready\n");
  });
}

absl::StatusOr<std::unique_ptr<HttpEndpoint>> HttpEndpoint::Listen(
    loop::Loop* loop, const net::Address& address, Source source) {
  net::Listener::Options listen;
  listen.backlog = 128;
  listen.unix_mode = 0600;
  auto listener = net::Listener::Listen(address, listen);
  if (!listener.ok()) return listener.status();
  std::unique_ptr<HttpEndpoint> endpoint(
      new HttpEndpoint(*std::move(listener), std::move(source)));
  http::HttpServer::Options options;
  options.max_connections = 256;
  options.buffers = 64;
  options.header_timeout_ns = 10'000'000'000;
  options.limits.header_bytes = 8192;
  auto server = http::HttpServer::Create(loop, &endpoint->router_, options);
  if (!server.ok()) return server.status();
  endpoint->server_ = *std::move(server);
  endpoint->server_->Listen(endpoint->listener_.Release());
  return endpoint;
}

void HttpEndpoint::Stop(absl::AnyInvocable<void()> done) {
  server_->CloseAll();
  server_->Drain(std::move(done));
}

}  // namespace kevent::admin
