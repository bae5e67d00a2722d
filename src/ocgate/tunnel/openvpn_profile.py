"""What is known of an OpenVPN configuration that was read; `openvpn_reading` makes it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from ocgate.tunnel.model import Remote
from ocgate.tunnel.openvpn_syntax import Directive, connection_lines, directives

Login = tuple[str, str]

# What a file said: its bytes, or why it can't be read.
Content = bytes | str

# Directives whose first word is a file, which becomes a block.
FILES = frozenset(
    {
        *("ca", "cert", "key", "extra-certs", "pkcs12", "crl-verify"),
        *("tls-auth", "tls-crypt", "tls-crypt-v2"),
    }
)

# These say nothing to a TCP connection, and OpenVPN refuses a file that has them for one.
UDP_ONLY = frozenset({"explicit-exit-notify", "fragment"})


@dataclass(frozen=True)
class Line:
    """One directive for the client's file: its name, and its text, which may be a key's block."""

    name: str
    text: str = field(repr=False)


@dataclass(frozen=True)
class Server:
    """One server, with the lines that hold for it alone."""

    remote: Remote
    lines: tuple[Line, ...] = ()


@dataclass(frozen=True)
class Profile:
    """What the client needs.

    shuffled: the file wants its servers in random order (`remote-random`).
    notices:  what was left out, one sentence each.
    """

    source: str
    servers: tuple[Server, ...]
    lines: tuple[Line, ...]
    login: Login | None = field(repr=False)
    shuffled: bool
    notices: tuple[str, ...]


@dataclass(frozen=True)
class Reference:
    """A file that the configuration names."""

    line: int
    key: str
    name: str


def referred(text: str, source: str) -> tuple[Reference, ...]:
    """The files that must be read before `read`; of a broken file, those that are clear."""
    found = []
    for each in _flat(directives(text, source)[0], source):
        wanted = each.name in FILES or each.name == "auth-user-pass"
        if wanted and each.body is None and each.words and each.words[0] != "[inline]":
            found.append(Reference(each.line, each.name, each.words[0]))
    return tuple(found)


def _flat(found: list[Directive], source: str) -> list[Directive]:
    """With what stands within <connection> blocks."""
    flat = []
    for each in found:
        inner = each.name == "connection" and each.body is not None
        flat += connection_lines(each, source)[0] if inner else [each]
    return flat
