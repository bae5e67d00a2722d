"""NordVPN's public API: what is asked, and its answers -> `Listing`. Pure.

    GET /v1/servers/countries          [{id, name, code, cities: [{id, name, dns_name}]}]
    GET /v1/servers/groups             [{id, title, identifier}]
    GET /v1/servers/recommendations    [{hostname, station, load, status, locations, groups,
        ?limit=…&filters[…]=…            technologies: [{identifier, pivot: {status}}]}]

An answer holds much more, and nobody promised its shape: what is not needed is not looked at, a
server that can't be understood is passed over, and only an answer without any is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import urlencode

from ocgate.tunnel.host import is_host
from ocgate.tunnel.provider import Label, NotListed, Server

SERVICE = "api.nordvpn.com"
COUNTRIES = "/v1/servers/countries"
GROUPS = "/v1/servers/groups"

# Of one country; a server takes 4 KB of an answer, and the largest country has some 2,000.
LIMIT = 500

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
            cities[country.id] = tuple(_each(_city, each.get("cities")))
    return tuple(_some(countries, COUNTRIES)), cities


def groups(body: bytes) -> tuple[Label, ...]:
    """The groups of servers; raises NotListed."""
    return tuple(_some([*_each(_group, _items(body, GROUPS))], GROUPS))


def servers(body: bytes) -> tuple[Server, ...]:
    """The servers that are online; none where the filters leave none. Raises NotListed."""
    items = _items(body, "servers")
    found = tuple(_each(_server, [each for each in items if each.get("status") == "online"]))
    return tuple(_some(found, "servers")) if items else ()


def _items(body: bytes, what: str) -> list[dict[str, Any]]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise NotListed(f"{SERVICE}: {what}: the answer is no JSON") from None
    if not isinstance(answer, list):
        raise NotListed(f"{SERVICE}: {what}: the answer is no list")
    return [each for each in answer if isinstance(each, dict)]


def _some(found: Any, what: str) -> Any:
    if not found:
        raise NotListed(f"{SERVICE}: {what}: nothing in the answer can be understood")
    return found


def _each(make: Callable[[dict[str, Any]], _T], items: Any) -> Iterator[_T]:
    for each in items if isinstance(items, list) else ():
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
    return Label(int(item["id"]), _word(item["name"]), _word(item["code"]))


def _city(item: dict[str, Any]) -> Label:
    return Label(int(item["id"]), _word(item["name"]), _word(item.get("dns_name") or "-"))


def _group(item: dict[str, Any]) -> Label:
    return Label(int(item["id"]), _word(item["title"]), _word(item["identifier"]))


def _word(value: Any) -> str:
    """Text that may be shown, and is not of any length."""
    if not isinstance(value, str) or not value.isprintable() or not 1 <= len(value) <= 100:
        raise ValueError("no word")
    return value


def _server(item: dict[str, Any]) -> Server:
    hostname = str(item["hostname"]).lower()
    if not _SERVER_NAME.fullmatch(hostname) or not is_host(hostname):
        raise ValueError("no server's name")
    country = item["locations"][0]["country"]
    return Server(
        hostname,
        str(ip_address(item["station"])),
        min(max(int(item["load"]), 0), 100),
        _country(country),
        _city(country["city"]),
        tuple(_each(_group, item.get("groups"))),
        tuple(_each(_technology, item.get("technologies"))),
    )


def _technology(item: dict[str, Any]) -> str:
    """An identifier; one that is switched off at this server is none."""
    if item.get("pivot", {}).get("status", "online") != "online":
        raise ValueError("not online")
    return _word(item["identifier"])
