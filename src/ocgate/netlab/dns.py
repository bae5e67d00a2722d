"""A DNS server that answers from a table and remembers who asked, and a client to ask it.

Wire format by RFC 1035: one question, A and AAAA answers, no compression but the pointer to the
question. Enough to show which way a query went; not a resolver.
"""

from __future__ import annotations

import socket
import socketserver
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

from ocgate.netlab.namespace import Namespace
from ocgate.netlab.services import Tcp, Tcp6, Udp, Udp6, close_servers, serve

Address = IPv4Address | IPv6Address

DNS_PORT = 53
_TYPES = {"A": 1, "AAAA": 28}
_NAMES = {number: name for name, number in _TYPES.items()}
_NXDOMAIN = 3
_POINTER_TO_QUESTION = 0xC00C  # the question's name starts right behind the 12-byte header


@dataclass(frozen=True)
class Query:
    """One question as the server saw it: `client` is the address it came from."""

    at: float
    client: Address
    name: str
    kind: str
    transport: str


class DnsServer:
    """Serves `table` (lower-case name without final dot -> addresses) over UDP and TCP, port 53.

    ttl: seconds, of every answer. Names that aren't there get NXDOMAIN. `queries` grows with every
    question; `table` may be changed while it serves.
    """

    def __init__(
        self,
        netns: Namespace,
        addresses: Sequence[Address],
        table: Mapping[str, Sequence[Address]],
        *,
        ttl: int = 60,
    ) -> None:
        self.table = dict(table)
        self._ttl = ttl
        self.queries: list[Query] = []
        self._servers: list[socketserver.BaseServer] = []
        answer = self._answer

        class OverUdp(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                data, sock = self.request
                sock.sendto(answer(data, self.client_address[0], "udp"), self.client_address)

        class OverTcp(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                length = struct.unpack("!H", self.rfile.read(2))[0]
                reply = answer(self.rfile.read(length), self.client_address[0], "tcp")
                self.wfile.write(struct.pack("!H", len(reply)) + reply)

        with netns.entered():
            for address in addresses:
                udp, tcp = (Udp, Tcp) if address.version == 4 else (Udp6, Tcp6)
                self._servers.append(udp((str(address), DNS_PORT), OverUdp))
                self._servers.append(tcp((str(address), DNS_PORT), OverTcp))
        serve(self._servers)

    def _answer(self, request: bytes, client: str, transport: str) -> bytes:
        name, kind, end = _question(request)
        self.queries.append(Query(time.time(), ip_address(client), name, kind, transport))
        known = self.table.get(name)
        version = 4 if kind == "A" else 6
        found = [a for a in known or () if kind in _TYPES and a.version == version]
        # Response, recursion desired and available; NXDOMAIN only if the name has nothing at all.
        flags = 0x8180 | (_NXDOMAIN if known is None else 0)
        head = request[:2] + struct.pack("!HHHHH", flags, 1, len(found), 0, 0)
        return head + request[12:end] + b"".join(_record(a, self._ttl) for a in found)

    def close(self) -> None:
        close_servers(self._servers)


def _record(address: Address, ttl: int) -> bytes:
    kind = _TYPES["A" if address.version == 4 else "AAAA"]
    packed = address.packed
    return struct.pack("!HHHIH", _POINTER_TO_QUESTION, kind, 1, ttl, len(packed)) + packed


def _question(message: bytes) -> tuple[str, str, int]:
    """(name, type, offset behind the question) of a DNS message."""
    labels, at = [], 12
    while length := message[at]:
        labels.append(message[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    number = struct.unpack_from("!H", message, at + 1)[0]
    return ".".join(labels).lower(), _NAMES.get(number, str(number)), at + 5


@dataclass(frozen=True)
class Resolved:
    """What `resolve` got: rcode 0 and addresses, or an rcode; silent if no reply came."""

    addresses: tuple[Address, ...] = ()
    rcode: int = 0
    silent: bool = field(default=False, kw_only=True)


def resolve(
    netns: Namespace, server: Address, name: str, kind: str = "A", *, timeout: float = 2.0
) -> Resolved:
    """Ask `server` over UDP once, from `netns`; an ICMP error counts as silence."""
    labels = b"".join(bytes([len(p)]) + p.encode() for p in name.split("."))
    question = labels + b"\0" + struct.pack("!HH", _TYPES[kind], 1)
    family = socket.AF_INET if server.version == 4 else socket.AF_INET6
    try:
        with netns.entered(), socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.settimeout(timeout)
            sock.connect((str(server), DNS_PORT))
            sock.send(struct.pack("!HHHHHH", 0x0C60, 0x0100, 1, 0, 0, 0) + question)
            reply = sock.recv(4096)
    except OSError:
        return Resolved(silent=True)
    return Resolved(tuple(_addresses(reply)), reply[3] & 0x0F)


def _addresses(reply: bytes) -> list[Address]:
    """Addresses in the answers of a reply of ours (every record's name is a pointer)."""
    at, found = _question(reply)[2], []
    for _ in range(struct.unpack_from("!H", reply, 6)[0]):
        length = struct.unpack_from("!H", reply, at + 10)[0]
        found.append(ip_address(reply[at + 12 : at + 12 + length]))
        at += 12 + length
    return found
