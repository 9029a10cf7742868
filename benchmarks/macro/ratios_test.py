#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of ratios.py."""

import math
import random
import unittest

import ratios


def noisy(factor, rounds, seed):
    """Returns logs of ratios around a factor, 10% apart."""
    source = random.Random(seed)
    return [math.log(factor) + source.gauss(0, 0.1) for _ in range(rounds)]


class RatiosTest(unittest.TestCase):

    def test_pairs_without_a_figure_are_left_out(self):
        logs = ratios.log_ratios([2, 4, 0, 3], [1, 2, 5, None])
        self.assertEqual(logs, [math.log(2), math.log(2)])

    def test_interval_contains_the_ratio_and_shrinks(self):
        few = ratios.summary(noisy(1.5, 15, 1))
        many = ratios.summary(noisy(1.5, 400, 1))
        for summary in (few, many):
            self.assertLess(summary["low"], 1.5)
            self.assertGreater(summary["high"], 1.5)
        self.assertLess(many["high"] - many["low"], few["high"] - few["low"])

    def test_nothing_is_nothing(self):
        self.assertIsNone(ratios.summary([]))
        self.assertIsNone(ratios.difference([], [1.0]))
        self.assertFalse(ratios.resolved(None, None))

    def test_resolved(self):
        control = ratios.summary(noisy(1.0, 15, 2))
        better = ratios.summary(noisy(1.5, 15, 3))
        worse = ratios.summary(noisy(0.6, 15, 4))
        same = ratios.summary(noisy(1.0, 15, 5))
        self.assertTrue(ratios.resolved(better, control))
        self.assertTrue(ratios.resolved(worse, control))
        self.assertFalse(ratios.resolved(same, control))

    def test_too_few_rounds_resolve_nothing(self):
        control = ratios.summary(noisy(1.0, 15, 2))
        better = ratios.summary(noisy(3.0, ratios.ENOUGH_ROUNDS - 1, 3))
        self.assertFalse(ratios.resolved(better, control))

    def test_control_as_far_off_resolves_nothing(self):
        control = {"low": 1.2, "high": 1.4, "rounds": 15}
        better = {"low": 1.3, "high": 1.5, "rounds": 15}
        self.assertFalse(ratios.resolved(better, control))

    def test_difference_of_two_runs(self):
        change = ratios.difference(noisy(1.2, 15, 6), noisy(1.8, 15, 7))
        self.assertLess(change["low"], 1.5)
        self.assertGreater(change["high"], 1.5)


if __name__ == "__main__":
    unittest.main()
