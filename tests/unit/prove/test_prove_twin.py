"""The drawing of a twin: the machine's own network, with everybody around it, nobody twice."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

import pytest

from ocgate.errors import MissingRequirement
from ocgate.plan.facts import Connected, DefaultRoute, Facts, Interface
from ocgate.prove.twin import Wanted, address_of, twin

CLIENTS = (ip_network("10.10.10.0/24"), ip_network("fd00::/64"))


def facts(*addresses: str, gateway: str | None = "172.28.0.1", extra: str = "") -> Facts:
    links = [Interface(2, "eth0", 1500, up=True, addresses=tuple(map(ip_interface, addresses)))]
    if extra:
        links.append(Interface(3, "eth1", 1400, up=True, addresses=(ip_interface(extra),)))
    texts = [*addresses, *([extra] if extra else [])]
    nets = [ip_network(text, strict=False) for text in texts]
    routes = (DefaultRoute(4, 0, 2, "eth0", ip_address(gateway)),) if gateway else ()
    return Facts(tuple(links), routes, (), tuple(Connected(net, "eth0") for net in nets))


def test_names_addresses_mtu_and_routes_are_the_machines() -> None:
    drawn = twin(facts("172.28.0.10/24", extra="172.29.0.9/16"), (), CLIENTS, "vpns")
    first, second = drawn.segments
    assert (first.device, first.mtu, first.own) == ("eth0", 1500, ("172.28.0.10/24",))
    assert (second.device, second.mtu, second.own) == ("eth1", 1400, ("172.29.0.9/16",))
    assert first.isp == ("172.28.0.1/24",)
    assert [route.gateway for route in first.defaults] == [ip_address("172.28.0.1")]
    assert not second.defaults


def test_nobody_gets_an_address_that_is_taken() -> None:
    wanted = (Wanted(4, ip_address("172.28.0.200"), None), Wanted(4, None, "gluetun"))
    drawn = twin(facts("172.28.0.10/24"), wanted, CLIENTS, "vpns")
    (segment,) = drawn.segments
    held = [address_of(a) for a in (*segment.own, *segment.isp, *segment.neighbour)]
    held += [a for up in drawn.upstreams for a in (up.address, up.free)]
    assert len(set(held)) == len(held)
    assert drawn.upstreams[0].address == ip_address("172.28.0.200")


def test_a_named_gateway_stands_where_no_default_route_leads() -> None:
    here = facts("172.28.0.10/24", extra="172.29.0.10/24")
    drawn = twin(here, (Wanted(4, None, "gluetun"),), CLIENTS, "vpns")
    assert drawn.upstreams[0].segment.device == "eth1"


def test_the_internet_is_where_this_machine_is_not() -> None:
    """Documentation networks that are in use here are passed over."""
    drawn = twin(facts("198.51.100.4/24", gateway="198.51.100.1"), (), CLIENTS, "vpns")
    assert drawn.service(4) == ip_address("203.0.113.10")
    clients = (ip_network("203.0.113.0/24"),)
    drawn = twin(facts("198.51.100.4/24", gateway="198.51.100.1"), (), clients, "vpns")
    assert drawn.service(4) == ip_address("192.0.2.10")


def test_a_router_outside_of_the_network_and_a_link_local_one() -> None:
    drawn = twin(facts("192.0.2.7/32", gateway="10.0.0.1"), (), CLIENTS, "vpns")
    assert drawn.segments[0].isp == ("10.0.0.1/32",)
    six = Facts(
        (Interface(2, "eth0", 1500, up=True, addresses=(ip_interface("2001:db8:1::7/64"),)),),
        (),
        (DefaultRoute(6, 1024, 2, "eth0", ip_address("fe80::1")),),
    )
    assert "fe80::1/64" in twin(six, (), CLIENTS, "vpns").segments[0].isp


def test_client_tunnels_and_loopback_are_no_part_of_it() -> None:
    tun = Interface(9, "vpns0", 1400, up=True, addresses=(ip_interface("10.10.10.1/32"),))
    here = facts("172.28.0.10/24")
    with_tun = Facts((*here.interfaces, tun), here.routes4, (), here.connected)
    assert [s.device for s in twin(with_tun, (), CLIENTS, "vpns").segments] == ["eth0"]


@pytest.mark.parametrize(
    ("here", "wanted", "words"),
    [
        (facts("172.28.0.10/24", gateway=None), (), "nothing to copy"),
        (Facts(), (), "nothing to copy"),
        (facts("172.28.0.10/24"), (Wanted(4, ip_address("10.9.9.9"), None),), "no network"),
    ],
)
def test_what_has_no_twin_is_said(here: Facts, wanted: tuple[Wanted, ...], words: str) -> None:
    with pytest.raises(MissingRequirement, match=words):
        twin(here, wanted, CLIENTS, "vpns")
