#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# What runs in the guest for ./kev bench vm: prints a line
#   SERVER BYTES CONNECTIONS INSTRUCTIONS
# for each server, size of file and number of connections, of at most MOST requests
# (4000). With "user" the lines are
#   SERVER BYTES CONNECTIONS user INSTRUCTIONS
# of what keventd executes in user space for each. The folder of this file has
# requests, user_cost, floor and conf/.
#
#   http.sh "SERVERS" "BYTES ..." "CONNECTIONS ..." [MOST [user]]
set -eu
here=$(dirname "$0")
# shellcheck source=benchmarks/vm/await.sh disable=SC1091
. "$here/await.sh"
# shellcheck source=benchmarks/vm/nginx.sh disable=SC1091
. "$here/nginx.sh"
servers=$1 sizes=$2 counts=$3 most=${4:-4000} what=${5:-all}
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
      nginx_configuration "$here/conf/$1.conf" "$run" "$root" "$port" \
        >"$run/nginx.conf"
      nginx -c "$run/nginx.conf" -g 'daemon off;' &
      ;;
  esac
  pid=$!
  await listening
}

for bytes in $sizes; do
  # About as long for each.
  requests=$((400000000 / (bytes + 40000)))
  [ "$requests" -lt "$most" ] || requests=$most
  for server in $servers; do
    serve "$server" "$bytes"
    for count in $counts; do
      command="$here/requests $port /$bytes.bin $bytes $count $requests"
      if [ "$what" = user ]; then
        # requests warms up by a quarter more, and one for each connection.
        # shellcheck disable=SC2086
        cost=$("$here/user_cost" "$pid" $command)
        echo "$server $bytes $count user $((cost / (requests + requests / 4 + count)))"
      else
        cost=$($command)
        echo "$server $bytes $count $cost"
      fi
    done
    kill "$pid"
    wait "$pid" || true
    await gone
  done
done
