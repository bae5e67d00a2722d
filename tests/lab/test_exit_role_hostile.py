"""An exit whose provider is an adversary: what it reports takes nothing that is somebody else's.

neighbour1 -- docker -- exit === provider, which pushes addresses of the docker network as the
tunnel's own; a neighbour that looks for such an address must not find the exit.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from lab.addresses import DOCKER_NET, DOCKER_NET6, PORT, PROVIDER, PROVIDER6
from lab.capture import now
from lab.openvpn import OPENVPN_PORT
from lab.topology import SERVICE, SERVICE6
from lab.traffic import Verdict, ask_udp, ping
from ocgate.names import TUNNEL_DEVICE
from ocgate.netlab.inject import mac_of, onto_link
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.odd_packets import redirect4, redirect6_of
from ocgate.netlab.packet import match
from ocgate.netlab.wait import wait_until
from support.exit_node import (
    BOTH_FAMILIES,
    STOLEN,
    STOLEN6,
    Ground,
    LabFactory,
    answered_by_the_exit,
    frozen,
    ground,
)
from tests.lab.test_exit_role_cascade import cascaded, opened, server
from tests.lab.test_exit_role_wireguard import WG_PORT, by_wireguard, missing, replaced

pytestmark = pytest.mark.lab


def pushing(directory: Path, *lines: str) -> tuple[str, ...]:
    """Options of an OpenVPN server that gives its clients these, whatever its network is."""
    directory.mkdir(exist_ok=True)
    (directory / "DEFAULT").write_text("".join(f"{line}\n" for line in lines))
    return ("--client-config-dir", str(directory))


def prove_it_would_be_found(g: Ground) -> None:
    """The second layer, and the positive control: with the address on the tunnel's device the
    kernel does not answer for it, and without arp_ignore it does."""
    with frozen(g.exit):
        g.exit.netns.ip(f"addr add {STOLEN}/32 dev {TUNNEL_DEVICE}")
        assert not answered_by_the_exit(g, STOLEN)
        g.exit.netns.sysctl("net/ipv4/conf/eth0/arp_ignore", 0)
        assert answered_by_the_exit(g, STOLEN)
        g.exit.netns.ip(f"addr del {STOLEN}/32 dev {TUNNEL_DEVICE}")


@pytest.mark.parametrize(
    ("pushed", "environ", "why"),
    [
        (str(STOLEN), {}, f"it lies in {DOCKER_NET}, a network that this host is attached to"),
        (str(DOCKER_NET[3]), {}, "this host has it on another device"),
        ("10.77.0.9", {"FORWARD_FROM": f"{DOCKER_NET},10.77.0.0/16"}, "of FORWARD_FROM"),
        ("192.168.7.9", {"NETWORK": "192.168.7.0/24"}, "of NETWORK"),
        ("169.254.169.254", {}, "it is an address of the link alone"),
    ],
    ids=["a neighbour's", "the exit's own", "a client's", "a local network's", "the cloud's"],
)
def test_an_address_that_is_somebody_elses_is_not_taken(
    pushed: str, environ: Mapping[str, str], why: str, lab: LabFactory, tmp_path: Path
) -> None:
    """With nothing else left there is no tunnel, and it is said why; users are rejected."""
    hostile = pushing(
        tmp_path / "ccd", f"ifconfig-push {pushed} 255.255.255.0", "push-remove ifconfig-ipv6"
    )
    g = ground(lab, environ=environ, server=hostile, wait=False)
    g.exit.wait_said("nothing of what the tunnel's server gave can be used")
    wait_until(lambda: why in str(g.exit.status()["tunnel"]["last_failure"]), 10.0, why)
    assert g.exit.netns.run(["ip", "-4", "addr", "show", "dev", TUNNEL_DEVICE]).stdout == ""
    assert not answered_by_the_exit(g, STOLEN)
    assert g.rejected_at_once()
    prove_it_would_be_found(g)


def test_of_two_families_the_honest_one_is_carried(lab: LabFactory, tmp_path: Path) -> None:
    """IPv6 is refused and its users are rejected; IPv4 goes on. Health and status say it."""
    hostile = pushing(tmp_path / "ccd", f"ifconfig-ipv6-push {STOLEN6}/64")
    g = ground(lab, environ=BOTH_FAMILIES, server=hostile, wait=False)
    g.exit.wait_said("Initialization Sequence Completed")  # its hook has returned: it is opened
    g.prove_leaks_are_seen()
    since = now()
    assert g.leaves_by_the_provider()
    assert ask_udp(g.user.netns, SERVICE6).verdict is Verdict.REJECTED
    assert not answered_by_the_exit(g, STOLEN6)
    status = g.exit.status()
    why = f"address {STOLEN6}: it lies in {DOCKER_NET6}, a network that this host is attached to"
    assert why in status["tunnel"]["refused"]
    assert any(why in reason for reason in status["reasons"])
    g.assert_nothing_by_isp(since)


def test_a_network_that_is_attached_later_takes_the_tunnels_address_back(lab: LabFactory) -> None:
    """Docker gives the exit another network, which holds the tunnel's own address: users are
    rejected and told why; all is back when it is gone."""
    g = ground(lab)
    g.prove_leaks_are_seen()
    since = now()
    g.exit.netns.ip("addr add 10.8.0.77/24 dev eth0")
    reasons = lambda: " ".join(g.exit.status().get("reasons", ()))  # noqa: E731
    wait_until(lambda: "it lies in 10.8.0.0/24" in reasons(), 5.0, "the reason")
    assert g.rejected_at_once()
    g.exit.netns.ip("addr del 10.8.0.77/24 dev eth0")
    g.exit.wait_healthy()
    wait_until(g.leaves_by_the_provider, 5.0, "the tunnel again")
    g.assert_nothing_by_isp(since)


def test_an_openconnect_server_takes_no_address_either(lab: LabFactory) -> None:
    g = ground(lab)
    ocserv = server(g, {"ipv4-network": f"{DOCKER_NET}", "ipv6-network": None})
    cascaded(g, ocserv.login("node").pin).wait_said(
        "nothing of what the tunnel's server gave can be used"
    )
    why = f"it lies in {DOCKER_NET}, a network that this host is attached to"
    wait_until(lambda: why in str(g.exit.status()["tunnel"]["last_failure"]), 30.0, why)
    assert g.rejected_at_once()


def test_an_openconnect_server_takes_no_ipv6_address_either(lab: LabFactory) -> None:
    """Its IPv4 is honest, and goes on."""
    g = ground(lab)
    g.prove_leaks_are_seen()
    ocserv = server(g, {"ipv6-network": f"{DOCKER_NET6}"})
    g.allowed += opened()  # type: ignore[arg-type]
    since = now()
    cascaded(g, ocserv.login("node").pin, **BOTH_FAMILIES).wait_state("up")
    shown = g.exit.netns.run(["ip", "-6", "addr", "show", "dev", TUNNEL_DEVICE, "scope", "global"])
    assert shown.stdout == ""
    wait_until(g.leaves_by_the_provider, 5.0, "IPv4 by the tunnel")
    assert ask_udp(g.user.netns, SERVICE6).verdict is Verdict.REJECTED
    why = f"it lies in {DOCKER_NET6}, a network that this host is attached to"
    assert any(why in refused for refused in g.exit.status()["tunnel"]["refused"])
    g.assert_nothing_by_isp(since)


# --- a neighbour ----------------------------------------------------------------------------------


Kind = Callable[[Ground], None]


def openvpn(_: Ground) -> None:
    """As it is."""


def openconnect(g: Ground) -> None:
    cascaded(g, server(g).login("node").pin).wait_healthy()


def by_wg(g: Ground) -> None:
    if missing():
        pytest.skip("needs wireguard-go and wg")
    by_wireguard(g, replaced(g))
    g.exit.wait_healthy(30.0)


KINDS = [(openvpn, OPENVPN_PORT), (openconnect, PORT), (by_wg, WG_PORT)]
of_each_kind = pytest.mark.parametrize(
    ("kind", "port"), KINDS, ids=["openvpn", "openconnect", "wireguard"]
)


@of_each_kind
def test_forged_redirects_do_not_turn_the_endpoint_to_a_neighbour(
    kind: Kind, port: int, lab: LabFactory
) -> None:
    """Also where docker's `ip_forward=0` has made the kernel take redirects: the packet filter
    drops and counts them; without it the device's own setting refuses. The control: without both
    they are believed."""
    g = ground(lab)
    kind(g)
    netns, address = g.exit.netns, str(DOCKER_NET[3])
    netns.sysctl("net/ipv4/conf/all/accept_redirects", 1)
    about = (str(PROVIDER), port)
    forged = redirect4(str(g.user.address), address, router=str(DOCKER_NET[1]), about=about)
    to_neighbour = match(dst=PROVIDER)
    seen = g.lab.capture(g.user, "eth0")
    since = now()

    def redirected() -> bool:
        netns.ip("route flush cache")
        with netns.entered():
            talk = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with talk:  # as the forged one quotes it
            talk.bind((address, 40000))
            talk.connect(about)
            for _ in range(3):
                onto_link(g.user.netns, "eth0", mac_of(netns, "eth0"), forged)
            ping(g.user.netns, DOCKER_NET[3], timeout=1.0)  # behind them in the queue
        return "cache <redirected>" in netns.run(["ip", "route", "get", str(PROVIDER)]).stdout

    assert not redirected()
    assert g.blocked("redirects") == 3
    assert g.leaves_by_the_provider()
    with frozen(g.exit):
        netns.nft("flush ruleset")
        assert not redirected()
        assert not seen.packets(to_neighbour, since=since)
        netns.sysctl("net/ipv4/conf/eth0/accept_redirects", 1)

        def turned() -> bool:
            """Once more where the tunnel's packet went by the way that it had before."""
            told = redirected()
            ask_udp(g.user.netns, SERVICE, timeout=0.5)
            return told and bool(seen.packets(to_neighbour, since=since))

        wait_until(turned, 20.0, "the tunnel to be turned")
        seen.prove_sees(to_neighbour, "the tunnel's own packets", since=since)
        netns.ip("route flush cache")
    wait_until(g.intact, 5.0, "the kill switch to be back")
    assert netns.sysctl("net/ipv4/conf/eth0/accept_redirects") == "0"


@of_each_kind
def test_forged_ipv6_redirects_do_not_either(kind: Kind, port: int, lab: LabFactory) -> None:
    """A default route by the router's link-local address, as advertisements make it, on a device
    that does not forward IPv6. Likewise in three steps."""
    g = ground(lab)
    kind(g)
    netns, server6 = g.exit.netns, str(PROVIDER6)
    netns.sysctl("net/ipv6/conf/all/forwarding", 0)
    router, neighbour = link_local(g.lab.router.netns, "docker"), link_local(g.user.netns, "eth0")
    netns.ip(f"route replace ::/0 via {router} dev eth0")
    wait_until(g.intact, 5.0, "the kill switch to know the route")
    forged = redirect6_of(router, str(DOCKER_NET6[3]), neighbour, server6)

    def forge() -> None:
        for _ in range(3):
            onto_link(g.user.netns, "eth0", mac_of(netns, "eth0"), forged)
        ping(g.user.netns, DOCKER_NET6[3], timeout=1.0)  # behind them in the queue

    def redirected() -> bool:
        netns.run(["ip", "-6", "route", "flush", "cache"])
        forge()
        return f"via {neighbour}" in netns.run(["ip", "-6", "route", "get", server6]).stdout

    forge()
    assert g.blocked("redirects") == 3
    with frozen(g.exit):
        netns.nft("flush ruleset")
        # As for an endpoint: to nobody else the exit's own rules let this host by main's default.
        netns.ip(f"rule add pref 5 to {server6} lookup main", v6=True)
        assert not redirected()
        netns.sysctl("net/ipv6/conf/eth0/accept_redirects", 1)
        assert redirected()
        netns.run(["ip", "-6", "route", "flush", "cache"])
        netns.ip(f"rule del pref 5 to {server6} lookup main", v6=True)
    wait_until(g.intact, 5.0, "the kill switch to be back")
    assert netns.sysctl("net/ipv6/conf/eth0/accept_redirects") == "0"


def link_local(netns: Namespace, device: str) -> str:
    """Its address of the link."""
    found = netns.run(["ip", "-6", "-o", "addr", "show", "dev", device, "scope", "link"]).stdout
    return found.split("inet6 ")[1].partition("/")[0]
