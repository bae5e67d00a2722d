"""Looking a server up: whom the switch is open for meanwhile, and what a DNS outage does."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from pathlib import Path

import pytest

from ocgate.exit_role.keeper import Open
from ocgate.exit_role.lookups import Lookups
from ocgate.exits.resolver import Answer, NotResolved
from ocgate.plan.facts import Address, Family
from ocgate.tunnel.model import Bootstrap, Endpoint, Remote

NAMED = Remote("vpn.example", 1194, ("udp",), "vpn.example")
FOUR = ip_address("192.0.2.1"), ip_address("192.0.2.2")
SIX = (ip_address("2001:db8::1"),)
WINDOW = Open(bootstrap=Bootstrap((ip_address("192.0.2.53"),)))


class World:
    """The keeper, which notes what is held, and a DNS that knows `table`."""

    def __init__(self, tmp_path: Path, table: dict[Family, tuple[Address, ...]]) -> None:
        self.held: list[Open] = []
        self.asked: list[Family] = []
        self.table = table
        resolv_conf = tmp_path / "resolv.conf"
        resolv_conf.write_text("nameserver 192.0.2.53\n")
        self.lookups = Lookups(self, resolv_conf=resolv_conf, resolve=self.resolve)

    async def hold(self, wanted: Open) -> None:
        self.held.append(wanted)

    async def resolve(self, name: str, family: Family, timeout: float) -> Answer:
        assert self.held == [WINDOW]
        self.asked.append(family)
        if family not in self.table:
            raise NotResolved(name, family, "NXDOMAIN", timeout)
        return Answer(self.table[family], 60.0, "192.0.2.53")

    def endpoint(self, remote: Remote, nth: int = 0) -> Endpoint:
        self.held.clear()
        return asyncio.run(self.lookups.endpoint(remote, nth))


def test_an_address_opens_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, {})
    literal = Remote("2001:db8::5", 443, ("tcp", "udp"), "x")
    assert world.endpoint(literal) == Endpoint(ip_address("2001:db8::5"), 443, ("tcp", "udp"))
    assert (world.held, world.asked) == ([], [])


def test_a_name_opens_the_switch_for_its_nameservers_alone(tmp_path: Path) -> None:
    world = World(tmp_path, {4: FOUR, 6: SIX})
    assert world.endpoint(NAMED) == Endpoint(FOUR[0], 1194, ("udp",))
    assert world.held == [WINDOW]
    assert world.asked == [4]  # IPv4 is there: no need to ask more


def test_of_several_addresses_the_nth_is_taken(tmp_path: Path) -> None:
    world = World(tmp_path, {4: FOUR})
    taken = [world.endpoint(NAMED, nth).address for nth in range(4)]
    assert taken == [*FOUR, *FOUR]


def test_a_name_with_ipv6_alone_is_taken(tmp_path: Path) -> None:
    world = World(tmp_path, {6: SIX})
    assert world.endpoint(NAMED).address == SIX[0]
    assert world.asked == [4, 6]


def test_an_unknown_name_is_an_error_with_what_the_nameserver_said(tmp_path: Path) -> None:
    with pytest.raises(NotResolved, match="NXDOMAIN"):
        World(tmp_path, {}).endpoint(NAMED)


def test_a_dns_outage_keeps_the_last_good_addresses(tmp_path: Path) -> None:
    world = World(tmp_path, {4: FOUR})
    world.endpoint(NAMED)
    world.table = {}
    assert world.endpoint(NAMED).address == FOUR[0]
    world.table = {4: FOUR[1:]}
    assert world.endpoint(NAMED).address == FOUR[1]
