#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# What runs in the guest for ./kev bench vm 2006: the benchmarks of 2006 in their own
# terms, so many times in turn. Prints JSON lines of `events`, and lines
#   short LAYER NANOSECONDS        for each request on a connection of its own
#   paths LAYER NANOSECONDS        for each file of 1 MiB sent
# (with deterministic instruction counts: instructions).
#
#   figures2006.sh TIMES EVENTS REQUESTS ROUNDS
set -eu
here=$(dirname "$0")
# shellcheck source=benchmarks/vm/await.sh disable=SC1091
. "$here/await.sh"
times=$1 events=$2 requests=$3 rounds=$4
port=8080
folder=/disk/files
page=/disk/index.html
bytes=4096
mkdir -p "$folder"
# shellcheck disable=SC3045  # busybox has it
ulimit -n 8192

head -c "$bytes" /dev/zero | tr '\0' x >"$page"
file=0
while [ "$file" -lt 100 ]; do
  dd if=/dev/zero of="$folder/$file" bs=1048576 count=1 2>/dev/null
  file=$((file + 1))
done
sync

# short LAYER
short() {
  case $1 in
    epoll) "$here/short_epoll" "$port" "$page" & ;;
    *) "$here/short_kevent" "$port" "$page" "${1#queue-}" & ;;
  esac
  pid=$!
  await listening
  cost=$("$here/short_client" "$port" 64 "$requests" "$bytes")
  echo "short $1 $cost"
  kill "$pid"
  wait "$pid" || true
  await gone
}

time=0
while [ "$time" -lt "$times" ]; do
  "$here/events" --tcp --events="$events" 2000
  "$here/events" --events="$events" 2000
  for layer in epoll module uring queue-epoll; do
    short "$layer"
  done
  for layer in epoll kevent; do
    cost=$("$here/paths" "$layer" "$folder" 100 "$rounds")
    echo "paths $layer $cost"
  done
  time=$((time + 1))
done
