# SPDX-License-Identifier: Apache-2.0
"""Cold files: are hot requests answered while others wait for the disk?"""

import os
import statistics

from macro import machine, rounds

HOT_BYTES = 1024
HOT_CONNECTIONS = 16
HOT_RATE = 2000
# Requests a second, timed from when they were due: a client that waits for a
# slow answer must not hide how many others would have waited as well.

COLD_FILES = 64
COLD_BYTES = 8 << 20
COLD_CONNECTIONS = 8
# Each connection goes on with the next file; none is asked for twice at a time.

THROTTLE = 50_000_000
# Bytes a second of the disk, where the system can limit it.

SETTLE_SECONDS = 1
# The pull runs before and after the window of the hot requests.


def make_files(root):
    """Makes the cold files and returns their names."""
    names = []
    for number in range(COLD_FILES):
        name = f"cold{number}.bin"
        with open(os.path.join(root, name), "wb") as file:
            file.write(os.urandom(COLD_BYTES))
            # Only clean pages leave the page cache when told to.
            file.flush()
            os.fsync(file.fileno())
        names.append(name)
    return names


def _drop(root, names):
    for name in names:
        with open(os.path.join(root, name), "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(servers, load, root, targets_of, folder, seconds, count, limit):
    """Returns one result for each server. limit: bytes a second, 0 for none."""
    names = make_files(root)
    hot = targets_of(HOT_BYTES)
    cold = os.path.join(folder, "cold.targets")
    with open(cold, "w", encoding="ascii") as file:
        file.writelines(f"{COLD_BYTES} /{name}\n" for name in names)
    throttle = machine.DiskThrottle(root, limit)
    if throttle.limit is None:
        rounds.say(f"the disk is not throttled: {throttle.why_not}")
    taken = {server: [] for server in servers}
    try:
        for server in servers:
            throttle.add(server.pids())
        for number in range(count):
            for server in servers:
                rounds.say(f"cold files, round {number + 1} of {count}: {server}")
                _drop(root, names)
                taken[server].append(
                    hot_round(
                        server, load, hot, cold, COLD_CONNECTIONS, seconds, HOT_RATE,
                        evict_root=root))
    finally:
        # The group can go only after its processes.
        for server in servers:
            server.stop()
        throttle.close()
    return [_result(server, rows, throttle) for server, rows in taken.items()]


def hot_round(server, load, hot, pulled, connections, seconds, rate, asking=None,
              **pulling):
    """Asks for small files at a rate while other connections pull; returns what
    became of them. asking, pulling: more flags of the two clients."""
    pull = load.start(
        server, pulled, connections, seconds + SETTLE_SECONDS,
        warmup=SETTLE_SECONDS / 2, **pulling)
    try:
        result = load.run(
            server, hot, HOT_CONNECTIONS, seconds, rate=rate, warmup=SETTLE_SECONDS,
            **asking or {})
    except BaseException:
        machine.end(pull)
        raise
    pulled = load.finish(pull, server)
    return {
        "hot_answered": result["answers_in_time"] / result["seconds"],
        "hot_unanswered": result["unanswered"],
        "p50_us": result["latency"]["p50_us"],
        "p99_us": result["latency"]["p99_us"],
        "p999_us": result["latency"]["p999_us"],
        "pulled_mb_per_s": pulled["body_bytes"] / pulled["seconds"] / 1e6,
        "errors": sum(result["errors"].values()) + sum(pulled["errors"].values()),
    }


def median(rows, name):
    """Returns the median of a field."""
    return round(statistics.median(row[name] for row in rows), 1)


def hot_result(server, rows, rate):
    """Returns what became of the small requests in all rounds."""
    return {
        "server": server.name,
        "engine": server.engine,
        "hot_bytes": HOT_BYTES,
        "hot_connections": HOT_CONNECTIONS,
        "hot_due_per_s": rate,
        "hot_answered_per_s": median(rows, "hot_answered"),
        "hot_unanswered": median(rows, "hot_unanswered"),
        "p50_us": median(rows, "p50_us"),
        "p99_us": median(rows, "p99_us"),
        "p999_us": median(rows, "p999_us"),
        "rounds": len(rows),
        "errors": sum(row["errors"] for row in rows),
        "raw": rows,
    }


def _result(server, rows, throttle):
    for row in rows:
        row["cold_mb_per_s"] = row.pop("pulled_mb_per_s")
    return {
        **hot_result(server, rows, HOT_RATE),
        "cold_connections": COLD_CONNECTIONS,
        "cold_file_bytes": COLD_BYTES,
        "cold_mb_per_s": median(rows, "cold_mb_per_s"),
        "disk_limit_mb_per_s": throttle.limit and throttle.limit / 1e6,
    }
