# SPDX-License-Identifier: Apache-2.0
"""Test programs in the guest: which they are, how they are run, how they ended."""

import dataclasses
import os
import pathlib
import re
import shlex
import tarfile
import xml.etree.ElementTree as ElementTree

from kernels import Error

# Bazel's time limits in seconds, by the name in `timeout` or `size`.
_LIMITS = {
    "small": 60, "medium": 300, "large": 900, "enormous": 3600,
    "short": 60, "moderate": 300, "long": 900, "eternal": 3600,
}

# Everything takes longer here than on the host, and so do the tests' own limits.
_WAIT_MS = {"6.1": 60000, "6.12": 60000, "debug": 240000}
_DEBUG_FACTOR = 4

# Variables of the host's environment that the tests in the guest see too.
_PASSED_ON = ("KEVENT_ENGINES", "KEVENT_FULL", "KEVENT_SEED", "GTEST_FILTER")

_RS = "\x1e"


@dataclasses.dataclass
class Target:
    """A test target of the workspace."""

    label: str
    tags: frozenset
    limit: int
    args: list
    data: bool
    env: dict

    @property
    def path(self):
        """The program's path below bazel-bin, and below its runfiles."""
        package, _, name = self.label[2:].partition(":")
        return f"{package}/{name}" if package else name


@dataclasses.dataclass
class Test:
    """One run of a target, by one user."""

    target: Target
    user: str

    @property
    def name(self):
        return self.target.label + (" (as user)" if self.user == "user" else "")


def parse_targets(text):
    """Returns the Targets tagged `vm` in the output of `bazel query --output=xml`."""
    # Python reads XML 1.0 only; there is no other difference here.
    root = ElementTree.fromstring(text.replace('version="1.1"', 'version="1.0"', 1))
    targets = []
    for rule in root.iter("rule"):

        def strings(name, rule=rule):
            return [item.get("value") for item in rule.findall(f"list[@name='{name}']/*")]

        def string(name, default, rule=rule):
            item = rule.find(f"string[@name='{name}']")
            return default if item is None else item.get("value")

        tags = frozenset(strings("tags"))
        if "vm" not in tags:
            continue
        size = string("size", "medium")
        env = {}
        for pair in rule.findall("dict[@name='env']/pair"):
            key, value = (item.get("value") for item in pair)
            env[key] = value
        targets.append(Target(
            label=rule.get("name"), tags=tags, limit=_LIMITS[string("timeout", size)],
            args=strings("args"), data=bool(strings("data")), env=env))
    return sorted(targets, key=lambda target: target.label)


def tests_of(targets):
    """Returns the Tests of targets: each as root, those tagged `vm-user` as user too."""
    tests = []
    for target in targets:
        tests.append(Test(target, "root"))
        if "vm-user" in target.tags:
            tests.append(Test(target, "user"))
    return tests


def _expand(target, argument):
    """Resolves $(location LABEL), as far as it is the label's own path."""

    def path(match):
        label = match.group(1)
        package = target.label[2:].partition(":")[0]
        if not label.startswith("//"):
            label = f"//{package}:{label.lstrip(':')}"
        name = label[2:].replace(":", "/", 1)
        return name if ":" in label[2:] else name + "/" + name.rpartition("/")[2]

    expanded = re.sub(r"\$\((?:location|rootpath) ([^)]+)\)", path, argument)
    if "$(" in expanded:
        raise Error(f"{target.label}: the argument {argument} has no meaning in the guest")
    return expanded


def place(test):
    """The folder in the guest below which the program and its data lie."""
    return f"/vm/runfiles/{test.target.path}.runfiles/kevent"


def script(number, test, kernel, environ):
    """Returns the shell script that runs a test in the guest."""
    target = test.target
    runfiles = place(test)
    variables = {
        "HOME": "/root" if test.user == "root" else "/user",
        # Some things are slow here, and others may be done here alone.
        "KEVENT_GUEST": "1",
        # Those that run on the host too are here for the module's sake.
        "KEVENT_ENGINES": "module" if "vm-module" in target.tags else "module,uring,epoll",
        "KEVENT_WAIT_MS": str(_WAIT_MS[kernel]),
        "RUNFILES_DIR": os.path.dirname(runfiles),
        "TEST_SRCDIR": os.path.dirname(runfiles),
        "TEST_TARGET": target.label,
        "TEST_TMPDIR": f"/disk/tmp/{number}",
        "TEST_WORKSPACE": "kevent",
        "XML_OUTPUT_FILE": f"/run/xml/{number}.xml",
    }
    variables.update({name: environ[name] for name in _PASSED_ON if name in environ})
    variables.update(target.env)
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    words = ["./" + target.path] + [_expand(target, argument) for argument in target.args]
    lines += [f"cd {shlex.quote(runfiles)} || exit 126", "exec " + shlex.join(words)]
    return "\n".join(lines) + "\n"


def limit(test, kernel):
    return test.target.limit * (_DEBUG_FACTOR if kernel == "debug" else 1)


def command(tests, kernel):
    """Returns the guest's command that runs the tests in order."""
    lines = [". /vm/suite.sh"]
    for number, test in enumerate(tests):
        lines.append(shlex.join(["run_test", str(number), test.name, test.user,
                                 str(limit(test, kernel))]))
    return "\n".join(lines + ["exit 0"])


def adds(tests, bazel_bin):
    """Returns [(source, place in the guest)] of the programs and their data."""
    result = {}
    for test in tests:
        program = os.path.join(bazel_bin, test.target.path)
        if not os.access(program, os.X_OK):
            raise Error(f"{test.target.label} is not built: {program} is missing")
        result[f"{place(test)}/{test.target.path}"] = program
        if not test.target.data:
            continue
        runfiles = program + ".runfiles/kevent"
        for folder, _, files in os.walk(runfiles, followlinks=True):
            for name in files:
                source = os.path.join(folder, name)
                below = os.path.relpath(source, runfiles)
                result[f"{place(test)}/{below}"] = source
    return [(source, guest) for guest, source in result.items()]


# ---- Results ----


@dataclasses.dataclass
class Result:
    """How one Test ended; status None: it did not."""

    test: Test
    status: int | None = None
    seconds: float = 0.0
    note: str = ""
    begun: bool = False
    log: str = ""
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    faults: list = dataclasses.field(default_factory=list)
    complaint: str = ""  # what is wrong with it beside failed cases

    def judge(self, seconds):
        """Returns that complaint."""
        if not self.begun:
            return "was not run"
        if self.note == "timeout":
            return f"hung: killed after {seconds} seconds"
        if self.status is None:
            return "was running when the guest ended"
        if self.note == "in-use":
            return "is gone, and the module still in use"
        if self.faults:
            return "made the kernel complain"
        if self.status > 128 and not self.failed:
            return f"died of signal {self.status - 128}"
        if self.status != 0 and not self.failed:
            return f"exited with {self.status}"
        return ""


class Follower:
    """Takes the guest's output as it comes, and splits it among the tests.

    `on_begin` and `on_end` take the Result that begins or has ended.
    """

    def __init__(self, tests, on_begin, on_end):
        self.results = [Result(test) for test in tests]
        self._on_begin = on_begin
        self._on_end = on_end
        self._current = None
        self._line = b""

    def take(self, data):
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._take_line(line.decode("utf-8", "replace"))

    def finish(self):
        """The output is at its end."""
        if self._line:
            self.take(b"\n")

    def _take_line(self, line):
        if line.startswith(_RS):
            word, number, *rest = line[1:].split(" ")
            result = self.results[int(number)]
            if word == "begin":
                self._current = result
                result.begun = True
                self._on_begin(result)
            else:
                status, duration, note = rest
                result.status, result.seconds = int(status), int(duration) / 1000
                result.note = note
                self._current = None
                self._on_end(result)
        elif self._current:
            self._current.log += line + "\n"


def read_xml(archive, results, count_cases):
    """Adds the cases of the XML files in the guest's archive to the results.

    The archive is several in one, one for each test, and may be cut off.
    `count_cases` counts the cases in the XML file of a path.
    """
    folder = pathlib.Path(archive).parent
    try:
        with tarfile.open(archive, ignore_zeros=True) as tar:
            for member in tar:
                match = re.fullmatch(r"(\d+)\.xml", member.name)
                if not match or not member.isfile():
                    continue
                path = folder / member.name
                path.write_bytes(tar.extractfile(member).read())
                counts = count_cases(path)
                result = results[int(match.group(1))]
                result.passed = counts["passed"]
                result.failed = counts["failed"]
                result.skipped = counts["skipped"]
    except (tarfile.ReadError, EOFError):
        pass  # No test came to its end; each says so itself.


def settle(results, findings, kernel):
    """Gives the findings to their tests; returns those that belong to none.

    Afterwards the counts of the results are final: a test that is at fault beside
    its cases is one failure more, and one that writes no XML is a case itself.
    """
    by_name = {result.test.name: result for result in results}
    others = []
    for finding in findings:
        if finding.test in by_name:
            by_name[finding.test].faults.append(finding)
        else:
            others.append(finding)
    for result in results:
        result.complaint = result.judge(limit(result.test, kernel))
        if result.complaint:
            result.failed += 1
        elif not result.passed + result.failed + result.skipped:
            result.passed = 1
    return others
