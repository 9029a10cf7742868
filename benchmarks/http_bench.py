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

from macro import (
    admin, beside, cold, compare, machine, mix, ratios, report, rounds, scale, servers)
from macro.arguments import count, keep_or_close, list_of, parse_size, positive
from macro.rounds import KIB, MIB

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(HERE)
CONF = os.path.join(HERE, "conf")
KEVENTD = os.path.join(ROOT, "bazel-bin/server/keventd/keventd")
KEVCTL = os.path.join(ROOT, "bazel-bin/server/kevctl/kevctl")
LOAD = os.path.join(ROOT, "bazel-bin/benchmarks/load/load")
FLOOR = os.path.join(ROOT, "bazel-bin/benchmarks/load/floor")

FIRST_PORT = 9001
# Of those that cannot choose one. The network is our own: every port is free.

SETTLED_SECONDS = 45
# keventd does not take the body of a file of more than 1 MiB into memory that was
# written in the last 40 seconds.

PAGES_BYTES = 6 * KIB
# From which size keventd sends files in demand without copying them.

SERVERS = ["keventd", "floor", "h2o", "lighttpd", "nginx-debian"]
# Beside nginx at its tunings, which is the yardstick and always there.

PIPELINE = 16
# Requests at a time, in the full run.

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
        "--modes", type=list_of(keep_or_close), metavar="keep,close",
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
    parser.add_argument(
        "--seconds", type=positive, help="of a round; always 1 for --admin")
    parser.add_argument(
        "--latency-rounds", type=count, help="rounds at a fixed rate")
    parts = parser.add_argument_group(
        "parts", "Any of these leaves out those not named; without them and without "
        "sizes, connections and modes all are measured.")
    parts.add_argument(
        "--mix", action="store_true",
        help="a site of many files, asked for by Zipf's law")
    parts.add_argument(
        "--pipeline", type=count, metavar="N",
        help="N requests at a time on each connection")
    parts.add_argument(
        "--all-cores", action="store_true",
        help="as many workers as cores, with the client beside them")
    parts.add_argument(
        "--scale", action="store_true",
        help="memory of idle connections, rate of accepting, shares of workers")
    parts.add_argument(
        "--cold", action="store_true",
        help="hot requests while others pull cold files")
    parts.add_argument(
        "--beside", action="store_true",
        help="small requests while others pull large files from memory")
    parts.add_argument(
        "--admin", action="store_true",
        help="what requests cost while kevctl and Prometheus watch")
    parser.add_argument(
        "--seed", type=int, default=1, help="--mix: another site (default: 1)")
    parser.add_argument(
        "--disk-limit", type=int, default=cold.THROTTLE, metavar="BYTES",
        help="--cold: what servers may read a second; 0: the disk as it is")
    parser.add_argument("--keventd", default=KEVENTD, help=argparse.SUPPRESS)
    parser.add_argument(
        "--compare", nargs=2, metavar=("A.json", "B.json"),
        help="compare two results and measure nothing")
    args = parser.parse_args()
    if args.admin and args.seconds not in (None, admin.ROUND_SECONDS):
        parser.error("--admin: a round is as long as the time between two scrapes")
    if args.servers is None:
        args.servers = SERVERS[:2] if args.quick else SERVERS
    for server in args.servers:
        if server not in SERVERS:
            parser.error(f"--servers: unknown server {server}")
    if "floor" in args.servers and "keventd" not in args.servers:
        parser.error("--servers: the floor answers as keventd does, and needs it")
    if args.admin and "keventd" not in args.servers:
        parser.error("--admin: only keventd has an admin service")
    choose_parts(args)
    if args.engines is None:
        args.engines = ["epoll", "uring"]
        if os.path.exists("/dev/kevent"):
            args.engines.append("module")
    return args


def choose_parts(args):
    """Completes what is to be measured, and how often."""
    args.custom = bool(args.sizes or args.connections or args.modes)
    named = bool(
        args.mix or args.pipeline or args.all_cores or args.scale or args.cold
        or args.beside or args.admin)
    args.single_files = not named
    if not (named or args.custom or args.quick):
        args.mix = args.all_cores = args.scale = True
        args.cold = args.beside = args.admin = True
        args.pipeline = PIPELINE
    if args.rounds is None:
        args.rounds = 5 if args.quick else 15
        args.few_rounds = 3  # of what takes long and varies little
        # A difference of a hundredth is looked for.
        args.admin_rounds = ratios.ENOUGH_ROUNDS if args.quick else 50
    else:
        args.few_rounds = args.admin_rounds = args.rounds
    args.hot_seconds = args.seconds or 4.0
    args.seconds = args.seconds or 1.0
    if args.latency_rounds is None:
        args.latency_rounds = min(5, args.rounds)


def plan(args):
    """Returns the cells to measure."""
    cells = []
    if args.single_files:
        cells += [rounds.Cell(*what) for what in single_files(args)]
    if args.mix:
        cells += [rounds.Cell(None, n) for n in args.connections or [64]]
    if args.pipeline:
        cells += [
            rounds.Cell(size, n, pipeline=args.pipeline)
            for size in args.sizes or [KIB] for n in args.connections or [64]
        ]
    if args.scale:
        # What is left of a request is that it is accepted and closed.
        cells.append(rounds.Cell(0, 64, keepalive=False))
    if args.all_cores:
        workers = len(machine.cores())
        cells += [
            rounds.Cell(size, n, workers=workers)
            for size in args.sizes or [KIB, 100 * KIB, None]
            for n in args.connections or [64]
        ]
    return cells


def single_files(args):
    """Returns the (size, connections, keepalive) to measure."""
    if args.custom:
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
        self.cores = machine.cores()
        # A build meanwhile must not change what is measured.
        self.program = shutil.copy(args.keventd, os.path.join(folder, "keventd"))
        self.floor_program = shutil.copy(FLOOR, os.path.join(folder, "floor"))
        self.load_program = shutil.copy(LOAD, os.path.join(folder, "load"))
        self._ports = iter(range(FIRST_PORT, FIRST_PORT + 1000))
        self._site = None
        self.mix = None

    def file(self, size):
        """Makes the file of a size, and returns its name."""
        name = f"{size}.bin"
        path = os.path.join(self.root, name)
        if not os.path.exists(path):
            with open(path, "wb") as file:
                for start in range(0, size, MIB):
                    file.write(os.urandom(min(MIB, size - start)))
        return name

    def site(self):
        """Makes the files of the mix, and returns their names."""
        if self._site is None:
            self._site = mix.plan(self.args.seed)
            mix.make(self.root, self._site, self.args.seed)
            order = mix.sequence(self._site, self.args.seed)
            self.mix = mix.description(self._site, order, self.args.seed)
            self._write("mix.targets", (f"{s} /{path}" for s, path in self._site))
            self._write("mix.sequence", order)
        return [path for _, path in self._site]

    def _write(self, name, lines):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="ascii") as file:
            file.writelines(f"{line}\n" for line in lines)
        return path

    def targets(self, size):
        """Makes the list for the load client, and returns its path."""
        return self._write(f"{size}.targets", [f"{size} /{self.file(size)}"])

    def files_of(self, cell):
        """Makes the files of a cell, tells it of them, and returns their names."""
        if cell.file_bytes is None:
            names = self.site()
            cell.targets = os.path.join(self.folder, "mix.targets")
            cell.sequence = os.path.join(self.folder, "mix.sequence")
            return names
        cell.targets = self.targets(cell.file_bytes)
        return [self.file(cell.file_bytes)]

    def server_cores(self, workers):
        """Returns the cores of a server with so many workers."""
        return self.cores[:1] if workers == 1 else self.cores

    def client_cores(self, workers):
        """Returns the cores of the client of such a server."""
        return self.cores[1:2] if workers == 1 else self.cores

    def load(self, workers=1):
        """Returns the client for servers with so many workers."""
        # One client's process cannot keep many workers busy.
        clients = 1 if workers == 1 else max(1, len(self.cores) // 2)
        return rounds.Load(self.load_program, self.client_cores(workers), clients)

    def _conf(self, kind, conf, workers=1, **options):
        return kind(
            self.folder, os.path.join(CONF, f"{conf}.conf"), self.root,
            self.server_cores(workers), PORT=next(self._ports), WORKERS=workers,
            NOFILE=self.limit,
            # Beside connections a worker needs descriptors for its cached files.
            CONNECTIONS=min(16384, self.limit - 2000), **options)

    def nginx(self, conf, workers=1, **options):
        """Returns nginx with a configuration; not started."""
        return self._conf(servers.Nginx, f"nginx-{conf}", workers, **options)

    def others(self, workers):
        """Returns the other servers asked for; not started."""
        make = {
            "h2o": lambda: self._conf(servers.H2o, "h2o", workers),
            "lighttpd": lambda: self._conf(servers.Lighttpd, "lighttpd", workers),
            "nginx-debian": lambda: self.nginx("debian", workers),
        }
        return [make[name]() for name in self.args.servers if name in make]

    def keventds(self, workers=1, with_admin=False):
        """Returns keventd with each engine; not started."""
        return [
            servers.Keventd(
                self.folder, self.program, os.path.join(CONF, "keventd.textproto"),
                engine, self.root, self.server_cores(workers), workers,
                next(self._ports) if with_admin else None)
            for engine in self.args.engines if "keventd" in self.args.servers
        ]

    def floor(self, cell, keventd, kind=""):
        """Returns the floor with keventd's very answer; not started."""
        name = self.file(cell.file_bytes)
        return servers.Floor(
            self.folder, self.floor_program, self.server_cores(cell.workers),
            keventd.head_of(name, cell.keepalive), os.path.join(self.root, name),
            cell.keepalive, cell.workers, kind)

    def warm(self):
        """Measures files in the page cache, and returns the cells."""
        wanted = plan(self.args)
        cells = []
        for workers in sorted({cell.workers for cell in wanted}):
            cells += self._warm(
                [cell for cell in wanted if cell.workers == workers], workers)
        return cells

    def _settle(self, files):
        """Waits until large files are as old as those of a site mostly are."""
        stats = [os.stat(os.path.join(self.root, name)) for name in files]
        large = [stat.st_ctime for stat in stats if stat.st_size > MIB]
        left = max(large, default=0) + SETTLED_SECONDS - time.time()
        if left > 0:
            rounds.say(f"large files settle, {left:.0f} s")
            time.sleep(left)

    def _warm(self, wanted, workers):
        files = sorted({name for cell in wanted for name in self.files_of(cell)})
        load = self.load(workers)
        with servers.Group() as group:
            sendfile = group.start(self.nginx("sendfile", workers))
            buffered = group.start(self.nginx("buffered", workers))
            control_of = {
                nginx: group.start(
                    self.nginx(nginx.engine, workers, name="nginx-control"))
                for nginx in (sendfile, buffered)
            }
            others = [group.start(other) for other in self.others(workers)]
            keventds = [group.start(one) for one in self.keventds(workers)]
            for server in [*control_of, *control_of.values(), *others, *keventds]:
                server.check(self.root, files)
            self._settle(files)
            cells = []
            for number, cell in enumerate(wanted):
                rounds.say(f"cell {number + 1} of {len(wanted)}: {cell}")
                # Another nginx like the better one, against which it shows what
                # is noise.
                likely = self._better(cell, load, list(control_of))
                with servers.Group() as of_cell:
                    floors = self._start_floors(cell, keventds, of_cell)
                    rounds.measure(
                        cell, load,
                        [sendfile, buffered, control_of[likely], *keventds,
                         *floors, *others],
                        self.args.seconds, self.args.rounds,
                        self._latency_rounds(cell),
                        [likely, control_of[likely], *keventds])
                cells += rounds.results(
                    cell, list(control_of), control_of, floors[0] if floors else None)
            return cells

    def _latency_rounds(self, cell):
        # The open loop does not sleep: on the cores of the servers it would be a
        # load of its own. And it sends single requests.
        if cell.workers > 1 or cell.pipeline > 1:
            return 0
        return self.args.latency_rounds

    def _start_floors(self, cell, keventds, group):
        """Returns the bare floor, and those that may have less to do in this cell."""
        # They know one answer, and one request at a time.
        if ("floor" not in self.args.servers or cell.file_bytes is None
                or cell.pipeline > 1):
            return []
        kinds = [""]
        if cell.file_bytes >= PAGES_BYTES:
            kinds.append("pages")
        if not cell.keepalive and "uring" in self.args.engines:
            kinds.append("ring")
        floors = [
            group.start(self.floor(cell, keventds[0], kind)) for kind in kinds]
        for floor in floors:
            floor.check(self.root, [self.file(cell.file_bytes)])
        return floors

    def _better(self, cell, load, tunings):
        trial = rounds.Cell(
            cell.file_bytes, cell.connections, cell.keepalive, cell.pipeline,
            cell.workers)
        self.files_of(trial)
        seconds = min(0.5, self.args.seconds)
        rounds.measure(trial, load, tunings, seconds, 2, 0, tunings)
        return min(
            tunings, key=lambda t: sum(
                r["cpu_us_per_request"] for r in trial.closed[t]))

    def scale(self):
        """Measures idle connections and fairness, and returns the results."""
        name = self.file(scale.FILE_BYTES)
        result = {
            "idle": scale.idle(
                lambda: [*self.keventds(), self.nginx("sendfile")], name,
                self.args.few_rounds, self.limit)
        }
        with servers.Group() as group:
            workers = scale.FAIR_WORKERS
            chosen = [
                group.start(server) for server in
                [*self.keventds(workers, with_admin=True),
                 self.nginx("sendfile", workers, count_workers=True)]
            ]
            result["fairness"] = scale.fairness(
                chosen, self.load(workers), self.targets(scale.FILE_BYTES),
                self.args.seconds, min(5, self.args.rounds))
        return result

    def cold(self):
        """Measures cold files, and returns the results."""
        files = [self.file(cold.HOT_BYTES)]
        with servers.Group() as group:
            chosen = [self.nginx("sendfile"), self.nginx("aio"), *self.keventds()]
            for server in chosen:
                group.start(server).check(self.root, files)
            return cold.measure(
                chosen, self.load(), self.root, self.targets, self.folder,
                self.args.hot_seconds, self.args.few_rounds, self.args.disk_limit)

    def beside(self):
        """Measures small requests beside large ones, and returns the results."""
        files = [self.file(size) for size in (cold.HOT_BYTES, *beside.LARGE_BYTES)]
        self._settle(files)
        with servers.Group() as group:
            chosen = [
                self.nginx("sendfile"), self.nginx("buffered"), *self.keventds()]
            for server in chosen:
                group.start(server).check(self.root, files)
            return beside.measure(
                chosen, self.load(), self.targets, self.args.hot_seconds,
                self.args.few_rounds)

    def admin(self):
        """Measures what watching costs, and returns the results."""
        cell = rounds.Cell(
            (self.args.sizes or [KIB])[0], (self.args.connections or [64])[0])
        files = self.files_of(cell)
        kevctl = shutil.copy(KEVCTL, os.path.join(self.folder, "kevctl"))
        out = []
        for watched, off in zip(self.keventds(with_admin=True), self.keventds()):
            with servers.Group() as group:
                for server in (watched, off):
                    group.start(server).check(self.root, files)
                rounds.say(f"admin, {watched.engine}: {cell}")
                watcher = admin.Watcher(
                    kevctl, self.folder, self.client_cores(cell.workers), watched)
                taken = admin.measure(
                    cell, self.load(), watched, off, watcher, self.args.admin_rounds)
                out += admin.results(cell, watched.engine, taken, watcher)
        return out


def out_path(args):
    """Returns where the results go."""
    if args.out:
        return args.out
    folder = os.path.join(HERE, "out")
    os.makedirs(folder, exist_ok=True)
    # Of what is measured beside the cells.
    parts = [part for part in ("cold", "beside", "admin") if getattr(args, part)]
    name = parts[0] if len(parts) == 1 and not plan(args) else "http"
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
        header["server_core"] = bench.cores[0]
        header["seconds_per_round"] = args.seconds
        result = {
            "benchmark": "http",
            "machine": header,
            "cells": bench.warm() if plan(args) else [],
            "mix": bench.mix,
            "scale": bench.scale() if args.scale else {},
            "cold": bench.cold() if args.cold else [],
            "beside": bench.beside() if args.beside else [],
            "admin": bench.admin() if args.admin else [],
        }
    header["took_seconds"] = round(time.monotonic() - begin)
    with open(out, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
        file.write("\n")
    for line in [*report.cells(result["cells"]), *report.mix(result["mix"]),
                 *report.scale(result["scale"]), *report.cold(result["cold"]),
                 *report.beside(result["beside"]), *report.admin(result["admin"])]:
        print(line)
    print(f"\n  results: {out}")
    failed = any(
        cell["errors"]
        for part in ("cells", "cold", "beside", "admin") for cell in result[part])
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
