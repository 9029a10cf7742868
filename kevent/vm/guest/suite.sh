# SPDX-License-Identifier: Apache-2.0
#
# Sourced by the /vm/command of `vm.py test`: runs test programs one after another.
#
# What a test prints goes to the host as it comes, between lines that begin with
# the character RS: "begin NUMBER" and "end NUMBER STATUS MILLISECONDS NOTE".
#
# shellcheck shell=dash

rs=$(printf '\036')
mkdir -p /disk/tmp /run/xml
chmod 1777 /run/xml

# processes: prints the processes of user space; kernel threads have no command line.
processes() {
  for process in /proc/[0-9]*; do
    words=
    IFS= read -r words <"$process/cmdline"
    [ -z "$words" ] || echo "${process##*/}"
  done 2>/dev/null
}

milliseconds() {
  read -r up _ </proc/uptime
  echo "${up%.*}${up#*.}0"
}

# stacks GROUP: where the threads of a process group are.
stacks() {
  for stat in /proc/[0-9]*/stat; do
    # The fields after the name in brackets: state, parent, group.
    group=$(sed 's/.*) . [0-9]* \([0-9]*\) .*/\1/' "$stat" 2>/dev/null)
    [ "$group" = "$1" ] || continue
    for task in "${stat%/stat}"/task/*; do
      echo "--- $task $(cat "$task/comm") $(sed -n 's/^State:\t//p' "$task/status")"
      cat "$task/stack"
    done
  done
}

# watch GROUP SECONDS: ends a process group that takes longer.
watch() {
  sleep "$2"
  echo timeout >/run/vm.note
  printf '\nkevent-vm: no end after %s seconds; kernel stacks:\n' "$2"
  stacks "$1"
  kill -KILL "-$1"
  sleep 30
  printf '\nkevent-vm: it cannot be killed either\n'
  echo w >/proc/sysrq-trigger
  stacks "$1"
  echo "stuck a test cannot be killed" >&3
  sleep 1
  printf '\002' | dd of=/dev/port bs=1 seek=244 conv=notrunc 2>/dev/null
}

# run_test NUMBER NAME USER SECONDS: runs /vm/tests/NUMBER.
run_test() {
  number=$1 name=$2 user=$3 limit=$4
  echo "kevent-vm: begin $name" >/dev/kmsg
  printf '\n%sbegin %s\n' "$rs" "$number"
  mkdir -p "/disk/tmp/$number"
  chown "$user" "/disk/tmp/$number"
  rm -f /run/vm.note
  before=$(processes | tr '\n' ' ')
  start=$(milliseconds)
  if [ "$user" = root ]; then
    setsid sh "/vm/tests/$number" 3>&- 2>&1 &
  else
    setsid su "$user" -s /bin/sh -c "exec sh /vm/tests/$number" 3>&- 2>&1 &
  fi
  group=$!
  setsid sh -c '. /vm/suite.sh && watch "$@"' sh "$group" "$limit" &
  dog=$!
  wait "$group"
  status=$?
  duration=$(($(milliseconds) - start))
  # With its sleep.
  kill -KILL "-$dog" 2>/dev/null
  wait "$dog" 2>/dev/null
  # What the test left running.
  for process in $(processes); do
    case " $before" in
      *" $process "*) ;;
      *) kill -KILL "$process" 2>/dev/null ;;
    esac
  done
  note=$(cat /run/vm.note 2>/dev/null)
  # Files of killed processes may go a moment later.
  tries=100
  while [ "$(cat /sys/module/kevent/refcnt 2>/dev/null || echo 0)" != 0 ]; do
    tries=$((tries - 1))
    if [ "$tries" -eq 0 ]; then
      note=${note:-in-use}
      break
    fi
    usleep 50000
  done
  if [ -e "/run/xml/$number.xml" ]; then
    (cd /run/xml && tar -c -f - "$number.xml" >/dev/vm/files 2>/dev/null)
    rm -f "/run/xml/$number.xml"
  fi
  rm -rf "/disk/tmp/$number"
  printf '\n%send %s %s %s %s\n' "$rs" "$number" "$status" "$duration" "$note"
  echo "kevent-vm: end $name" >/dev/kmsg
}
