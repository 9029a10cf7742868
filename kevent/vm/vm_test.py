#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of the arguments of vm.py."""

import contextlib
import io
import pathlib
import unittest

import vm
from kernels import Error


def parse(*words):
    return vm.parser().parse_args(words)


def options(*words, command="x"):
    return vm.run_options(parse("run", *words), command, pathlib.Path("/k"))


class ArgumentsTest(unittest.TestCase):

    def refused(self, *words):
        with contextlib.redirect_stderr(io.StringIO()) as text:
            with self.assertRaises(SystemExit) as caught:
                parse(*words)
        self.assertEqual(caught.exception.code, 2)
        return text.getvalue()

    def test_the_command_follows_two_dashes(self):
        self.assertEqual(parse("run").cmd, [])
        self.assertEqual(parse("run", "--", "ls", "-l").cmd, ["ls", "-l"])
        self.assertEqual(parse("run", "--kernel", "6.12", "--", "a", "--", "--debug").cmd,
                         ["a", "--", "--debug"])
        self.assertFalse(parse("run", "--", "a", "--debug").debug)

    def test_flags(self):
        made = options("--smp", "4", "--mem", "512", "--add", "a:b:/c", "--add", "/d:/disk/d",
                       "--get", "/x")
        self.assertEqual((made.cpus, made.memory_mib), (4, 512))
        self.assertTrue(made.adds[0][0].endswith("/a:b"))
        self.assertEqual([place for _, place in made.adds], ["/c", "/disk/d"])
        self.assertEqual((made.get, made.get_to), (["/x"], "vm.tar"))
        self.assertTrue(made.disks)

    def test_time_limits(self):
        self.assertEqual(options().timeout, 600)
        self.assertIsNone(options(command=None).timeout)
        self.assertEqual(options("--timeout", "5", command=None).timeout, 5)

    def test_counting_has_one_processor_and_no_disks(self):
        made = options("--icount")
        self.assertTrue(made.icount)
        self.assertFalse(made.disks)
        with self.assertRaises(Error):
            options("--icount", "--smp", "2")

    def test_the_debug_kernel_looks_for_leaks(self):
        self.assertTrue(options("--debug").kmemleak)
        self.assertFalse(options().kmemleak)

    def test_bad_usage(self):
        self.assertIn("6.12", self.refused("run", "--kernel", "5.10"))
        self.assertIn("SRC:DST", self.refused("run", "--add", "/x"))
        self.assertIn("SRC:DST", self.refused("run", "--add", "a:b"))
        self.assertIn("positive", self.refused("run", "--timeout", "0"))
        self.assertIn("positive", self.refused("run", "--mem", "x"))
        self.refused("run", "--kern", "6.1")
        self.refused("fetch", "5.10")
        self.refused()


if __name__ == "__main__":
    unittest.main()
