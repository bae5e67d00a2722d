"""From sources, facts and egress to the intent: the one way that all commands take."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from ocgate.plan.facts import Facts
from ocgate.plan.intent import Wan
from ocgate.server.desired.prepare import Ipv6Egress, Prepared, prepare, problems
from ocgate.server.prepare_now import _public_subnets
from support.sources import CONF, IPV6_ON, facts, interface, sources

WORKS = Ipv6Egress(None)
ETH0, ETH1 = interface(2, "eth0", "172.28.0.10/24"), interface(3, "eth1", "172.29.0.10/24")


def prepared(
    found: Facts, conf: str = CONF, egress: Ipv6Egress = WORKS, **environ: str
) -> Prepared:
    return prepare(sources(conf, **environ), found, egress)


@pytest.mark.parametrize(
    ("environ", "found", "name"),
    [
        ({}, facts(ETH0, ETH1, default4="eth1"), "eth1"),
        ({}, facts(ETH0, ETH1), "eth0"),
        ({}, facts(ETH1), None),
        ({"WAN_IF": "eth1"}, facts(ETH0, ETH1, default4="eth0"), "eth1"),
        ({"WAN_IF": "eth1"}, facts(ETH0, ETH1), "eth1"),
    ],
)
def test_wan_is_what_was_named_else_the_default_route_else_eth0(
    environ: dict[str, str], found: Facts, name: str | None
) -> None:
    wan = prepared(found, **environ).intent.wan4
    assert wan == (None if name is None else Wan(name, 1500))


def test_each_family_leaves_by_its_own_default_route() -> None:
    intent = prepared(facts(ETH0, ETH1, default4="eth0", default6="eth1")).intent
    assert intent.wan4 is not None
    assert intent.wan6 is not None
    assert (intent.wan4.name, intent.wan6.name) == ("eth0", "eth1")


def test_a_wan_if_that_is_not_there_is_refused_with_those_that_are() -> None:
    (problem,) = problems(prepared(facts(ETH0, ETH1, default4="eth0"), WAN_IF="eth7"))
    assert (problem.source, problem.key, problem.got) == ("environment", "WAN_IF", "eth7")
    assert "eth0, eth1" in problem.expected


@pytest.mark.parametrize(
    ("network", "device", "collides"),
    [
        ("10.10.10.0/24", "eth0", True),
        ("10.10.0.0/16", "docker0", True),
        ("10.10.10.128/25", "eth0", True),
        ("10.10.11.0/24", "eth0", False),
        ("10.10.10.7/32", "vpns0", False),  # a client's own tunnel
    ],
)
def test_a_client_subnet_that_this_host_has_elsewhere_is_refused(
    network: str, device: str, *, collides: bool
) -> None:
    found = problems(prepared(facts(ETH0, default4="eth0", connected={network: device})))
    assert [problem.key for problem in found] == ["ipv4-network"] * collides
    if collides:
        assert (found[0].source, found[0].line) == ("/etc/ocserv/ocserv.conf", 5)
        assert network in found[0].expected
        assert device in found[0].expected


def test_a_sink_without_ipv6_in_the_kernel_is_refused() -> None:
    """It would let dual-stack clients out by their own IPv6, which it was asked to prevent."""
    off = {**IPV6_ON, "net.ipv6.conf.all.disable_ipv6": "1",
           "net.ipv6.conf.default.disable_ipv6": "1"}  # fmt: skip
    for sysctls in ({}, off):
        (problem,) = problems(
            prepared(facts(ETH0, default4="eth0", sysctls=sysctls), IPV6_SINK="1")
        )
        assert problem.key == "IPV6_SINK"
        assert "disable_ipv6=0" in problem.remedy
    assert problems(prepared(facts(ETH0, default4="eth0"), IPV6_SINK="1")) == ()
    split = CONF.replace("route = default", "route = 198.51.100.0/255.255.255.0")
    nothing = facts(ETH0, default4="eth0", sysctls={})
    assert problems(prepared(nothing, split, IPV6_SINK="1")) == ()


@pytest.mark.parametrize(
    ("dns", "opened"),
    [
        ("198.51.100.53", []),  # somewhere else
        ("172.28.0.10", ["172.28.0.10"]),  # an address of this host
        ("10.10.10.1", ["10.10.10.1"]),  # the gateway's, which exists with the first tunnel
        ("10.10.10.2", []),  # a client's
    ],
)
def test_only_a_resolver_that_is_this_host_is_opened(dns: str, opened: list[str]) -> None:
    conf = CONF.replace("dns = 198.51.100.53", f"dns = {dns}")
    intent = prepared(facts(ETH0, default4="eth0"), conf).intent
    assert intent.resolvers == tuple(ip_address(address) for address in opened)


def test_the_gateway_of_a_default_subnet_is_not_pinged_where_another_is_configured() -> None:
    """10.10.10.1 is no address of the tunnel where ocserv.conf has another network."""
    conf = CONF.replace("10.10.10.0", "10.77.0.0")
    assert prepared(facts(ETH0), conf).intent.gateways == (ip_address("10.77.0.1"),)
    without = "".join(line for line in CONF.splitlines(True) if not line.startswith("ipv4-"))
    assert prepared(facts(ETH0), without).intent.gateways == (ip_address("10.10.10.1"),)


def test_preparing_twice_gives_equal_values() -> None:
    found = facts(ETH0, default4="eth0", default6="eth0")
    one, two = prepared(found), prepared(found)
    assert (one.intent, one.plan, one.decision) == (two.intent, two.plan, two.decision)


@pytest.mark.parametrize(
    ("subnet", "public"),
    [
        ("10.10.10.0/255.255.255.0", False),
        ("100.64.0.0/255.255.255.0", False),
        ("192.0.2.0/255.255.255.0", False),  # documentation: nobody's
        ("8.8.8.0/255.255.255.0", True),
        ("172.15.0.0/255.255.0.0", True),
    ],
)
def test_subnets_that_belong_to_others_are_warned_of(subnet: str, public: bool) -> None:
    address, mask = subnet.split("/")
    conf = CONF.replace("10.10.10.0", address).replace("255.255.255.0", mask)
    codes = [w.code for w in _public_subnets(prepared(facts(ETH0, default4="eth0"), conf))]
    assert codes == ["client-subnet-public"] * public


def test_the_warning_of_a_public_subnet_names_its_place() -> None:
    conf = CONF.replace("10.10.10.0", "8.8.8.0")
    (warning,) = _public_subnets(prepared(facts(ETH0, default4="eth0"), conf))
    assert warning.text.startswith("/etc/ocserv/ocserv.conf:5: clients get addresses of 8.8.8.0/24")
    assert "10.0.0.0/8" in warning.remedy


SLAAC = "2001:db8:28::aa/64"


@pytest.mark.parametrize(
    ("advertised", "address", "lent", "wanted"),
    [
        (False, "2001:db8:28::10/64", False, {}),
        (True, "2001:db8:28::10/64", False, {"accept_ra": "2", "accept_ra_pinfo": "0"}),
        (True, SLAAC, True, {"accept_ra": "2"}),
        (True, "fe80::1/64", False, {"accept_ra": "2", "accept_ra_pinfo": "0"}),
    ],
)
def test_advertisements_are_heeded_as_far_as_this_host_lives_by_them(
    advertised: bool,
    address: str,
    lent: bool,
    wanted: dict[str, str],
) -> None:
    """A default route that was written: not at all. Prefixes: where an address came with them."""
    link = interface(2, "eth0", "172.28.0.10/24", address)
    link = replace(link, lent=link.own(6) if lent else ())
    sysctls = {**IPV6_ON, "net.ipv6.conf.eth0.accept_ra": "1"}
    found = facts(link, default4="eth0", default6="eth0", sysctls=sysctls)
    found = replace(found, routes6=tuple(replace(r, advertised=advertised) for r in found.routes6))
    at = "net.ipv6.conf.eth0."
    made = prepared(found, IPV6_NAT="auto").plan.sysctls
    given = {s.key.removeprefix(at): s.value for s in made if s.key.startswith(at)}
    assert given == ({**wanted, "accept_ra_rt_info_max_plen": "0"} if wanted else {})
