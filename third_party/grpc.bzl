# SPDX-License-Identifier: Apache-2.0
"""cc_grpc_library: the gRPC half of a proto_library, by Debian's grpc_cpp_plugin."""

def _grpc_sources_impl(ctx):
    proto = ctx.attr.proto[ProtoInfo]
    if proto.proto_source_root != ".":
        fail("%s: a proto_library with strip_import_prefix or import_prefix is not supported" % ctx.attr.proto.label)
    outs = []
    for source in proto.direct_sources:
        # The file may lie below its package.
        stem = source.short_path[:-len(".proto")]
        if ctx.label.package:
            stem = stem[len(ctx.label.package) + 1:]
        for extension in [".grpc.pb.h", ".grpc.pb.cc"]:
            outs.append(ctx.actions.declare_file(stem + extension))
    args = ctx.actions.args()
    args.add(ctx.executable._plugin, format = "--plugin=protoc-gen-grpc=%s")
    args.add("--grpc_out=" + ctx.bin_dir.path)
    args.add_all(proto.transitive_proto_path, format_each = "-I%s")
    args.add_all(proto.direct_sources)
    ctx.actions.run(
        executable = ctx.executable._protoc,
        tools = [ctx.executable._plugin],
        inputs = proto.transitive_sources,
        outputs = outs,
        arguments = [args],
        mnemonic = "GrpcGenerate",
        progress_message = "Generating gRPC sources of %s" % ctx.attr.proto.label,
    )
    return [DefaultInfo(files = depset(outs))]

_grpc_sources = rule(
    implementation = _grpc_sources_impl,
    attrs = {
        "proto": attr.label(providers = [ProtoInfo], mandatory = True),
        "_protoc": attr.label(
            default = "@com_google_protobuf//:protoc",
            executable = True,
            allow_single_file = True,
            cfg = "exec",
        ),
        "_plugin": attr.label(
            default = "@com_github_grpc_grpc//:grpc_cpp_plugin",
            executable = True,
            allow_single_file = True,
            cfg = "exec",
        ),
    },
)

def cc_grpc_library(name, proto, deps, **kwargs):
    """The C++ service classes of a proto_library.

    Args:
      name: the cc_library to make; include its header as "path/of/file.grpc.pb.h".
      proto: a proto_library of the same package that defines services.
      deps: the cc_proto_library of `proto`.
      **kwargs: passed to the cc_library.
    """
    _grpc_sources(
        name = name + "_sources",
        proto = proto,
        visibility = ["//visibility:private"],
    )
    native.cc_library(
        name = name,
        srcs = [name + "_sources"],
        deps = deps + ["@com_github_grpc_grpc//:grpc++"],
        **kwargs
    )
