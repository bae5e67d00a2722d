"""NordVPN as a provider: its list of servers, OpenVPN to one of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ocgate.tunnel import nordvpn_api as api
from ocgate.tunnel import nordvpn_choice as choice
from ocgate.tunnel import openvpn
from ocgate.tunnel.gate import Reported
from ocgate.tunnel.model import Endpoint, Launch, Remote
from ocgate.tunnel.nordvpn_template import TEMPLATE
from ocgate.tunnel.provider import Ask, Label, Listing, NotListed, Server, Shuffle, Wish

# Beyond it the whole list is asked for once, instead of each country's.
_MOST_COUNTRIES = 8


class NordVpn:
    """The first `Provider`."""

    name = "nordvpn"
    service = api.SERVICE

    def needs_list(self, wish: Wish) -> bool:
        """Not where only single servers are named."""
        places = choice.words((*wish.countries, *wish.cities))
        return bool(places) or not choice.singles(wish)

    def list_servers(self, ask: Ask, wish: Wish) -> Listing:
        """As `Provider` says: the names first, then the servers of each country."""
        countries, cities = choice.words(wish.countries), choice.words(wish.cities)
        known: tuple[Label, ...] = ()
        by_country: dict[int, tuple[Label, ...]] = {}
        if countries or cities:
            known, by_country = api.places(ask(api.COUNTRIES))
        groups = api.groups(ask(api.GROUPS)) if wish.groups else ()
        every_city = tuple(city for each in by_country.values() for city in each)
        wanted = [each.id for each in choice.resolved("COUNTRY", countries, known)]
        meant = choice.resolved("CITY", cities, every_city)
        wanted += [country for country, held in by_country.items() if set(held) & set(meant)]
        codes = [each.code for each in choice.resolved("GROUP", wish.groups, groups)]
        servers = self._servers(ask, wish, list(dict.fromkeys(wanted)), codes)
        return Listing(wish, known, every_city, groups, servers)

    def _servers(
        self, ask: Ask, wish: Wish, countries: list[int], groups: list[str]
    ) -> tuple[Server, ...]:
        """One group is the API's to filter by; several are sorted out by the choice."""
        group = groups[0] if len(groups) == 1 else None
        asked: list[int | None] = [*countries] if 0 < len(countries) <= _MOST_COUNTRIES else [None]
        found: dict[str, Server] = {}
        for country in asked:
            body = ask(api.recommendations(wish.technology, country, group))
            found |= {server.hostname: server for server in api.servers(body)}
        if not found:
            raise NotListed(
                f"{api.SERVICE} has no server for COUNTRY, CITY, GROUP and TECHNOLOGY together",
                hint="Leave out one of them",
            )
        return tuple(found.values())

    def remotes(self, listing: Listing | None, wish: Wish, shuffle: Shuffle) -> tuple[Remote, ...]:
        """As `Provider` says; a remote's label is the server's name."""
        return choice.remotes(listing, wish, shuffle)

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
        """As `Provider` says: NordVPN's own file for this server, by way of `openvpn`."""
        profile = openvpn.read(_text(remote), remote.label, files={}, login=login)
        (own,) = openvpn.remotes(profile)
        return openvpn.launch(profile, own, endpoint, device=device, directory=directory, hook=hook)

    def reported(self, environment: Mapping[str, str]) -> Reported:
        """As OpenVPN's."""
        return openvpn.reported(environment)


def _text(remote: Remote) -> str:
    """NordVPN's configuration for one server; its certificate's name is the server's."""
    server = f"remote {remote.host} {remote.port} {remote.protocols[0]}\n"
    return f"{server}verify-x509-name {remote.label} name\n{TEMPLATE}"
