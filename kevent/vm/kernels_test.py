#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of kernels.py and of what debug_kernel.py computes."""

import itertools
import unittest

import debug_kernel
import kernels

PACKAGES = """\
Package: linux-image-6.1.0-9-amd64
Version: 6.1.27-1
Depends: kmod

Package: linux-headers-6.1.0-9-amd64
Version: 6.1.27-1
Depends: linux-headers-6.1.0-9-common (= 6.1.27-1), linux-kbuild-6.1 (>= 6.1.27-1), gcc-12

Package: linux-headers-6.1.0-9-common
Version: 6.1.27-1

Package: linux-kbuild-6.1
Version: 6.1.27-1

Package: linux-image-6.1.0-10-amd64
Source: linux-signed-amd64 (6.1.38+2)
Version: 6.1.38-2

Package: linux-image-6.1.0-10-amd64-unsigned
Version: 6.1.38-2

Package: linux-headers-6.1.0-10-amd64
Version: 6.1.38-2
Depends: linux-headers-6.1.0-10-common (= 6.1.38-2), linux-kbuild-6.1 (>= 6.1.38-2)

Package: linux-headers-6.1.0-10-common
Version: 6.1.38-2

Package: linux-kbuild-6.1
Version: 6.1.38-2

Package: linux-image-6.1.0-99-rt-amd64
Version: 6.1.99-1

Package: linux-image-6.1.0-99-cloud-amd64
Version: 6.1.99-1

Package: linux-image-6.1.0-50-amd64
Version: 6.1.50-1
"""


class VersionsTest(unittest.TestCase):

    def test_order(self):
        # From deb-version(7), and Debian's kernels.
        versions = ["6.1~rc1-1", "6.1.9-1", "6.1.9-1.1", "6.1.10-1~bpo12+1",
                    "6.1.10-1~deb12u1", "6.1.10-1", "6.1.10-2", "6.1.100-1",
                    "6.12.9-1~bpo12+1", "6.12.9-1", "1:0.1-1"]
        for (i, a), (j, b) in itertools.product(enumerate(versions), repeat=2):
            self.assertEqual(kernels.compare_versions(a, b), (i > j) - (i < j), (a, b))
        self.assertEqual(kernels.newest(reversed(versions)), "1:0.1-1")
        self.assertIsNone(kernels.newest([]))


class ChooseTest(unittest.TestCase):

    def setUp(self):
        self.packages = kernels.parse_packages(PACKAGES)

    def test_newest_with_headers_of_the_same_version(self):
        # 6.1.50 has no headers, 6.1.99 is of other flavours, 38 is more than 9.
        version, names = kernels.choose(self.packages, "6.1")
        self.assertEqual(version, "6.1.38-2")
        self.assertEqual(names, ["linux-image-6.1.0-10-amd64", "linux-headers-6.1.0-10-amd64",
                                 "linux-headers-6.1.0-10-common", "linux-kbuild-6.1"])

    def test_unsigned_where_there_is_no_other(self):
        del self.packages["linux-image-6.1.0-10-amd64"]
        _, names = kernels.choose(self.packages, "6.1")
        self.assertEqual(names[0], "linux-image-6.1.0-10-amd64-unsigned")

    def test_older_when_a_part_of_the_newest_is_missing(self):
        del self.packages["linux-kbuild-6.1"]["6.1.38-2"]
        self.assertEqual(kernels.choose(self.packages, "6.1")[0], "6.1.27-1")

    def test_series_are_told_apart(self):
        self.assertIsNone(kernels.choose(self.packages, "6.12"))
        text = PACKAGES.replace("6.1.", "6.12.")
        self.assertIsNone(kernels.choose(kernels.parse_packages(text), "6.1"))

    def test_names_of_backports(self):
        release = "6.12.9+bpo-amd64"
        self.packages["linux-image-" + release] = {"6.12.9-1~bpo12+1": ""}
        self.packages["linux-headers-" + release] = {
            "6.12.9-1~bpo12+1": "linux-headers-6.12.9+bpo-common, linux-kbuild-6.12.9+bpo"}
        self.packages["linux-headers-6.12.9+bpo-common"] = {"6.12.9-1~bpo12+1": ""}
        self.packages["linux-kbuild-6.12.9+bpo"] = {"6.12.9-1~bpo12+1": ""}
        version, names = kernels.choose(self.packages, "6.12")
        self.assertEqual(version, "6.12.9-1~bpo12+1")
        self.assertEqual(len(names), 4)


class SourcesTest(unittest.TestCase):

    def test_backports_of_the_debian_suite_alone(self):
        lines = kernels.backports_sources([
            "http://mirror/debian/ bookworm", "http://mirror/debian/ bookworm",
            "http://mirror/debian/ bookworm-updates", ""])
        self.assertEqual(len(lines), 1)
        self.assertRegex(
            lines[0], r"^deb \[signed-by=.*\] http://mirror/debian/ bookworm-backports main$")


class DebugConfigTest(unittest.TestCase):

    def test_options_that_did_not_take(self):
        fragment = "CONFIG_A=y\nCONFIG_B=n\nCONFIG_C=17\n# CONFIG_D=y\nCONFIG_E=y\nCONFIG_F=n\n"
        config = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=15\nCONFIG_F=y\n"
        self.assertEqual(debug_kernel.wrong_options(fragment, config),
                         ["CONFIG_C=17", "CONFIG_E=y", "CONFIG_F=n"])


if __name__ == "__main__":
    unittest.main()
