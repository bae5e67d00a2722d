"""Does a TCP connection get out? Asked of the network: a default route alone proves little.

Any TCP segment from the target, SYN-ACK or RST, proves the way there and back. An ICMP error proves
the opposite, even a port unreachable that connect(2) reports as "Connection refused" just like an
RST: so the verdict is the kernel's own count of segments received (TCP_INFO), not errno.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import time

from ocgate.kernel.way import (
    LACKS,
    OWN_RULE,
    Found,
    IcmpError,
    Target,
    Way,
    bind,
    icmp_error,
    prepare,
    unable,
)

_AF = {4: socket.AF_INET, 6: socket.AF_INET6}

# struct linger: on, 0 seconds. An answered probe is closed by a reset: it leaves by the socket's
# own mark and device, and no half of the connection (FIN-WAIT, TIME-WAIT) is left in the kernel
# that would still answer, by whatever way there is, when the guard is gone.
_AT_ONCE = struct.pack("=ii", 1, 0)

# struct tcp_info of linux/tcp.h: tcpi_total_retrans; tcpi_segs_out and tcpi_segs_in (Linux 4.2).
_REPEATED = struct.Struct("=I")
_REPEATED_AT = 100
_SEGMENTS = struct.Struct("=II")
_SEGMENTS_AT = 136


async def ask_tcp(target: Target, timeout: float, way: Way) -> Found:
    """Connect, and reset what answered. The time is measured where no SYN was repeated (Karn)."""
    began = time.monotonic()
    version = target.address.version
    try:
        with socket_by(version, way) as sock:
            number = await _connect(sock, target, timeout)
            took = time.monotonic() - began
            sent, received = _segments(sock)
            said = icmp_error(sock, version)
            trip = None if _repeated(sock) else took
    except OSError as problem:  # no such family, device or source address
        if lacks := LACKS.get(problem.errno or 0):
            return unable(place(target), lacks)
        why = f"{place(target)}: {problem.strerror or problem}"
        return Found(ok=False, refused=True, why=why)
    why = _reason(target, number, sent, received, said)
    if received:
        return Found(ok=True, refused=False, why=why, trip=trip)
    if number in LACKS or (said is not None and said.ours):
        return unable(place(target), LACKS.get(number, OWN_RULE))
    if number == errno.EADDRNOTAVAIL and _has_source(target, way):
        return unable(place(target), LACKS[errno.EADDRINUSE])
    return Found(ok=False, refused=number != errno.ETIMEDOUT, why=why)


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


async def _connect(sock: socket.socket, target: Target, timeout: float) -> int:
    """0 when connected, else the error number; ETIMEDOUT when nothing came in time."""
    address, port = target.address, target.port
    try:
        async with asyncio.timeout(timeout):
            await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
    except TimeoutError:
        return errno.ETIMEDOUT
    except OSError as problem:
        return problem.errno or errno.EIO
    return 0


def _has_source(target: Target, way: Way) -> bool:
    """Is there an address to send from? tcp(7) says the same of none and of no free port; UDP has
    ports of its own."""
    version = target.address.version
    try:
        with socket.socket(_AF[version], socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            prepare(sock, version, way)
            sock.connect((str(target.address), target.port))
    except OSError as problem:
        return problem.errno in LACKS
    return True


def _reason(target: Target, number: int, sent: int, received: int, said: IcmpError | None) -> str:
    where = place(target)
    if received:
        return f"{where} answered" + (" (port closed)" if number else "")
    if not sent and number == errno.ENETUNREACH:
        return f"no IPv{target.address.version} default route"
    words = os.strerror(number)
    if not sent:
        return f"{where}: this host may not send there: {words}"
    return f"{where}: {words}" + (f", says {said.by} by ICMP" if said else "")


def _segments(sock: socket.socket) -> tuple[int, int]:
    """TCP segments sent and received on this socket."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    sent, received = _SEGMENTS.unpack_from(info, _SEGMENTS_AT)
    return sent, received


def _repeated(sock: socket.socket) -> bool:
    """Whether a segment was sent again."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return bool(_REPEATED.unpack_from(info, _REPEATED_AT)[0])


def place(target: Target) -> str:
    """Address and port, as a person writes them."""
    address, port = target.address, target.port
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
