"""Is somebody listening? Asked of the kernel, so that asking leaves no connection behind."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from ocgate.netlab.namespace import Namespace

_LISTEN = 10  # TCP_LISTEN, include/net/tcp_states.h
_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY, _DUMP = 20, 0x301  # linux/sock_diag.h, linux/netlink.h
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port id
_QUESTION = struct.Struct("=BBBxI48x")  # inet_diag_req_v2: family, protocol, states, socket id
_PORT = struct.Struct("!H")
_PORT_AT = _HEADER.size + 4  # inet_diag_msg: family, state, timer, retransmissions, source port


def listens(netns: Namespace, port: int) -> bool:
    """Does a TCP socket of either family listen on `port`, on any address?"""
    with netns.entered():
        return port in _listening()


def udp_port_of(netns: Namespace, uid: int) -> int:
    """The local port of the first UDP socket that this user has, of either family; raises
    LookupError where there is none."""
    for name in ("udp", "udp6"):
        for line in netns.run(["cat", f"/proc/net/{name}"]).stdout.splitlines()[1:]:
            words = line.split()  # sl, local, remote, state, queues, timer, retransmissions, uid
            if int(words[7]) == uid:
                return int(words[1].rpartition(":")[2], 16)
    raise LookupError(f"user {uid} has no UDP socket")


def _listening() -> set[int]:
    """By sock_diag, which looks at listeners alone: /proc/net/tcp walks through the whole machine's
    table of connections (12 ms a reading with 24 GiB of memory), and is for kernels without it."""
    try:
        return {port for family in (socket.AF_INET, socket.AF_INET6) for port in _ports(family)}
    except OSError:
        return {port for name in ("tcp", "tcp6") for port in _rows(name)}


def _ports(family: int) -> Iterator[int]:
    question = _QUESTION.pack(family, socket.IPPROTO_TCP, 0, 1 << _LISTEN)
    header = _HEADER.pack(_HEADER.size + len(question), _BY_FAMILY, _DUMP, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as diag:
        diag.send(header + question)
        while True:
            for kind, message in _messages(diag.recv(1 << 16)):
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    raise OSError("sock_diag refused")
                yield _PORT.unpack_from(message, _PORT_AT)[0]


def _messages(datagram: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and whole of each message; their lengths are multiples of 4 already."""
    while datagram:
        size, kind, *_ = _HEADER.unpack_from(datagram)
        yield kind, datagram[:size]
        datagram = datagram[size:]


def _rows(name: str) -> Iterator[int]:
    # thread-self: /proc/net would show the namespace of the main thread.
    table = Path(f"/proc/thread-self/net/{name}").read_text()
    for line in table.splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        if int(state, 16) == _LISTEN:
            yield int(local.rpartition(":")[2], 16)
