"""A wg-quick file -> `Profile`, or every problem in it. Pure.

The format is wg(8)'s "CONFIGURATION FILE FORMAT" with wg-quick(8)'s additions: sections and keys in
any case, `#` to the end of the line, lists by commas or by repeated keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_interface, ip_network
from typing import TypeVar

from ocgate import outside
from ocgate.errors import ConfigurationError, Problem
from ocgate.outside import is_host
from ocgate.plan.facts import Address, InterfaceAddress, Network
from ocgate.tunnel.gate import LARGEST_MTU, LEAST_MTU
from ocgate.tunnel.model import Remote
from ocgate.tunnel.wireguard_profile import Peer, Profile

_T = TypeVar("_T")

# 32 bytes in base64; the last letter before `=` carries four bits.
_KEY = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")
_KEY_ACCEPTS = "a key of 44 characters, as `wg genkey` and `wg pubkey` print them"
_ENDPOINT = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]]+)):(?P<port>[0-9]{1,5})")
_NUMBER = re.compile(r"[0-9]{1,5}")
_LARGEST_KEEPALIVE = 65535  # seconds; wg(8)

_PROGRAMS = "it runs a program; addresses, routes and the kill switch are set by ocgate"
_DROPPED = {
    "listenport": "nobody may begin a connection to this end",
    "fwmark": "the kernel's packets to the server are known by its address",
    "table": "everything goes through the tunnel, by ocgate's own routes",
    "saveconfig": "the file is never written",
}
_REFUSED = ("preup", "postup", "predown", "postdown")


def read(text: str, source: str) -> Profile:
    """The profile in a wg-quick file; `source` is how it is called in errors.

    Raises ConfigurationError with all problems; keys are never shown.
    """
    reading = _Reading(source)
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        reading.take(number, line.partition("#")[0].strip())
    return reading.profile()


@dataclass(frozen=True)
class _Entry:
    line: int
    key: str
    value: str = field(repr=False)


@dataclass
class _Section:
    """One section's entries; what may stand only once has its last one."""

    line: int
    entries: list[_Entry] = field(default_factory=list)

    def last(self, key: str) -> _Entry | None:
        return next((each for each in reversed(self.entries) if each.key == key), None)

    def items(self, key: str) -> list[tuple[_Entry, str]]:
        """The items of a list that may be spread over several lines."""
        return [
            (entry, item.strip())
            for entry in self.entries
            if entry.key == key
            for item in entry.value.split(",")
            if item.strip()
        ]


_KEYS = {
    "interface": {"privatekey": "PrivateKey", "address": "Address", "dns": "DNS", "mtu": "MTU"},
    "peer": {
        "publickey": "PublicKey",
        "presharedkey": "PresharedKey",
        "endpoint": "Endpoint",
        "allowedips": "AllowedIPs",
        "persistentkeepalive": "PersistentKeepalive",
    },
}


class _Reading:
    """One pass over the lines, then over the sections."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._problems: list[Problem] = []
        self._notices: dict[str, str] = {}
        self._interfaces: list[_Section] = []
        self._peers: list[_Section] = []
        self._section = ""

    def take(self, number: int, line: str) -> None:
        """One line without its comment."""
        if not line:
            return
        if line.startswith("["):
            self._open(number, line)
            return
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not key.isprintable() or not value.isprintable():
            self._wrong(number, "line", "KEY = VALUE", "write it as wg-quick's files have it")
        elif self._section:
            self._sort(_Entry(number, key.lower(), value), key)
        elif not (self._interfaces or self._peers):
            self._wrong(number, key, "a section before it", "begin with [Interface]")

    def _open(self, number: int, line: str) -> None:
        name = line[1:].removesuffix("]").strip().lower()
        self._section = name if name in _KEYS else ""
        if name == "interface":
            self._interfaces.append(_Section(number))
        elif name == "peer":
            self._peers.append(_Section(number))
        else:
            self._wrong(number, "section", "[Interface] or [Peer]", "remove this section")

    def _sort(self, entry: _Entry, written: str) -> None:
        inside = self._section == "interface"
        if entry.key in _KEYS[self._section]:
            (self._interfaces if inside else self._peers)[-1].entries.append(entry)
        elif inside and entry.key in _REFUSED:
            self._wrong(entry.line, written, f"it left out, because {_PROGRAMS}", "remove it")
        elif inside and entry.key in _DROPPED:
            text = f"{self._source}:{entry.line}: {written}: left out: {_DROPPED[entry.key]}"
            self._notices.setdefault(entry.key, text)
        else:
            known = ", ".join(_KEYS[self._section].values())
            self._wrong(entry.line, written, f"one of {known}", "remove it")

    def profile(self) -> Profile:
        """What came of it; raises ConfigurationError."""
        if len(self._interfaces) != 1:
            at = self._interfaces[1].line if self._interfaces else 0
            self._wrong(at, "[Interface]", "one section [Interface]", "write one")
        interface = self._interfaces[0] if self._interfaces else _Section(0)
        private = self._key(interface, "privatekey", needed=True)
        addresses = self._addresses(interface)
        resolvers, mtu = self._resolvers(interface), self._mtu(interface)
        peers = tuple(peer for section in self._peers if (peer := self._peer(section)))
        if not self._peers:
            self._wrong(0, "[Peer]", "at least one section [Peer]", "add the server")
        if self._problems:
            raise ConfigurationError(self._problems)
        notices = tuple(self._notices.values())
        return Profile(self._source, private or "", addresses, resolvers, mtu, peers, notices)

    def _peer(self, section: _Section) -> Peer | None:
        public = self._key(section, "publickey", needed=True)
        preshared = self._key(section, "presharedkey", needed=False)
        remote = self._remote(section)
        allowed = tuple(self._allowed(section))
        keepalive = self._keepalive(section)
        if public is None or remote is None:
            return None
        peer = Peer(remote, public, preshared, allowed, keepalive)
        if not (peer.allows(4) or peer.allows(6)):
            self._narrow(section)
        return peer

    def _narrow(self, section: _Section) -> None:
        """A peer for a part of the internet: alone it is the operator's wish, among others not."""
        if len(self._peers) > 1:
            expected = "0.0.0.0/0, ::/0 or both, because peers are tried one at a time"
            self._wrong(section.line, "AllowedIPs", expected, "write it, or remove this [Peer]")
            return
        self._notices["allowedips"] = (
            f"{self._source}:{section.line}: AllowedIPs: without 0.0.0.0/0 and ::/0 the tunnel "
            "drops what goes elsewhere"
        )

    def _key(self, section: _Section, key: str, *, needed: bool) -> str | None:
        entry = section.last(key)
        name = _KEYS["interface" if key == "privatekey" else "peer"][key]
        if entry is None:
            if needed:
                self._wrong(section.line, name, _KEY_ACCEPTS, f"add {name}")
            return None
        if not _KEY.fullmatch(entry.value):
            self._wrong(entry.line, name, _KEY_ACCEPTS, "write it as the provider gave it")
            return None
        return entry.value

    def _addresses(self, section: _Section) -> tuple[InterfaceAddress, ...]:
        found = []
        for entry, item in section.items("address"):
            made = self._parsed(entry, item, "Address", _interface, "10.2.0.2/32")
            found += [made] if made is not None else []
        if not section.items("address"):
            self._wrong(section.line, "Address", "an address such as 10.2.0.2/32", "add Address")
        return tuple(found)

    def _allowed(self, section: _Section) -> list[Network]:
        found: list[Network] = []
        for entry, item in section.items("allowedips"):
            made = self._parsed(entry, item, "AllowedIPs", _network, "0.0.0.0/0")
            found += [made] if made is not None else []
        if not section.items("allowedips"):
            self._wrong(section.line, "AllowedIPs", "networks such as 0.0.0.0/0", "add AllowedIPs")
        return found

    def _parsed(
        self, entry: _Entry, item: str, name: str, parse: Callable[[str], _T], such_as: str
    ) -> _T | None:
        try:
            return parse(item)
        except ValueError:
            expected = f"addresses such as {such_as}, separated by commas"
            self._wrong(entry.line, name, expected, f"write one such as {such_as}", item)
            return None

    def _resolvers(self, section: _Section) -> tuple[Address, ...]:
        """DNS also takes search domains, which are for this host's own names."""
        found: list[Address] = []
        for entry, item in section.items("dns"):
            address = outside.address(item)
            if address is not None:
                found.append(address)
            elif not is_host(item):
                self._wrong(entry.line, "DNS", "addresses", "write one such as 10.2.0.1", item)
        return tuple(dict.fromkeys(found))

    def _mtu(self, section: _Section) -> int | None:
        entry = section.last("mtu")
        if entry is None:
            return None
        if not _NUMBER.fullmatch(entry.value) or not LEAST_MTU <= int(entry.value) <= LARGEST_MTU:
            expected = f"a number from {LEAST_MTU} to {LARGEST_MTU} (bytes)"
            self._wrong(entry.line, "MTU", expected, "write 1420, or remove it", entry.value)
            return None
        return int(entry.value)

    def _keepalive(self, section: _Section) -> int | None:
        entry = section.last("persistentkeepalive")
        if entry is None or entry.value.lower() == "off":
            return None
        if not _NUMBER.fullmatch(entry.value) or int(entry.value) > _LARGEST_KEEPALIVE:
            expected = f"a number from 0 to {_LARGEST_KEEPALIVE} (seconds), or off"
            self._wrong(entry.line, "PersistentKeepalive", expected, "write 25, say", entry.value)
            return None
        return int(entry.value) or None

    def _remote(self, section: _Section) -> Remote | None:
        entry = section.last("endpoint")
        if entry is None:
            remedy = "add the server as Endpoint"
            self._wrong(section.line, "Endpoint", "HOST:PORT of the server", remedy)
            return None
        match = _ENDPOINT.fullmatch(entry.value)
        host = (match["v6"] or match["host"]) if match else ""
        port = int(match["port"]) if match else 0
        if (
            not is_host(host)
            or not 1 <= port <= 65535
            or bool(match and match["v6"]) != (":" in host)
        ):
            expected = "HOST:PORT, an IPv6 address in brackets"
            remedy = "write one such as vpn.example.org:51820"
            self._wrong(entry.line, "Endpoint", expected, remedy, entry.value)
            return None
        return Remote(host, port, ("udp",), entry.value)

    def _wrong(
        self, line: int, key: str, expected: str, remedy: str, got: str | None = None
    ) -> None:
        shown = key if key.isprintable() else repr(key)
        self._problems.append(Problem(self._source, line, shown, got, expected, remedy))


def _interface(text: str) -> InterfaceAddress:
    """An address with its length or without; raises ValueError, also for one with a zone."""
    if "%" in text:
        raise ValueError(text)
    return ip_interface(text)


def _network(text: str) -> Network:
    """wg takes host bits (and drops them), and a bare address."""
    if "%" in text:  # Python's parser takes any text behind it
        raise ValueError(text)
    return ip_network(text, strict=False)
