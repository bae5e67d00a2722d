"""Netlink sockets and messages: the wire under routes, facts, conntrack and watch.

Written by hand (netlink(7), linux/netlink.h) because pyroute2 0.9's blocking calls start an event
loop of their own and raise inside a running one, cost 0.3 ms a request where this costs 0.01, and
take 150 ms to import. Only the room `kernel` imports this.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ocgate.errors import MissingRequirement

ROUTE = socket.NETLINK_ROUTE
NETFILTER = 12

# linux/netlink.h
REQUEST, ACK, DUMP = 0x001, 0x004, 0x300
REPLACE, EXCL, CREATE = 0x100, 0x200, 0x400
_DUMP_INTR = 0x10
_ACK_TLVS, _CAPPED = 0x200, 0x100
_NOOP, _ERROR, _DONE = 1, 2, 3
NESTED = 0x8000
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER

_SOL_NETLINK = 270
_CAP_ACK, _EXT_ACK, _STRICT_CHECK = 10, 11, 12
_WORDS = 1  # NLMSGERR_ATTR_MSG: the kernel's own sentence

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port id
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ERRNO = struct.Struct("=i")

# One datagram of a dump: the kernel fills at most 32 KiB (NLMSG_GOODSIZE grown to the reader's).
DATAGRAM = 1 << 16

# Bytes of pending answers. A batch of some thousand requests is acknowledged at once: 4 MiB hold
# about 10,000 acks; FORCE so that rmem_max (212,992 on Debian) doesn't cap it.
_RECEIVE = 4 << 20
_SO_RCVBUFFORCE = 33

# A dump that another writer overtook (NLM_F_DUMP_INTR) may lack or repeat entries: read it again.
# Under a constant storm of changes it never comes out clean; then say EINTR, do not pretend.
_DUMP_ATTEMPTS = 10

# Requests sent before their acks are read; 128 acks (each < 1.2 KB of socket memory) fit into the
# 212,992 bytes that an unprivileged socket gets.
_WINDOW = 128


class Message(NamedTuple):
    """One message without its header; `payload` starts with the family's own fixed header."""

    kind: int
    flags: int
    payload: memoryview


class NetlinkError(OSError):
    """The kernel answered with an error number; `words` is its extended sentence, or ""."""

    def __init__(self, number: int, words: str) -> None:
        super().__init__(number, words or os.strerror(number))
        self.words = words


class Netlink:
    """A socket in the network namespace of the thread that creates it. Not thread-safe.

    Requests block until the kernel answered, which is at once: netlink is served in the call.
    """

    def __init__(self, protocol: int, *, strict: bool = False) -> None:
        """strict: let the kernel filter dumps by what the request's header and attributes say."""
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
            )
        except OSError as problem:
            raise MissingRequirement(
                f"netlink protocol {protocol}: {problem.strerror}",
                hint="this kernel is built without netfilter; use one with CONFIG_NF_TABLES",
            ) from problem
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        if strict:
            self._socket.setsockopt(_SOL_NETLINK, _STRICT_CHECK, 1)
        widen(self._socket, _RECEIVE)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(self, kind: int, flags: int, payload: bytes) -> list[Message]:
        """Send one message and return what came back before its ack. Raises NetlinkError."""
        sequence = self._send(kind, flags | ACK, payload)
        return list(self._answers(sequence))

    def dump(self, kind: int, payload: bytes, *, holding: bytes = b"") -> list[Message]:
        """All entries, from a dump that no change overtook. Raises NetlinkError.

        holding: skip entries without these bytes anywhere in them, which is seven times as fast
        as looking into each; the caller still has to see where in the entry they are.
        """
        for _ in range(_DUMP_ATTEMPTS):
            found = list(self._answers(self._send(kind, DUMP, payload), holding))
            if not any(message.flags & _DUMP_INTR for message in found):
                return [message for message in found if message.kind != _DONE]
        raise NetlinkError(errno.EINTR, "dump overtaken by changes, again and again")

    def batch(self, requests: Iterable[tuple[int, int, bytes]]) -> list[int]:
        """Send many (kind, flags, payload); the error number (0 fine) of each, in their order."""
        pending = list(requests)
        results: list[int] = []
        for start in range(0, len(pending), _WINDOW):
            window = pending[start : start + _WINDOW]
            sent = [self._send(kind, flags | ACK, payload) for kind, flags, payload in window]
            results += [self._result(sequence) for sequence in sent]
        return results

    def transaction(
        self,
        begin: tuple[int, bytes],
        requests: Sequence[tuple[int, bytes]],
        end: tuple[int, bytes],
    ) -> None:
        """(kind, payload) of messages that the kernel takes together or not at all (nfnetlink's
        batches: one datagram). Raises NetlinkError with the first refusal."""
        first = self._numbered(*begin, REQUEST)
        asked = [self._numbered(kind, payload, REQUEST | ACK) for kind, payload in requests]
        parts = (first, *asked, self._numbered(*end, REQUEST))
        self._socket.send(b"".join(message for _, message in parts))
        for sequence, _ in asked:
            for _ in self._answers(sequence):
                pass

    def _numbered(self, kind: int, payload: bytes, flags: int) -> tuple[int, bytes]:
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        header = _HEADER.pack(16 + len(payload), kind, flags, self._sequence, 0)
        return self._sequence, header + payload

    def _result(self, sequence: int) -> int:
        try:
            for _ in self._answers(sequence):
                pass
        except NetlinkError as refused:
            return refused.errno or errno.EIO
        return 0

    def _send(self, kind: int, flags: int, payload: bytes) -> int:
        sequence, message = self._numbered(kind, payload, flags | REQUEST)
        self._socket.send(message)
        return sequence

    def _answers(self, sequence: int, holding: bytes = b"") -> Iterator[Message]:
        """Messages up to the ack or end of dump; those of earlier, abandoned requests skipped."""
        while True:
            for number, message in parse(self._socket.recv(DATAGRAM), holding):
                if number != sequence:
                    continue
                if message.kind == _ERROR:
                    _raise_error(message)
                    return
                yield message
                if message.kind == _DONE:
                    _raise_error(message)
                    return


def widen(sock: socket.socket, size: int) -> None:
    """Give a socket `size` bytes to receive into, past rmem_max where we may."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
    except PermissionError:  # a user namespace's root may not force it
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def parse(datagram: bytes, holding: bytes = b"") -> Iterator[tuple[int, Message]]:
    """(sequence number, message) of each message in a datagram.

    holding: leave out entries without these bytes, but never an error, an end or an interruption.
    """
    view, offset, end = memoryview(datagram), 0, len(datagram)
    while offset + 16 <= end:
        length, kind, flags, sequence, _ = _HEADER.unpack_from(datagram, offset)
        if length < 16:
            return
        wanted = not holding or datagram.find(holding, offset, offset + length) >= 0
        if wanted or kind <= _DONE or flags & _DUMP_INTR:
            yield sequence, Message(kind, flags, view[offset + 16 : offset + length])
        offset += (length + 3) & ~3


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute with its header, padded to 4 bytes."""
    return _ATTRIBUTE.pack(4 + len(data), kind) + data + bytes(-len(data) % 4)


def number(kind: int, value: int) -> bytes:
    """An attribute that holds a native 32-bit number."""
    return attribute(kind, struct.pack("=I", value))


def text(kind: int, value: str) -> bytes:
    """An attribute that holds a NUL-terminated string."""
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, *inner: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NESTED, b"".join(inner))


def attributes(payload: memoryview, start: int = 0) -> dict[int, memoryview]:
    """Type -> data of the attributes from `start` on; of a repeated type the last."""
    found: dict[int, memoryview] = {}
    offset, end = start, len(payload)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(payload, offset)
        if length < 4:
            break
        found[kind & _TYPE_MASK] = payload[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def as_number(data: memoryview) -> int:
    """A native number of 1 to 8 bytes."""
    return int.from_bytes(data, "little" if _LITTLE else "big")


def as_text(data: memoryview) -> str:
    """A NUL-terminated string; device names are bytes to the kernel, so nothing is refused."""
    return bytes(data).rstrip(b"\0").decode(errors="surrogateescape")


_LITTLE = struct.pack("=H", 1) == b"\1\0"


def _raise_error(message: Message) -> None:
    """Raise NetlinkError unless the message (an ack, or the end of a dump) says 0."""
    code = _ERRNO.unpack_from(message.payload)[0] if len(message.payload) >= 4 else 0
    if code == 0:
        return
    words = ""
    if message.flags & _ACK_TLVS:
        # An ack repeats the request's header (CAP_ACK: without its payload) before its attributes.
        start = 4 if message.kind == _DONE else 20
        found = attributes(message.payload, start)
        words = as_text(found[_WORDS]) if _WORDS in found else ""
    raise NetlinkError(-code, words)
