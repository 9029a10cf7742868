# SPDX-License-Identifier: Apache-2.0
"""Idle connections, and how connections and requests fall on workers."""

import collections
import contextlib
import math
import re
import socket
import statistics
import struct
import time

from macro import machine, rounds

IDLE = 10_000
WARM = 1000
# Connections that are open before memory is read for the first time: what a server
# allocates once is not a matter of the connections that follow.

BARE = 5000
# Pairs of sockets that nobody watches. Both ends are ours: half of the descriptors.

FILE_BYTES = 1024
FAIR_CONNECTIONS = (64, 1000)
FAIR_WORKERS = 2
_SETTLED_KB = 64
_SETTLE_SECONDS = 5
_NO_LINGER = struct.pack("ii", 1, 0)


def _kernel_kb():
    """Returns what the kernel's allocators and sockets hold, of the whole machine."""
    total = 0
    for line in machine.read("/proc/meminfo").splitlines():
        name, value = line.split(":")
        if name in ("Slab", "KernelStack", "PageTables", "Percpu"):
            total += int(value.split()[0])
    match = re.search(r"^TCP:.* mem (\d+)", machine.read("/proc/net/sockstat"), re.M)
    return total + int(match.group(1)) * machine.PAGE_BYTES // 1024


def _processes_kb(pids, name):
    total = 0
    for pid in pids:
        match = re.search(
            rf"^{name}:\s+(\d+) kB", machine.read(f"/proc/{pid}/smaps_rollup"), re.M)
        # A kernel thread, or one that has ended, has no memory of its own.
        total += int(match.group(1)) if match else 0
    return total


def _memory(pids):
    """Returns memory in kB once it does not change any more."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    last = None
    while True:
        now = {
            "rss_kb": _processes_kb(pids, "Rss"),
            "pss_kb": _processes_kb(pids, "Pss"),
            "kernel_kb": _kernel_kb(),
        }
        settled = last and all(abs(now[n] - last[n]) <= _SETTLED_KB for n in now)
        if settled or time.monotonic() > deadline:
            return now
        last = now
        # Sockets and pages are freed a while after they are let go.
        time.sleep(0.2)


class Idle:
    """Connections that had one answer each and are left open."""

    def __init__(self, port, path):
        self._port = port
        self._request = f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode("ascii")
        self._sockets = []

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        for one in self._sockets:
            # Reset: nothing of it is left to disturb the next measurement.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            one.close()

    def add(self, count, answer_bytes):
        """Opens so many more; answers must have bodies of that size."""
        for _ in range(count):
            peer = socket.create_connection(("127.0.0.1", self._port), 30)
            self._sockets.append(peer)
            peer.sendall(self._request)
            answer = b""
            while True:
                part = peer.recv(65536)
                if not part:
                    raise machine.Unable("an idle connection was closed")
                answer += part
                head, end, body = answer.partition(b"\r\n\r\n")
                if end and len(body) >= answer_bytes:
                    break
            if not head.startswith(b"HTTP/1.1 200"):
                raise machine.Unable(f"an answer was {head[:40]}")


def _idle_round(server, path, count):
    before_any = _memory(server.pids())
    with Idle(server.port, path) as idle:
        idle.add(WARM, FILE_BYTES)
        before = _memory(server.pids())
        idle.add(count, FILE_BYTES)
        after = _memory(server.pids())
    return {
        **{
            name.replace("_kb", "_bytes"): (after[name] - before[name]) * 1024 / count
            for name in after
        },
        "pss_mb_before": before_any["pss_kb"] / 1024,
        "pss_mb": after["pss_kb"] / 1024,
    }


def bare_sockets(count):
    """Returns the kernel's bytes for a connection that nobody watches, both ends."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        before = _memory([])
        for _ in range(count):
            peer = stack.enter_context(
                socket.create_connection(listener.getsockname(), 30))
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            stack.enter_context(listener.accept()[0])
        after = _memory([])
    return (after["kernel_kb"] - before["kernel_kb"]) * 1024 / count


def idle(make_servers, path, count, limit):
    """Returns memory for each idle connection, for each server.

    make_servers: returns new servers, not started. limit: of open files.
    """
    connections = min(IDLE, limit - WARM - 500)
    bare = []
    taken = collections.OrderedDict()
    for number in range(count):
        bare.append(bare_sockets(min(BARE, connections // 2)))
        for server in make_servers():
            rounds.say(f"idle connections, round {number + 1} of {count}: {server}")
            try:
                server.start()
                taken.setdefault((server.name, server.engine), []).append(
                    _idle_round(server, path, connections))
            finally:
                server.stop()
    return [
        idle_result(name, engine, connections, rows, bare)
        for (name, engine), rows in taken.items()
    ]


def idle_result(name, engine, connections, rows, bare):
    """Returns what is told of a server: medians, and the rounds."""

    def median(field, digits=0):
        return round(statistics.median(row[field] for row in rows), digits)

    return {
        "server": name,
        "engine": engine,
        "connections": connections,
        "rss_bytes_per_connection": median("rss_bytes"),
        "pss_bytes_per_connection": median("pss_bytes"),
        "kernel_bytes_per_connection": median("kernel_bytes"),
        "bare_sockets_bytes": round(statistics.median(bare)),
        "pss_mb_before": median("pss_mb_before", 1),
        "pss_mb": median("pss_mb", 1),
        "rounds": len(rows),
        "raw": rows,
    }


def variation(counts):
    """Returns the coefficient of variation: 0 is fair to all; None without any."""
    mean = statistics.fmean(counts)
    return statistics.pstdev(counts) / mean if mean else None


def expected_variation(workers, connections):
    """Returns the root mean square of variation() if chance alone places each
    connection, as the kernel's hash of addresses and ports does."""
    return math.sqrt((workers - 1) / connections)


def fairness(servers, load, targets, seconds, count):
    """Returns the shares of workers. servers: started, of several workers; their
    of_workers() returns [(connections accepted, requests)] so far."""
    out = []
    for connections in FAIR_CONNECTIONS:
        taken = {server: [] for server in servers}
        for number in range(count):
            rounds.say(f"fairness, {connections} connections, "
                       f"round {number + 1} of {count}")
            for server in servers:
                before = server.of_workers()
                load.run(server, targets, connections, seconds)
                after = server.of_workers()
                taken[server].append({
                    "connections": [a[0] - b[0] for a, b in zip(after, before)],
                    "requests": [a[1] - b[1] for a, b in zip(after, before)],
                })
        out += [fairness_result(server.name, server.engine, connections, rows)
                for server, rows in taken.items()]
    return out


def fairness_result(name, engine, connections, rows):
    """Returns what is told of a server: medians and the worst, and the rounds."""
    out = {
        "server": name,
        "engine": engine,
        "connections": connections,
        "workers": len(rows[0]["requests"]),
        "expected_variation": round(
            expected_variation(len(rows[0]["requests"]), connections), 4),
        "rounds": len(rows),
        "raw": rows,
    }
    for what in ("connections", "requests"):
        variations = [v for row in rows if (v := variation(row[what])) is not None]
        shares = [max(row[what]) / sum(row[what]) for row in rows if sum(row[what])]
        if not variations:
            raise machine.Unable(f"{name}/{engine} counted no {what}")
        out[f"{what}_variation"] = round(statistics.median(variations), 4)
        out[f"{what}_variation_worst"] = round(max(variations), 4)
        out[f"{what}_largest_share"] = round(statistics.median(shares), 4)
    return out
