"""An exit whose provider is an adversary: what it reports takes nothing that is somebody else's.

neighbour1 -- docker -- exit === provider, which pushes addresses of the docker network as the
tunnel's own; a neighbour that looks for such an address must not find the exit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from t6_exit import BOTH_FAMILIES, Ground, LabFactory, frozen, ground
from test_exit_role_cascade import cascaded, opened, server

from ocgate.lab.addresses import DOCKER_NET, DOCKER_NET6, PROVIDER
from ocgate.lab.capture import now
from ocgate.lab.inject import mac_of, onto_link
from ocgate.lab.listening import udp_port_of
from ocgate.lab.odd_packets import redirect4
from ocgate.lab.openvpn import OPENVPN_PORT
from ocgate.lab.topology import SERVICE6
from ocgate.lab.traffic import Verdict, ask_udp, ping
from ocgate.lab.wait import wait_until
from ocgate.names import TUNNEL_DEVICE, TUNNEL_UID
from ocgate.plan.facts import Address

pytestmark = pytest.mark.lab

STOLEN, STOLEN6 = DOCKER_NET[66], DOCKER_NET6[66]  # nobody's in the lab


def pushing(directory: Path, *lines: str) -> tuple[str, ...]:
    """Options of an OpenVPN server that gives its clients these, whatever its network is."""
    directory.mkdir(exist_ok=True)
    (directory / "DEFAULT").write_text("".join(f"{line}\n" for line in lines))
    return ("--client-config-dir", str(directory))


def answered_by_the_exit(g: Ground, address: Address) -> bool:
    """Does a neighbour that looks for the address find the exit?"""
    netns = g.user.netns
    netns.run(["ip", "neigh", "flush", "to", str(address)], check=False)
    ping(netns, address, timeout=0.3)
    known = netns.run(["ip", "neigh", "show", "to", str(address)]).stdout
    return "lladdr" in known


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
    g.exit.wait_state("up")
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


def test_forged_redirects_do_not_turn_the_endpoint_to_a_neighbour(lab: LabFactory) -> None:
    """Also where docker's `ip_forward=0` has made the kernel take redirects: the packet filter
    drops and counts them; without it the device's own setting refuses. The control: without both
    they are believed."""
    g = ground(lab)
    netns, address = g.exit.netns, str(DOCKER_NET[3])
    netns.sysctl("net/ipv4/conf/all/accept_redirects", 1)
    forged = redirect4(
        str(g.user.address),
        address,
        router=str(DOCKER_NET[1]),
        about=(str(PROVIDER), OPENVPN_PORT),
        port=udp_port_of(netns, TUNNEL_UID),  # of the tunnel's own flow: conntrack knows no other
    )

    def redirected() -> bool:
        netns.ip("route flush cache")
        for _ in range(3):
            onto_link(g.user.netns, "eth0", mac_of(netns, "eth0"), forged)
        ping(g.user.netns, DOCKER_NET[3], timeout=1.0)  # behind them in the queue
        return "cache <redirected>" in netns.run(["ip", "route", "get", str(PROVIDER)]).stdout

    assert not redirected()
    assert g.blocked("redirects") == 3
    with frozen(g.exit):
        netns.nft("flush ruleset")
        assert not redirected()
        netns.sysctl("net/ipv4/conf/eth0/accept_redirects", 1)
        assert redirected()
        netns.ip("route flush cache")
    wait_until(g.intact, 5.0, "the kill switch to be back")
    assert netns.sysctl("net/ipv4/conf/eth0/accept_redirects") == "0"
