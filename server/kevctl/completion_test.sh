#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What bash would offer for some beginnings of a line.
set -euo pipefail

kevctl=$1
# shellcheck source=/dev/null
. <("$kevctl" completion)

# offers EXPECTED WORD ...: completing the last WORD, as bash parts the line.
offers() {
  local expected=$1
  COMP_WORDS=(kevctl "${@:2}")
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
  _kevctl
  [[ ${COMPREPLY[*]} == "$expected" ]] || {
    echo "for '${*:2}' it offers '${COMPREPLY[*]}', not '$expected'"
    exit 1
  }
}

offers "info interests" in
offers "drain" --format = json dr
offers "undrain" --admin = unix:/x un
offers "--format" --f
offers "text json" --format =
offers "json" --format = j
offers "--within" drain --wi
offers "--max_age" connections --ma
offers "idle" connections --state = i
offers "warning" loglevel w
offers "" info x
cd "$(mktemp -d)"
touch some.textproto
offers "some.textproto" apply so
rm some.textproto
