# SPDX-License-Identifier: Apache-2.0
"""Results as a page of Markdown, for docs/."""

from macro import ratios, report, rounds
from macro.report import number

_FIGURES = {
    "cpu": "CPU time", "machine": "CPU time of the machine",
    "requests": "requests/s", "mb": "MB/s",
}

_MACHINE = {
    "time": "measured", "kevent": "kevent", "nginx": "nginx", "h2o": "h2o",
    "lighttpd": "lighttpd", "kernel": "kernel", "os": "system", "cpu": "processor",
    "cores": "cores", "memory_mb": "memory, MB", "hypervisor": "virtual machine",
    "files_on": "files on", "congestion_control": "congestion control",
    "seconds_per_round": "seconds of a round", "took_seconds": "took, seconds",
    "counts": "what counts of the run",
}

_HOW = """\
Written by `./kev bench http --report`; `benchmarks/README.md` says how it is measured,
what each figure means, and where it misleads. A ratio **to nginx** is to the better of its
two tunings at that very size and figure: above 1, keventd is better. A ratio **to the
floor** is what a server costs beside a loop of epoll, recv and send that neither parses
nor opens anything. In brackets: the 95% interval of the median of the paired rounds. `~`:
**not resolved**, which is not told apart from noise by these rounds. The **control** is
nginx against a second nginx of the same tuning: what noise alone does. Latency has fewer
rounds: its ratios are seldom resolved, and stand in the last tables only.
"""


def _place(cell):
    """Returns where a cell stands: by what is least common in a load, then by size."""
    connections = cell["connections"]
    return (cell.get("workers", 1), cell.get("pipeline", 1), not cell["keepalive"],
            cell.get("workload", "file") != "file", connections != 64, connections,
            cell["file_bytes"] or 0)


def merge(results):
    """Returns one result of several; where they measured the same cell, the later
    counts. Ratios stay what they were: each is within its own run."""
    kept = {part: {} for part in ("cells", "cold", "beside", "admin", "idle", "fairness")}

    def keep(part, key, row, what, index):
        kept[part][key] = (row, what, index)

    mix = None
    for index, result in enumerate(results):
        # Those of ./kev bench vm count instructions: they are for --compare.
        for cell in result.get("cells", []):
            if "cpu_us_per_request" in cell:
                name, server = rounds.cell_name(cell), cell["server"]
                # The control has the tuning that was the better one of that run.
                engine = None if server == "nginx-control" else cell["engine"]
                keep("cells", (name, server, engine), cell, name, index)
        for row in result.get("cold", []):
            keep("cold", (row["server"], row["engine"]), row, "cold files", index)
        for row in result.get("beside", []):
            key = (row["server"], row["engine"], row["large_file_bytes"])
            keep("beside", key, row, "beside large ones", index)
        for row in result.get("admin", []):
            key = (row["engine"], row["file_bytes"], row["connections"], row["admin"])
            keep("admin", key, row, "the admin service", index)
        for part, rows in (result.get("scale") or {}).items():
            for row in rows:
                key = (row["server"], row["engine"], row["connections"])
                keep(part, key, row, f"scale: {part}", index)
        mix = result.get("mix") or mix
    out = {part: [row for row, *_ in rows.values()] for part, rows in kept.items()}
    out["cells"].sort(key=_place)
    out["scale"] = {part: rows for part in ("idle", "fairness") if (rows := out.pop(part))}
    out["mix"] = mix
    # Of each run: what of it counts, without repetition.
    counts = [{} for _ in results]
    for rows in kept.values():
        for _, what, index in rows.values():
            counts[index][what] = True
    out["runs"] = [{**result.get("machine", {}), "counts": "; ".join(what)}
                   for result, what in zip(results, counts) if what]
    return out


def name_of(cell):
    """Returns the server of a cell in words."""
    if cell["server"] in ("floor", "floor-pages", "floor-ring", "h2o", "lighttpd"):
        return cell["server"]
    return f"{cell['server']} {cell['engine']}"


def table(rows, headings, text_columns=1):
    """Yields the lines of a table."""
    yield "| " + " | ".join(headings) + " |"
    yield "|" + "|".join(
        "---" if i < text_columns else "---:" for i in range(len(headings))) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def ratio(value, digits=2):
    """Returns '1.52 [1.47, 1.60]', with ~ if it was not resolved; '' for none."""
    return report.ratio(value, digits).strip() if value else ""


def control_ratio(value, digits=2):
    """Returns the ratio of a control, which is never resolved and needs no mark."""
    return ratio({**value, "resolved": True}, digits) if value else ""


def paired(cell, other, field="cpu_us_per_request"):
    """Returns the ratio of another server's cost to that of a cell in the same
    rounds: above 1, the cell is cheaper. None without rounds."""
    def series(of):
        return [row[field] for row in of.get("raw", {}).get("closed_loop", [])]

    out = ratios.summary(ratios.log_ratios(series(other), series(cell)))
    if out:
        # These two have no control.
        out["resolved"] = out["rounds"] >= ratios.ENOUGH_ROUNDS and not (
            out["low"] <= 1 <= out["high"])
    return out


def judged(cells, servers=("keventd",)):
    """Yields (cell, figure, ratio) of each ratio to nginx from the closed loop."""
    for cell in cells:
        if cell["server"] in servers:
            for figure in _FIGURES:
                # Of one size both say the same.
                if figure == "mb" and "requests" in cell["ratios"]:
                    continue
                if value := cell["ratios"].get(figure):
                    yield cell, figure, value


def losses(cells):
    """Yields sentences on what was resolved, and is worse than nginx."""
    for cell, figure, value in judged(cells):
        if value["resolved"] and value["high"] < 1:
            yield (f"{rounds.cell_name(cell)}: {name_of(cell)}, {_FIGURES[figure]}, "
                   f"ratio to nginx {ratio(value)}")


def cheaper_peers(cells):
    """Yields sentences on other servers that need less CPU time than keventd."""
    for name, members in report.groups(cells).items():
        ours = [c for c in members if c["server"] == "keventd"]
        for peer in (c for c in members if c["server"] in ("h2o", "lighttpd")):
            for cell in ours:
                value = paired(cell, peer)
                if value and value["high"] < 1:
                    yield (f"{name}: {peer['server']} needs "
                           f"{ratio(value)} of the CPU time of {name_of(cell)}")


def missed_aims(cells):
    """Yields sentences on aims that were not met, or not surely, and on what the
    floors have."""
    members = report.groups(cells)
    for cell in cells:
        for aim, met in cell.get("aims_met", {}).items():
            if met:
                continue
            value = (cell["over_floor"].get("cpu") if aim == "over_floor"
                     else cell["ratios"].get(aim))
            yield (f"{rounds.cell_name(cell)}, {name_of(cell)}: "
                   f"{report.aim(aim, cell['aim'][aim])}; it is "
                   f"{ratio(value) or 'not measured'}" + "".join(
                       f"; {name_of(c)} {ratio(c['ratios'][aim])}"
                       for c in members[rounds.cell_name(cell)]
                       if c["server"].startswith("floor") and aim in c["ratios"]))


def unresolved(cells):
    """Yields sentences on what these rounds do not tell apart from nginx."""
    found = {}
    for cell, figure, value in judged(cells):
        if not value["resolved"]:
            found.setdefault(rounds.cell_name(cell), []).append(
                f"{_FIGURES[figure]} of {name_of(cell)} {ratio(value)}")
    for name, what in found.items():
        yield f"{name}: {'; '.join(what)}"


def _listed(sentences, otherwise):
    lines = [f"- {sentence}" for sentence in sentences]
    return lines + [""] if lines else [otherwise, ""]


def _summary(cells):
    """Yields the table of CPU time: a line for each cell."""
    by_name = report.groups(cells)
    engines = list(dict.fromkeys(
        c["engine"] for c in cells if c["server"] == "keventd"))
    rows = []
    for name, members in by_name.items():
        ours = {c["engine"]: c for c in members if c["server"] == "keventd"}
        control = next((c for c in members if c["server"] == "nginx-control"), None)
        best = next((c for c in members if c["yardstick"]), None)
        of_best = best and best.get("over_floor", {}).get("cpu")
        rows.append([
            name,
            *(ratio(ours[e]["ratios"].get("cpu")) if e in ours else ""
              for e in engines),
            control_ratio(control and control["ratios"].get("cpu")),
            *(ratio(ours[e].get("over_floor", {}).get("cpu")) if e in ours else ""
              for e in engines),
            ratio(of_best),
        ])
    yield from table(rows, [
        "", *(f"{e}, to nginx" for e in engines), "control",
        *(f"{e}, to the floor" for e in engines), "nginx, to the floor"
    ])


def _group_table(members):
    rows = []
    for c in members:
        marks = ["yardstick"] if c["yardstick"] else []
        marks += [f"{who} saturated" for who in c["saturated"]]
        marks += [f"{c['errors']} errors"] if c["errors"] else []
        show = control_ratio if c["server"] == "nginx-control" else ratio
        rows.append([
            name_of(c), number(c["cpu_us_per_request"]),
            number(c["machine_us_per_request"]), number(c["requests_per_s"]),
            number(c["mb_per_s"]), number(c["p50_us"]), number(c["p99_us"]),
            number(c["p999_us"]),
            *(show(c["ratios"].get(figure)) for figure in ("cpu", "requests", "p99")),
            ratio(c.get("over_floor", {}).get("cpu")), ", ".join(marks),
        ])
    yield from table(rows, [
        "", "CPU us/request", "machine us/request", "requests/s", "MB/s", "p50 us",
        "p99 us", "p99.9 us", "CPU to nginx", "requests/s to nginx", "p99 to nginx",
        "CPU to the floor", ""
    ])


def _cells(cells):
    for name, members in report.groups(cells).items():
        rate = next((c["latency_requests_per_s"] for c in members
                     if c["latency_requests_per_s"]), None)
        yield f"### {name}"
        yield ""
        yield (f"{members[0]['rounds']} rounds."
               + (f" Latency at {number(rate)} requests/s." if rate else ""))
        others = max(c["others_busy"] for c in members)
        if others > 0.05:
            yield (f"**Something else ran meanwhile: up to {others:.0%} of the "
                   "machine.**")
        yield ""
        yield from _group_table(members)


def _mix(told):
    if not told:
        return
    yield (f"The mix: {told['files']} files of {told['bytes'] / 1e6:.0f} MB, sizes "
           "log-normal with a Pareto tail, asked for by Zipf's law (exponent "
           f"{told['zipf']}), seed {told['seed']}. A request is for "
           f"{told['mean_bytes_per_request']} bytes on average, half of them for at "
           f"most {told['median_bytes_per_request']}.")
    yield ""


def _scale(scale):
    idle = scale.get("idle", [])
    if idle:
        first = idle[0]
        yield "## Idle connections"
        yield ""
        yield (f"{first['connections']} connections that had one answer each, beside "
               f"{len(first['raw'])} rounds of the same; bytes for each, medians (least "
               "to most). RSS and PSS are the server's; what it allocated before is in "
               "the last column. The kernel's memory is that of the whole machine, both "
               f"ends of the connection; {first['bare_sockets_bytes']} bytes of it are "
               "two sockets that nobody watches.")
        yield ""

        def spread(row, field):
            values = [r[f"{field}_bytes"] for r in row["raw"]]
            return (f"{number(row[field + '_bytes_per_connection'])} "
                    f"({min(values):.0f} to {max(values):.0f})")

        yield from table([[
            name_of(c), spread(c, "rss"), spread(c, "pss"), spread(c, "kernel"),
            f"{number(c['pss_mb'])} ({number(c['pss_mb_before'])} before)",
        ] for c in idle], ["", "RSS", "PSS", "kernel", "PSS in all, MB"])
    fair = scale.get("fairness", [])
    if fair:
        yield "## Shares of workers"
        yield ""
        yield (f"{fair[0]['workers']} workers, each with its own listener "
               "(SO_REUSEPORT); the coefficient of variation of what each got, median "
               f"and worst of {fair[0]['rounds']} rounds. 0: all got the same. The "
               "kernel places connections by a hash; the last column is what that "
               "gives by chance.")
        yield ""
        yield from table([[
            name_of(c), str(c["connections"]),
            *(f"{c[what + '_variation']:.2f} / {c[what + '_variation_worst']:.2f}"
              for what in ("connections", "requests")),
            f"{c['requests_largest_share']:.0%}", f"{c['expected_variation']:.2f}",
        ] for c in fair], ["", "connections", "of connections", "of requests",
                           "largest share of requests", "by chance"])


def _cold(rows):
    if not rows:
        return
    first = rows[0]
    limit = first["disk_limit_mb_per_s"]
    yield "## Cold files"
    yield ""
    yield (f"{first['hot_due_per_s']} hot requests a second fall due while "
           f"{first['cold_connections']} connections pull files that are not in the "
           "page cache; the disk "
           f"{'as it is' if limit is None else f'at {limit:.0f} MB/s'}; "
           f"{first['rounds']} rounds.")
    yield ""
    yield from table([[
        name_of(c), number(c["hot_answered_per_s"]), number(c["p50_us"]),
        number(c["p99_us"]), number(c["p999_us"]), number(c["cold_mb_per_s"]),
    ] for c in rows], ["", "hot answered/s", "p50 us", "p99 us", "p99.9 us",
                       "cold MB/s"])


def _beside(rows):
    if not rows:
        return
    first = rows[0]
    yield "## Small requests beside large ones"
    yield ""
    yield (f"{first['hot_due_per_s']} requests a second of "
           f"{rounds.size_name(first['hot_bytes'])} fall due while "
           f"{first['large_connections']} connections pull one large file that is in "
           f"memory; {first['rounds']} rounds.")
    yield ""
    yield from table([[
        rounds.size_name(c["large_file_bytes"]), name_of(c),
        number(c["hot_answered_per_s"]), number(c["p50_us"]), number(c["p99_us"]),
        number(c["p999_us"]), number(c["large_mb_per_s"]),
    ] for c in rows], ["beside", "", "answered/s", "p50 us", "p99 us", "p99.9 us",
                       "large MB/s"])


def _admin(rows):
    if not rows:
        return
    yield "## The admin service"
    yield ""
    yield ("What requests cost while the admin service is on and nobody is there "
           "(`idle`), while `kevctl watch` and Prometheus watch (`watched`), once more as "
           "`idle` (`control`), and without the service (`off`). Ratios are to `idle`: "
           "for CPU time above 1 is what it costs.")
    yield ""
    for c in rows:
        if "aim_met" in c:
            value = ratio(c["ratios"]["cpu"], digits=3)
            yield (f"- {name_of(c)}, {rounds.cell_name(c)}: aim at most "
                   f"{c['aim']['cpu']}x CPU time, "
                   f"{'met' if c['aim_met'] else 'not met, or not surely'}; "
                   f"it is {value}, and "
                   f"{c['admin_share']:.2%} of it are the admin service's threads")
    yield ""
    told = []
    for c in rows:
        show = control_ratio if c["admin"] == "control" else ratio
        told.append([
            name_of(c), rounds.cell_name(c), c["admin"], str(c["rounds"]),
            f"{c['cpu_us_per_request']:.3f}", number(c["requests_per_s"]),
            f"{c['admin_share']:.2%}",
            *(show(c["ratios"].get(figure), digits=3) for figure in ("cpu", "requests")),
        ])
    yield from table(told, [
        "", "", "", "rounds", "CPU us/request", "requests/s", "of it admin threads",
        "CPU to idle", "requests/s to idle"
    ], 3)


def _runs(runs):
    if not runs:
        return
    yield "## Machine and versions"
    yield ""
    fields = {field: ["" if run.get(field) is None else str(run[field]) for run in runs]
              for field in _MACHINE}
    same = {field: values[0] for field, values in fields.items() if len(set(values)) == 1}
    yield from table([[_MACHINE[field], value] for field, value in same.items() if value],
                     ["", ""], 2)
    fields = {field: values for field, values in fields.items() if field not in same}
    if fields:
        yield from table([list(row) for row in zip(*fields.values())],
                         [_MACHINE[field] for field in fields], len(fields))


def lines(result, plots=()):
    """Yields the lines of the page. plots: [(title, path from the page)]."""
    cells = result["cells"]
    yield "# Benchmarks"
    yield ""
    yield from _HOW.splitlines()
    yield ""
    for title, path in plots:
        yield f"![{title}]({path})"
        yield ""
    if cells:
        yield "## CPU time for each request"
        yield ""
        yield from _summary(cells)
        yield from _mix(result["mix"])
        yield "## Where keventd loses"
        yield ""
        yield from _listed(
            [*losses(cells), *cheaper_peers(cells)],
            "Nothing was resolved as worse than nginx, and no other server needs less "
            "CPU time.")
        yield "Aims that are not met, or not surely (the worse end of the interval counts):"
        yield ""
        yield from _listed(missed_aims(cells), "None.")
        yield "## What is not resolved"
        yield ""
        yield from _listed(unresolved(cells), "Everything is.")
    yield from _scale(result["scale"])
    yield from _cold(result["cold"])
    yield from _beside(result["beside"])
    yield from _admin(result["admin"])
    if cells:
        yield "## All cells"
        yield ""
        yield from _cells(cells)
    yield from _runs(result["runs"])
