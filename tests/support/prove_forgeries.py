"""What a hostile provider and a hostile neighbour send to an exit: marked packets. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from ipaddress import IPv6Address

from ocgate.netlab.packet import ACK, SYN, Address, build_icmp, build_tcp, build_udp
from ocgate.prove import marker
from ocgate.prove.marker import Kind

FORGED = b"\xa7forge\x9e"  # in what a neighbour sends: the proof's own judge knows nothing of it
AS_USER = b"\xa7users\x9e"  # likewise, with the source of one who may use the exit
NOBODY = 0  # the session of no client: one that gets it has got another's
_UNREACHABLE4, _UNREACHABLE6 = range(16), range(7)


def _mark(kind: Kind | bytes) -> bytes:
    return kind if isinstance(kind, bytes) else marker.build(kind, NOBODY)


def probes(kind: Kind | bytes, src: Address, dst: Address) -> Iterator[bytes]:
    """UDP, a SYN, a segment of no connection, a ping, the answer to none."""
    mark = _mark(kind)
    yield build_udp(src, dst, 4433, 7, mark)
    yield build_udp(src, dst, 53, 30053, mark)
    yield build_tcp(src, dst, 4433, 22, flags=SYN, data=mark)
    yield build_tcp(src, dst, 443, 20000, flags=ACK, data=mark)
    for echo in ((8, 0), (0, 0)) if src.version == 4 else ((128, 0), (129, 0)):
        yield build_icmp(src, dst, echo, struct.pack("!HH", 1, 1) + mark)


def attack(
    kind: Kind | bytes, sources: Sequence[Address], destinations: Sequence[Address]
) -> list[bytes]:
    """Each of these from each of those, where the families agree."""
    return [
        packet
        for src in sources
        for dst in destinations
        if src.version == dst.version and src != dst
        for packet in probes(kind, src, dst)
    ]


def errors(kind: Kind | bytes, src: Address, to: Address, about: bytes) -> Iterator[bytes]:
    """Every ICMP error about a packet that `to` is said to have sent: no way, too big for any use,
    too old, malformed, and to another's (RFC 792, RFC 4443)."""
    mark = _mark(kind)
    quoted = about[:48] + mark
    if src.version == 4:
        for code in _UNREACHABLE4:
            rest = struct.pack("!HH", 0, 68 if code == 4 else 0)
            yield build_icmp(src, to, (3, code), rest + quoted)
        for number in ((4, 0), (11, 0), (11, 1), (12, 0)):
            yield build_icmp(src, to, number, bytes(4) + quoted)
    else:
        for code in _UNREACHABLE6:
            yield build_icmp(src, to, (1, code), bytes(4) + about[:60] + mark)
        yield build_icmp(src, to, (2, 0), struct.pack("!I", 1280) + about[:60] + mark)
        yield build_icmp(src, to, (3, 0), bytes(4) + about[:60] + mark)


def redirect6(
    router: IPv6Address, to: IPv6Address, target: IPv6Address, destination: IPv6Address
) -> bytes:
    """RFC 4861 section 4.5: `target` is the better next hop to `destination`."""
    rest = bytes(4) + target.packed + destination.packed
    made = build_icmp(router, to, (137, 0), rest)
    return made[:7] + b"\xff" + made[8:]
