#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Starts the example with an admin service, and asks it.
set -euo pipefail

admin=$1 kevctl=$2
dir=$(mktemp -d /tmp/kevent-example.XXXXXX)
trap 'kill "$pid" 2>/dev/null || true; rm -rf "$dir"' EXIT

exec {out}< <(exec "$admin" 127.0.0.1:0 "unix:$dir/sock")
pid=$!
read -r -t 30 line <&"$out"
port=${line##*:}
for _ in 1 2 3; do
  exec {socket}<>"/dev/tcp/127.0.0.1/$port"
  printf 'GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' >&"$socket"
  timeout 30 cat <&"$socket" >/dev/null
  exec {socket}>&-
done

# has PATTERN COMMAND: kevctl's answer.
has() {
  local answer
  answer=$("$kevctl" --admin="unix:$dir/sock" "${@:2}")
  grep -Eq -- "$1" <<<"$answer" || {
    echo "kevctl ${*:2} has no '$1': $answer"
    exit 1
  }
}

has 'hello 1.0' info
has 'hello_greetings_total +3' stats
has '"responses_2xx": "3"' stats --format=json
has drained drain --wait
