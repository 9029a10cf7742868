# SPDX-License-Identifier: Apache-2.0
"""Parsers of what command lines of benchmarks say."""

import argparse


def parse_size(text):
    """Returns the bytes of '100K', '10M' or '512'."""
    factor = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:].upper(), 1)
    digits = text[:-1] if factor > 1 else text
    if not digits.isdigit():
        raise argparse.ArgumentTypeError(f"not a size: {text}")
    return int(digits) * factor


def positive(text):
    """Returns a number above 0."""
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def count(text):
    """Returns a whole number above 0."""
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def keep_or_close(text):
    """Returns "keep", or "close": a connection for each request."""
    if text not in ("keep", "close"):
        raise argparse.ArgumentTypeError(f"unknown mode {text}")
    return text


def list_of(convert):
    """Returns a parser of lists with commas."""
    return lambda text: [convert(part) for part in text.split(",") if part]
