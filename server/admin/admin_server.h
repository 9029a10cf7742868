// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_ADMIN_SERVER_H_
#define SERVER_ADMIN_ADMIN_SERVER_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/admin/target.h"

namespace kevent::admin {

class AdminServer {
 public:
  struct Tls {
    // In PEM: the server's certificate with its chain, its key, and those whose
    // certificates clients must have.
    std::string certificate;
    std::string key;
    std::string client_ca;
    std::vector<std::string> operators;
    // Common names of the clients that may change something; the others may
    // look at everything.
  };

  struct Options {
    std::string address;
    // For gRPC: "unix:/path", with `tls` "ADDR:PORT", or empty.
    std::optional<Tls> tls;
    std::string http_address;
    // "ADDR:PORT" or "unix:/path" of the HTTP listener, or empty. Whoever
    // reaches it may read all counters, and change nothing.
    // Calls that stream, at a time.
    size_t max_streams = 1024;
    // Bytes of a message from a client.
    size_t max_message = 2 << 20;
  };

  static absl::StatusOr<std::unique_ptr<AdminServer>> Start(
      Target target, const Options& options);
  // Listens and answers from then on. The status says in one line what is
  // wrong: InvalidArgument for an address or a certificate that will not do,
  // AlreadyExists if another server answers there, else as
  // net::Listener::Listen.

  ~AdminServer();
  // Ends all calls and waits for them, which takes seconds at most, and that
  // only if a loop hangs.

  AdminServer(const AdminServer&) = delete;
  AdminServer& operator=(const AdminServer&) = delete;

  std::string address() const;
  std::string http_address() const;
  // With the port it got; empty if there is none.

  void SetServing(bool serving);
  // Any thread: what grpc.health.v1 and GetInfo tell. True at first.

 private:
  class Impl;
  explicit AdminServer(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};
// The gRPC service kevent.admin.v1.Admin over a Target, with grpc.health.v1 and
// server reflection. It has a loop and threads of its own, which do not push
// the target's loops aside (SCHED_BATCH, where the thread that starts it has
// the default policy); those run nothing for it but short closures. The target
// must outlive it.

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_ADMIN_SERVER_H_
