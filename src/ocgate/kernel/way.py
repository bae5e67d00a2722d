"""How a question goes out of this host, and what is told of it: sockets with an exit's mark, device
and ports, and the ICMP errors that they get. Only the room `kernel` and the wiring import this.
"""

from __future__ import annotations

import errno
import random
import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple, Protocol

from ocgate.names import PROBE_TCP
from ocgate.plan.facts import Address

_IP_RECVERR = {4: (socket.IPPROTO_IP, 11), 6: (socket.IPPROTO_IPV6, 25)}
_SO_MARK = 36

# struct sock_extended_err of linux/errqueue.h: errno, origin, type, code; then the offender.
_EXTENDED_ERROR = struct.Struct("=IBBBxII")

# Of 4,536 ports at the least a few are taken: ten in a row are not.
_PORTS_TRIED = 10


class Target(Protocol):
    """Whom to ask. kind: one of `names`, PROBE_…. port: unused by ICMP."""

    @property
    def address(self) -> Address: ...

    @property
    def port(self) -> int: ...

    @property
    def kind(self) -> str: ...


class TcpTarget(NamedTuple):
    """The kind that most ask by."""

    address: Address
    port: int
    kind: str = PROBE_TCP


@dataclass(frozen=True)
class Way:
    """How a probe leaves: the arguments of `probe`."""

    mark: int | None = None
    device: str | None = None
    source: Address | None = None
    ports: tuple[int, int] | None = None


@dataclass(frozen=True)
class Found:
    """What came of a question.

    ok:      an answer came from beyond. refused: the opposite was said, or nothing could be sent;
             neither: silence. why: one clause. trip: seconds until the answer, None where they
             can't be told.
    """

    ok: bool
    refused: bool
    why: str
    trip: float | None = None


def prepare(sock: socket.socket, version: int, way: Way) -> None:
    """Make it non-blocking, as asyncio wants it, tell ICMP errors, and send by this mark and
    device; raises OSError."""
    sock.settimeout(0)
    sock.setsockopt(*_IP_RECVERR[version], 1)
    if way.mark is not None:
        sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, way.mark)
    if way.device is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, way.device.encode() + b"\0")


def bind(sock: socket.socket, way: Way) -> None:
    """Take the source address and a free port of the range, tried at random: a closed connection
    keeps its port for a minute."""
    source = "" if way.source is None else str(way.source)
    if way.ports is None:
        if source:
            sock.bind((source, 0))
        return
    first, last = way.ports
    for attempt in range(_PORTS_TRIED):
        try:
            sock.bind((source, random.randint(first, last)))
        except OSError as taken:
            if taken.errno != errno.EADDRINUSE or attempt + 1 == _PORTS_TRIED:
                raise
        else:
            return


def offender(sock: socket.socket, version: int) -> str:
    """Who sent an ICMP error about this connection (ip(7), IP_RECVERR), or ""."""
    try:
        _, ancillary, _, _ = sock.recvmsg(0, 512, socket.MSG_ERRQUEUE)
    except OSError:
        return ""
    for level, kind, data in ancillary:
        if (level, kind) != _IP_RECVERR[version]:
            continue
        # sockaddr_in or sockaddr_in6 follows: family, port, [flow], address.
        start = _EXTENDED_ERROR.size + (4 if version == 4 else 8)
        packed = data[start : start + (4 if version == 4 else 16)]
        if any(packed):
            return str(ip_address(packed))
    return ""
