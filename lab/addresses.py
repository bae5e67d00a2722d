"""Who has which address in the lab, and what may differ from lab to lab: values, no effects.

`topology` draws them. Only documentation prefixes (RFC 5737, RFC 3849) and RFC 1918 ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from ocgate.netlab.namespace import Namespace

DOCKER_NET = IPv4Network("172.28.0.0/24")
DOCKER_NET6 = IPv6Network("2001:db8:28::/64")
SECOND_NET = IPv4Network("172.29.0.0/24")
SECOND_NET6 = IPv6Network("2001:db8:29::/64")
UPLINK_NET = IPv4Network("203.0.113.0/24")
UPLINK_NET6 = IPv6Network("2001:db8:113::/64")
SERVICE = IPv4Address("198.51.100.10")
SERVICE6 = IPv6Address("2001:db8:51::10")
RESOLVER = IPv4Address("198.51.100.53")
RESOLVER6 = IPv6Address("2001:db8:51::53")
PROVIDER_NET = IPv4Network("198.51.100.192/28")
PROVIDER_NET6 = IPv6Network("2001:db8:c8::/64")
EXIT_NET = IPv4Network("172.30.0.0/24")
EXIT_NET6 = IPv6Network("2001:db8:30::/64")
CLIENT_NET = IPv4Network("192.0.2.0/24")
CLIENT_NET6 = IPv6Network("2001:db8:c::/48")

UPSTREAM = DOCKER_NET[3]
UPSTREAM6 = DOCKER_NET6[3]
EXIT_UPSTREAM = EXIT_NET[3]
EXIT_UPSTREAM6 = EXIT_NET6[3]
PROVIDER = PROVIDER_NET[8]  # by which the internet sees whoever leaves through the upstream
PROVIDER6 = PROVIDER_NET6[8]

PORT = 443  # of the server, TCP and UDP
MAX_CLIENTS = 31  # CLIENT_NET cut in /29s (two addresses each), without the first
MAX_NEIGHBOURS = 200


class Ipv6(Enum):
    """What the docker network offers to gw; the clients' own IPv6 always works."""

    NONE = "none"  # no address, as on a docker network without IPv6
    NO_EGRESS = "no-egress"  # address and default route, but the router drops silently
    WORKS = "works"


@dataclass(frozen=True)
class Options:
    """What may differ from lab to lab.

    clients:       1..31
    neighbours:    0..200 other containers on gw's docker network
    docker_nat:    True: router masquerades and publishes 203.0.113.1:443. False: it only routes,
                   and clients reach gw by its own address.
    second_uplink: gw has eth1 to `docker2`, without a default route: see `Lab.move_wan`.
    upstream:      an upstream VPN container and its provider are there (see `lab.upstream`).
    exit_net:      upstream and gw also share a network of their own (gw's `exit0`).
    mtu:           bytes, 1280..65535; of gw's docker link and its neighbours'.
    """

    clients: int = 1
    neighbours: int = 0
    ipv6: Ipv6 = Ipv6.WORKS
    docker_nat: bool = True
    second_uplink: bool = False
    upstream: bool = False
    exit_net: bool = False
    mtu: int = 1500

    def __post_init__(self) -> None:
        if not 0 <= self.clients <= MAX_CLIENTS:
            raise ValueError(f"clients: got {self.clients}; expected 0..{MAX_CLIENTS}")
        if not 0 <= self.neighbours <= MAX_NEIGHBOURS:
            raise ValueError(f"neighbours: got {self.neighbours}; expected 0..{MAX_NEIGHBOURS}")
        if self.exit_net and not self.upstream:
            raise ValueError("exit_net: got True without an upstream; expected upstream=True, too")


@dataclass(frozen=True)
class Host:
    """One namespace with the addresses by which others know it.

    second, second6: where a client roams to, gw's eth1, router's docker side, inet's resolver,
                     the upstream's address on its own network with gw.
    next_hop:        its default gateway; None for router and inet, which have none.
    """

    role: str
    netns: Namespace
    address: IPv4Address
    address6: IPv6Address | None
    second: IPv4Address | None = None
    second6: IPv6Address | None = None
    next_hop: IPv4Address | None = None
    next_hop6: IPv6Address | None = None
