"""Network namespaces: create, enter, configure, delete, and sweep those of crashed runs.

A namespace is bind-mounted under /run/netns, so that a person can look into a running test with
`ip netns exec`, and its name carries the owner: ``ocg-PID-START-SERIAL-ROLE`` (START is the owner's
start time in ticks, which makes a reused pid harmless). Only the calling thread moves into a
namespace (setns(2) is per thread); sockets and children made there stay there. The lab's other
modules import this; nothing here knows a topology.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import itertools
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

NETNS_DIR = Path("/run/netns")  # where iproute2 looks for names
PREFIX = "ocg-"
OWN_NETNS = "/proc/thread-self/ns/net"  # /proc/self would be the main thread's

# <linux/sched.h>, <linux/mount.h>; os.unshare and os.setns come only with Python 3.12.
_CLONE_NEWNET = 0x4000_0000
_MS_BIND, _MS_REC, _MS_SHARED = 0x1000, 0x4000, 0x10_0000
_MNT_DETACH = 2
_LIBC = ctypes.CDLL(None, use_errno=True)
_SERIAL = itertools.count()


class CommandFailed(AssertionError):
    """A command of the lab itself failed; the message can be pasted and carries its words."""


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


@contextlib.contextmanager
def _returning() -> Iterator[None]:
    """Whatever namespace the body moves this thread to, come back at the end."""
    home = os.open(OWN_NETNS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        _checked(_LIBC.setns(home, _CLONE_NEWNET), "setns back home")
        os.close(home)


@dataclass(frozen=True)
class Namespace:
    """A network namespace, held open by a file descriptor.

    name: the file's name under /run/netns; empty for an anonymous one.
    fd:   keeps it alive and is what setns(2) takes.
    """

    name: str
    fd: int = field(repr=False)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Move this thread (only) inside; sockets, children and threads begun there stay there."""
        with _returning():
            _checked(_LIBC.setns(self.fd, _CLONE_NEWNET), f"setns {self.name}")
            yield

    def run(
        self, argv: Sequence[str], *, text: str = "", timeout: float = 20.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end with `text` on stdin; raises CommandFailed on rc != 0 unless told."""
        with self.entered():
            done = subprocess.run(
                list(argv), input=text, capture_output=True, text=True, timeout=timeout, check=False
            )
        if check and done.returncode != 0:
            raise CommandFailed(
                f"{self.name}: {' '.join(argv)}: rc {done.returncode}\n{text}{done.stderr}"
            )
        return done

    def ip(self, *lines: str, v6: bool = False) -> None:
        """Apply `ip` commands in one batch, in order; the first refusal stops it and raises.

        v6: `ip -6`, for what doesn't tell its family by an address of its own: rules, `default`.
        """
        family = ["-6"] if v6 else []
        text = "".join(f"{line}\n" for line in lines)
        self.run(["ip", *family, "-batch", "-"], text=text)

    def nft(self, ruleset: str) -> None:
        """Apply an nft script in one transaction."""
        self.run(["nft", "-f", "-"], text=ruleset)

    def sysctl(self, key: str, value: object = None) -> str:
        """Set (unless `value` is None) and return a sysctl; `key` uses slashes or dots.

        Interface names with dots need the slash form.
        """
        path = Path("/proc/sys") / (key if "/" in key else key.replace(".", "/"))
        with self.entered():  # /proc/sys/net shows the namespace of the thread that opens it
            if value is not None:
                path.write_text(f"{value}\n")
            return path.read_text().strip()

    def inode(self) -> int:
        """The number in `net:[N]`: what tells two namespaces apart."""
        return os.fstat(self.fd).st_ino

    def pids(self) -> list[int]:
        """Other processes whose main thread is in here, ascending."""
        return _pids_in({self.inode()})

    def close(self) -> None:
        """Give up name and descriptor; the kernel removes it with the last process and socket."""
        os.close(self.fd)
        if self.name:
            _unmount(NETNS_DIR / self.name)


def _pids_in(inodes: set[int]) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # gone meanwhile, or a zombie
            if (entry / "ns/net").stat().st_ino in inodes:
                found.append(int(entry.name))
    return sorted(found)


def _unmount(path: Path) -> None:
    # Detached, because a program with private mounts may still hold a copy.
    _LIBC.umount2(os.fsencode(path), _MNT_DETACH)
    path.unlink(missing_ok=True)


def _prepare_directory() -> None:
    """Make /run/netns a shared mount as `ip netns add` does, so that unmounting reaches everyone.

    Without it a process with a private mount namespace would keep deleted namespaces alive.
    """
    NETNS_DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
    lock = os.open(NETNS_DIR, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two workers must not both bind it onto itself
        target = os.fsencode(NETNS_DIR)
        if _LIBC.mount(b"", target, b"none", _MS_SHARED | _MS_REC, None) != 0:
            _checked(_LIBC.mount(target, target, b"none", _MS_BIND | _MS_REC, None), "bind netns")
            _checked(_LIBC.mount(b"", target, b"none", _MS_SHARED | _MS_REC, None), "share netns")
    finally:
        os.close(lock)


def _start_ticks(pid: int) -> int:
    """Start time of a process in clock ticks since boot: field 22 of /proc/PID/stat, proc(5)."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[19])


def owner_prefix() -> str:
    """What names of this process's namespaces and work directories begin with."""
    return f"{PREFIX}{os.getpid()}-{_start_ticks(os.getpid()):x}-"


def next_prefix() -> str:
    """A prefix that nothing else on this machine uses, for one lab."""
    return f"{owner_prefix()}{next(_SERIAL)}-"


def is_stale(name: str) -> bool:
    """Does `name` carry an owner that no longer lives? False for foreign names."""
    parts = name.removeprefix(PREFIX).split("-")
    if not name.startswith(PREFIX) or len(parts) < 3 or not parts[0].isdecimal():
        return False
    try:
        return f"{_start_ticks(int(parts[0])):x}" != parts[1]
    except OSError:
        return True


def create(name: str) -> Namespace:
    """A new namespace under /run/netns/`name`, loopback up."""
    _prepare_directory()
    path = NETNS_DIR / name
    path.touch(mode=0o444, exist_ok=False)
    with _returning():
        _checked(_LIBC.unshare(_CLONE_NEWNET), "unshare")
        source = os.fsencode(OWN_NETNS)
        _checked(_LIBC.mount(source, os.fsencode(path), b"none", _MS_BIND, None), "bind mount")
        made = Namespace(name, os.open(OWN_NETNS, os.O_RDONLY | os.O_CLOEXEC))
    made.ip("link set lo up")
    return made


@contextlib.contextmanager
def isolated() -> Iterator[Namespace]:
    """A fresh anonymous namespace with this thread inside it until the end of the block."""
    with _returning():
        _checked(_LIBC.unshare(_CLONE_NEWNET), "unshare")
        made = Namespace("", os.open(OWN_NETNS, os.O_RDONLY | os.O_CLOEXEC))
        try:
            made.ip("link set lo up")
            yield made
        finally:
            kill(made.pids())
            made.close()


def kill(pids: Sequence[int]) -> None:
    """SIGKILL by pid; those that are gone already are fine."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def owned() -> list[str]:
    """Names under /run/netns that this process has made and not yet deleted."""
    if not NETNS_DIR.is_dir():
        return []
    return sorted(p.name for p in NETNS_DIR.iterdir() if p.name.startswith(owner_prefix()))


def sweep() -> list[str]:
    """Delete namespaces whose owner died, with the processes in them; returns their names."""
    if not NETNS_DIR.is_dir():
        return []
    stale = sorted(path for path in NETNS_DIR.iterdir() if is_stale(path.name))
    for path in stale:
        with contextlib.suppress(OSError):  # another worker sweeps the same
            kill(_pids_in({path.stat().st_ino}))
            _unmount(path)
    return [path.name for path in stale]
