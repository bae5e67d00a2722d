"""NordVPN's public API: what is asked, and its answers -> `Listing`. Pure.

    GET /v1/servers/countries          [{id, name, code, cities: [{id, name, dns_name}]}]
    GET /v1/servers/groups             [{id, title, identifier}]
    GET /v1/servers/recommendations    [{hostname, station, load, status, locations, groups,
        ?limit=…&filters[…]=…            technologies: [{identifier, pivot: {status}}]}]

An answer holds much more, and nobody promised its shape: what is not needed is not kept, a server
that can't be understood is passed over, and only an answer without any is an error. How many there
are of anything is bounded: whoever answers could be anybody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import urlencode

from ocgate import outside
from ocgate.tunnel import json_list
from ocgate.tunnel.nordvpn_choice import PORTS
from ocgate.tunnel.provider import Label, NotListed, Server

SERVICE = "api.nordvpn.com"
COUNTRIES = "/v1/servers/countries"
GROUPS = "/v1/servers/groups"

# Of one country; a server takes 4 KB of an answer, and the largest country has some 2,000.
LIMIT = 500

# Some 130 countries, 20 groups; the United States have 50 cities, a server is in 2 to 4 groups and
# offers some ten technologies.
_MOST_PLACES, _MOST_CITIES, _MOST_GROUPS, _MOST_TECHNOLOGIES = 500, 200, 8, 32

_LARGEST_ID = 2**31 - 1

_T = TypeVar("_T")
_SERVER_NAME = re.compile(r"[a-z0-9][a-z0-9-]*\.nordvpn\.com")


def recommendations(technology: str, country: int | None, group: str | None) -> str:
    """The path that asks for servers, the provider's best first."""
    asked: dict[str, str] = {
        "limit": str(LIMIT),
        "filters[servers_technologies][identifier]": technology,
    }
    if country is not None:
        asked["filters[country_id]"] = str(country)
    if group is not None:
        asked["filters[servers_groups][identifier]"] = group
    return f"/v1/servers/recommendations?{urlencode(asked)}"


def places(body: bytes) -> tuple[tuple[Label, ...], dict[int, tuple[Label, ...]]]:
    """The countries, and the cities by their country's id; raises NotListed."""
    countries = []
    cities = {}
    for each in _items(body, COUNTRIES):
        country = _made(_country, each)
        if country is not None:
            countries.append(country)
            cities[country.id] = tuple(_each(_city, each.get("cities"), _MOST_CITIES))
    return tuple(_some(countries[:_MOST_PLACES], COUNTRIES)), cities


def groups(body: bytes) -> tuple[Label, ...]:
    """The groups of servers; raises NotListed."""
    found = (_made(_group, each) for each in _items(body, GROUPS))
    return tuple(_some([group for group in found if group is not None][:_MOST_PLACES], GROUPS))


def servers(body: bytes) -> tuple[Server, ...]:
    """The servers that are online; none where the filters leave none. Raises NotListed."""
    any_item = False
    found: list[Server] = []
    for each in _items(body, "servers"):
        any_item = True
        made = _made(_server, each) if each.get("status") == "online" else None
        if made is not None and len(found) < LIMIT:
            found.append(made)
    return tuple(_some(found, "servers")) if any_item else ()


def _items(body: bytes, what: str) -> Iterator[dict[str, Any]]:
    """One at a time; raises NotListed."""
    try:
        yield from json_list.items(body)
    except json_list.NoList as error:
        raise NotListed(f"{SERVICE}: {what}: the answer {error}") from None


def _some(found: Any, what: str) -> Any:
    if not found:
        raise NotListed(f"{SERVICE}: {what}: nothing in the answer can be understood")
    return found


def _each(make: Callable[[dict[str, Any]], _T], items: Any, most: int) -> Iterator[_T]:
    """What can be made of the first so many of them."""
    for each in islice(items, most) if isinstance(items, list) else ():
        made = _made(make, each)
        if made is not None:
            yield made


def _made(make: Callable[[dict[str, Any]], _T], item: Any) -> _T | None:
    """What was made of one item of an answer, or None if it is of another shape."""
    try:
        return make(item)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError):
        return None


def _country(item: dict[str, Any]) -> Label:
    return Label(_id(item["id"]), _word(item["name"]), _word(item["code"]))


def _city(item: dict[str, Any]) -> Label:
    return Label(_id(item["id"]), _word(item["name"]), _word(item.get("dns_name") or "-"))


def _group(item: dict[str, Any]) -> Label:
    return Label(_id(item["id"]), _word(item["title"]), _word(item["identifier"]))


def _id(value: Any) -> int:
    number = int(value)
    if not 0 <= number <= _LARGEST_ID:
        raise ValueError("no id")
    return number


def _word(value: Any) -> str:
    """Text that may be shown, and is not of any length."""
    if not isinstance(value, str) or not value.isprintable() or not 1 <= len(value) <= 100:
        raise ValueError("no word")
    return value


def _server(item: dict[str, Any]) -> Server:
    hostname = str(item["hostname"]).lower()
    if not _SERVER_NAME.fullmatch(hostname) or not outside.is_host(hostname):
        raise ValueError("no server's name")
    station = outside.address(item["station"])
    if station is None or outside.not_public(station):
        raise ValueError("no server's address")
    country = item["locations"][0]["country"]
    return Server(
        hostname,
        str(station),
        min(max(int(item["load"]), 0), 100),
        _country(country),
        _city(country["city"]),
        tuple(_each(_group, item.get("groups"), _MOST_GROUPS)),
        tuple(dict.fromkeys(_each(_technology, item.get("technologies"), _MOST_TECHNOLOGIES))),
    )


def _technology(item: dict[str, Any]) -> str:
    """The identifier of one that we speak; one that is switched off at this server is none."""
    word = item["identifier"]
    if word not in PORTS or item.get("pivot", {}).get("status", "online") != "online":
        raise ValueError("not online, or none of ours")
    return str(word)
