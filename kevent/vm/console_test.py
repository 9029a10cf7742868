#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of console.py."""

import unittest

import console

# One line of each kind of report, as kernels 6.1 and 6.12 write it.
REPORTS = """\
WARNING: CPU: 0 PID: 165 at kernel/x.c:15 write+0xad/0x1c4 [kevent]
BUG: kernel NULL pointer dereference, address: 0000000000000008
BUG: unable to handle page fault for address: ffffc90000a0b000
kernel BUG at mm/slub.c:435!
Oops: 0002 [#1] PREEMPT SMP NOPTI
general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP
Kernel panic - not syncing: Fatal exception
BUG: KASAN: slab-use-after-free in kevent_queue_wake+0x1a/0x40 [kevent]
BUG: KFENCE: use-after-free read in test+0xa6/0x200
BUG: KMSAN: uninit-value in strlen+0x3b/0xa0
BUG: KCSAN: data-race in a / b
UBSAN: array-index-out-of-bounds in kevent/module/ring.c:20:3
unreferenced object 0xffff888003b5c3c0 (size 64):
WARNING: possible circular locking dependency detected
WARNING: possible recursive locking detected
WARNING: possible irq lock inversion dependency detected
WARNING: inconsistent lock state
WARNING: bad unlock balance detected!
WARNING: suspicious RCU usage
INFO: task kworker/0:1:7 blocked for more than 120 seconds.
rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:
rcu: INFO: rcu_sched self-detected stall on CPU
rcu: rcu_preempt kthread starved for 5250 jiffies! g1 f0x0
watchdog: BUG: soft lockup - CPU#0 stuck for 63s! [test:99]
refcount_t: underflow; use-after-free.
BUG: scheduling while atomic: sh/164/0x00000002
BUG: sleeping function called from invalid context at include/linux/sched/mm.h:274
BUG: Bad page state in process test  pfn:01234
BUG: Bad rss-counter state mm:0000 type:MM_ANONPAGES val:1
BUG kevent_interest (Tainted: G    B      OE     ): Objects remaining in kevent_interest on __kmem_cache_shutdown()
BUG kmalloc-64 (Tainted: G           OE     ): Right Redzone overwritten
list_del corruption. prev->next should be ffff, but was dead
ODEBUG: free active (active state 0) object: 0000 object type: timer_list
""".splitlines()

CLEAN = """\
Probing EDD (edd=off to disable)... ok
[    0.000000] Linux version 6.1.0 (debian-kernel@lists.debian.org) #1 SMP PREEMPT_DYNAMIC
[    0.128524] rcu: \tRCU CPU stall warnings timeout set to 60 (rcu_cpu_stall_timeout).
[    0.128525] rcu: Hierarchical SRCU implementation.
[    0.827856] PCI: Fatal: No config space access function found
[    0.968192] PCI: Using host bridge windows from ACPI; if necessary, use "pci=nocrs" and report a bug
[    2.138123] AMD-Vi: AMD IOMMUv2 functionality not available on this system - This is not a bug.
[    3.500000] Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar
[    3.500001] kmemleak: Kernel memory leak detector initialized (mem pool available: 39000)
[    3.500001] kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)
[    3.500002] kevent: loading out-of-tree module taints kernel.
[    5.139671] EXT4-fs (vda): mounted filesystem with ordered data mode. Quota mode: none.
[    6.000000] crash_test[99]: segfault at 0 ip 0000 sp 0000 error 4 in crash_test[400000+1000]
[    6.100000] traps: crash_test[100] general protection fault ip:4011 sp:7ffd error:0 in crash_test
""".splitlines()


def at(message):
    return f"[   12.345678] {message}"


class ConsoleTest(unittest.TestCase):

    def test_each_report_is_noticed(self):
        for report in REPORTS:
            for stamp in ("[   12.345678] ", "[    1.000000][  T165] ", "[    9.1][ C1] "):
                with self.subTest(stamp + report):
                    findings = console.scan(f"{CLEAN[0]}\n{stamp}{report}\r\n{CLEAN[3]}\n")
                    self.assertEqual(len(findings), 1)
                    self.assertIn(report, findings[0].lines[0])

    def test_a_clean_console_is_none(self):
        self.assertEqual(console.scan("\r\n".join(CLEAN)), [])
        self.assertEqual(console.scan(""), [])

    def test_what_users_print_is_no_report(self):
        self.assertEqual(console.scan("\n".join(REPORTS)), [])

    def test_a_report_after_a_prompt_without_newline(self):
        self.assertEqual(len(console.scan("~ # " + at("BUG: x"))), 1)

    def test_a_report_holds_its_lines_up_to_its_end(self):
        text = "\n".join([at("WARNING: CPU: 0"), at("Call Trace:"), at("BUG: within"),
                          at("---[ end trace 0000000000000000 ]---"), at("quiet"),
                          at("BUG: a second")])
        first, second = console.scan(text)
        self.assertEqual(len(first.lines), 4)
        self.assertIn("a second", second.lines[0])
        self.assertIn("Call Trace", str(first))

    def test_a_report_is_cut_after_a_while(self):
        lines = [at("BUG: x")] + [at("line")] * 200 + [at("BUG: y")]
        findings = console.scan("\n".join(lines))
        self.assertEqual(len(findings), 2)
        self.assertLess(len(findings[0].lines), 100)

    def test_reports_belong_to_the_test_that_runs(self):
        text = "\n".join([at("BUG: boot"), at(console.MARK + "//a:b_test"), at("BUG: one"),
                          at("kevent-vm: end //a:b_test"), at("BUG: between"),
                          at(console.MARK + "//a:c_test (as user)"), at("BUG: two")])
        self.assertEqual([finding.test for finding in console.scan(text)],
                         [None, "//a:b_test", None, "//a:c_test (as user)"])


if __name__ == "__main__":
    unittest.main()
