"""Asks a link who has an address: ARP (RFC 826, 5227) or neighbour solicitation (RFC 4861).

The kernel does not ask for a neighbour whose entry is permanent, and would believe who answers for
one that is not. This asks beside it: as a host does that is about to take the address, so that
nobody learns anything of the question, and everybody who has the address objects. Needs
CAP_NET_RAW. The wiring imports this.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from ipaddress import IPv4Address, IPv6Address

from ocgate.plan.facts import Address

_ETH_ARP, _ETH_IPV6 = 0x0806, 0x86DD  # linux/if_ether.h
_BROADCAST = b"\xff" * 6
_ARP = struct.Struct("!HHBBH6s4s6s4s")  # RFC 826
_ARPHRD_ETHER, _REQUEST, _REPLY = 1, 1, 2
_ICMPV6, _SOLICITATION, _ADVERTISEMENT = 58, 135, 136  # RFC 4861
_HOPS = 255  # what came from beyond the link has less
_TARGET_MAC = 2  # option
_IPV6_HEADER, _TARGET, _OPTIONS = 40, 48, 64  # bytes before what is read
_LONGEST = 256


async def holders(address: Address, device: str, *, wait: float) -> frozenset[str] | None:
    """MAC addresses that answer for `address` on `device` within `wait` seconds, all of which are
    waited for; None where nobody can be asked: no such device, not Ethernet, no capability."""
    ethertype = _ETH_ARP if address.version == 4 else _ETH_IPV6
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
    except OSError:
        return None
    with sock:
        try:
            sock.bind((device, ethertype))
            mine = sock.getsockname()[4]
            to, question = _question(address, mine)
            sock.sendto(question, (device, ethertype, 0, 0, to))
        except (OSError, struct.error):
            return None
        found: set[str] = set()
        with contextlib.suppress(OSError):  # TimeoutError, or a device that goes meanwhile
            async with asyncio.timeout(wait):
                await _collect(sock, address, found)
        with contextlib.suppress(OSError):  # what came while this process had no CPU
            while True:
                _take(sock.recv(_LONGEST), address, found)
        return frozenset(found)


async def _collect(sock: socket.socket, address: Address, found: set[str]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        _take(await loop.sock_recv(sock, _LONGEST), address, found)


def _take(data: bytes, address: Address, found: set[str]) -> None:
    mac = _of_arp(data, address) if address.version == 4 else _of_ndp(data, address)
    if mac:
        found.add(mac.hex(":"))


def _question(address: Address, mine: bytes) -> tuple[bytes, bytes]:
    """(MAC to send to, packet)."""
    if isinstance(address, IPv4Address):
        nobody = bytes(4)  # an address probe: the source is unspecified
        fields = (_ARPHRD_ETHER, 0x0800, 6, 4, _REQUEST, mine, nobody, bytes(6), address.packed)
        return _BROADCAST, _ARP.pack(*fields)
    group = IPv6Address("ff02::1:ff00:0").packed[:13] + address.packed[13:]
    body = struct.pack("!BBHI", _SOLICITATION, 0, 0, 0) + address.packed
    pseudo = bytes(16) + group + struct.pack("!II", len(body), _ICMPV6)
    body = body[:2] + struct.pack("!H", _checksum(pseudo + body)) + body[4:]
    header = struct.pack("!IHBB", 6 << 28, len(body), _ICMPV6, _HOPS) + bytes(16) + group
    return b"\x33\x33" + group[12:], header + body


def _of_arp(data: bytes, address: Address) -> bytes:
    """The sender's MAC if this is an answer for that address."""
    if len(data) < _ARP.size:
        return b""
    _, _, _, _, kind, mac, sender, _, _ = _ARP.unpack_from(data)
    return mac if kind == _REPLY and sender == address.packed else b""


def _of_ndp(data: bytes, address: Address) -> bytes:
    """The target's MAC if this is an advertisement of that address from this link."""
    if len(data) < _OPTIONS or data[6] != _ICMPV6 or data[7] != _HOPS:
        return b""
    if data[_IPV6_HEADER] != _ADVERTISEMENT or data[_TARGET:_OPTIONS] != address.packed:
        return b""
    option = data[_OPTIONS : _OPTIONS + 8]
    return option[2:] if option[:2] == bytes((_TARGET_MAC, 1)) and len(option) == 8 else b""


def _checksum(data: bytes) -> int:
    """RFC 1071, of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
