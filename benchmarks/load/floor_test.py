#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of the bare floor: floor_test.py PROGRAM."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

PROGRAM = sys.argv.pop(1)
REQUEST = b"GET /anything HTTP/1.1\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n"


class Floor:
    """A running floor with a body of some bytes."""

    def __init__(self, size, *flags):
        self.folder = tempfile.TemporaryDirectory()
        self.answer = HEAD + os.urandom(size)
        files = {"head": HEAD, "body": self.answer[len(HEAD):]}
        for name, content in files.items():
            with open(os.path.join(self.folder.name, name), "wb") as file:
                file.write(content)
        self.process = subprocess.Popen(
            [PROGRAM, *(f"--{n}={self.folder.name}/{n}" for n in files), *flags],
            stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line and "--ring" in flags:
            self.__exit__()
            raise unittest.SkipTest("no io_uring")
        self.port = int(re.fullmatch(r"listening on .*:(\d+)\n", line).group(1))

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.folder.cleanup()

    def descriptors(self):
        """Returns how many it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def connect(self):
        """Returns a connection."""
        return socket.create_connection(("127.0.0.1", self.port), 30)


def receive(peer, size):
    """Returns so many bytes, or fewer at the end."""
    got = b""
    while len(got) < size:
        part = peer.recv(size - len(got))
        if not part:
            break
        got += part
    return got


class FloorTest(unittest.TestCase):

    def test_answers_byte_for_byte_and_keeps_the_connection(self):
        # From memory, at the limit, by sendfile, and more than a socket takes.
        for flags in ((), ("--pages",), ("--ring",)):
            for size in (0, 1024, 16 * 1024, 16 * 1024 + 1, 20 << 20):
                with Floor(size, *flags) as floor, floor.connect() as peer:
                    for _ in range(3):
                        peer.sendall(REQUEST)
                        self.assertEqual(
                            receive(peer, len(floor.answer)), floor.answer)

    def test_ends_a_connection_if_told_to(self):
        for flags in ((), ("--ring",)):
            for size in (10, 100_000):
                with Floor(size, "--close", *flags) as floor, floor.connect() as peer:
                    peer.sendall(REQUEST)
                    self.assertEqual(receive(peer, 1 << 30), floor.answer)

    def test_end_that_comes_with_the_request(self):
        with Floor(10) as floor, floor.connect() as peer:
            # Watched from now on.
            peer.sendall(REQUEST)
            self.assertEqual(receive(peer, len(floor.answer)), floor.answer)
            # It finds both when it looks: one edge.
            floor.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, floor.process.pid, os.WSTOPPED)
            peer.sendall(REQUEST)
            peer.shutdown(socket.SHUT_WR)
            floor.process.send_signal(signal.SIGCONT)
            self.assertEqual(receive(peer, 1 << 30), floor.answer)

    def test_outlives_a_client_that_leaves_in_the_middle(self):
        def ask(floor):
            with floor.connect() as peer:
                peer.sendall(REQUEST)
                self.assertEqual(receive(peer, len(floor.answer)), floor.answer)
                peer.shutdown(socket.SHUT_WR)
                self.assertEqual(receive(peer, 1), b"")

        for flags in ((), ("--pages",), ("--ring",)):
            with Floor(20 << 20, *flags) as floor:
                ask(floor)
                before = floor.descriptors()
                with floor.connect() as peer:
                    peer.sendall(REQUEST)
                    peer.recv(1)
                    # What is sent after the end of the stream is an EPIPE.
                    peer.shutdown(socket.SHUT_WR)
                ask(floor)
                self.assertEqual(floor.descriptors(), before, flags)

    def test_every_worker_serves(self):
        with Floor(10, "--workers=3") as floor:
            for _ in range(50):
                with floor.connect() as peer:
                    peer.sendall(REQUEST)
                    self.assertEqual(receive(peer, len(floor.answer)), floor.answer)


if __name__ == "__main__":
    unittest.main()
