#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of compare.py."""

import copy
import json
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from macro import compare, machine  # noqa: E402  pylint: disable=wrong-import-position


def cell(server, engine, cpu_us, **fields):
    """Returns a cell of 15 rounds in which a request costs about so much."""
    rows = [{"cpu_us_per_request": cpu_us * (1 + (i % 5) / 100),
             "requests_per_s": 1e6 / cpu_us} for i in range(15)]
    return {
        "server": server, "engine": engine, "workload": "file", "file_bytes": 1024,
        "connections": 64, "keepalive": True, "pipeline": 1, "workers": 1,
        "ratios": {} if server == "nginx" else {
            "cpu": {"against": "sendfile"}, "requests": {"against": "sendfile"}},
        "raw": {"closed_loop": rows, "open_loop": []}, **fields,
    }


def result(keventd_us, **fields):
    """Returns a result in which nginx costs 8 us and the floor 4 us."""
    return {
        "cells": [
            cell("nginx", "sendfile", 8, **fields), cell("floor", "epoll", 4, **fields),
            cell("keventd", "epoll", keventd_us, **fields),
        ],
        "scale": {"idle": [{"server": "keventd", "engine": "epoll", "raw": [
            {"pss_bytes": 50 * keventd_us, "kernel_bytes": 4000} for _ in range(3)]}]},
        "cold": [
            {"server": "nginx", "engine": "aio", "raw": [
                {"hot_answered": 1000, "p99_us": 4000, "cold_mb_per_s": 50}] * 3},
            {"server": "keventd", "engine": "epoll", "raw": [
                {"hot_answered": 2000, "p99_us": 1000 * keventd_us,
                 "cold_mb_per_s": 50}] * 3},
        ],
    }


def compared(a, b):
    """Returns the lines of the comparison of two results."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, content in enumerate((a, b)):
            paths.append(os.path.join(folder, f"{number}.json"))
            with open(paths[-1], "w", encoding="utf-8") as file:
                json.dump(content, file)
        return list(compare.lines(*paths))


class CompareTest(unittest.TestCase):

    def line(self, lines, *words):
        """Returns the one line that has all these words."""
        found = [line for line in lines if all(word in line for word in words)]
        self.assertEqual(len(found), 1, lines)
        return found[0]

    def test_twice_as_cheap_is_twice_as_good(self):
        lines = compared(result(8), result(4))
        cpu = self.line(lines, "keventd/epoll 1 KiB", " CPU  ")
        self.assertIn("1.00", cpu)
        self.assertIn("2.00 [", cpu)
        self.assertNotIn("~", cpu)
        floor = self.line(lines, "CPU to the floor")
        self.assertRegex(floor, r"2\.00 +1\.00 +2\.00 \[")
        self.assertIn("2.00 [", self.line(lines, "PSS bytes"))
        self.assertIn("2.00 [", self.line(lines, "hot p99"))

    def test_the_same_is_not_resolved(self):
        lines = compared(result(5), result(5))
        for words in ((" CPU  ",), ("kernel's bytes",), ("hot answered/s",)):
            line = self.line(lines, *words)
            self.assertIn("1.00 [", line)
            self.assertIn("~", line)

    def test_a_faster_machine_cancels_out(self):
        faster = result(4)
        for one in faster["cells"]:
            for row in one["raw"]["closed_loop"]:
                row["cpu_us_per_request"] /= 3
        line = self.line(compared(result(4), faster), " CPU  ")
        self.assertIn("1.00 [", line)

    def test_what_watching_costs(self):
        def watched(cpu_us):
            return {"cells": [], "admin": [
                {"engine": "epoll", "admin": kind, "file_bytes": 1024, "connections": 64,
                 "raw": [{"cpu_us_per_request": us * (1 + (i % 5) / 100)}
                         for i in range(15)]}
                for kind, us in (("idle", 4), ("control", 4), ("watched", cpu_us),
                                 ("off", 4))]}

        lines = compared(watched(5), watched(4))
        cost = self.line(lines, "keventd/epoll admin watched", "CPU to idle")
        # What cost a quarter more costs nothing now, which is better.
        self.assertRegex(cost, r"1\.250 +1\.000 +1\.250 \[")
        self.assertIn("1.000 [", self.line(lines, "admin off"))
        self.assertFalse(any("admin control" in line for line in lines))
        # Those of before have none.
        with self.assertRaises(machine.Unable):
            compared({"cells": []}, watched(4))

    def test_small_requests_beside_large_ones(self):
        def beside(p99_us):
            return {"cells": [], "beside": [
                {"server": server, "engine": engine, "large_file_bytes": size, "raw": [
                    {"hot_answered": 500, "p99_us": p99, "pulled_mb_per_s": 9000}] * 3}
                for size in (1 << 20, 10 << 20)
                for server, engine, p99 in (("nginx", "sendfile", 4000),
                                            ("nginx", "buffered", 9000),
                                            ("keventd", "epoll", p99_us))]}

        lines = compared(beside(1000), beside(500))
        for size in (" 1 MiB", " 10 MiB"):
            self.assertRegex(self.line(lines, f"keventd/epoll beside{size}", "small p99"),
                             r"4\.00 +8\.00 +2\.00 \[")
            self.assertIn("1.00 [", self.line(lines, size, "large MB/s"))

    def test_other_loads_are_other_cells(self):
        for fields in ({"pipeline": 16}, {"workers": 2}, {"keepalive": False},
                       {"workload": "mix", "file_bytes": None}):
            other = result(4, **fields)
            other.update(scale={}, cold=[])
            with self.assertRaises(machine.Unable):
                compared(result(4), other)
            self.line(compared(other, other), " CPU  ")

    def test_results_from_before_have_fewer_fields(self):
        old = copy.deepcopy(result(8))
        for one in old["cells"]:
            for name in ("workload", "keepalive", "pipeline", "workers"):
                del one[name]
        del old["scale"]
        self.assertIn("2.00 [", self.line(compared(old, result(4)), " CPU  "))

    def test_instructions_are_exact(self):
        def guest(instructions):
            return {"cells": [{
                "server": "keventd", "engine": "module", "kernel": "6.1",
                "file_bytes": 1024, "connections": 64,
                "instructions_per_request": instructions}]}

        line = self.line(compared(guest(30_000), guest(27_000)), "instructions", "6.1")
        self.assertIn("0.900", line)

    def test_what_is_no_result_is_told(self):
        for content in ({}, {"cells": [{}]}, []):
            with self.assertRaises(machine.Unable):
                compared(content, result(4))


if __name__ == "__main__":
    unittest.main()
