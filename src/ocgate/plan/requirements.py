"""What a container or machine must give ocgate, judged at once: pure. `kernel.surroundings` looks.

Each lack is told with the flag of `docker run` and the key of a compose service that give it, and
all of them together, so that nobody is sent round one at a time. What only a configuration needs
(IPv6, a port below 1024) is asked where that is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ocgate.plan.sysctls import Sysctl

# Processes and threads: the ten that stand at rest, control's threads, a hook and `ocserv -t` at
# the same time; each session is one more.
FEWEST_TASKS = 48
# Descriptors of one process: ocserv's main holds a socket per session besides 20 of its own, and
# control about 40. Every system gives 1024 unless told otherwise.
FEWEST_FILES = 256


class Tun(Enum):
    """What opening /dev/net/tun came to."""

    USABLE = "usable"
    ABSENT = "is not there"
    FORBIDDEN = "may not be opened here"
    UNSUPPORTED = "is there, but this kernel has no tun driver"


@dataclass(frozen=True)
class Place:
    """A directory, or the nearest one above it that exists."""

    path: Path
    writable: bool
    executable: bool = True


@dataclass(frozen=True)
class Setting:
    """A sysctl as found: None where this kernel has none; may_set: whether we may write it."""

    value: str | None
    may_set: bool


@dataclass(frozen=True)
class Surroundings:
    """What was found.

    capabilities: effective ones of this process, as `NET_ADMIN`.
    sysctls:      by key, those that were asked about.
    tasks, files: limits of processes and threads together, and of descriptors; None: no limit.
    """

    capabilities: frozenset[str]
    tun: Tun
    sysctls: Mapping[str, Setting]
    run_dir: Place
    config_dir: Place | None
    tasks: int | None = None
    files: int | None = None


@dataclass(frozen=True)
class Lack:
    """what: a clause with its reason. flag: of `docker run`. compose: of a service. host: on a
    machine of one's own, where that differs from `flag` and helps; else ''."""

    what: str
    flag: str
    compose: str
    host: str = ""

    def __str__(self) -> str:
        host = f"   on a host: {self.host}" if self.host else ""
        return f"{self.what}\n    docker run {self.flag}   compose: {self.compose}{host}"


# Why each capability; docker gives all of them but the first unless told to drop them.
CAPABILITIES: Mapping[str, str] = {
    "NET_ADMIN": "tunnels, routes and the guard in nftables",
    "CHOWN": "sockets and files are given to the account that workers run as",
    "DAC_OVERRIDE": "configuration and sockets that belong to other accounts",
    "KILL": "sessions are ended by ending workers, which run as another account",
    "SETGID": "workers give up root",
    "SETUID": "workers give up root",
}

# Both roles let others' packets through.
FORWARDING = Sysctl("net.ipv4.ip_forward", "1", "clients' packets are forwarded")


def lacking(found: Surroundings, sysctls: Iterable[Sysctl] = (FORWARDING,)) -> tuple[Lack, ...]:
    """All that is missing, in a fixed order."""
    return (
        *_capabilities(found.capabilities),
        *_tun(found.tun),
        *(_sysctl(wanted) for wanted in sysctls if not _given(wanted, found.sysctls)),
        *_places(found),
        *_limits(found),
    )


def message(lacks: Iterable[Lack]) -> str:
    """For the operator, one lack after the other."""
    told = [str(lack) for lack in lacks]
    things = "one thing is" if len(told) == 1 else f"{len(told)} things are"
    return "\n  ".join([f"{things} missing here that ocgate needs", *told])


def hint(lacks: Iterable[Lack]) -> str:
    """All flags as one line to add."""
    return "all together: docker run " + " ".join(lack.flag for lack in lacks)


def _capabilities(held: frozenset[str]) -> Iterator[Lack]:
    for name, why in CAPABILITIES.items():
        if name not in held:
            yield Lack(f"CAP_{name} ({why})", f"--cap-add {name}", f"cap_add: [{name}]")


def _tun(found: Tun) -> Iterator[Lack]:
    if found is Tun.USABLE:
        return
    host = "modprobe tun" if found in (Tun.ABSENT, Tun.UNSUPPORTED) else ""
    yield Lack(
        f"/dev/net/tun {found.value} (clients' tunnels)",
        "--device /dev/net/tun",
        "devices: [/dev/net/tun]",
        host,
    )


def _given(wanted: Sysctl, found: Mapping[str, Setting]) -> bool:
    setting = found[wanted.key]
    return setting.value == wanted.value or setting.may_set


def _sysctl(wanted: Sysctl) -> Lack:
    return Lack(
        f"{wanted.key}={wanted.value}, and /proc/sys is read-only ({wanted.reason})",
        wanted.flag,
        f"sysctls: {{ {wanted.compose} }}",
    )


def _places(found: Surroundings) -> Iterator[Lack]:
    run, config = found.run_dir, found.config_dir
    tmpfs = f"/{run.path.parts[1]}" if len(run.path.parts) > 1 else "/run"
    if not (run.writable and run.executable):
        why = "can't be written to" if not run.writable else "is mounted noexec"
        yield Lack(
            f"{run.path} {why} (services and hooks are written there, and run from there)",
            f"--tmpfs {tmpfs}:exec",
            f'tmpfs: ["{tmpfs}:exec"]',
        )
    if config is not None and not config.writable:
        yield Lack(
            f"{config.path} is empty and can't be written to (the first start fills it)",
            f"-v ocgate:{config.path}",
            f'volumes: ["ocgate:{config.path}"], without `:ro`, or with an ocserv.conf in it',
        )


def _limits(found: Surroundings) -> Iterator[Lack]:
    if found.tasks is not None and found.tasks < FEWEST_TASKS:
        yield Lack(
            f"at least {FEWEST_TASKS} processes; {found.tasks} are allowed (each session is one)",
            "--pids-limit 1024",
            "pids_limit: 1024",
        )
    if found.files is not None and found.files < FEWEST_FILES:
        yield Lack(
            f"at least {FEWEST_FILES} open files; {found.files} are allowed (a session is one)",
            "--ulimit nofile=4096",
            "ulimits: { nofile: 4096 }",
        )
