"""Counts marked packets in a namespace, beside the captures that the proof judges by.

Those see whatever reaches somebody; here a row asks a question of its own: what of an attacker's
has left by the tunnel, has come to the server in front, has which destination.
"""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import islice

from ocgate.netlab.namespace import Namespace
from ocgate.netlab.packet import ETH_IPV4, ETH_IPV6, Address
from ocgate.prove import marker
from ocgate.prove.marker import Kind
from ocgate.prove.verdict import describe
from support.prove_forgeries import AS_USER, FORGED

PROVIDERS = marker.MAGIC + bytes((Kind.PROVIDER,))  # in what the provider sends

_ETH_P_ALL = 3
_OTHERS, _OUTGOING = 3, 4  # PACKET_OTHERHOST (a bridge has flooded), PACKET_OUTGOING
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_SO_RCVBUFFORCE = 33  # <asm-generic/socket.h>
_ROOM = 32 << 20  # bytes; a row is over in a second or two


@dataclass(frozen=True)
class Sighting:
    """One packet. packet: its first bytes."""

    outgoing: bool
    packet: bytes
    dst: Address
    port: int


class Watch:
    """Context manager; what passes a device while it is open, or all devices. Raises AssertionError
    at the end if the kernel could not keep all."""

    def __init__(self, netns: Namespace, device: str = "") -> None:
        with netns.entered():  # by no name `bind` finds a device: whose protocol is told sees all
            protocol = 0 if device else socket.htons(_ETH_P_ALL)
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, protocol)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
        self._device = device
        self.seen: list[Sighting] = []

    def __enter__(self) -> Watch:
        if self._device:
            self._socket.bind((self._device, _ETH_P_ALL))
        self._socket.setblocking(False)
        return self

    def __exit__(self, *raised: object) -> None:
        try:
            self.read()
            stats = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
            missed = struct.unpack("=II", stats)[1]
            assert raised[0] is not None or not missed, f"{missed} packets were not seen"
        finally:
            self._socket.close()

    def read(self) -> None:
        """Look at what has passed until now."""
        while True:
            try:
                packet, where = self._socket.recvfrom(512)
            except BlockingIOError:
                return
            if where[1] in (ETH_IPV4, ETH_IPV6) and where[2] != _OTHERS and len(packet) >= 28:
                self._note(packet, outgoing=where[2] == _OUTGOING)

    def _note(self, packet: bytes, *, outgoing: bool) -> None:
        is_v4 = packet[0] >> 4 == 4
        at = 20 if is_v4 else 40
        dst = ip_address(packet[16:20] if is_v4 else packet[24:40])
        port = int.from_bytes(packet[at + 2 : at + 4], "big")
        self.seen.append(Sighting(outgoing, packet, dst, port))

    def count(self, mark: bytes, *, outgoing: bool) -> Counter[Address]:
        """Those with this mark that went that way, by their destination."""
        self.read()
        marked = (s for s in self.seen if s.outgoing is outgoing and mark in s.packet)
        return Counter(s.dst for s in marked)

    def examples(self, mark: bytes) -> list[str]:
        """Some that came in with it, in words."""
        came = (s for s in self.seen if not s.outgoing and mark in s.packet)
        return [describe(s.packet, 4 if s.dst.version == 4 else 6) for s in islice(came, 3)]

    def sent_to(self, addresses: Iterable[Address], port: int) -> int:
        """Packets that left for any of these, whatever is in them."""
        self.read()
        wanted = set(addresses)
        return sum(s.outgoing and s.dst in wanted and s.port == port for s in self.seen)


@dataclass
class Seen:
    """Attackers' packets by their destination: out of the tunnel, at the neighbour, at the ISP and
    the docker host, at the server in front. forged_…, as_user: of the neighbour's."""

    watch_tunnel: Watch
    watch_neighbour: Watch
    watch_isp: Watch
    watch_server: Watch
    tunnel: Counter[Address] = field(default_factory=Counter)
    neighbour: Counter[Address] = field(default_factory=Counter)
    uplink: Counter[Address] = field(default_factory=Counter)
    server: Counter[Address] = field(default_factory=Counter)
    forged_by_uplink: Counter[Address] = field(default_factory=Counter)
    forged_into_tunnel: Counter[Address] = field(default_factory=Counter)
    as_user: Counter[Address] = field(default_factory=Counter)

    def note(self) -> None:
        """At the end."""
        self.tunnel = self.watch_tunnel.count(PROVIDERS, outgoing=False)
        self.neighbour = self.watch_neighbour.count(PROVIDERS, outgoing=False)
        self.uplink = self.watch_isp.count(PROVIDERS, outgoing=False)
        self.server = self.watch_server.count(PROVIDERS, outgoing=False)
        uplink = (self.watch_isp.count(mark, outgoing=False) for mark in (FORGED, AS_USER))
        self.forged_by_uplink = sum(uplink, Counter[Address]())
        self.as_user = self.watch_tunnel.count(AS_USER, outgoing=True)
        self.forged_into_tunnel = self.watch_tunnel.count(FORGED, outgoing=True)

    def last_has_come(self) -> bool:
        """Whether the last of the provider's is out of the tunnel."""
        return bool(self.watch_tunnel.count(FORGED, outgoing=False))

    @property
    def reached(self) -> bool:
        """Whether any of the provider's has come to anybody."""
        return bool(self.neighbour or self.uplink or self.server)

    @property
    def shown(self) -> str:
        """Counts."""
        out = f"{sum(self.tunnel.values())} out of the tunnel"
        at = {"neighbour": self.neighbour, "ISP": self.uplink, "server": self.server}
        return "; ".join([out, *(f"{who}: {_counts(held)}" for who, held in at.items())])


def _counts(held: Counter[Address]) -> str:
    return ", ".join(f"{count} to {to}" for to, count in held.items()) or "none"
