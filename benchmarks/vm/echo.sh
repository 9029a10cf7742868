#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# What runs in the guest for ./kev bench vm echo: prints a line
#   SERVER CONNECTIONS INSTRUCTIONS
# for each server and number of connections.
#
#   echo.sh "SERVERS" "CONNECTIONS ..." MESSAGES
set -eu
here=$(dirname "$0")
# shellcheck source=benchmarks/vm/await.sh disable=SC1091
. "$here/await.sh"
servers=$1 counts=$2 messages=$3
port=8080

# serve SERVER: starts it, `pid`.
serve() {
  case $1 in
    floor) "$here/echo_floor" "$port" & ;;
    module | uring | epoll) "$here/echo_kevent" "$port" "$1" & ;;
    asio) "$here/echo_asio" "$port" & ;;
    libuv) "$here/echo_libuv" "$port" & ;;
    libevent-*) "$here/echo_libevent" "$port" "${1#libevent-}" & ;;
  esac
  pid=$!
  await listening
}

for server in $servers; do
  serve "$server"
  for count in $counts; do
    cost=$("$here/echo_client" "$port" "$count" "$messages")
    echo "$server $count $cost"
  done
  kill "$pid"
  wait "$pid" || true
  await gone
done
