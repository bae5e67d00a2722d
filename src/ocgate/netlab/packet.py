"""Packets as values: parse what a capture saw, build what a test injects. Pure.

Headers by RFC 791, 8200, 768, 9293, 792, 4443. Parsing never raises: what is too short or foreign
has its fields at None, and a leak test can still look for its marker in `raw`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

ETH_IPV4 = 0x0800
ETH_ARP = 0x0806
ETH_IPV6 = 0x86DD

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
PROTOCOLS = {ICMP: "icmp", TCP: "tcp", UDP: "udp", ICMPV6: "icmp6"}

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10

# Hop-by-hop, routing, destination options: the extension headers with a length of their own
# (RFC 8200 section 4). A fragment header (44) ends the parsing: only the first one has ports.
_EXTENSIONS = frozenset({0, 43, 60})


@dataclass(frozen=True)
class Packet:
    """One packet as seen on one interface.

    at:        seconds since the epoch, by the kernel.
    interface: where it was seen; empty if that was gone before the capture could ask.
    outgoing:  True if it was leaving by that interface, False if it came in.
    ethertype: ETH_IPV4, ETH_IPV6, ETH_ARP, …
    raw:       from the network header on, cut at the capture's snap length.
    protocol:  "tcp", "udp", "icmp", "icmp6", or the number as text.
    kind:      ICMP's (type, code).
    """

    at: float
    interface: str
    outgoing: bool
    ethertype: int
    raw: bytes
    src: Address | None = None
    dst: Address | None = None
    protocol: str | None = None
    sport: int | None = None
    dport: int | None = None
    flags: int = 0
    kind: tuple[int, int] | None = None

    def __str__(self) -> str:
        way = "out" if self.outgoing else "in"
        ports = f" {self.sport}->{self.dport}" if self.sport is not None else ""
        kind = f" type {self.kind[0]} code {self.kind[1]}" if self.kind else ""
        what = self.protocol or f"ethertype {self.ethertype:#06x}"
        flags = f" flags {self.flags:#04x}" if self.flags else ""
        return f"{self.interface} {way}: {self.src} -> {self.dst} {what}{ports}{flags}{kind}"


Predicate = Callable[[Packet], bool]


def parse(packet: Packet) -> Packet:
    """The same packet with what its headers say filled in."""
    try:
        if packet.ethertype == ETH_IPV4:
            return _parse_ipv4(packet)
        if packet.ethertype == ETH_IPV6:
            return _parse_ipv6(packet)
    except (struct.error, IndexError, ValueError):
        pass
    return packet


def _parse_ipv4(packet: Packet) -> Packet:
    raw = packet.raw
    found = replace(
        packet,
        src=IPv4Address(raw[12:16]),
        dst=IPv4Address(raw[16:20]),
        protocol=PROTOCOLS.get(raw[9], str(raw[9])),
    )
    is_later_fragment = struct.unpack_from("!H", raw, 6)[0] & 0x1FFF
    return found if is_later_fragment else _parse_transport(found, raw[9], (raw[0] & 15) * 4)


def _parse_ipv6(packet: Packet) -> Packet:
    raw = packet.raw
    number, offset = raw[6], 40
    while number in _EXTENSIONS:
        number, offset = raw[offset], offset + (raw[offset + 1] + 1) * 8
    found = replace(
        packet,
        src=IPv6Address(raw[8:24]),
        dst=IPv6Address(raw[24:40]),
        protocol=PROTOCOLS.get(number, str(number)),
    )
    return _parse_transport(found, number, offset)


def _parse_transport(packet: Packet, number: int, offset: int) -> Packet:
    raw = packet.raw
    try:
        if number in (TCP, UDP):
            sport, dport = struct.unpack_from("!HH", raw, offset)
            flags = raw[offset + 13] if number == TCP else 0
            return replace(packet, sport=sport, dport=dport, flags=flags)
        if number in (ICMP, ICMPV6):
            return replace(packet, kind=(raw[offset], raw[offset + 1]))
    except (struct.error, IndexError):
        pass
    return packet


# --- predicates ---------------------------------------------------------------------------------


def match(
    *,
    src: str | Address | Network | None = None,
    dst: str | Address | Network | None = None,
    protocol: str | None = None,
    sport: int | None = None,
    dport: int | None = None,
    kind: tuple[int, int] | None = None,
    flags: int = 0,
    marker: bytes = b"",
    interface: str | None = None,
    outgoing: bool | None = None,
) -> Predicate:
    """A predicate that holds if all that is given holds; nothing given matches every packet.

    src, dst: an address or a network.   flags: TCP flags that must all be set.
    marker:   bytes anywhere in the captured part, so also inside an ICMP error.
    """
    src_net, dst_net = _network(src), _network(dst)

    def holds(packet: Packet) -> bool:
        return (
            (marker in packet.raw)
            and (src_net is None or _inside(packet.src, src_net))
            and (dst_net is None or _inside(packet.dst, dst_net))
            and protocol in (None, packet.protocol)
            and sport in (None, packet.sport)
            and dport in (None, packet.dport)
            and kind in (None, packet.kind)
            and interface in (None, packet.interface)
            and outgoing in (None, packet.outgoing)
            and packet.flags & flags == flags
        )

    return holds


def any_of(*predicates: Predicate) -> Predicate:
    """Whatever one of them matches."""
    return lambda packet: any(predicate(packet) for predicate in predicates)


def touches(network: str | Address | Network) -> Predicate:
    """Source or destination inside `network`: whatever carries a client's address."""
    return any_of(match(src=network), match(dst=network))


def _network(value: str | Address | Network | None) -> Network | None:
    return None if value is None else ip_network(value)


def _inside(address: Address | None, network: Network) -> bool:
    return address is not None and address.version == network.version and address in network


# --- building -----------------------------------------------------------------------------------


def checksum(data: bytes) -> int:
    """The Internet checksum, RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def build_udp(src: str | Address, dst: str | Address, sport: int, dport: int, data: bytes) -> bytes:
    """An IPv4 or IPv6 packet (by its addresses) with a UDP datagram."""
    head = struct.pack("!HHHH", sport, dport, 8 + len(data), 0)
    return _build_ip(ip_address(src), ip_address(dst), UDP, head + data, checksum_at=6)


def build_tcp(
    src: str | Address,
    dst: str | Address,
    sport: int,
    dport: int,
    *,
    flags: int,
    seq: int = 1,
    ack: int = 0,
    data: bytes = b"",
) -> bytes:
    """A TCP segment without options, window 65535."""
    head = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 5 << 4, flags, 0xFFFF, 0, 0)
    return _build_ip(ip_address(src), ip_address(dst), TCP, head + data, checksum_at=16)


def build_icmp(
    src: str | Address, dst: str | Address, kind: tuple[int, int], rest: bytes = bytes(4)
) -> bytes:
    """ICMP or ICMPv6, by the addresses; `rest` is all after the checksum.

    An echo request is (8, 0) or (128, 0) with id, sequence and data as `rest`; an error carries
    4 zero bytes (or the MTU) and the packet it complains about.
    """
    source = ip_address(src)
    number = ICMP if source.version == 4 else ICMPV6
    body = struct.pack("!BBH", *kind, 0) + rest
    return _build_ip(source, ip_address(dst), number, body, checksum_at=2)


def build_other(src: str | Address, dst: str | Address, number: int, body: bytes) -> bytes:
    """An IPv4 or IPv6 packet of protocol `number` with that payload, whatever it means."""
    return _with_header(ip_address(src), ip_address(dst), number, body)


def _build_ip(src: Address, dst: Address, number: int, body: bytes, *, checksum_at: int) -> bytes:
    # ICMP of IPv4 is the only one without a pseudo header.
    pseudo = src.packed + dst.packed + struct.pack("!II", len(body), number)
    total = checksum((b"" if number == ICMP else pseudo) + body) or 0xFFFF
    body = body[:checksum_at] + struct.pack("!H", total) + body[checksum_at + 2 :]
    return _with_header(src, dst, number, body)


def _with_header(src: Address, dst: Address, number: int, body: bytes) -> bytes:
    if src.version == 6:
        return struct.pack("!IHBB", 6 << 28, len(body), number, 64) + src.packed + dst.packed + body
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, number, 0)
    head += src.packed + dst.packed
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body
