#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Counts instructions in the virtual machine; see benchmarks/README.md.

The guest has one processor, whose clock advances by one nanosecond for each
instruction: what time a run takes there is what the whole machine executes,
server, kernel and client together.
"""

import argparse
import json
import re
import sys

from macro import report
from macro.arguments import count, keep_or_close, list_of, parse_size
from macro.rounds import size_name
from vm import cold, costs, echo, figures2006, guest

SERVERS = ["floor", "module", "uring", "epoll", "nginx-sendfile", "nginx-buffered"]
# (module - floor) / (nginx - floor), by size of the file, with kept connections.
AIMS = {1 << 10: 0.35, 100 << 10: 0.5}


def requests(args, results):
    """Measures what a request costs with each server."""
    adds = guest.http() + guest.configurations(args.servers)
    # Without: with one processor whoever is woken may interrupt whoever wakes, and
    # nothing gathers.
    command = [] if args.preempt else ["/bench/batch"]
    command += ["sh", "/bench/http.sh", " ".join(args.servers),
               " ".join(map(str, args.sizes)), " ".join(map(str, args.connections)),
               " ".join(args.modes), "1000" if args.quick else "4000"]
    for line in guest.run(args, adds, command):
        match = re.fullmatch(r"(\S+) (\d+) (\d+) (keep|close) (\d+)", line)
        if not match:
            print(line, file=sys.stderr)
            continue
        server, size, connections, mode, cost = match.groups()
        name, _, engine = server.partition("-")
        if name not in ("floor", "nginx"):
            name, engine = "keventd", server
        results.append({"server": name, "engine": engine, "kernel": args.kernel,
                        "file_bytes": int(size), "connections": int(connections),
                        "keepalive": mode == "keep",
                        "instructions_per_request": int(cost)})
        guest.say(f"{size_name(int(size))} {connections} {mode} {server}: {cost}")


def request_table(results):
    """Yields the lines of the table of requests()."""
    def name(cell):
        prefix = "nginx-" if cell["server"] == "nginx" else ""
        return prefix + (cell["engine"] or cell["server"])

    servers = list(dict.fromkeys(map(name, results)))
    by_cell = {}
    for r in results:
        key = (not r["keepalive"], r["file_bytes"], r["connections"])
        cell = by_cell.setdefault(key, {})
        cell[name(r)] = r["instructions_per_request"]
    rows = []
    for (close, size, connections), cost in sorted(by_cell.items()):
        nginx = min((cost[s] for s in cost if s.startswith("nginx-")), default=None)
        row = [size_name(size), str(connections), "close" if close else "keep"]
        row += [str(cost.get(server, "-")) for server in servers]
        note = ""
        if nginx and "module" in cost and "floor" in cost:
            ratio = (cost["module"] - cost["floor"]) / (nginx - cost["floor"])
            note = f"{ratio:.2f}"
            if size in AIMS and not close:
                note += f" (aim {AIMS[size]})"
        rows.append(row + [note])
    headings = ["file", "connections", "mode"] + servers + ["(module-floor)/(nginx-floor)"]
    yield from report.table(rows, headings)


def events(args, results):
    """Measures what an event costs beside idle interests."""
    command = ["/bench/events"] + [str(n) for n in args.interests]
    for line in guest.run(args, guest.programs("events"), command):
        if line.startswith("{"):
            results.append(json.loads(line))
            guest.say(line)


def event_table(results):
    """Yields the lines of the table of events(): beyond the layer "none"."""
    by_cell = {}
    for r in results:
        by_cell.setdefault((r["interests"], r["active"]), {})[r["layer"]] = \
            r["instructions_per_event"]
    layers = [layer for layer in dict.fromkeys(r["layer"] for r in results)
              if layer != "none"]
    rows = [[str(interests), str(active)] + [f"{cost[layer] - cost['none']:.0f}"
                                             for layer in layers]
            for (interests, active), cost in by_cell.items()]
    yield from report.table(rows, ["interests", "active"] + layers)


# What to run: how it measures into a list of results, prints them, and calls that.
PARTS = {
    "requests": (requests, request_table, "instructions for each request, of the whole guest"),
    "events": (events, event_table,
               "instructions for each event, beyond those without an event layer"),
    "echo": (echo.measure, echo.table,
             "instructions for each message of 64 bytes and its echo, of the whole guest"),
    "2006": (figures2006.measure, figures2006.table,
             "the benchmarks of 2006: how many times faster"),
    "cold": (cold.measure, cold.table,
             "the longest wait of a hot request: of each round, median and maximum"),
}


def main():
    parser = argparse.ArgumentParser(
        prog="kev bench vm", description="Counts instructions in the virtual machine.")
    parser.add_argument("what", nargs="?", default=None,
                        choices=["requests", "events", "echo", "2006", "cold", "costs", "all"],
                        help="all: all but cold and costs")
    parser.add_argument("--quick", action="store_true",
                        help="requests alone, and fewer of them, unless told otherwise")
    parser.add_argument("--kernel", default="6.1", choices=["6.1", "6.12"])
    parser.add_argument("--sizes", default="1K,16K,100K,1M", type=list_of(parse_size))
    parser.add_argument("--connections", default="1,64", type=list_of(count))
    parser.add_argument("--modes", default="keep,close", type=list_of(keep_or_close))
    parser.add_argument("--servers", default=",".join(SERVERS), type=list_of(str))
    parser.add_argument("--preempt", action="store_true",
                        help="requests: let woken processes interrupt each other")
    parser.add_argument("--interests", default="1,64,1000,10000,100000", type=list_of(count))
    parser.add_argument("--timeout", type=int, default=3600, metavar="SECONDS")
    parser.add_argument("--rounds", default=5, type=count, help="cold")
    parser.add_argument("--update", action="store_true",
                        help="costs: makes what was measured the committed figures")
    parser.add_argument("--counts", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("--out", metavar="FILE.json")
    args = parser.parse_args()
    args.what = args.what or ("requests" if args.quick else "all")
    unknown = set(args.servers) - set(SERVERS)
    if unknown:
        parser.error(f"unknown servers: {', '.join(sorted(unknown))}")
    if args.what == "costs":
        return costs.costs(args)
    result = {"kernel": args.kernel}
    for what, (measure, table, title) in PARTS.items():
        if args.what != what and (args.what != "all" or what == "cold"):
            continue
        results = result["cells" if what == "requests" else what] = []
        measure(args, results)
        print(title)
        print("\n".join(table(results)), flush=True)
    if args.out:
        with open(args.out, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
