#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kevctl top on a terminal, which tmux is, of a keventd under load: what it
# draws, that it goes on, keeps to the size of the terminal, and gives it back.
set -euo pipefail

keventd=$PWD/$1
kevctl=$PWD/$2
load=$PWD/$3

command -v tmux >/dev/null || {
  echo "SKIPPED: tmux is not installed; ./kev setup test does it"
  # For Bazel's count.
  echo "<testsuites><testsuite name='top'><testcase name='tmux'><skipped/>" \
    "</testcase></testsuite></testsuites>" >"${XML_OUTPUT_FILE:-/dev/null}"
  exit 0
}

# Bazel's own folders are too long for the path of a socket.
dir=$(mktemp -d /tmp/kevctl-top.XXXXXX)
children=()
cleanup() {
  "${mux[@]}" kill-server 2>/dev/null || true
  for child in "${children[@]}"; do
    kill "$child" 2>/dev/null || true
    wait "$child" 2>/dev/null || true
  done
  rm -rf "$dir"
}
mux=(tmux -S "$dir/tmux" -f /dev/null)
trap cleanup EXIT

screen() {
  "${mux[@]}" capture-pane -p
}

fail() {
  echo "$1; on the screen is:" >&2
  screen >&2
  exit 1
}

# await WHAT CONDITION ...: until the command holds; 30 s at most.
await() {
  local what=$1 end=$((SECONDS + 30))
  shift
  until "$@"; do
    [[ $SECONDS -lt $end ]] || fail "$what"
    sleep 0.02
  done
}

# shows PATTERN ...: each is somewhere on the screen.
shows() {
  local text pattern
  text=$(screen)
  for pattern in "$@"; do
    grep -qE -- "$pattern" <<<"$text" || return 1
  done
}
not() {
  ! "$@"
}

mkdir "$dir/root"
echo hello >"$dir/root/a.txt"
"$keventd" --root="$dir/root" --listen=127.0.0.1:0 --workers=2 \
  --admin="unix:$dir/admin" >"$dir/out" 2>"$dir/err" &
daemon=$!
children+=("$daemon")
end=$((SECONDS + 30))
until grep -q 'listening on' "$dir/out"; do
  [[ $SECONDS -lt $end ]] || {
    cat "$dir/err" >&2
    exit 1
  }
  sleep 0.02
done
port=$(sed -n 's/^listening on http:\/\/127\.0\.0\.1:\([0-9]*\) .*/\1/p' "$dir/out")
python3 "$load" "$port" /a.txt &
children+=("$!")

export TERM=xterm
export top="$kevctl --admin=unix:$dir/admin top --interval=50ms"
"${mux[@]}" new-session -d -x 100 -y 30 'exec bash --norc --noprofile'
"${mux[@]}" send-keys "echo earlier; \$top" Enter

# Rates, latencies and queues of both workers, and in all.
await "top shows no rates" shows \
  "^keventd .* pid $daemon  engine (module|uring|epoll)  up " \
  '^worker +requests/s +sent/s +errors/s +open +p50 +p99 +p99.9' \
  '^0 +[0-9]' '^1 +[0-9]' \
  '^total +[1-9][0-9.kM]* +[0-9.]+ [KM]?i?B +0 +[1-9][0-9]* +[0-9.]+ [um]s +' \
  '^worker +entries/s +batches/s .* inline +in flight +interests' \
  '^total +[1-9][0-9.kM]* +[1-9][0-9.kM]* .* %'
not shows earlier || fail "it does not take the other screen"

# It goes on.
requests() {
  screen | sed -n 's/^total *\([0-9.kM]*\) .* [um]s .*/\1/p'
}
before=$(requests)
changed() {
  [[ -n $(requests) && $(requests) != "$before" ]]
}
await "the figures stand still" changed

# A smaller terminal: no line wraps, and what has no room is left out.
"${mux[@]}" resize-window -x 40 -y 7
fits() {
  local text
  text=$(screen)
  [[ $(wc -l <<<"$text") -le 7 ]] && grep -q '^keventd ' <<<"$text" &&
    grep -qE '^0 +' <<<"$text" && grep -qE '^total +' <<<"$text" &&
    ! grep -q 'p99.9' <<<"$text"
}
await "it does not keep to a small terminal" fits
"${mux[@]}" resize-window -x 100 -y 30
await "it does not use a large one" shows 'p99.9' 'in flight'

# q, and the terminal is as before: the first screen, with a cursor and an echo.
given_back() {
  shows '[#$] echo earlier' '^earlier' "^status $1" &&
    not shows 'requests/s' &&
    [[ $("${mux[@]}" display-message -p '#{cursor_flag} #{alternate_on}') == '1 0' ]]
}
"${mux[@]}" send-keys q
"${mux[@]}" send-keys "echo status \$?" Enter
await "q does not give the terminal back" given_back 0
await "what is typed is not echoed" shows '[#$] echo status'

# So does ^C.
"${mux[@]}" send-keys "clear; echo earlier; \$top" Enter
await "top does not begin again" shows 'requests/s' '^total +[1-9]'
"${mux[@]}" send-keys C-c
"${mux[@]}" send-keys "echo status \$?" Enter
interrupted() {
  shows '^earlier' '^status 0' && not shows 'requests/s'
}
await "^C does not end it" interrupted

# The server goes away: so does the screen, and it is said.
"${mux[@]}" send-keys "clear; \$top" Enter
await "top does not begin once more" shows 'requests/s' '^total +[1-9]'
kill "$daemon"
await "the end of the server is not told" shows '^kevctl: '
"${mux[@]}" send-keys "echo status \$?" Enter
await "the exit status is another" shows '^status 3'
not shows 'requests/s' || fail "the screen stays"
echo "top draws, keeps to its terminal, and gives it back"
