#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of rounds.py: what is made of the rounds."""

import contextlib
import io
import os
import random
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from macro import machine, rounds  # noqa: E402  pylint: disable=wrong-import-position


class Server:
    """A server by name alone."""

    def __init__(self, name, engine):
        self.name = name
        self.engine = engine
        self.starts = 1

    def restart(self):
        """Counts how often."""
        self.starts += 1


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
    cell = rounds.Cell(size, 64)
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


class Load:
    """Answers nothing at first."""

    def __init__(self, silent=0):
        self.silent = silent
        self.runs = 0

    def run(self, server, *unused, **unused_too):
        self.runs += 1
        answers = 0 if self.runs <= self.silent else 1000
        return {
            "seconds": 1.0, "answers": answers, "body_bytes": answers,
            "client_cpu_us": 5.0, "errors": {}, "cpus": [{
                "busy_us": 9, "steal_us": 0}],
            "server": {"cpu_us": 4000.0, "user_us": 1, "system_us": 3,
                       "voluntary_switches": 0, "involuntary_switches": 0},
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

    def test_latency_is_compared_with_the_tuning_that_has_it(self):
        costs = {("nginx", "buffered"): 7.0, ("nginx-control", "buffered"): 7.0, **COSTS}
        cell, servers = measured(costs)
        slow = {"p50_us": 50, "p99_us": 100, "cpu_us_per_request": 7, "errors": 0}
        fast = {**slow, "p99_us": 50}
        for server, row in ((servers["nginx", "sendfile"], slow),
                            (servers["keventd", "epoll"], fast)):
            cell.open[server] = [row] * 15
            cell.histograms[server] = [[50_000, 1000]]
        cell.rate = 1000.0
        tunings = [servers["nginx", "buffered"], servers["nginx", "sendfile"]]
        of = {r["server"]: r for r in rounds.results(cell, tunings, {})}
        self.assertEqual(of["keventd"]["ratios"]["cpu"]["against"], "buffered")
        p99 = of["keventd"]["ratios"]["p99"]
        self.assertEqual(p99["against"], "sendfile")
        self.assertAlmostEqual(p99["value"], 2)

    def test_clients_beside_each_other_count_as_one(self):
        def one(answers, cpu_us):
            return {
                "seconds": 1.0, "answers": answers, "answers_in_time": answers,
                "body_bytes": answers * 10, "unanswered": 0,
                "errors": {"io": 1, "head": 0}, "client_cpu_us": cpu_us,
                "server": {"cpu_us": 500.0}, "cpus": [{"busy_us": 7}],
                "latency": {"count": answers, "p50_us": 1, "p99_us": 1, "p999_us": 1,
                            "histogram_ns": [[1000 * answers, answers]]},
            }

        both = rounds.merged([one(10, 3.0), one(30, 4.0)])
        self.assertEqual(both["answers"], 40)
        self.assertEqual(both["client_cpu_us"], 7.0)
        self.assertEqual(both["errors"], {"io": 2, "head": 0})
        self.assertEqual(both["seconds"], 1.0)
        # Both saw the same server, and the same machine.
        self.assertEqual(both["server"], {"cpu_us": 500.0})
        self.assertEqual(both["cpus"], [{"busy_us": 7}])
        self.assertEqual(both["latency"]["p50_us"], 30)

    def test_a_round_without_an_answer_is_made_again(self):
        server = Server("nginx", "sendfile")
        for silent, fine in ((0, True), (2, True), (1000, False)):
            cell = rounds.Cell(1024, 64)
            load = Load(silent + (1 if silent else 0))  # the first is a warm-up
            with contextlib.redirect_stderr(io.StringIO()):
                if not fine:
                    with self.assertRaises(machine.Unable):
                        rounds.measure(cell, load, [server], 1, 2, 0, [server])
                    continue
                rounds.measure(cell, load, [server], 1, 2, 0, [server])
            self.assertEqual(
                [r["cpu_us_per_request"] for r in cell.closed[server]], [4.0, 4.0])
            self.assertEqual(load.runs, 1 + 2 + silent)

    def test_servers_are_started_anew(self):
        chosen = [Server("nginx", "sendfile"), Server("keventd", "epoll")]
        cell = rounds.Cell(1024, 64)
        load = Load()
        rounds.measure(cell, load, chosen, 1, 2 * rounds.SAME_PROCESS + 1, 0, chosen)
        for server in chosen:
            self.assertEqual(server.starts, 3)
            self.assertEqual(len(cell.closed[server]), 2 * rounds.SAME_PROCESS + 1)
        # Each is warm before it is measured.
        self.assertEqual(load.runs, 2 * (2 * rounds.SAME_PROCESS + 1) + 2 * 3)

    def test_a_part_of_a_large_file_is_a_part_of_a_request(self):
        # None of 64 need end in a second.
        size = 100 << 20
        result = {"answers": 0, "body_bytes": size // 2}
        self.assertEqual(rounds._requests(result, size), 0.5)  # pylint: disable=protected-access
        self.assertEqual(rounds._requests(result, None), 0)  # pylint: disable=protected-access

    def test_cells_of_older_results_have_names_too(self):
        old = {"file_bytes": 1024, "connections": 1, "keepalive": True}
        self.assertEqual(rounds.cell_name(old), "1 KiB, 1 connection")
        new = {"workload": "mix", "file_bytes": None, "connections": 64,
               "keepalive": False, "pipeline": 1, "workers": 2}
        self.assertEqual(
            rounds.cell_name(new),
            "mix of files, 64 connections, one request each, 2 workers on all cores")

    def test_mix_is_counted_by_answers(self):
        cell, servers = measured(COSTS, size=None)
        self.assertEqual(cell.workload, "mix")
        nginx = servers["nginx", "sendfile"]
        for result in rounds.results(cell, [nginx], {}):
            self.assertEqual(result["workload"], "mix")
            self.assertNotIn("aim", result)


if __name__ == "__main__":
    unittest.main()
