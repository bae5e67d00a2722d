"""Permitted networks as planned, and what `check` says of them and of pushed routes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from ocgate.plan.exits import Exits, ExitState
from ocgate.plan.facts import Facts
from ocgate.server.desired import permitted
from ocgate.server.desired.permitted import Elsewhere
from ocgate.server.desired.prepare import Ipv6Egress, Prepared, prepare, problems
from ocgate.server.status.explain import explain
from support.sources import CONF, facts, interface, sources

FACTS = facts(
    interface(2, "eth0", "192.168.0.10/24", "2001:db8::10/64"),
    interface(3, "eth1", "172.28.0.10/24"),
    interface(4, "lan0", "10.77.0.1/24", "fd00:77::1/64"),
    default4="eth0",
    default6="eth0",
    connected={
        "192.168.0.0/24": "eth0",
        "2001:db8::/64": "eth0",
        "172.28.0.0/24": "eth1",
        "10.77.0.0/24": "lan0",
        "fd00:77::/64": "lan0",
    },
)
SPLIT = CONF.replace("route = default", "route = 10.77.0.0/24")
LAN = "10.77.0.0/24 dev lan0"


def made(conf: str = SPLIT, seen: Facts = FACTS, gateway: str = "", **environ: str) -> Prepared:
    exits = Exits(ExitState(ip_address(gateway))) if gateway else Exits()
    return prepare(sources(conf, **environ), seen, Ipv6Egress("none"), exits)


def codes(found: Prepared, elsewhere: tuple[Elsewhere, ...] = ()) -> list[tuple[str, str]]:
    return [
        (warning.code, warning.remedy)
        for warning in permitted.warnings(found.sources, found.intent, found.facts, elsewhere)
    ]


def without(name: str) -> Facts:
    return replace(FACTS, interfaces=tuple(i for i in FACTS.interfaces if i.name != name))


def changed(name: str, **values: object) -> Facts:
    links = (replace(i, **values) if i.name == name else i for i in FACTS.interfaces)  # type: ignore[arg-type]
    return replace(FACTS, interfaces=tuple(links))


@pytest.mark.parametrize(
    ("seen", "missing"),
    [
        (FACTS, ""),
        (without("lan0"), "there is no interface lan0"),
        (changed("lan0", up=False), "lan0 is down"),
        (changed("lan0", addresses=()), "this host has no IPv4 address on lan0"),
    ],
)
def test_an_interface_that_is_not_there_is_no_error(seen: Facts, missing: str) -> None:
    """Its network is closed and says why; a start is not refused."""
    found = made(seen=seen, OCGATE_NETWORKS=LAN)
    assert [net.missing for net in found.intent.networks] == [missing]
    assert problems(found) == ()
    assert [code for code, _ in codes(found)] == (["network-away"] if missing else [])
    told = explain(found, "alice", ip_address("10.77.0.9"), ())
    expected = ("rejected", "network_closed") if missing else ("network", "")
    assert (told.verdict, told.reason) == expected
    assert missing in told.why


@pytest.mark.parametrize(
    ("router", "usable"),
    [("10.77.0.2", True), ("10.77.0.1", False), ("192.168.0.10", False), ("10.77.0.255", False)],
)
def test_a_router_that_the_kernel_would_refuse_closes_its_network_alone(
    router: str, usable: bool
) -> None:
    """This host's own address, also one that it gets while it runs, or a broadcast address: the
    kernel refuses such a route, and with it whatever else the plan would have changed."""
    found = made(OCGATE_NETWORKS=f"10.78.0.0/16 via {router} dev lan0")
    (net,) = found.intent.networks
    assert net.usable is usable
    assert (router in net.missing) is not usable
    via = [route for route in found.plan.routes if route.gateway == ip_address(router)]
    assert bool(via) is usable


@pytest.mark.parametrize("mode", ["", "direct", "block", "172.28.0.2"])
def test_explain_says_it_in_every_mode(mode: str) -> None:
    """Its own address there stays closed."""
    environ = {"VPN_GATEWAY": mode} if mode else {}
    gateway = mode if mode[:1].isdigit() else ""
    found = made(gateway=gateway, OCGATE_NETWORKS=LAN, **environ)
    told = explain(found, "alice", ip_address("10.77.0.9"), ())
    assert (told.verdict, told.way) == ("network", "dev lan0")
    assert explain(found, "alice", ip_address("10.77.0.1"), ()).verdict == "rejected"


def test_what_can_never_work_is_refused() -> None:
    """The subnet of ocserv.conf, and a gateway's address that a name resolved to."""
    found = made(OCGATE_NETWORKS="10.10.10.128/25 dev lan0")
    assert [p.key for p in problems(found)] == ["OCGATE_NETWORKS"]
    found = made(
        gateway="172.28.0.2", VPN_GATEWAY="nl.example", OCGATE_NETWORKS="172.28.0.0/24 dev eth1"
    )
    assert "upstream's address 172.28.0.2" in problems(found)[0].expected


@pytest.mark.parametrize("mode", ["", "direct", "172.28.0.2"])
def test_a_pushed_route_to_a_closed_network_names_the_line(mode: str) -> None:
    """Connected on an interface that nobody permitted: rejected in every mode, so it is said."""
    environ = {"VPN_GATEWAY": mode} if mode else {}
    found = made(gateway=mode if mode[:1].isdigit() else "", **environ)
    assert codes(found) == [
        ("route-to-closed-network", f"Permit it: OCGATE_NETWORKS={LAN}; or take the route out")
    ]
    found = made(gateway=mode if mode[:1].isdigit() else "", OCGATE_NETWORKS=LAN, **environ)
    assert codes(found) == []


def test_the_line_goes_on_from_what_is_permitted_already() -> None:
    """A route behind a router that the kernel has; one in IPv6; a wider route than the network."""
    conf = CONF.replace("route = default", "route = 10.0.0.0/8\nroute = fd00:77::/64")
    far = Elsewhere(ip_network("10.78.0.0/16"), "lan0", ip_address("10.77.0.9"))
    found = made(conf, OCGATE_NETWORKS=LAN, IPV6_NAT="auto")
    assert codes(found, (far,)) == [
        (
            "route-to-closed-network",
            f"Permit it: OCGATE_NETWORKS={LAN}, 10.78.0.0/16 via 10.77.0.9 dev lan0; or take the "
            "route out",
        ),
        (
            "route-to-closed-network",
            f"Permit it: OCGATE_NETWORKS={LAN}, fd00:77::/64 dev lan0; or take the route out",
        ),
    ]


@pytest.mark.parametrize(
    ("route", "environ", "silent"),
    [
        ("192.168.0.0/24", {}, True),  # the exit's own network, reached from any machine there
        ("192.168.0.0/24", {"VPN_GATEWAY": "172.28.0.2"}, False),  # closed by a gateway
        ("10.10.10.0/24", {}, True),  # the clients' own
        ("172.28.0.0/24", {"VPN_GATEWAY": "172.28.0.2"}, False),
        ("10.99.0.0/16", {"VPN_GATEWAY": "172.28.0.2"}, True),  # beyond the gateway
    ],
)
def test_what_the_exit_carries_is_silent(route: str, environ: dict[str, str], silent: bool) -> None:
    conf = CONF.replace("route = default", f"route = {route}")
    found = made(conf, gateway=environ.get("VPN_GATEWAY", ""), **environ)
    assert (codes(found) == []) == silent


def test_a_full_tunnel_is_silent() -> None:
    """It takes all, and nobody has asked for this network by name; in pieces as well."""
    halves = CONF.replace("route = default", "route = 0.0.0.0/1\nroute = 128.0.0.0/1")
    assert codes(made(CONF)) == codes(made(halves)) == []


@pytest.mark.parametrize(
    ("entry", "conf", "code"),
    [
        ("10.78.0.0/16 via 10.1.1.1 dev lan0", CONF, "network-router-elsewhere"),
        ("10.78.0.0/16 via 10.77.0.9 dev lan0", SPLIT, "network-not-pushed"),
        ("fd00:77::/64 dev lan0", CONF, "network-without-ipv6"),
    ],
)
def test_a_permission_that_nobody_can_use(entry: str, conf: str, code: str) -> None:
    found = made(conf, OCGATE_NETWORKS=f"{LAN}, {entry}")
    assert [one for one, _ in codes(found)] == [code]


def test_a_strict_reverse_path_filter_is_made_loose_in_gateway_mode_only() -> None:
    """There the filter asks the rules without the mark; main answers it elsewhere."""
    strict = replace(FACTS, sysctls={**FACTS.sysctls, "net.ipv4.conf.lan0.rp_filter": "1"})
    assert made(seen=strict, OCGATE_NETWORKS=LAN).intent.strict_on == ()
    found = made(seen=strict, gateway="172.28.0.2", VPN_GATEWAY="172.28.0.2", OCGATE_NETWORKS=LAN)
    assert found.intent.strict_on == ("lan0",)


def test_what_the_kernel_is_asked_about() -> None:
    conf = CONF.replace("route = default", "route = 10.77.0.0/24\nroute = 10.9.9.9/32")
    assert permitted.asked_about(sources(conf)) == [ip_address("10.77.0.1"), ip_address("10.9.9.9")]
    assert permitted.asked_about(sources(CONF)) == []
