"""What the processes of a running ocgate may do, as the kernel says (proc(5), status), beside the
table of what each needs (docs/security.md, "What each process holds").

Independent of the product's own lists on purpose: a change of one is a change of the other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

# linux/capability.h, in the order of their bits.
_WORDS = """
chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable
net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot
sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease
audit_write audit_control setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read
perfmon bpf checkpoint_restore
"""
NAMES = tuple(_WORDS.split())

# All that a process below the supervisor of a container may have: docker's own list and net_admin,
# without devices and file capabilities.
CONTAINER = frozenset(
    (
        *("audit_write", "chown", "dac_override", "fowner", "fsetid", "kill", "net_admin"),
        *("net_bind_service", "net_raw", "setgid", "setpcap", "setuid", "sys_chroot"),
    )
)
NONE: frozenset[str] = frozenset()
ROOT, TUNNEL = 0, 23143


@dataclass(frozen=True)
class Held:
    """One process. uids, gids: of all four kinds, without repetition; groups: the rest."""

    uids: frozenset[int]
    gids: frozenset[int]
    groups: frozenset[int]
    permitted: frozenset[str]
    effective: frozenset[str]
    inheritable: frozenset[str]
    ambient: frozenset[str]
    bounding: frozenset[str]
    no_new_privs: bool
    seccomp: bool


@dataclass(frozen=True)
class Row:
    """What a kind of process must hold, neither more nor less; inheritable and ambient: nothing.

    uid:    None for any but root.
    holds:  permitted and effective. bounds: what it could get by executing something.
    """

    uid: int | None
    holds: frozenset[str]
    bounds: frozenset[str]
    seccomp: bool = False


_ALL = Row(ROOT, CONTAINER, CONTAINER)
_RELAY = Row(ROOT, NONE, NONE)


def _only(*names: str) -> Row:
    return Row(ROOT, frozenset(names), frozenset(names))


# Of a server in a container, or any network namespace of its own.
SERVER: Mapping[str, Row] = {
    "supervisor": _ALL,
    "control": _only("net_admin", "net_raw", "dac_override", "kill"),
    "relay": _RELAY,
    "ocserv": _ALL,
    "worker": Row(None, NONE, CONTAINER, seccomp=True),
}

EXIT: Mapping[str, Row] = {
    "supervisor": _ALL,
    "control": _only("net_admin", "dac_override", "chown"),
    "relay": _RELAY,
    "client": Row(TUNNEL, NONE, NONE, seccomp=True),
}

# Words of command lines; the first that fits.
_KINDS = {
    "ocserv-worker": "worker",
    "ocserv-main": "ocserv",
    "ocserv-sm": "ocserv",
    "ocgate.server.daemon": "control",
    "ocgate.exit_node.daemon": "control",
    ".s6-svscan/relay": "relay",
    ".s6-svscan/foreground": "supervisor",
    "s6-svscan": "supervisor",
    "s6-supervise": "supervisor",
    "openvpn": "client",
    "openconnect": "client",
    "wireguard-go": "client",
}


def held(process: Path) -> Held:
    """process: its directory in /proc; raises OSError when it is gone."""
    lines = (process / "status").read_text().splitlines()
    fields = {name: rest.strip() for name, _, rest in (line.partition(":") for line in lines)}

    def numbers(name: str) -> frozenset[int]:
        return frozenset(int(word) for word in fields[name].split())

    def capabilities(name: str) -> frozenset[str]:
        mask = int(fields[name], 16)
        return frozenset(word for bit, word in enumerate(NAMES) if mask >> bit & 1)

    return Held(
        uids=numbers("Uid"),
        gids=numbers("Gid"),
        groups=numbers("Groups") - numbers("Gid"),
        permitted=capabilities("CapPrm"),
        effective=capabilities("CapEff"),
        inheritable=capabilities("CapInh"),
        ambient=capabilities("CapAmb"),
        bounding=capabilities("CapBnd"),
        no_new_privs=fields["NoNewPrivs"] == "1",
        seccomp=fields["Seccomp"] != "0",
    )


def kind(process: Path) -> str | None:
    """Which row it is; None for one that comes and goes, or is not ours."""
    command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return next((name for word, name in _KINDS.items() if word in command), None)


def deviations(
    processes: Iterable[Path], table: Mapping[str, Row], given: frozenset[str] = CONTAINER
) -> list[str]:
    """How processes differ from the table, in words; also a row of which there is no process, and a
    process that is in no row and holds more than any.

    given: what the container itself has; nobody has more.
    """
    found, rows = [], set()
    for process in processes:
        with contextlib.suppress(OSError):
            name, now = kind(process), held(process)
            who = f"{name} {process.name}"
            if name is None:
                if not now.no_new_privs or now.bounding - given:
                    found.append(f"{process.name} {(process / 'cmdline').read_bytes()!r}: {now}")
                continue
            rows.add(name)
            found += [
                f"{who}: {difference}" for difference in _differences(now, table[name], given)
            ]
    return found + [f"no process is {name}" for name in sorted(table.keys() - rows)]


def _differences(now: Held, row: Row, given: frozenset[str]) -> list[str]:
    uid = next(iter(now.uids))
    users = len(now.uids) == 1 and (uid != ROOT if row.uid is None else uid == row.uid)
    pairs = (
        ("is of the row's account", users, True),
        ("has groups of others", bool(now.groups) and uid != ROOT, False),
        ("permitted", now.permitted, row.holds & given),
        ("effective", now.effective, row.holds & given),
        ("inheritable", now.inheritable, NONE),
        ("ambient", now.ambient, NONE),
        ("bounding", now.bounding, row.bounds & given),
        ("no_new_privs", now.no_new_privs, True),
        ("has a seccomp filter", now.seccomp or not row.seccomp, True),
    )
    return [f"{what}: {_shown(is_)}, not {_shown(be)}" for what, is_, be in pairs if is_ != be]


def _shown(value: object) -> str:
    return " ".join(sorted(value)) or "nothing" if isinstance(value, frozenset) else str(value)
