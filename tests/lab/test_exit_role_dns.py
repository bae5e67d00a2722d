"""An exit whose DNS is forged: whatever it answers, the tunnel's client sends to nobody near.

neighbour1 -- docker -- exit      its server's name, by any kind, leads to neighbour1, to a
                                  cloud's metadata service, to everybody, to the exit itself
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from ipaddress import ip_address

import pytest

from lab import exit_role
from lab.addresses import DOCKER_NET, DOCKER_NET6, PROVIDER
from lab.capture import Capture, now
from lab.topology import RESOLVER
from ocgate.netlab.dns import DnsServer
from ocgate.netlab.packet import Packet, Predicate
from ocgate.netlab.wait import wait_until
from ocgate.plan.facts import Address
from support.exit_node import Ground, LabFactory, ground, write_config
from tests.lab.test_exit_role_wireguard import Turn, keys, missing

pytestmark = pytest.mark.lab


NAME = "vpn.example"
RESOLV_CONF = f"nameserver {RESOLVER}\n"
NEIGHBOUR, NEIGHBOUR6 = DOCKER_NET[20], DOCKER_NET6[20]

Kind = Callable[[Ground], Mapping[str, str]]

FORGED: tuple[tuple[Address, str], ...] = (
    (NEIGHBOUR, f"it lies in {DOCKER_NET}, a network that this host is attached to"),
    (DOCKER_NET[1], f"it lies in {DOCKER_NET}, a network that this host is attached to"),
    (DOCKER_NET[3], "it is this host's own"),
    (DOCKER_NET[255], f"it lies in {DOCKER_NET}, a network that this host is attached to"),
    (ip_address("169.254.169.254"), "it is an address of the link alone"),
    (ip_address("224.0.0.1"), "it is a multicast address"),
    (ip_address("255.255.255.255"), "it is reserved, and no host's"),
    (ip_address("127.0.0.1"), "it is a loopback address"),
    (ip_address("0.0.0.0"), "it means this network, and no host"),
    (ip_address("10.20.30.40"), "it is a private address"),
    (NEIGHBOUR6, f"it lies in {DOCKER_NET6}, a network that this host is attached to"),
    (ip_address("::1"), "it is a loopback address"),
    (ip_address("fe80::1"), "it is an address of the link alone"),
    (ip_address("ff02::1"), "it is a multicast address"),
    (ip_address("::ffff:172.28.0.20"), "it is an IPv4 address in IPv6's writing"),
    (ip_address("fd00:20::30"), "it is a private address"),
)


def openvpn(g: Ground) -> Mapping[str, str]:
    config = g.provider.config().replace(f"remote {PROVIDER}", f"remote {NAME}")
    return {"OVPN_CONFIG": str(write_config(g.lab, config))}


def openconnect(_: Ground) -> Mapping[str, str]:
    pin = "pin-sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    return {"URL": f"https://{NAME}", "USER": "node", "PASS": "secret", "SERVERCERT": pin}


def wireguard(g: Ground) -> Mapping[str, str]:
    if missing():
        pytest.skip("needs wireguard-go and wg")
    g.lab.own(Turn())
    path = g.lab.path("wg0.conf")
    path.write_text(
        f"[Interface]\nPrivateKey = {keys()[0]}\nAddress = 10.9.0.2/32\n"
        f"[Peer]\nPublicKey = {keys()[1]}\nEndpoint = {NAME}:51820\nAllowedIPs = 0.0.0.0/0\n"
    )
    return {"WG_CONFIG": str(path)}


def sent_to(address: Address) -> Predicate:
    """By the tunnel's client: neither the resolver's packets nor neighbour discovery."""

    def predicate(packet: Packet) -> bool:
        return packet.outgoing and packet.dst == address and packet.protocol in ("tcp", "udp")

    return predicate


def restarted(g: Ground, environ: Mapping[str, str], hosts: str = "") -> None:
    g.exit.stop()
    g.exit = exit_role.start(
        g.lab, environ, resolv_conf=RESOLV_CONF, hosts=f"127.0.0.1 localhost\n{hosts}"
    )


@pytest.mark.parametrize("kind", [openvpn, openconnect, wireguard])
def test_a_forged_answer_sends_the_client_to_nobody(kind: Kind, lab: LabFactory) -> None:
    """Each answer is refused, and status says which and what to do. The control: an operator who
    gives the name that very address gets there."""
    g = ground(lab)
    dns = g.lab.own(DnsServer(g.lab.inet.netns, (RESOLVER,), {NAME: (NEIGHBOUR,)}, ttl=0))
    environ = kind(g)
    eth0: Capture = g.lab.capture(g.lab.upstream, "eth0")

    since = now()
    restarted(g, environ, hosts=f"{NEIGHBOUR} {NAME}\n")
    wanted = sent_to(NEIGHBOUR)
    eth0.prove_sees(wanted, "the client's first packet", since=since, timeout=20.0)

    restarted(g, environ)
    g.exit.wait_said("no tunnel")
    since = now()
    for address, why in FORGED:
        dns.table[NAME] = (address,)
        g.exit.ask("reload")
        said = f"{NAME} resolves to {address} ({why})"
        failure = lambda: str(g.exit.status()["tunnel"]["last_failure"])  # noqa: E731
        wait_until(lambda: said in failure(), 20.0, said)  # noqa: B023
        assert "--add-host NAME:ADDRESS" in failure()
        assert any(said in reason for reason in g.exit.status()["reasons"])
    for address, _ in FORGED:
        eth0.assert_none(sent_to(address), f"the client at {address}", since=since)

    dns.table[NAME] = (PROVIDER,)
    since = now()
    wanted = sent_to(PROVIDER)
    with contextlib.suppress(TimeoutError):  # WireGuard's handshake is waited for, which none does
        g.exit.ask("reload", timeout=1.0)
    eth0.wait_for(wanted, "the honest server's first packet", since=since, timeout=20.0)
