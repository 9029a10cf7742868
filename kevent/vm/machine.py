# SPDX-License-Identifier: Apache-2.0
"""Runs QEMU: starts it, moves its streams, watches the time, ends it."""

import contextlib
import dataclasses
import os
import selectors
import socket
import subprocess
import termios
import time
import tty

from kernels import Error

# What isa-debug-exit makes of the codes of guest/init: (code << 1) | 1.
_REGULAR_END = 3

# Ends a machine whose shell hangs, from the terminal: Ctrl-].
_ESCAPE = b"\x1d"

PORTS = ("control", "out", "err", "files")


@dataclasses.dataclass
class Hardware:
    """What the guest runs on."""

    kernel: str
    initrd: str
    disks: dict = dataclasses.field(default_factory=dict)  # serial: image
    cpus: int = 2
    memory_mib: int = 2048
    disk_rate_mib: int | None = None  # that each reads in a second at most
    # One processor whose clock counts instructions: two runs are the same run.
    icount: bool = False
    verbose: bool = False
    append: str = ""


def command(hardware, descriptors):
    """Returns the command line of QEMU; `descriptors` are its ends of the streams."""
    cpu, accelerator = "max", "tcg,thread=multi"
    append = [
        "console=ttyS0", "printk.time=1", "panic=-1", "oops=panic", "mitigations=off",
        # The guest's processors may have to wait for the host's.
        "no_timer_check", "tsc=reliable",
        "rcupdate.rcu_cpu_stall_timeout=60", "watchdog_thresh=30",
        "loglevel=7" if hardware.verbose else "loglevel=5",
        # A cache that shares its slabs with others does not miss its objects.
        "slab_nomerge",
    ]
    extra = []
    if hardware.icount:
        # String instructions count by the byte, and random numbers differ.
        cpu, accelerator = "max,-rdrand,-rdseed,-erms,-fsrm", "tcg"
        append += ["nokaslr", "norandmaps", "random.trust_cpu=off",
                   "tsc_early_khz=1000000", "lpj=4000000"]
        extra += ["-icount", "shift=0,sleep=off", "-rtc", "base=2026-01-01,clock=vm",
                  "-seed", "1"]
    else:
        # The module's own caches notice writes to freed and past the end of objects.
        append += ["slub_debug=FZPU,kevent*"]
    result = [
        # It ends with us, however we end.
        "setpriv", "--pdeathsig", "KILL",
        "qemu-system-x86_64", "-M", "microvm,rtc=on,pic=on,pit=on",
        "-accel", accelerator, "-cpu", cpu, "-smp", str(hardware.cpus),
        "-m", str(hardware.memory_mib), "-nodefaults", "-no-user-config",
        "-display", "none", "-no-reboot", *extra,
        "-kernel", hardware.kernel, "-initrd", hardware.initrd,
        "-append", " ".join(append + [hardware.append]).strip(),
        "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04",
        "-chardev", f"socket,id=console,fd={descriptors['console']}",
        "-serial", "chardev:console",
        "-device", "virtio-serial-device",
    ]
    for number, name in enumerate(PORTS, 1):
        result += ["-chardev", f"socket,id={name},fd={descriptors[name]}", "-device",
                   f"virtserialport,chardev={name},name={name},nr={number}"]
    limit = ""
    if hardware.disk_rate_mib:
        limit = f",throttling.bps-read={hardware.disk_rate_mib << 20}"
    for serial, image in hardware.disks.items():
        if "," in image:
            raise Error(f"{image}: QEMU takes no comma in a path")
        result += ["-drive", f"file={image},format=raw,if=none,id={serial},cache=unsafe"
                   + limit,
                   "-device", f"virtio-blk-device,drive={serial},serial={serial}"]
    return result


@dataclasses.dataclass
class Outcome:
    """How a run ended."""

    status: int | None = None  # the command's; None: it did not end
    timed_out: bool = False
    regular: bool = False  # the guest's init came to its end
    started: bool = False  # the command was begun
    boot_hung: bool = False  # it was not, for too long
    complaints: list = dataclasses.field(default_factory=list)
    missing: list = dataclasses.field(default_factory=list)  # of what --get names
    console: str = ""
    seconds: float = 0.0

    def note(self, line):
        """Takes one line of the control port; returns whether it is known."""
        word, _, rest = line.partition(" ")
        if word == "started":
            self.started = True
        elif word == "status":
            self.status = int(rest)
        elif word in ("wrong", "stuck"):
            self.complaints.append(rest)
        elif word == "missing":
            self.missing.append(rest)
        else:
            return False
        return True


@contextlib.contextmanager
def _raw_terminal(wanted):
    if not wanted:
        yield
        return
    saved = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, saved)


_BOOT_SECONDS = 120
# Ten times what it takes, and twice what the debug kernel takes.


class Run:
    """One run of a machine. Sinks are functions that take bytes.

    Args:
      console, out, err: sinks of those streams.
      files: a binary file for the archive of the guest's files.
      on_line: takes the lines of the control port that Outcome does not know.
      interactive: connects the terminal to the console.
    """

    def __init__(self, hardware, timeout, console, out, err, files, on_line=None,
                 interactive=False):
        self._hardware = hardware
        self._timeout = timeout
        self._sinks = {"console": self._take_console, "out": out, "err": err,
                       "files": files.write, "control": self._take_control}
        self._console_sink = console
        self._on_line = on_line
        self._interactive = interactive
        self._console = bytearray()
        self._control = b""
        self._outcome = Outcome()

    def _take_console(self, data):
        self._console += data
        self._console_sink(data)

    def _take_control(self, data):
        *lines, self._control = (self._control + data).split(b"\n")
        for line in lines:
            line = line.decode("utf-8", "replace")
            if not self._outcome.note(line) and self._on_line:
                self._on_line(line)

    def _start(self, selector):
        ends = {}
        for name in ("console", *PORTS):
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            # So that the guest need not wait for us.
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
            selector.register(ours, selectors.EVENT_READ, name)
            ends[name] = theirs
        arguments = command(self._hardware, {n: s.fileno() for n, s in ends.items()})
        try:
            # In a group of its own: ^C is for us, and we end it.
            process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True,
                pass_fds=[end.fileno() for end in ends.values()])
        except FileNotFoundError:
            raise Error("qemu-system-x86_64 is missing: ./kev setup vm") from None
        finally:
            for end in ends.values():
                end.close()
        return process

    def run(self):
        start = time.monotonic()
        selector = selectors.DefaultSelector()
        process = self._start(selector)
        try:
            with _raw_terminal(self._interactive):
                self._pump(selector, start)
        finally:
            if process.poll() is None:
                # All streams are at their end: it is about to go, or must.
                try:
                    process.wait(0 if self._outcome.timed_out else 10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            for key in list(selector.get_map().values()):
                if isinstance(key.fileobj, socket.socket):
                    key.fileobj.close()
            selector.close()
        outcome = self._outcome
        outcome.regular = process.returncode == _REGULAR_END
        outcome.console = self._console.decode("utf-8", "replace")
        outcome.seconds = time.monotonic() - start
        return outcome

    def _pump(self, selector, start):
        streams = len(selector.get_map())
        console = next(key.fileobj for key in selector.get_map().values()
                       if key.data == "console")
        if self._interactive:
            selector.register(0, selectors.EVENT_READ, "terminal")
        while streams:
            wait = None
            if self._timeout:
                wait = start + self._timeout - time.monotonic()
                if wait <= 0:
                    self._outcome.timed_out = True
                    return
            if not self._outcome.started and not self._interactive:
                boot = start + _BOOT_SECONDS - time.monotonic()
                if boot <= 0:
                    self._outcome.timed_out = self._outcome.boot_hung = True
                    return
                wait = boot if wait is None else min(wait, boot)
            for key, _ in selector.select(wait):
                if key.data == "terminal":
                    data = os.read(0, 4096)
                    if _ESCAPE in data:
                        self._outcome.complaints.append("ended from the terminal")
                        return
                    if data:
                        console.sendall(data)
                    else:
                        selector.unregister(0)
                    continue
                try:
                    data = key.fileobj.recv(1 << 18)
                except BlockingIOError:
                    continue
                except ConnectionResetError:
                    data = b""
                if data:
                    self._sinks[key.data](data)
                else:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
                    streams -= 1
