#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes compile_commands.json of //... into the workspace, for clang-tidy.

Usage: compile_commands.py [BAZEL FLAGS...]   (such as --config=clang)
"""

import json
import os
import subprocess
import sys

# Flags of Bazel's gcc toolchain that clang does not know.
GCC_ONLY = {"-fno-canonical-system-headers", "-Wno-free-nonheap-object"}


def bazel(*args):
    return subprocess.run(
        ["bazel", *args], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def main():
    root = bazel("info", "workspace").strip()
    graph = json.loads(
        bazel(
            "aquery",
            *sys.argv[1:],
            "--output=jsonproto",
            'mnemonic("CppCompile", deps(//...))',
        )
    )
    entries = {}
    for action in graph.get("actions", []):
        arguments = [a for a in action["arguments"] if a not in GCC_ONLY]
        source = arguments[arguments.index("-c") + 1]
        if not source.startswith("external/"):
            entries[source] = {
                "directory": root,
                "file": source,
                "arguments": arguments,
            }
    with open(os.path.join(root, "compile_commands.json"), "w") as file:
        json.dump([entries[source] for source in sorted(entries)], file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
