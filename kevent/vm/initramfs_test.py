#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of initramfs.py."""

import os
import pathlib
import stat
import tempfile
import unittest

import initramfs
from kernels import Error


def read(data):
    """Returns {name: (mode, content)} of an archive, checking its form."""
    entries, numbers, position = {}, set(), 0
    while True:
        assert data[position:position + 6] == b"070701"
        fields = [int(data[position + 6 + 8 * i:position + 14 + 8 * i], 16) for i in range(13)]
        number, mode, uid, gid, _, _, size, *_, name_size, _ = fields
        name = data[position + 110:position + 110 + name_size]
        assert name.endswith(b"\0") and uid == gid == 0
        start = position + 110 + name_size
        start += -start % 4
        name = name[:-1].decode()
        if name == "TRAILER!!!":
            return entries
        assert number not in numbers
        numbers.add(number)
        # The kernel needs a folder before what is in it.
        assert not os.path.dirname(name) or os.path.dirname(name) in entries, name
        entries[name] = (mode, data[start:start + size])
        position = start + size + -size % 4


class InitramfsTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def archive(self, root):
        root.write(self.folder / "cpio")
        return (self.folder / "cpio").read_bytes()

    def test_contents(self):
        source = self.folder / "source"
        (source / "sub").mkdir(parents=True)
        (source / "sub/data").write_bytes(b"12345")
        (source / "link").symlink_to("sub/data")
        root = initramfs.Initramfs()
        root.text("/etc/x/y", "text", 0o600)
        root.add(source, "/top")
        root.file(source / "sub/data", "/bin/data")
        entries = read(self.archive(root))
        self.assertEqual(entries["etc/x/y"], (stat.S_IFREG | 0o600, b"text"))
        self.assertEqual(entries["top/sub/data"], (stat.S_IFREG | 0o644, b"12345"))
        self.assertEqual(entries["top/link"], (stat.S_IFLNK | 0o777, b"sub/data"))
        self.assertTrue(stat.S_ISDIR(entries["etc"][0]))
        # /bin is a link to /usr/bin.
        self.assertEqual(entries["bin"], (stat.S_IFLNK | 0o777, b"usr/bin"))
        self.assertIn("usr/bin/data", entries)

    def test_a_program_brings_its_libraries(self):
        root = initramfs.Initramfs()
        root.file(os.path.realpath("/bin/sh"), "/bin/sh")
        libraries = [name for name in read(self.archive(root)) if "libc.so" in name]
        self.assertEqual(len(libraries), 1)

    def test_same_contents_same_bytes(self):
        first, second = initramfs.Initramfs(), initramfs.Initramfs()
        first.text("/a", "1")
        first.text("/b/c", "2")
        second.text("/b/c", "2")
        second.text("/a", "1")
        self.assertEqual(self.archive(first), self.archive(second))

    def test_paths_that_leave_the_root(self):
        with self.assertRaises(Error):
            initramfs.Initramfs().text("/../x", "")


class ResolveTest(unittest.TestCase):

    DEP = """\
kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/lib/crc16.ko.xz
kernel/fs/jbd2/jbd2.ko.xz: kernel/lib/crc16.ko.xz
kernel/lib/crc16.ko.xz:
kernel/drivers/md/dm-mod.ko:
kernel/drivers/virtio/virtio_mmio.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio.ko:
"""

    def test_order(self):
        order = initramfs.resolve(["virtio_mmio", "ext4", "dm_mod"], self.DEP, "")
        names = [os.path.basename(path).partition(".")[0] for path in order]
        self.assertEqual(names, ["virtio", "virtio_mmio", "crc16", "jbd2", "ext4", "dm-mod"])

    def test_built_in_and_unknown_are_left_out(self):
        order = initramfs.resolve(["ext4", "tls", "virtio_mmio"], self.DEP,
                                  "kernel/fs/ext4/ext4.ko\nkernel/lib/crc16.ko\n"
                                  "kernel/fs/jbd2/jbd2.ko\nkernel/net/tls/tls.ko\n")
        self.assertEqual([os.path.basename(path) for path in order],
                         ["virtio.ko", "virtio_mmio.ko"])


if __name__ == "__main__":
    unittest.main()
