# SPDX-License-Identifier: Apache-2.0
"""The test kernels: Debian's packages, unpacked into the cache, never installed.

A kernel lies in CACHE/kernels/VERSION, VERSION being that of its packages:

  vmlinuz            a link to the image
  lib/modules/...    its modules
  headers            a link to what modules are built against

CACHE/kernels/SERIES is a link to the version in use.
"""

import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

SERIES = ("6.1", "6.12")
DEBUG = "debug"

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# The plain amd64 flavour: "6.1.0-56-amd64", "6.12.9+bpo-amd64", not "-rt-amd64".
_RELEASE = r"\d+(?:[-+][0-9a-z]+)?-amd64"


class Error(Exception):
    """Something that the user can mend; the message says how."""


def folder():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(cache) / "kevent" / "kernels"


# ---- Choosing among packages ----


def _character_order(character):
    """Debian's order: '~' before the end of the string, letters, then the rest."""
    if character == "~":
        return -1
    return ord(character) if character.isalpha() else ord(character) + 256


def _compare_parts(a, b):
    while a or b:
        digits_a, digits_b = (re.match(r"\D*", s).end() for s in (a, b))
        text_a, text_b = ([_character_order(c) for c in s] + [0]
                          for s in (a[:digits_a], b[:digits_b]))
        if text_a != text_b:
            return -1 if text_a < text_b else 1
        a, b = a[digits_a:], b[digits_b:]
        end_a, end_b = (re.match(r"\d*", s).end() for s in (a, b))
        number_a, number_b = int(a[:end_a] or 0), int(b[:end_b] or 0)
        if number_a != number_b:
            return -1 if number_a < number_b else 1
        a, b = a[end_a:], b[end_b:]
    return 0


def compare_versions(a, b):
    """Orders two versions as deb-version(7) says: -1, 0 or 1."""

    def split(version):
        epoch, _, rest = version.rpartition(":")
        upstream, _, revision = rest.rpartition("-")
        return (int(epoch or 0), upstream, revision) if upstream else (int(epoch or 0), rest, "")

    (epoch_a, *parts_a), (epoch_b, *parts_b) = split(a), split(b)
    if epoch_a != epoch_b:
        return -1 if epoch_a < epoch_b else 1
    return _compare_parts(parts_a[0], parts_b[0]) or _compare_parts(parts_a[1], parts_b[1])


def parse_packages(text):
    """Returns {package: {version: Depends}} of `apt-cache show` output."""
    packages = {}
    for stanza in text.split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z]+): (.*)$", stanza, re.MULTILINE))
        if "Package" in fields and "Version" in fields:
            versions = packages.setdefault(fields["Package"], {})
            versions[fields["Version"]] = fields.get("Depends", "")
    return packages


def choose(packages, series):
    """Returns (version, packages to unpack) of the newest kernel of a series.

    It has image and headers of the same version; None if there is none. The
    headers' own dependencies tell what they are made of.
    """
    name = re.compile(r"linux-image-(%s\.%s)" % (re.escape(series), _RELEASE) + r"(?:-unsigned)?")
    best = None
    for image in sorted(packages):
        match = name.fullmatch(image)
        headers = "linux-headers-" + match.group(1) if match else ""
        for version in packages[image] if match else []:
            depends = packages.get(headers, {}).get(version)
            if depends is None:
                continue
            parts = re.findall(r"linux-(?:headers|kbuild)-[-+.\w]+", depends)
            if not parts or not all(version in packages.get(part, {}) for part in parts):
                continue
            # A signed image comes before its unsigned twin, and stays.
            if best is None or compare_versions(version, best[0]) > 0:
                best = version, [image, headers] + parts
    return best


def newest(versions):
    return max(versions, key=functools.cmp_to_key(compare_versions), default=None)


# ---- apt ----


def run(command, **kwargs):
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, check=False, **kwargs)
    if result.returncode != 0:
        raise Error(f"{' '.join(command[:2])} failed:\n{(result.stderr or result.stdout).strip()}")
    return result.stdout


def backports_sources(targets):
    """Returns the deb lines of the backports of the machine's own Debian suites.

    `targets` are lines "URI CODENAME" of Debian's own archives; those of
    updates ("bookworm-updates") have no backports.
    """
    lines = []
    for target in sorted(set(targets)):
        uri, _, codename = target.partition(" ")
        if re.fullmatch("[a-z]+", codename):
            lines.append(f"deb [signed-by={_KEYRING}] {uri} {codename}-backports main")
    return lines


class _Apt:
    """apt with options that leave the machine's own state alone."""

    def __init__(self, options=()):
        self._options = [part for option in options for part in ("-o", option)]

    def update(self):
        run(["apt-get", *self._options, "update", "-qq"])

    def debian_targets(self):
        return run(["apt-get", *self._options, "indextargets", "--format",
                     "$(REPO_URI) $(CODENAME)", "Created-By: Packages",
                     "Origin: Debian", "Label: Debian"]).splitlines()

    def packages(self, pattern):
        names = run(["apt-cache", *self._options, "search", "--names-only", pattern]).split("\n")
        names = [line.split(" ")[0] for line in names if line]
        if not names:
            return {}
        # Some names are provided, and not packages themselves: not an error.
        shown = subprocess.run(["apt-cache", *self._options, "show", *names],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               text=True, check=False)
        return parse_packages(shown.stdout)

    def download(self, version, packages, target):
        run(["apt-get", *self._options, "-o", "APT::Sandbox::User=root", "-qq", "download",
              *(f"{package}={version}" for package in packages)], cwd=target)


def _apts(scratch):
    """Yields ways to ask apt, from the plainest on, each ready for use."""
    yield _Apt()
    # Lists of our own: the machine's may be missing, or older than its mirrors.
    for part in ("lists/partial", "cache/archives/partial"):
        (scratch / "apt" / part).mkdir(parents=True)
    options = [f"Dir::State={scratch}/apt", f"Dir::Cache={scratch}/apt/cache",
               "Dir::State::status=/var/lib/dpkg/status", "APT::Sandbox::User=root"]
    apt = _Apt(options)
    apt.update()
    yield apt
    lines = backports_sources(apt.debian_targets())
    if lines:
        sources = scratch / "apt" / "sources.list"
        sources.write_text("\n".join(lines) + "\n", encoding="ascii")
        apt = _Apt(options + [f"Dir::Etc::sourcelist={sources}", "Dir::Etc::sourceparts=-"])
        apt.update()
        yield apt


def download(scratch, pattern, select):
    """Downloads what `select` chooses among the packages that match.

    `select` takes what parse_packages returns and returns (version, packages), or
    None. Returns (version, list of .deb files), or None when no source of packages
    has what it looks for.
    """
    failure = None
    for apt in _apts(scratch):
        choice = select(apt.packages(pattern))
        if not choice:
            continue
        version, packages = choice
        target = scratch / "packages"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        try:
            if packages:
                apt.download(version, packages, target)
        except Error as error:
            failure = error
            continue
        return version, sorted(target.iterdir())
    if failure:
        raise failure
    return None


# ---- The cache ----


def _unpack(debs, target):
    for deb in debs:
        run(["dpkg-deb", "-x", str(deb), str(target)])


def make_link(path, target):
    """Makes or replaces a symbolic link in one step."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(path)


def _only(pattern, directory):
    found = sorted(directory.glob(pattern))
    if len(found) != 1:
        raise Error(f"{directory}: not one {pattern} but {len(found)}: remove the folder")
    return found[0]


def _arrange(tree, final):
    """Makes an unpacked kernel work at the place `final` where it will lie."""
    image = _only("boot/vmlinuz-*", tree)
    release = image.name[len("vmlinuz-"):]
    headers = tree / "usr/src" / ("linux-headers-" + release)
    makefile = headers / "Makefile"
    # It includes that of the common headers by its absolute path.
    text = makefile.read_text(encoding="utf-8")
    makefile.write_text(text.replace("include /usr/src/", f"include {final}/usr/src/"),
                        encoding="utf-8")
    # Links to folders of the installed system.
    modules = tree / "lib/modules" / release
    for name in ("build", "source"):
        (modules / name).unlink(missing_ok=True)
    # With it kbuild wants pahole, to describe types that no test looks at.
    (headers / "vmlinux").unlink(missing_ok=True)
    run(["/sbin/depmod", "-b", str(tree), release])
    make_link(tree / "vmlinuz", image.relative_to(tree))
    make_link(tree / "headers", headers.relative_to(tree))


def fetch(series, refresh=False):
    """Returns the folder of a kernel, downloading it when it is not in the cache.

    With `refresh` a newer version in apt replaces the one in use.
    """
    cache = folder()
    link = cache / series
    if (link / "vmlinuz").exists() and not refresh:
        return link.resolve()
    if re.search(r"[\s:]", str(cache)):
        raise Error(f"{cache}: kbuild cannot work in a path with blanks or colons;"
                    " set XDG_CACHE_HOME to another")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=cache) as scratch:
        scratch = pathlib.Path(scratch)
        print(f"vm: looking for kernel {series}", file=sys.stderr)

        def select(packages):
            choice = choose(packages, series)
            if choice and (cache / choice[0]).exists():
                return choice[0], []
            return choice

        found = download(
            scratch, rf"^linux-(image|headers|kbuild)-{re.escape(series)}(\.|$)", select)
        if not found:
            raise Error(f"no package linux-image-{series}.*-amd64 in this machine's apt sources,"
                        " nor in the backports of its Debian")
        version, debs = found
        final = cache / version
        if not final.exists():
            print(f"vm: unpacking kernel {version} into {final}", file=sys.stderr)
            tree = scratch / "tree"
            _unpack(debs, tree)
            _arrange(tree, final)
            tree.rename(final)
        make_link(link, version)
    return link.resolve()


def versions():
    """What the cache holds: one line that changes with it."""
    links = (folder() / name for name in (*SERIES, DEBUG))
    return " ".join(f"{link.name}={link.resolve().name}" for link in links if link.exists())
