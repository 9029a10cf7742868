// SPDX-License-Identifier: Apache-2.0
#include "server/kevctl/client.h"

#include <errno.h>
#include <grpcpp/support/error_details.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <tuple>
#include <utility>
#include <vector>

#include "server/kevctl/failure.h"

namespace kevent::kevctl {
namespace {

// Where keventd makes its socket if it is not told: in $RUNTIME_DIRECTORY,
// which only the service has, in $XDG_RUNTIME_DIR/kevent, or in /run/kevent.
std::vector<std::string> DefaultPaths() {
  std::vector<std::string> paths;
  if (const char* given = getenv("RUNTIME_DIRECTORY"); given && *given == '/') {
    const std::string list = given;
    paths.push_back(list.substr(0, list.find(':')) + "/admin.sock");
  }
  if (const char* given = getenv("XDG_RUNTIME_DIR"); given && *given == '/') {
    paths.push_back(std::string(given) + "/kevent/admin.sock");
  }
  paths.push_back("/run/kevent/admin.sock");
  return paths;
}

// 0, or the errno of connect(2).
int Probe(const std::string& path) {
  sockaddr_un to = {};
  if (path.size() >= sizeof to.sun_path) return ENAMETOOLONG;
  to.sun_family = AF_UNIX;
  path.copy(to.sun_path, sizeof to.sun_path - 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  const int error =
      connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) < 0 ? errno : 0;
  close(fd);
  return error;
}

std::string Explain(const std::string& path, int error, ExitCode* code) {
  *code = kNotRunning;
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return "there is no socket " + path +
             ": the server does not run, or has another one; name it with "
             "--admin=unix:PATH";
    case ECONNREFUSED:
      return "nobody answers at " + path + ": the server does not run any more";
    case EACCES:
    case EPERM: {
      *code = kNotPermitted;
      struct stat st;
      std::string who = "its owner";
      if (stat(path.c_str(), &st) == 0) {
        who = "user " + std::to_string(st.st_uid);
      }
      return "not permitted to open " + path + ": only " + who +
             " and root may";
    }
    default:
      return "cannot connect to " + path + ": " + strerror(error);
  }
}

}  // namespace

Client::Client(std::shared_ptr<grpc::Channel> channel,
               std::chrono::milliseconds timeout)
    : timeout_(timeout), stub_(v1::Admin::NewStub(std::move(channel))) {}

std::unique_ptr<Client> Client::ConnectTls(const std::string& address,
                                           const Tls& tls,
                                           std::chrono::milliseconds timeout,
                                           std::string* error, ExitCode* code) {
  *code = kBadUsage;
  grpc::SslCredentialsOptions options;
  for (auto [flag, path, to] :
       {std::tuple{"--tls_ca", &tls.ca, &options.pem_root_certs},
        {"--tls_cert", &tls.certificate, &options.pem_cert_chain},
        {"--tls_key", &tls.key, &options.pem_private_key}}) {
    if (path->empty()) {
      *error = "--admin=" + address + " takes --tls_ca, --tls_cert and " +
               "--tls_key; " + flag + " is missing";
      return nullptr;
    }
    std::ifstream file(*path, std::ios::binary);
    to->assign(std::istreambuf_iterator<char>(file), {});
    if (!file) {
      *error = std::string(flag) + "=" + *path + ": cannot be read";
      return nullptr;
    }
  }
  grpc::ChannelArguments arguments;
  if (!tls.server_name.empty()) {
    arguments.SetSslTargetNameOverride(tls.server_name);
  }
  *code = kOk;
  return std::unique_ptr<Client>(
      new Client(grpc::CreateCustomChannel(
                     address, grpc::SslCredentials(options), arguments),
                 timeout));
}

std::unique_ptr<Client> Client::Connect(const std::string& address,
                                        const Tls& tls,
                                        std::chrono::milliseconds timeout,
                                        std::string* error, ExitCode* code) {
  std::vector<std::string> paths;
  if (address.empty()) {
    paths = DefaultPaths();
  } else if (address.starts_with("unix:") && address.size() > 5) {
    paths.push_back(address.substr(5));
  } else if (address.find(':') != std::string::npos &&
             !address.starts_with("unix:")) {
    return ConnectTls(address, tls, timeout, error, code);
  } else {
    *error = "--admin=" + address + ": write unix:PATH or HOST:PORT";
    *code = kBadUsage;
    return nullptr;
  }
  int found = ENOENT;
  std::string path = paths.back();
  for (const std::string& candidate : paths) {
    const int e = Probe(candidate);
    if (e == ENOENT) continue;
    found = e;
    path = candidate;
    break;
  }
  if (found != 0) {
    *error = Explain(path, found, code);
    return nullptr;
  }
  grpc::ChannelArguments arguments;
  // Its pings measure a network's delay, and cost the server a wake-up for each
  // message that it sends.
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  return std::unique_ptr<Client>(new Client(
      grpc::CreateCustomChannel("unix:" + path,
                                grpc::InsecureChannelCredentials(), arguments),
      timeout));
}

std::unique_ptr<grpc::ClientContext> Client::Context() const {
  auto context = StreamContext();
  context->set_deadline(std::chrono::system_clock::now() + timeout_);
  return context;
}

std::unique_ptr<grpc::ClientContext> Client::StreamContext() const {
  return std::make_unique<grpc::ClientContext>();
}

int Failed(const grpc::Status& status, bool json) {
  google::rpc::Status failure;
  if (!grpc::ExtractErrorDetails(status, &failure).ok() ||
      failure.code() != status.error_code()) {
    failure.Clear();
  }
  failure.set_code(status.error_code());
  failure.set_message(status.error_message());
  ExitCode code = kCallFailed;
  const bool told = failure.details_size() > 0;
  std::string text = failure.message();
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
      text = "the server is gone (" + text + ")";
      code = kNotRunning;
      break;
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      // Of our own deadline; a server that gave up says more.
      if (!told) text = "the server did not answer in time; see --timeout";
      break;
    case grpc::StatusCode::UNIMPLEMENTED:
      if (!told) {
        text =
            "the server has no such call" + (text.empty() ? "" : ": " + text);
      }
      break;
    case grpc::StatusCode::PERMISSION_DENIED:
    case grpc::StatusCode::UNAUTHENTICATED:
      code = kNotPermitted;
      break;
    default:
      break;
  }
  failure.set_message(text);
  Complain(failure, json);
  return code;
}

void Complain(const google::rpc::Status& failure, bool json) {
  const std::string text =
      json ? FailureToJson(failure) : "kevctl: " + FormatFailure(failure);
  fputs(text.c_str(), stderr);
}

}  // namespace kevent::kevctl
