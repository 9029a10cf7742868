#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Counts instructions in the virtual machine; see benchmarks/README.md.

The guest has one processor, whose clock advances by one nanosecond for each
instruction: what time a run takes there is what the whole machine executes,
server, kernel and client together.
"""

import argparse
import json
import os
import re
import subprocess
import sys

from macro import report
from macro.arguments import count, list_of, parse_size
from macro.rounds import size_name

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(HERE)
SERVERS = ["floor", "module", "uring", "epoll", "nginx-sendfile", "nginx-buffered"]
# (module - floor) / (nginx - floor), by size of the file.
AIMS = {1 << 10: 0.35, 100 << 10: 0.5}


def guest(kernel, adds, command, timeout):
    """Runs a command in the guest; yields the lines of its output as they come."""
    words = [os.path.join(TOP, "kev"), "vm", "--icount", "--kernel", kernel,
             "--timeout", str(timeout)]
    for source, place in adds:
        words += ["--add", f"{source}:{place}"]
    with subprocess.Popen(words + ["--"] + command, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            yield line.rstrip("\n")
        errors = process.stderr.read()
    if process.returncode != 0:
        sys.exit(f"vm_bench: the guest failed:\n{errors}")


def requests(args, results):
    """Measures what a request costs with each server."""
    built = os.path.join(TOP, "bazel-bin/benchmarks/vm")
    adds = [(f"{built}/{name}", f"/bench/{name}") for name in ("batch", "floor", "requests")]
    adds.append((os.path.join(HERE, "vm/http.sh"), "/bench/http.sh"))
    adds += [(os.path.join(HERE, f"conf/{name}.conf"), f"/bench/conf/{name}.conf")
             for name in args.servers if name.startswith("nginx-")]
    # Without: with one processor whoever is woken may interrupt whoever wakes, and
    # nothing gathers.
    command = [] if args.preempt else ["/bench/batch"]
    command += ["sh", "/bench/http.sh", " ".join(args.servers),
               " ".join(map(str, args.sizes)), " ".join(map(str, args.connections))]
    for line in guest(args.kernel, adds, command, args.timeout):
        match = re.fullmatch(r"(\S+) (\d+) (\d+) (\d+)", line)
        if not match:
            print(line, file=sys.stderr)
            continue
        server, size, connections, cost = match.groups()
        results.append({"server": server, "file_bytes": int(size),
                        "connections": int(connections), "instructions": int(cost)})
        print(f"  {size_name(int(size))} {connections} {server}: {cost}", file=sys.stderr)


def request_table(results, servers):
    """Yields the lines of the table of requests()."""
    costs = {}
    for r in results:
        costs.setdefault((r["file_bytes"], r["connections"]), {})[r["server"]] = r["instructions"]
    rows = []
    for (size, connections), cost in sorted(costs.items()):
        nginx = min((cost[s] for s in cost if s.startswith("nginx-")), default=None)
        row = [size_name(size), str(connections)]
        row += [str(cost.get(server, "-")) for server in servers]
        note = ""
        if nginx and "module" in cost and "floor" in cost:
            ratio = (cost["module"] - cost["floor"]) / (nginx - cost["floor"])
            note = f"{ratio:.2f}"
            if size in AIMS:
                note += f" (aim {AIMS[size]})"
        rows.append(row + [note])
    headings = ["file", "connections"] + servers + ["(module-floor)/(nginx-floor)"]
    yield from report.table(rows, headings)


def events(args, results):
    """Measures what an event costs beside idle interests."""
    built = os.path.join(TOP, "bazel-bin/benchmarks/vm/events")
    command = ["/bench/events"] + [str(n) for n in args.interests]
    for line in guest(args.kernel, [(built, "/bench/events")], command, args.timeout):
        if line.startswith("{"):
            results.append(json.loads(line))
            print("  " + line, file=sys.stderr)


def event_table(results):
    """Yields the lines of the table of events(): beyond the layer "none"."""
    costs = {}
    for r in results:
        costs.setdefault((r["interests"], r["active"]), {})[r["layer"]] = \
            r["instructions_per_event"]
    layers = [layer for layer in dict.fromkeys(r["layer"] for r in results)
              if layer != "none"]
    rows = [[str(interests), str(active)] + [f"{cost[layer] - cost['none']:.0f}"
                                             for layer in layers]
            for (interests, active), cost in costs.items()]
    yield from report.table(rows, ["interests", "active"] + layers)


def main():
    parser = argparse.ArgumentParser(
        prog="kev bench vm", description="Counts instructions in the virtual machine.")
    parser.add_argument("what", nargs="?", choices=["requests", "events", "all"],
                        default="all")
    parser.add_argument("--kernel", default="6.1", choices=["6.1", "6.12"])
    parser.add_argument("--sizes", default="1K,16K,100K,1M", type=list_of(parse_size))
    parser.add_argument("--connections", default="1,64", type=list_of(count))
    parser.add_argument("--servers", default=",".join(SERVERS), type=list_of(str))
    parser.add_argument("--preempt", action="store_true",
                        help="requests: let woken processes interrupt each other")
    parser.add_argument("--interests", default="1,64,1000,50000", type=list_of(count))
    parser.add_argument("--timeout", type=int, default=3600, metavar="SECONDS")
    parser.add_argument("--out", metavar="FILE.json")
    args = parser.parse_args()
    unknown = set(args.servers) - set(SERVERS)
    if unknown:
        parser.error(f"unknown servers: {', '.join(sorted(unknown))}")
    result = {"kernel": args.kernel, "requests": [], "events": []}
    if args.what in ("requests", "all"):
        requests(args, result["requests"])
        print("instructions for each request, of the whole guest")
        print("\n".join(request_table(result["requests"], args.servers)))
    if args.what in ("events", "all"):
        events(args, result["events"])
        print("instructions for each event, beyond those without an event layer")
        print("\n".join(event_table(result["events"])))
    if args.out:
        with open(args.out, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
