# SPDX-License-Identifier: Apache-2.0
"""The guest's root file system: a cpio archive in memory, from files of the host."""

import lzma
import os
import pathlib
import posixpath
import re
import stat
import subprocess

from kernels import Error

# What Debian has beside /usr, so that the libraries' own paths hold.
_MERGED = ("bin", "lib", "lib64", "sbin")

# busybox's programs that the guest's scripts and a user of its shell may want.
_BUSYBOX_EXCLUDED = {"busybox", "curl", "dmsetup", "init", "nginx"}


class Initramfs:
    """Files, folders and links by their place in the guest; parents come by themselves.

    Everything belongs to root. Times are zero and the order is that of the names,
    so that the same contents give the same bytes.
    """

    def __init__(self):
        self._entries = {}
        self.folder("/usr")
        for name in _MERGED:
            self.folder("/usr/" + name)
            self._put("/" + name, stat.S_IFLNK | 0o777, ("usr/" + name).encode())

    def _put(self, path, mode, content):
        path = self._place(path)
        parent = posixpath.dirname(path)
        if parent and parent not in self._entries:
            self._put(parent, stat.S_IFDIR | 0o755, b"")
        self._entries[path] = (mode, content)

    @staticmethod
    def _place(path):
        """Where a path of the guest lies in the archive: below /usr if it is merged."""
        path = posixpath.normpath(path.lstrip("/"))
        if path.startswith(".."):
            raise Error(f"{path}: not a path below / of the guest")
        first, slash, rest = path.partition("/")
        return f"usr/{first}/{rest}" if slash and first in _MERGED else path

    def __contains__(self, path):
        return self._place(path) in self._entries

    def folder(self, path, mode=0o755):
        if path not in self:
            self._put(path, stat.S_IFDIR | mode, b"")

    def text(self, path, text, mode=0o644):
        self._put(path, stat.S_IFREG | mode, text.encode())

    def link(self, path, target):
        self._put(path, stat.S_IFLNK | 0o777, target.encode())

    def file(self, source, path):
        """A file of the host; one that is executable brings its shared libraries."""
        source = pathlib.Path(source)
        mode = stat.S_IMODE(source.stat().st_mode)
        content = source.read_bytes()
        if source.suffix == ".xz" and path.endswith(".ko"):
            content = lzma.decompress(content)
        self._put(path, stat.S_IFREG | (0o755 if mode & 0o100 else 0o644), content)
        if mode & 0o100 and content.startswith(b"\x7fELF"):
            for library in shared_libraries(source):
                if library not in self:
                    self._put(library, stat.S_IFREG | 0o755, pathlib.Path(library).read_bytes())

    def add(self, source, path):
        """A file or a whole folder of the host."""
        source = pathlib.Path(source)
        if not source.is_dir():
            self.file(source, path)
            return
        self.folder(path)
        for folder, folders, files in os.walk(source):
            below = posixpath.join(path, os.path.relpath(folder, source))
            for name in folders + files:
                item = os.path.join(folder, name)
                if os.path.islink(item):
                    self.link(posixpath.join(below, name), os.readlink(item))
                elif os.path.isdir(item):
                    self.folder(posixpath.join(below, name))
                else:
                    self.file(item, posixpath.join(below, name))

    def busybox(self, program):
        """busybox under every name that no other program of the guest has."""
        self.file(program, "/bin/busybox")
        names = subprocess.run([program, "--list-full"], stdout=subprocess.PIPE,
                               text=True, check=True).stdout.split()
        for name in names:
            name = "/" + name
            if posixpath.basename(name) not in _BUSYBOX_EXCLUDED and name not in self:
                self.link(name, "/bin/busybox")

    def write(self, path):
        """Writes the archive in the kernel's "newc" format."""
        with open(path, "wb") as file:
            entries = sorted(self._entries.items())
            for number, (name, (mode, content)) in enumerate(entries, 1):
                _write_entry(file, number, name, mode, content)
            _write_entry(file, 0, "TRAILER!!!", 0, b"")


def _write_entry(file, number, name, mode, content):
    name = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (number, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    for part in (head, content):
        file.write(part)
        file.write(b"\0" * (-len(part) % 4))


def shared_libraries(program):
    """Returns the paths of the libraries and the loader that ldd(1) names."""
    result = subprocess.run(["ldd", str(program)], stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, text=True, check=False)
    missing = re.findall(r"^\s*(\S+) => not found", result.stdout, re.MULTILINE)
    if missing:
        raise Error(f"{program}: libraries are missing on this machine: {', '.join(missing)}")
    return sorted(set(re.findall(r"(/\S+) \(0x", result.stdout)))


# ---- Modules of the kernel ----


def _name(path):
    """The name a module goes by, of a path or of another spelling."""
    return re.sub(r"\.ko(\.\w+)?$", "", posixpath.basename(path)).replace("-", "_")


def resolve(wanted, dep, builtin):
    """Returns the paths of the wanted modules and all they need, in loading order.

    `dep` and `builtin` are the texts of modules.dep and modules.builtin. What is
    built in needs no loading; a module that the kernel has not is left out.
    """
    paths, needs = {}, {}
    for line in dep.splitlines():
        path, _, rest = line.partition(":")
        paths[_name(path)] = path
        # modules.dep names all of them, the one to be loaded first last.
        needs[_name(path)] = [_name(need) for need in reversed(rest.split())]
    built_in = {_name(line) for line in builtin.splitlines()}
    order = []
    for name in map(_name, wanted):
        for need in needs.get(name, []) + [name]:
            if need in paths and need not in built_in and paths[need] not in order:
                order.append(paths[need])
    return order
