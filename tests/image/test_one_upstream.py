"""examples/one-upstream: server and exit on one network, with fixed addresses."""

from __future__ import annotations

import pytest
from i1_example import SiteFactory, Watch

from ocgate.lab.addresses import PROVIDER
from ocgate.lab.capture import now
from ocgate.lab.chained import Chained, chained
from ocgate.lab.docker_host import DockerHosts
from ocgate.lab.example import PASSWORD, place
from ocgate.lab.streams import UdpStream
from ocgate.lab.topology import SERVICE
from ocgate.lab.wait import wait_until

pytestmark = pytest.mark.image

VPN_USER, VPN_PASSWORD = "your-vpn-user", "the provider's own"


def started(site: DockerHosts) -> Chained:
    """The README's steps, with a provider of the lab."""
    provider = site.run_provider({VPN_USER: VPN_PASSWORD})
    secrets = {
        "password": PASSWORD,
        "vpn_password": VPN_PASSWORD,
        "provider.ovpn": provider.config(),
    }
    return chained(site, place(site, "one-upstream", secrets), PROVIDER)


def test_nothing_leaves_while_the_exit_is_stopped_and_clients_return_with_it(
    site: SiteFactory, watch: Watch
) -> None:
    """As printed: clients are seen as the provider's. The exit is stopped: clients are rejected and
    nothing of theirs leaves anywhere; it is started again: their flows go on."""
    c = watch(started(site()))
    c.prove_leaks_are_seen()
    begun = now()
    with UdpStream(c.client.netns, SERVICE, rate=100) as stream:
        stream.wait_for(10)
        c.rejected_after("exit stopped", lambda: c.project.compose("stop", "exit"))
        rejected, lost = now(), stream.tally.lost
        wait_until(lambda: stream.tally.lost > lost + 50, 5.0, "half a second of rejections")
        c.assert_silent(stream.marker, rejected)
        received = len(stream.tally.received)
        c.measured("exit started again", lambda: c.project.compose("start", "exit"))
        stream.wait_for(received + 10)
    c.assert_nothing_leaked(begun)


def test_nothing_leaves_while_containers_are_made_anew_or_killed(
    site: SiteFactory, watch: Watch
) -> None:
    """Exit recreated, exit killed and restarted by its policy, server recreated, server killed:
    clients get out again by the exit, and nothing of theirs left by anything else meanwhile."""
    c = watch(started(site()))
    c.prove_leaks_are_seen()
    begun = now()
    with UdpStream(c.client.netns, SERVICE, rate=100) as stream:
        stream.wait_for(10)
        c.measured("exit recreated", lambda: c.project.up("exit", recreate=True))
        c.measured("exit killed (-9)", lambda: c.kill("exit"))
        c.assert_nothing_leaked(begun)
    with UdpStream(c.client.netns, SERVICE, rate=100):
        c.renew_server("server recreated, client logged in anew")
    assert c.client.events()[-1] == "connect"
    c.assert_nothing_leaked(begun)
