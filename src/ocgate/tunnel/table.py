"""Table `inet ocgate_exit`: the kill switch's packet filter, lock 1. Pure; `killswitch`'s.

    docker network -> eth0
        prerouting (mangle)     the tunnel is not up, or not for this family: rejected here, before
                                routing, so that it holds whatever the forwarding sysctl says
        prerouting (nat)        TCP that begins nothing, of no flow: reset; port 53 -> the tunnel's
                                resolver
        input                   ping; the rest is rejected
        forward                 out by the tunnel: accepted; by anything else: rejected
        postrouting (srcnat)    masquerade to the tunnel's address
    tunnel -> tun0
        input, forward          what belongs to a flow that began on this side
    this host itself
        output (raw)            docker's resolver: closed but while bootstrapping
        output                  by the tunnel; the endpoint, by the client's uid alone; NETWORK;
                                answers to the docker networks

All policies that decide are `drop`: in this network namespace nothing is anybody else's business.
An accept by the uplink names address, protocol and port, and in no case "established" alone: a flow
that began by the tunnel must not go on by another way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ocgate.names import NFT_TABLE_EXIT
from ocgate.plan.carried import CAME_BACK
from ocgate.plan.facts import Address, Family, Network, collapsed
from ocgate.plan.first_packets import NO_ROUTE
from ocgate.plan.guard import NOT_BEYOND
from ocgate.plan.model import Chain, Hook, NftRule, Table
from ocgate.plan.reasons import PROHIBITED, RESET, count, reject
from ocgate.tunnel.model import Endpoint, ExitIntent
from ocgate.tunnel.reasons import REASONS, SENT

# Hook priorities, as numbers because nft releases name them differently (netfilter_ipv4.h).
RAW = -300  # before docker's own DNAT of its resolver's port (output, -100)
MANGLE = -150  # behind conntrack (-200), whose flow a reject's answer belongs to; before DNAT
DSTNAT = -100
FIRST = -101  # before what is translated
FILTER = 0
SRCNAT = 100

FAMILIES: tuple[Family, ...] = (4, 6)
IP: dict[Family, str] = {4: "ip", 6: "ip6"}
ICMP: dict[Family, str] = {4: "icmp", 6: "icmpv6"}

# Docker's embedded resolver. It asks others from the host's network namespace or by this one's
# uplink, as it pleases, and never through the tunnel.
DOCKER_RESOLVER = "127.0.0.11"

NEIGHBOUR_IN = "mld-listener-query, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert"
NEIGHBOUR_OUT = "nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert"
GROUPS_OUT = "mld-listener-report, mld-listener-done, mld2-listener-report"


def table(intent: ExitIntent) -> Table:
    """The table for this state of the exit; its chains are the same in every state."""
    chains = (
        Chain("prerouting", tuple(_prerouting(intent)), Hook("filter", "prerouting", MANGLE)),
        Chain("begins", tuple(_begins(intent)), Hook("nat", "prerouting", FIRST)),
        Chain("resolver", tuple(_redirects(intent)), Hook("nat", "prerouting", DSTNAT)),
        Chain("input", tuple(_input(intent)), Hook("filter", "input", FILTER, "drop")),
        Chain("forward", tuple(_forward(intent)), Hook("filter", "forward", FILTER, "drop")),
        Chain("into_tunnel", tuple(_into_tunnel(intent))),
        Chain("from_tunnel", tuple(_from_tunnel(intent))),
        Chain("docker", tuple(_docker(intent)), Hook("filter", "output", RAW)),
        Chain("output", tuple(_output(intent)), Hook("filter", "output", FILTER, "drop")),
        Chain("nat", tuple(_masquerade(intent)), Hook("nat", "postrouting", SRCNAT)),
    )
    return Table(NFT_TABLE_EXIT, chains, counters=(*REASONS, SENT, *CAME_BACK.values()))


# --- from the docker networks -----------------------------------------------------------------


def _prerouting(intent: ExitIntent) -> Iterator[NftRule]:
    """Not in forward alone: a packet that has no route or no forwarding never reaches that hook,
    and would be dropped without a word."""
    yield NftRule('iifname "lo" accept', "this host with itself")
    yield NftRule(f"iifname {_tunnel(intent)} accept", "asked in input and forward")
    if intent.redirects:
        for family in FAMILIES:
            if intent.carries(family) and _resolver(intent, family) is None:
                yield from _unanswered(intent, family)
    yield NftRule("fib daddr type { local, broadcast, multicast } accept", "not to be forwarded")
    yield from _closed(intent)


def _unanswered(intent: ExitIntent, family: Family) -> Iterator[NftRule]:
    why = REASONS["no_resolver"]
    for match in _each(family, "saddr", intent.inside(family)):
        yield NftRule(f"{match} tcp dport 53 {count('no_resolver')} {RESET}", why)
        yield NftRule(f"{match} udp dport 53 {count('no_resolver')} {PROHIBITED}", why)


# What belongs to no connection that is about to begin.
_BEGUN = "tcp flags != syn / syn,ack"


def _told(match: str, reason: str, why: str) -> tuple[NftRule, NftRule]:
    """A block that is noticed at once: a TCP connection that exists, and waits no longer for the
    next tunnel, gets a RST, all else admin-prohibited, the first packet of a connection too. A RST
    for that one would look like the other end's, and so like a proof that the way works: to the
    probes of a VPN server in front.
    (Only where the state passes: Linux hears of an ICMPv6 error within its own connect(2), from a
    container on the same host, at the next SYN, a second later.)"""
    words = f"{match} "
    return (
        NftRule(f"{words}{_BEGUN} {count(reason)} {RESET}", why),
        NftRule(f"{words}{count(reason)} {PROHIBITED}", why),
    )


def _closed(intent: ExitIntent) -> Iterator[NftRule]:
    """Flows that exist wait for the next tunnel, if it is not too long in coming: they are told so
    in a way that ends none of them, and by which TCP tries on (`plan.first_packets`)."""
    for family in FAMILIES:
        if intent.waits(family):
            for match in _each(family, "saddr", intent.inside(family)):
                held = f"ct state established {match} {count('tunnel_down')} {NO_ROUTE}"
                yield NftRule(held, "a flow that exists: the next tunnel may carry it on")
        if not intent.carries(family):
            up = intent.carried is not None and family == 6
            reason = "ipv6_not_carried" if up else "tunnel_down"
            refuse = reject if up else _told
            for match in _each(family, "saddr", intent.inside(family)):
                yield from refuse(match, reason, REASONS[reason])


def _begins(intent: ExitIntent) -> Iterator[NftRule]:
    """A chain of type nat meets a flow's first packet alone. TCP of a flow that is forgotten, since
    the tunnel has another address now, would reach its far end as a stranger's, and perhaps a
    firewall that says nothing to that."""
    for family in FAMILIES:
        if intent.carries(family):
            for match in _each(family, "saddr", intent.inside(family)):
                where = f"iifname != {_tunnel(intent)} {match} {_BEGUN}"
                yield NftRule(f"{where} {count('invalid')} {RESET}", "of no flow any more")


def _redirects(intent: ExitIntent) -> Iterator[NftRule]:
    """Whichever resolver was asked, this host's own address included."""
    for family in FAMILIES:
        to = _resolver(intent, family)
        if to is None or not intent.redirects:
            continue
        for match in _each(family, "saddr", intent.inside(family)):
            for proto in ("udp", "tcp"):
                yield NftRule(
                    f"iifname != {_tunnel(intent)} {match} {proto} dport 53 "
                    f"dnat {IP[family]} to {to}",
                    "DNS: the tunnel's resolver",
                )


def _forward(intent: ExitIntent) -> Iterator[NftRule]:
    yield NftRule(f"iifname {_tunnel(intent)} goto from_tunnel", "answers, and nothing else")
    yield from _told(f"oifname != {_tunnel(intent)}", "by_uplink", "the tunnel is the only way")
    yield NftRule(f"ct state invalid {count('invalid')} drop", "would not be translated")
    for family in FAMILIES:
        if intent.carries(family):
            for match in _each(family, "saddr", intent.inside(family)):
                yield NftRule(f"{match} goto into_tunnel", "may use the tunnel")
    yield from _closed(intent)
    yield NftRule(f"{count('not_allowed')} drop", REASONS["not_allowed"])


def _into_tunnel(intent: ExitIntent) -> Iterator[NftRule]:
    for family in FAMILIES:
        local = [n for n in (*intent.local, *intent.networks) if n.version == family]
        for match in _each(family, "daddr", collapsed([*NOT_BEYOND[family], *local])):
            yield from reject(match, "local_destination", REASONS["local_destination"])
    yield _clamped()
    yield NftRule(
        f"oifname {_tunnel(intent)} {count(SENT)} accept", "by the tunnel, and nothing else"
    )


def _from_tunnel(intent: ExitIntent) -> Iterator[NftRule]:
    """By direction, too: what the provider began while this table was gone is a flow as well."""
    yield _clamped()
    for family in FAMILIES:
        if intent.carries(family):
            for match in _each(family, "daddr", intent.inside(family)):
                held = f"oifname != {_tunnel(intent)} {match} ct direction reply ct state"
                why = "answers to who may use the tunnel"
                yield NftRule(f"{held} established {count(CAME_BACK[family])} accept", why)
                yield NftRule(f"{held} related accept", why)
    yield NftRule(f"{count('unsolicited')} drop", REASONS["unsolicited"])


def _clamped() -> NftRule:
    """`rt mtu` is the lesser of the ways there and back (nft_rt.c, get_tcpmss), so one rule serves
    both directions, and follows the tunnel's MTU by itself."""
    return NftRule(
        "tcp flags syn / syn,rst tcp option maxseg size set rt mtu", "TCP fits the tunnel"
    )


# --- this host itself -------------------------------------------------------------------------


def _input(intent: ExitIntent) -> Iterator[NftRule]:
    yield NftRule('iifname "lo" accept', "this host with itself")
    for match in ("icmp type redirect", "icmpv6 type nd-redirect"):  # before what is related
        yield NftRule(f"{match} {count('redirects')} drop", REASONS["redirects"])
    closed, why = f"{count('input_closed')} drop", "nothing listens in the tunnel"
    yield NftRule(f"iifname {_tunnel(intent)} ct direction original {closed}", why)  # as there
    yield NftRule("ct state established,related accept", "answers to this host")
    yield NftRule(f"iifname {_tunnel(intent)} {closed}", why)
    yield NftRule(f"icmpv6 type {{ {NEIGHBOUR_IN} }} accept", "IPv6 neighbours")
    for family in FAMILIES:
        for match in _each(family, "saddr", _neighbours(intent, family)):
            yield NftRule(f"{match} {ICMP[family]} type echo-request accept", "ping of the exit")
    for family in FAMILIES:
        for match in _each(family, "saddr", intent.inside(family)):
            yield from reject(match, "input_closed", REASONS["input_closed"])
    yield NftRule(f"{count('input_closed')} drop", REASONS["input_closed"])


def _output(intent: ExitIntent) -> Iterator[NftRule]:
    yield NftRule('oifname "lo" accept', "this host with itself")
    yield NftRule(f"oifname {_tunnel(intent)} accept", "through the tunnel")
    if intent.endpoint is not None:
        for match in _towards(intent.endpoint):
            yield NftRule(
                f"oifname != {_tunnel(intent)} {match}{_uid(intent.client_uid)} accept",
                "the endpoint, and nobody else",
            )
    yield from _bootstrap(intent)
    for family in FAMILIES:
        for match in _each(family, "daddr", intent.direct(family)):
            yield NftRule(f"{match} accept", "NETWORK: reached without the tunnel")
    for family in FAMILIES:
        for match in _each(family, "daddr", _neighbours(intent, family)):
            yield NftRule(
                f"{match} ct state established,related ct direction reply accept",
                "answers to the local networks, and errors",
            )
    yield NftRule(
        f"icmpv6 type {{ {NEIGHBOUR_OUT} }} ip6 hoplimit 255 accept",
        "IPv6 neighbours: on-link only",
    )
    yield NftRule(f"icmpv6 type {{ {GROUPS_OUT} }} ip6 daddr ff02::/16 accept", "their groups")
    yield from reject("", "output_closed", REASONS["output_closed"])


def _bootstrap(intent: ExitIntent) -> Iterator[NftRule]:
    """For root alone, which is control and, where docker's resolver asks from here, docker."""
    opened = intent.bootstrap
    if opened is None:
        return
    resolvers = [Endpoint(a, 53, ("udp", "tcp")) for a in opened.resolvers if not a.is_loopback]
    for endpoint in (*resolvers, *opened.services):
        for match in _towards(endpoint):
            yield NftRule(
                f"oifname != {_tunnel(intent)} {match}{_uid(0)} accept", "bootstrap, by root alone"
            )


def _docker(intent: ExitIntent) -> Iterator[NftRule]:
    if intent.bootstrap is not None and any(
        str(address) == DOCKER_RESOLVER for address in intent.bootstrap.resolvers
    ):
        for proto in ("udp", "tcp"):
            yield NftRule(
                f"ip daddr {DOCKER_RESOLVER} {proto} dport 53{_uid(0)} accept",
                "bootstrap, by root alone",
            )
    yield from reject(f"ip daddr {DOCKER_RESOLVER}", "resolver_closed", REASONS["resolver_closed"])


def _masquerade(intent: ExitIntent) -> Iterator[NftRule]:
    """Masquerade and never explicit snat: it forgets its flows when the tunnel's address goes."""
    yield NftRule(f"oifname {_tunnel(intent)} masquerade fully-random", "to the tunnel's address")


# --- words ------------------------------------------------------------------------------------


def _towards(endpoint: Endpoint) -> Iterator[str]:
    for proto in sorted(set(endpoint.protocols)):
        ip = IP[endpoint.address.version]
        yield f"{ip} daddr {endpoint.address} {proto} dport {endpoint.port}"


def _uid(uid: int | None) -> str:
    return "" if uid is None else f" meta skuid {uid}"


def _tunnel(intent: ExitIntent) -> str:
    return f'"{intent.device}"'


def _resolver(intent: ExitIntent, family: Family) -> Address | None:
    return None if intent.carried is None else intent.carried.resolver(family)


def _neighbours(intent: ExitIntent, family: Family) -> list[Network]:
    return collapsed([*intent.inside(family), *intent.direct(family)])


def _each(family: Family, side: str, networks: Iterable[Network]) -> Iterator[str]:
    """One match for all of them, in nft's own spelling; none where there are none."""
    members = [str(n.network_address if n.num_addresses == 1 else n) for n in networks]
    if len(members) == 1:
        yield f"{IP[family]} {side} {members[0]}"
    elif members:
        yield f"{IP[family]} {side} {{ {', '.join(members)} }}"
