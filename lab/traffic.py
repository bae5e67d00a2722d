"""Single questions that clients ask, and how they ended (long flows are in `streams`).

`ask_udp`, `ask_tcp`, `ping` and `http_get` say what came back and after how long, because a reject
within milliseconds and a silent drop are different promises.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address

from ocgate.netlab.namespace import Namespace
from ocgate.netlab.packet import ICMP, ICMPV6, checksum
from ocgate.netlab.services import ECHO_PORT, HTTP_PORT

Address = IPv4Address | IPv6Address

# <linux/in.h>, <linux/in6.h>, <linux/errqueue.h>
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_ORIGINS_ICMP = (2, 3)

# What a reject at the gateway must never be confused with: a client that gives up by itself.
DEFAULT_TIMEOUT = 2.0

# TCP asks again after 1 s (RFC 6298 section 2), and the kernel lets one more ICMP error to a host
# through each second: what is told sooner was told to the first packet, however busy the machine.
AT_ONCE_SECONDS = 0.9


class Verdict(Enum):
    """How a question ended."""

    REPLY = "reply"
    REJECTED = "rejected"  # by an ICMP error; Answer.kind says which
    REFUSED = "refused"  # TCP reset
    SILENT = "silent"  # nothing came in time
    NO_ROUTE = "no route"  # this host itself would not send


@dataclass(frozen=True)
class Answer:
    """seconds: until the verdict.   seen_as: our address as the service saw it.

    kind: (type, code) of the ICMP error; None for TCP, where the kernel keeps it to itself.
    by:   who sent the ICMP error.
    """

    verdict: Verdict
    seconds: float
    seen_as: Address | None = None
    data: bytes = b""
    kind: tuple[int, int] | None = None
    by: Address | None = None

    def __bool__(self) -> bool:
        return self.verdict is Verdict.REPLY

    @property
    def at_once(self) -> bool:
        """Was the first packet answered, by whatever?"""
        return self.seconds < AT_ONCE_SECONDS


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def udp_socket(netns: Namespace, to: Address, port: int, source: Address | None) -> socket.socket:
    """A connected, non-blocking UDP socket whose ICMP errors `read_error` tells."""
    with netns.entered():
        sock = socket.socket(_family(to), socket.SOCK_DGRAM)
    if to.version == 4:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
    sock.settimeout(0)
    try:
        if source is not None:
            sock.bind((str(source), 0))
        sock.connect((str(to), port))
    except OSError:
        sock.close()
        raise
    return sock


def read_error(sock: socket.socket) -> tuple[tuple[int, int], Address | None] | None:
    """The next ICMP error in the error queue: ((type, code), who sent it); ip(7), IP_RECVERR."""
    try:
        _data, control, _flags, _peer = sock.recvmsg(2048, 512, socket.MSG_ERRQUEUE)
    except OSError:
        return None
    for _level, _type, data in control:
        _errno, origin, kind, code = struct.unpack_from("=IBBB", data)
        if origin in _ORIGINS_ICMP:
            return (kind, code), _offender(data[16:])
    return None


def _offender(sockaddr: bytes) -> Address | None:
    family = struct.unpack_from("=H", sockaddr)[0] if len(sockaddr) >= 8 else 0
    if family == socket.AF_INET:
        return IPv4Address(sockaddr[4:8])
    return IPv6Address(sockaddr[8:24]) if family == socket.AF_INET6 else None


def _split_report(data: bytes) -> tuple[Address | None, bytes]:
    """Cut the echo service's "ADDRESS PORT" line off."""
    line, _, rest = data.partition(b"\n")
    try:
        return ip_address(line.split(b" ")[0].decode()), rest
    except ValueError:
        return None, data


def ask_udp(
    netns: Namespace,
    to: Address,
    port: int = ECHO_PORT,
    data: bytes = b"?",
    *,
    source: Address | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Answer:
    """Send one datagram to the echo service and wait for its reply or an ICMP error."""
    started = time.monotonic()
    try:
        sock = udp_socket(netns, to, port, source)
    except OSError:
        return Answer(Verdict.NO_ROUTE, time.monotonic() - started)
    with sock:
        try:
            sock.send(data)
        except OSError:
            return Answer(Verdict.NO_ROUTE, time.monotonic() - started)
        return _udp_answer(sock, started, timeout)


def _udp_answer(sock: socket.socket, started: float, timeout: float) -> Answer:
    poll = select.poll()
    poll.register(sock, select.POLLIN)  # POLLERR always counts
    if not poll.poll(timeout * 1000):
        return Answer(Verdict.SILENT, time.monotonic() - started)
    seconds = time.monotonic() - started
    if error := read_error(sock):
        return Answer(Verdict.REJECTED, seconds, kind=error[0], by=error[1])
    seen_as, rest = _split_report(sock.recv(65535))
    return Answer(Verdict.REPLY, seconds, seen_as, rest)


_TCP_VERDICTS = {
    errno.ECONNREFUSED: Verdict.REFUSED,
    errno.ECONNRESET: Verdict.REFUSED,
    errno.EHOSTUNREACH: Verdict.REJECTED,  # ICMP host unreachable, admin-prohibited
    errno.EACCES: Verdict.REJECTED,  # ICMPv6 admin-prohibited
    errno.ENETUNREACH: Verdict.NO_ROUTE,
    errno.ETIMEDOUT: Verdict.SILENT,
}


def ask_tcp(
    netns: Namespace,
    to: Address,
    port: int = ECHO_PORT,
    data: bytes = b"?",
    *,
    source: Address | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Answer:
    """Connect to the echo service, send `data`, read the report and the echo."""
    started = time.monotonic()
    try:
        with netns.entered():
            sock = socket.socket(_family(to), socket.SOCK_STREAM)
        with sock:
            sock.settimeout(timeout)
            if source is not None:
                sock.bind((str(source), 0))
            sock.connect((str(to), port))
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: sock.recv(65536), b""))
    except OSError as error:
        verdict = _TCP_VERDICTS.get(error.errno or 0, Verdict.SILENT)
        return Answer(verdict, time.monotonic() - started)
    seen_as, rest = _split_report(received)
    return Answer(Verdict.REPLY, time.monotonic() - started, seen_as, rest)


def ping(
    netns: Namespace, to: Address, *, size: int = 56, timeout: float = DEFAULT_TIMEOUT
) -> Answer:
    """One ICMP echo with `size` bytes of data, not to be fragmented by us; reply or error."""
    is_v4 = to.version == 4
    started = time.monotonic()
    ident = struct.pack("!HH", os.getpid() & 0xFFFF, threading.get_ident() & 0xFFFF)
    body = struct.pack("!BBH", 8 if is_v4 else 128, 0, 0) + ident + bytes(size)
    if is_v4:  # the kernel does it for ICMPv6
        body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    with netns.entered():
        sock = socket.socket(_family(to), socket.SOCK_RAW, ICMP if is_v4 else ICMPV6)
    with sock:
        try:
            sock.sendto(body, (str(to), 0))
        except OSError:
            return Answer(Verdict.NO_ROUTE, time.monotonic() - started)
        while (left := started + timeout - time.monotonic()) > 0:
            sock.settimeout(left)
            with contextlib.suppress(TimeoutError):
                data, peer = sock.recvfrom(65535)
                answer = _ping_answer(data[20:] if is_v4 else data, ident, to, peer[0], started)
                if answer is not None:  # a reject is false
                    return answer
    return Answer(Verdict.SILENT, time.monotonic() - started)


def _ping_answer(
    message: bytes, ident: bytes, to: Address, peer: str, started: float
) -> Answer | None:
    """What a received ICMP message means for the ping with `ident`; None if it isn't about it."""
    kind, seconds = (message[0], message[1]), time.monotonic() - started
    if kind in ((0, 0), (129, 0)):
        ours = message[4:8] == ident and peer == str(to)
        return Answer(Verdict.REPLY, seconds, data=message[8:]) if ours else None
    inner_header = 20 if to.version == 4 else 40
    is_error = kind[0] in (3, 11, 12) if to.version == 4 else kind[0] < 128
    if is_error and message[8 + inner_header + 4 :][:4] == ident:
        by = ip_address(peer.split("%")[0])
        return Answer(Verdict.REJECTED, seconds, kind=kind, by=by)
    return None


def http_get(
    netns: Namespace, to: Address, path: str, *, timeout: float = DEFAULT_TIMEOUT
) -> bytes:
    """GET from the HTTP service and return the whole body; raises OSError.

    `timeout` is for each read, not for the whole.
    """
    with netns.entered():
        sock = socket.create_connection((str(to), HTTP_PORT), timeout)
    with sock:
        sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        received = b"".join(iter(lambda: sock.recv(1 << 18), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise OSError(f"GET {path}: {head[:80]!r}")
    return body
