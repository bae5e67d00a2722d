"""The door to neighbour entries: does the next hop answer to ARP or NDP, as the kernel knows it.

A look does not send anything. `solicit` has the kernel ask, as a packet to that neighbour would;
the verdict follows as an event (kernel.watch) or at the next look. The wiring imports this.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection, Iterable
from enum import Enum

from ocgate.errors import KernelRefused
from ocgate.kernel import netlink, rtnetlink
from ocgate.kernel.netlink import CREATE, REPLACE, Message, attribute, attributes
from ocgate.names import ROUTE_PROTOCOL
from ocgate.plan.facts import Address, Family
from ocgate.plan.model import PinnedNeighbour

_NDMSG = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type; linux/neighbour.h
_NDA_DST, _NDA_LLADDR, _NDA_PROTOCOL = 1, 2, 12
_NTF_USE = 1  # treat as if a packet were sent there (neigh_event_send)

# linux/neighbour.h NUD_*. NOARP devices (tun) and permanent entries have nobody to ask.
_INCOMPLETE, _PROBE, _FAILED = 0x01, 0x10, 0x20
_PERMANENT = 0x80
_ANSWERED = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80  # reachable … probe, noarp, permanent


_MAC_BYTES = 6
_FAMILIES: tuple[Family, ...] = (4, 6)
_PROTOCOL = bytes([ROUTE_PROTOCOL])


class Neighbour(Enum):
    """What the kernel knows of a neighbour."""

    ANSWERED = "answered"
    """It has a link-layer address, fresh or from before."""
    ASKED = "asked"
    """Being asked, no answer so far."""
    FAILED = "failed"
    """It did not answer to as many attempts as the kernel makes (three by default)."""
    UNKNOWN = "unknown"
    """Nobody has asked, or the entry was collected, or there is no such device."""


def neighbour(address: Address, device: str) -> Neighbour:
    """The entry of `address` on `device` in this thread's network namespace, now."""
    try:
        with netlink.Netlink(netlink.ROUTE) as door:
            found = door.request(rtnetlink.GETNEIGH, 0, _request(address, device))
    except OSError:  # ENOENT: no entry. ENODEV, EINVAL: the device is gone
        return Neighbour.UNKNOWN
    states = [_NDMSG.unpack_from(m.payload)[2] for m in found if m.kind == rtnetlink.NEWNEIGH]
    return _meaning(states[0]) if states else Neighbour.UNKNOWN


def solicit(address: Address, device: str) -> bool:
    """Have the kernel ask for `address` on `device`, if what it knows is not fresh.

    False where it can't: no such device, or it may not (CAP_NET_ADMIN).
    """
    try:
        with netlink.Netlink(netlink.ROUTE) as door:
            door.request(rtnetlink.NEWNEIGH, CREATE, _request(address, device, _NTF_USE))
    except OSError:
        return False
    return True


def suspect(address: Address, device: str) -> bool:
    """Have the kernel ask for what it believes to know, and forget it within seconds if nobody
    answers: a host that came back with another link-layer address and did not announce itself is
    otherwise looked for after up to 45 s (arp(7), base_reachable_time). False as of `solicit`."""
    try:
        with netlink.Netlink(netlink.ROUTE) as door:
            door.request(rtnetlink.NEWNEIGH, REPLACE, _request(address, device, state=_PROBE))
    except OSError:
        return False
    return True


def mac_of(address: Address, device: str) -> str:
    """The MAC address that the kernel sends to for `address` on `device`; '' where it knows none.
    Of other than Ethernet's length also ''."""
    try:
        with netlink.Netlink(netlink.ROUTE) as door:
            found = door.request(rtnetlink.GETNEIGH, 0, _request(address, device))
    except OSError:
        return ""
    entries = [m for m in found if m.kind == rtnetlink.NEWNEIGH]
    held = attributes(entries[0].payload, _NDMSG.size) if entries else {}
    mac = bytes(held.get(_NDA_LLADDR, b""))
    return mac.hex(":") if len(mac) == _MAC_BYTES else ""


def pins() -> list[PinnedNeighbour]:
    """Permanent entries of ours, as the kernel holds them now."""
    return [pin for pin, permanent in _ours() if permanent]


def pin(wanted: Collection[PinnedNeighbour]) -> None:
    """Have exactly these pinned; what else of ours is there goes. Raises KernelRefused."""
    held = _ours()
    standing = {one for one, permanent in held if permanent}
    with netlink.Netlink(netlink.ROUTE) as door:
        for one in wanted:
            if one not in standing:
                _ask(door, rtnetlink.NEWNEIGH, CREATE | REPLACE, one)
        kept = {(one.address, one.device) for one in wanted}
        for one, _ in held:
            if (one.address, one.device) not in kept:
                _ask(door, rtnetlink.DELNEIGH, 0, one)


def differing(wanted: Iterable[PinnedNeighbour]) -> list[str]:
    """What is lacking of these, in words."""
    held = pins()
    return [f"neighbour {one.text} is gone" for one in wanted if one not in held]


def _ours() -> list[tuple[PinnedNeighbour, bool]]:
    """Entries that we made, and whether they are permanent still: the kernel keeps the protocol of
    one that somebody has replaced."""
    found: list[tuple[PinnedNeighbour, bool]] = []
    with netlink.Netlink(netlink.ROUTE) as door:
        for family in _FAMILIES:
            header = _NDMSG.pack(rtnetlink.af(family), 0, 0, 0, 0)
            for message in rtnetlink.dump_family(door, rtnetlink.GETNEIGH, family, header):
                found += _pinned(message)
    return found


def _pinned(message: Message) -> list[tuple[PinnedNeighbour, bool]]:
    _, index, state, _, _ = _NDMSG.unpack_from(message.payload)
    held = attributes(message.payload, _NDMSG.size)
    if bytes(held.get(_NDA_PROTOCOL, b"")) != _PROTOCOL or _NDA_DST not in held:
        return []
    try:
        device = socket.if_indextoname(index)
    except OSError:  # it has just gone, and the entry with it
        return []
    mac = bytes(held.get(_NDA_LLADDR, b"")).hex(":")
    address = rtnetlink.address(held[_NDA_DST])
    return [(PinnedNeighbour(address, device, mac), bool(state & _PERMANENT))]


def _ask(door: netlink.Netlink, kind: int, flags: int, one: PinnedNeighbour) -> None:
    try:
        payload = _request(one.address, one.device, state=_PERMANENT)
        mac = bytes.fromhex(one.mac.replace(":", ""))
        payload += attribute(_NDA_LLADDR, mac) + attribute(_NDA_PROTOCOL, _PROTOCOL)
        door.request(kind, flags, payload)
    except OSError as refused:
        if kind == rtnetlink.DELNEIGH:  # gone by itself, or with its device
            return
        reply = refused.strerror or str(refused)
        raise KernelRefused(f"refused: {one}", request=str(one), reply=reply) from refused


def index_of_lost(message: Message) -> int | None:
    """The ifindex that an event is about if it says that an IP neighbour failed, that its entry is
    gone, or that one of ours was changed; None for all else (each refresh is an event, and so is a
    bridge's address table)."""
    family, index, state, _, _ = _NDMSG.unpack_from(message.payload)
    if family not in (rtnetlink.af(4), rtnetlink.af(6)):
        return None
    held = attributes(message.payload, _NDMSG.size)
    ours = bytes(held.get(_NDA_PROTOCOL, b"")) == _PROTOCOL and not state & _PERMANENT
    lost = message.kind == rtnetlink.DELNEIGH or bool(state & _FAILED) or ours
    return int(index) if lost else None


def _request(address: Address, device: str, flags: int = 0, state: int = 0) -> bytes:
    family = rtnetlink.af(6 if address.version == 6 else 4)
    header = _NDMSG.pack(family, socket.if_nametoindex(device), state, flags, 0)
    return header + attribute(_NDA_DST, address.packed)


def _meaning(state: int) -> Neighbour:
    if state & _FAILED:
        return Neighbour.FAILED
    if state & _ANSWERED:
        return Neighbour.ANSWERED
    return Neighbour.ASKED if state & _INCOMPLETE else Neighbour.UNKNOWN
