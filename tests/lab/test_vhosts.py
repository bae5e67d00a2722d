"""Virtual hosts as the ocserv of this machine has them: what their clients are pushed.

    client1 --- inet --- router --- gw (ocgate run on a file of ours)      see lab.topology

Our view of the operator's file says what a client of each virtual host gets, by the release of
this ocserv (`ocgate.ocserv.releases`); the clients here are the witness. Where virtual hosts
inherit, the bare program aborts on such a file, or its workers do (VHOST_LISTS_OVERRUN).
"""

from __future__ import annotations

import subprocess
from itertools import product
from pathlib import Path

import pytest

from lab import gateway
from lab.certificate import write_certificate
from lab.client import Client, Login, connect, pin_of
from lab.gateway import GatewayEnded
from lab.ocserv import write_users
from lab.topology import SERVICE, Lab
from lab.traffic import ask_udp
from ocgate.netlab.wait import wait_until
from ocgate.ocserv.dryrun import version
from ocgate.ocserv.ini_parser import parse
from ocgate.ocserv.reading import read_view
from ocgate.ocserv.releases import (
    VHOST_LISTS_OVERRUN,
    VHOSTS_INHERIT,
    VHOSTS_REFUSE_GLOBALS,
)
from ocgate.ocserv.view import Scope
from support.serving import PASSWORD, LabFactory, operators, with_services

pytestmark = pytest.mark.lab

INHERITS = VHOSTS_INHERIT.holds(version())
OWN = ("10.30.0.0/24", "10.31.0.0/24", "10.32.0.0/24", "10.33.0.0/24", "10.34.0.0/24")

MAIN = {
    "full": ["route = default"],
    "full-unsaid": [],
    "split": ["route = 10.0.0.0/8", "route = 172.16.0.0/12", "no-route = 10.9.0.0/16"],
}
# Lines of one virtual host each, besides those that make it complete.
VHOSTS = {
    "none": [],
    "split": ["route = 198.51.0.0/16"],
    "full": ["route = default"],
    "dns": ["dns = 9.9.9.9", "split-dns = b.example"],
    "holes": ["no-route = 192.168.8.0/24"],
}


def with_vhosts(etc: Path, *, complete: bool) -> None:
    """Append VHOSTS. complete: each has its own users, certificate and network."""
    write_users(etc / "passwd-b", {"bob": PASSWORD})
    lines = []
    for name, network in zip(VHOSTS, OWN, strict=True):
        lines += [f"[vhost:{name}.example]", "max-same-clients = 3"]
        if complete:
            write_certificate(etc / f"{name}.pem", etc / f"{name}.key", [])
            lines += [f'auth = "plain[passwd={etc}/passwd-b]"', f"ipv4-network = {network}"]
            lines += [f"server-cert = {etc}/{name}.pem", f"server-key = {etc}/{name}.key"]
        lines += VHOSTS[name]
    with (etc / "ocserv.conf").open("a") as file:
        file.write("\n".join(lines) + "\n")


def scope_of(etc: Path, vhost: str) -> Scope:
    conf = etc / "ocserv.conf"
    view = read_view(parse(conf.read_bytes(), str(conf)), release=version())
    return next(found for found in view.vhosts if found.name == vhost)


def joined(lab: Lab, name: str, login: Login) -> Client:
    return connect(lab, lab.clients[0], login, dtls=False, name=f"{name}.example")


def pushed(client: Client, kind: str) -> set[str]:
    """The networks of CISCO_SPLIT_INC or CISCO_SPLIT_EXC."""
    environ, variable = client.pushed, f"CISCO_SPLIT_{kind}"
    ranks = range(int(environ.get(variable) or "0"))
    return {
        f"{environ[f'{variable}_{n}_ADDR']}/{environ[f'{variable}_{n}_MASKLEN']}" for n in ranks
    }


def assert_as_viewed(client: Client, scope: Scope) -> None:
    routes = {route.value for route in scope.routes}
    assert pushed(client, "INC") == (set() if scope.full_tunnel4 else routes)
    assert pushed(client, "EXC") == {route.value for route in scope.no_routes}
    assert client.dns == [str(resolver.value) for resolver in scope.dns]
    assert client.address in scope.networks4[0].value


@pytest.mark.parametrize("main", MAIN)
@pytest.mark.parametrize("complete", [True, False], ids=["complete", "inheriting"])
def test_a_virtual_host_pushes_what_our_view_says(
    lab: LabFactory, main: str, *, complete: bool
) -> None:
    """Routes, holes, resolvers, users, certificate and network, by the release's own rules; and the
    host's sessions pass our hooks and go by the exit."""
    if not (complete or INHERITS):
        pytest.skip("needs an ocserv whose virtual hosts inherit: 1.5.0")
    built = with_services(lab())
    etc = operators(built, ("alice", "bob"), lines=MAIN[main])
    with_vhosts(etc, complete=complete)
    made = gateway.run(built, {}, etc)
    for name in VHOSTS:
        certificate = f"{name}.pem" if complete else "server-cert.pem"
        client = joined(built, name, Login("bob", PASSWORD, pin_of(etc / certificate)))
        scope = scope_of(etc, f"{name}.example")
        assert_as_viewed(client, scope)
        [session] = made.status()["sessions"]
        assert (session["user"], session["vhost"]) == ("bob", f"{name}.example")
        if scope.full_tunnel4:
            assert ask_udp(client.netns, SERVICE).seen_as == built.router.address
        client.disconnect()
        wait_until(lambda: not made.status()["sessions"], 20, "the session's end")


@pytest.mark.skipif(
    not VHOST_LISTS_OVERRUN.holds(version()), reason="needs an ocserv with that fault: 1.5.0"
)
def test_the_bare_program_aborts_on_lists_of_virtual_hosts(tmp_path: Path) -> None:
    """Why the effective file has main's lists behind them. One that takes the file here has been
    mended: give `VHOST_LISTS_OVERRUN` its end."""
    write_certificate(tmp_path / "c.pem", tmp_path / "c.key", [])
    (tmp_path / "passwd").touch()
    conf = tmp_path / "ocserv.conf"
    lines = [f'auth = "plain[passwd={tmp_path}/passwd]"', "tcp-port = 443", "device = vpns"]
    lines += [f"server-cert = {tmp_path}/c.pem", f"server-key = {tmp_path}/c.key"]
    lines += [f"socket-file = {tmp_path}/s", "ipv4-network = 10.10.10.0/24"]
    codes = []  # what is overrun, and whether that ends it, depends on the heap
    for key, mains, added in product(("route = 10.1.0.0/16", "dns = 9.9.9.9"), (1, 2, 3), (4, 90)):
        lists = [key] * mains, [key] * added
        conf.write_text("\n".join([*lines, *lists[0], "[vhost:b.example]", *lists[1]]) + "\n")
        argv = ["ocserv", "-t", "-c", str(conf)]
        codes.append(subprocess.run(argv, capture_output=True, timeout=60).returncode)
    assert min(codes) < 0, "no signal ended it"


@pytest.mark.skipif(
    not VHOSTS_REFUSE_GLOBALS.holds(version()), reason="needs ocserv 1.4.2 or newer"
)
def test_a_key_of_mains_in_a_virtual_host_is_named(lab: LabFactory) -> None:
    """File, line and key of the operator's, and exit code 2: ocserv itself names a line of ours."""
    built = lab()
    etc = operators(built)
    conf = etc / "ocserv.conf"
    with conf.open("a") as file:
        file.write("[vhost:b.example]\nipv4-network = 10.30.0.0/24\ndevice = vpns\n")
    line = len(conf.read_text().splitlines())
    with pytest.raises(GatewayEnded) as ended:
        gateway.run(built, {}, etc)
    assert ended.value.returncode == 2
    assert f"{conf}:{line}: device: got 'vpns'; expected no such line in [vhost:b.example]" in str(
        ended.value
    )
