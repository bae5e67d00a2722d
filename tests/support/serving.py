"""A gateway on an operator's own ocserv.conf, and lab services, in one call; for lab tests."""

from __future__ import annotations

import socketserver
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from lab import gateway
from lab.client import Client, Login, connect
from lab.gateway import Gateway
from lab.ocserv import write_config_dir
from lab.topology import RESOLVER, SERVICE, SERVICE6, Host, Lab
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.packet import Packet
from ocgate.netlab.services import Services, Tcp, Udp, close_servers, seen_peer
from ocgate.netlab.services import serve as serve_in_threads
from ocgate.netlab.wait import wait_until

LabFactory = Callable[..., Lab]

PASSWORD = "a long secret"


@dataclass(frozen=True)
class Served:
    """A gateway that serves, its lab, and whom it lets in (all with PASSWORD)."""

    lab: Lab
    gateway: Gateway

    def login(self, user: str = "alice", password: str = PASSWORD) -> Login:
        return self.gateway.login(user, password)

    def connect(
        self,
        host: Host | None = None,
        user: str = "alice",
        *,
        dtls: bool = True,
        path: str = "",
        options: Sequence[str] = (),
    ) -> Client:
        where = host or self.lab.clients[0]
        return connect(self.lab, where, self.login(user), dtls=dtls, path=path, options=options)

    def sessions(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = self.gateway.status()["sessions"]
        return found

    def wait_no_sessions(self, timeout: float = 5.0) -> None:
        wait_until(lambda: not self.sessions(), timeout, "the end of all sessions")

    def blocked(self, reason: str) -> int:
        """Packets counted for `reason` since the start."""
        for counter in self.gateway.status()["blocked"]:
            if counter["reason"] == reason:
                return int(counter["packets"])
        raise KeyError(reason)


def with_services(lab: Lab) -> Lab:
    """The internet answers on SERVICE, SERVICE6 and, as a second IPv4 host, RESOLVER."""
    lab.own(Services(lab.inet.netns, (SERVICE, SERVICE6, RESOLVER)))
    return lab


def operators(
    lab: Lab,
    users: Sequence[str] = ("alice",),
    *,
    settings: Mapping[str, str | None] | None = None,
    lines: Sequence[str] = ("route = default", "tunnel-all-dns = true"),
) -> Path:
    """An operator's config dir whose ocserv.conf is complete and right."""
    directory = lab.path("etc")
    passwords = dict.fromkeys(users, PASSWORD)
    write_config_dir(lab, directory, passwords, settings=settings, lines=lines)
    return directory


def serve(
    lab: Lab,
    users: Sequence[str] = ("alice",),
    *,
    settings: Mapping[str, str | None] | None = None,
    lines: Sequence[str] = ("route = default", "tunnel-all-dns = true"),
    environ: Mapping[str, str] | None = None,
) -> Served:
    """Start the gateway on such a config dir and wait until it serves."""
    directory = operators(lab, users, settings=settings, lines=lines)
    return Served(lab, gateway.run(lab, environ, directory))


def mss_of(packet: Packet) -> int | None:
    """The MSS option (RFC 9293 section 3.2, kind 2) of a TCP segment over IPv4 or IPv6."""
    raw = packet.raw
    offset = (raw[0] & 15) * 4 if raw[0] >> 4 == 4 else 40
    options = raw[offset + 20 : offset + (raw[offset + 12] >> 4) * 4]
    at = 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:
            at += 1
        elif options[at] == 2:
            return int(struct.unpack_from("!H", options, at + 2)[0])
        else:
            at += options[at + 1]
    return None


class _TcpReport(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(seen_peer(self.client_address))
        while self.request.recv(65536):  # closing with unread data would be a reset
            pass


class _UdpReport(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        sock.sendto(seen_peer(self.client_address) + data, self.client_address)


class Listeners:
    """Something that answers on `ports` of `address`, by UDP and TCP, like the lab's echo.

    `Services` takes port 443 as well, which ocserv holds on every address of gw.
    """

    def __init__(self, netns: Namespace, address: IPv4Address, ports: Sequence[int]) -> None:
        with netns.entered():
            self._servers: list[socketserver.BaseServer] = [
                made
                for port in ports
                for made in (
                    Tcp((str(address), port), _TcpReport),
                    Udp((str(address), port), _UdpReport),
                )
            ]
        serve_in_threads(self._servers)

    def close(self) -> None:
        close_servers(self._servers)
