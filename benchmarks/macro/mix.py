# SPDX-License-Identifier: Apache-2.0
"""A site: a tree of files as real ones have them, and who asks for what how often.

Sizes are those that Barford and Crovella found (Generating Representative Web
Workloads for Network and Server Performance Evaluation, SIGMETRICS 1998): most
are log-normal, the rest has a Pareto tail; here it ends at LARGEST. Requests go to
files by Zipf's law, and the popularity of a file has nothing to do with its size.
The same seed gives the same bytes, names and sequence.
"""

import itertools
import os
import random

FILES = 2000
REQUESTS = 200_000
# Of the sequence, which then begins anew.

ZIPF = 1.0
# The file of rank r is asked for in proportion to 1 / r**ZIPF.

_BODY_SHARE = 0.93
_BODY_MU, _BODY_SIGMA = 9.357, 1.318  # of the logarithm of bytes
_TAIL_FROM = 133_000
_TAIL_ALPHA = 1.1
LARGEST = 10 << 20

_KINDS = {"html": 40, "png": 20, "jpg": 20, "css": 8, "js": 12}
_SECTIONS, _FOLDERS = 20, 10


def _size(source):
    if source.random() < _BODY_SHARE:
        size = _TAIL_FROM
        while size >= _TAIL_FROM:
            size = int(source.lognormvariate(_BODY_MU, _BODY_SIGMA))
        return size
    size = LARGEST + 1
    while size > LARGEST:
        size = int(_TAIL_FROM * source.paretovariate(_TAIL_ALPHA))
    return size


def plan(seed, files=FILES):
    """Returns [(bytes, path)] of the site, the most popular file first."""
    source = random.Random(f"tree {seed}")
    kinds, weights = list(_KINDS), list(_KINDS.values())
    out = []
    for number in range(files):
        kind = source.choices(kinds, weights)[0]
        section, folder = source.randrange(_SECTIONS), source.randrange(_FOLDERS)
        path = f"site/section{section:02}/folder{folder}/page{number:05}.{kind}"
        out.append((_size(source), path))
    source.shuffle(out)
    return out


def make(root, site, seed):
    """Makes the files beneath a folder."""
    source = random.Random(f"bytes {seed}")
    for size, path in site:
        full = os.path.join(root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as file:
            file.write(source.randbytes(size))


def sequence(site, seed, requests=REQUESTS):
    """Returns the numbers of the files in the order in which they are asked for."""
    weights = [1 / rank**ZIPF for rank in range(1, len(site) + 1)]
    cumulated = list(itertools.accumulate(weights))
    return random.Random(f"requests {seed}").choices(
        range(len(site)), cum_weights=cumulated, k=requests)


def description(site, order, seed):
    """Returns what a reader of the results has to know of it."""
    asked = sorted(site[number][0] for number in order)
    sizes = sorted(size for size, _ in site)
    return {
        "seed": seed,
        "files": len(site),
        "bytes": sum(sizes),
        "median_file_bytes": sizes[len(sizes) // 2],
        "largest_file_bytes": sizes[-1],
        "zipf": ZIPF,
        "requests": len(order),
        "files_asked_for": len(set(order)),
        "mean_bytes_per_request": round(sum(asked) / len(asked)),
        "median_bytes_per_request": asked[len(asked) // 2],
        "p90_bytes_per_request": asked[int(0.9 * (len(asked) - 1))],
    }
