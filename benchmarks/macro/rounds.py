# SPDX-License-Identifier: Apache-2.0
"""One cell: some servers under the same load, in interleaved rounds."""

import json
import statistics
import subprocess
import sys

from macro import machine, ratios

SATURATED = 0.95
# Share of a core above which it is called saturated.

LATENCY_SHARE = 0.7
# Of what the slowest server does at most, at which latency is measured.

LARGE = 64 * 1024
# Bytes of a file from which requests are counted by the bytes received: a
# closed loop has 64 of them under way at both ends of a round.

SAME_PROCESS = 5
# Rounds of a server until it is started anew. Where its memory lies and how it falls
# into step with the client stays the same for the life of a process, and is worth
# several per cent.

_TRIES = 3
# Of a round in which nothing was answered.

KIB, MIB = 1 << 10, 1 << 20

AIMS = {
    # (connections are kept, bytes of the file): least ratios to the best nginx, and
    # the most of the floor's CPU time. At 64 connections.
    (True, KIB): {"cpu": 1.6, "over_floor": 1.10},
    (True, 16 * KIB): {"cpu": 1.7},
    (True, 100 * KIB): {"cpu": 1.3},
    (True, MIB): {"cpu": 1.1, "mb": 1.0},
    (True, 10 * MIB): {"cpu": 1.1, "mb": 1.0},
    (False, KIB): {"cpu": 1.5},
}

# Name of a ratio: the round's field, and whether less of it is better.
RATIOS = {
    "cpu": ("cpu_us_per_request", True),
    "machine": ("machine_us_per_request", True),
    "requests": ("requests_per_s", False),
    "mb": ("mb_per_s", False),
    "p50": ("p50_us", True),
    "p99": ("p99_us", True),
}
_OPEN_LOOP = ("p50", "p99")


class Load:
    """Runs the load client on its cores, as so many processes."""

    def __init__(self, program, cores, clients=1):
        self._program = program
        self._cores = cores
        self._clients = clients

    def start(self, server, targets, connections, seconds, idle=False, **flags):
        """Starts one process against a server; finish() waits for it.

        idle: it has its cores when nobody else wants them, see chrt(1).
        """
        command = [
            *(["chrt", "--idle", "0"] if idle else []), self._program, f"--port={server.port}", f"--targets={targets}",
            f"--connections={connections}", f"--seconds={seconds}",
            "--server_pids=" + ",".join(map(str, server.pids()))
        ]
        command += [f"--{name}={value}" for name, value in flags.items()]
        return machine.start(
            command, self._cores, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True)

    @staticmethod
    def finish(process, server):
        """Returns what it measured."""
        try:
            output, errors = process.communicate(timeout=120)
        except BaseException:
            machine.end(process)
            raise
        if process.returncode != 0:
            raise machine.Unable(f"{server}: {errors.strip()}")
        return json.loads(output)

    def run(self, server, targets, connections, *arguments, **flags):
        """Runs it against a server and returns what it measured."""
        count = min(self._clients, connections)
        shares = [connections // count + (i < connections % count)
                  for i in range(count)]
        if "rate" in flags:
            flags["rate"] /= count
        processes = []
        try:
            for share in shares:
                processes.append(
                    self.start(server, targets, share, *arguments, **flags))
            return merged([self.finish(p, server) for p in processes])
        finally:
            for process in processes:
                machine.end(process)


def merged(measured):
    """Returns what clients that ran beside each other measured, as if by one.

    Server and processors they all saw alike: those of the first are taken.
    """
    if len(measured) == 1:
        return measured[0]
    out = dict(measured[0])
    for name in ("answers", "answers_in_time", "body_bytes", "client_cpu_us",
                 "unanswered"):
        out[name] = sum(one[name] for one in measured)
    out["seconds"] = statistics.fmean(one["seconds"] for one in measured)
    out["errors"] = {
        kind: sum(one["errors"][kind] for one in measured)
        for kind in out["errors"]
    }
    histogram = sum((one["latency"]["histogram_ns"] for one in measured), [])
    out["latency"] = {
        "count": sum(one["latency"]["count"] for one in measured),
        "p50_us": percentile_us(histogram, 0.5, 1) or 0,
        "p99_us": percentile_us(histogram, 0.99, 1) or 0,
        "p999_us": percentile_us(histogram, 0.999, 1) or 0,
        "histogram_ns": histogram,
    }
    return out


class Cell:
    """What is asked for, and what came out, for each server."""

    def __init__(self, file_bytes, connections, keepalive=True, pipeline=1, workers=1):
        self.file_bytes = file_bytes  # None: the mix
        self.connections = connections
        self.keepalive = keepalive
        self.pipeline = pipeline
        self.workers = workers  # of each server; more than one: on all cores
        self.targets = None  # file for the load client
        self.sequence = None  # the same
        self.closed = {}  # server: its rounds
        self.open = {}
        self.histograms = {}
        self.rate = None

    @property
    def workload(self):
        """Returns whether one file is asked for, or many."""
        return "mix" if self.file_bytes is None else "file"

    def flags(self):
        """Returns the flags of the load client."""
        out = {}
        if not self.keepalive:
            out["close"] = "true"
        if self.sequence:
            out["sequence"] = self.sequence
        if self.pipeline > 1:
            out["pipeline"] = self.pipeline
        return out

    def describe(self):
        """Returns what names the cell in the results."""
        return {
            "workload": self.workload,
            "file_bytes": self.file_bytes,
            "connections": self.connections,
            "keepalive": self.keepalive,
            "pipeline": self.pipeline,
            "workers": self.workers,
        }

    def __str__(self):
        return cell_name(self.describe())


def cell_name(cell):
    """Returns a cell of the results in words; older ones lack some fields."""
    mix = cell.get("workload", "file") == "mix"
    parts = ["mix of files" if mix else size_name(cell["file_bytes"])]
    parts.append(
        f"{cell['connections']} connection" + "s" * (cell["connections"] != 1))
    if cell.get("keepalive") is False:
        parts.append("one request each")
    if cell.get("pipeline", 1) > 1:
        parts.append(f"{cell['pipeline']} requests together")
    if cell.get("workers", 1) > 1:
        parts.append(f"{cell['workers']} workers on all cores")
    return ", ".join(parts)


def size_name(size):
    """Returns 16384 as '16 KiB'."""
    for unit, factor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor and size % factor == 0:
            return f"{size // factor} {unit}"
    return f"{size} B"


def _requests(result, file_bytes):
    if file_bytes is not None and file_bytes >= LARGE:
        return result["body_bytes"] / file_bytes
    return result["answers"]


def _round(result, file_bytes):
    """Returns the figures of what the load client measured in a closed loop."""
    requests = _requests(result, file_bytes)
    seconds = result["seconds"]
    server = result["server"]
    busy = sum(cpu["busy_us"] for cpu in result["cpus"])
    ours = server["cpu_us"] + result["client_cpu_us"]
    capacity = seconds * 1e6
    switches = server["voluntary_switches"] + server["involuntary_switches"]
    return {
        "requests": requests,
        "cpu_us_per_request": server["cpu_us"] / requests,
        "client_us_per_request": result["client_cpu_us"] / requests,
        "machine_us_per_request": busy / requests,
        "requests_per_s": requests / seconds,
        "mb_per_s": result["body_bytes"] / seconds / 1e6,
        "server_busy": server["cpu_us"] / capacity,
        "client_busy": result["client_cpu_us"] / capacity,
        "others_busy": max(0, busy - ours) / capacity / len(result["cpus"]),
        "steal": sum(cpu["steal_us"] for cpu in result["cpus"]) / capacity,
        "server_system_share":
            server["system_us"] / max(1, server["system_us"] + server["user_us"]),
        "switches_per_request": switches / requests,
        "errors": sum(result["errors"].values()),
    }


def _open_round(result):
    latency = result["latency"]
    return {
        "p50_us": latency["p50_us"],
        "p99_us": latency["p99_us"],
        "cpu_us_per_request": result["server"]["cpu_us"] / max(1, latency["count"]),
        "errors": sum(result["errors"].values()) + result["unanswered"],
    }


def percentile_us(histogram, share, least):
    """Returns a percentile of [[ns, count], ...]; None if it has too few."""
    count = sum(n for _, n in histogram)
    if count < least:
        return None
    seen = 0
    for upper_ns, n in sorted(histogram):
        seen += n
        if seen >= share * count:
            return upper_ns / 1e3
    return None


def say(text):
    """Tells of progress."""
    print(text, file=sys.stderr, flush=True)


def closed_round(load, server, cell, seconds):
    """Returns the figures of one closed-loop round in which something came.

    A machine that others keep busy may leave one without, which is not to end a run
    of an hour.
    """
    for _ in range(_TRIES):
        result = load.run(
            server, cell.targets, cell.connections, seconds, **cell.flags())
        if _requests(result, cell.file_bytes):
            return _round(result, cell.file_bytes)
        say("a round without an answer; once more")
    raise machine.Unable(f"{server} had no answer in {_TRIES} rounds")


def measure(cell, load, servers, seconds, rounds, latency_rounds, latency_servers):
    """Fills in a cell; without latency_rounds there is no latency.

    Servers take turns in each round, each round begins with another one: what the
    machine does meanwhile hits all alike. Each SAME_PROCESS rounds they are started
    anew.
    """
    flags = cell.flags()

    def warm(server):
        load.run(server, cell.targets, cell.connections, 0.2, warmup=0, **flags)

    def turn(number, chosen):
        first = number % len(chosen)
        return chosen[first:] + chosen[:first]

    for server in servers:
        cell.closed[server] = []
        cell.open[server] = []
        cell.histograms[server] = []
        warm(server)
    for number in range(rounds):
        if number > 0 and number % SAME_PROCESS == 0:
            for server in servers:
                server.restart()
                warm(server)
        for server in turn(number, servers):
            cell.closed[server].append(closed_round(load, server, cell, seconds))
    if not latency_rounds:
        return
    slowest = min(
        statistics.median(r["requests_per_s"] for r in cell.closed[s])
        for s in latency_servers)
    cell.rate = LATENCY_SHARE * slowest
    for number in range(latency_rounds):
        for server in turn(number, latency_servers):
            result = load.run(
                server, cell.targets, cell.connections, seconds, rate=cell.rate,
                **flags)
            cell.open[server].append(_open_round(result))
            cell.histograms[server] += result["latency"]["histogram_ns"]


def _series(cell, server, name):
    field, less_is_better = RATIOS[name]
    taken = cell.open if name in _OPEN_LOOP else cell.closed
    return [r[field] for r in taken[server]], less_is_better


def _logs(cell, name, server, yardstick):
    """Logs of the ratios; above 0 the server is better than the yardstick."""
    ours, less_is_better = _series(cell, server, name)
    theirs, _ = _series(cell, yardstick, name)
    if less_is_better:
        return ratios.log_ratios(theirs, ours)
    return ratios.log_ratios(ours, theirs)


def _best(cell, name, candidates):
    def median(server):
        series, less_is_better = _series(cell, server, name)
        value = statistics.median(series)
        return value if less_is_better else -value

    # Latency was measured of one tuning only.
    measured = [c for c in candidates if _series(cell, c, name)[0]]
    return min(measured, key=median) if measured else candidates[0]


def results(cell, yardsticks, control_of, floor=None):
    """Returns the cells of the results, one for each server.

    yardsticks: nginx at its tunings; each ratio is against the one that is best
    at this very size in that very figure. control_of: the second instance of a
    tuning, by the first. floor: the bare floor, if it took part.
    """
    controls = {}
    best = {}
    for name in RATIOS:
        best[name] = _best(cell, name, yardsticks)
        # The tuning whose second instance took part.
        for yardstick, control in control_of.items():
            if control in cell.closed:
                controls[name] = ratios.summary(_logs(cell, name, control, yardstick))
    out = []
    for server in cell.closed:
        compared = {}
        own_yardstick = next(
            (y for y, c in control_of.items() if c is server), None)
        for name in RATIOS:
            yardstick = own_yardstick or best[name]
            if yardstick is server:
                continue
            ratio = ratios.summary(_logs(cell, name, server, yardstick))
            if ratio is None:
                continue
            ratio["against"] = yardstick.engine
            ratio["resolved"] = (
                own_yardstick is None and ratios.resolved(ratio, controls.get(name)))
            compared[name] = ratio
        over_floor = {} if server is floor else _over_floor(
            cell, server, floor, controls)
        out.append(
            _result(cell, server, compared, over_floor, server is best["cpu"]))
    return out


def _over_floor(cell, server, floor, controls):
    """Returns what the server costs as ratios to the floor: above 1 is more."""
    out = {}
    for name in ("cpu", "machine") if floor else ():
        ratio = ratios.summary([-log for log in _logs(cell, name, server, floor)])
        if ratio is not None:
            ratio["resolved"] = ratios.resolved(ratio, controls.get(name))
            out[name] = ratio
    return out


def _median(rows, name, digits=3):
    return round(statistics.median(row[name] for row in rows), digits)


def _result(cell, server, compared, over_floor, is_yardstick):
    closed = cell.closed[server]
    histogram = cell.histograms[server]
    server_busy = _median(closed, "server_busy")
    client_busy = _median(closed, "client_busy")
    saturated = [
        who for who, busy in (("server", server_busy), ("client", client_busy))
        if busy >= SATURATED
    ]
    cpu = compared.get("cpu")
    opened = cell.open[server]
    result = {
        "server": server.name,
        "engine": server.engine,
        **cell.describe(),
        "cpu_us_per_request": _median(closed, "cpu_us_per_request"),
        "client_us_per_request": _median(closed, "client_us_per_request"),
        "machine_us_per_request": _median(closed, "machine_us_per_request"),
        "requests_per_s": _median(closed, "requests_per_s", 1),
        "mb_per_s": _median(closed, "mb_per_s", 1),
        "p50_us": percentile_us(histogram, 0.5, 20),
        "p99_us": percentile_us(histogram, 0.99, 200),
        "p999_us": percentile_us(histogram, 0.999, 2000),
        "latency_requests_per_s": round(cell.rate, 1) if histogram else None,
        "cpu_us_per_request_at_that_rate":
            _median(opened, "cpu_us_per_request") if opened else None,
        "rounds": len(closed),
        "resolved": bool(cpu and cpu["resolved"]),
        "yardstick": is_yardstick,
        "ratios": compared,
        "over_floor": over_floor,
        "server_busy": server_busy,
        "client_busy": client_busy,
        "saturated": saturated,
        "others_busy": _median(closed, "others_busy"),
        "steal": _median(closed, "steal"),
        "server_system_share": _median(closed, "server_system_share"),
        "switches_per_request": _median(closed, "switches_per_request", 4),
        "errors": sum(r["errors"] for r in closed + opened),
        "raw": {
            "closed_loop": closed,
            "open_loop": opened,
        },
    }
    aims = AIMS.get((cell.keepalive, cell.file_bytes))
    plain = cell.connections == 64 and cell.pipeline == 1 and cell.workers == 1
    if server.name == "keventd" and aims and plain:
        result["aim"] = aims
        result["aims_met"] = {
            name: aim_met(name, aim, compared, over_floor)
            for name, aim in aims.items()
        }
        result["aim_met"] = all(result["aims_met"].values())
    return result


def aim_met(name, aim, compared, over_floor):
    """Whether the worse end of the interval meets an aim; without one it does not."""
    if name == "over_floor":
        ratio = over_floor.get("cpu")
        return bool(ratio and ratio["high"] <= aim)
    ratio = compared.get(name)
    return bool(ratio and ratio["low"] >= aim)
