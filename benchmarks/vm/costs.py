# SPDX-License-Identifier: Apache-2.0
"""The instruction counts of a small fixed set against the committed ones.

./kev test fails when one has risen. costs.json holds the figures of each kernel
and tool chain they were taken with; those of another say nothing about the code,
so they are printed and judge nothing.
"""

import json
import os
import re
import subprocess

from vm import guest

COMMITTED = os.path.join(guest.HERE, "costs.json")

ENGINES = ["module", "uring", "epoll"]
SIZES = {"1K": 1 << 10, "16K": 16 << 10}
# From memory, and by sendfile. Not larger: an answer that does not fit the send buffer
# goes out in pieces, how many hangs on who runs when, and the slightest change
# elsewhere moves such a figure by a tenth.
CONNECTIONS = [1, 64]
CLOSE = ("1K", 64)
# Size and connections with a connection for each request; all else with kept ones.
REQUESTS = 1000
UNSTEADY = {"16K 64 user"}
# Left out: moved by 4% with nothing but another content of the guest's memory.

RISE = 0.03
# A figure that rose by more fails. Between two boots of one guest it is the same;
# another content of its memory has moved it by up to one percent.

# What may move a figure though our code is the same: the compiler, the libraries that
# are linked at run time and are in the count, and QEMU, whose processor decides which
# variant of memcpy(3) the C library takes.
PACKAGES = ["g++-12", "libc6", "libstdc++6", "libabsl20220623", "liburing2",
            "qemu-system-x86"]


def key_of(kernel):
    """Returns what figures are valid for; `kernel` is `uname -v` of the guest."""
    lines = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *PACKAGES],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout
    versions = dict(line.split(" ") for line in lines.splitlines() if " " in line)
    match = re.search(r"Debian (\S+)", kernel)
    key = {"kernel": match.group(1) if match else kernel}
    key.update({name: versions.get(name, "none") for name in PACKAGES})
    return key


def figures_of(lines):
    """Returns ({name: figure}, kernel) of the output of the guest.

    User-space instructions for each request are as they come, of the whole guest
    the ratio to the floor in the same boot is taken.
    """
    names = {size: name for name, size in SIZES.items()}
    figures, totals, kernel = {}, {}, ""
    for line in lines:
        if line.startswith("kernel "):
            kernel = line[len("kernel "):]
        match = re.fullmatch(r"(\w+) (\d+) (\d+) (keep|close) (user )?(\d+)", line)
        if not match:
            continue
        server, size, connections, mode, user, count = match.groups()
        cell = f"{names[int(size)]} {connections}"
        if mode == "close":
            cell += " close"
        if user:
            figures[f"{server} {cell} user"] = int(count)
        else:
            totals[server, cell] = int(count)
    for (server, cell), count in totals.items():
        if server != "floor":
            figures[f"{server} {cell} to floor"] = round(count / totals["floor", cell], 4)
    return figures, kernel


def expected():
    """Returns the names of all figures: ENGINE SIZE CONNECTIONS [close] WHAT."""
    cells = [f"{size} {connections}" for size in SIZES for connections in CONNECTIONS]
    cells.append("{} {} close".format(*CLOSE))
    cells = [f"{cell} {what}" for what in ("user", "to floor") for cell in cells]
    return [f"{engine} {cell}" for engine in ENGINES for cell in cells
            if cell not in UNSTEADY]


def committed_for(key, entries):
    """Returns the figures committed for a key, or None."""
    for entry in entries:
        if entry["key"] == key:
            return entry["figures"]
    return None


def judge(figures, committed):
    """Returns [(name, figure, committed or None, verdict)].

    The verdict is "ok", "RISEN", "missing" (which is a failure as well), "fallen" (by as
    much as would fail the other way: worth an update) or "unknown".
    """
    rows = []
    for name in expected():
        figure = figures.get(name)
        before = committed.get(name) if committed else None
        if figure is None:
            verdict = "missing"
        elif before is None:
            verdict = "unknown"
        elif figure > before * (1 + RISE):
            verdict = "RISEN"
        elif figure < before * (1 - RISE):
            verdict = "fallen"
        else:
            verdict = "ok"
        rows.append((name, figure, before, verdict))
    return rows


def counts(rows):
    """Returns how many figures passed, failed and were not judged."""
    failed = sum(verdict in ("RISEN", "missing") for *_, verdict in rows)
    unknown = sum(verdict == "unknown" for *_, verdict in rows)
    return len(rows) - failed - unknown, failed, unknown


def updated(entries, key, figures):
    """Returns the entries with those figures for the key, in a fixed order."""
    figures = {name: figures[name] for name in expected() if name in figures}
    others = [entry for entry in entries if entry["key"] != key]
    return sorted(others + [{"key": key, "figures": figures}],
                  key=lambda entry: list(entry["key"].values()))


def _read():
    try:
        with open(COMMITTED, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return []


def _show(rows):
    for name, figure, before, verdict in rows:
        change = ""
        if figure is not None and before:
            change = f"{100 * (figure / before - 1):+.2f}%"
        yield (f"  {name:<38}{figure if figure is not None else '-':>8}"
               f"{before if before else '-':>9}{change:>9}  {verdict}")


def measure(args):
    """Returns ({name: figure}, kernel)."""
    adds = guest.http() + guest.programs("user_cost")
    script = """echo "kernel $(uname -v)"
        http() { /bench/batch sh /bench/http.sh "$@"; }
        http "floor $1" "$2" "$3" keep "$6" && http "$1" "$2" "$3" keep "$6" user &&
        http "floor $1" "$4" "$5" close "$6" && http "$1" "$4" "$5" close "$6" user"""
    size, connections = CLOSE
    command = ["sh", "-c", script, "costs", " ".join(ENGINES),
               " ".join(map(str, SIZES.values())), " ".join(map(str, CONNECTIONS)),
               str(SIZES[size]), str(connections), str(REQUESTS)]
    return figures_of(guest.run(args, adds, command))


def costs(args):
    """Measures, compares and prints; returns the status for the shell."""
    figures, kernel = measure(args)
    key = key_of(kernel)
    entries = _read()
    if args.update:
        with open(COMMITTED, "w", encoding="utf-8") as file:
            json.dump(updated(entries, key, figures), file, indent=1)
            file.write("\n")
    committed = committed_for(key, entries)
    rows = judge(figures, committed)
    print(f"{'costs of a request, Linux ' + key['kernel']:<38}{'now':>8}{'before':>9}")
    print("\n".join(_show(rows)))
    passed, failed, unknown = counts(rows)
    if unknown:
        print(f"costs: no figures are committed for {json.dumps(key)}: nothing is judged")
    if failed and not args.update:
        print(f"costs: {failed} of {len(rows)} rose by more than {RISE:.0%}, or are missing;"
              " benchmarks/README.md says what to do")
    if args.counts:
        with open(args.counts, "w", encoding="ascii") as file:
            file.write(f"{passed} {failed} {unknown}\n")
    return 1 if failed and not args.update else 0
