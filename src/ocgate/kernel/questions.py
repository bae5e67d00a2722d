"""Asks a target by DNS or by ICMP echo, through an exit: does anything come back from beyond it?

The other kinds beside TCP: a network that blocks one of them is not dead. Each is
asked from a socket with the exit's mark, device and ports, so it goes where clients' packets go.
What the next hop itself says proves nothing about what lies beyond it: an ICMP error refuses, and a
DNS answer whose time to live nobody has lessened was made by it. Only `probe` imports
this.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator

from ocgate.kernel.way import (
    LACKS,
    LOST,
    OWN_RULE,
    Found,
    Way,
    bind,
    icmp_error,
    prepare,
    unable,
)
from ocgate.plan.facts import WHOLE_TTLS, Address

DNS_PORT = 53

# RFC 1035, section 4.1.1: flags of a query that wants recursion, of an answer, and its code.
_RECURSION, _ANSWER, _CODE = 0x0100, 0x8000, 0x000F
_DNS_HEADER = struct.Struct("!HHHHHH")
# The name servers of the root: each resolver knows them, and the answer is small.
_ROOT_NS = b"\0" + struct.pack("!HH", 2, 1)

# RFC 792 and RFC 4443: echo request and reply.
_ECHO = {4: (8, 0), 6: (128, 129)}
_ECHO_HEADER = struct.Struct("!BBHHH")

_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_ICMP = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
# ip(7) IP_RECVTTL and IP_TTL, ipv6(7) IPV6_RECVHOPLIMIT and IPV6_HOPLIMIT: (asked by, told as).
_IP_RECVTTL = 12
_TTL = {
    4: ((socket.IPPROTO_IP, _IP_RECVTTL), (socket.IPPROTO_IP, socket.IP_TTL)),
    6: (
        (socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT),
        (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT),
    ),
}
_LONGEST = 1500  # bytes of a packet that is read


class _Refused(Exception):
    """str(): one clause."""


class _Unable(Exception):
    """This host can't ask. str(): one clause, what it lacks."""


async def ask_dns(address: Address, port: int, timeout: float, way: Way) -> Found:
    """Ask a resolver for the root's name servers. Any answer of its own without an error counts."""
    number = random.getrandbits(16)
    question = _DNS_HEADER.pack(number, _RECURSION, 1, 0, 0, 0) + _ROOT_NS

    def judge(packet: bytes, ttl: int) -> str | None:
        if len(packet) < _DNS_HEADER.size:
            return None
        told, flags, *_ = _DNS_HEADER.unpack_from(packet)
        if told != number or not flags & _ANSWER:
            return None
        if flags & _CODE:
            raise _Refused(f"it has no answer (DNS code {flags & _CODE})")
        if ttl in WHOLE_TTLS:
            raise _Refused("the next hop answers in its place")
        return "answered by DNS"

    place = f"dns:[{address}]" if address.version == 6 else f"dns:{address}"
    place = place if port == DNS_PORT else f"{place}:{port}"

    def opened() -> socket.socket:
        sock = _socket(address.version, socket.SOCK_DGRAM)
        return _connected(sock, (address, port), way)

    return await _ask(place, opened, question, judge, timeout, address.version)


async def ask_echo(address: Address, timeout: float, way: Way) -> Found:
    """Ping it; a process that may not is unable."""
    version = address.version
    request, reply = _ECHO[version]
    number, payload = random.getrandbits(16), random.randbytes(16)
    question = bytearray(_ECHO_HEADER.pack(request, 0, 0, number, 1) + payload)
    if version == 4:  # the kernel sums up ICMPv6, and what has a datagram socket, by itself
        question[2:4] = _checksum(bytes(question)).to_bytes(2, "big")

    def judge(packet: bytes, _: int) -> str | None:
        if version == 4 and packet[:1] and packet[0] >> 4 == 4:
            packet = packet[(packet[0] & 15) * 4 :]  # a raw socket's has its IP header
        said = packet[:1] == bytes([reply]) and packet.endswith(payload)
        return "answered a ping" if said else None

    def opened() -> socket.socket:
        # ping_group_range may leave us out, and CAP_NET_RAW may be missing: either will do.
        for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
            with contextlib.suppress(PermissionError):
                sock = _socket(version, kind, _ICMP[version])
                break
        else:
            raise _Unable("this process may not ping (net.ipv4.ping_group_range, NET_RAW)")
        return _connected(sock, (address, 0), Way(way.mark, way.device, way.source))

    return await _ask(f"icmp:{address}", opened, bytes(question), judge, timeout, version)


async def _ask(
    place: str,
    opened: Callable[[], socket.socket],
    question: bytes,
    judge: Callable[[bytes, int], str | None],
    timeout: float,
    version: int,
) -> Found:
    """Send it, and wait for what `judge` takes for an answer; it gets packet and time to live."""
    began = time.monotonic()
    try:
        with opened() as sock, _readable(sock) as readable:
            _send(sock, question)
            async with asyncio.timeout(timeout):
                while True:
                    await readable.wait()
                    readable.clear()
                    for packet, ttl in _packets(sock, version):
                        if words := judge(packet, ttl):
                            trip = time.monotonic() - began
                            return Found(ok=True, refused=False, why=f"{place} {words}", trip=trip)
    except TimeoutError:
        return Found(ok=False, refused=False, why=f"{place}: timed out")
    except _Unable as want:
        return unable(place, str(want))
    except _Refused as refusal:
        return Found(ok=False, refused=True, why=f"{place}: {refusal}")
    except OSError as problem:
        if lacks := LACKS.get(problem.errno or 0):
            return unable(place, lacks)
        said = os.strerror(problem.errno) if problem.errno else str(problem)
        return Found(ok=False, refused=True, why=f"{place}: {said}")


def _send(sock: socket.socket, question: bytes) -> None:
    try:
        sock.send(question)
    except OSError as problem:
        if problem.errno not in LOST:
            raise


def _socket(version: int, kind: int, protocol: int = 0) -> socket.socket:
    return socket.socket(_AF[version], kind | socket.SOCK_CLOEXEC, protocol)


def _connected(sock: socket.socket, to: tuple[Address, int], way: Way) -> socket.socket:
    """The socket, made to go this way; closed where that fails, with OSError."""
    address, port = to
    try:
        prepare(sock, address.version, way)
        sock.setsockopt(*_TTL[address.version][0], 1)
        bind(sock, way)
        sock.connect((str(address), port))
    except OSError:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def _readable(sock: socket.socket) -> Iterator[asyncio.Event]:
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sock, event.set)
    try:
        yield event
    finally:
        loop.remove_reader(sock)


def _packets(sock: socket.socket, version: int) -> Iterator[tuple[bytes, int]]:
    """What has come, with its time to live; raises _Refused or _Unable for an ICMP error."""
    while True:
        try:
            packet, ancillary, _, _ = sock.recvmsg(_LONGEST, 512)
        except BlockingIOError:
            return
        except OSError as problem:
            said = icmp_error(sock, version)
            if said is not None and said.ours:
                raise _Unable(OWN_RULE) from None
            words = os.strerror(problem.errno or errno.EIO)
            raise _Refused(f"{words}, says {said.by} by ICMP" if said else words) from None
        ttl = next(
            (_number(data) for *told, data in ancillary if tuple(told) == _TTL[version][1]), 0
        )
        yield packet, ttl


def _number(data: bytes) -> int:
    number: int = struct.unpack_from("=i", data)[0]
    return number


def _checksum(packet: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
