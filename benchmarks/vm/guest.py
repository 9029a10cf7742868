# SPDX-License-Identifier: Apache-2.0
"""Runs benchmarks in the virtual machine."""

import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))

UNCHECKED = "slub_debug=-,kevent*"
# For the kernel's command line, in runs by the clock: the guest otherwise checks the
# memory of the module's objects, which costs time.


def say(text):
    """Tells how far it is."""
    print("  " + text, file=sys.stderr, flush=True)


def programs(*names):
    """Returns what `run` adds for programs of benchmarks/vm: they lie in /bench."""
    return [(os.path.join(TOP, "bazel-bin/benchmarks/vm", name), f"/bench/{name}")
            for name in names]


def scripts(*names):
    """The same for scripts of benchmarks/vm."""
    return [(os.path.join(HERE, name), f"/bench/{name}") for name in names]


def configurations(servers):
    """The same for the configurations of those servers that are an nginx."""
    return [_configuration(f"{name}.conf") for name in servers if name.startswith("nginx-")]


def http():
    """The same for what http.sh needs, but for an nginx and user_cost."""
    return (programs("batch", "floor", "requests")
            + scripts("await.sh", "nginx.sh", "http.sh")
            + [_configuration("keventd.textproto")])


def _configuration(name):
    return os.path.join(TOP, "benchmarks/conf", name), f"/bench/conf/{name}"


def run(args, adds, command, icount=True, flags=()):
    """Runs a command in the guest; yields the lines of its output as they come.

    Without `icount` time is that of an emulated machine with two processors.
    """
    words = [os.path.join(TOP, "kev"), "vm", "--kernel", args.kernel,
             "--timeout", str(args.timeout), *flags]
    if icount:
        words.append("--icount")
    for source, place in adds:
        words += ["--add", f"{source}:{place}"]
    with subprocess.Popen(words + ["--"] + command, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            yield line.rstrip("\n")
        errors = process.stderr.read()
    if process.returncode != 0:
        sys.exit(f"vm_bench: the guest failed:\n{errors}")
