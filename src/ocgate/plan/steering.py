"""Routes and policy rules of gateway mode: what sends clients to their exit, and nowhere else.

Pure; the planner's. These are lock 2 and lock 3: they hold with the whole ruleset flushed. In the
order in which the kernel asks them, P being VPN_GATEWAY_RULE_PRIO and T VPN_GATEWAY_TABLE:

    P-4    to SUBNET lookup main, but by tunnels only       a session's tunnel
    P-3    to SUBNET blackhole                              no such session
    P-2    from SUBNET, no mark, lookup NULL_TABLE          the ruleset is gone: nowhere
    P-1    from SUBNET, no mark, blackhole                  ... also without that table
    P      from SUBNET lookup T                             default via the gateway
    P+1    from SUBNET blackhole                            T is empty
    P+2    the exit's mark, sent by this host, lookup T     probes; ICMP errors of clients' flows
    P+3    ... blackhole
    P+4    stray answers of this host, on its own networks: main
    P+5    stray answers of this host blackhole
    P+101  forwarded: blackhole                             where only clients are forwarded

P-4 takes a route of main only if it is as long as a session's own (`suppress_prefixlength`) and
leads to a device in the group of admitted sessions' tunnels (`suppress_ifgroup` hides those in
nobody's group): a router advertisement, DHCP or an operator may put the client subnet, or one
client's address, on another link, where the kernel would look for it among the neighbours.

The default route of main is thus never asked for a packet of a client whose exit is a gateway
(where only clients are forwarded: whatever its source), nor for one that is sent to a client. Of
the exit `direct` T is main, and only what has our mark gets there.

A stray answer is what the host itself says to a flow that it no longer knows: a RST or ICMP error
that would tell the ISP where a client has been. By the gateway it would be right, but T may just
then have been given another gateway, and nobody misses it. Where only clients are forwarded nothing
else is, not even between this host's own networks: for what comes late to an address that it had
before, it would look for a neighbour, and tell the sender by the ISP that there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_network

from ocgate.names import BLACKHOLE_METRIC, MARK_MASK, NULL_DEVICE, NULL_TABLE, OTHERS_GROUP
from ocgate.plan import permitted
from ocgate.plan.exits import ExitKind, Steering
from ocgate.plan.facts import Family, Network
from ocgate.plan.intent import Intent
from ocgate.plan.model import PinnedNeighbour
from ocgate.plan.permitted import Permitted
from ocgate.plan.routing import (
    IPPROTO,
    TABLE_MAIN,
    Route,
    RouteKind,
    Rule,
    RuleAction,
)

FAMILIES: tuple[Family, ...] = (4, 6)

# Offsets from VPN_GATEWAY_RULE_PRIO; the drawing above tells them.
TO_CLIENT, NO_CLIENT, UNMARKED, UNMARKED_HELD, FROM_CLIENT, NO_TABLE = -4, -3, -2, -1, 0, 1
MARKED, MARKED_HELD, STRAY_ON_LINK, STRAY = 2, 3, 4, 5
FORWARDED = 101
FIRST, LAST = TO_CLIENT, FORWARDED

_DEFAULT: dict[Family, Network] = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
_ICMP: dict[Family, int] = {4: IPPROTO["icmp"], 6: IPPROTO["ipv6-icmp"]}


def routes(steering: Steering, networks: Iterable[Permitted] = ()) -> Iterator[Route]:
    """The gateways' table: the default route, and below it what holds when that is gone; the
    networks that clients reach beside it, so that no further rule is needed.

    `unreachable` and not `blackhole`, because only clients with their own mark get there: they
    shall notice at once.
    """
    given = tuple(networks)
    for family in FAMILIES:
        way = steering.of(family)
        if way.kind is ExitKind.DIRECT:
            continue
        if way.gateway is not None:
            # `onlink` for IPv6: its rules hide main's connected route from the check of a next hop
            # ("no route to host" otherwise).
            yield Route(
                _DEFAULT[family],
                table=steering.table,
                device=way.device,
                gateway=way.gateway,
                onlink=family == 6,
            )
        yield Route(
            _DEFAULT[family],
            RouteKind.UNREACHABLE,
            table=steering.table,
            metric=BLACKHOLE_METRIC,
        )
        yield from permitted.routes(permitted.of_family(given, family), table=steering.table)
    yield Route(_DEFAULT[4], table=NULL_TABLE, device=NULL_DEVICE)


def neighbours(steering: Steering) -> Iterator[PinnedNeighbour]:
    """The gateways that are pinned."""
    for family in FAMILIES:
        way = steering.of(family)
        if way.gateway is not None and way.device is not None and way.mac:
            yield PinnedNeighbour(way.gateway, way.device, way.mac)


def rules(intent: Intent, steering: Steering) -> tuple[Rule, ...]:
    """All of them, for its client subnets, in the order of their priorities."""
    owned: dict[Family, int] = {4: 32, 6: intent.prefix6}  # what a session has, as ocserv routes it
    nets = intent.all_subnets
    found = [
        *(rule for net in nets for rule in _of_subnet(steering, net, owned[net.version])),
        *(rule for family in FAMILIES for rule in _of_host(intent, steering, family)),
        *(_forwarded(steering) if steering.exclusive else ()),
    ]
    return tuple(sorted(found, key=lambda rule: (rule.family, rule.priority)))


def _of_subnet(steering: Steering, net: Network, owned: int) -> Iterator[Rule]:
    family, base = net.version, steering.priority
    yield Rule(
        family,
        base + TO_CLIENT,
        table=TABLE_MAIN,
        destination=net,
        suppress_prefixlength=owned - 1,
        suppress_ifgroup=OTHERS_GROUP,
    )
    yield Rule(family, base + NO_CLIENT, RuleAction.BLACKHOLE, destination=net)
    unmarked = Rule(family, base + UNMARKED, table=NULL_TABLE, source=net, fwmark=0, mask=MARK_MASK)
    if family == 4:  # IPv6 has no reverse path filter
        yield unmarked
    yield _held(unmarked, base + UNMARKED_HELD)
    yield Rule(family, base + FROM_CLIENT, table=_table(steering, family), source=net)
    yield Rule(family, base + NO_TABLE, RuleAction.BLACKHOLE, source=net)


def _of_host(intent: Intent, steering: Steering, family: Family) -> Iterator[Rule]:
    """What this host itself sends because of clients."""
    way, base = steering.of(family), steering.priority
    if way.kind is ExitKind.GATEWAY:
        marked = Rule(
            family, base + MARKED, table=steering.table, iif="lo", fwmark=way.mark, mask=MARK_MASK
        )
        yield marked
        yield _held(marked, base + MARKED_HELD)
    for stray in _strays(intent, steering, family):
        if stray.sport is None:  # ICMP tells neighbours of this host, too
            yield replace(
                stray,
                priority=base + STRAY_ON_LINK,
                action=RuleAction.LOOKUP,
                table=TABLE_MAIN,
                suppress_prefixlength=0,
            )
        yield stray


def _strays(intent: Intent, steering: Steering, family: Family) -> Iterator[Rule]:
    """By port alone where all of the host is ours, and so whatever address it has just now. On a
    shared host by address, too: a resolver there may ask from any port."""
    own = [ip_network(s.address) for s in steering.strays if s.address.version == family]
    answer = Rule(family, steering.priority + STRAY, RuleAction.BLACKHOLE, iif="lo")
    for source in [None] if steering.exclusive else own:
        for protocol in ("tcp", "udp"):
            yield replace(answer, source=source, ipproto=IPPROTO[protocol], sport=intent.ports)
    for source in own:
        yield replace(answer, source=source, ipproto=_ICMP[family])


def _forwarded(steering: Steering) -> Iterator[Rule]:
    """A blackhole: `prohibit` would answer forged sources with ICMP errors by the WAN."""
    for family in FAMILIES:
        yield Rule(
            family,
            steering.priority + FORWARDED,
            RuleAction.BLACKHOLE,
            inverted=True,
            iif="lo",
        )


def _held(rule: Rule, priority: int) -> Rule:
    """What holds the same packets when the table of `rule` has no answer."""
    return replace(rule, priority=priority, action=RuleAction.BLACKHOLE, table=None)


def _table(steering: Steering, family: Family) -> int:
    return TABLE_MAIN if steering.of(family).kind is ExitKind.DIRECT else steering.table
