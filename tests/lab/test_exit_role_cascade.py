"""An exit whose tunnel is OpenConnect to an ocserv, ours or anybody's: see support.exit_node.

neighbour1 -- exit === TLS and DTLS, port 443 === ocserv at the provider's address --- services
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lab import exit_role, privileges
from lab import gateway as gateways
from lab.addresses import PROVIDER
from lab.capture import now
from lab.exit_role import ExitRole
from lab.ocserv import VPN_NET, Ocserv, hand_made_nat, write_config_dir
from lab.topology import PORT, SERVICE
from lab.traffic import ask_tcp, ask_udp
from ocgate.netlab.packet import any_of, match
from ocgate.netlab.wait import wait_until
from ocgate.ocserv.dryrun import version
from support.exit_node import Crash, Ground, LabFactory, ground

pytestmark = pytest.mark.lab

USERS = {"node": "a long secret of a node"}
SECRET = "wallpaper"


def server(g: Ground, settings: Mapping[str, str | None] | None = None) -> Ocserv:
    """Bare ocserv at the provider, in the place of its OpenVPN server."""
    g.provider.close()
    directory = g.lab.path("ocserv")
    socket = {"occtl-socket-file": str(directory / "occtl.sock")}
    conf = write_config_dir(g.lab, directory, USERS, settings={**socket, **(settings or {})})
    host = g.lab.provider
    host.netns.sysctl("net/ipv4/ip_forward", 1)
    host.netns.nft(hand_made_nat([VPN_NET]))
    return Ocserv(g.lab, host, conf, USERS)


def cascaded(g: Ground, pin: str, url: str = f"https://{PROVIDER}", **environ: str) -> ExitRole:
    """The ground's exit again, by this URL."""
    g.exit.stop()
    login = {"USER": "node", "PASS": USERS["node"]}
    given = {"URL": url, "SERVERCERT": pin, **login, **environ}
    g.exit = exit_role.start(g.lab, given)
    return g.exit


def opened(to: IPv4Address = PROVIDER) -> list[object]:
    """TLS and DTLS of the endpoint."""
    return [match(dst=to, protocol=protocol, dport=PORT) for protocol in ("tcp", "udp")]


@pytest.mark.releases
def test_openconnect_to_an_ocserv_carries_the_network_and_nothing_leaks(lab: LabFactory) -> None:
    g = ground(lab)
    g.prove_leaks_are_seen()
    served = server(g)
    g.allowed += opened()  # type: ignore[arg-type]
    since = now()
    cascaded(g, served.login("node").pin).wait_healthy()
    status = g.exit.status()["tunnel"]
    assert (status["kind"], status["endpoint"]) == ("openconnect", f"{PROVIDER}:443/tcp+udp")
    assert status["resolvers"] == ["198.51.100.53"]
    assert g.leaves_by_the_provider()
    dtls = any_of(match(dst=PROVIDER, protocol="udp", dport=PORT))
    g.uplink.prove_sees(dtls, "DTLS", since=since)
    g.assert_nothing_by_isp(since)


def test_openconnect_can_never_get_a_privilege(lab: LabFactory) -> None:
    """No capability, none that bounds it, no_new_privs; with TLS and DTLS up."""
    g = ground(lab)
    cascaded(g, server(g).login("node").pin).wait_healthy()
    assert g.leaves_by_the_provider()
    found = [Path("/proc", str(pid)) for pid in g.exit.netns.pids()]
    assert privileges.deviations(found, privileges.EXIT) == []


def test_a_killed_openconnect_is_replaced_and_a_dead_server_waited_for(lab: LabFactory) -> None:
    g = ground(lab)
    g.prove_leaks_are_seen()
    served = server(g)
    g.allowed += opened()  # type: ignore[arg-type]
    since = now()
    exit_ = cascaded(g, served.login("node").pin)
    exit_.wait_healthy()
    before = exit_.client_pid()
    exit_.kill_client()
    wait_until(lambda: exit_.client_pid() not in (None, before), 10.0, "another client")
    exit_.wait_healthy()
    assert g.leaves_by_the_provider()
    served.close()
    wait_until(lambda: exit_.state() in ("waiting", "connecting"), 60.0, "the loss")
    wait_until(g.rejected_at_once, 5.0, "the switch to be closed")  # the state is told first
    Ocserv(g.lab, g.lab.provider, served.config_dir / "ocserv.conf", USERS)
    exit_.wait_healthy(60.0)
    assert g.leaves_by_the_provider()
    g.assert_nothing_by_isp(since)


def test_a_wrong_password_and_a_wrong_certificate_are_told_apart(lab: LabFactory) -> None:
    g = ground(lab)
    served = server(g)
    pin = served.login("node").pin
    exit_ = cascaded(g, pin, PASS="wrong")
    exit_.wait_state("waiting")
    assert exit_.status()["tunnel"]["last_failure"] == "the server refused user and password"
    other = "pin-sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    exit_ = cascaded(g, other)
    exit_.wait_state("waiting")
    assert "SERVERCERT" in exit_.status()["tunnel"]["last_failure"]


def test_two_ocgate_nodes_in_cascade(lab: LabFactory) -> None:
    """The exit's server is `ocgate run` itself: the user leaves by that node's uplink."""
    g = ground(lab)
    g.prove_leaks_are_seen()
    directory = g.lab.path("etc")
    write_config_dir(g.lab, directory, USERS)
    node = gateways.run(g.lab, {}, directory)
    g.lab.own(Crash(node))
    pin = node.login("node", USERS["node"]).pin
    cascaded(g, pin, url=f"https://{g.lab.gw.address}").wait_healthy()
    # The node's uplink is the router, whose address the service sees; the exit's own would be, too,
    # so that it went by the node is shown by its session, and on the wire.
    assert [s["user"] for s in node.status()["sessions"]] == ["node"]
    before = node.status()["sessions"][0]["bytes_in"]
    assert ask_udp(g.user.netns, SERVICE)
    assert ask_tcp(g.user.netns, SERVICE)
    assert node.status()["sessions"][0]["bytes_in"] > before


@pytest.mark.skipif(version() < (1, 2, 0), reason="camouflage came with ocserv 1.2")
def test_a_camouflaged_server_lets_in_who_knows_the_word(lab: LabFactory) -> None:
    g = ground(lab)
    served = server(g, {"camouflage": "true", "camouflage_secret": f'"{SECRET}"'})
    pin = served.login("node").pin
    exit_ = cascaded(g, pin, url=f"https://{PROVIDER}/?{SECRET}")
    exit_.wait_healthy()
    assert g.leaves_by_the_provider()
    assert SECRET not in exit_.output
    shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert SECRET not in shown
