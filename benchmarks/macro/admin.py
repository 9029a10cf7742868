# SPDX-License-Identifier: Apache-2.0
"""What it costs requests that somebody watches the server."""

import contextlib
import http.client
import os
import statistics
import subprocess
import threading
import time

from macro import machine, ratios, rounds

AIM = 1.01
# At most that much CPU for each request, against a server nobody watches.

WATCH_MS = 100
SCRAPE_SECONDS = 1.0

ROUND_SECONDS = 1.0
# One scrape begins in each, wherever it begins.

IDLE, WATCHED, CONTROL, OFF = "idle", "watched", "control", "off"
# The same process, in this order but for OFF: with its admin service on and
# nobody there; watched; and once more as the first, which shows what is noise.
# OFF is another process without the service.

_START_SECONDS = 10


class Watcher:
    """WatchStats by kevctl, and a scrape of /metrics each second."""

    def __init__(self, kevctl, folder, cores, server):
        self._kevctl = kevctl
        self._folder = folder
        self._cores = cores
        self._server = server
        self.messages = 0
        self.scrapes = 0

    @contextlib.contextmanager
    def watching(self):
        """Watches for as long as it lasts; begins when the first figures are there."""
        path = os.path.join(self._folder, "watch.json")
        with open(path, "wb") as output:
            process = machine.start(
                [
                    self._kevctl, f"--admin=unix:{self._server.admin_socket}",
                    "--format=json", "watch", f"--interval={WATCH_MS}ms"
                ], self._cores, stdout=output, stderr=subprocess.PIPE)
        stop = threading.Event()
        failed = []
        scraper = threading.Thread(target=self._scrape, args=(stop, failed))
        try:
            self._await_first(process, path)
            scraper.start()
            yield
        finally:
            stop.set()
            if scraper.ident:
                scraper.join()
            machine.end(process)
            process.stderr.close()
        if failed:
            raise machine.Unable(f"{self._server}: no metrics: {failed[0]}")
        with open(path, "rb") as file:
            self.messages += file.read().count(b"\n")

    def _await_first(self, process, path):
        deadline = time.monotonic() + _START_SECONDS
        while not os.path.getsize(path):
            if process.poll() is not None or time.monotonic() > deadline:
                machine.end(process)
                raise machine.Unable(
                    f"kevctl does not watch: {process.stderr.read().decode()}")
            time.sleep(0.005)

    def _scrape(self, stop, failed):
        # Of this thread alone.
        os.sched_setaffinity(0, self._cores)
        connection = http.client.HTTPConnection(
            "127.0.0.1", self._server.admin_port, timeout=_START_SECONDS)
        try:
            # One in each round, not at both of its ends.
            pause = SCRAPE_SECONDS / 2
            while not stop.wait(pause):
                connection.request("GET", "/metrics")
                text = connection.getresponse().read()
                if b"kevent_http_responses_total" not in text:
                    raise OSError("there are no responses in them")
                self.scrapes += 1
                pause = SCRAPE_SECONDS
        except (OSError, http.client.HTTPException) as error:
            failed.append(error)
        finally:
            connection.close()


def thread_times(pid):
    """Returns the CPU nanoseconds of each thread of a process."""
    folder = f"/proc/{pid}/task"
    times = {}
    for thread in os.listdir(folder):
        text = machine.read(f"{folder}/{thread}/schedstat")
        if text:
            times[thread] = int(text.split()[0])
    return times


def share_of_others(before, after):
    """Returns the share of the time between that was not the busiest thread's.

    Under load that is the worker, and the others are the admin service.
    """
    spent = [after[thread] - before.get(thread, 0) for thread in after]
    whole = sum(spent)
    return (whole - max(spent)) / whole if whole else 0.0


def measure(cell, load, watched, off, watcher, count):
    """Returns the rounds of each kind, taken in turn."""
    kinds = [IDLE, WATCHED, CONTROL, OFF]
    taken = {kind: [] for kind in kinds}
    for server in (watched, off):
        load.run(server, cell.targets, cell.connections, 0.2, warmup=0)
    for number in range(count):
        first = number % len(kinds)
        for kind in kinds[first:] + kinds[:first]:
            server = off if kind == OFF else watched
            with (watcher.watching()
                  if kind == WATCHED else contextlib.nullcontext()):
                before = thread_times(server.process.pid)
                row = rounds.closed_round(load, server, cell, ROUND_SECONDS)
                after = thread_times(server.process.pid)
            row["admin_share"] = share_of_others(before, after)
            taken[kind].append(row)
    return taken


def _logs(taken, kind, field):
    return ratios.log_ratios(
        [row[field] for row in taken[kind]], [row[field] for row in taken[IDLE]])


def results(cell, engine, taken, watcher):
    """Returns a result for each kind of round."""
    fields = {"cpu": "cpu_us_per_request", "requests": "requests_per_s"}
    summaries = {
        kind: {
            name: ratios.summary(_logs(taken, kind, field))
            for name, field in fields.items()
        } for kind in taken if kind != IDLE
    }
    out = []
    for kind, rows in taken.items():
        compared = summaries.get(kind, {})
        for name, ratio in compared.items():
            ratio["resolved"] = (
                kind != CONTROL
                and ratios.resolved(ratio, summaries[CONTROL][name]))
        result = {
            "server": "keventd",
            "engine": engine,
            "admin": kind,
            "file_bytes": cell.file_bytes,
            "connections": cell.connections,
            "rounds": len(rows),
            "ratios": compared,
            "errors": sum(row["errors"] for row in rows),
            "raw": rows,
        }
        for name, digits in (("cpu_us_per_request", 4), ("requests_per_s", 1),
                             ("admin_share", 5), ("others_busy", 3), ("steal", 3)):
            result[name] = round(statistics.median(row[name] for row in rows), digits)
        if kind == WATCHED:
            result["watch_interval_ms"] = WATCH_MS
            result["scrape_interval_s"] = SCRAPE_SECONDS
            result["messages"] = watcher.messages
            result["scrapes"] = watcher.scrapes
            result["aim"] = {"cpu": AIM}
            # The interval of a few rounds is as narrow as they happen to agree.
            result["aim_met"] = (
                len(rows) >= ratios.ENOUGH_ROUNDS and compared["cpu"]["high"] <= AIM)
        out.append(result)
    return out
