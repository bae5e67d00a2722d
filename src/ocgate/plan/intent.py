"""What is wanted of the network, free of where each wish was written.

Pure. `derive` joins the operator's settings, the view of ocserv.conf, the facts of the machine and
the IPv6 decision into one `Intent`; the planner needs nothing else, so a twin of this
configuration can be planned for scratch namespaces as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from ocgate.plan.ipv6 import Ipv6Path

IPAddress = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Wan:
    """The interface by which the exit `direct` leaves: its name and its MTU in bytes.

    `mtu` is None while the interface is not there: its rules stand all the same, by name.
    """

    name: str
    mtu: int | None = None


@dataclass(frozen=True)
class Intent:
    """The wishes of one configuration on one machine.

    device:     name of client tunnels without number, as in ocserv's `device =`
    subnets4/6: client subnets; every session's address lies in one of them
    prefix6:    bits of the IPv6 source that a session owns (ocserv's ipv6-subnet-prefix), 1 to 128
    gateways:   the server's own addresses inside the tunnel; clients may ping them
    resolvers:  pushed resolvers that are addresses of this host; clients may ask them
    tcp_ports:  where ocserv listens; their connections get the MSS clamp
    mss:        hard cap in bytes, or None to clamp to each interface's MTU
    wan4/wan6:  way out of each family; None: there is none now, clients are rejected
    ipv6:       what happens to IPv6 packets of sessions
    """

    device: str
    subnets4: tuple[IPv4Network, ...]
    subnets6: tuple[IPv6Network, ...]
    prefix6: int
    gateways: tuple[IPAddress, ...]
    resolvers: tuple[IPAddress, ...]
    tcp_ports: tuple[int, ...]
    mss: int | None
    wan4: Wan | None
    wan6: Wan | None
    ipv6: Ipv6Path
    accept_ra_on: tuple[str, ...] = ()


def same_family(addresses: Iterable[IPAddress], version: int) -> tuple[IPAddress, ...]:
    """Those of IP version 4 or 6, in numeric order, once each."""
    return tuple(sorted({a for a in addresses if a.version == version}, key=int))
