# SPDX-License-Identifier: Apache-2.0
"""Echo servers on kevent::Queue and on other libraries, in instructions."""

import re

from macro import report
from vm import guest

SERVERS = ["floor", "module", "uring", "epoll", "asio", "libuv", "libevent-event",
           "libevent-bufferevent"]
MESSAGES = 8000


def measure(args, results):
    """Adds what a message of 64 bytes and its echo cost with each server."""
    adds = (guest.programs("batch", "echo_client", "echo_floor", "echo_kevent", "echo_asio",
                           "echo_libuv", "echo_libevent")
            + guest.scripts("await.sh", "echo.sh"))
    command = [] if args.preempt else ["/bench/batch"]
    command += ["sh", "/bench/echo.sh", " ".join(SERVERS),
                " ".join(map(str, args.connections)), str(MESSAGES)]
    for line in guest.run(args, adds, command):
        match = re.fullmatch(r"(\S+) (\d+) (\d+)", line)
        if match:
            server, connections, cost = match.groups()
            results.append({"server": server, "connections": int(connections),
                            "instructions_per_message": int(cost)})
            guest.say(f"{connections} {server}: {cost}")


def table(results):
    """Yields the lines of the table of measure()."""
    costs = {}
    for r in results:
        costs.setdefault(r["server"], {})[r["connections"]] = r["instructions_per_message"]
    counts = sorted({r["connections"] for r in results})
    rows = []
    for server, cost in costs.items():
        row = [server, ""]
        for count in counts:
            row += [str(cost[count]), f"{cost[count] / costs['floor'][count]:.3f}"]
        rows.append(row)
    headings = ["server", ""]
    for count in counts:
        headings += [f"{count} connections", "to floor"]
    yield from report.table(rows, headings)
