"""Which of NordVPN's servers are tried, in which order. Pure.

Single servers that were named first, then those of the countries and cities together by load; of
the first RANDOM_TOP chance decides, so that many exits don't all take the same.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from ocgate.errors import ConfigurationError, Problem
from ocgate.tunnel.model import Protocol, Remote
from ocgate.tunnel.provider import Label, Listing, NotListed, Server, Shuffle, Wish

# `us1234`, `uk-nl12` (two hops), also with the domain.
_SINGLE = re.compile(r"([a-z]{2}(?:-[a-z]{2,6})?[0-9]{1,6})(?:\.nordvpn\.com)?", re.IGNORECASE)
_DOMAIN = "nordvpn.com"

# As NordVPN's own OpenVPN files have them.
PORTS: dict[str, tuple[int, Protocol]] = {
    "openvpn_udp": (1194, "udp"),
    "openvpn_tcp": (443, "tcp"),
}

# Beyond it, the servers are as loaded as any; trying them all would take an hour.
MOST_REMOTES = 50

# Country codes are ISO 3166's, but servers in the United Kingdom are named uk1234.
_ALSO = {"uk": "gb"}

_SOURCE = "environment"


def singles(wish: Wish) -> tuple[str, ...]:
    """The host names of servers that were named themselves, in COUNTRY or CITY."""
    matches = [_SINGLE.fullmatch(word) for word in (*wish.countries, *wish.cities)]
    return tuple(dict.fromkeys(f"{match[1].lower()}.{_DOMAIN}" for match in matches if match))


def words(wanted: Iterable[str]) -> list[str]:
    """What names places and not servers."""
    return [word for word in wanted if not _SINGLE.fullmatch(word)]


def resolved(key: str, wanted: Iterable[str], known: Sequence[Label]) -> list[Label]:
    """What was meant by each name; raises ConfigurationError with every unknown one."""
    found: list[Label] = []
    problems: list[Problem] = []
    for word in wanted:
        meant = [each for each in known if each.answers_to(_ALSO.get(word.lower(), word))]
        found += meant
        if not meant:
            expected = "a name, code or id that NordVPN has"
            problems.append(Problem(_SOURCE, 0, key, word, expected, _nearest(word, known)))
    if problems:
        raise ConfigurationError(problems)
    return found


def _nearest(word: str, known: Sequence[Label]) -> str:
    by_name = {each.name.lower(): each.name for each in known}
    near = difflib.get_close_matches(word.lower(), by_name, n=3, cutoff=0.5)
    if not near:
        return "look it up among NordVPN's servers, or remove it"
    return f"write {' or '.join(by_name[name] for name in near)}"


def remotes(listing: Listing | None, wish: Wish, shuffle: Shuffle) -> tuple[Remote, ...]:
    """The servers in the order in which they are tried.

    Raises NotListed where there is none, ConfigurationError for unknown names.
    """
    named = [_remote(host, host, wish, listed=False) for host in singles(wish)]
    listed = _listed(listing, wish) if listing else []
    top = listed[: wish.random_top]
    shuffle(top)
    ordered = [*top, *listed[wish.random_top :]]
    found = [*named, *(_remote(each.hostname, each.address, wish, listed=True) for each in ordered)]
    if not found:
        raise NotListed(
            "no server of NordVPN fits COUNTRY, CITY, GROUP and TECHNOLOGY together",
            hint="Leave out one of them",
        )
    unique = {remote.label: remote for remote in reversed(found)}
    return tuple(unique[label] for label in dict.fromkeys(r.label for r in found))[:MOST_REMOTES]


def _listed(listing: Listing, wish: Wish) -> list[Server]:
    """Servers of the wish, least loaded first; of equals the provider's order."""
    countries, cities = words(wish.countries), words(wish.cities)
    if singles(wish) and not countries and not cities:
        return []
    in_countries = _ids("COUNTRY", countries, listing.countries, [s.country for s in _all(listing)])
    in_cities = _ids("CITY", cities, listing.cities, [s.city for s in _all(listing)])
    in_groups = _ids(
        "GROUP", wish.groups, listing.groups, [g for s in _all(listing) for g in s.groups]
    )
    fit = [
        server
        for server in _all(listing)
        if wish.technology in server.technologies
        and (not (in_countries or in_cities) or _is_in(server, in_countries, in_cities))
        and (not in_groups or in_groups & {group.id for group in server.groups})
    ]
    return sorted(fit, key=lambda server: server.load)


def _all(listing: Listing) -> tuple[Server, ...]:
    return listing.servers


def _is_in(server: Server, countries: set[int], cities: set[int]) -> bool:
    return server.country.id in countries or server.city.id in cities


def _ids(
    key: str, wanted: Sequence[str], named: Sequence[Label], seen: Sequence[Label]
) -> set[int]:
    """Ids by the provider's list of names, or where it was not asked, by those of its servers."""
    return {label.id for label in resolved(key, wanted, named or tuple(dict.fromkeys(seen)))}


def _remote(hostname: str, host: str, wish: Wish, *, listed: bool) -> Remote:
    port, protocol = PORTS[wish.technology]
    return Remote(host, port, (protocol,), hostname, listed)
