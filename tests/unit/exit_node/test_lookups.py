"""Looking a server up: whom the switch is open for meanwhile, and what a DNS outage does."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from ocgate.exit_node.lookups import Lookups
from ocgate.exit_node.reconciler import Open
from ocgate.plan.facts import Address, Family
from ocgate.tunnel.endpoint_gate import NotThere
from ocgate.tunnel.model import Bootstrap, Endpoint, ExitIntent, Remote
from ocgate.upstream.resolver import Answer, NotResolved

NAMED = Remote("vpn.example", 1194, ("udp",), "vpn.example")
FOUR = ip_address("192.0.2.1"), ip_address("192.0.2.2")
SIX = (ip_address("2001:db8::1"),)
INTENT = ExitIntent("tun0", ("eth0",), (), local=(ip_network("172.28.0.0/24"),))
NEIGHBOUR, PUBLIC = ip_address("172.28.0.66"), ip_address("203.0.113.7")
WINDOW = Open(bootstrap=Bootstrap((ip_address("192.0.2.53"),)))


class World:
    """The reconciler, which notes what is held, and a DNS that knows `table`."""

    def __init__(self, tmp_path: Path, table: dict[Family, tuple[Address, ...]]) -> None:
        self.held: list[Open] = []
        self.asked: list[Family] = []
        self.table = table
        resolv_conf = tmp_path / "resolv.conf"
        resolv_conf.write_text("nameserver 192.0.2.53\n")
        self.lookups = Lookups(self, resolv_conf=resolv_conf, resolve=self.resolve)
        self.written = False
        self.intent = INTENT

    async def hold(self, wanted: Open) -> None:
        self.held.append(wanted)

    async def resolve(self, name: str, family: Family, timeout: float) -> Answer:
        assert self.held == [WINDOW]
        self.asked.append(family)
        if family not in self.table:
            raise NotResolved(name, family, "NXDOMAIN", timeout)
        return Answer(self.table[family], 60.0, "192.0.2.53", self.written)

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


# --- forged answers -------------------------------------------------------------------------------


def test_an_answer_that_names_a_neighbour_is_refused_with_a_remedy(tmp_path: Path) -> None:
    """The other family may be honest; of several addresses of one, the honest are taken."""
    with pytest.raises(NotThere, match=r"172.28.0.66 .*attached.*--add-host"):
        World(tmp_path, {4: (NEIGHBOUR,)}).endpoint(NAMED)
    assert World(tmp_path, {4: (NEIGHBOUR,), 6: SIX}).endpoint(NAMED).address == SIX[0]
    mixed = World(tmp_path, {4: (NEIGHBOUR, PUBLIC)})
    assert [mixed.endpoint(NAMED, nth).address for nth in range(2)] == [PUBLIC, PUBLIC]


def test_a_forged_answer_takes_the_former_addresses_from_nobody(tmp_path: Path) -> None:
    world = World(tmp_path, {4: (PUBLIC,)})
    world.endpoint(NAMED)
    world.table = {4: (ip_address("169.254.169.254"),)}
    assert world.endpoint(NAMED).address == PUBLIC


def test_what_the_operator_wrote_is_taken(tmp_path: Path) -> None:
    """In his configuration, in /etc/hosts, and as docker's name of a neighbour."""
    world = World(tmp_path, {4: (NEIGHBOUR,)})
    literal = Remote("127.0.0.1", 1194, ("tcp",), "a proxy of his")
    assert str(world.endpoint(literal).address) == "127.0.0.1"
    assert world.endpoint(Remote("node-b", 443, ("tcp",), "node-b")).address == NEIGHBOUR
    world.written = True
    assert world.endpoint(NAMED).address == NEIGHBOUR


def test_an_address_of_a_providers_list_is_not_the_operators(tmp_path: Path) -> None:
    world = World(tmp_path, {})
    listed = Remote(str(NEIGHBOUR), 1194, ("udp",), "xx1.nordvpn.com", listed=True)
    with pytest.raises(NotThere, match=r"the provider's list has 172\.28\.0\.66"):
        world.endpoint(listed)
    assert world.held == []
