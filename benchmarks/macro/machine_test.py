#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of machine.py."""

import os
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from macro import machine  # noqa: E402  pylint: disable=wrong-import-position

# As lighttpd with several workers ends.
TELLS_ITS_GROUP = """
trap 'trap "" TERM; kill -TERM 0; exit 0' TERM
echo started
while read -r _; do :; done
"""


class StartTest(unittest.TestCase):

    def setUp(self):
        self.told = []
        before = signal.signal(signal.SIGTERM, lambda number, _: self.told.append(number))
        self.addCleanup(signal.signal, signal.SIGTERM, before)

    def start(self):
        """Starts it; returns when it would take the signal."""
        process = machine.start(["sh", "-c", TELLS_ITS_GROUP], machine.cores()[:1],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stdin.close)
        self.assertEqual(process.stdout.readline(), b"started\n")
        return process

    def test_who_tells_its_whole_group_tells_nobody_else(self):
        first, second = self.start(), self.start()
        machine.end(first)
        self.assertEqual(first.returncode, 0)
        self.assertIsNone(second.poll())
        machine.end(second)
        self.assertEqual(second.returncode, 0)
        self.assertEqual(self.told, [])

    def test_it_runs_where_it_was_told_to(self):
        for core in machine.cores()[:2]:
            process = machine.start(["sleep", "60"], [core])
            self.assertEqual(os.sched_getaffinity(process.pid), {core})
            machine.end(process)


if __name__ == "__main__":
    unittest.main()
