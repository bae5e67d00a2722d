"""examples/cascade: node A's exit is an OpenConnect client of node B, on another docker host.

client1 === inet === host1 -- server -- exit        (near, node A)
             |                           ║ OpenConnect
             +===== host2 -- ocgate ═════╝          (far, node B)
"""

from __future__ import annotations

import pytest

from lab.capture import now
from lab.chained_examples import cascade
from lab.docker_host import Machines
from lab.streams import UdpStream
from lab.topology import SERVICE
from support.example import SiteFactory, Watch

pytestmark = pytest.mark.image


def test_clients_of_the_near_node_leave_by_the_far_one(site: SiteFactory, watch: Watch) -> None:
    """As printed. The far node is stopped: clients are rejected and nothing of theirs leaves the
    near host; it is started again: they get out, in the same session."""
    there, c = cascade(site(Machines(hosts=2)))
    watch(c)
    c.prove_leaks_are_seen()
    begun = now()
    with UdpStream(c.client.netns, SERVICE, rate=100) as stream:
        stream.wait_for(10)
        c.rejected_after("far node stopped", lambda: there.compose("stop", "ocgate"))
        c.measured("far node started again", lambda: there.compose("start", "ocgate"))
        c.measured("exit recreated", lambda: c.project.up("exit", recreate=True))
        c.measured("exit killed (-9)", lambda: c.kill("exit"))
    assert c.client.events() == ["pre-init", "connect"]
    c.assert_nothing_leaked(begun)
