# SPDX-License-Identifier: Apache-2.0
"""Small requests beside large ones: how long do they wait for their turn?"""

from macro import cold, rounds

RATE = 500
# Small requests a second, timed from when they were due.

LARGE_CONNECTIONS = 64
LARGE_BYTES = (1 << 20, 10 << 20)
# In memory: the server's processor is what they wait for.


def measure(servers, load, targets_of, seconds, count):
    """Returns one result for each server and size of the large files."""
    hot = targets_of(cold.HOT_BYTES)
    out = []
    for size in LARGE_BYTES:
        large = targets_of(size)
        taken = {server: [] for server in servers}
        for number in range(count):
            for server in servers:
                rounds.say(f"beside {rounds.size_name(size)}, round {number + 1} of "
                           f"{count}: {server}")
                # On the client's processor the small ones go first, and leave it to
                # the others in between: they wait for the server's alone.
                taken[server].append(cold.hot_round(
                    server, load, hot, large, LARGE_CONNECTIONS, seconds, RATE,
                    {"rest": True}, idle=True))
        for server, rows in taken.items():
            out.append({
                **cold.hot_result(server, rows, RATE),
                "large_connections": LARGE_CONNECTIONS,
                "large_file_bytes": size,
                "large_mb_per_s": cold.median(rows, "pulled_mb_per_s"),
            })
    return out
