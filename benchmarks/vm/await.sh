# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash
#
# For the scripts of this folder, which set `port` to 8080.

# listening: is there a listener of that port?
listening() { grep -q ':1F90 00000000:0000 0A' /proc/net/tcp; }
# gone: that of a killed server lives on for a moment where io_uring has it.
gone() { ! listening; }

# await CONDITION: until it holds.
await() {
  tries=200
  until "$1"; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || exit 1
    usleep 20000
  done
}
