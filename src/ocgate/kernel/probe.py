"""Does a TCP connection get out? Asked of the network: a default route alone proves little.

Any TCP segment from the target, SYN-ACK or RST, proves the way there and back. An ICMP error proves
the opposite, even a port unreachable that connect(2) reports as "Connection refused" just like an
RST: so the verdict is the kernel's own count of segments received (TCP_INFO), not errno. The wiring
imports this.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from ocgate.plan.facts import Address

Target = tuple[Address, int]

# Seconds to wait for an answer. SYNs go out at 0, 1 and 3 s: two lost ones are forgiven within 4.
TIMEOUT = 4.0

_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_IP_RECVERR = {4: (socket.IPPROTO_IP, 11), 6: (socket.IPPROTO_IPV6, 25)}
_SO_MARK = 36

# struct linger: on, 0 seconds. An answered probe is closed by a reset: it leaves by the socket's
# own mark and device, and no half of the connection (FIN-WAIT, TIME-WAIT) is left in the kernel
# that would still answer, by whatever way there is, when the guard is gone.
_AT_ONCE = struct.pack("=ii", 1, 0)

# struct tcp_info of linux/tcp.h: tcpi_segs_out and tcpi_segs_in (Linux 4.2).
_SEGMENTS = struct.Struct("=II")
_SEGMENTS_AT = 136

# struct sock_extended_err of linux/errqueue.h: errno, origin, type, code; then the offender.
_EXTENDED_ERROR = struct.Struct("=IBBBxII")


# Of 4,536 ports at the least a few are taken: ten in a row are not.
_PORTS_TRIED = 10


@dataclass(frozen=True)
class Way:
    """How a probe leaves: the arguments of `probe`."""

    mark: int | None = None
    device: str | None = None
    source: Address | None = None
    ports: tuple[int, int] | None = None


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found.

    ok:      the target answered.
    target:  address and port that the reason speaks of; None when there was none to ask.
    reason:  one clause for the operator; for several targets theirs, joined by "; ".
    seconds: until the verdict, from the start of the probe.
    """

    ok: bool
    target: Target | None
    reason: str
    seconds: float


async def probe(
    targets: Sequence[Target],
    *,
    timeout: float = TIMEOUT,
    mark: int | None = None,
    device: str | None = None,
    source: Address | None = None,
    ports: tuple[int, int] | None = None,
) -> ProbeResult:
    """Ask all targets at once; the first answer decides, otherwise all reasons are given.

    mark, device, source: send as traffic with this fwmark, by this device, from this address.
    ports: first and last source port. A mark goes with the socket: what the kernel answers to
           segments that come after its end has none, and only its port tells whose it is.
    Never raises for what the network or the kernel says: that is the result's reason.
    """
    began = time.monotonic()
    way = Way(mark, device, source, ports)
    asked = [asyncio.create_task(_ask(t, timeout, way)) for t in targets]
    refused: list[ProbeResult] = []
    try:
        for finished in asyncio.as_completed(asked):
            result = await finished
            if result.ok:
                return result
            refused.append(result)
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    reasons = dict.fromkeys(result.reason for result in refused)  # each once, in order
    first = refused[0].target if refused else None
    said = "; ".join(reasons) or "no probe target is configured"
    return ProbeResult(ok=False, target=first, reason=said, seconds=time.monotonic() - began)


async def _ask(target: Target, timeout: float, way: Way) -> ProbeResult:
    began = time.monotonic()
    try:
        with socket_by(target[0].version, way) as sock:
            number = await _connect(sock, target, timeout)
            sent, received = _segments(sock)
            said_by = offender(sock, target[0].version)
            reason = _reason(target, number, sent, received, said_by)
    except OSError as problem:  # no such family, device or source address; mark not permitted
        received, reason = 0, f"{_place(target)}: {problem.strerror or problem}"
    return ProbeResult(
        ok=received > 0, target=target, reason=reason, seconds=time.monotonic() - began
    )


def socket_by(version: int, way: Way) -> socket.socket:
    """A TCP socket, not connected, that sends this way; raises OSError where it can't."""
    sock = socket.socket(_AF[version], socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        prepare(sock, version, way)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        bind(sock, way)
    except OSError:
        sock.close()
        raise
    return sock


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


async def _connect(sock: socket.socket, target: Target, timeout: float) -> int:
    """0 when connected, else the error number; ETIMEDOUT when nothing came in time."""
    address, port = target
    try:
        async with asyncio.timeout(timeout):
            await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
    except TimeoutError:
        return errno.ETIMEDOUT
    except OSError as problem:
        return problem.errno or errno.EIO
    return 0


def _reason(target: Target, number: int, sent: int, received: int, offender: str) -> str:
    place = _place(target)
    if received:
        return f"{place} answered" + (" (port closed)" if number else "")
    if not sent and number == errno.ENETUNREACH:
        return f"no IPv{target[0].version} default route"
    words = os.strerror(number)
    if not sent:
        return f"{place}: this host may not send there: {words}"
    return f"{place}: {words}" + (f", says {offender} by ICMP" if offender else "")


def _segments(sock: socket.socket) -> tuple[int, int]:
    """TCP segments sent and received on this socket."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    sent, received = _SEGMENTS.unpack_from(info, _SEGMENTS_AT)
    return sent, received


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


def _place(target: Target) -> str:
    address, port = target
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
