# SPDX-License-Identifier: Apache-2.0
"""Headers of the kernels that kevent.ko is built for, and the rule that builds it.

@linux_headers has one file for each name a kernel goes by: "6.1" and "6.12", the
kernels of the test bed; "debug", its debug kernel; "host", the running kernel or
the tree that $KDIR names. The file says where the headers are, or is empty when
they are not on this machine: the repository is always there, and only a module
that is asked for fails.

Bazel looks for the headers when $KEVENT_KERNELS changes. `./kev` sets it to the
versions in the cache; after other changes run `bazel sync --configure`.
"""

# Names of kernels: targets of @linux_headers.
KERNELS = ["6.1", "6.12", "debug", "host"]

# Prints the folder of headers of $1, and what tells its contents from another's.
# Series that the cache has not may be installed.
_FIND = """
dir=
if [ "$1" = host ]; then
  dir=${KDIR:-/lib/modules/$(uname -r)/build}
elif [ -e "$2/$1/headers" ]; then
  dir=$2/$1/headers
else
  dir=$(ls -d /usr/src/linux-headers-"$1".*[0-9a-z]-amd64 2>/dev/null |
    grep -v -e -cloud-amd64 -e -rt-amd64 | sort -V | tail -n 1)
fi
dir=$(readlink -e "$dir") && [ -e "$dir/include/config/auto.conf" ] || exit 0
echo "$dir"
cat "$dir/include/config/auto.conf" "$dir/Module.symvers" \
  "$dir/include/generated/utsrelease.h" 2>/dev/null | sha256sum
"""

def _linux_headers_impl(ctx):
    environ = ctx.os.environ
    cache = environ.get("XDG_CACHE_HOME") or environ.get("HOME", "") + "/.cache"
    for kernel in KERNELS:
        found = ctx.execute(["sh", "-c", _FIND, "sh", kernel, cache + "/kevent/kernels"])
        if found.return_code != 0:
            fail("looking for the headers of kernel %s: %s" % (kernel, found.stderr))
        ctx.file(kernel, found.stdout, executable = False)
    ctx.file("BUILD", "exports_files(%r)\n" % KERNELS, executable = False)

linux_headers = repository_rule(
    implementation = _linux_headers_impl,
    environ = ["HOME", "KDIR", "KEVENT_KERNELS", "XDG_CACHE_HOME"],
    local = True,
    configure = True,
    doc = "@linux_headers; see the top of this file.",
)

# kbuild writes beside the sources, so it gets a copy. Its warnings are errors;
# only that of gcc's patch level, and the absence of BTF, say nothing of the module.
_BUILD = """
set -eu
headers=$1 kernel=$2 folder=$3 output=$4 check=$5
shift 5
dir=$(head -n 1 "$headers")
if [ -z "$dir" ]; then
  case $kernel in
    host) echo "no headers of the running kernel: install linux-headers-$(uname -r), or set KDIR" ;;
    debug) echo "the debug kernel is not built: ./kev test vm --debug builds it" ;;
    *) echo "no headers of kernel $kernel: ./kev setup vm fetches them" ;;
  esac >&2
  exit 1
fi
work=$PWD/$output.work
rm -rf "$work"
for source; do
  mkdir -p "$work/$(dirname "$source")"
  cp -L "$source" "$work/$source"
done
export LC_ALL=C
flags="-Werror -ffile-prefix-map=$work/="
log=$work/log
status=0
make -s -C "$dir" M="$work/$folder" W=1 KCFLAGS="$flags" ${check:+C=2 CHECK="$check"} \
  modules >"$log" 2>&1 || status=$?
sed -i -e '/^warning: the compiler differs/,/^  You are using:/d' \
  -e '/^Skipping BTF generation/d' -e "s|$work/||g" "$log"
if [ "$status" -ne 0 ] || grep -q -i -e warning: -e error: "$log"; then
  cat "$log" >&2
  exit 1
fi
cat "$log" >&2
cp "$work/$folder/$(basename "$output")" "$output"
rm -rf "$work"
"""

def _kernel_module_impl(ctx):
    output = ctx.actions.declare_file("%s/%s.ko" % (ctx.label.name, ctx.attr.module))
    sources = ctx.files.srcs + ctx.files.hdrs + [ctx.file.kbuild]
    ctx.actions.run_shell(
        outputs = [output],
        inputs = sources + [ctx.file.headers],
        command = _BUILD,
        arguments = [
            ctx.file.headers.path,
            ctx.attr.kernel,
            ctx.file.kbuild.dirname,
            output.path,
            ctx.var.get("KERNEL_CHECK", ""),
        ] + [source.path for source in sources],
        use_default_shell_env = True,
        mnemonic = "KernelModule",
        progress_message = "Building %s.ko for kernel %s" % (ctx.attr.module, ctx.attr.kernel),
    )
    return [DefaultInfo(files = depset([output]))]

_kernel_module = rule(
    implementation = _kernel_module_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = [".c", ".h", ".S"], mandatory = True),
        "hdrs": attr.label_list(allow_files = [".h"]),
        "kbuild": attr.label(allow_single_file = True, mandatory = True),
        "module": attr.string(mandatory = True),
        "kernel": attr.string(mandatory = True, values = KERNELS),
        "headers": attr.label(allow_single_file = True, mandatory = True),
    },
)

def kernel_module(name, srcs, kernel, module, kbuild = "Kbuild", hdrs = [], **kwargs):
    """A kernel module, built by kbuild with W=1; a warning is an error.

    The sources keep their places below the top of the workspace, so one may
    include another by a path relative to itself. With --define=KERNEL_CHECK=sparse
    sparse reads them as well.

    Args:
      name: the target; the module is NAME/MODULE.ko.
      srcs: the .c and .h files.
      kernel: one of KERNELS.
      module: the name of the object that the Kbuild file makes, without ".ko".
      kbuild: the Kbuild file; its folder is where kbuild works.
      hdrs: headers of other packages.
      **kwargs: common attributes.
    """
    _kernel_module(
        name = name,
        srcs = srcs,
        hdrs = hdrs,
        kbuild = kbuild,
        kernel = kernel,
        module = module,
        headers = "@linux_headers//:" + kernel,
        # Headers are not on every machine: not part of //...
        tags = kwargs.pop("tags", []) + ["manual"],
        **kwargs
    )
