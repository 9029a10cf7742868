# SPDX-License-Identifier: Apache-2.0
"""The machine as the benchmark needs it: network, cores, disk, and what it is."""

import contextlib
import ctypes
import fcntl
import os
import platform
import resource
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

CONGESTION_CONTROL = "reno"
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs")

_libc = ctypes.CDLL(None, use_errno=True)


class Unable(Exception):
    """The benchmark cannot run here; the text says why."""


def _write(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def read(path):
    """Returns the stripped text of a file, or '' if there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def enter_network():
    """Moves this process, and thereby its children, to a network of its own.

    It has the loopback device alone, and ends with its last process. Client and
    servers there use the same congestion control, whatever the host prefers.
    """
    uid, gid = os.getuid(), os.getgid()
    if _libc.unshare(_CLONE_NEWNET) != 0:
        # Anybody may make one in a user namespace, where that is allowed.
        if _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
            error = os.strerror(ctypes.get_errno())
            raise Unable(f"cannot make a network namespace ({error}); run as root")
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {uid} 1")
        _write("/proc/self/gid_map", f"0 {gid} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        request = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request)
        flags = struct.unpack("16sh14x", request)[1]
        request = struct.pack("16sh14x", b"lo", flags | _IFF_UP)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)
    sysctl = "/proc/sys/net/ipv4/"
    _write(sysctl + "tcp_congestion_control", CONGESTION_CONTROL)
    # No server inherits the thresholds that another one's connections found:
    # all of them have the same client's address.
    _write(sysctl + "tcp_no_metrics_save", "1")
    in_use = read(sysctl + "tcp_congestion_control")
    if in_use != CONGESTION_CONTROL:
        raise Unable(f"congestion control is {in_use}, not {CONGESTION_CONTROL}")


def raise_file_limit():
    """Raises the limit of open files as far as allowed, and returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def cores():
    """Returns the cores that this process may use; at least two."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise Unable("two cores are needed: one for the server, one for the client")
    return allowed


def program(name):
    """Returns the path of an installed program; None if there is none."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")


def start(command, cores_of_it, **options):
    """Starts a process on some cores; it ends with this one, however that ends.

    It leads a process group of its own: a server that is told to end may tell its
    whole group (lighttpd with several workers does), and that would be us."""
    parent = os.getpid()

    def prepare():
        os.setpgid(0, 0)
        os.sched_setaffinity(0, cores_of_it)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return subprocess.Popen(command, preexec_fn=prepare, **options)


def descendants(pid):
    """Returns the process and all that it started, in that order."""
    pids = [pid]
    for one in pids:
        try:
            tasks = os.listdir(f"/proc/{one}/task")
        except OSError:
            continue
        for task in tasks:
            children = read(f"/proc/{one}/task/{task}/children")
            pids += [int(child) for child in children.split()]
    return pids


def end(process):
    """Ends a process of ours and what it started; waits until they are gone."""
    if process.poll() is not None:
        return
    pids = descendants(process.pid)[1:]
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in pids:
        _await_end(pid)


def _await_end(pid):
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        deadline = time.monotonic() + 2
        while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    finally:
        os.close(fd)


def file_system(path):
    """Returns the type of the file system on which a path lies."""
    best, kind = "", ""
    for line in read("/proc/self/mounts").splitlines():
        _, mount, this_kind = line.split()[:3]
        mount = mount.replace("\\040", " ")
        inside = path == mount or path.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, this_kind
    return kind


@contextlib.contextmanager
def work_folder(root):
    """A folder for files and logs, on a disk if there is one; gone afterwards."""
    candidates = [os.environ.get("TMPDIR"), "/var/tmp", "/tmp", root]
    usable = [c for c in candidates if c and os.access(c, os.W_OK)]
    if not usable:
        raise Unable("no folder to write to; set TMPDIR")
    on_disk = [
        c for c in usable
        if file_system(os.path.realpath(c)) not in _MEMORY_FILE_SYSTEMS
    ]
    path = tempfile.mkdtemp(prefix="kevent-bench.", dir=(on_disk or usable)[0])
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class DiskThrottle:
    """Limits what processes read from the disk of a folder (blkio of cgroup v1).

    Where that is not to be had it does nothing, and `limit` is None.
    """

    _ROOT = "/sys/fs/cgroup/blkio"

    def __init__(self, folder, bytes_per_second):
        self.limit = None
        self.why_not = ""
        self._path = os.path.join(self._ROOT, f"kevent-bench.{os.getpid()}")
        if not bytes_per_second:
            self.why_not = "not asked for"
            return
        try:
            device = self._disk(os.stat(folder).st_dev)
            os.mkdir(self._path)
            _write(
                os.path.join(self._path, "blkio.throttle.read_bps_device"),
                f"{device} {bytes_per_second}")
            self.limit = bytes_per_second
        except OSError as error:
            self.why_not = f"no blkio control group of version 1: {error}"
            self.close()

    @staticmethod
    def _disk(device):
        number = f"{os.major(device)}:{os.minor(device)}"
        sysfs = os.path.realpath(f"/sys/dev/block/{number}")
        if os.path.exists(os.path.join(sysfs, "partition")):
            # Only whole disks can be throttled.
            number = read(os.path.join(os.path.dirname(sysfs), "dev"))
        return number

    def add(self, pids):
        """Throttles these processes."""
        if self.limit is None:
            return
        for pid in pids:
            _write(os.path.join(self._path, "cgroup.procs"), str(pid))

    def close(self):
        """Removes the group; its processes must have ended."""
        with contextlib.suppress(OSError):
            os.rmdir(self._path)


def _output(command, **options):
    try:
        result = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False, **options)
    except OSError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def _first_line(text):
    return text.partition("\n")[0]


def description(root):
    """Returns what a reader of the results has to know of machine and versions."""
    model = ""
    for line in read("/proc/cpuinfo").splitlines():
        if line.startswith(("model name", "Hardware")):
            model = line.split(":", 1)[1].strip()
            break
    release = ""
    for line in read("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            release = line.split("=", 1)[1].strip('"')
    git = ["git", "-C", root]
    commit = _output(git + ["rev-parse", "HEAD"])
    if commit and _output(git + ["status", "--porcelain"]):
        commit += " with changes"
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": model,
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "hypervisor": "hypervisor" in read("/proc/cpuinfo").split(),
        "memory_mb": PAGE_BYTES * os.sysconf("SC_PHYS_PAGES") // 10**6,
        "kernel": platform.release(),
        "os": release,
        "congestion_control": CONGESTION_CONTROL,
        "kevent": commit,
        "nginx": _output([program("nginx") or "nginx", "-v"]).replace(
            "nginx version: ", ""),
        "h2o": _first_line(_output(["h2o", "-v"])).replace("h2o version ", ""),
        "lighttpd": _first_line(
            _output([program("lighttpd") or "lighttpd", "-v"])).partition(" ")[0],
        "python": platform.python_version(),
        "load_average_at_start": os.getloadavg()[0],
    }
