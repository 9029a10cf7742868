# SPDX-License-Identifier: Apache-2.0
"""Two results against each other."""

import json
import statistics

from macro import admin, machine, ratios, report, rounds

# Both runs' figures against nginx in the same run are compared with each other:
# that the machine was faster the second time then cancels out.
_FIGURES = {"cpu": "CPU", "requests": "requests/s", "p99": "p99"}


_IDLE = {"pss_bytes": "PSS bytes", "kernel_bytes": "kernel's bytes"}

# Of small requests while others pull large files: what is compared, its name, and
# whether less of it is better; and the tuning of nginx that it is compared to.
_COLD = {
    "hot_answered": ("hot answered/s", False), "p99_us": ("hot p99", True),
    "cold_mb_per_s": ("cold MB/s", False),
}
_COLD_YARDSTICK = "aio"
_BESIDE = {
    "hot_answered": ("small answered/s", False), "p99_us": ("small p99", True),
    "pulled_mb_per_s": ("large MB/s", False),
}
_BESIDE_YARDSTICK = "sendfile"


def _key(cell):
    return (
        cell["server"], cell.get("engine"), cell.get("kernel"),
        cell.get("workload", "file"), cell["file_bytes"], cell["connections"],
        cell.get("keepalive", True), cell.get("pipeline", 1), cell.get("workers", 1))


def _load(path):
    """Returns a result; its cells by their keys."""
    try:
        with open(path, encoding="utf-8") as file:
            result = json.load(file)
        result["cells"] = {_key(cell): cell for cell in result["cells"]}
        return result
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


def _logs_to_floor(cells, key):
    """Logs of how much less the floor costs: below 0, more is spent."""
    floor = cells.get(("floor", "epoll") + key[2:])
    if not floor:
        return []
    return ratios.log_ratios(_series(floor, "cpu"), _series(cells[key], "cpu"))


def _row(label, title, logs_a, logs_b, shown=lambda value: value, digits=None):
    """Returns a row of ratios within each run; None where one has none."""
    def told(logs):
        value = shown(ratios.summary(logs)["value"])
        return f"{value:.{digits}f}" if digits else report.number(value)

    change = ratios.difference(logs_a, logs_b)
    if not change:
        return None
    change["resolved"] = not change["low"] <= 1 <= change["high"]
    return [
        label, title, told(logs_a), told(logs_b), report.ratio(change, digits or 2),
    ]


def _cells(a, b):
    for key in (key for key in a if key in b):
        label = f"{key[0]}/{key[1]} {rounds.cell_name(a[key])}"
        if a[key].get("kernel"):
            label += f" {a[key]['kernel']}"
        if "instructions_per_request" in a[key]:
            # Deterministic: there is nothing to estimate.
            old = a[key]["instructions_per_request"]
            new = b[key]["instructions_per_request"]
            yield [label, "instructions", report.number(old), report.number(new),
                   f"{new / old:.3f}"]
            continue
        if key[0] != "keventd":
            continue
        for name, title in _FIGURES.items():
            yield _row(label, title, _logs_to_yardstick(a, key, name),
                       _logs_to_yardstick(b, key, name))
        # Told as elsewhere: what it costs beside the floor.
        yield _row(label, "CPU to the floor", _logs_to_floor(a, key),
                   _logs_to_floor(b, key), shown=lambda value: 1 / value)


def _by_server(rows):
    return {(row["server"], row["engine"]): row for row in rows}


def _idle(a, b):
    """Memory does not depend on what else the machine did: A against B as they are."""
    a, b = _by_server(a), _by_server(b)
    for key in (key for key in a if key in b):
        label = f"{key[0]}/{key[1]} idle connection"
        for field, title in _IDLE.items():
            # Above 1 is better: less.
            old, new = (ratios.log_ratios([1] * len(of[key]["raw"]),
                                          [row[field] for row in of[key]["raw"]])
                        for of in (a, b))
            change = ratios.difference(old, new)
            if change:
                change["resolved"] = not change["low"] <= 1 <= change["high"]
                yield [
                    label, title,
                    *(report.number(statistics.median(
                        row[field] for row in of[key]["raw"])) for of in (a, b)),
                    report.ratio(change),
                ]


def _waits(a, b, what, figures, tuning):
    """Of small requests while others pull large files, each against nginx's."""
    def by_server(rows):
        return {(row["server"], row["engine"], row.get("large_file_bytes")): row
                for row in rows}

    def logs(of, key, field, less_is_better):
        yardstick = of.get(("nginx", tuning, key[2]))
        if not yardstick:
            return []
        ours, theirs = ([row[field] for row in result["raw"]]
                        for result in (of[key], yardstick))
        return ratios.log_ratios(*((theirs, ours) if less_is_better else (ours, theirs)))

    a, b = by_server(a), by_server(b)
    for key in (key for key in a if key in b and key[0] == "keventd"):
        size = f" {rounds.size_name(key[2])}" if key[2] else ""
        for field, (title, less_is_better) in figures.items():
            yield _row(
                f"{key[0]}/{key[1]} {what}{size}", title,
                logs(a, key, field, less_is_better), logs(b, key, field, less_is_better))


def _admin(a, b):
    def by_load(rows):
        return {(row["engine"], row["file_bytes"], row["connections"], row["admin"]): row
                for row in rows}

    def logs(of, key):
        """Of how much less is spent while nobody is there: below 0, watching costs."""
        idle = of.get((*key[:-1], admin.IDLE))
        if not idle:
            return []
        return ratios.log_ratios(*(
            [row["cpu_us_per_request"] for row in one["raw"]] for one in (idle, of[key])))

    a, b = by_load(a), by_load(b)
    for key in (key for key in a if key in b and key[-1] in (admin.WATCHED, admin.OFF)):
        # Told as elsewhere, by hundredths and less: above 1 is what it costs.
        yield _row(
            f"keventd/{key[0]} admin {key[-1]}, {rounds.cell_name(a[key])}",
            "CPU to idle", logs(a, key), logs(b, key), shown=lambda value: 1 / value,
            digits=3)


def lines(path_a, path_b):
    """Yields the lines of the comparison."""
    a, b = _load(path_a), _load(path_b)
    rows = [row for row in [
        *_cells(a["cells"], b["cells"]),
        *_waits(a.get("cold") or [], b.get("cold") or [],
                "cold files", _COLD, _COLD_YARDSTICK),
        *_waits(a.get("beside") or [], b.get("beside") or [],
                "beside", _BESIDE, _BESIDE_YARDSTICK),
        *_idle((a.get("scale") or {}).get("idle", []),
               (b.get("scale") or {}).get("idle", [])),
        *_admin(a.get("admin") or [], b.get("admin") or []),
    ] if row]
    if not rows:
        raise machine.Unable("the two results have nothing in common to compare")
    yield from report.table(
        rows, ["cell", "figure", "A x nginx", "B x nginx", "B / A"])
    yield ""
    yield ("  Above 1 is better, in B than in A; 95% interval; ~ is not resolved. "
           "In place of ratios to nginx: what it costs beside the floor; what the "
           "admin service costs beside one that nobody watches; bytes of idle "
           "connections. Instructions: above 1 is more.")
