#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of page.py, and of what plots.py draws."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from macro import page, plots  # noqa: E402  pylint: disable=wrong-import-position


def ratio(value, resolved=True, spread=0.05):
    """Returns a ratio to nginx."""
    return {"value": value, "low": value - spread, "high": value + spread,
            "rounds": 15, "against": "sendfile", "resolved": resolved}


def cell(server, engine, cpu=None, resolved=True, cpu_us=4.0, **fields):
    """Returns a cell with a ratio of CPU time to nginx."""
    return {
        "server": server, "engine": engine, "workload": "file", "file_bytes": 1024,
        "connections": 64, "keepalive": True, "pipeline": 1, "workers": 1,
        "cpu_us_per_request": cpu_us, "machine_us_per_request": 8.0,
        "requests_per_s": 1e5, "mb_per_s": 100.0, "p50_us": 50.0, "p99_us": 90.0,
        "p999_us": None, "latency_requests_per_s": 1000, "rounds": 15,
        "yardstick": server == "nginx", "saturated": [], "errors": 0,
        "others_busy": 0.0, "ratios": {"cpu": ratio(cpu, resolved)} if cpu else {},
        "over_floor": {"cpu": ratio(1.2)} if server == "keventd" else {},
        "raw": {"closed_loop": [{"cpu_us_per_request": cpu_us}] * 15}, **fields,
    }


def result(*cells, **fields):
    """Returns a merged result of cells."""
    return page.merge([{"cells": list(cells), "machine": {"kernel": "6.1"}, **fields}])


def text(*cells, **fields):
    """Returns the page of cells."""
    return "\n".join(page.lines(result(*cells, **fields)))


def section(whole, title):
    """Returns a section of a page."""
    _, _, rest = whole.partition(f"## {title}\n")
    return rest.partition("\n## ")[0]


class PageTest(unittest.TestCase):

    def test_losses_are_told(self):
        whole = text(cell("nginx", "sendfile"), cell("keventd", "epoll", 0.8))
        self.assertIn("1 KiB, 64 connections: keventd epoll, CPU time, ratio to nginx "
                      "0.80 [0.75, 0.85]", section(whole, "Where keventd loses"))

    def test_wins_are_no_losses(self):
        whole = text(cell("nginx", "sendfile"), cell("keventd", "epoll", 1.5))
        self.assertIn("Nothing was resolved", section(whole, "Where keventd loses"))
        self.assertIn("Everything is.", section(whole, "What is not resolved"))

    def test_what_is_not_resolved_is_told_and_marked(self):
        whole = text(cell("nginx", "sendfile"), cell("keventd", "epoll", 0.8, False))
        self.assertIn("Nothing was resolved", section(whole, "Where keventd loses"))
        self.assertIn("CPU time of keventd epoll 0.80 [0.75, 0.85]~",
                      section(whole, "What is not resolved"))
        self.assertIn("0.80 [0.75, 0.85]~", section(whole, "CPU time for each request"))

    def test_cheaper_peers_are_told(self):
        ours = cell("keventd", "epoll", 1.5, cpu_us=4.0)
        self.assertIn("h2o needs 0.75 [0.75, 0.75] of the CPU time of keventd epoll",
                      text(ours, cell("h2o", "epoll", 2, cpu_us=3.0)))
        self.assertNotIn("h2o needs", text(ours, cell("h2o", "epoll", 1, cpu_us=5.0)))

    def test_missed_aims_are_told(self):
        fields = {"aim": {"cpu": 1.6, "over_floor": 1.1},
                  "aims_met": {"cpu": True, "over_floor": False}}
        losing = section(text(cell("keventd", "epoll", 1.7, **fields)),
                         "Where keventd loses")
        self.assertIn("keventd epoll: aim 1.10x floor; it is 1.20 [1.15, 1.25]", losing)
        self.assertNotIn("1.6x CPU", losing)

    def test_a_missed_aim_has_what_the_floors_reach(self):
        fields = {"aim": {"cpu": 1.7}, "aims_met": {"cpu": False}}
        whole = text(cell("keventd", "epoll", 1.5, **fields),
                     cell("floor", "epoll", 1.3), cell("floor-pages", "epoll", 1.6))
        self.assertIn("it is 1.50 [1.45, 1.55]; floor 1.30 [1.25, 1.35]; "
                      "floor-pages 1.60 [1.55, 1.65]\n", whole)

    def test_noise_of_others_is_told(self):
        self.assertIn("up to 30% of the machine",
                      text(cell("keventd", "epoll", 1.5, others_busy=0.3)))
        self.assertNotIn("Something else", text(cell("keventd", "epoll", 1.5)))

    def test_control_has_no_mark(self):
        whole = text(cell("keventd", "epoll", 1.5),
                     cell("nginx-control", "sendfile", 1.0, False))
        self.assertIn("1.00 [0.95, 1.05] |", whole)
        self.assertNotIn("1.00 [0.95, 1.05]~", whole)

    def test_the_later_of_two_files_counts(self):
        merged = page.merge([
            {"cells": [cell("keventd", "epoll", 1.5), cell("keventd", "uring", 1.6)]},
            {"cells": [cell("keventd", "epoll", 1.1)]},
        ])
        self.assertEqual(
            {c["engine"]: c["ratios"]["cpu"]["value"] for c in merged["cells"]},
            {"epoll": 1.1, "uring": 1.6})
        self.assertEqual([run["counts"] for run in merged["runs"]],
                         ["1 KiB, 64 connections"] * 2)

    def test_there_is_one_control(self):
        merged = page.merge([{"cells": [cell("nginx-control", engine, 1.0)]}
                             for engine in ("sendfile", "buffered")])
        self.assertEqual([c["engine"] for c in merged["cells"]], ["buffered"])

    def test_runs_that_nothing_counts_of_are_not_told(self):
        def run(time, *cells):
            return {"cells": list(cells), "machine": {"kernel": "6.1", "time": time}}
        whole = "\n".join(page.lines(page.merge([
            run("early", cell("keventd", "epoll", 1.5)),
            run("late", cell("keventd", "epoll", 1.1)),
            run("other", cell("keventd", "uring", 1.2)),
        ])))
        told = section(whole, "Machine and versions")
        self.assertIn("| kernel | 6.1 |", told)
        self.assertIn("| late |", told)
        self.assertIn("| other |", told)
        self.assertNotIn("early", told)

    def test_instructions_of_guests_are_left_out(self):
        merged = page.merge([{"cells": [
            {"server": "keventd", "engine": "module", "file_bytes": 1024,
             "connections": 64, "instructions_per_request": 1}]}])
        self.assertEqual(merged["cells"], [])

    def test_scale_and_cold_files(self):
        idle = {"server": "keventd", "engine": "uring", "connections": 10_000,
                "rss_bytes_per_connection": 210, "pss_bytes_per_connection": 200,
                "kernel_bytes_per_connection": 4500, "bare_sockets_bytes": 4000,
                "pss_mb": 9.0, "pss_mb_before": 7.0, "rounds": 1,
                "raw": [{"rss_bytes": 190, "pss_bytes": 180, "kernel_bytes": 4400},
                        {"rss_bytes": 230, "pss_bytes": 220, "kernel_bytes": 4600}]}
        fair = {"server": "nginx", "engine": "sendfile", "connections": 64,
                "workers": 2, "rounds": 5, "expected_variation": 0.125,
                "requests_largest_share": 0.55, "connections_variation": 0.1,
                "connections_variation_worst": 0.2, "requests_variation": 0.1,
                "requests_variation_worst": 0.3}
        cold = {"server": "nginx", "engine": "aio", "hot_due_per_s": 2000,
                "hot_answered_per_s": 1990.0, "p50_us": 100, "p99_us": 4000,
                "p999_us": 9000, "cold_mb_per_s": 50.0, "cold_connections": 8,
                "disk_limit_mb_per_s": None, "rounds": 3}
        whole = text(scale={"idle": [idle], "fairness": [fair]}, cold=[cold])
        self.assertIn("| keventd uring | 210 (190 to 230) |",
                      section(whole, "Idle connections"))
        self.assertIn("0.10 / 0.30 | 55% |", section(whole, "Shares of workers"))
        self.assertIn("as it is", section(whole, "Cold files"))
        self.assertNotIn("Where keventd loses", whole)

    def test_small_requests_beside_large_ones(self):
        row = {"server": "keventd", "engine": "uring", "hot_due_per_s": 500,
               "hot_bytes": 1024, "hot_answered_per_s": 499.0, "p50_us": 80,
               "p99_us": 1500, "p999_us": 8000, "large_mb_per_s": 4500.0,
               "large_connections": 64, "large_file_bytes": 1 << 20, "rounds": 3}
        title = "Small requests beside large ones"
        self.assertIn("| 1 MiB | keventd uring | 499 | 80.0 | 1500 | 8000 | 4500 |",
                      section(text(beside=[row]), title))
        self.assertNotIn(title, text())

    def test_what_watching_costs(self):
        def row(kind, cpu, **fields):
            return {"server": "keventd", "engine": "epoll", "admin": kind,
                    "file_bytes": 1024, "connections": 64, "rounds": 50,
                    "cpu_us_per_request": 4.0, "requests_per_s": 1e5,
                    "admin_share": 0.0042, "errors": 0,
                    "ratios": {"cpu": ratio(cpu, kind == "watched", 0.002),
                               "requests": ratio(1 / cpu, False, 0.002)}
                              if cpu else {}, **fields}

        def told(aim_met):
            return section(text(admin=[
                row("idle", None), row("control", 1.001),
                row("watched", 1.009, aim={"cpu": 1.01}, aim_met=aim_met)]),
                "The admin service")

        self.assertIn("1 KiB, 64 connections: aim at most 1.01x CPU time, met; it is "
                      "1.009 [1.007, 1.011], and 0.42%", told(True))
        self.assertIn("not met, or not surely; it is 1.009", told(False))
        # Control without a mark; the yardstick without a ratio.
        self.assertIn("| control | 50 | 4.000 | 100000 | 0.42% | 1.001 [0.999, 1.003] |",
                      told(True))
        self.assertIn("| idle | 50 | 4.000 | 100000 | 0.42% |  |  |", told(True))
        self.assertNotIn("The admin service", text(cell("keventd", "epoll", 1.5)))

    def test_a_rounded_value_may_lie_outside_its_rounds(self):
        """The median of 258.048, 258.048 and 258.048 is shown as 258."""
        below, above = plots.reach(258.0, 258.048, 258.048)
        self.assertEqual(below, 0.0)
        self.assertAlmostEqual(above, 0.048)

    def test_plots_are_shown(self):
        lines = page.lines(result(cell("keventd", "epoll", 1.5)), [("T", "b/cpu.svg")])
        self.assertIn("![T](b/cpu.svg)", lines)


class PlotsTest(unittest.TestCase):

    def test_only_plain_cells_are_drawn_by_size(self):
        plain = [cell("keventd", "epoll", 1.5, file_bytes=n) for n in (4096, 0, 1024)]
        others = [cell("keventd", "epoll", 1.5, **fields) for fields in (
            {"keepalive": False}, {"connections": 1}, {"pipeline": 16},
            {"workers": 2}, {"workload": "mix", "file_bytes": None})]
        self.assertEqual(list(plots.by_size(plain + others)), [0, 1024, 4096])
        self.assertEqual(len(plots.other_cells(plain + others)), 5)

    def test_points(self):
        groups = {
            "a": [cell("nginx", "sendfile"), cell("nginx-control", "sendfile", 1.0)],
            "b": [cell("keventd", "uring", 1.6), cell("keventd", "epoll", 1.5),
                  cell("nginx", "debian", 0.5, yardstick=False)],
        }
        drawn = plots.points(groups, plots.to_nginx("cpu"))
        # The yardstick has no ratio to itself; Debian's nginx would hide the rest.
        self.assertEqual(list(drawn), ["keventd epoll", "keventd uring", "control"])
        self.assertEqual([(p, v["value"]) for p, v in drawn["control"]], [(0, 1.0)])
        self.assertEqual([(p, v["value"]) for p, v in drawn["keventd uring"]],
                         [(1, 1.6)])


if __name__ == "__main__":
    unittest.main()
