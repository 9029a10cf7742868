#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# What runs in the guest for ./kev bench vm cold: hot requests, one after the other,
# first alone (control) and then while other connections pull files that are not in
# the page cache. Prints for each
#   SERVER control|cold LONGEST_US MEDIAN_US HOT_PER_S COLD_BYTES_PER_S
#
#   cold.sh "SERVERS" ROUNDS SECONDS PULLING
set -eu
here=$(dirname "$0")
# shellcheck source=benchmarks/vm/await.sh disable=SC1091
. "$here/await.sh"
# shellcheck source=benchmarks/vm/nginx.sh disable=SC1091
. "$here/nginx.sh"
servers=$1 rounds=$2 seconds=$3 pulling=$4
port=8080
root=/disk/files
run=/run/bench
mkdir -p "$root" "$run"
# shellcheck disable=SC3045  # busybox has it
ulimit -n 4096

# So that a server and its client wake each other up across processors, as they do
# where the client is another machine.
on_server="taskset 1"
on_client="taskset 2"

hot_bytes=1024
cold_bytes=8388608
cold_files=16
dd if=/dev/urandom of="$root/hot.bin" bs="$hot_bytes" count=1 2>/dev/null
echo "$hot_bytes /hot.bin" >"$run/hot"
: >"$run/cold"
file=0
while [ "$file" -lt "$cold_files" ]; do
  dd if=/dev/urandom of="$root/cold$file.bin" bs="$cold_bytes" count=1 2>/dev/null
  echo "$cold_bytes /cold$file.bin" >>"$run/cold"
  file=$((file + 1))
done
sync

# serve SERVER: starts it, `pid`.
serve() {
  case $1 in
    module | uring | epoll)
      $on_server keventd --root="$root" --listen="127.0.0.1:$port" --workers=1 \
        --access_log=off --admin=off --engine="$1" >/dev/null 2>&1 &
      ;;
    nginx-*)
      nginx_configuration "$here/conf/$1.conf" "$run" "$root" "$port" \
        >"$run/nginx.conf"
      $on_server nginx -c "$run/nginx.conf" -g 'daemon off;' &
      ;;
  esac
  pid=$!
  await listening
}

# number NAME FILE: prints that number of the JSON that load printed.
number() {
  sed -n "s/.*\"$1\":\\([0-9.]*\\).*/\\1/p" "$2"
}

# hot: the hot requests alone.
hot() {
  $on_client "$here/load" --port="$port" --targets="$run/hot" --connections=1 \
    --warmup=0.5 --seconds="$seconds" >"$run/hot.json"
}

# tell SERVER WHAT COLD_BYTES_PER_S
tell() {
  answers=$(number answers "$run/hot.json")
  echo "$1 $2 $(number max_us "$run/hot.json") $(number p50_us "$run/hot.json")" \
    "$((answers / seconds)) $3"
}

round=0
while [ "$round" -lt "$rounds" ]; do
  for server in $servers; do
    serve "$server"
    # Opens the file, and whatever else comes with the first requests.
    hot
    hot
    tell "$server" control 0
    $on_client "$here/load" --port="$port" --targets="$run/cold" \
      --connections="$pulling" --warmup=0.2 --seconds=$((seconds + 1)) \
      --evict_root="$root" >"$run/cold.json" &
    puller=$!
    hot
    wait "$puller"
    # Bytes of all that came, in whole files or not.
    pulled=$(number body_bytes "$run/cold.json")
    tell "$server" cold "$((pulled / (seconds + 1)))"
    kill "$pid"
    wait "$pid" || true
    await gone
  done
  round=$((round + 1))
done
