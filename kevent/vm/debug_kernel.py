# SPDX-License-Identifier: Apache-2.0
"""The debug kernel: Debian's source of 6.1, built with debug.config into the cache.

It takes a quarter of an hour, once for each version of the source and of the
configuration. A build that was interrupted goes on where it stopped.
"""

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import kernels
from kernels import Error

_SERIES = "6.1"
_KEY = "%s-debug-%s"
_FRAGMENT = pathlib.Path(__file__).resolve().parent / "debug.config"


def wrong_options(fragment, config):
    """Returns the lines of a fragment that a configuration does not hold.

    An option that the kernel does not have may be set to n.
    """

    def options(text):
        found = dict(re.findall(r"^(CONFIG_\w+)=(.*)$", text, re.MULTILINE))
        return {name: value for name, value in found.items() if value != "n"}

    have = options(config)
    absent = re.findall(r"^(CONFIG_\w+)=n$", fragment, re.MULTILINE)
    return ([f"{name}={value}" for name, value in options(fragment).items()
             if have.get(name) != value]
            + [f"{name}=n" for name in absent if name in have])


def _key(version):
    digest = hashlib.sha256(_FRAGMENT.read_bytes()).hexdigest()[:10]
    return _KEY % (version, digest)


def current():
    """Returns the folder of the debug kernel if it is built for this fragment."""
    link = kernels.folder() / kernels.DEBUG
    if (link / "vmlinuz").exists() and link.resolve().name.endswith(_key("")):
        return link.resolve()
    return None


def _interrupted():
    """Returns the folder in which a build for this fragment was begun."""
    begun = sorted(kernels.folder().glob(_key("*") + "/source"))
    return begun[-1].parent if begun else None


def _choose(packages):
    versions = packages.get(f"linux-source-{_SERIES}", {})
    version = kernels.newest(versions)
    return version and (version, [f"linux-source-{_SERIES}"])


def _unpack(final):
    """Lays the newest source into final/source."""
    cache = kernels.folder()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=cache) as scratch:
        scratch = pathlib.Path(scratch)
        found = kernels.download(scratch, rf"^linux-source-{re.escape(_SERIES)}$", _choose)
        if not found:
            raise Error(f"no package linux-source-{_SERIES} in this machine's apt sources")
        version, (deb,) = found
        final = final(version)
        if not (final / "source").exists():
            print(f"vm: unpacking the source of kernel {version}", file=sys.stderr)
            kernels.run(["dpkg-deb", "-x", str(deb), str(scratch / "tree")])
            kernels.run(["tar", "-C", str(scratch), "-xf",
                         str(scratch / f"tree/usr/src/linux-source-{_SERIES}.tar.xz")])
            final.mkdir(exist_ok=True)
            (scratch / f"linux-source-{_SERIES}").rename(final / "source")
    return final


def _configure(source):
    fragment = _FRAGMENT.read_text(encoding="ascii")
    config = source / ".config"
    kernels.run(["make", "-s", "-C", str(source), f"KCONFIG_ALLCONFIG={_FRAGMENT}",
                 "allnoconfig"])
    wrong = wrong_options(fragment, config.read_text(encoding="ascii"))
    if wrong:
        raise Error(f"{_FRAGMENT.name}: this kernel's configuration does not take "
                    + ", ".join(wrong))


def _install(final, source):
    release = kernels.run(["make", "-s", "-C", str(source), "kernelrelease"]).strip()
    kernels.run(["make", "-s", "-C", str(source), "modules_install",
                 f"INSTALL_MOD_PATH={final}"])
    modules = final / "lib/modules" / release
    for name in ("build", "source"):
        (modules / name).unlink(missing_ok=True)
    # The objects are most of the folder, and modules need none of them.
    for folder in sorted(source.iterdir()):
        if folder.is_dir() and folder.name not in ("include", "scripts", "tools"):
            for path in folder.rglob("*.[oa]"):
                path.unlink()
    (source / "vmlinux.o").unlink(missing_ok=True)
    kernels.make_link(final / "headers", "source")
    kernels.make_link(final / "vmlinuz", "source/arch/x86/boot/bzImage")
    kernels.make_link(final.parent / kernels.DEBUG, final.name)
    # Those of earlier sources and configurations.
    for other in final.parent.glob(_KEY % ("*", "*")):
        if other != final:
            shutil.rmtree(other)


def build():
    """Returns the folder of the debug kernel, building it when it is not there."""
    final = current()
    if final:
        return final
    for tool, package in (("flex", "flex"), ("bison", "bison"), ("bc", "bc"),
                          ("make", "make"), ("xz", "xz-utils")):
        if not shutil.which(tool):
            raise Error(f"{tool} is missing for the debug kernel: apt-get install {package}")
    final = _interrupted() or _unpack(lambda version: kernels.folder() / _key(version))
    source = final / "source"
    _configure(source)
    print("vm: building the debug kernel; this takes a quarter of an hour", file=sys.stderr)
    command = ["make", "-s", "-C", str(source), "-j" + os.environ.get("KEVENT_JOBS", "2"),
               "bzImage", "modules"]
    environ = {**os.environ, "KBUILD_BUILD_TIMESTAMP": "1970-01-01",
               "KBUILD_BUILD_USER": "kevent", "KBUILD_BUILD_HOST": "vm"}
    if subprocess.run(command, env=environ, stdout=2, check=False).returncode != 0:
        raise Error("the debug kernel does not build; see above")
    _install(final, source)
    return final
