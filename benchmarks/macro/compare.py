# SPDX-License-Identifier: Apache-2.0
"""Two results against each other."""

import json

from macro import machine, ratios, report, rounds

# Both runs' figures against nginx in the same run are compared with each other:
# that the machine was faster the second time then cancels out.
_FIGURES = {"cpu": "CPU", "requests": "requests/s", "p99": "p99"}


def _key(cell):
    return tuple(
        cell.get(name) for name in
        ("server", "engine", "kernel", "file_bytes", "connections", "keepalive"))


def _load(path):
    try:
        with open(path, encoding="utf-8") as file:
            result = json.load(file)
        return {_key(cell): cell for cell in result["cells"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise machine.Unable(f"{path} is no result of a benchmark: {error}") from error


def _series(cell, name):
    field, _ = rounds.RATIOS[name]
    loop = "open_loop" if name in ("p50", "p99") else "closed_loop"
    return [row[field] for row in cell.get("raw", {}).get(loop, [])]


def _logs_to_yardstick(cells, key, name):
    """Logs of the paired ratios of a cell to nginx at its best in that run."""
    cell = cells[key]
    against = cell["ratios"].get(name, {}).get("against")
    yardstick = cells.get(("nginx", against) + key[2:])
    if not against or not yardstick:
        return []
    ours, theirs = _series(cell, name), _series(yardstick, name)
    if rounds.RATIOS[name][1]:
        ours, theirs = theirs, ours
    return ratios.log_ratios(ours, theirs)


def lines(path_a, path_b):
    """Yields the lines of the comparison."""
    a, b = _load(path_a), _load(path_b)
    common = [key for key in a if key in b]
    if not common:
        raise machine.Unable("the two results have no cell in common")
    headings = ["cell", "figure", "A x nginx", "B x nginx", "B / A"]
    rows = []
    for key in common:
        server, engine, kernel, size, connections, keepalive = key
        label = f"{server}/{engine} {rounds.size_name(size)} x{connections}"
        if keepalive is False:
            label += " one request each"
        if kernel:
            label += f" {kernel}"
        if "instructions_per_request" in a[key]:
            # Deterministic: there is nothing to estimate.
            old = a[key]["instructions_per_request"]
            new = b[key]["instructions_per_request"]
            rows.append([label, "instructions", report.number(old),
                         report.number(new), f"{new / old:.3f}"])
            continue
        if server != "keventd":
            continue
        for name, title in _FIGURES.items():
            logs_a = _logs_to_yardstick(a, key, name)
            logs_b = _logs_to_yardstick(b, key, name)
            change = ratios.difference(logs_a, logs_b)
            if not change:
                continue
            change["resolved"] = not change["low"] <= 1 <= change["high"]
            rows.append([
                label, title,
                report.number(ratios.summary(logs_a)["value"]),
                report.number(ratios.summary(logs_b)["value"]),
                report.ratio(change),
            ])
    yield from report.table(rows, headings)
    yield ""
    yield ("  Above 1 is better, in B than in A; 95% interval; ~ is not resolved. "
           "instructions: above 1 is more.")
