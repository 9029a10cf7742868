// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/match.h"
#include "absl/synchronization/mutex.h"
#include "server/keventd/daemon.h"
#include "server/keventd/options.h"

ABSL_FLAG(std::string, root, "", "directory whose files are served");
ABSL_FLAG(std::vector<std::string>, listen, {},
          "ADDR:PORT or unix:PATH, may be repeated (default 127.0.0.1:8080); "
          "port 0 takes a free one");
ABSL_FLAG(std::string, engine, "", "auto (default), module, uring or epoll");
ABSL_FLAG(bool, listing, false, "list directories that have no index file");
ABSL_FLAG(uint32_t, workers, 0,
          "loops, each a thread on its own core; 0: one for each core");
ABSL_FLAG(
    std::string, config, "",
    "configuration, protobuf text format of kevent.config.v1.ServerConfig; "
    "flags win over it");
ABSL_FLAG(std::string, admin, "",
          "address of the admin service: unix:PATH, ADDR:PORT with mutual TLS, "
          "or off (default: admin.sock in $RUNTIME_DIRECTORY, "
          "$XDG_RUNTIME_DIR/kevent or "
          "/run/kevent)");
ABSL_FLAG(std::string, admin_tls_cert, "",
          "certificate of the admin service, with its chain, in PEM");
ABSL_FLAG(std::string, admin_tls_key, "", "its key, in PEM");
ABSL_FLAG(std::string, admin_tls_ca, "",
          "authorities whose certificates its clients must have, in PEM");
ABSL_FLAG(std::vector<std::string>, admin_operators, {},
          "common names of the clients that may change something; the others "
          "may look");
ABSL_FLAG(std::string, admin_http, "off",
          "ADDR:PORT or unix:PATH of /metrics, /healthz and /readyz, or off");
ABSL_FLAG(std::string, access_log, "", "path of the access log, or off");

namespace {

using kevent::keventd::Daemon;

int Fail(const std::string& text) {
  fprintf(stderr, "keventd: %s\n", text.c_str());
  return 1;
}

int Fail(const absl::Status& status) {
  return Fail(std::string(status.message()));
}

// Abseil's flags keep the last value alone: several --listen become one list.
std::vector<char*> JoinListen(int argc, char** argv, std::string* joined) {
  std::vector<char*> out(argv, argv + 1);
  int i = 1;
  for (; i < argc && std::string_view(argv[i]) != "--"; ++i) {
    const std::string_view arg = argv[i];
    const size_t dashes = arg.rfind("--", 0) == 0 ? 2 : arg.rfind("-", 0) == 0;
    std::string_view value;
    if (dashes > 0 && arg.substr(dashes) == "listen" && i + 1 < argc) {
      value = argv[++i];
    } else if (dashes > 0 && arg.substr(dashes, 7) == "listen=") {
      value = arg.substr(dashes + 7);
    } else {
      out.push_back(argv[i]);
      continue;
    }
    joined->append(joined->empty() ? "--listen=" : ",").append(value);
  }
  out.insert(out.end(), argv + i, argv + argc);
  if (!joined->empty()) out.insert(out.begin() + 1, joined->data());
  return out;
}

// What stands on the command line wins.
void ApplyFlags(kevent::config::v1::ServerConfig* config) {
  if (auto v = absl::GetFlag(FLAGS_root); !v.empty()) config->set_root(v);
  if (auto v = absl::GetFlag(FLAGS_engine); !v.empty()) config->set_engine(v);
  if (auto v = absl::GetFlag(FLAGS_workers)) config->set_workers(v);
  if (absl::GetFlag(FLAGS_listing)) config->mutable_files()->set_listing(true);
  if (auto v = absl::GetFlag(FLAGS_access_log); !v.empty()) {
    config->set_access_log(v);
  }
  if (auto v = absl::GetFlag(FLAGS_listen); !v.empty()) {
    config->clear_listen();
    for (const std::string& address : v) config->add_listen(address);
  }
}

}  // namespace

int main(int argc, char** argv) {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  Daemon::BlockSignals();
  absl::SetProgramUsageMessage(
      "Serves a directory over HTTP/1.1.\n\n  keventd --root=DIR "
      "[--listen=ADDR:PORT ...] [--engine=auto|module|uring|epoll] "
      "[--workers=N]\n          [--config=FILE.textproto] "
      "[--access_log=PATH]\n          "
      "[--admin=unix:PATH|off] [--admin_http=ADDR:PORT|unix:PATH|off]");
  absl::FlagsUsageConfig usage;
  usage.contains_help_flags = [](absl::string_view file) {
    return absl::EndsWith(file, "keventd/main.cc");
  };
  usage.version_string = [] {
    return std::string("keventd ") + kevent::keventd::kVersion + "\n";
  };
  absl::SetFlagsUsageConfig(usage);
  std::string joined;
  std::vector<char*> args = JoinListen(argc, argv, &joined);
  std::vector<char*> rest =
      absl::ParseCommandLine(static_cast<int>(args.size()), args.data());
  if (rest.size() > 1) {
    return Fail(std::string("unexpected argument ") + rest[1] +
                "; the directory is given as --root=DIR");
  }
  if (!joined.empty() && absl::GetFlag(FLAGS_listen).empty()) {
    return Fail("--listen names no address; write ADDR:PORT or unix:PATH");
  }
  Daemon::Source source;
  source.path = absl::GetFlag(FLAGS_config);
  source.overlay = ApplyFlags;
  if (!source.path.empty()) {
    auto loaded = kevent::keventd::LoadConfig(source.path);
    if (!loaded.ok()) return Fail(loaded.status());
    source.config = *std::move(loaded);
  }
  ApplyFlags(&source.config);

  auto options = kevent::keventd::Validate(source.config);
  if (!options.ok()) return Fail(options.status());
  auto daemon = Daemon::Create(*options, std::move(source));
  if (!daemon.ok()) return Fail(daemon.status());
  kevent::keventd::AdminFlags flags;
  flags.address = absl::GetFlag(FLAGS_admin);
  flags.http_address = absl::GetFlag(FLAGS_admin_http);
  flags.tls_certificate = absl::GetFlag(FLAGS_admin_tls_cert);
  flags.tls_key = absl::GetFlag(FLAGS_admin_tls_key);
  flags.tls_ca = absl::GetFlag(FLAGS_admin_tls_ca);
  flags.operators = absl::GetFlag(FLAGS_admin_operators);
  absl::Status admin = (*daemon)->StartAdmin(flags);
  if (!admin.ok()) return Fail(admin);
  (*daemon)->log().Write(kevent::log::Level::kInfo,
                         "engine " + (*daemon)->EngineReason());
  printf("%s\n", (*daemon)->ReadyLine().c_str());
  fflush(stdout);
  absl::Status status = (*daemon)->Run();
  if (!status.ok()) return Fail(status);
  return 0;
}
