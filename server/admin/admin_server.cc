// SPDX-License-Identifier: Apache-2.0
#include "server/admin/admin_server.h"

#include <fcntl.h>
#include <grpc/grpc.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <sched.h>
#include <unistd.h>

#include <chrono>
#include <future>
#include <mutex>
#include <utility>

#include "server/admin/certificates.h"
#include "server/admin/http_endpoint.h"
#include "server/admin/mailbox.h"
#include "server/admin/service.h"
#include "server/admin/socket.h"
#include "server/loop/cancel.h"
#include "server/loop/runtime.h"
#include "server/loop/task.h"
#include "server/net/accept_loop.h"
#include "server/net/listener.h"

namespace kevent::admin {
namespace {

constexpr int kHandshakeMs = 10'000;
constexpr int kMaxMetadata = 16 << 10;
constexpr int kMaxCallsPerConnection = 128;
constexpr size_t kMaxMemory = 64 << 20;

void SetUpGrpc() {
  static std::once_flag once;
  std::call_once(once, [] {
    // Never taken down again: where a peer was slow to read, that would wait
    // for up to ten seconds for a poller of gRPC's own.
    grpc_init();
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
}

// Threads that are started meanwhile are batch threads (sched(7)): they have
// their share of the processor, but when they wake up they do not push a
// worker's thread aside, and so find several events at a time. Those of gRPC
// cannot be told otherwise.
class BatchThreads {
 public:
  BatchThreads() : policy_(sched_getscheduler(0)) {
    if (policy_ == SCHED_OTHER) Set(SCHED_BATCH);
  }
  ~BatchThreads() {
    if (policy_ == SCHED_OTHER) Set(SCHED_OTHER);
  }
  BatchThreads(const BatchThreads&) = delete;
  BatchThreads& operator=(const BatchThreads&) = delete;

 private:
  // Of the calling thread. Where a sandbox forbids it, nothing changes.
  static void Set(int policy) {
    const sched_param none = {};
    sched_setscheduler(0, policy, &none);
  }

  const int policy_;
};

// A listener for TCP, once the certificates have been looked at: gRPC would
// only refuse each client.
absl::StatusOr<net::Listener> ListenForTls(const net::Address& address,
                                           const AdminServer::Tls& tls) {
  if (address.is_unix()) {
    return absl::InvalidArgumentError(address.ToString() +
                                      ": a unix socket takes no TLS");
  }
  if (absl::Status s =
          CheckCertificates(tls.certificate, tls.key, tls.client_ca);
      !s.ok()) {
    return s;
  }
  net::Listener::Options options;
  options.backlog = 128;
  return net::Listener::Listen(address, options);
}

std::shared_ptr<grpc::ServerCredentials> TlsCredentials(
    const AdminServer::Tls& tls) {
  grpc::SslServerCredentialsOptions options(
      GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  options.pem_root_certs = tls.client_ca;
  options.pem_key_cert_pairs.push_back({tls.key, tls.certificate});
  return grpc::SslServerCredentials(options);
}

}  // namespace

class AdminServer::Impl {
 public:
  Impl(Target target, const Options& options)
      : options_(options),
        target_(std::make_shared<const Target>(std::move(target))) {}
  ~Impl();

  absl::Status Start();
  void SetServing(bool serving);
  std::string address() const { return listener_.address().ToString(); }
  std::string http_address() const {
    return http_ ? http_->address().ToString() : "";
  }

 private:
  using Acceptor = grpc::experimental::ExternalConnectionAcceptor;

  absl::Status StartGrpc(loop::Loop* loop);
  void Accepted(int fd);

  const Options options_;
  const std::shared_ptr<const Target> target_;
  loop::CancelSource cancel_;
  std::unique_ptr<loop::Runtime> runtime_;  // of the admin loop
  net::Listener listener_;
  std::shared_ptr<Mailbox> mailbox_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<HttpEndpoint> http_;
  std::unique_ptr<Acceptor> acceptor_;
  std::unique_ptr<grpc::Server> server_;
  bool started_ = false;
  bool stopping_ = false;  // the admin loop's
};

absl::Status AdminServer::Impl::Start() {
  const BatchThreads batch;
  if (!options_.address.empty()) {
    auto address = net::Address::Parse(options_.address);
    if (!address.ok()) return address.status();
    auto listener = options_.tls ? ListenForTls(*address, *options_.tls)
                                 : ListenPrivately(*address);
    if (!listener.ok()) return listener.status();
    listener_ = *std::move(listener);
  }

  loop::Runtime::Options runtime;
  runtime.loops = 1;
  runtime.pin = false;
  runtime.loop.queue.engine = EngineKind::kEpoll;
  runtime.loop.queue.ring_entries = 256;
  auto made = loop::Runtime::Create(runtime);
  if (!made.ok()) return made.status();
  runtime_ = *std::move(made);
  loop::Loop* loop = &runtime_->loop(0);
  mailbox_ = std::make_shared<Mailbox>(loop);
  service_ = std::make_unique<Service>(
      Context{loop, mailbox_, target_}, options_.max_streams,
      options_.tls ? std::optional(options_.tls->operators) : std::nullopt,
      [this](bool serving) { SetServing(serving); });
  if (!options_.http_address.empty()) {
    auto address = net::Address::Parse(options_.http_address);
    if (!address.ok()) return address.status();
    auto http = HttpEndpoint::Listen(
        loop, *address,
        {[this](HttpEndpoint::StatsFn fn) { service_->Collect(std::move(fn)); },
         [this] { return service_->draining(); }});
    if (!http.ok()) return http.status();
    http_ = *std::move(http);
  }
  if (!options_.address.empty()) {
    if (absl::Status s = StartGrpc(loop); !s.ok()) return s;
  }
  absl::Status status = runtime_->Start();
  started_ = status.ok();
  return status;
}

absl::Status AdminServer::Impl::StartGrpc(loop::Loop* loop) {
  SetUpGrpc();
  grpc::ServerBuilder builder;
  builder.RegisterService(service_.get());
  builder.SetMaxReceiveMessageSize(static_cast<int>(options_.max_message));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                             kMaxCallsPerConnection);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadata);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS,
                             kHandshakeMs);
  // What nothing here uses, and each message would have to pass through:
  // answers are not compressed, nobody asks for gRPC's own counters, and no
  // client sends so much that its window needs to grow.
  builder.AddChannelArgument(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0);
  builder.AddChannelArgument(GRPC_ARG_ENABLE_CHANNELZ, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  grpc::ResourceQuota quota("kevent admin");
  quota.Resize(kMaxMemory);
  builder.SetResourceQuota(quota);
  // Reflection is served by these: it needs few.
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 2);
  acceptor_ = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
      options_.tls ? TlsCredentials(*options_.tls)
                   : grpc::InsecureServerCredentials());
  server_ = builder.BuildAndStart();
  if (!server_) return absl::InternalError("the gRPC server does not start");
  SetServing(true);

  // By its own coroutine rather than by gRPC: that would take over a socket
  // another server answers at, and give its file what mode the umask leaves.
  loop->Post([this, loop] {
    net::AcceptLoopOptions accept;
    accept.cancel = cancel_.token();
    loop->Spawn([](Impl* impl, loop::Loop* l,
                   net::AcceptLoopOptions o) -> loop::Task<void> {
      co_await net::AcceptLoop(
          l, impl->listener_.fd(), [impl](int fd) { impl->Accepted(fd); },
          std::move(o));
    }(this, loop, std::move(accept)));
  });
  return absl::OkStatus();
}

void AdminServer::Impl::Accepted(int fd) {
  if (stopping_) {
    close(fd);
    return;
  }
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  Acceptor::NewConnectionParameters connection;
  connection.listener_fd = -1;
  connection.fd = fd;  // gRPC's from now on
  acceptor_->HandleNewConnection(&connection);
}

AdminServer::Impl::~Impl() {
  if (started_) {
    std::promise<void> stopped;
    mailbox_->Post([this, &stopped] {
      stopping_ = true;
      cancel_.Cancel();
      stopped.set_value();
    });
    stopped.get_future().wait();
  }
  if (server_) {
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
  }
  if (started_ && http_) {
    std::promise<void> stopped;
    mailbox_->Post(
        [this, &stopped] { http_->Stop([&] { stopped.set_value(); }); });
    stopped.get_future().wait();
  }
  if (mailbox_) mailbox_->Close();
  if (runtime_) {
    runtime_->Stop();
    runtime_->Join();
  }
  server_.reset();
  acceptor_.reset();
  http_.reset();
  service_.reset();
  runtime_.reset();
}

void AdminServer::Impl::SetServing(bool serving) {
  service_->SetDraining(!serving);
  if (server_) server_->GetHealthCheckService()->SetServingStatus(serving);
}

AdminServer::AdminServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

AdminServer::~AdminServer() = default;

absl::StatusOr<std::unique_ptr<AdminServer>> AdminServer::Start(
    Target target, const Options& options) {
  if (target.workers.empty()) {
    return absl::InvalidArgumentError("the target has no workers");
  }
  if (options.address.empty() && options.http_address.empty()) {
    return absl::InvalidArgumentError("no address to listen at");
  }
  auto impl = std::make_unique<Impl>(std::move(target), options);
  if (absl::Status s = impl->Start(); !s.ok()) return s;
  return std::unique_ptr<AdminServer>(new AdminServer(std::move(impl)));
}

std::string AdminServer::address() const { return impl_->address(); }

std::string AdminServer::http_address() const { return impl_->http_address(); }

void AdminServer::SetServing(bool serving) { impl_->SetServing(serving); }

}  // namespace kevent::admin
