"""What is for a client goes by its tunnel or nowhere, whatever routes others put into its subnet.

wan0 192.0.2.2, 2001:db8::2  <->  isp0 (the same namespace)     vpns0: an admitted session's tunnel
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from ocgate.kernel import intruders, routes
from ocgate.kernel.apply import apply, drift
from ocgate.kernel.nft import Nft
from ocgate.kernel.tunnel_group import TunnelGroup
from ocgate.names import NULL_TABLE
from ocgate.plan.model import ClientNetworks
from ocgate.plan.planner import plan
from ocgate.plan.routing import TABLE_MAIN
from ocgate.server.check_and_plan import difference
from ocgate.sessions.elements import NO_SESSIONS
from tests.kernel.test_gateway_plan import INTENT

pytestmark = pytest.mark.kernel
Shell = Callable[[str], str]

PLAN = plan(INTENT)
# What is for clients: the blackholes, and the rules but for those that send by the null device.
HELD = [route for route in PLAN.routes if route.table == TABLE_MAIN]
RULES = [rule for rule in PLAN.rules if rule.table != NULL_TABLE]
NET6 = "fda9:4efe:7e3b:3ea"
# As ocserv makes them: a point-to-point address in both families.
TUNNEL = f"""
ip tuntap add vpns0 mode tun; ip link set vpns0 up
ip addr add 10.10.10.1 peer 10.10.10.5 dev vpns0
ip -6 addr add {NET6}::1 peer {NET6}::5 dev vpns0 nodad
"""
ROGUE = f"""
ip route add 10.10.10.0/25 dev wan0; ip route add 10.10.10.6/32 dev wan0
ip route add 10.10.10.7/32 via 192.0.2.9 proto dhcp; ip route add 10.20.0.0/16 dev wan0
ip -6 route append {NET6}::/64 dev wan0 metric 256 proto ra
ip -6 route append {NET6}::5/128 dev wan0 metric 256 proto ra
ip -6 route append {NET6}::6/128 dev wan0 proto ra
"""


@pytest.fixture
def nft(uplink: str) -> Iterator[Nft]:
    door = Nft()
    yield door
    door.close()


def way(sh: Shell, address: str) -> str:
    """The device by which the kernel would send there, "" for nowhere."""
    family = "-6" if ":" in address else "-4"
    words = sh(f"ip {family} route get {address} 2>&1 || true").split()
    return words[words.index("dev") + 1] if "dev" in words else ""


SESSION = ("10.10.10.5", f"{NET6}::5")
NOBODY = ("10.10.10.6", "10.10.10.7", "10.10.10.8", "10.20.1.1", f"{NET6}::6", f"{NET6}::7")


def test_rules_to_clients_look_at_tunnels_only(nft: Nft, sh: Shell) -> None:
    """With the ruleset away and routes of all lengths on another link: a session's packets go by
    its tunnel, all else nowhere. The positive control: without the rules they go to the link."""
    sh(TUNNEL)
    routes.ensure(HELD, ())
    sh(ROGUE)
    assert {way(sh, address) for address in NOBODY} == {"wan0"}
    routes.ensure((), RULES)
    TunnelGroup().join(["vpns0"])
    assert {way(sh, address) for address in NOBODY} == {""}
    # A neighbour's route as long as the session's own, and before it: nowhere, or by the tunnel.
    assert way(sh, SESSION[0]) == "vpns0"
    assert way(sh, SESSION[1]) in ("vpns0", "")
    sh("ip -6 route del fda9:4efe:7e3b:3ea::5/128 dev wan0")
    assert way(sh, SESSION[1]) == "vpns0"


def test_a_tunnel_gets_nothing_before_it_is_in_the_group(nft: Nft, sh: Shell) -> None:
    sh(TUNNEL)
    routes.ensure(HELD, RULES)
    assert {way(sh, address) for address in SESSION} == {""}
    TunnelGroup().join(["vpns0", "vpns1"])  # one that is gone is no error
    assert {way(sh, address) for address in SESSION} == {"vpns0"}


def test_routes_of_others_into_client_subnets_are_drift_and_taken_out(
    nft: Nft, sh: Shell, tmp_path: Path
) -> None:
    """Whoever made them, while a session's own and what merely contains the subnet stay."""
    sh(TUNNEL)
    sh("ip route add 10.0.0.0/8 dev wan0; ip route add unreachable 10.10.10.9/32")
    applied = apply(nft, PLAN, NO_SESSIONS, run_dir=tmp_path)
    assert (applied.removed, drift(nft, applied, NO_SESSIONS)) == ((), ())
    sh(ROGUE)
    found = drift(nft, applied, NO_SESSIONS)
    assert len(found) == 7
    assert "route 10.10.10.7/32 via 192.0.2.9 dev wan0 proto dhcp lies in a client subnet" in str(
        found
    )
    assert f"+route {NET6}::/64 dev wan0 proto ra lies in a client subnet" in difference(PLAN)
    again = apply(nft, PLAN, NO_SESSIONS, run_dir=tmp_path)
    assert sorted(again.removed) == sorted(found)
    assert drift(nft, again, NO_SESSIONS) == ()
    left = sh("ip route; ip -6 route")
    assert "10.0.0.0/8 dev wan0" in left
    assert f"{NET6}::5 dev vpns0" in left
    assert "10.10.10.6" not in left


def test_an_address_that_an_advertisement_made_in_a_client_subnet_is_taken_away(
    uplink: str, sh: Shell
) -> None:
    """One that was written stays, and only its route goes: who wrote it meant something."""
    clients = ClientNetworks("vpns", (ip_network(f"{NET6}::/64"),))
    sh(f"ip -6 addr add {NET6}::aa/64 dev wan0 nodad valid_lft 600 preferred_lft 600")
    sh(f"ip -6 addr add {NET6}::bb/64 dev wan0 nodad")
    removed = intruders.remove(clients)
    assert f"address {NET6}::aa/64 on wan0 lies in a client subnet" in removed[0]
    assert f"{NET6}::aa" not in sh("ip -6 addr show dev wan0")
    assert f"{NET6}::bb" in sh("ip -6 addr show dev wan0")
    assert intruders.differing(clients) == []
