"""How clients leave in gateway mode, from the settings, the machine and what is known of gateways.

Pure. A part of `prepared.prepare`; `problems` says at a start or reload what could never work here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_network

from ocgate.config.gateways import VARIABLES, Upstream, UpstreamKind
from ocgate.config.macs import LEARN
from ocgate.config.model import Settings
from ocgate.config.values import NOTHING
from ocgate.errors import Problem
from ocgate.names import NULL_TABLE
from ocgate.plan.exits import Exit, ExitKind, Exits, FormerAddress, Steering
from ocgate.plan.facts import Address, Facts, Family, Network, lies_within
from ocgate.plan.intent import Wan
from ocgate.plan.ipv6 import Ipv6Decision, Ipv6Path, Ipv6Wish, decide
from ocgate.server.desired import rule_placement
from ocgate.server.desired.flow_ports import is_exclusive
from ocgate.server.desired.sources import Sources
from ocgate.upstream.gateway_address import refusal

# Former addresses that are kept: each costs two to four rules. A host's address changes now and
# then, a late packet comes within minutes.
MOST_STRAYS = 8


def steer(
    sources: Sources,
    facts: Facts,
    exits: Exits,
    decision: Ipv6Decision,
    wans: dict[Family, Wan],
    *,
    strays: tuple[FormerAddress, ...] = (),
) -> Steering | None:
    """None: the standalone server. strays: until now.

    A standalone server that was in gateway mode before a reload is steered as by the exit `direct`:
    for the rest of this run the guard keeps this host from answering what comes late for flows of
    the gateway.
    """
    settings = sources.settings
    if not settings.gateway_mode and not strays:
        return None
    exit4 = settings.exit4 if settings.gateway_mode else Upstream(UpstreamKind.DIRECT)
    ways = (
        _exit(sources, facts, 4, exit4, exits, wans),
        _exit6(sources, facts, settings.exit6, exits, wans, decision),
    )
    ways = (_held_back(ways[0], sources, facts), _held_back(ways[1], sources, facts))
    return Steering(
        exit4=ways[0],
        exit6=ways[1],
        table=settings.vpn_gateway_table,
        priority=rule_placement.priority_now(sources, facts),
        exclusive=is_exclusive(sources, facts),
        strays=_strays(ways, strays),
    )


def _strays(ways: Iterable[Exit], former: tuple[FormerAddress, ...]) -> tuple[FormerAddress, ...]:
    """The exits' addresses, and before them the latest that were so."""
    now = [FormerAddress(way.device, own) for way in ways if way.device for own in way.own]
    before = [stray for stray in former if stray not in now]
    return (*before[-MOST_STRAYS:], *now)


def ipv6_by_gateway(wish: Ipv6Wish, sources: Sources, exits: Exits) -> Ipv6Decision | None:
    """The IPv6 decision where an exit makes it; None: as without gateway mode."""
    exit6 = sources.settings.exit6 if sources.settings.gateway_mode else None
    if exit6 is None or exit6.kind is UpstreamKind.DIRECT:
        return None
    if exit6.kind is UpstreamKind.BLOCK:
        by = "VPN_GATEWAY6=block" if sources.settings.vpn_gateway6 else "VPN_GATEWAY6 is unset"
        # As if forwarding were off: a sink where it can hold, else no IPv6 for clients.
        closed = replace(wish, forward=False)
        found = decide(closed, egress=None)
        return Ipv6Decision(found.path, found.network, found.why.replace("IPV6_FORWARD=0", by))
    network = wish.configured or wish.fallback
    state = exits.exit6
    down = "it is not resolved yet" if state is None else state.down
    if down:
        return Ipv6Decision(Ipv6Path.REJECTED, network, f"{exit6} can't be used: {down}")
    return Ipv6Decision(Ipv6Path.NAT66, network, f"by the gateway {exit6}")


def problems(sources: Sources, facts: Facts, exits: Exits) -> Iterator[Problem]:
    """What can't work on this machine."""
    settings = sources.settings
    if not settings.gateway_mode:
        return
    wanted: tuple[tuple[Family, Upstream | None], ...] = ((4, settings.exit4), (6, settings.exit6))
    for family, upstream in wanted:
        if upstream is not None and upstream.kind is UpstreamKind.GATEWAY:
            yield from _unfit(sources, facts, family, upstream, exits)
    yield from _misplaced(sources, facts)


def strict_on(facts: Facts, steering: Steering | None) -> tuple[str, ...]:
    """The IPv4 gateway's device, if its reverse path filter would drop the gateway's answers."""
    device = steering.exit4.device if steering else None
    if steering is None or steering.exit4.kind is not ExitKind.GATEWAY or device is None:
        return ()
    keys = ("all", device.replace(".", "/"))
    values = [facts.sysctls.get(f"net.ipv4.conf.{key}.rp_filter", "0") for key in keys]
    return (device,) if max(values) == "1" else ()


def exposes_ipv6(sources: Sources) -> bool:
    """Whether IPv6 leaves by this host while IPv4 leaves by a gateway: wished, but worth a word."""
    settings = sources.settings
    exit6 = settings.exit6
    return (
        settings.gateway_mode
        and settings.exit4.kind is UpstreamKind.GATEWAY
        and exit6 is not None
        and exit6.kind is UpstreamKind.DIRECT
    )


def _unfit(
    sources: Sources, facts: Facts, family: Family, upstream: Upstream, exits: Exits
) -> Iterator[Problem]:
    state, key = exits.of(family), VARIABLES[family]
    if state is None or state.address is None:
        return
    why = refusal(state.address, facts, _subnets(sources))
    if why:
        yield sources.origin(key).problem(
            key,
            str(upstream),
            f"another host on a network of this one ({why})",
            f"attached are {_networks(facts, family) or 'none'}: name the upstream's address on "
            "one of them, or attach this host or container to the upstream's network",
        )


def _misplaced(sources: Sources, facts: Facts) -> Iterator[Problem]:
    """Rules of other programs before ours would steer clients first; a table of theirs is not
    ours to write."""
    settings = sources.settings
    yield from rule_placement.problems(sources, facts)
    using = tuple(rule for rule in facts.rules if rule.table == settings.vpn_gateway_table)
    behind = tuple(
        rule for rule in using if rule not in rule_placement.rules_before(sources, facts)
    )
    if behind:
        yield sources.origin("VPN_GATEWAY_TABLE").problem(
            "VPN_GATEWAY_TABLE",
            str(settings.vpn_gateway_table),
            f"a table that no other program uses; the {rule_placement.named(behind)} looks it up",
            "set it to the number of a table that nobody uses: `ip rule` shows those in use",
        )
    if settings.vpn_gateway_table == NULL_TABLE:
        yield sources.origin("VPN_GATEWAY_TABLE").problem(
            "VPN_GATEWAY_TABLE",
            str(NULL_TABLE),
            f"a table other than {NULL_TABLE}, which ocgate uses itself",
            "set it to 100",
        )


def _exit(
    sources: Sources,
    facts: Facts,
    family: Family,
    upstream: Upstream,
    exits: Exits,
    wans: dict[Family, Wan],
) -> Exit:
    if upstream.kind is UpstreamKind.BLOCK:
        return Exit(family, ExitKind.BLOCK, closed=f"{VARIABLES[family]} is block")
    if upstream.kind is UpstreamKind.DIRECT:
        wan = wans.get(family)
        closed = "" if wan else "there is no default route"
        return Exit(family, ExitKind.DIRECT, wan.name if wan else None, closed=closed)
    state = exits.of(family)
    if state is None or state.address is None:
        return Exit(family, ExitKind.GATEWAY, closed=f"{upstream} has not resolved yet")
    why = refusal(state.address, facts, _subnets(sources))
    link = facts.connected_network_of(state.address)
    if why or link is None:
        # Its interface may only be down: this host still answers to its addresses there.
        device = facts.device_towards(state.address)
        own = _own(facts, device, family, _subnets(sources)) if device else ()
        return Exit(family, ExitKind.GATEWAY, device, closed=why, own=own)
    own = _own(facts, link.device, family, _subnets(sources))
    lacking = "" if own else f"this host has no IPv{family} address on {link.device}"
    mac = pinned(sources.settings, family, state.mac)
    closed = state.down or lacking
    waits = bool(state.down) and not state.given_up and not lacking
    return Exit(
        family,
        ExitKind.GATEWAY,
        link.device,
        state.address,
        closed,
        own,
        mac,
        waits=waits,
        holds=waits and state.lasts,
    )


def pinned(settings: Settings, family: Family, learned: str) -> str:
    """The MAC address that a gateway is reached at: as written, or learned; '' for any."""
    wish = settings.vpn_gateway_mac if family == 4 else settings.vpn_gateway6_mac
    return {NOTHING: "", LEARN: learned}.get(wish, wish)


def learning(settings: Settings) -> tuple[Family, ...]:
    """Families whose gateway's MAC address is learned."""
    wishes: dict[Family, str] = {4: settings.vpn_gateway_mac, 6: settings.vpn_gateway6_mac}
    return tuple(family for family, wish in wishes.items() if wish == LEARN)


def _own(
    facts: Facts, device: str, family: Family, subnets: tuple[Network, ...]
) -> tuple[Address, ...]:
    """This host's addresses on a device, without what an advertisement made up in a client subnet:
    it is taken away, and must not look like a move."""
    held = facts.addresses(device, family)
    return tuple(a for a in held if not lies_within(ip_network(a), subnets))


def _held_back(way: Exit, sources: Sources, facts: Facts) -> Exit:
    """Closed where another program's policy rule would be asked first, whatever we do."""
    why = rule_placement.without_room(sources, facts, way.family)
    return replace(way, closed=way.closed or why, waits=False, holds=False) if why else way


def _exit6(
    sources: Sources,
    facts: Facts,
    upstream: Upstream | None,
    exits: Exits,
    wans: dict[Family, Wan],
    decision: Ipv6Decision,
) -> Exit:
    """IPv6 is closed wherever the decision rejects it, whatever the exit."""
    way = _exit(sources, facts, 6, upstream or Upstream(UpstreamKind.DIRECT), exits, wans)
    closed = decision.why if decision.path is Ipv6Path.REJECTED else ""
    return replace(way, closed=way.closed or closed)


def _networks(facts: Facts, family: Family) -> str:
    nets = (c for c in facts.connected if c.network.version == family)
    return ", ".join(f"{c.network} ({c.device})" for c in nets if not c.network.is_link_local)


def _subnets(sources: Sources) -> tuple[Network, ...]:
    return (*sources.synced.subnets4, *sources.synced.subnets6)
