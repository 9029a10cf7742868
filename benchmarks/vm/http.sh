#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# What runs in the guest for ./kev bench vm: prints a line
#   SERVER BYTES CONNECTIONS INSTRUCTIONS
# for each server, size of file and number of connections. The folder of this
# file has requests, floor and conf/.
#
#   http.sh "SERVERS" "BYTES ..." "CONNECTIONS ..."
set -eu
here=$(dirname "$0")
servers=$1 sizes=$2 counts=$3
port=8080
root=/disk/files
run=/run/bench
mkdir -p "$root" "$run"
# shellcheck disable=SC3045  # busybox has it
ulimit -n 4096
for bytes in $sizes; do
  dd if=/dev/urandom of="$root/$bytes.bin" bs="$bytes" count=1 2>/dev/null
done

# serve SERVER BYTES: starts it, `pid`.
serve() {
  case $1 in
    floor) "$here/floor" "$port" "$2" & ;;
    module | uring | epoll)
      keventd --root="$root" --listen="127.0.0.1:$port" --workers=1 --access_log=off \
        --admin=off --engine="$1" >/dev/null &
      ;;
    nginx-*)
      sed -e "s|@NOFILE@|4096|" -e "s|@RUN@|$run|" -e "s|@CONNECTIONS@|1024|" \
        -e "s|@PORT@|$port|" -e "s|@ROOT@|$root|" "$here/conf/$1.conf" >"$run/nginx.conf"
      nginx -c "$run/nginx.conf" -g 'daemon off;' &
      ;;
  esac
  pid=$!
  tries=200
  while ! grep -q ':1F90 00000000:0000 0A' /proc/net/tcp; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || exit 1
    usleep 20000
  done
}

for bytes in $sizes; do
  # About as long for each.
  requests=$((400000000 / (bytes + 40000)))
  [ "$requests" -lt 4000 ] || requests=4000
  for server in $servers; do
    serve "$server" "$bytes"
    for count in $counts; do
      echo "$server $bytes $count $("$here/requests" "$port" "/$bytes.bin" "$bytes" "$count" "$requests")"
    done
    kill "$pid"
    wait "$pid" || true
  done
done
