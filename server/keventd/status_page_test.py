#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The status page of a keventd under load, as a headless Chromium draws it.

It does nothing where there is no Chromium.
"""

import html.parser
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib

KEVENTD, LOAD = (os.path.abspath(path) for path in sys.argv[1:3])
CHROMIUM = shutil.which("chromium")

PAGE_MS = 15_000
# Of the page's own time, which passes faster than ours: about as many figures as
# seconds.

LINES = [(0x2A, 0x7F, 0xD4), (0xE0, 0x85, 0x2D), (0xC0, 0x3A, 0x4B)]
# COLOURS of the page.


class Page(html.parser.HTMLParser):
    """Texts of the elements that the script fills."""

    def __init__(self, text):
        super().__init__()
        self.texts = {"state": "", "title": "", "keys": []}
        self.state_class = ""
        self.rows = []
        self._into = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if attrs.get("id") == "state":
            self.state_class = attrs.get("class") or ""
            self._into = "state"
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._into = "cell"
        elif tag == "b":
            self.texts["keys"].append("")
            self._into = "key"

    def handle_endtag(self, tag):
        self._into = None

    def handle_data(self, data):
        if self._into == "state":
            self.texts["state"] += data
        elif self._into == "cell":
            self.rows[-1][-1] += data
        elif self._into == "key":
            self.texts["keys"][-1] += data


def pixels(path):
    """Returns the rows of a PNG with 8 bits for each of RGB or RGBA."""
    with open(path, "rb") as file:
        data = file.read()
    at, packed, width, depth = 8, b"", 0, 0
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        at += size + 12
        if kind == b"IHDR":
            width, _, bits, colour = struct.unpack(">IIBB", body[:10])
            depth = {2: 3, 6: 4}[colour]
            assert bits == 8
        elif kind == b"IDAT":
            packed += body
    raw = zlib.decompress(packed)
    stride = width * depth
    above = bytearray(stride)
    rows = []
    for begin in range(0, len(raw), stride + 1):
        row = bytearray(raw[begin + 1:begin + 1 + stride])
        _unfilter(raw[begin], row, above, depth)
        rows.append([tuple(row[i:i + 3]) for i in range(0, stride, depth)])
        above = row
    return rows


def _unfilter(kind, row, above, depth):
    # Section 9.2 of the PNG specification.
    for i, value in enumerate(row):
        left = row[i - depth] if i >= depth else 0
        corner = above[i - depth] if i >= depth else 0
        if kind == 1:
            value += left
        elif kind == 2:
            value += above[i]
        elif kind == 3:
            value += (left + above[i]) // 2
        elif kind == 4:
            guess = left + above[i] - corner
            value += min(
                (left, above[i], corner), key=lambda near: abs(guess - near))
        row[i] = value & 255


def rows_with(picture, colour):
    """Returns on how many rows of the picture a colour is, about."""
    return sum(
        any(sum(abs(a - b) for a, b in zip(pixel, colour)) < 60 for pixel in row)
        for row in picture)


@unittest.skipUnless(CHROMIUM, "there is no chromium: apt-get install chromium")
class StatusPageTest(unittest.TestCase):

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="keventd-page.", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        root = os.path.join(self.dir, "root")
        os.mkdir(root)
        with open(os.path.join(root, "a.txt"), "w", encoding="ascii") as file:
            file.write("hello\n")
        with open(os.path.join(self.dir, "err"), "wb") as err:
            self.daemon = self.start([
                KEVENTD, f"--root={root}", "--listen=127.0.0.1:0", "--workers=2",
                f"--admin=unix:{self.dir}/admin", "--admin_http=127.0.0.1:0"
            ], stdout=subprocess.PIPE, stderr=err)
        self.addCleanup(self.daemon.stdout.close)
        line = self.daemon.stdout.readline().decode()
        port = re.match(r"listening on http://127\.0\.0\.1:(\d+) ", line).group(1)
        # It was said before.
        with open(os.path.join(self.dir, "err"), encoding="utf-8") as file:
            said = re.search(r"metrics at (127\.0\.0\.1:\d+)", file.read())
        self.page = f"http://{said.group(1)}/"
        for _ in range(2):
            self.start([sys.executable or "python3", LOAD, port, "/a.txt"])

    def start(self, command, **options):
        """Starts a process that ends with the test."""
        process = subprocess.Popen(command, **options)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def chromium(self, *flags):
        """Loads the page and returns what is written to standard output."""
        return subprocess.run(
            [
                CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu",
                "--no-first-run", "--hide-scrollbars", "--window-size=1100,900",
                f"--user-data-dir={self.dir}/profile",
                f"--virtual-time-budget={PAGE_MS}", *flags, self.page
            ],
            check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            timeout=120, env=dict(os.environ, HOME=self.dir)).stdout.decode()

    def test_shows_figures(self):
        page = Page(self.chromium("--dump-dom"))
        self.assertRegex(page.texts["state"], r"^up \d+ s, 2 workers")
        self.assertEqual(page.state_class, "")
        self.assertEqual([row[0] for row in page.rows], ["worker", "0", "1", "total"])
        total = dict(zip(page.rows[0], page.rows[3]))
        self.assertRegex(total["requests/s"], r"^[1-9]")
        self.assertRegex(total["open"], r"^1\d$")
        self.assertRegex(total["p50"], r"^[\d.]+ (µs|ms)$")
        self.assertRegex(total["p99"], r"^[\d.]+ (µs|ms)$")
        self.assertRegex(total["entries/s"], r"^[1-9]")
        keys = dict(key.split(" ", 1) for key in page.texts["keys"])
        self.assertEqual(
            set(keys),
            {"requests", "p50", "p99", "p99.9", "open", "entries", "batches", "sleeps"})
        for name, value in keys.items():
            self.assertRegex(value, r"^[1-9]", name)

    def test_draws_them(self):
        path = os.path.join(self.dir, "page.png")
        self.chromium(f"--screenshot={path}")
        picture = pixels(path)
        # Lines that go up and down; the words beside them alone are less.
        for colour in LINES:
            self.assertGreater(rows_with(picture, colour), 40, colour)


def main():
    """Runs the tests, or tells Bazel that there were none."""
    report = os.environ.get("XML_OUTPUT_FILE")
    if not CHROMIUM and report:
        with open(report, "w", encoding="ascii") as file:
            file.write(
                "<testsuites><testsuite name='StatusPageTest'>"
                "<testcase name='Chromium'><skipped/></testcase>"
                "</testsuite></testsuites>\n")
    unittest.main(argv=sys.argv[:1])


if __name__ == "__main__":
    main()
