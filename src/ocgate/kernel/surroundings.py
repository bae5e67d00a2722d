"""Looks at what this process was given: capabilities, device, sysctls, mounts, limits. Changes
nothing. The wiring of both roles asks here before it touches anything."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterable
from pathlib import Path

from ocgate.errors import MissingRequirement
from ocgate.kernel import sysctl
from ocgate.plan import requirements
from ocgate.plan.requirements import FORWARDING, Place, Setting, Surroundings, Tun
from ocgate.plan.sysctls import Sysctl, path_of

TUN = Path("/dev/net/tun")
STATUS = Path("/proc/self/status")
CGROUPS = Path("/sys/fs/cgroup")

# Bits of CapEff (linux/capability.h).
BITS = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "DAC_READ_SEARCH": 2,
    "FOWNER": 3,
    "FSETID": 4,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "NET_BIND_SERVICE": 10,
    "NET_ADMIN": 12,
    "NET_RAW": 13,
    "SYS_CHROOT": 18,
    "AUDIT_WRITE": 29,
}

# What the kernel says of a device that the container may not open: by its cgroup, or its mode.
_FORBIDDEN = frozenset({errno.EPERM, errno.EACCES})


def require(
    run_dir: Path, config_dir: Path | None = None, sysctls: Iterable[Sysctl] = (FORWARDING,)
) -> None:
    """Raises MissingRequirement that names all that is missing, with the flags that give it.

    config_dir: only where it is to be written to, at a first start.
    """
    wanted = tuple(sysctls)
    found = observe(run_dir, config_dir, [one.key for one in wanted])
    lacks = requirements.lacking(found, wanted)
    if lacks:
        several = len(lacks) > 1
        raise MissingRequirement(
            requirements.message(lacks), hint=requirements.hint(lacks) if several else ""
        )


def observe(run_dir: Path, config_dir: Path | None, sysctls: Iterable[str]) -> Surroundings:
    """What there is now."""
    return Surroundings(
        capabilities=held("CapEff"),
        tun=tun(),
        sysctls={key: Setting(sysctl.read(key), _may_set(key)) for key in sysctls},
        run_dir=_place(run_dir),
        config_dir=None if config_dir is None else _place(config_dir),
        tasks=_tasks(),
        files=_files(),
    )


def held(which: str) -> frozenset[str]:
    """Names of the capabilities in one of this process's sets: CapEff, CapBnd (proc(5))."""
    lines = STATUS.read_text("ascii", "replace").splitlines()
    text = next((line.split()[1] for line in lines if line.startswith(f"{which}:")), "0")
    mask = int(text, 16)
    return frozenset(name for name, bit in BITS.items() if mask >> bit & 1)


def tun() -> Tun:
    """Whether tunnels can be made."""
    try:
        os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))  # makes no device without TUNSETIFF
    except FileNotFoundError:
        return Tun.ABSENT
    except OSError as error:
        return Tun.FORBIDDEN if error.errno in _FORBIDDEN else Tun.UNSUPPORTED
    return Tun.USABLE


def _may_set(key: str) -> bool:
    """By mode and mount; the kernel may still refuse, and `sysctl.ensure` says so then."""
    return os.access(sysctl.ROOT / path_of(key), os.W_OK)


def _place(path: Path) -> Place:
    """Asked of the nearest directory that exists: the rest is made there."""
    there = next(one for one in (path, *path.parents) if one.exists())
    executable = not os.statvfs(there).f_flag & os.ST_NOEXEC
    return Place(path, os.access(there, os.W_OK), executable)


def _tasks() -> int | None:
    """The tightest of this container's limits: its cgroup (v2, v1), and the account's."""
    found = [_number(CGROUPS / name) for name in ("pids.max", "pids/pids.max")]
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    limits = [limit for limit in (*found, soft) if limit is not None and limit >= 0]
    return min(limits, default=None)


def _files() -> int | None:
    """What a process may have, now: nobody raises it."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def _number(path: Path) -> int | None:
    """A cgroup's number; None for `max` or where there is none."""
    try:
        text = path.read_text("ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
