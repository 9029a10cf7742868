# SPDX-License-Identifier: Apache-2.0
"""Ratios of paired measurements, and how sure they are."""

import math
import random
import statistics

RESAMPLES = 2000
ENOUGH_ROUNDS = 15


def log_ratios(numerators, denominators):
    """Returns log(n / d) of the pairs in which both are positive."""
    pairs = zip(numerators, denominators)
    return [math.log(n / d) for n, d in pairs if n and d and n > 0 and d > 0]


def _interval(medians):
    medians.sort()
    low = medians[int(0.025 * (len(medians) - 1))]
    high = medians[math.ceil(0.975 * (len(medians) - 1))]
    return low, high


def median_interval(values):
    """Returns the 95% bootstrap interval of the median."""
    # The same values give the same interval.
    source = random.Random(1)
    return _interval([
        statistics.median(source.choices(values, k=len(values)))
        for _ in range(RESAMPLES)
    ])


def summary(logs):
    """Returns {value, low, high, rounds} of log ratios; None without any."""
    if not logs:
        return None
    low, high = median_interval(logs)
    return {
        "value": math.exp(statistics.median(logs)),
        "low": math.exp(low),
        "high": math.exp(high),
        "rounds": len(logs),
    }


def difference(logs_a, logs_b):
    """Returns {value, low, high, rounds} of exp(median(b) - median(a)).

    a and b are of different runs and thereby not paired.
    """
    if not logs_a or not logs_b:
        return None
    source = random.Random(1)

    def resampled(values):
        return statistics.median(source.choices(values, k=len(values)))

    low, high = _interval(
        [resampled(logs_b) - resampled(logs_a) for _ in range(RESAMPLES)])
    value = statistics.median(logs_b) - statistics.median(logs_a)
    return {
        "value": math.exp(value),
        "low": math.exp(low),
        "high": math.exp(high),
        "rounds": min(len(logs_a), len(logs_b)),
    }


def resolved(ratio, control):
    """Whether a ratio is more than noise.

    Its interval is of enough rounds, excludes 1, and lies outside that of the
    control, which is a server against itself.
    """
    if not ratio or not control or ratio["rounds"] < ENOUGH_ROUNDS:
        return False
    if ratio["low"] <= 1 <= ratio["high"]:
        return False
    return ratio["low"] > control["high"] or ratio["high"] < control["low"]
