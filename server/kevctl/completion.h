// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_KEVCTL_COMPLETION_H_
#define SERVER_KEVCTL_COMPLETION_H_

#include <span>
#include <string>

namespace kevent::kevctl {

struct Completion {
  std::string command;
  std::string flags;  // separated by blanks, each with its two dashes
};

std::string BashCompletion(std::span<const Completion> commands,
                           const std::string& common_flags);
// A script for bash: . <(kevctl completion)

}  // namespace kevent::kevctl

#endif  // SERVER_KEVCTL_COMPLETION_H_
