#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Counts the test cases of one `bazel test` run.

Usage: test_counts.py EVENTS

EVENTS is the file that --build_event_json_file wrote. Bazel itself counts
targets; this adds up the cases in the test.xml of each target of that very run.
Prints three numbers on one line: passed, failed, skipped.

A target counts as one failure more when it did not succeed and no case of it
says so: it did not build, crashed, timed out, or a sanitizer spoke at exit.
"""

import collections
import json
import sys
import urllib.parse
import xml.etree.ElementTree as ElementTree


def count_cases(path):
    """Returns the Counter of passed, failed and skipped cases in a test.xml."""
    counts = collections.Counter()
    try:
        cases = list(ElementTree.parse(path).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        # Cut off by a crash: the target's own status speaks for it.
        return counts
    for case in cases:
        if case.get("status") == "notrun":
            continue
        if case.find("failure") is not None or case.find("error") is not None:
            counts["failed"] += 1
        elif case.get("result") == "skipped" or case.find("skipped") is not None:
            counts["skipped"] += 1
        else:
            counts["passed"] += 1
    return counts


def xml_path(result):
    """Returns the path of test.xml in a testResult event, or None."""
    for output in result.get("testActionOutput", []):
        if output["name"] == "test.xml" and "uri" in output:
            return urllib.parse.unquote(urllib.parse.urlparse(output["uri"]).path)
    return None


def read_events(lines):
    """Returns {label: did it succeed} of the tests of the run, and their paths.

    The paths are {label: {(run, shard): test.xml of the last attempt}}. Tests
    that the run built but left out by --test_tag_filters are in neither.
    """
    tests, built, succeeded = set(), set(), {}
    paths = collections.defaultdict(dict)
    for line in lines:
        event = json.loads(line)
        (kind, key), = event["id"].items()
        if kind == "targetConfigured":
            if "testSize" in event.get("configured", {}):
                tests.add(key["label"])
        elif kind == "targetCompleted":
            if event.get("completed", {}).get("success"):
                built.add(key["label"])
        elif kind == "testResult":
            path = xml_path(event.get("testResult", {}))
            if path:
                # Attempts come in order, so the last one stays.
                paths[key["label"]][key.get("run"), key.get("shard")] = path
        elif kind == "testSummary":
            status = event.get("testSummary", {}).get("overallStatus")
            succeeded[key["label"]] = status in ("PASSED", "FLAKY")
    for label in tests - built:
        succeeded[label] = False
    return succeeded, paths


def main():
    with open(sys.argv[1], encoding="utf-8") as events:
        succeeded, paths = read_events(events)
    total = collections.Counter()
    for label, success in succeeded.items():
        counts = collections.Counter()
        for path in paths[label].values():
            counts += count_cases(path)
        if not success and not counts["failed"]:
            counts["failed"] = 1
        total += counts
    print(total["passed"], total["failed"], total["skipped"])


if __name__ == "__main__":
    main()
