"""examples/by-name: the exit has no fixed address; the server finds it by its service's name."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from lab.capture import now
from lab.chained import Chained
from lab.chained_examples import by_name
from lab.streams import UdpStream
from lab.topology import SERVICE
from support.example import SiteFactory, Watch

pytestmark = pytest.mark.image


def address(c: Chained) -> IPv4Address:
    """Of the exit's container on the network that it shares with the server."""
    networks = c.project.engine.inspect(c.project.container(c.exit))["NetworkSettings"]["Networks"]
    return IPv4Address(networks["by-name_vpn"]["IPAddress"])


def test_the_server_follows_the_exit_s_name_to_another_address(
    site: SiteFactory, watch: Watch
) -> None:
    """A new container for the exit gets the next free address. Clients get out by that one, without
    a new session, and nothing of theirs left meanwhile."""
    c = watch(by_name(site()))
    c.prove_leaks_are_seen()
    begun, before = now(), address(c)
    with UdpStream(c.client.netns, SERVICE, rate=100) as stream:
        stream.wait_for(10)
        c.measured("exit recreated under another address",
                   lambda: c.project.up(c.exit, recreate=True))  # fmt: skip
    assert address(c) != before
    assert c.client.events() == ["pre-init", "connect"]
    c.assert_nothing_leaked(begun)
