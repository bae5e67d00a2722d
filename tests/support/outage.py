"""Flows of a client that last through an outage, and a far end that knows which of them have ended.

client, user ── what is tested ── internet: far end, TCP 5000 and UDP 7 (netlab.services)

download  the far end sends all the time, the client nothing but acknowledgements
upload    the client sends all the time, and each piece is answered
idle      nobody says a word until `ask`, as in a shell
"""

from __future__ import annotations

import contextlib
import math
import socket
import socketserver
import threading
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from lab.streams import select_in
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.services import Tcp, Tcp6, close_servers, seen_peer, serve
from ocgate.netlab.wait import wait_until

Address = IPv4Address | IPv6Address

PORT = 5000
_PIECE, _PAUSE = b"x" * 500, 0.05  # 10 kB/s: what a short outage holds back fits into any buffer
_LONG = 600.0  # seconds; longer than any test


class FarEnd:
    """Serves until closed. ended: how each connection ended, by the peer as it was seen here."""

    def __init__(self, netns: Namespace, *addresses: Address) -> None:
        self.ended: dict[str, str] = {}
        ended = self.ended

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                peer = seen_peer(self.client_address).decode().strip()
                try:
                    self.request.sendall(f"{peer}\n".encode())
                    _serve(self.request)
                    ended[peer] = "closed"
                except OSError as error:
                    ended[peer] = error.strerror or type(error).__name__

        with netns.entered():
            self._servers: list[socketserver.BaseServer] = [
                (Tcp if address.version == 4 else Tcp6)((str(address), PORT), Handler)
                for address in addresses
            ]
        serve(self._servers)

    def knows(self, flow: Flow) -> bool:
        """Has its connection ended here?"""
        return flow.seen_as in self.ended

    def close(self) -> None:
        close_servers(self._servers)


def _serve(sock: socket.socket) -> None:
    """Until the peer ends, or the kernel says that it is gone."""
    if sock.recv(1) == b"d":
        sock.settimeout(_LONG)
        while True:
            sock.sendall(_PIECE)
            if select_in(sock, _PAUSE) and not sock.recv(100):
                return
    while data := sock.recv(65536):
        sock.sendall(data)


@dataclass(frozen=True)
class End:
    """How a connection ended for the client: '' for its far end's own end, and when."""

    why: str
    at: float


class Flow:
    """One connection. heard: when something came last; end: None while it lives."""

    def __init__(self, netns: Namespace, to: Address, kind: str) -> None:
        with netns.entered():
            self._socket = socket.create_connection((str(to), PORT), 5.0)
        said = self._socket.makefile("rb", buffering=0)
        self.seen_as = said.readline().decode().strip()
        self.kind = kind
        self.heard = 0.0
        self.times: list[float] = []
        self.end: End | None = None
        self._socket.sendall(b"d" if kind == "download" else b"e")
        self._socket.setblocking(False)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name=kind)
        self._thread.start()

    def ask(self) -> None:
        """Say something; `heard` tells of the answer."""
        with contextlib.suppress(OSError):
            self._socket.send(b"?")

    def heard_first(self, since: float) -> float:
        """Seconds from `since` until something came for the first time; infinity: nothing has."""
        return min((at - since for at in self.times if at > since), default=math.inf)

    def wait_heard(self, since: float, timeout: float) -> float:
        """Wait until something has come after `since`; returns seconds from then on."""
        wait_until(lambda: self.heard > since, timeout, f"{self.kind} to go on ({self.end})")
        return self.heard - since

    def close(self) -> None:
        """Twice is fine."""
        self._closing.set()
        self._thread.join()
        self._socket.close()

    def _work(self) -> None:
        due = time.monotonic()
        try:
            while not self._closing.is_set():
                if self.kind == "upload" and time.monotonic() >= due:
                    due += _PAUSE
                    with contextlib.suppress(BlockingIOError):
                        self._socket.send(_PIECE)
                if select_in(self._socket, _PAUSE):
                    if not self._socket.recv(65536):
                        self.end = End("", time.monotonic())
                        return
                    self.heard = time.monotonic()
                    self.times.append(self.heard)
        except OSError as error:
            self.end = End(error.strerror or type(error).__name__, time.monotonic())


KINDS = ("download", "upload", "idle")


def flows(netns: Namespace, to: Address) -> dict[str, Flow]:
    """One of each kind, all of which have been answered; the caller closes them."""
    made = {kind: Flow(netns, to, kind) for kind in KINDS}
    made["idle"].ask()
    for flow in made.values():
        flow.wait_heard(0.0, 5.0)
    return made
