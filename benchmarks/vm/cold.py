# SPDX-License-Identifier: Apache-2.0
"""The longest that a hot request waits while others pull cold files.

In the guest, because only there is kevent.ko, but by the clock: a disk has no
deterministic time.
"""

import statistics

from macro import report
from vm import guest

SERVERS = ["module", "uring", "epoll", "nginx-sendfile", "nginx-aio"]
SECONDS = 3
PULLING = 8
DISK_MIB = 20
# A second. Emulated, a processor is some twenty times slower than its host's: a disk
# as fast as the host's would be no disk to it.


def measure(args, results):
    """Adds one result for each round, server, and kind (control or cold)."""
    adds = guest.scripts("await.sh", "nginx.sh", "cold.sh") + guest.configurations(SERVERS)
    adds.append((f"{guest.TOP}/bazel-bin/benchmarks/load/load", "/bench/load"))
    command = ["sh", "/bench/cold.sh", " ".join(SERVERS), str(args.rounds),
               str(SECONDS), str(PULLING)]
    flags = ["--disk-rate", str(DISK_MIB), "--append", guest.UNCHECKED]
    for line in guest.run(args, adds, command, icount=False, flags=flags):
        words = line.split()
        if len(words) != 6 or words[1] not in ("control", "cold"):
            continue
        longest, median, rate, pulled = map(float, words[2:])
        results.append({"server": words[0], "kind": words[1], "longest_ms": longest / 1000,
                        "median_ms": median / 1000, "hot_per_s": rate,
                        "cold_mb_per_s": pulled / 1e6, "disk_mib_per_s": DISK_MIB})
        guest.say(line)


def table(results):
    """Yields the lines of the table of measure()."""
    rounds = {}
    for r in results:
        rounds.setdefault((r["server"], r["kind"]), []).append(r)
    rows = []
    for server in dict.fromkeys(r["server"] for r in results):
        row = [server, str(len(rounds[server, "cold"]))]
        for kind in ("control", "cold"):
            longest = [r["longest_ms"] for r in rounds[server, kind]]
            row += [f"{statistics.median(longest):.1f}", f"{max(longest):.1f}"]
        for kind in ("control", "cold"):
            row.append(f"{statistics.median(r['hot_per_s'] for r in rounds[server, kind]):.0f}")
        pulled = statistics.median(r["cold_mb_per_s"] for r in rounds[server, "cold"])
        rows.append(row + [f"{pulled:.1f}"])
    headings = ["server", "rounds", "alone: longest ms", "max", "cold: longest ms", "max",
                "hot/s alone", "hot/s cold", "cold MB/s"]
    yield from report.table(rows, headings)
