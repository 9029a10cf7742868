// SPDX-License-Identifier: Apache-2.0
#include <signal.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/match.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/kevctl/client.h"
#include "server/kevctl/commands.h"
#include "server/kevctl/completion.h"
#include "server/kevctl/screen.h"

ABSL_FLAG(std::string, admin, "",
          "address of the server, unix:PATH, or HOST:PORT with TLS (default: "
          "the first that is there "
          "of admin.sock in $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR/kevent and "
          "/run/kevent)");
ABSL_FLAG(std::string, tls_ca, "",
          "for HOST:PORT: the server's authority, in PEM");
ABSL_FLAG(std::string, tls_cert, "", "for HOST:PORT: our certificate, in PEM");
ABSL_FLAG(std::string, tls_key, "", "for HOST:PORT: its key, in PEM");
ABSL_FLAG(std::string, tls_name, "",
          "for HOST:PORT: the name in the server's certificate, if it is "
          "another one");
ABSL_FLAG(std::string, format, "text", "text or json");
ABSL_FLAG(absl::Duration, timeout, absl::Seconds(10),
          "how long a call may take");

namespace {

using kevent::kevctl::Client;
using kevent::kevctl::Command;
using kevent::kevctl::Commands;
using kevent::kevctl::ExitCode;

std::string Usage() {
  std::string text =
      "Looks into a running server and steers it.\n\n"
      "  kevctl [--admin=unix:PATH|HOST:PORT] [--format=text|json] COMMAND "
      "...\n\n";
  for (const Command& command : Commands()) {
    std::string line = std::string("  ") + command.name;
    if (*command.arguments) line += std::string(" ") + command.arguments;
    if (line.size() < 32) {
      line.append(32 - line.size(), ' ');
    } else {
      line += "\n" + std::string(32, ' ');
    }
    text += line + command.help + "\n";
  }
  text +=
      "  completion                    a script for bash: . <(kevctl "
      "completion)\n"
      "\nExit codes: 0 done, 1 the call failed, 2 bad usage, 3 the server does "
      "not run,\n4 not permitted.\n";
  return text;
}

// "--name" of every flag in a usage like "[--name=VALUE] [--other]".
std::string FlagsOf(std::string_view usage) {
  std::string flags;
  for (size_t at = 0; (at = usage.find("--", at)) != std::string_view::npos;) {
    size_t end = usage.find_first_not_of("-abcdefghijklmnopqrstuvwxyz_", at);
    if (end == std::string_view::npos) end = usage.size();
    flags +=
        (flags.empty() ? "" : " ") + std::string(usage.substr(at, end - at));
    at = end;
  }
  return flags;
}

std::string CompletionScript() {
  std::vector<kevent::kevctl::Completion> commands;
  for (const Command& command : Commands()) {
    commands.push_back({command.name, FlagsOf(command.arguments)});
  }
  commands.push_back({"help", ""});
  commands.push_back({"completion", ""});
  return kevent::kevctl::BashCompletion(
      commands,
      "--admin --format --timeout --tls_ca --tls_cert "
      "--tls_key --tls_name");
}

int BadUsage(const std::string& text) {
  fprintf(stderr, "kevctl: %s\n", text.c_str());
  return kevent::kevctl::kBadUsage;
}

}  // namespace

int main(int argc, char** argv) {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  // A pipe that is closed is found out by writing to it.
  signal(SIGPIPE, SIG_IGN);
  absl::SetProgramUsageMessage(Usage());
  absl::FlagsUsageConfig config;
  config.contains_help_flags = [](absl::string_view file) {
    return absl::StrContains(file, "server/kevctl/");
  };
  absl::SetFlagsUsageConfig(config);
  std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  if (rest.size() < 2 || std::string_view(rest[1]) == "help") {
    fputs(Usage().c_str(), rest.size() < 2 ? stderr : stdout);
    return rest.size() < 2 ? kevent::kevctl::kBadUsage : kevent::kevctl::kOk;
  }
  if (std::string_view(rest[1]) == "completion") {
    fputs(CompletionScript().c_str(), stdout);
    return kevent::kevctl::kOk;
  }
  const std::string format = absl::GetFlag(FLAGS_format);
  if (format != "text" && format != "json") {
    return BadUsage("--format=" + format + ": text or json");
  }
  const absl::Duration timeout = absl::GetFlag(FLAGS_timeout);
  if (timeout <= absl::ZeroDuration() || timeout > absl::Hours(24)) {
    return BadUsage("--timeout: more than nothing and at most a day");
  }
  const std::string name = rest[1];
  for (const Command& command : Commands()) {
    if (name != command.name) continue;
    kevent::kevctl::Invocation in;
    in.arguments.assign(rest.begin() + 2, rest.end());
    in.json = format == "json";
    if (in.arguments.size() < command.min_arguments ||
        in.arguments.size() > command.max_arguments) {
      return BadUsage("usage: kevctl " + name + " " + command.arguments);
    }
    // gRPC's threads must not take them.
    if (name == "top") kevent::kevctl::Screen::BlockSignals();
    std::string error;
    ExitCode code = kevent::kevctl::kOk;
    const Client::Tls tls = {
        absl::GetFlag(FLAGS_tls_ca), absl::GetFlag(FLAGS_tls_cert),
        absl::GetFlag(FLAGS_tls_key), absl::GetFlag(FLAGS_tls_name)};
    auto client =
        Client::Connect(absl::GetFlag(FLAGS_admin), tls,
                        absl::ToChronoMilliseconds(timeout), &error, &code);
    if (!client) {
      google::rpc::Status failure;
      failure.set_code(code == kevent::kevctl::kNotPermitted
                           ? grpc::StatusCode::PERMISSION_DENIED
                       : code == kevent::kevctl::kNotRunning
                           ? grpc::StatusCode::UNAVAILABLE
                           : grpc::StatusCode::INVALID_ARGUMENT);
      failure.set_message(error);
      kevent::kevctl::Complain(failure, in.json);
      return code;
    }
    in.client = client.get();
    return command.run(in);
  }
  return BadUsage("no command \"" + name + "\"; kevctl help lists them");
}
