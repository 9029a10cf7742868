#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes a page with plots of results; see benchmarks/README.md."""

import argparse
import json
import os
import sys

from macro import machine, page, plots

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))


def load(path):
    """Returns the results in a file."""
    try:
        with open(path, encoding="utf-8") as file:
            result = json.load(file)
        if not isinstance(result.get("cells"), list):
            raise ValueError("it has no cells")
        return result
    except (OSError, ValueError, AttributeError) as error:
        raise machine.Unable(f"{path} is no result of a benchmark: {error}") from error


def main():
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="./kev bench http --report",
                                     description=__doc__)
    parser.add_argument(
        "results", nargs="+", metavar="FILE.json",
        help="of ./kev bench http; where two have the same cell, the later counts")
    parser.add_argument(
        "--page", default=os.path.join(ROOT, "docs", "benchmarks.md"), metavar="FILE.md",
        help="where the page goes (default: docs/benchmarks.md); plots go to a folder "
        "beside it, of the same name")
    args = parser.parse_args()
    try:
        result = page.merge([load(path) for path in args.results])
        folder = os.path.splitext(os.path.abspath(args.page))[0]
        drawn = plots.Plotter(folder).all(result)
        inside = os.path.basename(folder)
        text = "\n".join(page.lines(
            result, [(title, f"{inside}/{name}") for title, name in drawn]))
        with open(args.page, "w", encoding="utf-8") as file:
            file.write(text.rstrip("\n") + "\n")
    except (machine.Unable, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(f"{args.page}, and {len(drawn)} plots in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
