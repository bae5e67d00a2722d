"""What the kernel looked like at one moment, as plain values: the planner's only view of it.

Pure: imports nothing that can look anything up, so that a plan is a function of its arguments and
a test writes the facts by hand. `kernel.facts.observe` fills them in; any room may import this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    collapse_addresses,
)
from types import MappingProxyType
from typing import Literal

Family = Literal[4, 6]
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
InterfaceAddress = IPv4Interface | IPv6Interface

# Times to live (hop limits) that hosts begin with: one that arrives whole was sent by a neighbour.
WHOLE_TTLS = (64, 128, 255)


def collapsed(networks: Iterable[Network]) -> list[Network]:
    """Networks of one family without overlaps and in numeric order: what nft takes as a set."""
    given = list(networks)
    four = [net for net in given if isinstance(net, IPv4Network)]
    six = [net for net in given if isinstance(net, IPv6Network)]
    return [*collapse_addresses(four), *collapse_addresses(six)]


def lies_within(network: Network, subnets: Iterable[Network]) -> bool:
    """Whether one of these holds all of it."""
    return any(
        network.version == net.version
        and network.prefixlen >= net.prefixlen
        and network.network_address in net
        for net in subnets
    )


def remaining(network: Network, holes: Iterable[Network]) -> list[Network]:
    """What is left of a network when these are taken out of it."""
    rest: list[Network] = [network]
    for hole in holes:
        rest = [part for whole in rest for part in _without(whole, hole)]
    return rest


def _without(network: Network, hole: Network) -> Iterable[Network]:
    if lies_within(network, [hole]):
        return ()
    if isinstance(network, IPv4Network) and isinstance(hole, IPv4Network):
        return network.address_exclude(hole) if lies_within(hole, [network]) else (network,)
    if isinstance(network, IPv6Network) and isinstance(hole, IPv6Network):
        return network.address_exclude(hole) if lies_within(hole, [network]) else (network,)
    return (network,)


@dataclass(frozen=True)
class Interface:
    """One network device of this namespace.

    index:     ifindex, 1 and up; never reused while the namespace lives.
    mtu:       bytes of an IP packet, without the link header.
    up:        administratively up and with carrier (IFF_UP and IFF_LOWER_UP): it can send now.
    loopback:  IFF_LOOPBACK.
    addresses: with their prefix length, both families, in the kernel's order; tentative and
               failed (duplicate) IPv6 addresses are left out, since nothing can be sent from them.
    lent:      those of them that end by themselves unless they are renewed: given by router
               advertisements or by DHCP.
    """

    index: int
    name: str
    mtu: int
    up: bool
    addresses: tuple[InterfaceAddress, ...] = ()
    loopback: bool = False
    lent: tuple[InterfaceAddress, ...] = ()

    def own(self, family: Family) -> tuple[InterfaceAddress, ...]:
        """Its addresses of one family, link-local ones included."""
        return tuple(a for a in self.addresses if a.version == family)


@dataclass(frozen=True)
class DefaultRoute:
    """One next hop of a default route in table main.

    metric:  lower wins (IPv4: 0 where none was given; IPv6: the kernel's 1024).
    index:   the device's ifindex, `device` its name.
    gateway: None on a device that needs none (tun, ppp).
    advertised: a router advertised it (RTPROT_RA), so it ends unless it is advertised again.
    """

    family: Family
    metric: int
    index: int
    device: str
    gateway: Address | None = None
    advertised: bool = False


@dataclass(frozen=True)
class Connected:
    """A network that is reached on `device` without a gateway (scope link, table main)."""

    network: Network
    device: str


@dataclass(frozen=True)
class ForeignRule:
    """A policy rule of another program.

    text:  as `ip rule` shows it, priority left out.
    table: that it looks up, None for any other action.
    """

    family: Family
    priority: int
    text: str
    table: int | None = None

    def __str__(self) -> str:
        return f"{self.priority}: {self.text}"


TABLE_LOCAL = 255  # RT_TABLE_LOCAL, linux/rtnetlink.h


def rules_until(rules: Iterable[ForeignRule], first: int, last: int) -> tuple[ForeignRule, ...]:
    """Those that the kernel asks before or between rules of ours at `first` to `last`, in its
    order. One before them that looks up `local`, as the kernel's own at 0 does and as it is made
    anew by programs that move it, leads to nobody but this host, and is no obstacle."""
    found = (
        rule
        for rule in rules
        if rule.priority <= last and not (rule.table == TABLE_LOCAL and rule.priority < first)
    )
    return tuple(sorted(found, key=lambda rule: (rule.priority, rule.family, rule.text)))


@dataclass(frozen=True)
class Facts:
    """All that planning may know about this network namespace.

    routes4, routes6: default routes of table main, in the kernel's order.
    connected:        on-link networks of table main, both families, ours not among them.
    sysctls:          key in sysctl(8)'s dotted form -> value; a key the kernel lacks is absent.
    rules:            policy rules that are neither the kernel's own nor ours.
    without_main:     families with a default route in main that no rule looks up: `ip rule flush`
                      deletes the kernel's own rule as well.
    own_namespace:    a network namespace other than the machine's first: a container's.
    """

    interfaces: tuple[Interface, ...] = ()
    routes4: tuple[DefaultRoute, ...] = ()
    routes6: tuple[DefaultRoute, ...] = ()
    connected: tuple[Connected, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    rules: tuple[ForeignRule, ...] = ()
    without_main: tuple[Family, ...] = ()
    own_namespace: bool = False

    def interface(self, name: str) -> Interface | None:
        """The device of that name, or None."""
        return next((link for link in self.interfaces if link.name == name), None)

    def default_route(self, family: Family) -> DefaultRoute | None:
        """The default route that the kernel would use: lowest metric among links that are up.

        A route on a link without carrier is passed over, because a cable that is out must move
        WAN_IF to the other interface. Among equals the kernel's order decides.
        """
        usable = [route for route in self._defaults(family) if self._is_up(route.device)]
        return min(usable, key=lambda route: route.metric, default=None)

    @property
    def wan_interface(self) -> Interface | None:
        """The device of the default route: IPv4's, or IPv6's on a host without IPv4."""
        route = self.default_route(4) or self.default_route(6)
        return self.interface(route.device) if route else None

    def addresses(self, device: str, family: Family) -> tuple[Address, ...]:
        """What this host answers to on a device, link-local addresses left out."""
        link = self.interface(device)
        own = link.own(family) if link else ()
        return tuple(address.ip for address in own if not address.ip.is_link_local)

    def is_local(self, address: Address) -> bool:
        """Whether this host itself answers on `address` (its own, or loopback)."""
        return address.is_loopback or any(
            own.ip == address for link in self.interfaces for own in link.addresses
        )

    def connected_network_of(self, address: Address) -> Connected | None:
        """The on-link network that holds `address`, or None.

        Of several, one on a device whose own address lies in it goes before any other, and one
        that was written before one that was lent: a more specific route that a router or a DHCP
        server makes up on another network must not say where a gateway is. Also while the device
        of such an address is down: then there is none.
        """
        holding = [net for net in self.connected if address in net.network]
        best = max((self._claim(net.device, address) for net in holding), default=0)
        claims = (self._claim(link.name, address) for link in self.interfaces)
        if best < max(claims, default=0):
            return None
        first = [net for net in holding if self._claim(net.device, address) == best]
        return max(first, key=lambda net: net.network.prefixlen, default=None)

    def _claim(self, device: str, address: Address) -> int:
        """How well a device's addresses say that `address` is its neighbour: 2 a written one, 1 one
        that was lent, 0 none."""
        link = self.interface(device)
        own = link.own(address.version) if link else ()
        near = [a for a in own if address in a.network and address != a.ip]
        if not near or link is None:
            return 0
        return 1 if all(a in link.lent for a in near) else 2

    def device_towards(self, address: Address) -> str | None:
        """The interface with an address in a network that holds `address`, be it up or down."""
        near = [link.name for link in self.interfaces if self._claim(link.name, address)]
        return max(near, key=lambda name: self._claim(name, address), default=None)

    def _defaults(self, family: Family) -> tuple[DefaultRoute, ...]:
        return self.routes4 if family == 4 else self.routes6

    def _is_up(self, name: str) -> bool:
        link = self.interface(name)
        return link is not None and link.up
