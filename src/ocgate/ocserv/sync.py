"""Three things in sync: VPN_SUBNET, IPV6_SUBNET and VPN_IF against ocserv.conf.

Pure. What is not set is taken from ocserv.conf. What is set and says something else is a problem
that names both places: a subnet that is masqueraded but not served, or served but not masqueraded
and not guarded, is the commonest silent leak of this kind of gateway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Protocol

from ocgate.errors import Problem
from ocgate.names import DEFAULT_DEVICE
from ocgate.ocserv.view import Placed, ScopeKind, ServerView

# The reference image's default, so that VPN_SUBNET means the same here and there.
DEFAULT_SUBNET = IPv4Network("10.10.10.0/24")

Network = IPv4Network | IPv6Network


class Wishes(Protocol):
    """The part of `config.model.Settings` that ocserv.conf has a word in."""

    @property
    def vpn_subnet(self) -> tuple[IPv4Network, ...] | None:
        """VPN_SUBNET, None if not set."""

    @property
    def ipv6_subnet(self) -> IPv6Network:
        """IPV6_SUBNET, or its default."""

    @property
    def vpn_if(self) -> str:
        """VPN_IF: the device prefix and a `+`."""


class Origin(Protocol):
    """Where a setting was written; `config.origin.Origin`."""

    @property
    def source(self) -> str:
        """A file's path, or `environment`."""

    @property
    def line(self) -> int:
        """1-based line, 0 where lines have no meaning."""


@dataclass(frozen=True)
class Synced:
    """What both sides agree on.

    subnets4:     client subnets, disjoint and in numeric order: to masquerade and to guard.
    ipv4_network: what the effective ocserv.conf gets where main has no `ipv4-network`.
    subnets6:     IPv6 client subnets if IPv6 is advertised.
    ipv6_network: what sections without `ipv6-network` get if IPv6 is advertised.
    device:       prefix of the tunnel devices, without number and without `+`.
    problems:     disagreements; the rest of the value then means nothing.
    """

    subnets4: tuple[IPv4Network, ...]
    ipv4_network: IPv4Network
    subnets6: tuple[IPv6Network, ...]
    ipv6_network: IPv6Network
    device: str
    problems: tuple[Problem, ...] = ()


def sync(view: ServerView, wishes: Wishes, origins: Mapping[str, Origin]) -> Synced:
    """Joins settings and ocserv.conf. `origins` holds the variables that the operator has set."""
    problems: list[Problem] = []
    ipv4_network = _ipv4_network(view, wishes)
    main4 = () if view.main.networks4 else (ipv4_network,)
    configured4 = [*main4, *(found.value for found in view.networks4)]
    if wishes.vpn_subnet is not None and view.networks4:
        problems += _differs("VPN_SUBNET", wishes.vpn_subnet, view.networks4, origins, main4)
    problems += _ipv6(view, wishes, origins) + _device(view, wishes, origins)
    ipv6_network = next((found.value for found in view.networks6), wishes.ipv6_subnet)
    return Synced(
        subnets4=tuple(sorted(collapse_addresses(configured4))),
        ipv4_network=ipv4_network,
        subnets6=tuple(
            sorted(collapse_addresses([*_values6(view), *_filled6(view, ipv6_network)]))
        ),
        ipv6_network=ipv6_network,
        device=view.device or wishes.vpn_if.removesuffix("+") or DEFAULT_DEVICE,
        problems=tuple(problems),
    )


def _ipv4_network(view: ServerView, wishes: Wishes) -> IPv4Network:
    """What main gets where it names none: VPN_SUBNET's first that no other section has taken."""
    taken = {found.value for found in view.networks4}
    wanted = [network for network in wishes.vpn_subnet or () if network not in taken]
    return wanted[0] if wanted else DEFAULT_SUBNET


def _values6(view: ServerView) -> list[IPv6Network]:
    return [found.value for found in view.networks6]


def _filled6(view: ServerView, network: IPv6Network) -> list[IPv6Network]:
    """The network that rendering gives to sections without one."""
    sections = (scope for scope in view.scopes if scope.kind in (ScopeKind.MAIN, ScopeKind.VHOST))
    return [network] if any(not scope.networks6 for scope in sections) else []


def _ipv6(view: ServerView, wishes: Wishes, origins: Mapping[str, Origin]) -> list[Problem]:
    """The default of IPV6_SUBNET is no wish: ocserv.conf then decides."""
    if "IPV6_SUBNET" not in origins or not view.networks6:
        return []
    return _differs("IPV6_SUBNET", [wishes.ipv6_subnet], view.networks6, origins, ())


def _device(view: ServerView, wishes: Wishes, origins: Mapping[str, Origin]) -> list[Problem]:
    if "VPN_IF" not in origins or not view.device:
        return []
    if wishes.vpn_if.removesuffix("+") == view.device:
        return []
    place = view.place("device")
    return [
        _problem(
            "VPN_IF",
            wishes.vpn_if,
            f"{view.device}+, since {place} says device = {view.device}",
            f"Set VPN_IF={view.device}+ or leave it unset, or change device at {place}",
            origins,
        )
    ]


def _differs(
    name: str,
    wanted: Sequence[Network],
    configured: Sequence[Placed[IPv4Network]] | Sequence[Placed[IPv6Network]],
    origins: Mapping[str, Origin],
    filled: Sequence[Network],
) -> list[Problem]:
    values = [*filled, *(found.value for found in configured)]
    if _collapsed(wanted) == _collapsed(values):
        return []
    said = ", ".join(f"{found.value} ({found.place} {found.place.key})" for found in configured)
    right = ",".join(str(network) for network in dict.fromkeys(found.value for found in configured))
    return [
        _problem(
            name,
            ", ".join(str(network) for network in wanted),
            f"what ocserv.conf hands out: {said}; the setting is {_relation(wanted, values)}",
            f"Set {name}={right} or leave it unset, or correct {_places(configured)}",
            origins,
        )
    ]


def _places(configured: Sequence[Placed[IPv4Network]] | Sequence[Placed[IPv6Network]]) -> str:
    return ", ".join(dict.fromkeys(str(found.place) for found in configured))


def _problem(
    name: str, got: str, expected: str, remedy: str, origins: Mapping[str, Origin]
) -> Problem:
    origin = origins.get(name)
    source, line = (origin.source, origin.line) if origin else ("default", 0)
    return Problem(source, line, name, got, expected, remedy)


def _relation(wanted: Sequence[Network], configured: Sequence[Network]) -> str:
    """One word for how the setting differs."""
    if _within(wanted, configured):
        return "narrower"
    return "wider" if _within(configured, wanted) else "another network"


def _within(inner: Iterable[Network], outer: Sequence[Network]) -> bool:
    joined = _collapsed(outer)
    return all(
        any(_holds(network, candidate) for candidate in joined) for network in _collapsed(inner)
    )


def _holds(network: Network, candidate: Network) -> bool:
    if isinstance(network, IPv4Network) and isinstance(candidate, IPv4Network):
        return network.subnet_of(candidate)
    if isinstance(network, IPv6Network) and isinstance(candidate, IPv6Network):
        return network.subnet_of(candidate)
    return False


def _collapsed(networks: Iterable[Network]) -> list[Network]:
    """Disjoint networks in numeric order: what decides is coverage, not how it is cut."""
    found = list(networks)
    four = [network for network in found if isinstance(network, IPv4Network)]
    six = [network for network in found if isinstance(network, IPv6Network)]
    return [*sorted(collapse_addresses(four)), *sorted(collapse_addresses(six))]
