# SPDX-License-Identifier: Apache-2.0
"""The test bed: puts a guest together, runs a command in it, judges the run."""

import dataclasses
import os
import pathlib
import posixpath
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

import console
import initramfs
import kernels
import machine
from kernels import Error

# Statuses of the bed itself; those below are the command's.
KERNEL_FAULT = 70
TIMED_OUT = 124
BED_FAULT = 125

# In the guest's PATH if they are on the host, with more that they need.
PROGRAMS = {
    "curl": (),
    "dmsetup": (),
    "nginx": ("/etc/nginx/mime.types",),
    "wrk": (),
}

_HERE = pathlib.Path(__file__).resolve().parent

_DRIVERS = ("virtio_mmio", "virtio_pci", "virtio_blk", "virtio_console")
_FILE_SYSTEMS = ("crc32c_generic", "ext4", "dm_mod", "loop", "tls")

_PASSWD = """\
root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/var/www:/bin/sh
user:x:1000:1000:user:/user:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/sh
"""
_GROUP = """\
root:x:0:
tty:x:5:
www-data:x:33:
kevent:x:900:user
user:x:1000:
nogroup:x:65534:
"""


@dataclasses.dataclass
class Options:
    """What a run is to be. Paths are the host's unless it says otherwise."""

    kernel: pathlib.Path  # the folder of the kernel
    module: str | None = None
    command: str | None = None  # shell text; None: a shell on the console
    programs: dict = dataclasses.field(default_factory=dict)  # name: program
    adds: list = dataclasses.field(default_factory=list)  # (source, place in the guest)
    get: list = dataclasses.field(default_factory=list)  # paths in the guest
    get_to: str | None = None  # where they go: an archive
    cpus: int = 2
    memory_mib: int = 2048
    timeout: float | None = None
    icount: bool = False
    kmemleak: bool = False
    verbose: bool = False
    disks: bool = True
    disk_mib: int = 512
    disk_rate_mib: int | None = None  # a second; None: no limit
    append: str = ""


def missing_programs(command, programs):
    """Returns the programs that a command names and that the guest will not have."""
    words = set(re.findall(r"[\w.-]+", command or ""))
    known = set(PROGRAMS) | {"keventd", "kevctl"}
    return sorted((words & known) - set(programs))


def host_programs():
    """Returns {name: path} of those PROGRAMS that this machine has."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    found = {name: shutil.which(name, path=path) for name in PROGRAMS}
    return {name: program for name, program in found.items() if program}


def _busybox():
    for program in ("/usr/bin/busybox", "/bin/busybox"):
        if os.access(program, os.X_OK):
            return program
    raise Error("busybox is missing: ./kev setup vm")


def _root(options, modules):
    """Returns the guest's root file system without what --add puts on the disks."""
    root = initramfs.Initramfs()
    for name in ("dev", "proc", "sys", "tmp", "run", "root", "mnt", "var/tmp",
                 "etc", "vm/bin"):
        root.folder("/" + name)
    root.text("/init", (_HERE / "guest/init").read_text(encoding="utf-8"), 0o755)
    root.text("/etc/passwd", _PASSWD)
    root.text("/etc/group", _GROUP)
    root.text("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
    root.text("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")
    # For programs that look a service up whatever the port.
    root.text("/etc/services", "http 80/tcp\nhttps 443/tcp\n")
    for name, program in options.programs.items():
        root.file(program, "/vm/bin/" + name)
        for extra in PROGRAMS.get(name, ()):
            if os.path.exists(extra):
                root.file(extra, extra)
    for source, place in options.adds:
        if not _disk_of(place):
            root.add(source, place)
    root.busybox(_busybox())
    if options.module:
        root.file(options.module, "/vm/kevent.ko")
    for path in modules:
        # Their names in the guest are the same, whatever they are packed with.
        root.file(path, _place_of(path))
    config = {
        "VM_MODULES": " ".join(_place_of(path) for path in modules),
        "VM_MODULE": "1" if options.module else "",
        "VM_DISKS": "1" if options.disks else "",
        "VM_DM": "1" if options.disks and "dmsetup" in options.programs else "",
        "VM_GET": " ".join(path.lstrip("/") for path in options.get),
        "VM_KMEMLEAK": "1" if options.kmemleak else "",
        "VM_INTERACTIVE": "" if options.command is not None else "1",
    }
    root.text("/vm/config", "".join(f"{k}={shlex.quote(v)}\n" for k, v in config.items()))
    root.text("/vm/command", (options.command or "") + "\n")
    return root


def _place_of(path):
    return "/vm/modules/" + re.sub(r"\.ko\.\w+$", ".ko", path.name)


def _kernel_modules(folder):
    found = sorted((folder / "lib/modules").glob("*/modules.dep"))
    if len(found) != 1:
        raise Error(f"{folder}: not a kernel's folder; remove it and run ./kev setup vm")
    base = found[0].parent
    builtin = (base / "modules.builtin").read_text(encoding="ascii")
    order = initramfs.resolve(_DRIVERS + _FILE_SYSTEMS,
                              found[0].read_text(encoding="ascii"), builtin)
    return [base / path for path in order]


def _disk_of(place):
    """The disk on which a path of the guest lies: "disk", "dm" or None."""
    first = posixpath.normpath(place).lstrip("/").partition("/")[0]
    return first if first in ("disk", "dm") else None


def _make_disk(image, mib, contents):
    """Makes an image of ext4 with the contents of a folder."""
    with open(image, "wb") as file:
        file.truncate(mib << 20)
    result = subprocess.run(
        ["/sbin/mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,root_owner=0:0",
         "-d", str(contents), str(image)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode != 0:
        raise Error(f"mkfs.ext4 failed; --disk sets the disk's size:\n{result.stdout}")


def _make_disks(options, scratch):
    sizes = {"disk": options.disk_mib, "dm": 64}
    images = {}
    for name, mib in sizes.items():
        contents = scratch / (name + ".d")
        contents.mkdir()
        for source, place in options.adds:
            if _disk_of(place) == name:
                target = contents / posixpath.relpath("/" + place.lstrip("/"), "/" + name)
                if os.path.isdir(source):
                    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(source, target)
        images[name] = str(scratch / (name + ".img"))
        _make_disk(images[name], mib, contents)
        shutil.rmtree(contents)
    return images


_BOOTS = 3


def _told_clock():
    """Returns kernel parameters that spare the guest the measuring of its clock.

    Its counter is the host's, of about this frequency; the guest's time may run a
    little fast or slow.
    """
    text = pathlib.Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    match = re.search(r"^cpu MHz\s*: (\d+)", text, re.MULTILINE)
    return f"tsc_early_khz={int(match[1]) * 1000}" if match else ""


def run(options, console_sink, out, err, on_line=None):
    """Runs the options' command in a guest and returns machine.Outcome."""
    with tempfile.TemporaryDirectory(prefix="kevent-vm-") as scratch:
        scratch = pathlib.Path(scratch)
        initrd = scratch / "initrd"
        _root(options, _kernel_modules(options.kernel)).write(initrd)
        hardware = machine.Hardware(
            kernel=str(options.kernel / "vmlinuz"), initrd=str(initrd),
            disks=_make_disks(options, scratch) if options.disks else {},
            cpus=1 if options.icount else options.cpus, memory_mib=options.memory_mib,
            disk_rate_mib=options.disk_rate_mib, icount=options.icount,
            verbose=options.verbose, append=options.append)
        # On a busy machine the guest may fail to measure its clock, and hang.
        for attempt in range(_BOOTS):
            with open(options.get_to or os.devnull, "wb") as files:
                outcome = machine.Run(
                    hardware, options.timeout, console_sink, out, err, files, on_line,
                    interactive=options.command is None).run()
            if not outcome.boot_hung or attempt == _BOOTS - 1:
                break
            announce("the guest does not boot; once more")
            hardware = dataclasses.replace(
                hardware, append=f"{hardware.append} {_told_clock()}".strip())
        return outcome


def judge(outcome, findings, timeout):
    """Returns (exit status, text for the user) of a run and what its console shows."""
    text = []
    status = outcome.status
    if outcome.timed_out:
        if outcome.boot_hung:
            text.append("the guest did not boot")
        else:
            text.append(f"the guest did not end within {timeout:g} seconds")
        status = BED_FAULT if outcome.boot_hung else TIMED_OUT
    elif outcome.status is None or not outcome.regular:
        text.append("the guest died" if outcome.started else "the guest did not start")
        status = KERNEL_FAULT if outcome.started or findings else BED_FAULT
    if outcome.missing:
        text += [f"--get: /{path} is not there" for path in outcome.missing]
        status = status or 1
    if outcome.complaints:
        text += outcome.complaints
        status = KERNEL_FAULT if outcome.status is not None else status
    if findings:
        status = KERNEL_FAULT
        for finding in findings:
            where = f" in {finding.test}" if finding.test else ""
            text.append(f"the kernel reported{where}:\n{finding}")
    return status, "\n".join(text)


def announce(text):
    for line in text.split("\n") if text else []:
        print(f"vm: {line}", file=sys.stderr, flush=True)


def findings_of(outcome):
    return console.scan(outcome.console)
