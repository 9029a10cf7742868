#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of mix.py."""

import collections
import os
import statistics
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from macro import mix  # noqa: E402  pylint: disable=wrong-import-position


def contents(root):
    """Returns the bytes of all files beneath a folder by their paths."""
    out = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                out[os.path.relpath(path, root)] = file.read()
    return out


class MixTest(unittest.TestCase):

    def test_the_seed_decides_everything(self):
        site = mix.plan(7, files=40)
        self.assertEqual(site, mix.plan(7, files=40))
        self.assertNotEqual(site, mix.plan(8, files=40))
        self.assertEqual(mix.sequence(site, 7, 500), mix.sequence(site, 7, 500))
        self.assertNotEqual(mix.sequence(site, 7, 500), mix.sequence(site, 8, 500))
        trees = []
        for _ in range(2):
            with tempfile.TemporaryDirectory() as root:
                mix.make(root, site, 7)
                trees.append(contents(root))
        self.assertEqual(trees[0], trees[1])
        self.assertEqual(
            {path: len(data) for path, data in trees[0].items()},
            {path: size for size, path in site})

    def test_sizes(self):
        sizes = [size for size, _ in mix.plan(1, files=20_000)]
        small = [size for size in sizes if size < 133_000]
        self.assertAlmostEqual(len(small) / len(sizes), 0.93, delta=0.01)
        # exp(9.357), less for what the cut at 133 KB leaves out
        self.assertAlmostEqual(statistics.median(small), 11_000, delta=700)
        self.assertLessEqual(max(sizes), mix.LARGEST)
        self.assertGreater(max(sizes), mix.LARGEST / 3)

    def test_requests_follow_zipf(self):
        site = mix.plan(1, files=100)
        times = collections.Counter(mix.sequence(site, 1, 100_000))
        self.assertAlmostEqual(times[0] / times[1], 2, delta=0.1)
        self.assertAlmostEqual(times[0] / times[9], 10, delta=1)
        # 1 / (1 + 1/2 + ... + 1/100)
        self.assertAlmostEqual(times[0] / 100_000, 0.1928, delta=0.01)

    def test_description(self):
        site = [(10, "a"), (1000, "b")]
        told = mix.description(site, [0, 0, 0, 1], 5)
        self.assertEqual(told["mean_bytes_per_request"], 258)
        self.assertEqual(told["median_bytes_per_request"], 10)
        self.assertEqual(told["files_asked_for"], 2)


if __name__ == "__main__":
    unittest.main()
