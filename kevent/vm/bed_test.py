#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of bed.py and machine.py without a machine."""

import pathlib
import unittest

import bed
import console
import machine
from kernels import Error


def outcome(*lines, **fields):
    result = machine.Outcome(regular=True, started=True)
    for name, value in fields.items():
        setattr(result, name, value)
    for line in lines:
        assert result.note(line)
    return result


class JudgeTest(unittest.TestCase):

    FINDING = console.Finding(["[ 1.0] BUG: x"], "//a:b")

    def judge(self, *lines, findings=(), **fields):
        return bed.judge(outcome(*lines, **fields), list(findings), 9)

    def test_the_status_is_the_commands(self):
        for status in (0, 1, 7, 139):
            self.assertEqual(self.judge(f"status {status}"), (status, ""))

    def test_a_report_of_the_kernel_fails_whatever_the_command_says(self):
        for status in (0, 3):
            got, text = self.judge(f"status {status}", findings=[self.FINDING])
            self.assertEqual(got, bed.KERNEL_FAULT)
            self.assertIn("BUG: x", text)
            self.assertIn("//a:b", text)

    def test_a_module_that_stays_fails(self):
        status, text = self.judge("stuck rmmod: in use (references: 1)", "status 0")
        self.assertEqual(status, bed.KERNEL_FAULT)
        self.assertIn("references: 1", text)

    def test_a_guest_that_dies_fails(self):
        self.assertEqual(self.judge(regular=False)[0], bed.KERNEL_FAULT)
        # It came to its end, and the machine was then ended by something else.
        self.assertEqual(self.judge("status 0", regular=False)[0], bed.KERNEL_FAULT)

    def test_a_guest_that_never_ran_the_command_is_the_beds_fault(self):
        status, text = self.judge("wrong the disk is missing", regular=False, started=False)
        self.assertEqual(status, bed.BED_FAULT)
        self.assertIn("the disk is missing", text)

    def test_time_out(self):
        status, text = self.judge(regular=False, timed_out=True)
        self.assertEqual(status, bed.TIMED_OUT)
        self.assertIn("9 seconds", text)

    def test_missing_file(self):
        status, text = self.judge("missing root/x", "status 0")
        self.assertEqual(status, 1)
        self.assertIn("/root/x", text)
        self.assertEqual(self.judge("missing root/x", "status 3")[0], 3)

    def test_other_lines_are_not_taken(self):
        self.assertFalse(machine.Outcome().note("begin 1"))


class ProgramsTest(unittest.TestCase):

    def test_missing_ones_only_if_the_command_names_them(self):
        have = {"curl": "/usr/bin/curl"}
        self.assertEqual(bed.missing_programs("sh -c 'wrk -c 1 x; curl y'", have), ["wrk"])
        self.assertEqual(bed.missing_programs("echo", have), [])
        self.assertEqual(bed.missing_programs(None, have), [])


class CommandTest(unittest.TestCase):

    DESCRIPTORS = {name: 10 + i for i, name in enumerate(("console", *machine.PORTS))}

    def command(self, **fields):
        hardware = machine.Hardware(kernel="/k", initrd="/i", **fields)
        return machine.command(hardware, self.DESCRIPTORS)

    def test_streams_and_disks(self):
        words = self.command(disks={"disk": "/x/d.img"}, cpus=3, memory_mib=99)
        text = " ".join(words)
        self.assertIn("-smp 3 -m 99 ", text)
        self.assertIn("file=/x/d.img,format=raw,if=none,id=disk", text)
        for name, number in self.DESCRIPTORS.items():
            self.assertIn(f"socket,id={name},fd={number}", text)
        self.assertNotIn("-icount", words)
        self.assertNotIn("throttling", text)

    def test_slow_disk(self):
        words = self.command(disks={"disk": "/x/d.img"}, disk_rate_mib=3)
        drive = words[words.index("-drive") + 1]
        self.assertTrue(drive.endswith(",throttling.bps-read=3145728"), drive)

    def test_counting(self):
        words = self.command(icount=True, cpus=1)
        self.assertEqual(words[words.index("-icount") + 1], "shift=0,sleep=off")
        self.assertIn("nokaslr", words[words.index("-append") + 1])
        # Checks of the module's memory would be counted.
        self.assertNotIn("slub_debug", words[words.index("-append") + 1])

    def test_a_path_that_qemu_would_misread(self):
        with self.assertRaises(Error):
            self.command(disks={"disk": "/a,b"})


class DisksTest(unittest.TestCase):

    def test_where_an_added_file_goes(self):
        # pylint: disable=protected-access
        self.assertEqual(bed._disk_of("/disk/a/b"), "disk")
        self.assertEqual(bed._disk_of("//dm/x"), "dm")
        self.assertIsNone(bed._disk_of("/disks/x"))
        self.assertIsNone(bed._disk_of("/root/disk"))

    def test_modules_lose_their_packing(self):
        # pylint: disable=protected-access
        self.assertEqual(bed._place_of(pathlib.Path("/a/ext4.ko.xz")), "/vm/modules/ext4.ko")
        self.assertEqual(bed._place_of(pathlib.Path("/a/ext4.ko")), "/vm/modules/ext4.ko")


if __name__ == "__main__":
    unittest.main()
