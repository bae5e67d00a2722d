"""What each process of a running server and exit may do, asked of the kernel: the table in
docs/security.md. Exits by OpenConnect and WireGuard: test_exit_role_cascade,
test_exit_role_wireguard.

client1 === gw          neighbour1 -- exit === OpenVPN === provider
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import privileges
from lab.topology import SERVICE
from lab.traffic import ask_udp
from ocgate.netlab.namespace import Namespace
from support.exit_node import ground
from support.serving import LabFactory, serve, with_services

pytestmark = pytest.mark.lab


def processes(netns: Namespace) -> list[Path]:
    return [Path("/proc", str(pid)) for pid in netns.pids()]


@pytest.mark.parametrize("isolated", ["true", None, "false"])
def test_each_process_of_a_server_holds_what_it_needs(
    lab: LabFactory, isolated: str | None
) -> None:
    """With a client whose packets pass. Where the operator says nothing of `isolate-workers`, we
    say true; with his false, too, workers hold nothing and gain nothing, but have no seccomp
    filter."""
    served = serve(with_services(lab()), settings={"isolate-workers": isolated})
    table = dict(privileges.SERVER)
    if isolated == "false":
        table["worker"] = privileges.Row(None, privileges.NONE, privileges.CONTAINER)
    served.connect()
    assert ask_udp(served.lab.clients[0].netns, SERVICE)
    assert privileges.deviations(processes(served.gateway.netns), table) == []


def test_a_tunnel_s_client_can_never_get_a_privilege(lab: LabFactory) -> None:
    """OpenVPN: no capability, none that bounds it, no_new_privs; the others as they need."""
    g = ground(lab)
    assert g.leaves_by_the_provider()
    assert privileges.deviations(processes(g.exit.netns), privileges.EXIT) == []
