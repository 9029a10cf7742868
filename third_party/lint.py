#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that no other tool makes; reads file names from standard input.

- Every source file carries the SPDX line of its part of the tree (LICENSE).
- No text file has trailing whitespace, or lacks the newline at its end.
- No text file names a folder of somebody's machine.
- BUILD and .bzl files are indented by spaces.
- Python files compile.

Prints one line for each finding, and exits with 1 if there is any.
"""

import os
import re
import sys

LICENSES = [
    ("kevent/module/", "GPL-2.0-only"),
    ("kevent/uapi/", "(GPL-2.0-only WITH Linux-syscall-note) OR Apache-2.0"),
    ("", "Apache-2.0"),
]

SOURCE_EXTENSIONS = {
    ".bzl", ".c", ".cc", ".css", ".h", ".js", ".proto", ".py", ".sh",
}
SOURCE_NAMES = {".bazelrc", "BUILD", "WORKSPACE", "kev", "run"}

# At the start of a path only: "src/work/" and "https://host/home/" are none.
MACHINE_PATH = re.compile(r"(?<![\w./])/(?:home|work)/")
SPDX = re.compile(r"^\W*SPDX-License-Identifier: (.*?)\s*(?:\*/|-->)?$")


def expected_license(name):
    return next(spdx for folder, spdx in LICENSES if name.startswith(folder))


def is_source(name):
    extension = os.path.splitext(name)[1]
    return extension in SOURCE_EXTENSIONS or os.path.basename(name) in SOURCE_NAMES


def check_license(name, lines):
    first = 1 if lines and lines[0].startswith("#!") else 0
    match = SPDX.match(lines[first]) if len(lines) > first else None
    want = expected_license(name)
    if not match:
        yield first + 1, f"SPDX-License-Identifier: {want} is missing"
    elif match.group(1) != want:
        yield first + 1, f"licence is {match.group(1)}, in this folder {want}"


def check_text(name, text):
    """Yields (line number, message) for each finding in a file."""
    lines = text.split("\n")
    if is_source(name):
        yield from check_license(name, lines)
    if text and lines[-1]:
        yield len(lines), "no newline at the end of the file"
    is_build = os.path.basename(name) in ("BUILD", "WORKSPACE") or name.endswith(".bzl")
    for number, line in enumerate(lines, 1):
        if line != line.rstrip():
            yield number, "trailing whitespace"
        if MACHINE_PATH.search(line):
            yield number, "path of a machine"
        if is_build and "\t" in line:
            yield number, "tab"
    if name.endswith(".py"):
        try:
            compile(text, name, "exec")
        except SyntaxError as error:
            yield error.lineno or 1, error.msg


def main():
    findings = 0
    for name in sys.stdin.read().splitlines():
        with open(name, "rb") as file:
            content = file.read()
        if b"\0" in content:
            continue
        for number, message in check_text(name, content.decode("utf-8", "replace")):
            findings += 1
            print(f"{name}:{number}: {message}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
