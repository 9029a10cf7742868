// SPDX-License-Identifier: Apache-2.0
#include "server/kevctl/completion.h"

namespace kevent::kevctl {

std::string BashCompletion(std::span<const Completion> commands,
                           const std::string& common_flags) {
  std::string names;
  std::string cases;
  for (const Completion& one : commands) {
    names += (names.empty() ? "" : " ") + one.command;
    if (!one.flags.empty()) {
      cases += "    " + one.command + ") flags+=\" " + one.flags + "\" ;;\n";
    }
  }
  return R"(_kevctl() {
  local word=${COMP_WORDS[COMP_CWORD]} command= i flags=")" +
         common_flags + R"("
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; ++i)); do
    # bash parts --flag=value at the =.
    if [[ ${COMP_WORDS[i]} == = || ${COMP_WORDS[i - 1]} == = ]]; then continue; fi
    if [[ ${COMP_WORDS[i]} != -* ]]; then
      command=${COMP_WORDS[i]}
      break
    fi
  done
  case $command in
)" + cases +
         R"(  esac
  if [[ $word == = || ${COMP_WORDS[COMP_CWORD - 1]} == = ]]; then
    local flag=${COMP_WORDS[COMP_CWORD - 1]}
    if [[ $word != = ]]; then flag=${COMP_WORDS[COMP_CWORD - 2]}; else word=; fi
    local values=
    case $flag in
      --format) values="text json" ;;
      --state) values="idle request response" ;;
      --source) values="server access" ;;
      --level) values="debug info warning error" ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$values" -- "$word")
  elif [[ $word == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$word")
  elif [[ -z $command ]]; then
    mapfile -t COMPREPLY < <(compgen -W ")" +
         names + R"(" -- "$word")
  elif [[ $command == apply || $command == validate ]]; then
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
  elif [[ $command == loglevel ]]; then
    mapfile -t COMPREPLY < <(compgen -W "debug info warning error" -- "$word")
  fi
}
complete -o bashdefault -F _kevctl kevctl
)";
}

}  // namespace kevent::kevctl
