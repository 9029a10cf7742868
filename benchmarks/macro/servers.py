# SPDX-License-Identifier: Apache-2.0
"""The servers that are compared, each as one worker on one core."""

import http.client
import os
import re
import select
import shutil
import subprocess
import time

from macro import machine

_START_SECONDS = 10


class Server:
    """A running server. `name` and `engine` are those of the results' cells."""

    def __init__(self, name, engine, folder):
        self.name = name
        self.engine = engine
        self.port = 0
        self.process = None
        self._run = os.path.join(folder, f"{name}-{engine}")
        os.mkdir(self._run)

    def __str__(self):
        return f"{self.name}/{self.engine}"

    def pids(self):
        """Returns all processes of the server."""
        return machine.descendants(self.process.pid)

    def stop(self):
        """Ends it; waits until it is gone."""
        if self.process:
            machine.end(self.process)
            if self.process.stdout:
                self.process.stdout.close()

    def check(self, files):
        """Raises Unable unless it serves the files byte for byte."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        for path in files:
            connection.request("GET", "/" + os.path.basename(path))
            response = connection.getresponse()
            with open(path, "rb") as file:
                same = response.read() == file.read()
            if response.status != 200 or not same:
                raise machine.Unable(
                    f"{self} does not serve {os.path.basename(path)} as it is "
                    f"(status {response.status})")
        connection.close()

    def _log(self):
        text = machine.read(os.path.join(self._run, "error.log"))
        return text[-2000:] or "it said nothing"


class Nginx(Server):
    """nginx with one of the configurations in conf/."""

    def __init__(self, folder, conf, port, root, core, limit, name="nginx"):
        conf_name = os.path.splitext(os.path.basename(conf))[0]
        super().__init__(name, conf_name.removeprefix("nginx-"), folder)
        self.port = port
        self._conf = conf
        self._root = root
        self._core = core
        self._limit = limit

    def start(self):
        """Starts it; returns when it accepts connections."""
        with open(self._conf, encoding="utf-8") as file:
            text = file.read()
        values = {
            "RUN": self._run,
            "ROOT": self._root,
            "PORT": self.port,
            "NOFILE": self._limit,
            # Beside connections a worker needs descriptors for its cached files.
            "CONNECTIONS": min(16384, self._limit - 2000),
        }
        for word, value in values.items():
            text = text.replace(f"@{word}@", str(value))
        path = os.path.join(self._run, "nginx.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if not program:
            raise machine.Unable("nginx is not installed; run ./kev setup bench")
        log = os.path.join(self._run, "error.log")
        with open(log, "ab") as output:
            self.process = machine.start(
                [program, "-e", log, "-p", self._run, "-c", path, "-g", "daemon off;"],
                self._core, stdout=output, stderr=output)
        self._await_worker()

    def _await_worker(self):
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            # The master listens before its worker is there.
            if len(self.pids()) > 1:
                return
            time.sleep(0.01)
        raise machine.Unable(f"{self} does not start: {self._log()}")


class Keventd(Server):
    """keventd with one of its engines.

    admin_port: of the HTTP listener of its admin service; without one it has no
    admin service at all.
    """

    def __init__(self, folder, program, engine, root, core, admin_port=None):
        super().__init__(
            "keventd-admin" if admin_port else "keventd", engine, folder)
        self._program = program
        self._root = root
        self._core = core
        self.admin_port = admin_port
        self.admin_socket = os.path.join(self._run, "admin.sock")

    def _admin_flags(self):
        if not self.admin_port:
            return ["--admin=off"]
        return [
            f"--admin=unix:{self.admin_socket}",
            f"--admin_http=127.0.0.1:{self.admin_port}"
        ]

    def start(self):
        """Starts it; returns when it accepts connections."""
        with open(os.path.join(self._run, "error.log"), "wb") as log:
            self.process = machine.start(
                [
                    self._program, f"--root={self._root}", "--listen=127.0.0.1:0",
                    f"--engine={self.engine}", "--workers=1",
                    *self._admin_flags()
                ], self._core, stdout=subprocess.PIPE, stderr=log)
        ready, _, _ = select.select([self.process.stdout], [], [], _START_SECONDS)
        line = self.process.stdout.readline().decode() if ready else ""
        match = re.match(
            r"listening on http://127\.0\.0\.1:(\d+) \(engine (\w+), 1 worker", line)
        if not match:
            raise machine.Unable(f"{self} does not start: {line.strip() or self._log()}")
        if match.group(2) != self.engine:
            raise machine.Unable(f"{self} runs on engine {match.group(2)}")
        self.port = int(match.group(1))


class Group:
    """Servers that are stopped together."""

    def __init__(self):
        self._servers = []

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        for server in reversed(self._servers):
            server.stop()

    def start(self, server):
        """Starts one more, and returns it."""
        self._servers.append(server)
        server.start()
        return server
