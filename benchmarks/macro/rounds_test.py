#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of rounds.py: what is made of the rounds."""

import os
import random
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from macro import rounds  # noqa: E402  pylint: disable=wrong-import-position


class Server:
    """A server by name alone."""

    def __init__(self, name, engine):
        self.name = name
        self.engine = engine


def one_round(cpu_us, source):
    """Returns a round in which a request costs about so much."""
    cpu_us *= 1 + source.gauss(0, 0.01)
    return {
        "requests": 1000, "cpu_us_per_request": cpu_us,
        "client_us_per_request": 2.0, "machine_us_per_request": cpu_us + 2,
        "requests_per_s": 1e6 / cpu_us, "mb_per_s": 1e3 / cpu_us,
        "server_busy": 1.0, "client_busy": 0.5, "others_busy": 0.0, "steal": 0.0,
        "server_system_share": 0.9, "switches_per_request": 0.1, "errors": 0,
    }


def measured(costs, size=1024, count=15):
    """Returns a cell in which each server costs so much, and its servers."""
    source = random.Random(1)
    cell = rounds.Cell(None, size, 64, True)
    servers = {}
    for (name, engine), cost in costs.items():
        server = servers[name, engine] = Server(name, engine)
        cell.closed[server] = [one_round(cost, source) for _ in range(count)]
        cell.open[server] = []
        cell.histograms[server] = []
    return cell, servers


def results(costs, **options):
    """Returns the results by (server, engine)."""
    cell, servers = measured(costs, **options)
    nginx = servers["nginx", "sendfile"]
    out = rounds.results(
        cell, [nginx], {nginx: servers["nginx-control", "sendfile"]},
        servers.get(("floor", "epoll")))
    return {(r["server"], r["engine"]): r for r in out}


COSTS = {
    ("nginx", "sendfile"): 8.0,
    ("nginx-control", "sendfile"): 8.0,
    ("keventd", "epoll"): 4.2,
    ("floor", "epoll"): 4.0,
}


class RoundsTest(unittest.TestCase):

    def test_cost_over_the_floor(self):
        of = results(COSTS)
        ratio = of["keventd", "epoll"]["over_floor"]["cpu"]
        self.assertAlmostEqual(ratio["value"], 1.05, delta=0.01)
        self.assertLess(ratio["low"], ratio["high"])
        self.assertTrue(ratio["resolved"])
        self.assertAlmostEqual(
            of["nginx", "sendfile"]["over_floor"]["cpu"]["value"], 2.0, delta=0.02)
        self.assertEqual(of["floor", "epoll"]["over_floor"], {})

    def test_without_a_floor_nothing_is_over_it(self):
        costs = {k: v for k, v in COSTS.items() if k[0] != "floor"}
        result = results(costs)["keventd", "epoll"]
        self.assertEqual(result["over_floor"], {})
        self.assertFalse(result["aims_met"]["over_floor"])
        self.assertFalse(result["aim_met"])

    def test_ratio_to_nginx(self):
        ratio = results(COSTS)["keventd", "epoll"]["ratios"]["cpu"]
        self.assertAlmostEqual(ratio["value"], 8 / 4.2, delta=0.02)
        self.assertTrue(ratio["resolved"])
        self.assertEqual(ratio["against"], "sendfile")

    def test_aims_are_met_by_the_worse_end(self):
        self.assertTrue(results(COSTS)["keventd", "epoll"]["aim_met"])
        dear = {**COSTS, ("keventd", "epoll"): 4.6}
        result = results(dear)["keventd", "epoll"]
        self.assertEqual(result["aims_met"], {"cpu": True, "over_floor": False})
        self.assertFalse(result["aim_met"])
        just = {"value": 1.08, "low": 1.02, "high": 1.11}
        self.assertFalse(rounds.aim_met("over_floor", 1.10, {}, {"cpu": just}))
        self.assertFalse(rounds.aim_met("cpu", 1.05, {"cpu": just}, {}))

    def test_few_rounds_resolve_nothing(self):
        result = results(COSTS, count=5)["keventd", "epoll"]
        self.assertFalse(result["resolved"])
        self.assertFalse(result["over_floor"]["cpu"]["resolved"])


if __name__ == "__main__":
    unittest.main()
