#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Asks PORT for PATH again and again, on a few connections, until it is ended."""

import http.client
import sys


def main():
    """Ends by a signal, or with the server."""
    port, path = int(sys.argv[1]), sys.argv[2]
    connections = [
        http.client.HTTPConnection("127.0.0.1", port, timeout=30) for _ in range(8)
    ]
    try:
        while True:
            for connection in connections:
                connection.request("GET", path)
                connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        pass


if __name__ == "__main__":
    main()
