#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of admin.py."""

import os
import random
import sys
import threading
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from macro import admin, ratios, report, rounds  # pylint: disable=wrong-import-position


def taken(watched_costs, count, noise=0.02):
    """Returns rounds in which watching costs that factor."""
    source = random.Random(1)

    def row(factor):
        cpu = 5 * factor * (1 + source.gauss(0, noise))
        return {
            "cpu_us_per_request": cpu, "requests_per_s": 1e6 / cpu,
            "admin_share": 0.002, "others_busy": 0, "steal": 0, "errors": 0,
        }

    factors = {
        admin.IDLE: 1, admin.WATCHED: watched_costs, admin.CONTROL: 1, admin.OFF: 1
    }
    return {kind: [row(f) for _ in range(count)] for kind, f in factors.items()}


def watched(watched_costs, count, noise=0.02):
    """Returns the result of the watched rounds."""
    cell = rounds.Cell(1024, 64)
    watcher = admin.Watcher("", "", [0], None)
    results = admin.results(
        cell, "epoll", taken(watched_costs, count, noise), watcher)
    assert any("watched" in line for line in report.admin(results))
    return next(r for r in results if r["admin"] == admin.WATCHED)


class AdminTest(unittest.TestCase):

    def test_share_is_what_the_busiest_thread_has_not(self):
        before = {"1": 100, "2": 50}
        after = {"1": 1000, "2": 60, "3": 90}
        self.assertAlmostEqual(admin.share_of_others(before, after), 0.1)
        self.assertEqual(admin.share_of_others(before, before), 0)

    def test_threads_are_found(self):
        times = admin.thread_times(os.getpid())
        self.assertIn(str(threading.get_native_id()), times)
        self.assertGreater(sum(times.values()), 0)

    def test_what_costs_nothing_meets_the_aim(self):
        result = watched(1, 400)
        self.assertTrue(result["aim_met"])
        self.assertFalse(result["ratios"]["cpu"]["resolved"])

    def test_what_costs_much_does_not(self):
        result = watched(1.1, 400)
        self.assertFalse(result["aim_met"])
        self.assertTrue(result["ratios"]["cpu"]["resolved"])

    def test_what_is_not_sure_does_not(self):
        self.assertFalse(watched(1, 15, noise=0.1)["aim_met"])

    def test_few_rounds_do_not(self):
        for count in (1, ratios.ENOUGH_ROUNDS - 1):
            self.assertFalse(watched(0.9, count)["aim_met"])
        self.assertTrue(watched(0.9, ratios.ENOUGH_ROUNDS)["aim_met"])


if __name__ == "__main__":
    unittest.main()
