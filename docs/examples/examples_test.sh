#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Starts each example on a free port and talks to it.
set -euo pipefail

hello=$1 echo_server=$2
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true' EXIT

# start BINARY: runs it on a free port and sets $port.
start() {
  local line
  exec {out}< <(exec "$1" 127.0.0.1:0)
  pids+=($!)
  read -r -t 30 line <&"$out"
  port=${line##*:}
}

start "$hello"
exec {socket}<>"/dev/tcp/127.0.0.1/$port"
printf 'GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' >&"$socket"
answer=$(timeout 30 cat <&"$socket")
[[ $answer == "HTTP/1.1 200 OK"* && $answer == *"Hello, world" ]] || {
  echo "hello answered: $answer"
  exit 1
}

start "$echo_server"
exec {socket}<>"/dev/tcp/127.0.0.1/$port"
for word in one two three; do
  echo "$word" >&"$socket"
  read -r -t 30 answer <&"$socket"
  [[ $answer == "$word" ]] || {
    echo "echo answered '$answer' to '$word'"
    exit 1
  }
done
