#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures keventd against nginx on this machine; see benchmarks/README.md.

Builds nothing: `./kev bench http` builds keventd and the load client, and then
runs this.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import time

from macro import admin, cold, compare, machine, ratios, report, rounds, servers
from macro.arguments import count, list_of, parse_size, positive
from macro.rounds import KIB, MIB

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(HERE)
KEVENTD = os.path.join(ROOT, "bazel-bin/server/keventd/keventd")
KEVCTL = os.path.join(ROOT, "bazel-bin/server/kevctl/kevctl")
LOAD = os.path.join(ROOT, "bazel-bin/benchmarks/load/load")
FLOOR = os.path.join(ROOT, "bazel-bin/benchmarks/load/floor")

FIRST_PORT = 9001
# Of those that cannot choose one. The network is our own: every port is free.

SERVERS = ["keventd", "floor", "h2o", "lighttpd", "nginx-debian"]
# Beside nginx at its tunings, which is the yardstick and always there.

QUICK_SIZES = [KIB, 16 * KIB, 100 * KIB, MIB, 10 * MIB]
SIZES = [0, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 100 * KIB, MIB, 10 * MIB, 100 * MIB]


def arguments():
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(prog="./kev bench http", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true",
        help="few sizes and 5 rounds: nothing is resolved, but it ends soon")
    parser.add_argument("--out", metavar="FILE.json", help="where the results go")
    parser.add_argument(
        "--sizes", type=list_of(parse_size), metavar="1K,16K,...",
        help="sizes of files")
    parser.add_argument(
        "--connections", type=list_of(count), metavar="1,64,...",
        help="numbers of connections")
    parser.add_argument(
        "--modes", type=list_of(str), metavar="keep,close",
        help="connections kept, or one for each request")
    parser.add_argument(
        "--servers", type=list_of(str), metavar=",".join(SERVERS),
        help="beside nginx, which is always there (default: all; --quick: keventd "
        "and the floor)")
    parser.add_argument(
        "--engines", type=list_of(str), metavar="epoll,uring,module",
        help="engines of keventd (default: epoll and uring, module where "
        "/dev/kevent is)")
    parser.add_argument(
        "--rounds", type=count, help="rounds of each server in a cell")
    parser.add_argument("--seconds", type=positive, default=1.0, help="of a round")
    parser.add_argument(
        "--latency-rounds", type=count, help="rounds at a fixed rate")
    parser.add_argument(
        "--cold", action="store_true",
        help="instead: hot requests while others pull cold files")
    parser.add_argument(
        "--admin", action="store_true",
        help="instead: what requests cost while kevctl and Prometheus watch")
    parser.add_argument(
        "--disk-limit", type=int, default=cold.THROTTLE, metavar="BYTES",
        help="--cold: what servers may read a second; 0: the disk as it is")
    parser.add_argument("--keventd", default=KEVENTD, help=argparse.SUPPRESS)
    parser.add_argument(
        "--compare", nargs=2, metavar=("A.json", "B.json"),
        help="compare two results and measure nothing")
    args = parser.parse_args()
    for mode in args.modes or []:
        if mode not in ("keep", "close"):
            parser.error(f"--modes: unknown mode {mode}")
    if args.admin and args.cold:
        parser.error("--admin and --cold are two different benchmarks")
    if args.admin and args.seconds != admin.ROUND_SECONDS:
        parser.error("--admin: a round is as long as the time between two scrapes")
    if args.servers is None:
        args.servers = SERVERS[:2] if args.quick else SERVERS
    for server in args.servers:
        if server not in SERVERS:
            parser.error(f"--servers: unknown server {server}")
    if "floor" in args.servers and "keventd" not in args.servers:
        parser.error("--servers: the floor answers as keventd does, and needs it")
    args.seconds = 4.0 if args.cold and args.seconds == 1.0 else args.seconds
    if args.rounds is None and args.admin:
        args.rounds = ratios.ENOUGH_ROUNDS if args.quick else 50
    if args.rounds is None:
        args.rounds = (3 if args.cold else 5) if args.quick or args.cold else 15
    if args.latency_rounds is None:
        args.latency_rounds = min(5, args.rounds)
    if args.engines is None:
        args.engines = ["epoll", "uring"]
        if os.path.exists("/dev/kevent"):
            args.engines.append("module")
    return args


def plan(args):
    """Returns the (size, connections, keepalive) to measure."""
    if args.sizes or args.connections or args.modes:
        return [
            (size, connections, mode == "keep")
            for mode in args.modes or ["keep"]
            for connections in args.connections or [64]
            for size in args.sizes or QUICK_SIZES
        ]
    if args.quick:
        return [(size, 64, True) for size in QUICK_SIZES] + [(KIB, 64, False)]
    cells = [(size, 64, True) for size in SIZES]
    cells += [(size, n, True) for n in (1, 1000) for size in (KIB, 100 * KIB, MIB)]
    cells += [(size, 64, False) for size in (KIB, 16 * KIB)]
    return cells


class Bench:
    """Files, servers and load client of one run."""

    def __init__(self, args, folder):
        self.args = args
        self.folder = folder
        self.root = os.path.join(folder, "www")
        os.mkdir(self.root)
        self.limit = machine.raise_file_limit()
        self.server_core, self.client_core = machine.cores()
        # A build meanwhile must not change what is measured.
        self.program = shutil.copy(args.keventd, os.path.join(folder, "keventd"))
        self.floor_program = shutil.copy(FLOOR, os.path.join(folder, "floor"))
        self.load = rounds.Load(
            shutil.copy(LOAD, os.path.join(folder, "load")), self.client_core)
        self._ports = iter(range(FIRST_PORT, FIRST_PORT + 100))

    def file(self, size):
        """Makes the file of a size, and returns its path."""
        path = os.path.join(self.root, f"{size}.bin")
        if not os.path.exists(path):
            with open(path, "wb") as file:
                for start in range(0, size, MIB):
                    file.write(os.urandom(min(MIB, size - start)))
        return path

    def targets(self, size):
        """Makes the list for the load client, and returns its path."""
        name = os.path.basename(self.file(size))
        path = os.path.join(self.folder, f"{size}.targets")
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{size} /{name}\n")
        return path

    def _conf(self, kind, conf, **options):
        return kind(
            self.folder, os.path.join(HERE, "conf", f"{conf}.conf"), self.root,
            self.server_core, PORT=next(self._ports), WORKERS=1, NOFILE=self.limit,
            # Beside connections a worker needs descriptors for its cached files.
            CONNECTIONS=min(16384, self.limit - 2000), **options)

    def nginx(self, conf, name="nginx"):
        """Returns nginx with a configuration; not started."""
        return self._conf(servers.Nginx, f"nginx-{conf}", name=name)

    def others(self):
        """Returns the other servers asked for; not started."""
        make = {
            "h2o": lambda: self._conf(servers.H2o, "h2o"),
            "lighttpd": lambda: self._conf(servers.Lighttpd, "lighttpd"),
            "nginx-debian": lambda: self.nginx("debian"),
        }
        return [make[name]() for name in self.args.servers if name in make]

    def admin(self):
        """Measures what watching costs, and returns the results."""
        size = (self.args.sizes or [KIB])[0]
        connections = (self.args.connections or [64])[0]
        files = [self.file(size)]
        kevctl = shutil.copy(KEVCTL, os.path.join(self.folder, "kevctl"))
        cell = rounds.Cell(self.targets(size), size, connections, True)
        out = []
        for engine in self.args.engines:
            with servers.Group() as group:
                watched, off = (
                    group.start(servers.Keventd(
                        self.folder, self.program, engine, self.root,
                        self.server_core, admin_port=port))
                    for port in (next(self._ports), None))
                for server in (watched, off):
                    server.check(files)
                rounds.say(f"admin, {engine}: {cell}")
                watcher = admin.Watcher(
                    kevctl, self.folder, self.client_core, watched)
                taken = admin.measure(
                    cell, self.load, watched, off, watcher, self.args.rounds)
                out += admin.results(cell, engine, taken, watcher)
        return out

    def keventds(self):
        """Returns keventd with each engine; not started."""
        return [
            servers.Keventd(
                self.folder, self.program, engine, self.root, self.server_core)
            for engine in self.args.engines if "keventd" in self.args.servers
        ]

    def floor(self, cell, keventd):
        """Returns the floor with keventd's very answer; not started."""
        path = self.file(cell.file_bytes)
        head = keventd.head_of(os.path.basename(path), cell.keepalive)
        return servers.Floor(
            self.folder, self.floor_program, self.server_core, head, path,
            cell.keepalive)

    def warm(self):
        """Measures files in the page cache, and returns the cells."""
        wanted = plan(self.args)
        files = [self.file(size) for size in sorted({size for size, _, _ in wanted})]
        with servers.Group() as group:
            sendfile = group.start(self.nginx("sendfile"))
            buffered = group.start(self.nginx("buffered"))
            control_of = {
                nginx: group.start(self.nginx(nginx.engine, "nginx-control"))
                for nginx in (sendfile, buffered)
            }
            others = [group.start(other) for other in self.others()]
            keventds = [group.start(keventd) for keventd in self.keventds()]
            for server in [*control_of, *control_of.values(), *others, *keventds]:
                server.check(files)
            cells = []
            for number, (size, connections, keepalive) in enumerate(wanted):
                cell = rounds.Cell(
                    self.targets(size), size, connections, keepalive)
                rounds.say(f"cell {number + 1} of {len(wanted)}: {cell}")
                # Another nginx like the better one, against which it shows what
                # is noise.
                likely = self._better(cell, list(control_of))
                with servers.Group() as of_cell:
                    floor = None
                    if "floor" in self.args.servers:
                        floor = of_cell.start(self.floor(cell, keventds[0]))
                        floor.check([self.file(size)])
                    rounds.measure(
                        cell, self.load,
                        [sendfile, buffered, control_of[likely], *keventds,
                         *([floor] if floor else []), *others],
                        self.args.seconds, self.args.rounds,
                        self.args.latency_rounds,
                        [likely, control_of[likely], *keventds])
                cells += rounds.results(cell, list(control_of), control_of, floor)
            return cells

    def _better(self, cell, tunings):
        trial = rounds.Cell(
            cell.targets, cell.file_bytes, cell.connections, cell.keepalive)
        seconds = min(0.5, self.args.seconds)
        rounds.measure(trial, self.load, tunings, seconds, 2, 0, tunings)
        return min(
            tunings, key=lambda t: sum(
                r["cpu_us_per_request"] for r in trial.closed[t]))

    def cold(self):
        """Measures cold files, and returns the results."""
        files = [self.file(cold.HOT_BYTES)]
        with servers.Group() as group:
            chosen = [self.nginx("sendfile"), self.nginx("aio"), *self.keventds()]
            for server in chosen:
                group.start(server).check(files)
            return cold.measure(
                chosen, self.load, self.root, self.targets, self.folder,
                self.args.seconds, self.args.rounds, self.args.disk_limit)


def out_path(args):
    """Returns where the results go."""
    if args.out:
        return args.out
    folder = os.path.join(HERE, "out")
    os.makedirs(folder, exist_ok=True)
    name = "admin" if args.admin else "cold" if args.cold else "http"
    return os.path.join(folder, name + ".json")


def run(args):
    """Measures; returns the exit status."""
    for program in (args.keventd, KEVCTL, LOAD, FLOOR):
        if not os.path.exists(program):
            raise machine.Unable(f"{program} is missing; ./kev bench http builds it")
    out = out_path(args)
    header = machine.description(ROOT)
    machine.enter_network()
    begin = time.monotonic()
    with machine.work_folder(os.path.join(HERE)) as folder:
        bench = Bench(args, folder)
        header["files_on"] = machine.file_system(folder)
        header["server_core"] = bench.server_core
        header["seconds_per_round"] = args.seconds
        result = {
            "benchmark": "http",
            "machine": header,
            "cells": [] if args.cold or args.admin else bench.warm(),
            "cold": bench.cold() if args.cold else [],
            "admin": bench.admin() if args.admin else [],
        }
    header["took_seconds"] = round(time.monotonic() - begin)
    with open(out, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
        file.write("\n")
    for line in [
            *report.cells(result["cells"]), *report.cold(result["cold"]),
            *report.admin(result["admin"])
    ]:
        print(line)
    print(f"\n  results: {out}")
    failed = any(
        cell["errors"]
        for cell in result["cells"] + result["cold"] + result["admin"])
    return 1 if failed else 0


def main():
    """Returns the exit status."""
    args = arguments()
    # Servers and files are to go when we are told to.
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
    try:
        if args.compare:
            for line in compare.lines(*args.compare):
                print(line)
            return 0
        return run(args)
    except machine.Unable as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
