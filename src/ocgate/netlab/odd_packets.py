"""Odd packets that a hostile client builds: fragments, extension headers, router discovery.

Headers by RFC 791, 8200 (section 4), 4861 (sections 4.2, 4.5), 792 (redirect). Pure.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from ocgate.netlab.packet import build_icmp, build_udp, checksum

_FRAGMENT = 44
_HOP_BY_HOP, _ROUTING, _DESTINATION = 0, 43, 60

# PadN over the 6 bytes after the two of the header.
_PADDING = bytes((1, 4, 0, 0, 0, 0))


def _routing(kind: int) -> bytes:
    """A routing header with one address, ::1, still to visit (segments left 1)."""
    return bytes((0, 2, kind, 1)) + bytes(4) + IPv6Address("2001:db8:28::77").packed


# Header number -> its bytes with a next header of 0, which `with_extension` fills in.
EXTENSIONS: tuple[tuple[int, bytes], ...] = (
    (_HOP_BY_HOP, bytes((0, 0)) + _PADDING),
    (_DESTINATION, bytes((0, 0)) + _PADDING),
    *((_ROUTING, _routing(kind)) for kind in (0, 2, 3, 4)),
    (_ROUTING, bytes((0, 0, 0, 0)) + bytes(4)),  # type 0 with no segment left: to be ignored
)


def with_extension(packet: bytes, extension: tuple[int, bytes]) -> bytes:
    """The IPv6 packet with one extension header in front of its payload."""
    number, header = extension
    header = packet[6:7] + header[1:]
    length = len(packet) - 40 + len(header)
    return packet[:4] + struct.pack("!HB", length, number) + packet[7:40] + header + packet[40:]


def fragments4(packet: bytes, size: int, *, overlap: int = 0) -> list[bytes]:
    """Cut an IPv4 packet's payload into pieces of `size` bytes (multiple of 8), each beginning
    `overlap` bytes (multiple of 8) before the end of the one before."""
    head, body = packet[:20], packet[20:]
    made = []
    for offset in range(0, len(body), size):
        start = max(0, offset - overlap)
        more = 0x2000 if offset + size < len(body) else 0
        piece = body[start : offset + size]
        fields = struct.pack("!HHH", 20 + len(piece), 0x7A7A, more | start >> 3)
        cut = head[:2] + fields + head[8:10] + bytes(2) + head[12:]
        made.append(cut[:10] + struct.pack("!H", checksum(cut)) + cut[12:] + piece)
    return made


def fragments6(packet: bytes, size: int) -> list[bytes]:
    """The same for IPv6, with fragment headers."""
    head, body = packet[:40], packet[40:]
    made = []
    for offset in range(0, len(body), size):
        piece = body[offset : offset + size]
        more = 1 if offset + size < len(body) else 0
        fragment = struct.pack("!BBHI", head[6], 0, offset | more, 0x7A7A7A7A)
        sizes = struct.pack("!HB", 8 + len(piece), _FRAGMENT)
        made.append(head[:4] + sizes + head[7:] + fragment + piece)
    return made


def advertisement(source: str, *, prefix: bool = False) -> bytes:
    """A router advertisement to all nodes: a default route, or a prefix to make an address of."""
    rest = struct.pack("!BBHII", 64, 0, 1800, 0, 0)
    if prefix:
        rest += struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 86400, 14400, 0)
        rest += IPv6Address("2001:db8:bad::").packed
    return _from_on_link(build_icmp(source, "ff02::1", (134, 0), rest))


def rogue_advertisement(source: str, *networks: IPv6Network) -> bytes:
    """What a neighbour sends that wants all: a default route of high preference, each network as
    on-link with an address to be made in it (RFC 4861), and a route to it (RFC 4191)."""
    rest = struct.pack("!BBHII", 64, 0x08, 1800, 0, 0)
    for net in networks:
        rest += struct.pack("!BBBBIII", 3, 4, net.prefixlen, 0xC0, 86400, 14400, 0)
        rest += net.network_address.packed
        rest += struct.pack("!BBBBI", 24, 3, net.prefixlen, 0x08, 1800)
        rest += net.network_address.packed
    return _from_on_link(build_icmp(source, "ff02::1", (134, 0), rest))


def arp_claim(address: IPv4Address, mac: bytes, to: IPv4Address, to_mac: bytes) -> bytes:
    """An unasked ARP reply (RFC 826): `address` is at `mac`."""
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2)
    return head + mac + address.packed + to_mac + to.packed


def ndp_claim(address: IPv6Address, mac: bytes, to: IPv6Address) -> bytes:
    """An unasked neighbour advertisement with the override flag (RFC 4861): likewise."""
    rest = struct.pack("!I", 0x2000_0000) + address.packed + b"\x02\x01" + mac
    return _from_on_link(build_icmp(str(address), str(to), (136, 0), rest))


def redirect6(source: str) -> bytes:
    """To all nodes: 2001:db8:51::10 is better reached by the sender."""
    rest = bytes(4) + IPv6Address(source).packed + IPv6Address("2001:db8:51::10").packed
    return _from_on_link(build_icmp(source, "ff02::1", (137, 0), rest))


def redirect6_of(router: str, to: str, target: str, destination: str) -> bytes:
    """`destination` is better reached by `target` (RFC 4861 section 4.5), in the name of the router
    that is in use: both link-local, or it is not believed."""
    rest = bytes(4) + IPv6Address(target).packed + IPv6Address(destination).packed
    return _from_on_link(build_icmp(router, to, (137, 0), rest))


def redirect4(
    source: str,
    to: str,
    *,
    router: str = "",
    about: tuple[str, int] = ("198.51.100.10", 7),
    port: int = 40000,
) -> bytes:
    """The sender is the better next hop to somebody (address, port), about a packet that `to` has
    sent there from `port`.

    router: whom it claims to be: only the next hop that is in use is believed.
    """
    inner = build_udp(to, about[0], port, about[1], b"?")
    gateway = bytes(int(part) for part in source.split("."))
    return build_icmp(router or source, to, (5, 1), gateway + inner[:28])


def _from_on_link(packet: bytes) -> bytes:
    """Hop limit 255, without which neighbour discovery ignores it."""
    return packet[:7] + b"\xff" + packet[8:]
