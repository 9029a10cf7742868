#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of http_bench.py: what it would measure, and of which servers."""

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

import http_bench
from macro import ratios, servers
from macro.rounds import KIB

CONF = http_bench.CONF
WORDS = {"PORT": 1, "NOFILE": 20_000, "CONNECTIONS": 16_384}


def parsed(*flags):
    """Returns the arguments that these flags make."""
    with mock.patch.object(sys, "argv", ["http_bench.py", *flags]):
        return http_bench.arguments()


def names(*flags):
    """Returns the names of the cells that these flags measure."""
    return [str(cell) for cell in http_bench.plan(parsed(*flags))]


class PlanTest(unittest.TestCase):

    def test_everything_without_flags(self):
        args = parsed()
        self.assertTrue(args.scale and args.cold and args.beside and args.admin)
        self.assertEqual((args.rounds, args.admin_rounds), (15, 50))
        self.assertIn("h2o", args.servers)
        planned = names()
        self.assertEqual(len(planned), len(set(planned)))
        for name in ("100 MiB, 64 connections", "1 KiB, 1000 connections",
                     "1 KiB, 64 connections, one request each",
                     "mix of files, 64 connections",
                     "1 KiB, 64 connections, 16 requests together"):
            self.assertIn(name, planned)
        self.assertTrue(any("workers on all cores" in name for name in planned))

    def test_quick_leaves_out_what_takes_long(self):
        args = parsed("--quick")
        self.assertFalse(
            args.scale or args.cold or args.beside or args.mix or args.admin)
        self.assertEqual(args.rounds, 5)
        self.assertEqual(args.servers, ["keventd", "floor"])
        self.assertEqual(len(names("--quick")), 6)

    def test_a_part_leaves_out_the_others(self):
        self.assertEqual(names("--mix"), ["mix of files, 64 connections"])
        self.assertEqual(names("--cold"), [])
        self.assertEqual(names("--beside"), [])
        self.assertEqual(names("--admin"), [])
        self.assertEqual(names("--pipeline=4"),
                         ["1 KiB, 64 connections, 4 requests together"])
        self.assertEqual(names("--scale"), ["0 B, 64 connections, one request each"])
        self.assertFalse(parsed("--mix").scale)
        self.assertTrue(parsed("--mix", "--cold").cold)
        self.assertFalse(parsed("--cold").admin)
        self.assertTrue(parsed("--quick", "--cold", "--admin").admin)

    def test_rounds_of_the_admin_service_are_more(self):
        self.assertEqual(parsed("--admin").admin_rounds, 50)
        self.assertEqual(parsed("--admin", "--quick").admin_rounds,
                         ratios.ENOUGH_ROUNDS)
        self.assertEqual(parsed("--admin", "--rounds=2").admin_rounds, 2)

    def test_a_part_without_cells_has_a_file_of_its_own(self):
        for flags, name in ((["--cold"], "cold.json"), (["--admin"], "admin.json"),
                            (["--cold", "--admin"], "http.json"),
                            (["--mix", "--admin"], "http.json"), ([], "http.json")):
            with mock.patch.object(os, "makedirs"):
                path = http_bench.out_path(parsed(*flags))
            self.assertEqual(os.path.basename(path), name, flags)
        self.assertEqual(http_bench.out_path(parsed("--out=x.json")), "x.json")

    def test_sizes_are_those_asked_for(self):
        self.assertEqual(
            names("--sizes=1K,16K", "--connections=1", "--modes=close"),
            ["1 KiB, 1 connection, one request each",
             "16 KiB, 1 connection, one request each"])
        self.assertEqual([c.file_bytes for c in http_bench.plan(
            parsed("--all-cores", "--sizes=1K"))], [KIB])

    def test_nonsense_is_refused(self):
        for flags in (["--modes=often"], ["--servers=apache"], ["--servers=floor"],
                      ["--pipeline=0"], ["--sizes=large"],
                      ["--admin", "--seconds=0.5"], ["--admin", "--servers=h2o"]):
            with self.assertRaises(SystemExit), contextlib.redirect_stderr(io.StringIO()):
                parsed(*flags)


class ConfigurationTest(unittest.TestCase):

    def test_every_word_is_filled_in(self):
        with tempfile.TemporaryDirectory() as folder:
            made = 0
            for name in sorted(os.listdir(CONF)):
                if not name.endswith(".conf"):
                    continue
                kind = {"h2o.conf": servers.H2o, "lighttpd.conf": servers.Lighttpd}.get(
                    name, servers.Nginx)
                for workers in (1, 4):
                    text = kind(folder, os.path.join(CONF, name), "/root-of-files", {0},
                                WORKERS=workers, **WORDS).configuration()
                    self.assertEqual(re.findall(r"@\w+@", text), [], name)
                    self.assertIn("/root-of-files", text)
                    made += 1
            self.assertGreaterEqual(made, 12)

    def test_every_word_is_filled_in_in_the_guest(self):
        script = os.path.join(os.path.dirname(CONF), "vm", "nginx.sh")
        made = 0
        for name in sorted(os.listdir(CONF)):
            if name.startswith("nginx-"):
                text = subprocess.run(
                    ["sh", "-ec", '. "$0"; nginx_configuration "$@"', script,
                     os.path.join(CONF, name), "/run-of-it", "/root-of-files", "8080"],
                    check=True, stdout=subprocess.PIPE, text=True).stdout
                self.assertEqual(re.findall(r"@\w+@", text), [], name)
                self.assertIn("root /root-of-files;", text)
                made += 1
        self.assertGreaterEqual(made, 4)

    def test_who_is_tuned_accepts_with_the_request(self):
        for name, how in (("nginx-aio.conf", r"listen .* deferred\b"),
                          ("nginx-buffered.conf", r"listen .* deferred\b"),
                          ("nginx-sendfile.conf", r"listen .* deferred\b"),
                          ("lighttpd.conf", r"^\s*server\.defer-accept = 1$"),
                          ("keventd.textproto", r"^defer_accept_s: [1-9]")):
            with open(os.path.join(CONF, name), encoding="utf-8") as file:
                self.assertRegex(file.read(), "(?m)" + how, name)

    def test_keventd_has_its_configuration(self):
        started = re.match(r"(.*):(\w+):(\d+)", "1:uring:2")
        for admin_port, admin in ((None, "--admin=off"), (7, "--admin_http=127.0.0.1:7")):
            with tempfile.TemporaryDirectory() as folder:
                keventd = servers.Keventd(
                    folder, "keventd", "/c.textproto", "uring", "/r", {0}, workers=2,
                    admin_port=admin_port)
                with mock.patch.object(
                        keventd, "_start_and_match", return_value=started) as start:
                    keventd.start()
            command = start.call_args[0][0]
            for flag in ("--config=/c.textproto", "--workers=2", "--engine=uring", admin):
                self.assertIn(flag, command)

    def test_workers_are_pinned_only_if_there_are_several(self):
        with tempfile.TemporaryDirectory() as folder:
            for workers, pinned in ((1, False), (4, True)):
                nginx = servers.Nginx(
                    folder, os.path.join(CONF, "nginx-sendfile.conf"), "/r", {0},
                    WORKERS=workers, **WORDS)
                self.assertEqual(
                    "worker_cpu_affinity" in nginx.configuration(), pinned)

    def test_lighttpd_serves_by_itself_if_it_is_one(self):
        with tempfile.TemporaryDirectory() as folder:
            for workers, text in ((1, "max-worker = 0"), (4, "max-worker = 4")):
                lighttpd = servers.Lighttpd(
                    folder, os.path.join(CONF, "lighttpd.conf"), "/r", {0},
                    WORKERS=workers, **WORDS)
                self.assertIn(text, lighttpd.configuration())
                # It would refuse more than a connection for two descriptors.
                self.assertIn("max-connections = 10000", lighttpd.configuration())


if __name__ == "__main__":
    unittest.main()
