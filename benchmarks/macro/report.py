# SPDX-License-Identifier: Apache-2.0
"""Results as tables for people."""

from macro.rounds import size_name


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


def ratio(value):
    """Returns '1.52 [1.47, 1.60]', with a mark if it was not resolved."""
    if not value:
        return "-"
    text = f"{value['value']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"
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


def _group(cell):
    return cell["file_bytes"], cell["connections"], cell["keepalive"]


def cells(all_cells):
    """Yields the lines of the tables of the cells."""
    groups = {}
    for cell in all_cells:
        groups.setdefault(_group(cell), []).append(cell)
    for (size, connections, keepalive), members in groups.items():
        kind = "kept" if keepalive else "one request each"
        first = members[0]
        rate = next((c["latency_requests_per_s"] for c in members
                     if c["latency_requests_per_s"]), None)
        yield ""
        yield (f"{size_name(size)}, {connections} connections, {kind}; "
               f"{first['rounds']} rounds; latency at {number(rate)} requests/s")
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
    if groups:
        yield ""
        yield ("  x nginx: above 1 is better than the best nginx. / floor: what it "
               "costs beside the bare floor. Median and 95% interval; ~ is not "
               "resolved from noise")
        others = max(c["others_busy"] for c in all_cells)
        if others > 0.05:
            yield (f"  Something else ran meanwhile: up to {others:.0%} of the "
                   "machine. Do not trust these figures.")


def _cost(value):
    """Returns '1.004 [0.998, 1.009]', with a mark if it was not resolved."""
    if not value:
        return "-"
    text = f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
    return text + (" " if value["resolved"] else "~")


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
            _cost(c["ratios"].get("cpu")),
            _cost(c["ratios"].get("requests")),
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
