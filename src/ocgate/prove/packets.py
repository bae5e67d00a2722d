"""What one client sends, built once: templates whose marker is patched for each packet. Pure.

A cycle is a list of templates in the order they are sent, mixed so that every kind comes often:
usual traffic three quarters, what a hostile client sends one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

from ocgate.netlab import odd_packets
from ocgate.netlab.packet import SYN, build_icmp, build_tcp, build_udp, checksum
from ocgate.plan.facts import Address, Family
from ocgate.prove import marker
from ocgate.prove.internet import DOWNLOAD_PORT
from ocgate.prove.marker import Kind

ECHO_PORT = 7  # RFC 862
DNS_PORT = 53
NEW_PORT = 443  # of connections that only begin
FIRST_PORT, LAST_PORT = 20000, 60000  # sources of ever new connections

METADATA = IPv4Address("169.254.169.254")
_ROUNDS = 8  # rotations in a cycle, so that each of some twenty forged sources has its turn
_FAMILIES: tuple[Family, ...] = (4, 6)
_NOWHERE = ("127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.5", "169.254.1.1")
_NOWHERE6 = ("::ffff:198.51.100.200", "fe80::1", "::")


@dataclass
class Template:
    """One packet. marks: offsets of the changing part of each marker; port: offset of a source
    port that is a new one in each packet, 0 for none."""

    kind: Kind
    family: Family
    packet: bytearray
    marks: tuple[int, ...]
    port: int = 0


@dataclass(frozen=True)
class Targets:
    """Whom a client talks to. Addresses of both families.

    forged:  sources that are not the client's: public, the docker network's, gw's, other clients'.
    docker:  neighbours and the docker host.   exits: the upstreams themselves.
    peers:   other clients.                    broadcast: of subnets that exist here.
    """

    services: tuple[Address, ...]
    forged: tuple[Address, ...] = ()
    docker: tuple[Address, ...] = ()
    exits: tuple[Address, ...] = ()
    peers: tuple[Address, ...] = ()
    broadcast: tuple[IPv4Address, ...] = ()


@dataclass(frozen=True)
class Identity:
    """A session's number in markers and its addresses."""

    session: int
    addresses: tuple[Address, ...]
    families: tuple[Family, ...] = field(init=False)

    def __post_init__(self) -> None:
        found = tuple(address.version for address in self.addresses)
        object.__setattr__(self, "families", found)

    def address(self, family: Family) -> Address:
        """Its own of that family."""
        return next(a for a in self.addresses if a.version == family)


def template(kind: Kind, packet: bytes, *, port: int = 0) -> Template:
    """From a packet that carries markers with fault and sequence 0."""
    found, at = [], packet.find(marker.MAGIC)
    while at >= 0:
        found.append(at + marker.CHANGING)
        at = packet.find(marker.MAGIC, at + marker.SIZE)
    family: Family = 4 if packet[0] >> 4 == 4 else 6
    return Template(kind, family, bytearray(packet), tuple(found), port)


def cycle(me: Identity, targets: Targets) -> list[Template]:
    """Everything this client sends, in turn."""
    made: list[Template] = []
    for family in _FAMILIES:
        own = family in me.families
        usual = list(_usual(me, family, targets)) if own else []
        odd = list(_odd(me, family, targets)) if own else []
        # Also of a family that the session has no address of.
        spoofs = list(_spoofs(me, family, targets)) if _of(family, targets.services) else []
        for turn in range(_ROUNDS):
            made += usual + odd[turn % 2 :: 2] + spoofs[turn::_ROUNDS]
    # Families and kinds alternate: a stride that shares no factor with the length visits all.
    stride = next(n for n in (37, 41, 43, 47) if len(made) % n)
    return [made[i * stride % len(made)] for i in range(len(made))]


def _usual(me: Identity, family: Family, targets: Targets) -> Iterator[Template]:
    src, dst = me.address(family), _service(targets, family)
    for port in (30001, 30002, 30003):
        for _ in range(2):
            yield _udp(me, Kind.UDP, src, dst, port, ECHO_PORT)
    for _ in range(3):
        yield _new(me, src, dst)
        yield _echo(me, Kind.ICMP, src, dst)
        yield _udp(me, Kind.DNS, src, dst, 30053, DNS_PORT)
    yield _udp(me, Kind.DOWNLOAD, src, dst, 30019, DOWNLOAD_PORT)
    yield from _fragments(me, src, dst)


def _odd(me: Identity, family: Family, targets: Targets) -> Iterator[Template]:
    """What may go nowhere, or to very few."""
    src = me.address(family)
    for kind, many in ((Kind.DOCKER, targets.docker), (Kind.EXIT, targets.exits)):
        for dst in _of(family, many):
            yield _udp(me, kind, src, dst, 30100, ECHO_PORT)
            yield _new(me, src, dst, kind)
            yield _echo(me, kind, src, dst)
    for dst in _of(family, targets.peers):
        if dst != src:
            yield _udp(me, Kind.PEER, src, dst, 30200, ECHO_PORT)
            yield _echo(me, Kind.PEER, src, dst)
    if family == 4:
        yield from _odd4(me, src, targets)
    else:
        yield from _odd6(me, src, _service(targets, 6))


def _odd4(me: Identity, src: Address, targets: Targets) -> Iterator[Template]:
    yield _udp(me, Kind.METADATA, src, METADATA, 30300, 80)
    yield _new(me, src, METADATA, Kind.METADATA)
    groups = map(IPv4Address, ("224.0.0.251", "239.1.2.3", "255.255.255.255"))
    for dst in (*groups, *targets.broadcast):
        yield _udp(me, Kind.MULTICAST, src, dst, 30400, 5353)
    for own in _of(4, targets.forged)[:1]:
        mark = marker.build(Kind.ROUTER, me.session)
        inner = build_udp(own, _service(targets, 4), 40000, 7, mark)
        body = src.packed + inner
        yield template(Kind.ROUTER, build_icmp(src, own, (5, 1), body))


def _odd6(me: Identity, src: Address, service: Address) -> Iterator[Template]:
    for dst in map(IPv6Address, ("ff02::fb", "ff05::2", "ff0e::1")):
        yield _udp(me, Kind.MULTICAST, src, dst, 30400, 5353)
    for header in odd_packets.EXTENSIONS:
        mark = marker.build(Kind.EXTENSION, me.session)
        plain = build_udp(src, service, 30500, ECHO_PORT, mark)
        yield template(Kind.EXTENSION, odd_packets.with_extension(plain, header))
    mark = marker.build(Kind.ROUTER, me.session)
    option = b"\xfd\x03" + bytes(6) + mark  # an experimental one (RFC 4727), three times 8 bytes
    for kind, rest in ((134, struct.pack("!BBHII", 64, 0, 1800, 0, 0)), (137, _redirect6(src))):
        made = build_icmp("fe80::1", "ff02::1", (kind, 0), rest + option)
        yield template(Kind.ROUTER, made[:7] + b"\xff" + made[8:])  # hop limit 255, RFC 4861


def _redirect6(src: Address) -> bytes:
    return bytes(4) + src.packed + IPv6Address("2001:db8:51::10").packed


def _spoofs(me: Identity, family: Family, targets: Targets) -> Iterator[Template]:
    dst = _service(targets, family)
    nowhere = map(ip_address, _NOWHERE if family == 4 else _NOWHERE6)
    for number, src in enumerate((*_of(family, targets.forged), *nowhere)):
        if src in me.addresses:
            continue
        yield _udp(me, Kind.SPOOF, src, dst, 30600, ECHO_PORT)
        build = (_new, _echo)[number % 2]
        yield build(me, src, dst, Kind.SPOOF) if build is _new else _echo(me, Kind.SPOOF, src, dst)


def _udp(me: Identity, kind: Kind, src: Address, dst: Address, sport: int, dport: int) -> Template:
    return template(kind, build_udp(src, dst, sport, dport, marker.build(kind, me.session)))


def _new(me: Identity, src: Address, dst: Address, kind: Kind = Kind.TCP_NEW) -> Template:
    """A SYN whose source port, 0 here, is filled in with each packet."""
    data = marker.build(kind, me.session)
    packet = build_tcp(src, dst, 0, NEW_PORT, flags=SYN, data=data)
    return template(kind, packet, port=20 if src.version == 4 else 40)


def _echo(me: Identity, kind: Kind, src: Address, dst: Address) -> Template:
    mark = marker.build(kind, me.session)
    number = struct.pack("!HH", me.session, 1)
    packet = build_icmp(src, dst, (8, 0) if src.version == 4 else (128, 0), number + mark)
    return template(kind, packet)


def _fragments(me: Identity, src: Address, dst: Address) -> Iterator[Template]:
    """A datagram in two pieces that each carry a marker; a few with other identifications, so that
    no two that are under way are taken for one."""
    for number in range(4):
        mark = marker.build(Kind.FRAGMENT, me.session)
        whole = build_udp(src, dst, 30700, ECHO_PORT, mark + bytes(16) + mark + bytes(8))
        pieces = odd_packets.fragments4 if src.version == 4 else odd_packets.fragments6
        for piece in pieces(whole, 32):
            if marker.MAGIC in piece:
                yield template(Kind.FRAGMENT, _identified(piece, me.session * 8 + number))


def _identified(piece: bytes, number: int) -> bytes:
    if piece[0] >> 4 == 6:
        return piece[:44] + struct.pack("!I", number) + piece[48:]
    head = piece[:4] + struct.pack("!H", number) + piece[6:10] + bytes(2) + piece[12:20]
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + piece[20:]


def _service(targets: Targets, family: Family) -> Address:
    return _of(family, targets.services)[0]


def _of(family: Family, addresses: Iterable[Address]) -> Sequence[Address]:
    return tuple(address for address in addresses if address.version == family)
