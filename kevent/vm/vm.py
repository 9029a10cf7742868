#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The virtual machine test bed; `./kev vm` and `./kev test vm` call it.

  vm.py run [FLAGS] [-- CMD ARGS...]   run a command in a guest
  vm.py fetch [--refresh]              get the kernels
  vm.py versions                       what the cache holds
  vm.py debug-kernel                   build the debug kernel
  vm.py targets QUERY                  the labels of the tests that run in the guest
  vm.py test FLAGS                     run them

README.md beside this file tells how it works.
"""

import argparse
import os
import pathlib
import shlex
import shutil
import signal
import sys
import tempfile

import bed
import debug_kernel
import kernels
import suite
from kernels import Error

_HERE = pathlib.Path(__file__).resolve().parent


def _place(text):
    source, colon, place = text.rpartition(":")
    if not colon or not source or not place.startswith("/"):
        raise argparse.ArgumentTypeError(f"'{text}' is not SRC:DST with DST from / on")
    return source, place


def _program(text):
    name, equals, path = text.partition("=")
    if not equals or not name or "/" in name:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=PROGRAM")
    return name, path


def _positive(text):
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value <= 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive number")
    return value


def parser():
    result = argparse.ArgumentParser(prog="vm", allow_abbrev=False)
    commands = result.add_subparsers(dest="command", required=True)

    run = commands.add_parser("run", prog="kev vm", allow_abbrev=False,
                              help="run CMD in a virtual machine")
    run.add_argument("--kernel", choices=kernels.SERIES, default=None,
                     help="which kernel (default: 6.1)")
    run.add_argument("--debug", action="store_true",
                     help="the debug kernel, and a scan for leaks at the end")
    run.add_argument("--icount", action="store_true",
                     help="one processor, and deterministic instruction counts")
    run.add_argument("--smp", type=_positive, default=None, help="processors (2)")
    run.add_argument("--mem", type=_positive, default=2048, metavar="MIB")
    run.add_argument("--timeout", type=_positive, default=None, metavar="SECONDS",
                     help="of the whole run (600; none for a shell)")
    run.add_argument("--disk", type=_positive, default=512, metavar="MIB",
                     help="size of the disk at /disk")
    run.add_argument("--disk-rate", type=_positive, default=None, metavar="MIB",
                     help="the most that each disk reads in a second (no limit)")
    run.add_argument("--add", type=_place, action="append", default=[], metavar="SRC:DST",
                     help="puts a file or folder into the guest; below /disk and /dm it"
                          " lies on a disk")
    run.add_argument("--get", action="append", default=[], metavar="PATH",
                     help="brings a file or folder of the guest back")
    run.add_argument("--get-to", default="vm.tar", metavar="FILE",
                     help="the tar archive for --get (vm.tar)")
    run.add_argument("--append", default="", help="more for the kernel's command line")
    run.add_argument("--console", default=None, metavar="FILE",
                     help="takes the kernel's console (default: standard error)")
    run.add_argument("--verbose", action="store_true", help="all of the boot messages")
    run.add_argument("--module", help=argparse.SUPPRESS)
    # For `kev vm`: checks the arguments and prints which kernel they ask for.
    run.add_argument("--print-kernel", action="store_true", help=argparse.SUPPRESS)
    run.add_argument("--program", type=_program, action="append", default=[],
                     help=argparse.SUPPRESS)
    run.add_argument("cmd", nargs="*", metavar="CMD",
                     help="the command and its arguments (default: a shell)")

    fetch = commands.add_parser("fetch", help="get the kernels")
    fetch.add_argument("--refresh", action="store_true", help="look for newer ones")
    fetch.add_argument("series", nargs="*", choices=[[], *kernels.SERIES])
    commands.add_parser("versions", help="what the cache holds")
    commands.add_parser("debug-kernel", help="build the debug kernel")

    targets = commands.add_parser("targets", help="the test targets to build")
    targets.add_argument("query", help="output of bazel query --output=xml")

    test = commands.add_parser("test", help="run test programs in a guest")
    test.add_argument("--kernel", choices=(*kernels.SERIES, kernels.DEBUG), required=True)
    test.add_argument("--query", required=True, metavar="FILE",
                      help="output of bazel query --output=xml")
    test.add_argument("--bazel-bin", required=True, metavar="DIR")
    test.add_argument("--module", required=True, metavar="FILE")
    test.add_argument("--counts", required=True, metavar="FILE",
                      help="takes 'PASSED FAILED SKIPPED'")
    test.add_argument("--logs", required=True, metavar="DIR",
                      help="takes the console and the output of each test")
    test.add_argument("--timeout", type=_positive, required=True, metavar="SECONDS")
    return result


def kernel_of(arguments):
    """Returns the folder of the kernel that was asked for."""
    if arguments.debug:
        return debug_kernel.build()
    return kernels.fetch(arguments.kernel or kernels.SERIES[0])


def run_options(arguments, command, kernel):
    """Returns bed.Options of parsed arguments; `command` is shell text or None."""
    if arguments.icount and arguments.smp not in (None, 1):
        raise Error("--icount has one processor: leave --smp out")
    programs = bed.host_programs()
    programs.update(arguments.program)
    return bed.Options(
        kernel=kernel, module=arguments.module, command=command, programs=programs,
        adds=[(os.path.abspath(source), place) for source, place in arguments.add],
        get=arguments.get, get_to=arguments.get_to if arguments.get else None,
        cpus=arguments.smp or 2, memory_mib=arguments.mem,
        timeout=arguments.timeout or (None if command is None else 600),
        icount=arguments.icount, kmemleak=arguments.debug, verbose=arguments.verbose,
        disks=not arguments.icount, disk_mib=arguments.disk,
        disk_rate_mib=arguments.disk_rate, append=arguments.append)


def _write(stream):
    def sink(data):
        stream.write(data)
        stream.flush()

    return sink


def cmd_run(arguments):
    if arguments.debug and arguments.kernel:
        raise Error("--debug has its own kernel: leave --kernel out")
    for source, _ in arguments.add:
        if not os.path.exists(source):
            raise Error(f"--add: {source} does not exist")
    if arguments.print_kernel:
        print(kernels.DEBUG if arguments.debug else arguments.kernel or kernels.SERIES[0])
        return 0
    command = shlex.join(arguments.cmd) if arguments.cmd else None
    interactive = command is None and sys.stdin.isatty()
    if command is None and not interactive:
        # A script from a pipe: its output comes out as of any command.
        command = sys.stdin.read()
    options = run_options(arguments, command, kernel_of(arguments))
    for name in bed.missing_programs(command, options.programs):
        print(f"vm: {name} is not on this machine, so not in the guest", file=sys.stderr)
    if interactive:
        print("vm: a shell in the guest; `exit` ends it, Ctrl-] kills the machine",
              file=sys.stderr)
    if arguments.console:
        console = open(arguments.console, "wb")
    else:
        console = sys.stdout.buffer if interactive else sys.stderr.buffer
    outcome = bed.run(options, _write(console), _write(sys.stdout.buffer),
                      _write(sys.stderr.buffer))
    status, text = bed.judge(outcome, bed.findings_of(outcome), options.timeout or 0)
    bed.announce(text)
    return status


def cmd_fetch(arguments):
    for series in arguments.series or kernels.SERIES:
        kernels.fetch(series, arguments.refresh)
    return 0


def cmd_versions(_):
    print(kernels.versions())
    return 0


def cmd_debug_kernel(_):
    debug_kernel.build()
    return 0


def _read_targets(path):
    return suite.parse_targets(pathlib.Path(path).read_text(encoding="utf-8"))


def cmd_targets(arguments):
    for target in _read_targets(arguments.query):
        print(target.label)
    return 0


def _count_cases():
    """The counter of cases that the tests outside of the guest use as well."""
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "third_party"))
    import test_counts  # pylint: disable=import-outside-toplevel
    return test_counts.count_cases


def _say(text):
    print(text, flush=True)


def _indent(text, most=400):
    lines = text.rstrip("\n").split("\n")
    if len(lines) > most:
        lines = [f"({len(lines) - most} lines before)"] + lines[-most:]
    return "\n".join("    " + line for line in lines)


def cmd_test(arguments):
    kernel = arguments.kernel
    tests = suite.tests_of(_read_targets(arguments.query))
    if not tests:
        raise Error("no test target is tagged vm")
    folder = debug_kernel.build() if kernel == kernels.DEBUG else kernels.fetch(kernel)
    logs = pathlib.Path(arguments.logs) / kernel
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)

    def on_begin(result):
        _say(f"vm {kernel}: {result.test.name}")

    def on_end(result):
        _say(f"vm {kernel}:   {'ended' if not result.status else 'FAILED'}"
             f" after {result.seconds:.1f} s")

    follower = suite.Follower(tests, on_begin, on_end)
    with tempfile.TemporaryDirectory(prefix="kevent-vm-") as scratch:
        scratch = pathlib.Path(scratch)
        adds = suite.adds(tests, arguments.bazel_bin)
        adds.append((str(_HERE / "guest/suite.sh"), "/vm/suite.sh"))
        for number, test in enumerate(tests):
            path = scratch / f"test{number}.sh"
            path.write_text(suite.script(number, test, kernel, os.environ), encoding="utf-8")
            adds.append((str(path), f"/vm/tests/{number}"))
        archive = scratch / "files.tar"
        options = bed.Options(
            kernel=folder, module=arguments.module, command=suite.command(tests, kernel),
            programs=bed.host_programs(), adds=adds, get_to=str(archive),
            timeout=arguments.timeout, kmemleak=kernel == kernels.DEBUG)
        with open(logs / "console", "wb") as console:
            outcome = bed.run(options, _write(console), follower.take,
                              _write(sys.stderr.buffer))
        follower.finish()
        suite.read_xml(archive, follower.results, _count_cases())

    others = suite.settle(follower.results, bed.findings_of(outcome), kernel)
    failed = 0
    for number, result in enumerate(follower.results):
        (logs / f"{number}.log").write_text(
            f"{result.test.name}\n{result.log}", encoding="utf-8")
        if result.failed:
            _say(f"\nvm {kernel}: FAILED {result.test.name} {result.complaint}".rstrip())
            _say(_indent(result.log))
            for fault in result.faults:
                _say(f"{fault}")
    status, text = bed.judge(outcome, others, arguments.timeout)
    if status:
        # The tests that it hit have failed already, unless it was none of them.
        _say(f"\nvm {kernel}: {text}")
        failed = int(bool(others or outcome.complaints)
                     or all(result.begun for result in follower.results))
    totals = [sum(getattr(result, name) for result in follower.results)
              for name in ("passed", "failed", "skipped")]
    totals[1] += failed
    _say(f"vm {kernel}: {totals[0]} passed, {totals[1]} failed, {totals[2]} skipped"
         f" in {outcome.seconds:.0f} s; logs in {logs}")
    pathlib.Path(arguments.counts).write_text(
        " ".join(map(str, totals)) + "\n", encoding="ascii")
    return 1 if totals[1] else 0


def _terminate(number, _):
    sys.exit(128 + number)


def main():
    # So that what was started is ended.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)
    arguments = parser().parse_args()
    commands = {"run": cmd_run, "fetch": cmd_fetch, "versions": cmd_versions,
                "debug-kernel": cmd_debug_kernel, "targets": cmd_targets, "test": cmd_test}
    try:
        return commands[arguments.command](arguments)
    except Error as error:
        print(f"vm: {error}", file=sys.stderr)
        return bed.BED_FAULT
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
