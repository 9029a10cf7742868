# SPDX-License-Identifier: Apache-2.0
"""The servers that are compared, each as one worker on one core."""

import collections
import http.client
import os
import re
import select
import socket
import subprocess
import tempfile
import time
import urllib.request

from macro import machine

_START_SECONDS = 10


class Server:
    """A running server. `name` and `engine` are those of the results' cells."""

    def __init__(self, name, engine, folder):
        self.name = name
        self.engine = engine
        self.port = 0
        self.process = None
        self._run = tempfile.mkdtemp(prefix=f"{name}-{engine}.", dir=folder)

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

    def restart(self):
        """Ends it and starts it anew, maybe at another port."""
        self.stop()
        self.start()

    def check(self, root, names):
        """Raises Unable unless it serves these files of a folder byte for byte."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        for name in names:
            connection.request("GET", "/" + name)
            response = connection.getresponse()
            with open(os.path.join(root, name), "rb") as file:
                same = response.read() == file.read()
            if response.status != 200 or not same:
                raise machine.Unable(
                    f"{self} does not serve {name} as it is "
                    f"(status {response.status})")
        connection.close()

    def _start_and_match(self, command, cores, pattern):
        """Starts a program of ours that prints one line when it listens."""
        with open(os.path.join(self._run, "error.log"), "wb") as log:
            self.process = machine.start(
                command, cores, stdout=subprocess.PIPE, stderr=log)
        ready, _, _ = select.select([self.process.stdout], [], [], _START_SECONDS)
        line = self.process.stdout.readline().decode() if ready else ""
        match = re.match(pattern, line)
        if not match:
            raise machine.Unable(f"{self} does not start: {line.strip() or self._log()}")
        return match

    def _log(self):
        text = machine.read(os.path.join(self._run, "error.log"))
        return text[-2000:] or "it said nothing"


class Configured(Server):
    """A server that takes a file of conf/; http_bench.py fills in its words."""

    _PROGRAM = ""
    _PACKAGE = ""

    def __init__(self, name, engine, folder, conf, root, cores, **words):
        super().__init__(name, engine, folder)
        self.port = words["PORT"]
        self._conf = conf
        self._cores = cores
        self._words = {"RUN": self._run, "ROOT": root, **words}

    def start(self):
        """Starts it; returns when it accepts connections."""
        path = os.path.join(self._run, os.path.basename(self._conf))
        with open(path, "w", encoding="utf-8") as file:
            file.write(self.configuration())
        program = machine.program(self._PROGRAM)
        if not program:
            raise machine.Unable(
                f"{self._PACKAGE} is not installed; run ./kev setup bench")
        log = os.path.join(self._run, "error.log")
        with open(log, "ab") as output:
            self.process = machine.start(
                [program, *self._arguments(path, log)], self._cores, stdout=output,
                stderr=output)
        deadline = time.monotonic() + _START_SECONDS
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise machine.Unable(f"{self} does not start: {self._log()}")
            time.sleep(0.01)

    def configuration(self):
        """Returns the text of its configuration."""
        with open(self._conf, encoding="utf-8") as file:
            text = file.read()
        for word, value in self._words.items():
            text = text.replace(f"@{word}@", str(value))
        return text

    def _arguments(self, path, log):
        raise NotImplementedError

    def _ready(self):
        """Whether its workers accept connections; may be asked before it is."""
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False


class Nginx(Configured):
    """nginx with one of its configurations in conf/."""

    _PROGRAM = "nginx"
    _PACKAGE = "nginx-light"

    def __init__(self, folder, conf, root, cores, name="nginx", count_workers=False,
                 **words):
        conf_name = os.path.splitext(os.path.basename(conf))[0]
        # A worker of several may not wander; one is where http_bench.py puts it.
        words["AFFINITY"] = (
            "worker_cpu_affinity auto;" if words["WORKERS"] > 1 else "")
        super().__init__(
            name, conf_name.removeprefix("nginx-"), folder, conf, root, cores, **words)
        self._workers_log = os.path.join(self._run, "workers.log")
        self._words["ACCESS_LOG"] = (
            f"{self._workers_log} worker" if count_workers else "off")

    def _arguments(self, path, log):
        return ["-e", log, "-p", self._run, "-c", path, "-g", "daemon off;"]

    def _ready(self):
        # The master listens before its workers are there.
        return len(self.pids()) > self._words["WORKERS"]

    def of_workers(self):
        """Returns (connections accepted, requests) so far of each worker; it must
        count them."""
        connections = {pid: set() for pid in self.pids()[1:]}
        requests = collections.Counter()
        for line in machine.read(self._workers_log).splitlines():
            pid, connection = map(int, line.split())
            connections[pid].add(connection)
            requests[pid] += 1
        return [(len(ids), requests[pid]) for pid, ids in connections.items()]


class H2o(Configured):
    """h2o, which has no sendfile."""

    _PROGRAM = "h2o"
    _PACKAGE = "h2o"

    def __init__(self, folder, conf, root, cores, **words):
        super().__init__("h2o", "epoll", folder, conf, root, cores, **words)

    def _arguments(self, path, log):
        return ["-c", path]


class Lighttpd(Configured):
    """lighttpd."""

    _PROGRAM = "lighttpd"
    _PACKAGE = "lighttpd"

    def __init__(self, folder, conf, root, cores, **words):
        workers = words["WORKERS"]
        words |= {
            # 0: the process serves by itself; else it watches so many others.
            "WORKERS": 0 if workers == 1 else workers,
            # It wants two descriptors for each connection.
            "CONNECTIONS": min(words["CONNECTIONS"], words["NOFILE"] // 2),
        }
        super().__init__("lighttpd", "epoll", folder, conf, root, cores, **words)

    def _arguments(self, path, log):
        return ["-D", "-f", path]


class Keventd(Server):
    """keventd with one of its engines.

    admin_port: of the HTTP listener of its admin service; without one it has no
    admin service at all.
    """

    def __init__(self, folder, program, conf, engine, root, cores, workers=1,
                 admin_port=None):
        super().__init__("keventd", engine, folder)
        self._program = program
        self._conf = conf
        self._root = root
        self._cores = cores
        self._workers = workers
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
        command = [
            self._program, f"--config={self._conf}", f"--root={self._root}",
            "--listen=127.0.0.1:0",
            f"--engine={self.engine}", f"--workers={self._workers}",
            *self._admin_flags()
        ]
        match = self._start_and_match(
            command, self._cores,
            r"listening on http://127\.0\.0\.1:(\d+) \(engine (\w+), (\d+) worker")
        if match.group(2) != self.engine:
            raise machine.Unable(f"{self} runs on engine {match.group(2)}")
        if match.group(3) != str(self._workers):
            raise machine.Unable(f"{self} runs {match.group(3)} workers")
        self.port = int(match.group(1))

    def of_workers(self):
        """Returns (connections accepted, requests) so far of each worker; it must
        have an admin port."""
        url = f"http://127.0.0.1:{self.admin_port}/metrics"
        with urllib.request.urlopen(url, timeout=30) as response:
            text = response.read().decode()

        def values(name, labels=""):
            found = re.findall(
                rf'^{name}{{worker="(\d+)"{labels}}} (\d+)', text, re.M)
            return {int(worker): int(value) for worker, value in found}

        accepted = values("kevent_http_connections_accepted_total")
        requests = values("kevent_http_responses_total", ',class="2xx"')
        return [(accepted[n], requests[n]) for n in range(self._workers)]

    def head_of(self, path, keepalive):
        """Returns the head of its answer for a file beneath the root."""
        with socket.create_connection(("127.0.0.1", self.port), 30) as peer:
            close = "" if keepalive else "Connection: close\r\n"
            peer.sendall(
                f"GET /{path} HTTP/1.1\r\nHost: x\r\n{close}\r\n".encode("ascii"))
            answer = b""
            while b"\r\n\r\n" not in answer:
                part = peer.recv(4096)
                if not part:
                    raise machine.Unable(f"{self} does not answer")
                answer += part
        return answer[:answer.index(b"\r\n\r\n") + 4]


class Floor(Server):
    """A server that only moves bytes (load/floor.cc): one answer, for all requests.

    kind: "" for the plain one; "pages": it sends the answer from memory without
    copying it; "ring": it uses io_uring.
    """

    def __init__(self, folder, program, cores, head, path, keepalive, workers=1,
                 kind=""):
        super().__init__(
            f"floor-{kind}" if kind else "floor", "uring" if kind == "ring" else "epoll",
            folder)
        self._cores = cores
        head_path = os.path.join(self._run, "head")
        with open(head_path, "wb") as file:
            file.write(head)
        self._command = [
            program, f"--head={head_path}", f"--body={path}",
            f"--close={'false' if keepalive else 'true'}", f"--workers={workers}",
            *([f"--{kind}"] if kind else []),
        ]

    def start(self):
        """Starts it; returns when it accepts connections."""
        match = self._start_and_match(
            self._command, self._cores, r"listening on http://127\.0\.0\.1:(\d+)")
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
