"""Configurations to prove: an operator's config dir and the network it runs in, as facts."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

from lab import gateway as gateways
from lab.certificate import write_certificate
from lab.ocserv import SETTINGS, write_users
from ocgate.netlab import namespace
from ocgate.netlab.program import BASE_ENVIRON
from ocgate.plan.facts import Connected, DefaultRoute, Facts, Interface
from ocgate.prove import configuration
from ocgate.prove.fault import Fault
from ocgate.prove.faults import chosen, matrix, possible
from ocgate.prove.outcome import Proof
from ocgate.prove.world import Furnish

# gw has the docker network with the host's default route, and a second one without any.
_LINKS = (
    ("eth0", 1500, ("172.28.0.10/24", "2001:db8:28::10/64")),
    ("eth1", 1400, ("172.29.0.10/24", "2001:db8:29::10/64")),
)
ON_WAN, ON_WAN6 = "172.28.0.2", "2001:db8:28::2"
ON_ITS_OWN = "172.29.0.2"


class Ipv6(Enum):
    """What a machine has of it."""

    WORKS = "works"
    NO_ROUTE = "no default route"
    OFF = "disable_ipv6=1"


def facts(ipv6: Ipv6 = Ipv6.WORKS, *, container: bool = True) -> Facts:
    """A container on two networks, or a machine with two interfaces."""
    links = [Interface(1, "lo", 65536, up=True, addresses=(), loopback=True)]
    connected = []
    for index, (name, mtu, addresses) in enumerate(_LINKS, 2):
        usable = [text for text in addresses if ":" not in text or ipv6 is not Ipv6.OFF]
        held = tuple(ip_interface(text) for text in usable)
        links.append(Interface(index, name, mtu, up=True, addresses=held))
        connected += [Connected(ip_network(text, strict=False), name) for text in usable]
    route6 = DefaultRoute(6, 1024, 2, "eth0", ip_address("2001:db8:28::1"))
    off = "1" if ipv6 is Ipv6.OFF else "0"
    return Facts(
        tuple(links),
        (DefaultRoute(4, 0, 2, "eth0", ip_address("172.28.0.1")),),
        (route6,) if ipv6 is Ipv6.WORKS else (),
        tuple(connected),
        {f"net.ipv6.conf.{scope}.disable_ipv6": off for scope in ("all", "default")},
        own_namespace=container,
    )


def write_configuration(directory: Path) -> None:
    """An operator's /etc/ocserv with one user."""
    certificate, key = directory / "server-cert.pem", directory / "server-key.pem"
    write_certificate(certificate, key, [ip_address("172.28.0.10")])
    write_users(directory / "ocpasswd", {"alice": "a secret"})
    lines = {
        "auth": f'"plain[passwd={directory}/ocpasswd]"',
        "server-cert": str(certificate),
        "server-key": str(key),
        "socket-file": str(directory / "ocserv.sock"),
        **SETTINGS,
    }
    written = [f"{key} = {value}" for key, value in lines.items()]
    (directory / "ocserv.conf").write_text("\n".join([*written, "route = default"]) + "\n")


def first_start(directory: Path, on: Facts) -> None:
    """`ocgate init` on an empty config dir, in a namespace with these addresses and sysctls."""
    netns = namespace.create(f"{namespace.next_prefix()}first")
    try:
        for key, value in on.sysctls.items():
            netns.sysctl(key.replace(".", "/"), value)
        for link in on.interfaces:
            if not link.loopback:
                peer = f"peer{link.index}"
                netns.ip(f"link add {link.name} type veth peer name {peer}")
                netns.ip(f"link set {peer} up", f"link set {link.name} up")
                netns.ip(*(f"address add {a} dev {link.name}" for a in link.addresses))
        for route in on.routes4:
            netns.ip(f"route add default via {route.gateway} dev {route.device}")
        with netns.entered():
            subprocess.run(
                gateways.command("init"),
                env={**BASE_ENVIRON, "OCGATE_CONFIG_DIR": str(directory)},
                capture_output=True,
                check=True,
            )
    finally:
        netns.close()


def prove(
    directory: Path,
    environ: Mapping[str, str],
    *,
    only: Sequence[str] = (),
    pcap: Path | None = None,
    furnish: Furnish | None = None,
    also: Callable[[], Iterable[Fault]] = tuple,
    on: Facts | None = None,
) -> Proof:
    """The matrix, or a part of it, for that configuration.

    on: the machine; a dual-stack container without it.
    furnish: what the upstream is.  also: further faults, asked for when the world stands.
    """
    asked = configuration.asks({"OCGATE_CONFIG_DIR": str(directory), **environ})
    with configuration.staged(asked, on or facts(), pcap=pcap, furnish=furnish) as engine:
        met = configuration.has(engine.stage)
        faults = list(possible(chosen(matrix(), only), lambda need: need in met))
        return engine.prove([*faults, *also()])
