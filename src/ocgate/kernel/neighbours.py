"""The door to neighbour entries: does the next hop answer to ARP or NDP, as the kernel knows it.

A look does not send anything. `solicit` has the kernel ask, as a packet to that neighbour would;
the verdict follows as an event (kernel.watch) or at the next look. The wiring imports this.
"""

from __future__ import annotations

import socket
import struct
from enum import Enum

from ocgate.kernel import netlink, rtnetlink
from ocgate.kernel.netlink import CREATE, REPLACE, Message, attribute
from ocgate.plan.facts import Address

_NDMSG = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type; linux/neighbour.h
_NDA_DST = 1
_NTF_USE = 1  # treat as if a packet were sent there (neigh_event_send)

# linux/neighbour.h NUD_*. NOARP devices (tun) and permanent entries have nobody to ask.
_INCOMPLETE, _PROBE, _FAILED = 0x01, 0x10, 0x20
_ANSWERED = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80  # reachable … probe, noarp, permanent


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


def index_of_lost(message: Message) -> int | None:
    """The ifindex that an event is about if it says that an IP neighbour failed, or that its entry
    is gone; None for all else (each refresh is an event, and so is a bridge's address table)."""
    family, index, state, _, _ = _NDMSG.unpack_from(message.payload)
    if family not in (rtnetlink.af(4), rtnetlink.af(6)):
        return None
    lost = message.kind == rtnetlink.DELNEIGH or bool(state & _FAILED)
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
