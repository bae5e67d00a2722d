"""How a question goes out of this host, and what is told of it: sockets with an exit's mark, device
and ports, and the ICMP errors that they get. Only the room `kernel` and the wiring import this.
"""

from __future__ import annotations

import errno
import random
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple, Protocol

from ocgate.names import PROBE_TCP
from ocgate.plan.facts import Address

_IP_RECVERR = {4: (socket.IPPROTO_IP, 11), 6: (socket.IPPROTO_IPV6, 25)}
_SO_MARK = 36

# struct sock_extended_err of linux/errqueue.h: errno, origin, type, code; then the offender.
_EXTENDED_ERROR = struct.Struct("=IBBBxII")

# RFC 792 and RFC 4443: type and code of what the kernel says where ARP or neighbour discovery had
# no answer; a firewall here can say the same, and is then taken for the neighbour.
_NEIGHBOUR_SILENT = {4: (3, 1), 6: (1, 3)}

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

    ok:      an answer came from beyond. refused: the opposite was said, by somebody there or by
             this host's own routing; neither: silence. why: one clause. trip: seconds until the
             answer, None where they can't be told.
    unable:  nothing was asked, for want of something that is this host's (`LACKS`): that says
             nothing of the exit; neither ok nor refused.
    """

    ok: bool
    refused: bool
    why: str
    trip: float | None = None
    unable: bool = False


# What errors of socket, setsockopt, bind, connect and send say. Everything that is not here speaks
# of the way: no route (ENETUNREACH, EHOSTUNREACH; EACCES and EINVAL of a prohibiting route and of a
# blackhole), the device or the address that goes with it is away (ENODEV, ENXIO, ENETDOWN,
# EADDRNOTAVAIL), no such family (EAFNOSUPPORT), or was said by somebody else by ICMP. A way that
# this host does not have leads nowhere, whoever asks.
LACKS: Mapping[int, str] = {
    errno.EMFILE: "too many open files",  # of this process
    errno.ENFILE: "too many open files",  # of the machine
    errno.ENOMEM: "no memory",
    errno.ENOBUFS: "no memory",  # send(2) means something else by it: see LOST
    errno.ENOSPC: "too many files are waited for",  # epoll(7), max_user_watches
    errno.EAGAIN: "no free port",  # connect(2) of UDP and ping sockets, ip_local_port_range
    errno.EADDRINUSE: "no free port",
    errno.EPERM: "this host may not ask (a rule of its firewall, or a privilege)",
}
OWN_RULE = LACKS[errno.EPERM]

# send(2) of a datagram: this host's own queue is full, and the packet was lost like any other. (A
# tunnel whose client has stopped ends so: its device takes nothing more.)
LOST = frozenset({errno.ENOBUFS, errno.EAGAIN})


def unable(place: str, lacks: str) -> Found:
    """What a question came to that this host could not ask. place: of the target, as a person
    reads it."""
    return Found(ok=False, refused=False, why=f"{place}: {lacks}", unable=True)


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


@dataclass(frozen=True)
class IcmpError:
    """by: who sent it. ours: this host did, by a rule of its firewall, and not because a neighbour
    does not answer."""

    by: str
    ours: bool


def icmp_error(sock: socket.socket, version: int) -> IcmpError | None:
    """The ICMP error about this connection (ip(7), IP_RECVERR), if there is one."""
    try:
        _, ancillary, _, _ = sock.recvmsg(0, 512, socket.MSG_ERRQUEUE)
    except OSError:
        return None
    for level, kind, data in ancillary:
        if (level, kind) != _IP_RECVERR[version]:
            continue
        _, _, icmp_type, code, _, _ = _EXTENDED_ERROR.unpack_from(data)
        # sockaddr_in or sockaddr_in6 follows: family, port, [flow], address.
        start = _EXTENDED_ERROR.size + (4 if version == 4 else 8)
        packed = data[start : start + (4 if version == 4 else 16)]
        if any(packed):
            by = str(ip_address(packed))
            here = by == sock.getsockname()[0]
            return IcmpError(by, ours=here and (icmp_type, code) != _NEIGHBOUR_SILENT[version])
    return None
