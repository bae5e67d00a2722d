"""Further networks that clients may reach, each by its own interface: rules, routes, reasons.

Pure; the planner's. A permission narrows: a packet for such a network is accepted by that interface
alone and refused by any other, before the exit's own rules are asked. So it never leaves by the
exit or the ISP, whatever a route says just now.

    table `inet ocserv`      from_client: rejected at once while the interface is away; let through
                             also while the exit is closed
                             networks: by its interface accepted and counted, else rejected
                             forward_to_client: answers of flows that clients began to it
                             nat: translated to this host's address there
    table `inet ocserv_gw`   networks: the same question, before that of the next hop
    main, the gateways' table    the network's route, and below it `unreachable`, which holds when
                             the route or the interface is gone, also without any ruleset
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ocgate.names import BLACKHOLE_METRIC
from ocgate.plan.facts import Address, Family, Network, collapsed
from ocgate.plan.model import Chain, NftRule
from ocgate.plan.reasons import NETWORK_COUNTERS, count, reject, unmarked
from ocgate.plan.routing import TABLE_MAIN, Route, RouteKind

CHAIN = "networks"

# One above the `unreachable` of the same prefix: every other route of main wins, the operator's and
# the kernel's own of an attached network.
ROUTE_METRIC = BLACKHOLE_METRIC - 1


@dataclass(frozen=True)
class Permitted:
    """One network, as it can be put into the kernel now.

    via:     the router on the interface's network; None: the network is the interface's own.
    missing: '' while it can be reached, else why not, one clause.
    """

    network: Network
    device: str
    via: Address | None = None
    missing: str = ""

    @property
    def usable(self) -> bool:
        """Whether clients' packets are forwarded to it now."""
        return not self.missing

    @property
    def counter(self) -> str:
        """The name of the nft counter of what clients send there; colons are no part of one."""
        return "network_" + str(self.network).replace("/", "_").replace(":", "_")

    def __str__(self) -> str:
        via = f"via {self.via} " if self.via else ""
        return f"{self.network} {via}dev {self.device}"


def counters(networks: Iterable[Permitted]) -> tuple[str, ...]:
    """Counters of table `inet ocserv` for these."""
    found = tuple(net.counter for net in networks)
    return (*NETWORK_COUNTERS, *found) if found else ()


def of_family(networks: Iterable[Permitted], family: Family) -> tuple[Permitted, ...]:
    """Those of one family."""
    return tuple(net for net in networks if net.network.version == family)


def gates(networks: Iterable[Permitted]) -> Iterator[NftRule]:
    """What is for one of them is asked there, and nowhere else."""
    for family in (4, 6):
        nets = collapsed(net.network for net in networks if net.network.version == family)
        if nets:
            members = ", ".join(_member(net) for net in nets)
            to = members if len(nets) == 1 else f"{{ {members} }}"  # as nft lists it
            yield NftRule(f"{_ip(family)} daddr {to} goto {CHAIN}", "networks beside the exit")


def chain(networks: tuple[Permitted, ...], *, counted: bool) -> Iterator[Chain]:
    """Accepts by network and interface, and by nothing else; none without networks. counted: with
    the network's own counter. The mark says that anti-spoofing has seen the packet."""
    if not networks:
        return
    rules = [unmarked()]
    rules += [
        NftRule(
            f"{_by_its_way(net)} " + (f"{count(net.counter)} accept" if counted else "accept"),
            "a permitted network, by its own way",
        )
        for net in networks
        if net.usable
    ]
    rules += reject("", "network_closed", NETWORK_COUNTERS["network_closed"])
    yield Chain(CHAIN, tuple(rules))


def before_exit(networks: Iterable[Permitted], owner: str, *, apart: bool) -> Iterator[NftRule]:
    """In `from_client`, of one family. What can't be reached is rejected here, because a packet
    without a route never reaches forward, and would be answered without being counted. apart: it is
    let through here; the exit is closed to what comes next, or counts it."""
    for net in networks:
        if not net.usable:
            yield from reject(
                f"{towards(net)} {owner}", "network_closed", "its interface or route is away"
            )
        elif apart:
            yield NftRule(f"{towards(net)} {owner} accept", "a permitted network needs no exit")


def answers(networks: Iterable[Permitted], receiver: dict[int, str]) -> Iterator[NftRule]:
    """Of flows that began towards the network, errors of its routers included. receiver: the
    look-up of the session that gets it, by family."""
    for net in networks:
        if net.usable:
            family = net.network.version
            yield NftRule(
                f'iifname "{net.device}" ct original {_ip(family)} daddr {net.network} '
                f"ct state established,related meta mark set {receiver[family]} accept",
                "answers of a permitted network",
            )


def from_host(networks: Iterable[Permitted]) -> Iterator[NftRule]:
    """ICMP errors about clients' flows, which this host sends with the exit's mark."""
    for net in networks:
        if net.usable:
            yield NftRule(f"{_by_its_way(net)} accept", "a permitted network")


def to_translate(
    networks: Iterable[Permitted], subnets: Iterable[Network]
) -> Iterator[tuple[Family, str]]:
    """Family and match of what is translated to this host's address on the network's interface.
    Also where IPv6 is routed: nobody there knows a route to the clients."""
    nets = tuple(subnets)
    for net in networks:
        for subnet in nets:
            if net.usable and subnet.version == net.network.version:
                ip = _ip(subnet.version)
                yield subnet.version, f'oifname "{net.device}" {ip} saddr {subnet} {towards(net)}'


def routes(networks: Iterable[Permitted], *, table: int = TABLE_MAIN) -> Iterator[Route]:
    """Of one table. `onlink`: the router is taken for reachable on its interface, since policy
    rules hide main's connected routes, and no route of ours shall be refused for its absence."""
    for net in networks:
        if net.usable:
            yield Route(
                net.network,
                table=table,
                metric=ROUTE_METRIC,
                device=net.device,
                gateway=net.via,
                onlink=net.via is not None,
            )
        yield Route(net.network, RouteKind.UNREACHABLE, table=table, metric=BLACKHOLE_METRIC)


def _by_its_way(net: Permitted) -> str:
    """By next hop, too: where the exit is reached by the same interface, the interface alone would
    let packets go to the exit once somebody has taken the network's route. What is on the link has
    itself for a next hop (nft_rt.c)."""
    hop = net.via or _member(net.network)
    return f'{towards(net)} oifname "{net.device}" rt {_ip(net.network.version)} nexthop {hop}'


def towards(net: Permitted) -> str:
    """The match of what is for it."""
    return f"{_ip(net.network.version)} daddr {_member(net.network)}"


def _member(net: Network) -> str:
    """As nft lists it."""
    return str(net.network_address if net.num_addresses == 1 else net)


def _ip(family: int) -> str:
    return "ip" if family == 4 else "ip6"
