"""What the scratch network looks like: the caller's own interfaces, with everybody around them.

    gw         eth0, eth1, ...: the caller's names, addresses, MTUs, default routes; the subject
     |           and the clients' tuns vpnsN, which the harness holds
    switch     a bridge per segment (each interface of gw is on one), and a spare one
     |
     +-- isp        docker host and ISP router of every segment; has the default gateways' addresses
     |                and, behind its tun inet0, an internet where every address answers
     +-- neighbour  another container on every segment
     +-- up4, up6   the upstreams: VPN_GATEWAY, VPN_GATEWAY6; forward what comes from their segment
                      into their own inet0, drop the rest

Pure: facts and wishes in, a value out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network

from ocgate.errors import MissingRequirement
from ocgate.plan.facts import Address, DefaultRoute, Facts, Family, Interface, Network

# For services and forged sources; RFC 5737, RFC 3849. The first that nobody here has is taken.
_DOCUMENTATION4 = tuple(
    IPv4Network(n) for n in ("198.51.100.0/24", "203.0.113.0/24", "192.0.2.0/24")
)
_DOCUMENTATION6 = tuple(IPv6Network(f"2001:db8:{n:x}::/48") for n in (0x51, 0x113, 0x77, 0x99))
# For the spare segment; RFC 1918, RFC 4193.
_PRIVATE4 = tuple(IPv4Network(f"172.{n}.77.0/24") for n in range(31, 16, -1))
_PRIVATE6 = tuple(IPv6Network(f"fd0c:9a7e:{n:x}::/64") for n in range(1, 5))

# Where the search for a free address begins: people and docker give out from the bottom.
_FREE_FROM = 200


@dataclass(frozen=True)
class Wanted:
    """One gateway as the configuration names it: an address, or a name that the twin answers."""

    family: Family
    address: Address | None
    name: str | None


@dataclass(frozen=True)
class Segment:
    """One interface of gw and who else is on its wire.

    own:       of gw, with prefix length.
    isp:       docker host and router: the default gateways, or free addresses; with prefix length.
    neighbour: another container's, likewise.
    defaults:  default routes of gw by this interface.
    """

    number: int
    device: str
    mtu: int
    own: tuple[str, ...]
    isp: tuple[str, ...]
    neighbour: tuple[str, ...]
    defaults: tuple[DefaultRoute, ...]

    @property
    def networks(self) -> tuple[Network, ...]:
        """On-link, as gw's addresses say."""
        return tuple(ip_network(text, strict=False) for text in self.own)


@dataclass(frozen=True)
class Upstream:
    """A gateway of the clients. free: where it may come back under another address."""

    family: Family
    segment: Segment
    address: Address
    length: int
    name: str | None
    free: Address

    @property
    def role(self) -> str:
        """Its namespace."""
        return f"up{self.family}"


@dataclass(frozen=True)
class Twin:
    """The whole drawing.

    services: that only clients use, by family.  foreign: a public address that nobody has.
    resolver: the address of the twin's DNS server, on the ISP's side.
    spare:    a segment that gw is not on yet, for a second interface with a default of its own.
    without_ipv6: scopes (`all`, `default`) of gw's disable_ipv6 that are set.
    networks: what clients may reach beside their exit, each with the segment it is reached by.
    """

    segments: tuple[Segment, ...]
    spare: Segment
    upstreams: tuple[Upstream, ...]
    services: tuple[Address, ...]
    foreign: tuple[Address, ...]
    resolver: Address
    families: tuple[Family, ...]
    without_ipv6: tuple[str, ...] = ()
    networks: tuple[tuple[Network, Segment], ...] = ()

    def upstream(self, family: Family) -> Upstream | None:
        """That family's, if its exit is a gateway."""
        return next((up for up in self.upstreams if up.family == family), None)

    def service(self, family: Family) -> Address:
        """Where clients of that family go."""
        return next(address for address in self.services if address.version == family)

    def reaches_out(self, family: Family) -> bool:
        """Whether this host has its own way to that family's internet: a default route, and an
        address to send from."""
        return family in self.families and any(
            route.family == family for segment in self.segments for route in segment.defaults
        )

    def own(self) -> tuple[Address, ...]:
        """gw's addresses on segments."""
        return tuple(address_of(text) for segment in self.segments for text in segment.own)


def address_of(text: str) -> Address:
    """`10.0.0.1/24` -> its address."""
    return ip_interface(text).ip


def twin(
    facts: Facts,
    wanted: Sequence[Wanted],
    clients: Sequence[Network],
    device: str,
    networks: Iterable[tuple[Network, str]] = (),
) -> Twin:
    """The drawing for these facts; raises MissingRequirement where there is nothing to copy.

    clients: the client subnets.  device: prefix of the clients' tuns, which are left out.
    networks: what clients may reach beside their exit, and by which interface.
    """
    links = [link for link in facts.interfaces if _is_copied(link, device)]
    if not any(route.device == link.name for route in _defaults(facts) for link in links):
        raise MissingRequirement(
            "no interface here has an address and a default route, so there is nothing to copy",
            hint="Run it where ocgate shall run: on the host, or in its container, with the "
            "networks attached",
        )
    taken = _Taken(facts, wanted, clients)
    segments = tuple(_segment(n, link, facts, taken) for n, link in enumerate(links, 1))
    families, without = _families(segments), _without_ipv6(facts)
    internet4, internet6 = taken.network(_DOCUMENTATION4), taken.network(_DOCUMENTATION6)
    return Twin(
        segments=segments,
        spare=_spare(len(links) + 1, taken, ipv6=not without),
        upstreams=tuple(_upstream(want, segments, taken) for want in wanted),
        services=(internet4[10], internet6[0x10]),
        foreign=(internet4[77], internet6[0x77]),
        resolver=internet4[53],
        families=families,
        without_ipv6=without,
        networks=tuple(
            (net, segment)
            for net, name in networks
            for segment in segments
            if segment.device == name
        ),
    )


def _is_copied(link: Interface, device: str) -> bool:
    return not link.loopback and not link.name.startswith(device) and bool(_global(link))


def _global(link: Interface) -> list[str]:
    return [str(a) for a in link.addresses if not a.is_link_local]


def _defaults(facts: Facts) -> tuple[DefaultRoute, ...]:
    return (*facts.routes4, *facts.routes6)


def _families(segments: Iterable[Segment]) -> tuple[Family, ...]:
    versions = {address_of(text).version for segment in segments for text in segment.own}
    return tuple(family for family in (4, 6) if family in versions)


def _without_ipv6(facts: Facts) -> tuple[str, ...]:
    """Where the kernel of gw is to carry no IPv6."""
    key = "net.ipv6.conf.{}.disable_ipv6"
    return tuple(s for s in ("all", "default") if facts.sysctls.get(key.format(s), "0") != "0")


class _Taken:
    """Addresses and networks that are in use, so that what is invented collides with nothing."""

    def __init__(self, facts: Facts, wanted: Sequence[Wanted], clients: Sequence[Network]) -> None:
        routers = [route.gateway for route in _defaults(facts) if route.gateway]
        self._addresses: set[Address] = {want.address for want in wanted if want.address}
        self._addresses.update(routers)
        self._addresses.update(a.ip for link in facts.interfaces for a in link.addresses)
        self._networks: list[Network] = [net.network for net in facts.connected] + list(clients)

    def free(self, network: Network, *, first: int = _FREE_FROM) -> Address:
        """An address of `network` that nobody has, and that nobody gets again; the search begins
        at `first`."""
        size = network.num_addresses
        for offset in range(size):
            number = (first + offset) % size
            found = network[number]
            inside = 0 < number < size - 1 or size <= 2
            if inside and found not in self._addresses:
                self._addresses.add(found)
                return found
        raise MissingRequirement(
            f"{network} has no address left for a neighbour", hint="Use a larger network"
        )

    def network(self, candidates: Sequence[Network]) -> Network:
        """The first that overlaps with none; it is in use from now on."""
        for candidate in candidates:
            if not any(
                candidate.version == n.version and candidate.overlaps(n) for n in self._networks
            ):
                self._networks.append(candidate)
                return candidate
        raise MissingRequirement(
            "every documentation network is in use here, so the twin can't have an internet",
            hint="Run it in a container of its own",
        )


def _segment(number: int, link: Interface, facts: Facts, taken: _Taken) -> Segment:
    own = tuple(_global(link))
    defaults = tuple(route for route in _defaults(facts) if route.device == link.name)
    isp = [_with_length(route.gateway, own) for route in defaults if route.gateway]
    neighbour: list[str] = []
    for text in own:
        network = ip_network(text, strict=False)
        if network.num_addresses <= 2 or network in map(_network, neighbour):
            continue
        neighbour.append(f"{taken.free(network)}/{network.prefixlen}")
        if network not in map(_network, isp):
            isp.append(f"{taken.free(network, first=1)}/{network.prefixlen}")
    unique = tuple(dict.fromkeys(isp))
    return Segment(number, link.name, link.mtu, own, unique, tuple(neighbour), defaults)


def _network(text: str) -> Network:
    return ip_network(text, strict=False)


def _with_length(address: Address, own: Sequence[str]) -> str:
    """With the prefix length of gw's own network that holds it; a router off-link stands alone."""
    if address.is_link_local:
        return f"{address}/64"
    for text in own:
        network = _network(text)
        if address.version == network.version and address in network:
            return f"{address}/{network.prefixlen}"
    return f"{address}/{address.max_prefixlen}"


def _spare(number: int, taken: _Taken, *, ipv6: bool) -> Segment:
    """ipv6: whether gw can have any."""
    four, six = taken.network(_PRIVATE4), taken.network(_PRIVATE6)
    nets = [(four, 24), (six, 64)] if ipv6 else [(four, 24)]
    defaults = (DefaultRoute(4, 0, 0, "spare0", four[1]), DefaultRoute(6, 1, 0, "spare0", six[1]))
    return Segment(
        number,
        "spare0",
        1500,
        own=tuple(f"{net[10]}/{length}" for net, length in nets),
        isp=tuple(f"{net[1]}/{length}" for net, length in nets),
        neighbour=tuple(f"{net[20]}/{length}" for net, length in nets),
        defaults=defaults[: len(nets)],
    )


def _upstream(want: Wanted, segments: Sequence[Segment], taken: _Taken) -> Upstream:
    """On the segment that holds its address; one with a name where others of its kind would be: on
    a segment without a default route if there is one."""
    candidates = [
        (segment, net)
        for segment in sorted(segments, key=lambda segment: bool(segment.defaults))
        for net in segment.networks
        if net.version == want.family
        and net.num_addresses > 2
        and (want.address is None or want.address in net)
    ]
    if not candidates:
        what = want.name or want.address
        raise MissingRequirement(
            f"the gateway {what} is on no network of this machine, so its twin has no place",
            hint="Attach this machine to the gateway's network",
        )
    segment, network = candidates[0]
    address = want.address or taken.free(network)
    return Upstream(
        want.family, segment, address, network.prefixlen, want.name, free=taken.free(network)
    )


def without_defaults(segment: Segment) -> Segment:
    """The same wire, whose gw has no default route by it."""
    return replace(segment, defaults=())
