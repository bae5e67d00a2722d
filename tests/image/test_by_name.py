"""examples/by-name: the exit has no fixed address; the server finds it by its service's name."""

from __future__ import annotations

import time
from ipaddress import IPv4Address

import pytest
from i1_example import SiteFactory, Watch

from ocgate.lab.addresses import PROVIDER
from ocgate.lab.capture import now
from ocgate.lab.chained import Chained, chained
from ocgate.lab.example import PASSWORD, place
from ocgate.lab.streams import UdpStream
from ocgate.lab.topology import SERVICE

pytestmark = pytest.mark.image

VPN_USER, VPN_PASSWORD = "your-vpn-user", "the provider's own"
EXIT = "netherlands"


def address(c: Chained) -> IPv4Address:
    """Of the exit's container on the network that it shares with the server."""
    networks = c.project.engine.inspect(c.project.container(EXIT))["NetworkSettings"]["Networks"]
    return IPv4Address(networks["by-name_vpn"]["IPAddress"])


def test_the_server_follows_the_exit_s_name_to_another_address(
    site: SiteFactory, watch: Watch
) -> None:
    """A new container for the exit gets the next free address; another has its old one by then.
    Clients get out by the new one, without a new session, and nothing of theirs left meanwhile."""
    built = site()
    provider = built.run_provider({VPN_USER: VPN_PASSWORD})
    secrets = {
        "password": PASSWORD,
        "vpn_password": VPN_PASSWORD,
        "provider.ovpn": provider.config(),
    }
    c = watch(chained(built, place(built, "by-name", secrets), PROVIDER, exit_service=EXIT))
    c.prove_leaks_are_seen()
    begun, before = now(), address(c)
    with UdpStream(c.client.netns, SERVICE, rate=100) as stream:
        stream.wait_for(10)
        since = time.monotonic()
        engine = c.project.engine
        engine.podman("rm", "--force", "--time=10", c.project.container(EXIT))
        # It forwards nothing. One that did would be taken for an exit: the README says that nobody
        # else belongs on this network.
        engine.podman("run", "--detach", f"--network=by-name_vpn:ip={before}",
                      "--sysctl=net.ipv4.ip_forward=0", "--entrypoint=sleep",
                      "ocgate", "infinity")  # fmt: skip
        c.project.up(EXIT)
        c.wait_passing("exit back under another address", since=since)
    assert address(c) != before
    assert c.client.events() == ["pre-init", "connect"]
    c.assert_nothing_leaked(begun)
