# SPDX-License-Identifier: Apache-2.0
"""Debian's -dev packages under the names of the usual external repositories.

A target here carries link flags only. The headers are in /usr/include, which
the compiler searches anyway; naming that folder again with -isystem would break
libstdc++'s #include_next. Bazel does not watch these headers: after an upgrade
of a -dev package run `bazel clean --expunge`.
"""

_HEAD = 'package(default_visibility = ["//visibility:public"])\n'

# Package under @com_google_absl//absl: its targets.
_ABSL_TARGETS = {
    "algorithm": ["algorithm", "container"],
    "base": [
        "base",
        "config",
        "core_headers",
        "dynamic_annotations",
        "endian",
        "log_severity",
        "prefetch",
    ],
    "cleanup": ["cleanup"],
    "container": [
        "btree",
        "fixed_array",
        "flat_hash_map",
        "flat_hash_set",
        "inlined_vector",
        "node_hash_map",
        "node_hash_set",
    ],
    "debugging": [
        "failure_signal_handler",
        "leak_check",
        "stacktrace",
        "symbolize",
    ],
    "flags": [
        "commandlineflag",
        "config",
        "flag",
        "marshalling",
        "parse",
        "reflection",
        "usage",
        "usage_internal",
    ],
    "functional": ["any_invocable", "bind_front", "function_ref"],
    "hash": ["hash", "hash_testing"],
    "memory": ["memory"],
    "meta": ["type_traits"],
    "numeric": ["bits", "int128"],
    "random": ["bit_gen_ref", "distributions", "random", "seed_sequences"],
    "status": ["status", "statusor"],
    "strings": ["cord", "str_format", "strings"],
    "synchronization": ["synchronization"],
    "time": ["time"],
    "types": ["any", "compare", "optional", "span", "variant"],
    "utility": ["utility"],
}

# Well-known types of Protocol Buffers that a .proto may import.
_WELL_KNOWN_PROTOS = [
    "any",
    "descriptor",
    "duration",
    "empty",
    "field_mask",
    "struct",
    "timestamp",
    "wrappers",
]

def _library(name, libs, deps = []):
    # --as-needed: the binary names only the shared libraries it refers to.
    flags = ["-Wl,--as-needed"] + ["-l" + lib for lib in libs]
    return "cc_library(name = %r, linkopts = %r, deps = %r)\n" % (name, flags, deps)

def _require(path, package):
    if not path.exists:
        fail("%s is missing: ./kev setup test, or apt-get install %s" % (path, package))

def _absl_repository_impl(ctx):
    _require(ctx.path("/usr/include/absl/base/config.h"), "libabsl-dev")
    libs = []
    for arch in ["x86_64", "aarch64"]:
        folder = ctx.path("/usr/lib/%s-linux-gnu" % arch)
        for file in folder.readdir() if folder.exists else []:
            if file.basename.startswith("libabsl_") and file.basename.endswith(".so"):
                libs.append(file.basename[len("lib"):-len(".so")])

    # Every target is an alias of one that offers all of Abseil to the linker:
    # which of its 80 libraries a target needs is in no file of the package.
    ctx.file("BUILD", _HEAD + _library("absl", sorted(libs)), executable = False)
    for package, targets in _ABSL_TARGETS.items():
        aliases = ["alias(name = %r, actual = '//:absl')\n" % t for t in targets]
        ctx.file("absl/%s/BUILD" % package, _HEAD + "".join(aliases), executable = False)

_absl_repository = repository_rule(
    implementation = _absl_repository_impl,
    local = True,
    doc = "@com_google_absl, from libabsl-dev.",
)

def _system_repository_impl(ctx):
    _require(ctx.path("/usr/include/" + ctx.attr.header), ctx.attr.package)
    build = _HEAD
    for tool, package in ctx.attr.tools.items():
        path = ctx.path("/usr/bin/" + tool)
        _require(path, package)
        ctx.symlink(path, "bin/" + tool)
        build += "filegroup(name = %r, srcs = ['bin/%s'])\n" % (tool, tool)
    for file in ctx.attr.files:
        ctx.symlink("/usr/include/" + file, file)
    ctx.file("BUILD", build + ctx.attr.build, executable = False)

_system_repository = repository_rule(
    implementation = _system_repository_impl,
    attrs = {
        "header": attr.string(
            doc = "A header that the package installs, under /usr/include.",
            mandatory = True,
        ),
        "package": attr.string(
            doc = "The Debian package, for the message when it is missing.",
            mandatory = True,
        ),
        "tools": attr.string_dict(doc = "Programs of /usr/bin, and the package of each."),
        "files": attr.string_list(doc = "Files of /usr/include to link into the repository."),
        "build": attr.string(doc = "The targets.", mandatory = True),
    },
    local = True,
    doc = "One installed -dev package.",
)

def _protobuf_build():
    # The native proto_library and cc_proto_library look for :protoc and
    # :cc_toolchain here unless a flag names others.
    build = _library("protobuf", ["protobuf"])
    for proto in _WELL_KNOWN_PROTOS:
        build += "proto_library(name = '%s_proto', srcs = ['google/protobuf/%s.proto'])\n" % (proto, proto)
    return build + """
proto_lang_toolchain(
    name = "cc_toolchain",
    blacklisted_protos = %r,
    command_line = "--cpp_out=$(OUT)",
    runtime = ":protobuf",
)
""" % [proto + "_proto" for proto in _WELL_KNOWN_PROTOS]

def system_libraries():
    """Defines every library repository of the workspace."""
    _absl_repository(name = "com_google_absl")
    _system_repository(
        name = "com_google_protobuf",
        header = "google/protobuf/message.h",
        package = "libprotobuf-dev",
        tools = {"protoc": "protobuf-compiler"},
        files = ["google/protobuf/%s.proto" % proto for proto in _WELL_KNOWN_PROTOS],
        build = _protobuf_build(),
    )
    _system_repository(
        name = "com_github_grpc_grpc",
        header = "grpcpp/grpcpp.h",
        package = "libgrpc++-dev",
        tools = {"grpc_cpp_plugin": "protobuf-compiler-grpc"},
        build = _library(
            "grpc++",
            ["grpc++", "grpc", "gpr"],
            ["@com_google_absl//:absl", "@com_google_protobuf//:protobuf"],
        ) + _library("grpc++_reflection", ["grpc++_reflection"], [":grpc++"]),
    )
    _system_repository(
        name = "com_google_googletest",
        header = "gmock/gmock.h",
        package = "libgmock-dev",
        build = _library("gtest", ["gmock", "gtest", "pthread"]) +
                _library("gtest_main", ["gmock_main"], [":gtest"]),
    )
    _system_repository(
        name = "com_google_benchmark",
        header = "benchmark/benchmark.h",
        package = "libbenchmark-dev",
        build = _library("benchmark", ["benchmark", "pthread"]) +
                _library("benchmark_main", ["benchmark_main"], [":benchmark"]),
    )
    _system_repository(
        name = "liburing",
        header = "liburing.h",
        package = "liburing-dev",
        build = _library("uring", ["uring"]),
    )
    _system_repository(
        name = "prometheus_cpp",
        header = "prometheus/text_serializer.h",
        package = "prometheus-cpp-dev",
        build = _library("core", ["prometheus-cpp-core"]),
    )
    _system_repository(
        name = "zlib",
        header = "zlib.h",
        package = "zlib1g-dev",
        build = _library("zlib", ["z"]),
    )
    _system_repository(
        name = "openssl",
        header = "openssl/ssl.h",
        package = "libssl-dev",
        build = _library("crypto", ["crypto"]) +
                _library("ssl", ["ssl"], [":crypto"]),
    )

    # Only benchmarks that are tagged manual use these: who does not run them needs
    # none of the packages.
    _system_repository(
        name = "asio",
        header = "asio/io_context.hpp",
        package = "libasio-dev",
        build = _library("asio", ["pthread"]),
    )
    _system_repository(
        name = "libuv",
        header = "uv.h",
        package = "libuv1-dev",
        build = _library("uv", ["uv"]),
    )
    _system_repository(
        name = "libevent",
        header = "event2/event.h",
        package = "libevent-dev",
        build = _library("event_core", ["event_core"]),
    )
