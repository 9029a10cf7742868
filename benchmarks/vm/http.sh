#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# What runs in the guest for ./kev bench vm: prints a line
#   SERVER BYTES CONNECTIONS MODE INSTRUCTIONS
# for each server, size of file, number of connections and mode (keep, or close: a
# connection for each request), of at most MOST requests (4000). With "user" the lines are
#   SERVER BYTES CONNECTIONS MODE user INSTRUCTIONS
# of what keventd executes in user space for each. The folder of this file has
# requests, user_cost, floor and conf/.
#
#   http.sh "SERVERS" "BYTES ..." "CONNECTIONS ..." "MODES" [MOST [user]]
set -eu
here=$(dirname "$0")
# shellcheck source=benchmarks/vm/await.sh disable=SC1091
. "$here/await.sh"
# shellcheck source=benchmarks/vm/nginx.sh disable=SC1091
. "$here/nginx.sh"
servers=$1 sizes=$2 counts=$3 modes=$4 most=${5:-4000} what=${6:-all}
port=8080
root=/disk/files
run=/run/bench
mkdir -p "$root" "$run"
# shellcheck disable=SC3045  # busybox has it
ulimit -n 4096
# Who is out of these resets what ends: for all servers alike they suffice.
echo 262144 >/proc/sys/net/ipv4/tcp_max_tw_buckets
for bytes in $sizes; do
  dd if=/dev/urandom of="$root/$bytes.bin" bs="$bytes" count=1 2>/dev/null
done

# serve SERVER BYTES MODE: starts it, `pid`.
serve() {
  case $1 in
    floor) "$here/floor" "$port" "$2" "$3" & ;;
    module | uring | epoll)
      keventd --config="$here/conf/keventd.textproto" --root="$root" \
        --listen="127.0.0.1:$port" --workers=1 --access_log=off --admin=off \
        --engine="$1" >/dev/null &
      ;;
    nginx-*)
      nginx_configuration "$here/conf/$1.conf" "$run" "$root" "$port" \
        >"$run/nginx.conf"
      nginx -c "$run/nginx.conf" -g 'daemon off;' &
      ;;
  esac
  pid=$!
  await listening
}

# measure SERVER BYTES MODE: of one that runs.
measure() {
  # About as long for each.
  requests=$((400000000 / ($2 + 40000)))
  [ "$requests" -lt "$most" ] || requests=$most
  # What is touched for the first time, above all memory, and what the kernel has
  # still to do for who ran before, are no request's cost.
  most_connections=0
  for count in $counts; do
    [ "$count" -le "$most_connections" ] || most_connections=$count
  done
  "$here/requests" "$port" "/$2.bin" "$2" "$most_connections" "$requests" "$3" >/dev/null
  for count in $counts; do
    command="$here/requests $port /$2.bin $2 $count $requests $3"
    if [ "$what" = user ]; then
      # requests warms up by a quarter more, and one for each connection.
      # shellcheck disable=SC2086
      cost=$("$here/user_cost" "$pid" $command)
      echo "$1 $2 $count $3 user $((cost / (requests + requests / 4 + count)))"
    else
      cost=$($command)
      echo "$1 $2 $count $3 $cost"
    fi
  done
}

for bytes in $sizes; do
  for mode in $modes; do
    for server in $servers; do
      serve "$server" "$bytes" "$mode"
      measure "$server" "$bytes" "$mode"
      kill "$pid"
      wait "$pid" || true
      await gone
    done
  done
done
