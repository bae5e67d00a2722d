"""examples/one-upstream: server and exit on one network, with fixed addresses."""

from __future__ import annotations

import pytest

from lab.capture import now
from lab.chained_examples import one_upstream
from lab.streams import UdpStream
from lab.topology import SERVICE
from ocgate.netlab.wait import wait_until
from support.example import SiteFactory, Watch

pytestmark = pytest.mark.image


def test_nothing_leaves_while_the_exit_is_stopped_and_clients_return_with_it(
    site: SiteFactory, watch: Watch
) -> None:
    """As printed: clients are seen as the provider's. The exit is stopped: clients are rejected and
    nothing of theirs leaves anywhere; it is started again: their flows go on."""
    c = watch(one_upstream(site()))
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
    c = watch(one_upstream(site()))
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


def test_nothing_leaves_by_an_exit_that_is_up_before_its_kill_switch(site: SiteFactory) -> None:
    """The container's network forwards before `ocgate exit` runs: what the server goes on sending
    to an address and MAC that are the former exit's must not pass. docker made the MAC of the
    address until version 27, so the server's neighbour entry still fits; podman draws a new one."""
    fixed = "        ipv4_address: 172.28.0.2\n"
    c = one_upstream(site(), {fixed: f"{fixed}        mac_address: 02:42:ac:1c:00:02\n"})
    c.prove_leaks_are_seen()
    begun = now()
    with UdpStream(c.client.netns, SERVICE, rate=100) as stream:
        stream.wait_for(10)
        c.project.compose("restart", "exit")
        received = len(stream.tally.received)
        stream.wait_for(received + 100, 60.0)
    c.assert_nothing_leaked(begun)
