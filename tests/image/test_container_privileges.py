"""What each process in a container of the image may do, asked of the kernel: the same tables as in
the lab (test_least_privilege there), with what an engine gives.

client1 === inet === host1 -- bridge -- ocgate
"""

from __future__ import annotations

import pytest

from lab import privileges
from lab.chained_examples import cascade, one_upstream
from lab.compose import Project
from lab.docker_host import Machines
from lab.example import leaves_by
from lab.podman import Engine
from ocgate.netlab.wait import wait_until
from support.container import LEAST, NAME, NEEDED, Container, processes_of, status_of
from support.example import SiteFactory

pytestmark = pytest.mark.image

DROPPED = (*("--cap-drop", "ALL"), *(w for name in LEAST for w in ("--cap-add", name)))

# An exit by wireguard-go whose server does not answer.
EXIT = (*NEEDED[:4], "--sysctl", "net.ipv4.ip_forward=0", "-e", "FORWARD_FROM=10.88.0.0/16")
DEAD = """[Interface]
PrivateKey = QJ4tQ9Dj6cQk0w0S4uW1bDOQZ0c0yS3m0z7X8b6v2Hc=
Address = 10.9.0.2/32
[Peer]
PublicKey = 3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=
Endpoint = 192.0.2.77:51820
AllowedIPs = 0.0.0.0/0
"""


def given(engine: Engine, container: str) -> frozenset[str]:
    """What the engine gives to root in it."""
    names = engine.inspect(container)["EffectiveCaps"]
    return frozenset(name.removeprefix("CAP_").lower() for name in names)


def deviations(project: Project, service: str, table: dict[str, privileges.Row]) -> list[str]:
    container = project.container(service)
    found = processes_of(project.engine, container)
    return privileges.deviations(found, table, given(project.engine, container))


@pytest.mark.parametrize(
    "options",
    [(), (*DROPPED, "--cap-add", "SETPCAP"), ("--privileged",)],
    ids=["as given", "least", "privileged"],
)
def test_each_process_of_a_server_holds_what_it_needs(
    site: SiteFactory, options: tuple[str, ...]
) -> None:
    """No more in a container that is given everything; and all are behind the engine's own seccomp
    filter, unless it is told not to."""
    container = Container(site(), *NEEDED, *options).wait_serving()
    client = container.join(container.login(password=container.printed("Password")))
    assert leaves_by(client) is not None
    holds = given(container.engine, NAME)
    assert "net_admin" in holds, "positive control"
    assert privileges.deviations(container.processes(), privileges.SERVER, holds) == []
    if "--privileged" not in options:
        assert {status_of(process, "Seccomp") for process in container.processes()} == {"2"}


def test_without_setpcap_nobody_gains_a_privilege(site: SiteFactory) -> None:
    """All that is root's holds the container's list, and nobody else a thing."""
    container = Container(site(), *NEEDED, *DROPPED).wait_serving()
    container.join(container.login(password=container.printed("Password")))
    holds = given(container.engine, NAME)
    assert "setpcap" not in holds, "positive control"
    wide = {
        name: privileges.Row(
            row.uid, holds if row.uid == 0 else privileges.NONE, holds, row.seccomp
        )
        for name, row in privileges.SERVER.items()
    }
    assert privileges.deviations(container.processes(), wide, holds) == []


def test_an_exit_by_openvpn_and_its_server(site: SiteFactory) -> None:
    c = one_upstream(site())
    assert deviations(c.project, "exit", dict(privileges.EXIT)) == []
    assert deviations(c.project, c.server, dict(privileges.SERVER)) == []


def test_an_exit_by_openconnect(site: SiteFactory) -> None:
    _, near = cascade(site(Machines(hosts=2)))
    assert deviations(near.project, "exit", dict(privileges.EXIT)) == []


def test_wireguard_go_needs_no_capability_in_a_container(site: SiteFactory) -> None:
    """It starts, on a device that is not its own, and tries to shake hands."""
    built = site(Machines(clients=0))
    config = built.path("wg0.conf")
    config.write_text(DEAD)
    mount = ("-v", f"{config}:/run/secrets/wg0.conf:ro", "-e", "WG_CONFIG=/run/secrets/wg0.conf")
    container = Container(built, *EXIT, *mount, command=("exit",))
    last: list[str] = []

    def as_it_should_be() -> bool:
        last[:] = privileges.deviations(container.processes(), privileges.EXIT, holds)
        return not last

    holds = given(container.engine, NAME)
    try:
        wait_until(as_it_should_be, 30, "the table")
    except AssertionError as error:
        raise AssertionError(f"{error}: {last}; it said:\n{container.logs()}") from error
