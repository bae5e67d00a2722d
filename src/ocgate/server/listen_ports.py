"""Whether ocserv will get its ports, asked before anything is put into the kernel.

ocserv goes on with what is left where one of its sockets can't be bound, and dies where none can:
again and again, under supervision, while everything else looks well.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from typing import Any

from ocgate.errors import MissingRequirement
from ocgate.ocserv.view import ServerView

# A former run's ocserv has been told to end by now; its workers follow within 50 ms.
PATIENCE = 1.0  # seconds
POLL = 0.05

_REFUSED = {
    errno.EADDRINUSE: "another program has it: `ss -lntup` names it; end that one, or choose "
    "another port in ocserv.conf",
    errno.EADDRNOTAVAIL: "correct listen-host in ocserv.conf",
    errno.EACCES: "ports below 1024: docker run --cap-add NET_BIND_SERVICE "
    "(compose: cap_add: [NET_BIND_SERVICE])",
}


def require_free(view: ServerView) -> None:
    """Raises MissingRequirement, with the system's words, if an address of the listener is taken,
    not of this machine, or not to be had without CAP_NET_BIND_SERVICE."""
    deadline = time.monotonic() + PATIENCE
    while refused := _refused(view):
        if time.monotonic() > deadline:
            hints = dict.fromkeys(_REFUSED[number] for _, number in refused)
            raise MissingRequirement("\n".join(said for said, _ in refused), hint="; ".join(hints))
        time.sleep(POLL)


def _refused(view: ServerView) -> list[tuple[str, int]]:
    """(words, errno) of each socket that ocserv could not have."""
    wanted = (
        ("TCP", socket.SOCK_STREAM, view.tcp_port),
        ("UDP", socket.SOCK_DGRAM, view.udp_port),
    )
    found = []
    for protocol, kind, port in wanted:
        for family, address in _addresses(view.listen_host, port, kind) if port else ():
            number = _bound(family, kind, address)
            if number in _REFUSED:
                words = f"{protocol} port {port} of {address[0]}: {os.strerror(number)}"
                found.append((words, number))
    return found


def _addresses(host: str | None, port: int, kind: int) -> list[tuple[int, tuple[Any, ...]]]:
    """(family, address) where ocserv binds; a name without an address (yet) is left to ocserv."""
    try:
        answers = socket.getaddrinfo(host or None, port, type=kind, flags=socket.AI_PASSIVE)
    except OSError:
        return []
    return [(family, address) for family, _, _, _, address in answers]


def _bound(family: int, kind: int, address: tuple[Any, ...]) -> int:
    """errno of binding and listening as ocserv does (main.c, listen_ports); 0 if it may."""
    try:
        with socket.socket(family, kind) as made:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(address)
            if kind == socket.SOCK_STREAM:
                made.listen()
    except OSError as error:
        return error.errno or 0
    return 0
