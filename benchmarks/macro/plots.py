# SPDX-License-Identifier: Apache-2.0
"""Results as plots, by matplotlib (python3-matplotlib of Debian)."""

import os

from macro import machine, page, report, rounds

# Colours that those who see fewer of them tell apart (Okabe and Ito).
_COLOURS = {
    "keventd epoll": "#0072B2", "keventd uring": "#D55E00",
    "keventd module": "#009E73", "nginx": "#000000", "control": "#999999",
    "floor": "#CC79A7", "h2o": "#E69F00", "lighttpd": "#56B4E9",
}
_MARKERS = {
    "keventd epoll": "o", "keventd uring": "s", "keventd module": "D",
    "nginx": "^", "control": "x", "floor": "v", "h2o": "P", "lighttpd": "X",
}


def series_name(cell):
    """Returns under which name a cell is drawn; None if it is not."""
    if cell["server"] == "nginx-control":
        return "control"
    if cell["server"] == "nginx":
        return "nginx" if cell["yardstick"] else None
    name = page.name_of(cell)
    return name if name in _COLOURS else None


def reach(middle, low, high):
    """Returns how far a line goes below and above a value, which may be rounded."""
    return max(0.0, middle - low), max(0.0, high - middle)


def by_size(cells):
    """Returns the cells of single files at 64 kept connections by their sizes."""
    out = {}
    for cell in cells:
        plain = (cell.get("workload", "file") == "file" and cell["keepalive"]
                 and cell["connections"] == 64 and cell.get("pipeline", 1) == 1
                 and cell.get("workers", 1) == 1)
        if plain:
            out.setdefault(cell["file_bytes"], []).append(cell)
    return dict(sorted(out.items()))


def other_cells(cells):
    """Returns the cells of everything else by their names."""
    plain = {id(c) for members in by_size(cells).values() for c in members}
    return report.groups(c for c in cells if id(c) not in plain)


def points(groups, value_of):
    """Returns {series: [(position, value)]} for groups of cells in their order.

    value_of: returns what is drawn of a cell, or None.
    """
    out = {}
    for position, members in enumerate(groups.values()):
        for cell in members:
            name, value = series_name(cell), value_of(cell)
            if name and value:
                out.setdefault(name, []).append((position, value))
    # The same order in all plots.
    return {name: out[name] for name in _COLOURS if name in out}


def to_nginx(figure):
    """Returns the value_of of a ratio to nginx."""
    return lambda cell: cell["ratios"].get(figure)


def to_floor(cell):
    """Returns the ratio of a cell's CPU time to that of the floor."""
    return cell.get("over_floor", {}).get("cpu")


class Plotter:
    """Draws into a folder; raises Unable without matplotlib."""

    def __init__(self, folder):
        try:
            import matplotlib  # pylint: disable=import-outside-toplevel
        except ImportError as error:
            raise machine.Unable(
                f"no matplotlib for this Python ({error}); run ./kev setup bench") from (
                    error)
        matplotlib.use("Agg")
        # The same results make the same bytes.
        matplotlib.rcParams.update({
            "svg.hashsalt": "kevent", "font.size": 9, "axes.grid": True,
            "grid.alpha": 0.3, "axes.axisbelow": True, "figure.dpi": 100,
            "savefig.dpi": 150,
        })
        from matplotlib import pyplot  # pylint: disable=import-outside-toplevel
        self._pyplot = pyplot
        self._folder = folder
        os.makedirs(folder, exist_ok=True)

    def all(self, result):
        """Draws what there are results for; returns [(title, file name of the SVG)]."""
        cells = result["cells"]
        sizes = {rounds.size_name(s): c for s, c in by_size(cells).items()}
        drawn = []
        if sizes:
            drawn.append(self._ratios(
                "cpu", "CPU time for each request, 64 kept connections", sizes,
                to_nginx("cpu"), "ratio to the best nginx\n(above 1 is better)"))
            drawn.append(self._ratios(
                "requests", "Requests/s, 64 kept connections", sizes,
                to_nginx("requests"), "ratio to the best nginx\n(above 1 is better)"))
            if points(sizes, to_floor):
                drawn.append(self._ratios(
                    "floor", "CPU time for each request beside the bare floor", sizes,
                    to_floor, "ratio to the floor\n(1: as a bare loop)"))
            if any(c["p99_us"] for members in sizes.values() for c in members):
                drawn.append(self._latency(sizes))
        others = other_cells(cells)
        if points(others, to_nginx("cpu")):
            drawn.append(self._others(others))
        if result["scale"].get("idle"):
            drawn.append(self._idle(result["scale"]["idle"]))
        if result["cold"]:
            drawn.append(self._cold(result["cold"]))
        return drawn

    def _save(self, figure, name, title):
        for kind in ("svg", "png"):
            path = os.path.join(self._folder, f"{name}.{kind}")
            figure.savefig(
                path, bbox_inches="tight",
                metadata={"Date": None} if kind == "svg" else None)
        self._pyplot.close(figure)
        # matplotlib ends the lines of paths by a blank.
        path = os.path.join(self._folder, f"{name}.svg")
        with open(path, encoding="utf-8") as file:
            lines = [line.rstrip() for line in file]
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        return title, f"{name}.svg"

    def _scatter(self, axes, series, upright=True):
        """Draws points with their intervals, beside each other at each position."""
        step = 0.7 / max(1, len(series))
        for number, (name, values) in enumerate(series.items()):
            shift = (number - (len(series) - 1) / 2) * step
            # A control is not to be told apart, and needs no mark for it.
            hollow = [name != "control" and not v.get("resolved", True)
                      for _, v in values]
            for (position, v), is_hollow in zip(values, hollow):
                at = position + shift
                error = [[v["value"] - v["low"]], [v["high"] - v["value"]]]
                where = (at, v["value"]) if upright else (v["value"], at)
                axes.errorbar(
                    *where, **{"yerr" if upright else "xerr": error},
                    fmt=_MARKERS[name], color=_COLOURS[name], capsize=2,
                    markersize=5, linewidth=1.2,
                    markerfacecolor="white" if is_hollow else _COLOURS[name])
        handles = [
            axes.errorbar([], [], fmt=_MARKERS[name], color=_COLOURS[name], label=name)
            for name in series
        ]
        handles.append(axes.errorbar(
            [], [], fmt="o", color="#555555", markerfacecolor="white",
            label="hollow: not resolved"))
        return handles

    def _log_ratio_axis(self, axis, limits):
        from matplotlib import ticker  # pylint: disable=import-outside-toplevel
        low, high = limits
        ticks = [t for t in (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5,
                             1.7, 2, 2.5, 3, 4, 5, 7, 10)
                 if low <= t <= high]
        while len(ticks) > 12:
            ticks = [t for t in ticks if t == 1 or ticks.index(t) % 2]
        axis.set_major_locator(ticker.FixedLocator(ticks))
        axis.set_major_formatter(ticker.FuncFormatter(lambda v, _: f"{v:g}"))
        axis.set_minor_locator(ticker.NullLocator())

    def _ratios(self, name, title, groups, value_of, label):
        figure, axes = self._pyplot.subplots(figsize=(9, 4.2))
        series = points(groups, value_of)
        handles = self._scatter(axes, series)
        axes.axhline(1, color="black", linewidth=1)
        axes.set_yscale("log")
        self._log_ratio_axis(axes.yaxis, axes.get_ylim())
        axes.set_xticks(range(len(groups)), list(groups))
        axes.set_xlim(-0.5, len(groups) - 0.5)
        axes.set_xlabel("size of the file")
        axes.set_ylabel(label + ", log scale")
        axes.set_title(title + "\nmedian of paired rounds and its 95% interval")
        axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5))
        return self._save(figure, name, title)

    def _others(self, groups):
        title = "CPU time for each request, other loads"
        figure, axes = self._pyplot.subplots(figsize=(9, 1.6 + 0.55 * len(groups)))
        series = points(groups, to_nginx("cpu"))
        handles = self._scatter(axes, series, upright=False)
        axes.axvline(1, color="black", linewidth=1)
        axes.set_xscale("log")
        self._log_ratio_axis(axes.xaxis, axes.get_xlim())
        axes.set_yticks(range(len(groups)), list(groups))
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlabel("ratio to the best nginx (above 1 is better), log scale")
        axes.set_title(title + "\nmedian of paired rounds and its 95% interval")
        axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5))
        return self._save(figure, "others", title)

    def _latency(self, sizes):
        title = "Latency at 70% of what the slowest can do, 64 kept connections"
        figure, all_axes = self._pyplot.subplots(1, 3, figsize=(11, 3.8), sharey=True)
        for axes, (field, label) in zip(
                all_axes, (("p50_us", "median"), ("p99_us", "99%"),
                           ("p999_us", "99.9%"))):
            series = points(sizes, lambda c, field=field: c[field])
            for number, (name, values) in enumerate(series.items()):
                shift = (number - (len(series) - 1) / 2) * 0.15
                axes.plot(
                    [position + shift for position, _ in values],
                    [value for _, value in values], _MARKERS[name],
                    color=_COLOURS[name], label=name, markersize=5)
            axes.set_yscale("log")
            axes.set_xticks(range(len(sizes)), list(sizes), rotation=60)
            axes.set_title(label)
        all_axes[0].set_ylabel("microseconds, log scale")
        all_axes[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        figure.suptitle(
            title + "\nof all rounds together; no intervals: the tables have those of "
            "the ratios", y=1.08)
        return self._save(figure, "latency", title)

    def _bars(self, axes, names, heights, low_high=None, **options):
        error = None
        if low_high:
            pairs = [reach(h, *ends) for h, ends in zip(heights, low_high)]
            error = [list(side) for side in zip(*pairs)]
        bars = axes.bar(
            names, heights, yerr=error, capsize=3,
            color=[_COLOURS.get(n, "#777777") for n in names], **options)
        axes.bar_label(bars, labels=[report.number(h) for h in heights], padding=2)
        axes.tick_params(axis="x", rotation=30)
        axes.margins(y=0.15)
        # Bars say by their length: they begin at nothing.
        axes.set_ylim(bottom=0)

    def _idle(self, rows):
        title = f"Memory of an idle connection, of {rows[0]['connections']}"
        figure, (ours, kernels) = self._pyplot.subplots(1, 2, figsize=(9, 3.8))
        names = [page.name_of(row) for row in rows]
        for axes, field, label in (
                (ours, "pss", "bytes of the server (PSS)"),
                (kernels, "kernel", "bytes of the kernel, both ends")):
            values = [[r[f"{field}_bytes"] for r in row["raw"]] for row in rows]
            self._bars(
                axes, names, [row[f"{field}_bytes_per_connection"] for row in rows],
                [(min(v), max(v)) for v in values])
            axes.set_ylabel(label)
        kernels.axhline(rows[0]["bare_sockets_bytes"], color="black", linestyle="--",
                        linewidth=1, label="two bare sockets")
        kernels.legend(loc="lower right")
        figure.suptitle(title + "\nmedian; lines from the least to the most of "
                        f"{rows[0]['rounds']} rounds")
        figure.tight_layout()
        return self._save(figure, "idle", title)

    def _cold(self, rows):
        title = "Hot requests while others pull cold files"
        figure, (answered, late) = self._pyplot.subplots(1, 2, figsize=(9, 3.8))
        names = [page.name_of(row) for row in rows]

        def low_high(field):
            values = [[r[field] for r in row["raw"]] for row in rows]
            return [(min(v), max(v)) for v in values]

        self._bars(answered, names, [row["hot_answered_per_s"] for row in rows],
                   low_high("hot_answered"))
        answered.axhline(rows[0]["hot_due_per_s"], color="black", linestyle="--",
                         linewidth=1, label="due")
        answered.set_ylabel("hot requests answered each second")
        answered.legend(loc="lower right")
        for position, row in enumerate(rows):
            below, above = reach(row["p99_us"], *low_high("p99_us")[position])
            late.errorbar(
                position, row["p99_us"], yerr=[[below], [above]], fmt="o",
                color=_COLOURS.get(names[position], "#777777"), capsize=3)
        late.set_yscale("log")
        late.set_xticks(range(len(rows)), names, rotation=30)
        late.set_ylabel("99% of them within so many us, log scale")
        figure.suptitle(title + "\nmedian; lines from the least to the most of "
                        f"{rows[0]['rounds']} rounds")
        figure.tight_layout()
        return self._save(figure, "cold", title)
