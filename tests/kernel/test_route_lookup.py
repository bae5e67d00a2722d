"""Where this host has a network, as the kernel itself says it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest

from ocgate.kernel.route_lookup import Found, look_up

pytestmark = pytest.mark.kernel
Shell = Callable[[str], str]


def test_the_route_with_its_prefix_and_router(uplink: str, sh: Shell) -> None:
    """On-link, behind a router, the default route, and none: in both families."""
    sh(
        "ip route add default via 192.0.2.1;"
        "ip route add 10.78.0.0/16 via 192.0.2.9; ip route add unreachable 10.79.0.0/16;"
        "ip -6 route add fd00:78::/32 via 2001:db8::9; ip -6 route add default via 2001:db8::1"
    )
    index = socket.if_nametoindex(uplink)
    asked = {
        "192.0.2.77": Found(ip_network("192.0.2.0/24"), index, None),
        "10.78.5.5": Found(ip_network("10.78.0.0/16"), index, ip_address("192.0.2.9")),
        "203.0.113.1": Found(ip_network("0.0.0.0/0"), index, ip_address("192.0.2.1")),
        "2001:db8::77": Found(ip_network("2001:db8::/64"), index, None),
        "fd00:78::5": Found(ip_network("fd00:78::/32"), index, ip_address("2001:db8::9")),
        "2001:db8:1::1": Found(ip_network("::/0"), index, ip_address("2001:db8::1")),
    }
    nowhere = [ip_address("10.79.1.1"), ip_address("192.0.2.2")]  # the second is its own
    found = look_up([*map(ip_address, asked), *nowhere])
    assert {str(address): route for address, route in found.items()} == asked
