"""Table `inet ocserv_limits`: how many flows one session may have. Pure; the planner's.

    client -> tun vpnsN
        prerouting (nat)   a flow's first packet: is its session below its limits?
                           no: rejected, counted, the session noted in @limited

A chain of type nat meets the first packet of a flow and no other, and the kernel's own part of NAT
looks at every packet anyway: a flow that exists pays nothing (bench/run packets). What is rejected
here is never confirmed, so it stays in no table. Before it stand the checks of `inet ocserv`, which
drop forged sources, so that a device is its session, whatever addresses of a prefix it uses.

Three limits, because each lets something through that the others hold:

    flows         conntrack entries at the same time, of any protocol and state but closed TCP
    rate          new flows, as many as would fill that if each lived as long as an unanswered
                  datagram's. Holds closed TCP, which nf_conncount does not count but which keeps
                  its entry and translated port for two minutes (TIME_WAIT)
    destination   the same two towards one address, port and protocol, by the translated ports
                  there are: they are what everybody shares

What a limit was when an element came to be stays in it. So sets are named by their figures: where
a reload changes these, the sets are others, and sets of the same figures keep what they know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, sqrt

from ocgate.names import NFT_TABLE_LIMITS
from ocgate.plan.facts import Family
from ocgate.plan.intent import Intent
from ocgate.plan.model import Chain, Hook, NftRule, NftSet, Table
from ocgate.plan.reasons import LIMIT_COUNTERS, MARKED, reject

# The first of all nat chains (-200 is conntrack's): one that translates ends the walk.
BEFORE_NAT = -199

# Seconds that conntrack keeps a datagram without an answer (nf_conntrack_proto_udp.c: 30), rounded
# up: the shortest life of a flow that nothing ends.
SHORTEST_LIFE = 32

# nf_conncount looks at every flow of a list when one is added, once a tick: 2 ms at 4,000 flows. So
# a session's flows are counted in 16 lists, chosen by what the kernel itself draws (`ct id`): 0.2
# ms. Below 512 flows there is no need, and one list is exact.
LISTS = 16
LONGEST_LIST = 512
# A list's share is met by chance long before the session's limit: four standard deviations more
# let 4,096 flows begin before the first is refused, and at most 5,120.
DEVIATIONS = 4

# Towards one destination. In the two minutes that conntrack keeps a port for a closed connection or
# an answered datagram's stream (nf_conntrack_proto_tcp.c, _udp.c) that makes a third of the ports:
# 1/8 at once, then 120/512. Of open ones not more than a quarter.
BURST_SHARE, RATE_SHARE, OPEN_SHARE = 8, 512, 4

# Elements. One session has LISTS of the first kind; of the second as many as destinations within
# KEPT, which its rate bounds. Where a set is full, that limit is not asked: the others are.
MOST_DEVICES = 65_536
MOST_LISTS, MOST_DESTINATIONS = 1_048_576, 262_144
KEPT = "1m"  # a bucket that was not asked for so long is full again (burst / rate, 64 s)
NOTED = "5m"  # how long status tells which sessions met a limit

LIMITED = "limited"


@dataclass(frozen=True)
class _Bucket:
    """A rate a second, and how many may come at once."""

    rate: int
    burst: int

    def __str__(self) -> str:
        return f"limit rate over {self.rate}/second burst {self.burst} packets"

    @property
    def name(self) -> str:
        return f"{self.rate}_{self.burst}"


def limits(intent: Intent) -> Table:
    """The table for `intent.session_flows`, which is not 0."""
    rate, lists = _rate(intent.session_flows), _lists(intent.session_flows)
    sets = [
        NftSet(LIMITED, "iifname", MOST_DEVICES, NOTED),
        NftSet(f"rate_{rate.name}", "iifname", MOST_DEVICES, NOTED),
        NftSet(f"flows_{lists.share}", "iifname . ct id", MOST_LISTS),
    ]
    rules = [
        NftRule(f"update @rate_{rate.name} {{ iifname {rate} }} goto too_fast", "new flows"),
        NftRule(
            f"add @flows_{lists.share} {{ iifname . (ct id & {lists.number - 1}) "
            f"ct count over {lists.share} }} goto too_many",
            "flows at the same time",
        ),
    ]
    for family in (4, 6):
        own_sets, own_rules = _destination(intent, family)
        sets += own_sets
        rules += own_rules
    begins = NftRule(f'iifname "{intent.device}*" {MARKED} goto new_flow', "a client's flow begins")
    chains = (
        Chain("begins", (begins,), Hook("nat", "prerouting", BEFORE_NAT)),
        Chain("new_flow", tuple(rules)),
        Chain("too_fast", tuple(_refused("flow_rate"))),
        Chain("too_many", tuple(_refused("flow_limit"))),
        Chain("crowding", tuple(_refused("destination_limit"))),
    )
    return Table(NFT_TABLE_LIMITS, chains, counters=tuple(LIMIT_COUNTERS), sets=tuple(sets))


@dataclass(frozen=True)
class _Lists:
    """In how many lists a session's flows are counted, and how many each may hold."""

    number: int
    share: int


def _lists(flows: int) -> _Lists:
    if flows <= LONGEST_LIST:
        return _Lists(1, flows)
    mean = flows / LISTS
    return _Lists(LISTS, ceil(mean + DEVIATIONS * sqrt(mean)))


def _rate(flows: int) -> _Bucket:
    return _Bucket(max(1, flows // SHORTEST_LIFE), flows)


def at_most(flows: int) -> int:
    """Flows that a session with this limit can have: its lists, all full."""
    lists = _lists(flows)
    return lists.number * lists.share


def shared_ports(intent: Intent) -> int:
    """To how many ports clients' flows towards one destination are translated."""
    first, last = intent.ports
    return last - first + 1


def _destination(intent: Intent, family: Family) -> tuple[list[NftSet], list[NftRule]]:
    ports, ip = shared_ports(intent), "ip" if family == 4 else "ip6"
    bucket = _Bucket(max(1, ports // RATE_SHARE), max(1, ports // BURST_SHARE))
    key = f"iifname . {ip} daddr . meta l4proto . th dport"
    match = "meta l4proto { tcp, udp }"  # of the family that the address in the key says
    name = f"towards{family}_{bucket.name}"
    sets = [NftSet(name, key, MOST_DESTINATIONS, KEPT)]
    why = f"IPv{family}: a share of the ports to one destination"
    rules = [NftRule(f"{match} update @{name} {{ {key} {bucket} }} goto crowding", why)]
    share = ports // OPEN_SHARE
    if share < at_most(intent.session_flows):
        name = f"open{family}_{share}"
        sets.append(NftSet(name, key, MOST_DESTINATIONS))
        rules.append(
            NftRule(f"{match} add @{name} {{ {key} ct count over {share} }} goto crowding", why)
        )
    return sets, rules


def _refused(reason: str) -> Iterator[NftRule]:
    yield NftRule(f"update @{LIMITED} {{ iifname }}", "named in status")
    yield from reject("", reason, LIMIT_COUNTERS[reason])
