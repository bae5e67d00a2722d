"""A provider's servers: what the switch is open for meanwhile, and what happens without the API."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from lab import nordvpn_api as lab
from ocgate.errors import OcgateError
from ocgate.exit_node.kinds import Provided
from ocgate.exit_node.reconciler import Open
from ocgate.exit_node.server_list import Servers
from ocgate.plan.facts import Address
from ocgate.tunnel.model import Bootstrap, Carried, Endpoint, ExitIntent
from ocgate.tunnel.nordvpn import NordVpn
from ocgate.tunnel.provider import Ask, NotListed, Wish
from ocgate.tunnel.provider_fetch import Api
from ocgate.upstream.resolver import Answer, Lookup

ADDRESS = ip_address("198.51.100.7")
DOOR = Open(bootstrap=Bootstrap(services=(Endpoint(ADDRESS, 443, ("tcp",)),)))


class _Keeper:
    def __init__(self) -> None:
        self.held: list[Open] = []
        self.intent = ExitIntent("tun0", ("eth0",), ())

    async def hold(self, wanted: Open) -> None:
        self.held.append(wanted)


class _Lookups:
    """Knows the API's address, or nothing."""

    def __init__(self, *, finds: bool = True) -> None:
        self.asked: list[str] = []
        self._finds = finds

    async def addresses(self, host: str) -> tuple[Address, ...]:
        self.asked.append(host)
        if not self._finds:
            raise OcgateError("no answer")
        return (ADDRESS,)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[lab.Api]:
    made = lab.Api(tmp_path)
    yield made
    made.close()


def _servers(api: lab.Api, reconciler: _Keeper, wish: Wish, cache: Path) -> Servers:
    context = ssl.create_default_context(cafile=str(api.authority))

    def asks(host: str, address: Address) -> Ask:
        assert address == ADDRESS
        return Api(host, ip_address("127.0.0.1"), api.port, context).ask

    kind = Provided(NordVpn(), wish, ("service-user", "hunter2"))
    return Servers(reconciler, kind, cache, asks=asks)


def test_the_switch_is_open_for_the_api_alone(api: lab.Api, tmp_path: Path) -> None:
    reconciler, lookups = _Keeper(), _Lookups()
    servers = _servers(api, reconciler, Wish(countries=("DE",)), tmp_path)
    remotes = asyncio.run(servers.remotes(lookups))
    assert [remote.label for remote in remotes] == ["de1002.nordvpn.com", "de1001.nordvpn.com"]
    assert (lookups.asked, reconciler.held) == (["api.nordvpn.com"], [DOOR])


def test_without_a_resolver_the_kept_copy_serves_and_nothing_is_opened(
    api: lab.Api, tmp_path: Path
) -> None:
    reconciler = _Keeper()
    servers = _servers(api, reconciler, Wish(), tmp_path)
    with pytest.raises(NotListed, match="is not reachable"):
        asyncio.run(servers.remotes(_Lookups(finds=False)))
    listed = asyncio.run(servers.remotes(_Lookups()))
    reconciler.held.clear()
    assert asyncio.run(servers.remotes(_Lookups(finds=False))) == listed
    assert reconciler.held == []


def test_named_servers_need_neither_resolver_nor_api(api: lab.Api, tmp_path: Path) -> None:
    reconciler, lookups = _Keeper(), _Lookups()
    servers = _servers(api, reconciler, Wish(countries=("us1234",)), tmp_path)
    (remote,) = asyncio.run(servers.remotes(lookups))
    assert remote.host == "us1234.nordvpn.com"
    assert (lookups.asked, reconciler.held, api.behaviour.asked) == ([], [], [])


def test_a_list_is_renewed_through_the_tunnel_by_its_resolver(api: lab.Api, tmp_path: Path) -> None:
    """The switch is not touched: it is open for the tunnel already."""
    reconciler, asked = _Keeper(), []

    async def resolve(name: str, family: int, limit: float, lookup: Lookup) -> Answer:
        asked.append((name, lookup.resolv_conf.read_text()))
        return Answer((ADDRESS,), 60.0, "10.8.0.1")

    servers = _servers(api, reconciler, Wish(countries=("DE",)), tmp_path)
    servers._resolve = resolve
    carried = Carried((ip_interface("10.8.0.2/32"),), 1500, (ip_address("10.8.0.1"),))
    remotes = asyncio.run(servers.renewed(carried))
    assert [remote.label for remote in remotes] == ["de1002.nordvpn.com", "de1001.nordvpn.com"]
    assert asked == [("api.nordvpn.com", "nameserver 10.8.0.1\n")]
    assert reconciler.held == []
    assert servers.listed_at > 0
