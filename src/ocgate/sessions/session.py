"""One session as ocserv's connect hook described it, checked before anything believes it.

Pure. User names, agents and host names are bytes of the client's choosing: they are data, kept
exactly (surrogateescape) and never interpreted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from ocgate.plan.facts import Address, Network

DEVICE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")  # IFNAMSIZ - 1; also keeps nft text plain


class BadHook(Exception):
    """The hook's request lacks or garbles a field; the session is refused with these words."""


@dataclass(frozen=True)
class Session:
    """worker: pid of ocserv's worker (the hook's ID); started: its start time in clock ticks since
    boot (proc(5), stat field 22), which survives reuse of the pid. prefix6 is what the session may
    send from: its one address as /128, or the whole prefix that ocserv delegated. `connected_at`
    is in seconds since the epoch, on the control plane's clock.
    """

    worker: int
    started: int
    device: str
    user: str
    vhost: str
    address4: IPv4Address | None
    prefix6: IPv6Network | None
    peer: str
    connected_at: float
    agent: str = ""

    @property
    def key(self) -> tuple[int, int]:
        """What tells this session from every other, also one that reuses address and device."""
        return (self.worker, self.started)

    @property
    def owner(self) -> tuple[str, str]:
        """Who it belongs to: the same name in two vhosts is two people."""
        return (self.vhost, self.user)

    @property
    def networks(self) -> tuple[Network, ...]:
        """What it may send from."""
        own4 = () if self.address4 is None else (IPv4Network(self.address4),)
        return own4 if self.prefix6 is None else (*own4, self.prefix6)

    def outside(self, subnets: tuple[Network, ...]) -> tuple[Network, ...]:
        """Those of its networks that lie in none of these client subnets."""
        return tuple(net for net in self.networks if not _inside(net, subnets))


def _inside(net: Network, subnets: tuple[Network, ...]) -> bool:
    return any(net.version == s.version and net.subnet_of(s) for s in subnets)  # type: ignore[arg-type]


def from_hook(
    fields: Mapping[str, bytes], *, started: int, now: float, prefix6_bits: int
) -> Session:
    """The session that a connect request describes; raises BadHook.

    prefix6_bits: bits of IPv6 that a session owns where ocserv names no prefix of its own.
    """
    address4 = _address(fields, "IP_REMOTE")
    address6 = _address(fields, "IPV6_REMOTE")
    if address4 is None and address6 is None:
        raise BadHook("ocserv gave the session no address")
    if isinstance(address4, IPv6Address) or isinstance(address6, IPv4Address):
        raise BadHook("an address of the wrong family")
    return Session(
        worker=worker_of(fields),
        started=started,
        device=_device(fields),
        user=_text(fields, "USERNAME"),
        vhost=_text(fields, "VHOST"),
        address4=address4,
        prefix6=None if address6 is None else _owned6(fields, address6, prefix6_bits),
        peer=_text(fields, "IP_REAL"),
        connected_at=now,
        agent=_text(fields, "USER_AGENT"),
    )


def worker_of(fields: Mapping[str, bytes]) -> int:
    """The worker's pid; raises BadHook."""
    raw = fields.get("ID", b"")
    if not raw.isdigit() or not 0 < int(raw) < 2**22 + 1:  # PID_MAX_LIMIT, linux/threads.h
        raise BadHook(f"ID: got {raw!r}; expected the worker's process id")
    return int(raw)


def _device(fields: Mapping[str, bytes]) -> str:
    name = _text(fields, "DEVICE")
    if not DEVICE_NAME.fullmatch(name):
        raise BadHook(f"DEVICE: got {name!r}; expected a device name")
    return name


def _address(fields: Mapping[str, bytes], key: str) -> Address | None:
    raw = _text(fields, key).partition("%")[0]  # ocserv may leave junk behind a `%`
    if not raw:
        return None
    try:
        return ip_address(raw)
    except ValueError:
        raise BadHook(f"{key}: got {raw!r}; expected an IP address") from None


def _owned6(fields: Mapping[str, bytes], address: IPv6Address, bits: int) -> IPv6Network:
    """IPV6_PREFIX is `address/bits` or bits alone; a session never owns more than configured."""
    given = _text(fields, "IPV6_PREFIX").rpartition("/")[2]
    owned = max(bits, int(given)) if given.isdigit() and int(given) <= 128 else bits
    return IPv6Network((address, owned), strict=False)


def _text(fields: Mapping[str, bytes], key: str) -> str:
    return fields.get(key, b"").decode("utf-8", "surrogateescape")
