"""What a provider of tunnels is: somebody with a list of servers. Pure.

    wish + API ──> Listing ──> remotes in the order of trying ──> launch
             └─ or the kept copy

NordVPN (`nordvpn`) is the first. Names of places are the provider's; nothing here knows any.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from ocgate import outside
from ocgate.errors import OcgateError
from ocgate.tunnel.gate import Reported
from ocgate.tunnel.model import Endpoint, Launch, Remote

# Asks the API for one path and returns the answer's body; raises NotListed.
Ask = Callable[[str], bytes]

# Puts a list into random order, in place; `random.shuffle` but in tests.
Shuffle = Callable[[list[Any]], None]

_FORMAT = 1  # of the kept copy


class NotListed(OcgateError):
    """There is no list of servers: no answer, or none that can be read."""


@dataclass(frozen=True)
class Label:
    """Something with a name: a country, a city, a group.

    id: the provider's number. code: its short word, "" where it has none.
    """

    id: int
    name: str
    code: str = ""

    def answers_to(self, word: str) -> bool:
        """Whether somebody who wrote `word` meant this, in any case."""
        return word.lower() in (str(self.id), self.name.lower(), self.code.lower() or None)


@dataclass(frozen=True)
class Server:
    """One server.

    hostname: as in its certificate. address: in text form. load: 0 to 100, in percent.
    technologies: the provider's identifiers of those that it offers now.
    """

    hostname: str
    address: str
    load: int
    country: Label
    city: Label
    groups: tuple[Label, ...]
    technologies: tuple[str, ...]


@dataclass(frozen=True)
class Listing:
    """What the provider said.

    countries, groups: what names may be written, beside those of the servers; may be empty.
    servers: in the provider's order. wish: what was asked for.
    """

    wish: Wish
    countries: tuple[Label, ...]
    cities: tuple[Label, ...]
    groups: tuple[Label, ...]
    servers: tuple[Server, ...]


@dataclass(frozen=True)
class Wish:
    """Which servers: COUNTRY, CITY, GROUP, TECHNOLOGY and RANDOM_TOP."""

    countries: tuple[str, ...] = ()
    cities: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    technology: str = "openvpn_udp"
    random_top: int = 0


class Provider(Protocol):
    """What the wiring asks of one. `service`: its API's host, spoken to by TLS on port 443."""

    @property
    def name(self) -> str: ...

    @property
    def service(self) -> str: ...

    def needs_list(self, wish: Wish) -> bool:
        """Whether servers have to be looked for: single ones may be named."""

    def list_servers(self, ask: Ask, wish: Wish) -> Listing:
        """Ask for the servers of a wish; raises NotListed, and ConfigurationError for a name that
        the provider does not have."""

    def remotes(self, listing: Listing | None, wish: Wish, shuffle: Shuffle) -> tuple[Remote, ...]:
        """The servers in the order in which they are tried; raises as `list_servers`."""

    def launch(
        self,
        login: tuple[str, str],
        remote: Remote,
        endpoint: Endpoint,
        *,
        device: str,
        directory: Path,
        hook: Path,
    ) -> Launch:
        """How the client is started, as a kind's `launch`."""

    def reported(self, environment: Mapping[str, str]) -> Reported:
        """As a kind's `reported`."""


def kept(listing: Listing, moment: float) -> bytes:
    """The copy of a listing that was made at `moment` (seconds since 1970)."""
    return json.dumps({"format": _FORMAT, "moment": moment, **asdict(listing)}).encode()


def unkept(data: bytes) -> tuple[Listing, float]:
    """A copy and its moment; raises NotListed where it can't be read."""
    try:
        held = json.loads(data)
        if held["format"] != _FORMAT:
            raise ValueError("another format")
        labels = {name: _labels(held[name]) for name in ("countries", "cities", "groups")}
        servers = tuple(_server(each) for each in held["servers"])
        if not all(outside.is_host(each.hostname) for each in servers):
            raise ValueError("a server without a name")
        if any(outside.address(each.address) is None for each in servers):
            raise ValueError("a server without an address")
        asked = held["wish"]
        names = {name: tuple(asked[name]) for name in ("countries", "cities", "groups")}
        wish = Wish(**names, technology=asked["technology"], random_top=asked["random_top"])
        return Listing(wish, servers=servers, **labels), float(held["moment"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise NotListed(f"the kept copy can't be read: {error!r}") from None


def _labels(held: list[dict[str, Any]]) -> tuple[Label, ...]:
    return tuple(_label(each) for each in held)


def _label(held: dict[str, Any]) -> Label:
    return Label(int(held["id"]), str(held["name"]), str(held["code"]))


def _server(held: dict[str, Any]) -> Server:
    return Server(
        str(held["hostname"]),
        str(held["address"]),
        int(held["load"]),
        _label(held["country"]),
        _label(held["city"]),
        _labels(held["groups"]),
        tuple(str(each) for each in held["technologies"]),
    )
