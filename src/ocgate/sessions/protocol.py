"""Bytes of the control socket: requests of the hooks and of the CLI, and the replies to them. Pure.

    request   ocgate/1 VERB\\0KEY=VALUE\\0KEY=VALUE\\0\\0
    reply     admitted\\n | refused REASON\\n | ok\\n | error REASON\\n | a JSON document; then EOF

Values are the raw bytes of a hook's environment (ocserv's; the exit role's client has names in
lower case), which can hold anything but NUL: that is why NUL separates, and why nothing is quoted.
One request and one reply a connection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

# 64 KiB: ocserv's own messages between its processes are below 16 KiB, and a process with the
# machine's whole memory of environment variables is no hook.
REQUEST_LIMIT = 65536

_MAGIC = b"ocgate/1 "
_END = b"\0\0"  # an empty item
_VERB = re.compile(rb"[a-z][a-z-]{0,31}")
_KEY = re.compile(rb"[A-Za-z][A-Za-z0-9_]{0,63}")

# A field of `reload`. Without it what was learned stays: a reload may be a renewal hook's, and is
# no consent to hold a gateway to another MAC address.
LEARN_MAC = "LEARN_MAC"

ADMITTED = b"admitted\n"
OK = b"ok\n"


class ProtocolError(Exception):
    """The peer does not speak this protocol; the text is fit for `error_reply`."""


@dataclass(frozen=True)
class Request:
    """What a peer asks. verb: lower case; fields: bytes as they stood in the hook's environment."""

    verb: str
    fields: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))


class RequestParser:
    """Takes a request in pieces of any size.

    `feed` returns the request once it is whole, None before. Bytes after its end are an error, and
    so is more than `REQUEST_LIMIT`. After an error or a request the parser is of no further use.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, piece: bytes) -> Request | None:
        """Add what arrived; raise ProtocolError as soon as it can't become a request."""
        searched = max(0, len(self._bytes) - 1)  # the end mark may lie across two pieces
        self._bytes += piece
        if len(self._bytes) > REQUEST_LIMIT:
            raise ProtocolError(f"request is longer than {REQUEST_LIMIT} bytes")
        if not self._bytes.startswith(_MAGIC[: len(self._bytes)]):
            raise ProtocolError("request does not begin with 'ocgate/1 '")
        end = self._bytes.find(_END, searched)
        if end < 0:
            return None
        if end + len(_END) != len(self._bytes):
            raise ProtocolError("bytes after the end of the request")
        return _parse_items(bytes(self._bytes[len(_MAGIC) : end]))

    def finish(self) -> None:
        """Tell that no more bytes will come before the request was whole: raises ProtocolError."""
        raise ProtocolError(f"request ends after {len(self._bytes)} bytes, before its end mark")


def _parse_items(body: bytes) -> Request:
    verb, *items = body.split(b"\0")
    if not _VERB.fullmatch(verb):
        raise ProtocolError("malformed verb")
    fields: dict[str, bytes] = {}
    for item in items:
        key, separator, value = item.partition(b"=")
        if not separator or not _KEY.fullmatch(key):
            raise ProtocolError("malformed field, expected KEY=VALUE")
        if key.decode() in fields:
            raise ProtocolError(f"field {key.decode()} twice")
        fields[key.decode()] = value
    return Request(verb.decode(), MappingProxyType(fields))


def encode_request(request: Request) -> bytes:
    """Bytes to send for `request`; ValueError if it can't be said in this protocol."""
    items = [request.verb.encode(), *(f"{k}=".encode() + v for k, v in request.fields.items())]
    encoded = _MAGIC + b"\0".join(items) + _END
    try:
        parsed = RequestParser().feed(encoded)
    except ProtocolError as error:
        raise ValueError(str(error)) from error
    if parsed != request:
        raise ValueError("a field can't hold NUL")
    return encoded


def refused_reply(reason: str) -> bytes:
    """The verdict that makes ocserv turn the session away; the reason goes to ocserv's log."""
    return f"refused {_one_line(reason)}\n".encode()


def error_reply(reason: str) -> bytes:
    """The reply to what is no request, or to one that could not be done."""
    return f"error {_one_line(reason)}\n".encode()


def _one_line(text: str) -> str:
    """`text` without control characters and line ends of any kind; never empty."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(plain.split()) or "no reason given"


def read_error(reply: bytes) -> str | None:
    """The reason, if the whole reply of control says that it refused or could not; else None."""
    if not reply.endswith(b"\n"):
        return "control gave no whole reply"
    word, _, reason = reply[:-1].decode("utf-8", "replace").partition(" ")
    return reason if word in {"error", "refused"} else None
