"""Table `inet ocserv_gw`: the guard of gateway mode, part of lock 1.

Pure; the planner's. A client's packet is forwarded only to the next hop of its exit: `rt nexthop`
is in the forward hook what policy routing has chosen, and the destination itself for what is on a
network of this host, so that its neighbours are closed, too. The guard asks before any chain that
accepts established flows, for a flow that began by the right exit must not go on by another.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from ocgate.names import MARK_GATEWAY, MARK_MASK, NFT_TABLE_GATEWAY
from ocgate.plan import permitted
from ocgate.plan.exits import Exit, ExitKind, Steering
from ocgate.plan.facts import WHOLE_TTLS, Address, Family, Network, collapsed, remaining
from ocgate.plan.intent import Intent
from ocgate.plan.model import Chain, Hook, NftRule, Table
from ocgate.plan.reasons import GUARD_COUNTERS, NETWORK_COUNTERS, count, reject, unmarked

# Before `inet ocserv` (0), so that nothing it accepts is unasked. Not far before: others' chains
# at the usual priorities (docker's and firewalld's 0, -150) still see what is refused here.
BEFORE_FILTER = -10
MANGLE = -150  # netfilter_ipv4.h; where `type route` chains sit

LINK_LOCAL4: tuple[Network, ...] = (ip_network("169.254.0.0/16"),)  # clouds' metadata

# Never by a gateway: addresses that mean something on this host's own links only. Private networks
# beyond these are allowed, because a company's network may be what the upstream is for.
NOT_BEYOND: dict[int, tuple[Network, ...]] = {
    4: tuple(
        ip_network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
    ),
    # :: and ::1. The kernel forwards what is for ::, with a link-local source after masquerade.
    6: tuple(ip_network(text) for text in ("::/127", "fe80::/10", "ff00::/8")),
}


def guard(intent: Intent, steering: Steering) -> Table:
    """The table for these exits."""
    ways = (steering.exit4, steering.exit6)
    gateways = [way for way in ways if way.kind is ExitKind.GATEWAY]
    forward = [
        NftRule(f'iifname "{intent.device}*" goto guard', "clients: to their exit's next hop"),
        *_former(steering),
    ]
    chains = (
        Chain("forward", tuple(forward), Hook("filter", "forward", BEFORE_FILTER)),
        Chain("guard", tuple(_guard(intent, steering))),
        *permitted.chain(intent.networks, counted=False),
        Chain("input", tuple(_input(intent, steering)), Hook("filter", "input", BEFORE_FILTER)),
        Chain("output", tuple(_output(intent, gateways)), Hook("route", "output", MANGLE)),
        Chain(
            "output_held",
            (
                *permitted.from_host(intent.networks),
                *_marked(intent, gateways),
                *_unmarked(intent, steering),
            ),
            Hook("filter", "output", BEFORE_FILTER),
        ),
    )
    counters = GUARD_COUNTERS | (NETWORK_COUNTERS if intent.networks else {})
    return Table(NFT_TABLE_GATEWAY, chains, counters=tuple(counters))


def _former(steering: Steering) -> Iterator[NftRule]:
    """What is forwarded to an address of this host comes late, for one that it had before: there is
    no such neighbour, which the sender, a client's destination, would be told by the ISP."""
    for version, ip in ((4, "ip"), (6, "ip6")):
        own = sorted({s.address for s in steering.strays if s.address.version == version}, key=int)
        if own:
            members = ", ".join(map(str, own))
            to = members if len(own) == 1 else f"{{ {members} }}"  # as nft lists it
            yield NftRule(f"{ip} daddr {to} {count('stray')} drop", "a former address")


def _guard(intent: Intent, steering: Steering) -> Iterator[NftRule]:
    """A flow that exists is asked for its next hop alone: where it goes was asked of its first
    packet. Whatever could have let it begin otherwise cuts it (`server.reconcile.reconciler`,
    _forget_closed). A permitted network is asked of every packet: with its own route gone another
    would lead on."""
    ways = (steering.exit4, steering.exit6)
    yield from permitted.gates(intent.networks)
    yield from (existing(_allowed(way)) for way in ways if way.carries)
    yield unmarked()
    yield from reject(f'oifname "{intent.device}*"', "between_clients", "clients are apart")
    for way in ways:
        if steering.closes_local(way.family):
            yield from _local(intent, way)
    for way in ways:
        if way.usable:
            yield _allowed(way)
    yield from reject("", "wrong_exit", GUARD_COUNTERS["wrong_exit"])


def not_for_clients(intent: Intent) -> tuple[Network, ...]:
    """Destinations that the first packet of a flow is refused for, and others are not asked."""
    families: tuple[Family, ...] = (4, 6)
    closed = list(LINK_LOCAL4)
    for family in families:
        if intent.steering is not None and intent.steering.closes_local(family):
            closed += [*NOT_BEYOND[family], *(n for n in intent.local if n.version == family)]
    open_to = [net.network for net in intent.networks]
    return tuple(rest for net in collapsed(closed) for rest in remaining(net, open_to))


def _local(intent: Intent, way: Exit) -> Iterator[NftRule]:
    """Networks of this host are no way out, but for a pushed resolver that is the gateway."""
    ip, mark = _ip(way), f"meta mark 0x{way.mark:08x}"
    if way.usable and way.gateway in intent.pushed:
        for proto in ("udp", "tcp"):
            yield NftRule(
                f"{mark} {ip} daddr {way.gateway} {proto} dport 53 {next_hop(way)}",
                "the pushed resolver, which is the gateway",
            )
    match = f"{mark} {ip} daddr {local_networks(intent, way.family)}"
    yield from reject(match, "local_destination", "networks of this host")


def local_networks(intent: Intent, family: Family) -> str:
    """What is no destination by a gateway, nor beside one, as a set."""
    nets = [*NOT_BEYOND[family], *(n for n in intent.local if n.version == family)]
    return "{ " + ", ".join(_member(net) for net in collapsed(nets)) + " }"


def _member(net: Network) -> str:
    """As nft lists it in a set."""
    return str(net.network_address if net.num_addresses == 1 else net)


def _allowed(way: Exit) -> NftRule:
    if way.kind is ExitKind.DIRECT:
        family = "ipv4" if way.family == 4 else "ipv6"
        return NftRule(
            f'meta mark 0x{way.mark:08x} meta nfproto {family} oifname "{way.device}" accept',
            "exit direct",
        )
    return NftRule(next_hop(way), "the gateway, and nobody else")


def existing(accepts: NftRule) -> NftRule:
    """The same for a flow that exists, and for nothing else: what is new, related to a flow,
    invalid or untracked goes on to be asked everything."""
    return NftRule(f"ct state established {accepts.match}", f"{accepts.why}: a flow that exists")


def next_hop(way: Exit) -> str:
    """Accepts what goes to the gateway. One look-up, however many exits there are: named ones
    become further elements."""
    if way.gateway is None or way.device is None:
        raise ValueError(f"IPv{way.family}: an exit without next hop is in no guard")
    element = f'0x{way.mark:08x} . "{way.device}" . {way.gateway} : accept'
    return f"meta mark . oifname . rt {_ip(way)} nexthop vmap {{ {element} }}"


def _input(intent: Intent, steering: Steering) -> Iterator[NftRule]:
    """What comes back for a flow that was forgotten would be answered by this host, towards the
    destinations of a client, by the way that the host itself has. By interface only on a shared
    host, where something of others may listen on a high port. Ports before names: most packets of
    the listener fail these. What comes by a tunnel is a client's, and refused further on. A reset
    is an answer to a probe, but one whose time to live nobody has lessened is the gateway's own:
    its firewall may reject so while its tunnel is down."""
    first, last = intent.ports
    if steering.exclusive:
        where = [f'iifname != "lo" iifname != "{intent.device}*"']
    else:
        where = [f'iifname "{name}"' for name in sorted({s.device for s in steering.strays})]
    for match in where:
        for proto in ("tcp", "udp"):
            yield NftRule(
                f"{proto} dport {first}-{last} {match} "
                f"ct state {{ invalid, new, untracked }} {count('stray')} drop",
                "of no flow any more",
            )
    whole = ", ".join(map(str, WHOLE_TTLS))
    for way in (steering.exit4, steering.exit6):
        if way.kind is ExitKind.GATEWAY and way.device is not None:
            hops = "ip ttl" if way.family == 4 else "ip6 hoplimit"
            yield NftRule(
                f"tcp dport {first}-{last} tcp flags rst {hops} {{ {whole} }} "
                f'iifname "{way.device}" {count("gateway_reset")} drop',
                "the gateway's own no, in a target's name",
            )


def _output(intent: Intent, gateways: list[Exit]) -> Iterator[NftRule]:
    """ICMP errors about clients' flows ("packet too big" for a server) go by the exit that the flow
    goes by: a new mark makes the kernel route a packet of this host anew. What refuses a client's
    packet, RST or ICMP, is related to its flow as well, and has its way: the client's tunnel."""
    for way in gateways:
        for net in intent.subnets(way.family):
            yield NftRule(
                f"ct state related ct original {_ip(way)} saddr {net} "
                f'oifname != "{intent.device}*" meta mark set 0x{way.mark:08x}',
                "ICMP errors about a client's flow",
            )


def _marked(intent: Intent, gateways: list[Exit]) -> Iterator[NftRule]:
    """What this host itself sends by a gateway, probes and those ICMP errors, goes there
    or nowhere; a probe by another way would call a dead exit alive. What refuses a client's packet
    has the mark of that where the kernel reflects marks (sysctl `fwmark_reflect`)."""
    for way in gateways:
        if way.gateway is not None:
            yield NftRule(next_hop(way), "the gateway, and nobody else")
    # Also where no exit is a gateway: a probe may be under way to one that a reload took out.
    for mark in sorted({MARK_GATEWAY, *(way.mark for way in gateways)}):
        yield NftRule(
            f"meta mark & 0x{MARK_MASK:08x} == 0x{mark:08x} "
            f'oifname != "{intent.device}*" {count("wrong_exit")} drop',
            "this host's own packets for a gateway",
        )


def _unmarked(intent: Intent, steering: Steering) -> Iterator[NftRule]:
    """From the ports of clients' flows and of probes nobody sends without a mark but the kernel, to
    what comes after a socket's end; and into tunnels, where a RST that refuses a client's packet
    has the port that it was for. Of a shared host as the rules do, by address."""
    first, last = intent.ports
    if steering.exclusive:
        where = [f'oifname != "lo" oifname != "{intent.device}*"']
    else:
        own = dict.fromkeys(s.address for s in steering.strays)
        where = [f'{_ip_of(a)} saddr {a} oifname != "{intent.device}*"' for a in own]
    for match in where:
        for proto in ("tcp", "udp"):
            yield NftRule(
                f"{proto} sport {first}-{last} meta mark & 0x{MARK_MASK:08x} == 0x00000000 "
                f"{match} {count('stray')} drop",
                "no answer to what is forgotten",
            )


def _ip_of(address: Address) -> str:
    return "ip" if address.version == 4 else "ip6"


def _ip(way: Exit) -> str:
    return "ip" if way.family == 4 else "ip6"
