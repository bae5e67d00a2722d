"""The mark in every packet of a proof: whose it is, of which kind, during which fault. Pure.

    magic 6 | kind 1 | session 1 | fault 2 | sequence 4 | filler 2      16 bytes, network order

The filler is the complement of what changes from packet to packet, so that a precomputed checksum
of UDP, TCP or ICMP stays right whatever fault and sequence are written into it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

MAGIC = b"\xa7ocgP\x9e"  # six bytes that no header of IP, TCP or UDP holds by chance
SIZE = 16
CHANGING = 8  # offset of fault, sequence and filler within a marker

_CHANGING = struct.Struct("!HIH")
_WHOLE = struct.Struct("!6sBBHIH")
pack_changing = _CHANGING.pack_into


class Kind(IntEnum):
    """What a client's packet is for; HOST is what the gateway sends by itself on its account."""

    UDP = 1  # a flow with answers
    TCP_NEW = 2  # a SYN from a port that was never used
    TCP = 3  # numbered data on an established connection
    ICMP = 4  # echo requests
    DNS = 5  # queries to port 53
    DOWNLOAD = 6  # UDP that the service pushes
    TCP_DOWNLOAD = 7  # TCP that the service pushes
    SPOOF = 8  # a source that is not the session's
    DOCKER = 9  # to neighbours and the docker host
    EXIT = 10  # to the upstream itself
    PEER = 11  # to other clients
    METADATA = 12  # to 169.254.169.254
    MULTICAST = 13  # multicast and broadcast
    FRAGMENT = 14
    EXTENSION = 15  # IPv6 extension headers
    ROUTER = 16  # router advertisements and redirects
    SHADOW = 17  # flows to take the listener's port with, and what their destination sends there
    FLOOD = 18  # flows without end, of one client to one service
    BESIDE = 19  # new flows of another client to that service
    UNMARKED = 20  # a client's address in a packet without a mark
    HOST = 21  # a packet of the gateway's own to a destination that only clients use
    PROVIDER = 22  # what an upstream's own provider sends unasked, to its networks and clients

    @property
    def word(self) -> str:
        """As it is printed."""
        return self.name.lower().replace("_", " ")


# Kinds whose packets may leave by the right exit, translated. What all others send may go nowhere,
# apart from DOCKER and EXIT, which `verdict` decides by the exit.
USUAL = frozenset(
    {
        Kind.UDP,
        Kind.TCP_NEW,
        Kind.TCP,
        Kind.ICMP,
        Kind.DNS,
        Kind.DOWNLOAD,
        Kind.TCP_DOWNLOAD,
        Kind.FRAGMENT,
        Kind.EXTENSION,
        Kind.SHADOW,
        Kind.FLOOD,
        Kind.BESIDE,
    }
)


@dataclass(frozen=True)
class Marker:
    """What one says."""

    kind: int
    session: int
    fault: int
    sequence: int


def filler(fault: int, sequence: int, also: int = 0) -> int:
    """What makes the sum of all changing words the same for each packet (RFC 1071).

    also: another 16-bit word of the packet that changes, such as a port.
    """
    total = fault + (sequence >> 16) + (sequence & 0xFFFF) + also
    total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - ((total & 0xFFFF) + (total >> 16))


def build(kind: int, session: int, fault: int = 0, sequence: int = 0) -> bytes:
    """A marker's bytes."""
    return _WHOLE.pack(MAGIC, kind, session, fault, sequence, filler(fault, sequence))


def find(packet: bytes) -> Marker | None:
    """The first marker anywhere in `packet`, also inside an ICMP error."""
    at = packet.find(MAGIC)
    if at < 0 or len(packet) < at + SIZE:
        return None
    _, kind, session, fault, sequence, _ = _WHOLE.unpack_from(packet, at)
    return Marker(kind, session, fault, sequence)
