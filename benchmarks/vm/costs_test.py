#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of costs.py that need no virtual machine."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from vm import costs  # pylint: disable=wrong-import-position

_NAME = "module 1K 64 user"


def _all(value):
    return {name: value for name in costs.expected()}


def _verdict(figure, before):
    figures = _all(100)
    figures[_NAME] = figure
    committed = _all(100)
    committed[_NAME] = before
    rows = costs.judge(figures, committed)
    return next(verdict for name, _, _, verdict in rows if name == _NAME), costs.counts(rows)


class CostsTest(unittest.TestCase):

    def test_reads_what_the_guest_prints(self):
        figures, kernel = costs.figures_of([
            "kernel #1 SMP PREEMPT_DYNAMIC Debian 6.1.1-1 (2026-01-01)",
            "floor 1024 1 keep 1000", "floor 16384 64 keep 3000", "floor 1024 64 close 5000",
            "requests: something else", "module 1024 1 keep 1250",
            "module 1024 1 keep user 777", "module 16384 64 keep 2700",
            "module 1024 64 close 6000", "module 1024 64 close user 999"])
        self.assertEqual("6.1.1-1", costs.key_of(kernel)["kernel"])
        self.assertEqual({
            "module 1K 1 user": 777,
            "module 1K 1 to floor": 1.25,
            "module 16K 64 to floor": 0.9,
            "module 1K 64 close to floor": 1.2,
            "module 1K 64 close user": 999,
        }, figures)
        self.assertLessEqual(set(figures), set(costs.expected()))

    def test_a_rise_fails(self):
        total = len(costs.expected())
        self.assertEqual(("ok", (total, 0, 0)), _verdict(103, 100))
        self.assertEqual(("RISEN", (total - 1, 1, 0)), _verdict(104, 100))
        self.assertEqual(("fallen", (total, 0, 0)), _verdict(90, 100))

    def test_a_missing_figure_fails_and_a_new_one_does_not(self):
        total = len(costs.expected())
        self.assertEqual(("missing", (total - 1, 1, 0)), _verdict(None, 100))
        self.assertEqual(("unknown", (total - 1, 0, 1)), _verdict(100, None))

    def test_an_unknown_key_judges_nothing(self):
        rows = costs.judge(_all(100), costs.committed_for({"kernel": "x"}, [
            {"key": {"kernel": "y"}, "figures": _all(1)}]))
        self.assertEqual((0, 0, len(rows)), costs.counts(rows))

    def test_update_replaces_the_figures_of_its_key_alone(self):
        entries = [{"key": {"kernel": "6.1"}, "figures": _all(1)},
                   {"key": {"kernel": "6.12"}, "figures": _all(2)}]
        entries = costs.updated(entries, {"kernel": "6.1"}, _all(3))
        self.assertEqual(2, len(entries))
        self.assertEqual(_all(3), costs.committed_for({"kernel": "6.1"}, entries))
        self.assertEqual(_all(2), costs.committed_for({"kernel": "6.12"}, entries))


if __name__ == "__main__":
    unittest.main()
