# SPDX-License-Identifier: Apache-2.0
"""The benchmarks with which kevent was presented in 2006, in their own terms.

Each figure of ours is a ratio to epoll in the same kernel and run, beside the ratio
of then: machines differ by more than event layers do.
"""

import json
import statistics

from macro import report
from vm import guest

# Events a second of 2,000 sockets, as reported then.
EVENTS_THEN = {"epoll level": 57428, "epoll edge": 71000, "kevent level": 59794,
               "kevent edge": 78265, "none": 88482}
EVENTS = [("kevent level", "epoll level"), ("kevent level, ring", "epoll level"),
          ("kevent edge", "epoll edge"), ("kevent edge, ring", "epoll edge"),
          ("epoll edge", "none"), ("kevent edge", "none"), ("kevent edge, ring", "none")]
# Requests a second, and megabytes a second: kevent against the range of the other.
SHORT_THEN = (3380, 2200, 2500)
PATHS_THEN = (78, 66, 72)

# (times, events, requests, rounds) by instructions and by the clock.
COUNTED = (1, 2000, 2000, 1)
TIMED = (5, 3000, 4000, 3)


def _collect(args, icount):
    """Returns {(benchmark, layer): [cost of each time]}."""
    adds = (guest.programs("batch", "events", "short_client", "short_epoll", "short_kevent",
                           "paths")
            + guest.scripts("await.sh", "figures2006.sh"))
    numbers = COUNTED if icount else TIMED
    # One processor: see vm_bench.py, requests.
    command = ["/bench/batch"] if icount else []
    command += ["sh", "/bench/figures2006.sh", *map(str, numbers)]
    flags = [] if icount else ["--append", guest.UNCHECKED]
    costs = {}
    for line in guest.run(args, adds, command, icount, flags):
        if line.startswith("{"):
            cell = json.loads(line)
            if cell["active"] == 1:
                continue
            key, cost = (cell["sockets"], cell["layer"]), cell["instructions_per_event"]
        else:
            words = line.split()
            if len(words) != 3 or words[0] not in ("short", "paths"):
                continue
            key, cost = (words[0], words[1]), float(words[2])
        costs.setdefault(key, []).append(cost)
        guest.say(line)
    return costs


def measure(args, results):
    """Adds one result for each benchmark, layer and measure."""
    for icount in (True, False):
        for (benchmark, layer), costs in _collect(args, icount).items():
            results.append({"benchmark": benchmark, "layer": layer,
                            "measure": "instructions" if icount else "ns",
                            "cost": statistics.median(costs), "raw": costs})


def _ratio(costs, benchmark, ours, theirs):
    """Returns how much faster ours is: median and range of the turns."""
    if not costs.get((benchmark, ours)):
        return "-"
    ratios = [b / a for a, b in zip(costs[benchmark, ours], costs[benchmark, theirs])]
    text = f"{statistics.median(ratios):.2f}"
    if len(ratios) > 1:
        text += f" [{min(ratios):.2f}, {max(ratios):.2f}]"
    return text


def table(results):
    """Yields the lines of the table of measure(): above 1, ours is faster."""
    kinds = {}
    for r in results:
        kinds.setdefault(r["measure"], {})[r["benchmark"], r["layer"]] = r["raw"]
    rows = []

    def row(name, then, benchmark, ours, theirs):
        rows.append([name, f"{ours} to {theirs}", then]
                    + [_ratio(kinds.get(kind, {}), benchmark, ours, theirs)
                       for kind in ("instructions", "ns")])

    for sockets, name in (("tcp", "events, 2,000 TCP sockets"),
                          ("unix", "events, 2,000 Unix sockets")):
        for ours, theirs in EVENTS:
            then = EVENTS_THEN[ours.partition(",")[0]] / EVENTS_THEN[theirs]
            row(name, f"{then:.2f}", sockets, ours, theirs)
    ours, low, high = SHORT_THEN
    for layer in ("module", "uring", "queue-epoll"):
        then = f"{ours / high:.2f}-{ours / low:.2f}" if layer == "module" else "-"
        row("web server, short connections", then, "short", layer, "epoll")
    ours, low, high = PATHS_THEN
    row("sendfile_path, 100 files of 1 MiB", f"{ours / high:.2f}-{ours / low:.2f}", "paths",
        "kevent", "epoll")
    yield from report.table(rows, ["benchmark", "layers", "2006", "instructions", "time"])
    for name, unit, scale in (("short", "requests/s", 1e9), ("paths", "MB/s", 1e9 * 1.048576)):
        for (benchmark, layer), costs in kinds.get("ns", {}).items():
            if benchmark == name:
                yield f"  {name} {layer}: {scale / statistics.median(costs):.0f} {unit}"
