// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_KEVCTL_COMMANDS_H_
#define SERVER_KEVCTL_COMMANDS_H_

#include <span>
#include <string>
#include <vector>

#include "server/kevctl/client.h"

namespace kevent::kevctl {

struct Invocation {
  Client* client = nullptr;
  std::vector<std::string> arguments;  // after the command's name
  bool json = false;
};

struct Command {
  const char* name;
  const char* arguments;  // for the usage; flags in it are completed
  const char* help;
  size_t min_arguments;
  size_t max_arguments;
  int (*run)(const Invocation& invocation);  // returns the exit code
};

std::span<const Command> Commands();

}  // namespace kevent::kevctl

#endif  // SERVER_KEVCTL_COMMANDS_H_
