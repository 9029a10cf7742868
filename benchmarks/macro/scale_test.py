#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of scale.py."""

import os
import random
import statistics
import sys
import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from macro import machine, scale  # noqa: E402  pylint: disable=wrong-import-position


class ScaleTest(unittest.TestCase):

    def test_variation(self):
        self.assertEqual(scale.variation([5, 5, 5]), 0)
        self.assertAlmostEqual(scale.variation([0, 10]), 1)
        self.assertAlmostEqual(scale.variation([4, 6]), 0.2)
        self.assertIsNone(scale.variation([0, 0]))

    def test_expected_variation_is_that_of_chance(self):
        source = random.Random(1)
        for workers, connections in ((2, 64), (4, 200)):
            squares = []
            for _ in range(2000):
                counts = [0] * workers
                for _ in range(connections):
                    counts[source.randrange(workers)] += 1
                squares.append(scale.variation(counts)**2)
            self.assertAlmostEqual(
                statistics.fmean(squares)**0.5,
                scale.expected_variation(workers, connections), delta=0.01)

    def test_fairness_result(self):
        rows = [
            {"connections": [32, 32], "requests": [600, 400]},
            {"connections": [16, 48], "requests": [500, 500]},
            {"connections": [32, 32], "requests": [700, 300]},
        ]
        result = scale.fairness_result("keventd", "epoll", 64, rows)
        self.assertEqual(result["workers"], 2)
        self.assertEqual(result["connections_variation"], 0)
        self.assertEqual(result["connections_variation_worst"], 0.5)
        self.assertEqual(result["requests_variation"], 0.2)
        self.assertEqual(result["requests_largest_share"], 0.6)
        self.assertEqual(result["expected_variation"], 0.125)

    def test_no_counts_are_no_fairness(self):
        with self.assertRaises(machine.Unable):
            scale.fairness_result(
                "x", "y", 2, [{"connections": [0, 0], "requests": [0, 0]}])

    def test_idle_result_takes_medians(self):
        rows = [
            {"rss_bytes": r, "pss_bytes": r + 1, "kernel_bytes": 10 * r,
             "pss_mb_before": 1, "pss_mb": 2} for r in (200, 900, 210)
        ]
        result = scale.idle_result("keventd", "uring", 10_000, rows, [4000, 5000, 4100])
        self.assertEqual(result["rss_bytes_per_connection"], 210)
        self.assertEqual(result["kernel_bytes_per_connection"], 2100)
        self.assertEqual(result["bare_sockets_bytes"], 4100)
        self.assertEqual(result["rounds"], 3)


class Handler(BaseHTTPRequestHandler):
    """Answers with 10 bytes, or as the path says."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):  # pylint: disable=invalid-name
        self.send_response(404 if self.path == "/gone" else 200)
        self.send_header("Content-Length", "10")
        self.end_headers()
        self.wfile.write(b"0123456789")

    def log_message(self, *unused):  # pylint: disable=arguments-differ
        pass


class Server(ThreadingHTTPServer):
    """Takes resets by clients as they come."""

    daemon_threads = True

    def handle_error(self, *unused):
        pass


class IdleTest(unittest.TestCase):

    def setUp(self):
        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def tearDown(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def test_connections_are_answered_and_stay(self):
        with scale.Idle(self.server.server_address[1], "x") as idle:
            idle.add(5, 10)
            # pylint: disable=protected-access
            self.assertEqual(len({s.getsockname() for s in idle._sockets}), 5)

    def test_wrong_answers_are_no_idle_connections(self):
        with scale.Idle(self.server.server_address[1], "gone") as idle:
            with self.assertRaises(machine.Unable):
                idle.add(1, 10)


if __name__ == "__main__":
    unittest.main()
