"""Runs a command as if this machine had the ocserv and openconnect of another Debian.

    releases.py run --ocserv 1.5.0 [--openconnect 9.21] COMMAND...
    releases.py programs     each release's versions and programs, fetched where they are not here

A release's programs come with all libraries down to libc from the Debian that has them, by this
machine's mirror, without being installed: unpacked into a root of their own once (35 MB to fetch,
three seconds), kept under /var/tmp/ocgate-releases. Copies of the programs name that root's loader
and directories of libraries in themselves (patchelf(1)), and so they run outside of it: with this
machine's kernel, files and network namespaces, started by any name, and what they start in their
turn (hooks, scripts) is this machine's again. ocserv looks for ocserv-worker beside itself: it
finds its own.

`run` binds these copies over the machine's programs in a mount namespace of the command, which is
told of what is unmounted elsewhere and tells nothing; nothing else on the machine sees them.

What Debian has in a suite moves on. A release that is not to be had any more is refused with the
reason (exit status 104; 105 where it could not be fetched), never another one under its name.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CACHE = Path("/var/tmp/ocgate-releases")

# What is fetched of each; base-files has the links /bin -> usr/bin, with which one can chroot.
PACKAGES = ("ocserv", "openconnect", "nftables", "base-files")

# The programs, where Debian has them, and so over what `run` binds them.
OCSERV = ("usr/sbin/ocserv", "usr/sbin/ocserv-worker", "usr/bin/occtl", "usr/bin/ocpasswd")
OPENCONNECT = ("usr/sbin/openconnect",)
NFT = ("usr/sbin/nft",)  # never bound: what another container may have beside us

# Raise when a release's directory changes without a change of what stands above.
FORMAT = 1

MOVED_ON, UNAVAILABLE = 104, 105  # exit statuses that no pytest and no shell has

_VERSION = re.compile(r"[0-9]+(\.[0-9]+)+")

# <sched.h>, <sys/mount.h>
_CLONE_NEWNS = 0x20000
_MS_BIND, _MS_REC, _MS_SLAVE = 0x1000, 0x4000, 0x80000


@dataclass(frozen=True)
class Release:
    """One Debian and what it has: versions as the programs tell them."""

    suite: str
    ocserv: str
    openconnect: str


RELEASES = (
    Release("bookworm", ocserv="1.1.6", openconnect="9.01"),
    Release("trixie", ocserv="1.3.0", openconnect="9.12"),
    Release("forky", ocserv="1.5.0", openconnect="9.21"),
)


class Unavailable(Exception):
    """A release that can't be had here; the words say why."""


class MovedOn(Unavailable):
    """Nor anywhere else: its suite has another one now."""


def version_of(program: str) -> str:
    """What this machine's own tells; "" where it has none."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    found = _VERSION.search(done.stdout or done.stderr)
    return found[0] if found else ""


def of_ocserv(version: str) -> Release:
    """Raises Unavailable for one that no row has."""
    return _row(version, {row.ocserv: row for row in RELEASES}, "ocserv")


def of_openconnect(version: str) -> Release:
    """Raises Unavailable for one that no row has."""
    return _row(version, {row.openconnect: row for row in RELEASES}, "openconnect")


def _row(version: str, rows: dict[str, Release], program: str) -> Release:
    if version not in rows:
        raise Unavailable(f"{program} {version}: not known; there is {', '.join(rows)}")
    return rows[version]


# --- fetched once -------------------------------------------------------------------------------


def directory(release: Release) -> Path:
    """The release's directory: `root`, as it was unpacked but for libraries that have others in
    places of their own, and `bin` with the programs that run here. Made at the first call; raises
    Unavailable."""
    place = CACHE / release.suite
    stamp = place / "made"
    if _stamp(release) == _read(stamp):
        return place
    CACHE.mkdir(mode=0o755, exist_ok=True)
    # Anybody may make directories in /var/tmp, and what is in this one runs as root.
    if CACHE.stat().st_uid not in (0, os.geteuid()):
        raise Unavailable(f"{CACHE} belongs to uid {CACHE.stat().st_uid}: remove it")
    with (CACHE / f"{release.suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two first calls at once one waits
        if _stamp(release) != _read(stamp):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            _fetch(release.suite, place)
            _unpack(place)
            _make_programs(place)
            _compare(release, place)
            stamp.write_text(_stamp(release))
    return place


def _stamp(release: Release) -> str:
    return f"{FORMAT} {release} {PACKAGES}"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _fetch(suite: str, place: Path) -> None:
    """The packages and all that they depend on, by apt with a state of its own."""
    mirror = _call("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages",
                   "Label: Debian").split("\n")[0]  # fmt: skip
    if not mirror:
        raise Unavailable("this machine's apt sources name no Debian mirror")
    state = place / "apt"
    for below in ("lists/partial", "archives/partial"):
        (state / below).mkdir(parents=True)
    (state / "status").touch()
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (state / "sources.list").write_text(f"deb [signed-by={key}] {mirror} {suite} main\n")
    settings = {
        "Dir::Etc::SourceList": state / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::State": state,
        "Dir::State::Lists": state / "lists",
        "Dir::State::Status": state / "status",
        "Dir::Cache": state,
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "false",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    _call("apt-get", *options, "-q", "update")
    _call("apt-get", *options, "-q", "-y", "--download-only", "install", *PACKAGES)


def _unpack(place: Path) -> None:
    root = place / "root"
    root.mkdir()
    for package in sorted((place / "apt/archives").glob("*.deb")):
        _call("dpkg-deb", "--extract", str(package), str(root))
    shutil.rmtree(place / "apt")


def _make_programs(place: Path) -> None:
    """`bin`: programs that load what they need from `root`, wherever they are started."""
    root, programs = place / "root", place / "bin"
    files = [path for path in root.rglob("*.so*") if _is_program(path)]
    loader = next(path for path in files if path.name.startswith("ld-linux"))
    homes = {path.parent for path in root.rglob("libc.so.6")}
    homes |= {path.parent for path in root.rglob("libgnutls.so.30")}  # /lib and /usr/lib are two
    search = ":".join(str(home) for home in sorted(homes))
    for library in files:  # those that look for others in a place of their own (libproxy)
        if there := _call("patchelf", "--print-rpath", str(library)):
            places = ":".join(f"{root}{each}" for each in there.split(":"))
            _call("patchelf", "--set-rpath", f"{places}:{search}", str(library))
    programs.mkdir()
    for name in (*OCSERV, *OPENCONNECT, *NFT):
        copy = programs / Path(name).name
        shutil.copy(root / name, copy)
        # RPATH and not RUNPATH: it counts for the libraries of libraries, too (ld.so(8)).
        _call("patchelf", "--set-interpreter", str(loader), "--force-rpath", "--set-rpath", search,
              str(copy))  # fmt: skip


def _is_program(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _compare(release: Release, place: Path) -> None:
    """Raises MovedOn."""
    for program, wanted in (("ocserv", release.ocserv), ("openconnect", release.openconnect)):
        version = version_of(str(place / "bin" / program))
        if version != wanted:
            raise MovedOn(
                f"{program} {wanted}: Debian {release.suite} has {version} now; "
                f"its row in setup/releases.py wants another look"
            )


def _call(*command: str) -> str:
    """What it prints, without the last newline; raises Unavailable with its words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Unavailable(f"needs {command[0]} (./test --set-up installs it)") from error
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise Unavailable(f"{command[0]}: {' '.join(words)}")
    return (done.stdout or done.stderr).strip()


# --- run ----------------------------------------------------------------------------------------


def bindings(ocserv: str | None, openconnect: str | None) -> Iterator[tuple[Path, Path]]:
    """(program of the release, over what it is bound)."""
    wanted: list[tuple[Release, tuple[str, ...]]] = []
    if ocserv:
        wanted.append((of_ocserv(ocserv), OCSERV))
    if openconnect:
        wanted.append((of_openconnect(openconnect), OPENCONNECT))
    for release, programs in wanted:
        place = directory(release)
        for name in programs:
            yield place / "bin" / Path(name).name, Path("/", name)


def run(ocserv: str | None, openconnect: str | None, command: Sequence[str]) -> None:
    """Becomes `command`; raises Unavailable, OSError."""
    pairs = list(bindings(ocserv, openconnect))
    absent = [str(over) for _, over in pairs if not over.exists()]
    if absent:
        raise Unavailable(f"nothing to bind over: {', '.join(absent)} (./test --set-up)")
    libc = ctypes.CDLL(None, use_errno=True)
    _must(libc.unshare(_CLONE_NEWNS), "unshare")
    _must(libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None), "mount --make-rslave /")
    for program, over in pairs:
        done = libc.mount(os.fsencode(program), os.fsencode(over), None, _MS_BIND, None)
        _must(done, f"mount --bind {program} {over}")
    os.execvp(command[0], list(command))


def _must(status: int, what: str) -> None:
    if status:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def main(arguments: Sequence[str]) -> int:
    """See the module's words."""
    parser = argparse.ArgumentParser(prog="releases.py")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("programs")
    one = verbs.add_parser("run")
    one.add_argument("--ocserv", metavar="VERSION")
    one.add_argument("--openconnect", metavar="VERSION")
    one.add_argument("command", nargs=argparse.REMAINDER)
    said = parser.parse_args(arguments)
    try:
        if said.verb == "run":
            run(said.ocserv, said.openconnect, said.command)
        for row in RELEASES:
            print(row.ocserv, row.openconnect, directory(row) / "bin", sep="\t")
    except (Unavailable, OSError) as error:
        print(f"releases: {error}", file=sys.stderr)
        return MOVED_ON if isinstance(error, MovedOn) else UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
