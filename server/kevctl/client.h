// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_KEVCTL_CLIENT_H_
#define SERVER_KEVCTL_CLIENT_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <string>

#include "proto/google/rpc/status.pb.h"
#include "proto/kevent/admin/v1/admin.grpc.pb.h"

namespace kevent::kevctl {

namespace v1 = admin::v1;

enum ExitCode {
  kOk = 0,
  kCallFailed = 1,
  kBadUsage = 2,
  kNotRunning = 3,
  kNotPermitted = 4,
};
// Of kevctl, for scripts.

class Client {
 public:
  struct Tls {
    // Names of files in PEM: the authority of the server, our certificate and
    // its key.
    std::string ca;
    std::string certificate;
    std::string key;
    std::string server_name;  // in the server's certificate; empty: as called
  };

  static std::unique_ptr<Client> Connect(const std::string& address,
                                         const Tls& tls,
                                         std::chrono::milliseconds timeout,
                                         std::string* error, ExitCode* code);
  // `address`: "unix:PATH", "HOST:PORT" with TLS, or empty for the default
  // sockets, of which the first that is there counts. Null, a line of text and
  // a code when nobody answers there.

  v1::Admin::Stub& stub() { return *stub_; }

  std::unique_ptr<grpc::ClientContext> Context() const;
  // For a call that answers at once: ends after the time-out.
  std::unique_ptr<grpc::ClientContext> StreamContext() const;
  // For one that goes on.

 private:
  Client(std::shared_ptr<grpc::Channel> channel,
         std::chrono::milliseconds timeout);
  static std::unique_ptr<Client> ConnectTls(const std::string& address,
                                            const Tls& tls,
                                            std::chrono::milliseconds timeout,
                                            std::string* error, ExitCode* code);

  const std::chrono::milliseconds timeout_;
  std::unique_ptr<v1::Admin::Stub> stub_;
};

int Failed(const grpc::Status& status, bool json);
// Says on standard error what is wrong, with the details that the server gave,
// and returns the exit code for it.

void Complain(const google::rpc::Status& failure, bool json);
// Says so alone.

}  // namespace kevent::kevctl

#endif  // SERVER_KEVCTL_CLIENT_H_
