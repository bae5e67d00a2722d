"""A control group around some of the lab's processes: the limits that a container has."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable
from pathlib import Path

_PREFIX = "ocgate-lab-"
_NUMBERS = itertools.count()
UNLIMITED = -1


class NoCgroup(OSError):
    """This machine has no writable cgroup hierarchy with that controller."""


class Cgroup:
    """One group below this process's own, so that limits which hold here hold there, too.

    controller: memory, pids or cpu; in whichever version of cgroups the machine has it.
    """

    def __init__(self, controller: str) -> None:
        self._parent, self._v2 = _hierarchy(controller)
        _sweep(self._parent)
        self._path = self._parent / f"{_PREFIX}{os.getpid()}-{next(_NUMBERS)}"
        self._path.mkdir()

    def add(self, pids: Iterable[int]) -> None:
        """These processes, and all that they start from now on; those that are gone are passed."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                (self._path / "cgroup.procs").write_text(f"{pid}\n")

    def pids(self) -> list[int]:
        return [int(line) for line in (self._path / "cgroup.procs").read_text().split()]

    def count(self) -> int:
        """Tasks in it, threads too: what `most_tasks` limits."""
        return int((self._path / "pids.current").read_text())

    def most_tasks(self, number: int) -> None:
        self._write("pids.max", "max" if number == UNLIMITED else str(number))

    def most_memory(self, size: int) -> None:
        """Bytes; beyond them the kernel ends one of the group's processes."""
        if self._v2:
            self._write("memory.max", "max" if size == UNLIMITED else str(size))
        else:
            self._write("memory.limit_in_bytes", str(size))

    def most_cpu(self, share: float) -> None:
        """Of one CPU, in slices of 100 ms; 0.05: 5 ms of each."""
        quota = UNLIMITED if share == UNLIMITED else int(share * 100_000)
        if self._v2:
            self._write("cpu.max", f"{'max' if quota == UNLIMITED else quota} 100000")
        else:
            self._write("cpu.cfs_quota_us", str(quota))

    def _write(self, file: str, text: str) -> None:
        (self._path / file).write_text(text)

    def close(self) -> None:
        """Whoever is still in it goes back to the group above; twice is fine."""
        if not self._path.exists():
            return
        for pid in self.pids():
            with contextlib.suppress(OSError):
                (self._parent / "cgroup.procs").write_text(f"{pid}\n")
        self._path.rmdir()


def _sweep(parent: Path) -> None:
    """Remove the groups of runs that were killed: they are empty, or stay."""
    for path in parent.glob(f"{_PREFIX}*"):
        pid = path.name.removeprefix(_PREFIX).partition("-")[0]
        if not Path("/proc", pid).exists():
            with contextlib.suppress(OSError):
                path.rmdir()


def _hierarchy(controller: str) -> tuple[Path, bool]:
    """The directory for a new group, and whether it is version 2."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup" and controller in options.split(","):
            return _writable(Path(place) / _own_group(controller).lstrip("/"), controller), False
        if kind == "cgroup2":
            enabled = Path(place) / "cgroup.subtree_control"
            if enabled.exists() and controller in enabled.read_text().split():
                return _writable(Path(place), controller), True
    raise NoCgroup(f"no cgroup hierarchy with {controller} is mounted")


def _own_group(controller: str) -> str:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return "/"


def _writable(path: Path, controller: str) -> Path:
    if not os.access(path, os.W_OK) or os.statvfs(path).f_flag & os.ST_RDONLY:
        raise NoCgroup(f"{path} ({controller}) can't be written")
    return path
