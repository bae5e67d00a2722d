"""Further networks that clients may reach: what of them can be had now, and what is to be said.

Pure. A part of `prepared.prepare`; `problems` says at a start or reload what could never work here.
An interface that is not there yet is no error: its network is rejected until it comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from ocgate.config.permitted import Reached
from ocgate.errors import Problem
from ocgate.ocserv.view import Placed, Scope, ServerView
from ocgate.ocserv.warnings import ServerWarning
from ocgate.plan.coverage import networks_of, pushed
from ocgate.plan.exits import Exit, ExitKind, Exits, Steering
from ocgate.plan.facts import Address, Connected, Facts, Family, Interface, Network
from ocgate.plan.intent import Intent
from ocgate.plan.permitted import Permitted, of_family
from ocgate.server.desired.sources import Sources

VARIABLE = "OCGATE_NETWORKS"

# Pushed routes that the kernel is asked about: a company has tens, lists of a country thousands.
MOST_ASKED = 256

_FAMILIES: tuple[Family, ...] = (4, 6)

# Networks of two addresses and one have no broadcast address (RFC 3021).
_LONGEST_WITH_BROADCAST = 31


@dataclass(frozen=True)
class Elsewhere:
    """Where this host itself has a network: an interface, a router or None where it is on-link."""

    network: Network
    device: str
    via: Address | None = None


def permitted(sources: Sources, facts: Facts) -> tuple[Permitted, ...]:
    """All of them, with what is missing now."""
    return tuple(
        Permitted(found.network, found.device, found.via, _missing(found, facts))
        for found in sources.settings.networks
    )


def _missing(found: Reached, facts: Facts) -> str:
    family: Family = 4 if found.network.version == 4 else 6
    link = facts.interface(found.device)
    if link is None:
        return f"there is no interface {found.device}"
    if not link.up:
        return f"{found.device} is down"
    if not facts.addresses(found.device, family):
        return f"this host has no IPv{family} address on {found.device}"
    if found.via is not None and _is_no_router(found.via, link, facts):
        return f"{found.via} is no router, but this host's own or a broadcast address"
    return ""


def _is_no_router(via: Address, link: Interface, facts: Facts) -> bool:
    """What the kernel takes for no next hop: the route would be refused, and with it all else of
    the plan."""
    own = (
        a.network for a in link.own(via.version) if a.network.prefixlen < _LONGEST_WITH_BROADCAST
    )
    return facts.is_local(via) or any(
        net.version == 4 and via == net.broadcast_address for net in own
    )


def strict_on(
    networks: Iterable[Permitted], steering: Steering | None, facts: Facts
) -> tuple[str, ...]:
    """Interfaces whose reverse path filter would drop the networks' answers: in gateway mode it
    asks the rules as if for a client's packet without a mark, which has the null device for a
    route (see `names.NULL_DEVICE`)."""
    if steering is None:
        return ()
    names = dict.fromkeys(net.device for net in of_family(networks, 4) if net.usable)
    keys = {name: ("all", name.replace(".", "/")) for name in names}
    return tuple(
        name
        for name in names
        if max(facts.sysctls.get(f"net.ipv4.conf.{key}.rp_filter", "0") for key in keys[name])
        == "1"
    )


def problems(sources: Sources, exits: Exits) -> Iterator[Problem]:
    """What ocserv.conf or a gateway's name has against an entry; against other settings config
    compares."""
    agreed = sources.synced
    subnets: tuple[Network, ...] = (*agreed.subnets4, *agreed.subnets6)
    for found in sources.settings.networks:
        for net in subnets:
            if net.version == found.network.version and net.overlaps(found.network):
                expected = f"a network outside of the clients' subnet {net}"
                yield _problem(sources, found, expected, "name the network itself")
        for family in _FAMILIES:
            state = exits.of(family)
            if state is not None and state.address is not None and state.address in found.network:
                expected = f"a network without the upstream's address {state.address}"
                remedy = "write the parts of it that clients need, without that address"
                yield _problem(sources, found, expected, remedy)


def _problem(sources: Sources, found: Reached, expected: str, remedy: str) -> Problem:
    return sources.origin(VARIABLE).problem(VARIABLE, str(found), expected, remedy)


# --- what is worth a word -----------------------------------------------------------------------


def warnings(
    sources: Sources, intent: Intent, facts: Facts, elsewhere: Sequence[Elsewhere]
) -> Iterator[ServerWarning]:
    """Networks that nobody reaches, and pushed routes that lead to none. elsewhere: where this
    host has the networks that are pushed."""
    for net in intent.networks:
        yield from _unreachable(net, intent, facts)
        yield from _not_pushed(net, sources.view)
    for route in not_full(sources.view):
        for other in _of_this_host(route, facts, elsewhere):
            if not _carried(other, intent):
                yield _closed(route, other, sources.settings.networks)


def asked_about(sources: Sources) -> list[Address]:
    """One address of each pushed network, for which the kernel knows a route or not."""
    found: dict[Address, None] = {}
    for route in not_full(sources.view):
        net = route.value
        found[net.network_address if net.num_addresses == 1 else net[1]] = None
    return list(found)[:MOST_ASKED]


def not_full(view: ServerView) -> list[Placed[Network]]:
    """The networks that are pushed by name: a full tunnel's pieces mean the internet."""
    found: dict[Placed[Network], None] = {}
    for scope in view.session_scopes:
        for line in scope.routes:
            for family in _FAMILIES:
                if not _is_full(scope, family):
                    for net in networks_of([line.value], family):
                        found[Placed(net, line.place, line.raw)] = None
    return list(found)


def _is_full(scope: Scope, family: Family) -> bool:
    return scope.coverage(family).full


def _unreachable(net: Permitted, intent: Intent, facts: Facts) -> Iterator[ServerWarning]:
    if net.missing:
        yield ServerWarning(
            "network-away",
            f"{VARIABLE}: {net}: {net.missing}: what clients send there is rejected until it comes",
            "Bring the interface up, or correct its name (`ip -br address`)",
        )
    elif net.via is not None and not _on_link(net.via, net.device, facts):
        yield ServerWarning(
            "network-router-elsewhere",
            f"{VARIABLE}: {net}: the router {net.via} is in no network of {net.device}",
            "Write the router's address on that interface (`ip -br address`)",
        )
    if net.network.version == 6 and not intent.subnets6:
        yield ServerWarning(
            "network-without-ipv6",
            f"{VARIABLE}: {net}: clients get no IPv6 address, so they can't reach it",
            "Set IPV6_NAT=auto, or IPV6_SINK=1, or take it out",
        )


def _on_link(address: Address, device: str, facts: Facts) -> bool:
    if address.version == 6 and address.is_link_local:
        return True
    return any(address in link.network for link in facts.connected if link.device == device)


def _not_pushed(net: Permitted, view: ServerView) -> Iterator[ServerWarning]:
    family: Family = 4 if net.network.version == 4 else 6
    for scope in view.session_scopes:
        lines = [route.value for route in scope.routes]
        if any(route.overlaps(net.network) for route in pushed(lines, family)):
            return
    yield ServerWarning(
        "network-not-pushed",
        f"{VARIABLE}: {net}: no `route` line tells clients to send it into the tunnel",
        f"Add `route = {net.network}` to ocserv.conf or to the group's or user's file",
    )


def _of_this_host(
    route: Placed[Network], facts: Facts, elsewhere: Sequence[Elsewhere]
) -> Iterator[Elsewhere]:
    """The networks of this host that a pushed one overlaps, each cut to what both hold."""
    known = [Elsewhere(link.network, link.device) for link in facts.connected if _is_site(link)]
    attached = {(one.network, one.device) for one in known}
    known += [one for one in elsewhere if (one.network, one.device) not in attached]
    for one in known:
        if one.network.version == route.value.version and one.network.overlaps(route.value):
            narrow = max(one.network, route.value, key=lambda net: net.prefixlen)
            yield Elsewhere(narrow, one.device, one.via)


def _is_site(link: Connected) -> bool:
    return not link.network.is_link_local and not link.network.is_loopback


def _carried(other: Elsewhere, intent: Intent) -> bool:
    """Whether clients reach it: as a permitted network, or by the exit's own interface where that
    is this host's. In gateway mode networks of this host are closed, and what it has routes for
    goes to the upstream instead."""
    if overlap(other.network, intent.networks):
        return True
    exit_: Exit = intent.exits[0 if other.network.version == 4 else 1]
    if exit_.kind is ExitKind.DIRECT:
        return other.device == exit_.device
    return exit_.kind is ExitKind.GATEWAY and other.via is not None and other.via == exit_.gateway


def _closed(route: Placed[Network], other: Elsewhere, given: Sequence[Reached]) -> ServerWarning:
    entry = Reached(other.network, other.device, other.via)
    whole = ", ".join(map(str, (*given, entry)))
    where = f"behind {other.via} on {other.device}" if other.via else f"on {other.device}"
    return ServerWarning(
        "route-to-closed-network",
        f"{route.place}: route = {route.raw}: this host has {other.network} {where}, which clients "
        "may not reach: what they send there does not arrive",
        f"Permit it: {VARIABLE}={whole}; or take the route out",
    )


def overlap(network: Network, networks: Iterable[Permitted]) -> bool:
    """Whether any of it may be reached."""
    return any(
        net.network.version == network.version and net.network.overlaps(network) for net in networks
    )


def wide(net: Network) -> bool:
    """Whether it is all of a family: a default route says nothing of a network."""
    return net.prefixlen == 0 or net == ip_network("2000::/3")
