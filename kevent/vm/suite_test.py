#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of suite.py."""

import collections
import io
import pathlib
import tarfile
import tempfile
import unittest

import console
import suite
from kernels import Error

QUERY = """<?xml version="1.1" encoding="UTF-8" standalone="no"?>
<query version="2">
  <rule class="cc_test" location="BUILD:1:1" name="//a/b:x_test">
    <string name="name" value="x_test"/>
    <list name="tags"><string value="vm"/><string value="vm-user"/></list>
    <list name="args"><string value="--one=1 2"/><string value="$(location :y)"/></list>
    <list name="data"><label value="//a/b:y"/></list>
    <string name="size" value="small"/>
    <dict name="env"><pair><string value="K"/><string value="v w"/></pair></dict>
  </rule>
  <rule class="cc_test" location="BUILD:2:1" name="//a/a:long_test">
    <list name="tags"><string value="manual"/><string value="vm"/></list>
    <string name="timeout" value="long"/>
  </rule>
  <rule class="cc_test" location="BUILD:3:1" name="//a:host_test">
    <list name="tags"><string value="vm-like"/></list>
  </rule>
</query>
"""


def results(*names):
    tests = [suite.Test(suite.Target(name, frozenset(["vm"]), 60, [], False, {}), "root")
             for name in names]
    events = []
    follower = suite.Follower(tests, lambda r: events.append(("begin", r.test.name)),
                              lambda r: events.append(("end", r.test.name)))
    return follower, events


class TargetsTest(unittest.TestCase):

    def test_parse(self):
        long_test, x_test = suite.parse_targets(QUERY)
        self.assertEqual((long_test.label, long_test.limit), ("//a/a:long_test", 900))
        self.assertEqual((x_test.label, x_test.limit), ("//a/b:x_test", 60))
        self.assertEqual(x_test.path, "a/b/x_test")
        self.assertEqual(x_test.env, {"K": "v w"})
        self.assertTrue(x_test.data)
        self.assertFalse(long_test.data)

    def test_users(self):
        names = [test.name for test in suite.tests_of(suite.parse_targets(QUERY))]
        self.assertEqual(names, ["//a/a:long_test", "//a/b:x_test", "//a/b:x_test (as user)"])

    def test_script(self):
        tests = suite.tests_of(suite.parse_targets(QUERY))
        text = suite.script(2, tests[2], "6.1", {"KEVENT_SEED": "7", "SECRET": "x"})
        self.assertIn("export K='v w'\n", text)
        self.assertIn("export KEVENT_SEED=7\n", text)
        self.assertIn("export TEST_TMPDIR=/disk/tmp/2\n", text)
        self.assertNotIn("SECRET", text)
        self.assertTrue(text.endswith("exec ./a/b/x_test '--one=1 2' a/b/y\n"), text)

    def test_arguments_that_mean_nothing(self):
        test = suite.tests_of(suite.parse_targets(QUERY))[1]
        test.target.args[0] = "$(execpath :y)"
        with self.assertRaises(Error):
            suite.script(0, test, "6.1", {})

    def test_command_and_limits(self):
        tests = suite.tests_of(suite.parse_targets(QUERY))
        self.assertIn("run_test 2 '//a/b:x_test (as user)' user 60",
                      suite.command(tests, "6.12"))
        self.assertGreater(suite.limit(tests[0], "debug"), suite.limit(tests[0], "6.1"))

    def test_programs_and_data_go_to_their_runfiles(self):
        tests = suite.tests_of(suite.parse_targets(QUERY))[1:]
        with tempfile.TemporaryDirectory() as folder:
            program = pathlib.Path(folder) / "a/b/x_test"
            runfiles = pathlib.Path(folder) / "a/b/x_test.runfiles/kevent/a/b"
            with self.assertRaises(Error):
                suite.adds(tests, folder)
            runfiles.mkdir(parents=True)
            program.write_text("")
            program.chmod(0o755)
            (runfiles / "y").write_text("")
            places = [place for _, place in suite.adds(tests, folder)]
        self.assertEqual(sorted(places), ["/vm/runfiles/a/b/x_test.runfiles/kevent/a/b/x_test",
                                          "/vm/runfiles/a/b/x_test.runfiles/kevent/a/b/y"])


class FollowerTest(unittest.TestCase):

    def test_output_in_any_pieces(self):
        stream = (b"before\n\n\x1ebegin 0\nout 1\nout 2\n\x1eend 0 0 1500 \n"
                  b"\n\x1ebegin 1\nno newline\n\x1eend 1 137 60000 timeout\n\x1ebegin 2\nlast")
        for size in (1, 7, len(stream)):
            follower, events = results("//:a", "//:b", "//:c")
            for start in range(0, len(stream), size):
                follower.take(stream[start:start + size])
            follower.finish()
            a, b, c = follower.results
            self.assertEqual((a.status, a.seconds, a.log), (0, 1.5, "out 1\nout 2\n"))
            self.assertEqual((b.status, b.note), (137, "timeout"))
            self.assertEqual((c.status, c.begun, c.log), (None, True, "last\n"))
            self.assertEqual(events, [("begin", "//:a"), ("end", "//:a"), ("begin", "//:b"),
                                      ("end", "//:b"), ("begin", "//:c")])


class SettleTest(unittest.TestCase):

    def settle(self, status=0, note="", begun=True, passed=0, failed=0, finding=None):
        follower, _ = results("//:a")
        result = follower.results[0]
        result.status, result.note, result.begun = status, note, begun
        result.passed, result.failed = passed, failed
        findings = [console.Finding(["BUG: x"], finding)] if finding else []
        others = suite.settle(follower.results, findings, "6.1")
        return result, others

    def test_counts(self):
        for arguments, passed, failed in (
                ({}, 1, 0),  # no XML
                ({"passed": 5}, 5, 0),
                ({"passed": 5, "failed": 2, "status": 1}, 5, 2),
                ({"passed": 5, "status": 1}, 5, 1),
                ({"passed": 5, "status": 139}, 5, 1),
                ({"status": 137, "note": "timeout"}, 0, 1),
                ({"passed": 5, "note": "in-use"}, 5, 1),
                ({"passed": 5, "finding": "//:a"}, 5, 1),
                ({"status": None}, 0, 1),
                ({"status": None, "begun": False}, 0, 1)):
            with self.subTest(**arguments):
                result, others = self.settle(**arguments)
                self.assertEqual((result.passed, result.failed), (passed, failed))
                self.assertEqual(others, [])

    def test_findings_of_no_test_are_left(self):
        result, others = self.settle(passed=1, finding="//:other")
        self.assertEqual((result.failed, len(others)), (0, 1))

    def test_xml_of_several_archives_of_which_the_last_is_cut(self):
        follower, _ = results("//:a", "//:b", "//:c")
        with tempfile.TemporaryDirectory() as folder:
            archive = pathlib.Path(folder) / "files.tar"
            with open(archive, "wb") as out:
                for number in range(3):
                    buffer = io.BytesIO()
                    with tarfile.open(fileobj=buffer, mode="w") as tar:
                        content = b"x" * (5000 + number)
                        info = tarfile.TarInfo(f"{number}.xml")
                        info.size = len(content)
                        tar.addfile(info, io.BytesIO(content))
                    data = buffer.getvalue()
                    out.write(data if number < 2 else data[:700])
            suite.read_xml(archive, follower.results, lambda path: collections.Counter(
                passed=path.stat().st_size))
        self.assertEqual([r.passed for r in follower.results], [5000, 5001, 0])

    def test_no_archive_at_all(self):
        follower, _ = results("//:a")
        with tempfile.TemporaryDirectory() as folder:
            archive = pathlib.Path(folder) / "files.tar"
            archive.write_bytes(b"")
            suite.read_xml(archive, follower.results, None)
        self.assertEqual(follower.results[0].passed, 0)


if __name__ == "__main__":
    unittest.main()
