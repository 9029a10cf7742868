# SPDX-License-Identifier: Apache-2.0
"""Results as tables for people."""

from macro.rounds import cell_name, size_name


def table(rows, headings):
    """Yields lines with aligned columns; the first two are text."""
    widths = [max(len(row[i]) for row in [headings] + rows)
              for i in range(len(headings))]
    for row in [headings] + rows:
        parts = [
            text.ljust(width) if i < 2 else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths))
        ]
        yield "  " + "  ".join(parts).rstrip()


def number(value):
    """Returns a number with three digits or so; '-' for None."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio(value, digits=2):
    """Returns '1.52 [1.47, 1.60]', with a mark if it was not resolved."""
    if not value:
        return "-"
    middle, low, high = (f"{value[name]:.{digits}f}" for name in ("value", "low", "high"))
    text = f"{middle} [{low}, {high}]"
    return text + (" " if value.get("resolved", True) else "~")


def aim(name, value):
    """Returns an aim in words."""
    if name == "over_floor":
        return f"aim {value:.2f}x floor"
    return f"aim {value}x {'MB/s' if name == 'mb' else 'CPU'}"


def _notes(cell):
    notes = []
    if cell["yardstick"]:
        notes.append("yardstick")
    if cell["saturated"]:
        notes.append("+".join(cell["saturated"]) + " saturated")
    for name, met in cell.get("aims_met", {}).items():
        notes.append(aim(name, cell["aim"][name]) + (": met" if met else ": not met"))
    if cell["errors"]:
        notes.append(f"{cell['errors']} ERRORS")
    return ", ".join(notes)


def groups(all_cells):
    """Returns the cells by what was asked for, one list for all servers."""
    out = {}
    for cell in all_cells:
        out.setdefault(cell_name(cell), []).append(cell)
    return out


def cells(all_cells):
    """Yields the lines of the tables of the cells."""
    by_name = groups(all_cells)
    for name, members in by_name.items():
        first = members[0]
        rate = next((c["latency_requests_per_s"] for c in members
                     if c["latency_requests_per_s"]), None)
        yield ""
        latency = f"; latency at {number(rate)} requests/s" if rate else ""
        yield f"{name}; {first['rounds']} rounds{latency}"
        rows = []
        for c in members:
            compared = c["ratios"]
            rows.append([
                c["server"], c["engine"],
                number(c["cpu_us_per_request"]),
                number(c["machine_us_per_request"]),
                number(c["requests_per_s"]),
                number(c["mb_per_s"]),
                number(c["p50_us"]),
                number(c["p99_us"]),
                number(c["p999_us"]),
                ratio(compared.get("cpu")),
                ratio(compared.get("mb") or compared.get("requests")),
                ratio(c.get("over_floor", {}).get("cpu")),
                _notes(c),
            ])
        headings = [
            "server", "engine", "CPU us/req", "machine us/req", "req/s", "MB/s",
            "p50 us", "p99 us", "p99.9 us", "CPU x nginx", "MB/s x nginx", "CPU / floor", ""
        ]
        yield from table(rows, headings)
    if by_name:
        yield ""
        yield ("  x nginx: above 1 is better than the best nginx. / floor: what it "
               "costs beside the bare floor. Median and 95% interval; ~ is not "
               "resolved from noise")
        others = max(c["others_busy"] for c in all_cells)
        if others > 0.05:
            yield (f"  Something else ran meanwhile: up to {others:.0%} of the "
                   "machine. Do not trust these figures.")


def mix(told):
    """Yields the line on the files of the mix."""
    if not told:
        return
    yield ""
    yield (f"  The mix: {told['files']} files, {told['bytes'] / 1e6:.0f} MB, seed "
           f"{told['seed']}; a request is for {told['mean_bytes_per_request']} bytes "
           f"on average, half of them for at most {told['median_bytes_per_request']}")


def scale(measured):
    """Yields the lines of the tables of idle connections and fairness."""
    idle = measured.get("idle", [])
    if idle:
        yield ""
        yield (f"Memory of an idle connection, of {idle[0]['connections']} after one "
               f"request each, in bytes; {idle[0]['rounds']} rounds. Kernel: both "
               f"ends; {idle[0]['bare_sockets_bytes']} of it are the bare sockets'")
        yield from table([[
            c["server"], c["engine"], number(c["rss_bytes_per_connection"]),
            number(c["pss_bytes_per_connection"]),
            number(c["kernel_bytes_per_connection"]), number(c["pss_mb"]),
        ] for c in idle], ["server", "engine", "RSS", "PSS", "kernel", "in all MB"])
    fair = measured.get("fairness", [])
    if fair:
        yield ""
        yield (f"Shares of {fair[0]['workers']} workers: coefficient of variation, "
               f"median and worst of {fair[0]['rounds']} rounds; 0 is equal")
        yield from table([[
            c["server"], c["engine"], str(c["connections"]),
            *(f"{c[what + '_variation']:.2f} / {c[what + '_variation_worst']:.2f}"
              for what in ("connections", "requests")),
            f"{c['expected_variation']:.2f}",
        ] for c in fair], ["server", "engine", "connections", "of connections",
                           "of requests", "by chance"])


def cold(all_cold):
    """Yields the lines of the table of cold files."""
    if not all_cold:
        return
    first = all_cold[0]
    limit = first["disk_limit_mb_per_s"]
    yield ""
    yield (f"Cold files: {first['hot_due_per_s']} hot requests/s of "
           f"{size_name(first['hot_bytes'])} while {first['cold_connections']} "
           f"connections pull cold files of {size_name(first['cold_file_bytes'])}; "
           f"disk {'as it is' if limit is None else f'at {limit:.0f} MB/s'}; "
           f"{first['rounds']} rounds")
    rows = [[
        c["server"], c["engine"],
        number(c["hot_answered_per_s"]),
        number(c["p50_us"]),
        number(c["p99_us"]),
        number(c["p999_us"]),
        number(c["cold_mb_per_s"]),
        f"{c['errors']} ERRORS" if c["errors"] else "",
    ] for c in all_cold]
    headings = [
        "server", "engine", "hot answered/s", "p50 us", "p99 us", "p99.9 us",
        "cold MB/s", ""
    ]
    yield from table(rows, headings)


def beside(rows):
    """Yields the lines of the table of small requests beside large ones."""
    if not rows:
        return
    first = rows[0]
    yield ""
    yield (f"{first['hot_due_per_s']} requests/s of {size_name(first['hot_bytes'])} "
           f"while {first['large_connections']} connections pull large files from "
           f"memory; {first['rounds']} rounds")
    yield from table([[
        size_name(c["large_file_bytes"]), c["server"], c["engine"],
        number(c["hot_answered_per_s"]),
        number(c["p50_us"]), number(c["p99_us"]), number(c["p999_us"]),
        number(c["large_mb_per_s"]),
        f"{c['errors']} ERRORS" if c["errors"] else "",
    ] for c in rows], [
        "beside", "server", "engine", "answered/s", "p50 us", "p99 us", "p99.9 us",
        "large MB/s", ""])


def admin(all_admin):
    """Yields the lines of the table of what watching costs."""
    if not all_admin:
        return
    first = all_admin[0]
    yield ""
    yield (f"Admin service: {size_name(first['file_bytes'])}, "
           f"{first['connections']} connections kept, {first['rounds']} rounds")
    rows = []
    for c in all_admin:
        notes = []
        if "aim_met" in c:
            notes.append(f"{c['messages']} messages, {c['scrapes']} scrapes")
            met = "met" if c["aim_met"] else "not met"
            notes.append(f"aim at most {c['aim']['cpu']} CPU: {met}")
        if c["errors"]:
            notes.append(f"{c['errors']} ERRORS")
        rows.append([
            c["engine"], c["admin"],
            f"{c['cpu_us_per_request']:.3f}",
            number(c["requests_per_s"]),
            f"{c['admin_share']:.2%}",
            ratio(c["ratios"].get("cpu"), digits=3),
            ratio(c["ratios"].get("requests"), digits=3),
            ", ".join(notes),
        ])
    headings = [
        "engine", "admin", "CPU us/req", "req/s", "of it admin threads",
        "CPU x idle", "req/s x idle", ""
    ]
    yield from table(rows, headings)
    yield ""
    yield ("  x idle: CPU above 1 is what it costs; median and 95% interval; ~ is "
           "not resolved from noise, which the control shows")
    others = max(c["others_busy"] for c in all_admin if c["admin"] != "watched")
    if others > 0.05:
        yield (f"  Something else ran meanwhile: up to {others:.0%} of the machine. "
               "Do not trust these figures.")
