# SPDX-License-Identifier: Apache-2.0
"""Judges what the guest's kernel said on its console."""

import dataclasses
import re

# Only lines with the kernel's time stamp count: in a shell on the console the
# user's own output stands between them.
_STAMP = re.compile(r"\[ *\d+\.\d+\](?:\[ *[CT]\d+\])? ?(.*)")

# Any of these is a failure.
_REPORTS = re.compile("|".join((
    r"\bWARNING: ",
    r"\bBUG[: ]",
    r"kernel BUG at ",
    r"\bOops: ",
    r"general protection fault",
    r"Unable to handle kernel ",
    r"unable to handle page fault",
    r"Kernel panic - not syncing",
    r"double fault",
    r"KASAN: ",
    r"KFENCE: ",
    r"KMSAN: ",
    r"KCSAN: ",
    r"UBSAN: ",
    r"unreferenced object 0x",
    r"possible (?:circular|recursive|irq|.*lock).* (?:detected|dependency)",
    r"possible deadlock",
    r"bad unlock balance",
    r"held lock freed",
    r"inconsistent lock state",
    r"suspicious RCU usage",
    r"lockdep is turned off",
    r"INFO: task .* blocked for more than",
    r"\brcu\w*:? .*(?:detected stall|detected expedited stall|stalls on CPUs|kthread starved)",
    r"soft lockup",
    r"hard LOCKUP",
    r"refcount_t: ",
    r"scheduling while atomic",
    r"sleeping function called",
    r"[Bb]ad page (?:state|map)",
    r"Bad rss-counter state",
    r"Objects remaining ",
    r"Object still has references",
    r"list_(?:add|del)(?:_rcu)? corruption",
    r"ODEBUG: ",
    r"percpu ref .* <= 0",
    r"VFS: Busy inodes",
    r"unregister_netdevice: waiting for",
    r"kobject_add_internal failed",
)))

# Lines that look like a report and are none of the kernel's: a process of user
# space that crashed.
_HARMLESS = re.compile(r"^traps: |\bsegfault at ")

# Written to the kernel's log when a test begins.
MARK = "kevent-vm: begin "
_END_MARK = "kevent-vm: end"

_CONTEXT = 45


@dataclasses.dataclass
class Finding:
    """One report: its lines, and the test that was running, if any."""

    lines: list
    test: str | None

    def __str__(self):
        return "\n".join("  " + line for line in self.lines)


def scan(text):
    """Returns the Findings in the text of a console."""
    findings = []
    test = None
    open_until = -1
    for number, line in enumerate(text.replace("\r", "").split("\n")):
        match = _STAMP.search(line)
        message = match.group(1) if match else ""
        if message.startswith(MARK):
            test, open_until = message[len(MARK):].strip(), -1
            continue
        if message.startswith(_END_MARK):
            test, open_until = None, -1
            continue
        is_report = _REPORTS.search(message) and not _HARMLESS.search(message)
        if number < open_until:
            # The report's own text, further lines of which look like reports too.
            if match or line.strip():
                findings[-1].lines.append(line)
            if "---[ end " in message:
                open_until = -1
        elif is_report:
            findings.append(Finding([line], test))
            open_until = number + _CONTEXT
    return findings
