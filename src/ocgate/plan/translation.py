"""How clients' flows are translated: chain `nat` of table `inet ocserv`. Pure; the planner's.

Only the first packet of a flow comes by here. Each flow gets one of the ports that no socket of
this host listens on or sends from (`server.desired.flow_ports` chooses them), whatever exit it
leaves by.
"""

from __future__ import annotations

from collections.abc import Iterator

from ocgate.plan import permitted
from ocgate.plan.exits import Exit, ExitKind
from ocgate.plan.facts import Family, Network
from ocgate.plan.intent import Intent
from ocgate.plan.ipv6 import Ipv6Path
from ocgate.plan.model import Chain, Hook, NftRule
from ocgate.plan.reasons import COUNTERS, PROHIBITED, count

# Before other programs' NAT, which is at srcnat (100) or later: of two chains at the same priority
# the one that was added last runs first, and the first that translates a flow decides. A masquerade
# of the client subnets that an installer left, without a range of ports, would be a port shadow.
BEFORE_SRCNAT = 90

# ICMP that begins a flow. An answer to it is of another type, so that what somebody asks of this
# host is never taken for one, whatever id the client has chosen.
_ASKS: dict[Family, str] = {
    4: "icmp type { echo-request, timestamp-request }",
    6: "icmpv6 type echo-request",
}


# What can be kept apart from this host's own flows; in the order in which nft lists them.
_WITH_PORTS_OR_IDS: dict[Family, str] = {
    4: "{ icmp, tcp, udp, sctp }",
    6: "{ tcp, udp, ipv6-icmp, sctp }",
}


def refused(intent: Intent) -> Iterator[NftRule]:
    """In forward, so that a client hears at once of what chain `nat` would only drop."""
    for way in intent.exits:
        if way.usable and is_translated(intent, way):
            kinds = f"meta nfproto ipv{way.family} meta l4proto != {_WITH_PORTS_OR_IDS[way.family]}"
            yield NftRule(f"{kinds} {count('portless')} {PROHIBITED}", COUNTERS["portless"])


def nat(intent: Intent) -> Chain:
    """Masquerade and never explicit snat: when the way changes, masquerade drops the old flow;
    snat would go on with the old address (8 of 8 measured with the wrong source)."""
    rules = [
        rule
        for family, match in permitted.to_translate(intent.networks, intent.all_subnets)
        for rule in _by_own_ports(intent, match, family, "a permitted network")
    ]
    rules += [
        rule
        for way in intent.exits
        if way.usable
        for net in intent.subnets(way.family)
        for rule in _masquerade(intent, way, net)
    ]
    return Chain("nat", tuple(rules), Hook("nat", "postrouting", BEFORE_SRCNAT))


def _masquerade(intent: Intent, way: Exit, net: Network) -> Iterator[NftRule]:
    if not is_translated(intent, way):
        return
    ip = "ip" if way.family == 4 else "ip6"
    match = f'oifname "{way.device}" {ip} saddr {net}'
    yield from _by_own_ports(intent, match, way.family, f"exit {way.kind.value}")


def is_translated(intent: Intent, way: Exit) -> bool:
    """All but IPv6 that is routed to the clients' own addresses."""
    return way.family == 4 or way.kind is not ExitKind.DIRECT or intent.ipv6 is Ipv6Path.NAT66


def _by_own_ports(intent: Intent, match: str, family: Family, to: str) -> Iterator[NftRule]:
    """By a port at random: one that is kept where it is free passes, when flows were cut, to
    whoever uses the same one next, and with it what a server still sends to the flow before.

    And by ports of clients' flows alone. Without a range the kernel draws for a client's port below
    512 one below 512 (net/netfilter/nf_nat_core.c), the listener's 443 among them, and the client
    owns what its destination then sends to the listener. What has no ports can't be kept apart so:
    it would own the same of this host's tunnels (GRE, ESP, 6in4); nor has what not every kernel
    translates by port (DCCP, UDP-Lite).
    """
    first, last = intent.ports
    yield NftRule(
        f"{match} meta l4proto {{ tcp, udp, sctp }} masquerade to :{first}-{last} fully-random",
        f"{to}, by ports that no socket of this host has",
    )
    yield NftRule(f"{match} {_ASKS[family]} masquerade fully-random", "told apart by their ids")
    yield NftRule(f"{match} {count('portless')} drop", COUNTERS["portless"])
