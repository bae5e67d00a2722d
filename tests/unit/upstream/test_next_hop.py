"""What DNS may name as a gateway, and what it may not, each with its reason."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

import pytest

from ocgate.plan.facts import Connected, DefaultRoute, Facts, Interface
from ocgate.upstream.etc_hosts import addresses_of
from ocgate.upstream.gateway_address import refusal

FACTS = Facts(
    interfaces=(
        Interface(1, "lo", 65536, True, (ip_interface("127.0.0.1/8"),), loopback=True),
        Interface(2, "eth0", 1500, True, (ip_interface("172.28.0.2/24"),)),
        Interface(3, "eth1", 1500, True, (ip_interface("192.0.2.2/24"),)),
    ),
    routes4=(DefaultRoute(4, 0, 3, "eth1", ip_address("192.0.2.1")),),
    routes6=(DefaultRoute(6, 1024, 3, "eth1", ip_address("2001:db8::1")),),
    connected=(
        Connected(ip_network("172.28.0.0/24"), "eth0"),
        Connected(ip_network("192.0.2.0/24"), "eth1"),
        Connected(ip_network("2001:db8::/64"), "eth1"),
    ),
)
SUBNETS = (ip_network("10.10.10.0/24"), ip_network("fda9:4efe:7e3b::/64"))


@pytest.mark.parametrize("address", ["172.28.0.3", "192.0.2.77", "2001:db8::7"])
def test_a_neighbour_can_be_a_gateway(address: str) -> None:
    assert refusal(ip_address(address), FACTS, SUBNETS) == ""


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("0.0.0.0", "no host's address"),
        ("224.0.0.1", "no host's address"),
        ("fe80::7", "is link-local"),
        ("127.0.0.1", "this host itself"),
        ("127.0.0.53", "this host itself"),
        ("172.28.0.2", "this host itself"),
        ("10.10.10.7", "in the client subnet 10.10.10.0/24"),
        ("fda9:4efe:7e3b::7", "in the client subnet fda9:4efe:7e3b::/64"),
        ("192.0.2.1", "the router of this host's default route on eth1"),
        ("2001:db8::1", "the router of this host's default route on eth1"),
        ("172.28.0.255", "the broadcast address of 172.28.0.0/24"),
        ("172.28.0.0", "the network 172.28.0.0/24 itself"),
        ("203.0.113.7", "on none of the attached networks"),
        ("2001:db8:1::7", "on none of the attached networks"),
    ],
)
def test_what_is_no_gateway_is_refused(address: str, why: str) -> None:
    assert why in refusal(ip_address(address), FACTS, SUBNETS)


def test_a_hosts_file_is_read_as_the_system_reads_it() -> None:
    text = (
        "# 10.0.0.9 gw\n"
        "127.0.0.1\tlocalhost\n"
        "172.28.0.3   nl.example GW  # the Dutch one\n"
        "fd00::3 gw\n"
        "nonsense gw\n"
        "172.28.0.4 gw gw\n"
        "172.28.0.3 gw\n"
        "172.28.0.5 # gw\n"
    )
    four = tuple(ip_address(a) for a in ("172.28.0.3", "172.28.0.4"))
    assert addresses_of("gw", 4, text) == four
    assert addresses_of("Gw.", 4, text) == four
    assert addresses_of("gw", 6, text) == (ip_address("fd00::3"),)
    assert addresses_of("nl.example", 6, text) == ()
    assert addresses_of("g", 4, text) == ()
