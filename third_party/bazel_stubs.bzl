# SPDX-License-Identifier: Apache-2.0
"""Stubs of the repositories that Bazel 4.2.3 itself loads from the internet.

Its built-in BUILD files refer to rules_cc, rules_java and remote_coverage_tools.
The first two only re-export Bazel's native rules, the third is needed by
`bazel coverage` alone, so small local files stand in for all of them.
"""

_CC_RULES = [
    "cc_binary",
    "cc_import",
    "cc_library",
    "cc_proto_library",
    "cc_test",
    "cc_toolchain",
    "cc_toolchain_suite",
    "objc_library",
]

_JAVA_RULES = [
    "java_binary",
    "java_import",
    "java_library",
    "java_runtime",
    "java_test",
    "java_toolchain",
]

_COVERAGE_BUILD = """
package(default_visibility = ["//visibility:public"])

filegroup(name = "coverage_report_generator", srcs = ["stub.sh"])

filegroup(name = "lcov_merger", srcs = ["stub.sh"])
"""

def _files_repository_impl(ctx):
    for path, content in ctx.attr.files.items():
        ctx.file(path, content, executable = path.endswith(".sh"))

_files_repository = repository_rule(
    implementation = _files_repository_impl,
    attrs = {"files": attr.string_dict(
        doc = "Path of each file in the repository, and its content.",
        mandatory = True,
    )},
    doc = "A repository made of the files given.",
)

def _reexport(rules):
    return "".join(["%s = native.%s\n" % (rule, rule) for rule in rules])

def bazel_stubs():
    """Defines the three repositories; call it first in WORKSPACE."""
    _files_repository(name = "rules_cc", files = {
        "cc/BUILD": "",
        "cc/defs.bzl": _reexport(_CC_RULES),
    })
    _files_repository(name = "rules_java", files = {
        "java/BUILD": "",
        "java/defs.bzl": _reexport(_JAVA_RULES),
    })
    _files_repository(name = "remote_coverage_tools", files = {
        "BUILD": _COVERAGE_BUILD,
        "stub.sh": "#!/bin/sh\nexit 0\n",
    })
