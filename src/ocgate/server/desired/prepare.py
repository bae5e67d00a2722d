"""From what the operator wrote and what the machine is to what shall be: one pure step.

    Sources + Facts + egress + exits -> Prepared (IPv6 decision, intent, plan)

`run`, `check`, `plan`, `reload` and the running control plane all take this way and no other, so
what `plan` shows is what `run` applies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ocgate.config.gateways import UpstreamKind
from ocgate.errors import Problem
from ocgate.plan.exits import NO_GATEWAYS, Exits, FormerAddress
from ocgate.plan.facts import Address, Facts, Family, Network, lies_within
from ocgate.plan.intent import Intent, Wan
from ocgate.plan.ipv6 import Ipv6Decision, Ipv6Path, Ipv6Wish, decide
from ocgate.plan.model import Plan
from ocgate.plan.planner import plan
from ocgate.server.desired import flow_ports, permitted, steering
from ocgate.server.desired.sources import Sources

_FAMILIES: tuple[Family, ...] = (4, 6)


@dataclass(frozen=True)
class Ipv6Egress:
    """What a probe found: `failure` is None where IPv6 egress works, else why not, for people."""

    failure: str | None

    @property
    def working(self) -> bool:
        """Whether IPv6 egress was seen."""
        return self.failure is None


@dataclass(frozen=True)
class Prepared:
    """Everything that follows from one configuration on one machine at one moment."""

    sources: Sources
    facts: Facts
    egress: Ipv6Egress
    exits: Exits
    wish: Ipv6Wish
    decision: Ipv6Decision
    intent: Intent
    plan: Plan

    @property
    def subnets(self) -> tuple[Network, ...]:
        """All client subnets, both families."""
        return (*self.intent.subnets4, *self.intent.subnets6)


def prepare(
    sources: Sources,
    facts: Facts,
    egress: Ipv6Egress,
    exits: Exits = NO_GATEWAYS,
    *,
    strays: tuple[FormerAddress, ...] = (),
) -> Prepared:
    """Plan for these sources, facts, this egress and these gateways; total. strays: addresses
    that clients have been translated to until now."""
    wish = ipv6_wish(sources)
    obstacle = ipv6_obstacle(facts)
    decision = steering.ipv6_by_gateway(wish, sources, exits) or decide(
        wish, egress=obstacle or egress.failure
    )
    if decision.advertised and obstacle:
        why = f"{decision.why}; {obstacle}"
        decision = Ipv6Decision(Ipv6Path.REJECTED, None, why, loud=True)
    intent = derive(sources, facts, decision, exits, strays)
    return Prepared(sources, facts, egress, exits, wish, decision, intent, plan(intent))


def depends_on_egress(sources: Sources) -> bool:
    """Whether a probe of this host's own IPv6 decides anything: not where an exit decides."""
    exit6 = sources.settings.exit6 if sources.settings.gateway_mode else None
    by_host = exit6 is None or exit6.kind is UpstreamKind.DIRECT
    return by_host and ipv6_wish(sources).needs_egress


def ipv6_wish(sources: Sources) -> Ipv6Wish:
    """What is asked for IPv6."""
    settings, view = sources.settings, sources.view
    configured = view.main.networks6[0].value if view.main.networks6 else None
    return Ipv6Wish(
        forward=settings.ipv6_forward,
        nat=settings.ipv6_nat.value,
        sink=sources.wants_sink,
        configured=configured,
        fallback=settings.ipv6_subnet,
        full_tunnel=view.full_tunnel,
    )


def derive(
    sources: Sources,
    facts: Facts,
    decision: Ipv6Decision,
    exits: Exits,
    strays: tuple[FormerAddress, ...],
) -> Intent:
    """The intent: settings, ocserv.conf, facts and decision joined."""
    view, agreed = sources.view, sources.synced
    gateways = _gateways(sources)
    resolvers = {r.value for r in view.dns if facts.is_local(r.value) or r.value in gateways}
    wans = {family: wan for family in _FAMILIES if (wan := _wan(sources, facts, family))}
    flows = flow_ports.choose(sources, facts)
    subnets: tuple[Network, ...] = (*agreed.subnets4, *agreed.subnets6)
    steered = steering.steer(sources, facts, exits, decision, wans, strays=strays)
    networks = permitted.permitted(sources, facts)
    strict = (
        *steering.strict_on(facts, steered),
        *permitted.strict_on(networks, steered, facts),
    )
    return Intent(
        device=agreed.device,
        subnets4=agreed.subnets4,
        # Also while IPv6 isn't advertised: sessions that got an address before keep it.
        subnets6=agreed.subnets6 if sources.wants_ipv6 else (),
        prefix6=view.ipv6_subnet_prefix,
        gateways=_in_order(gateways),
        resolvers=_in_order(resolvers),
        tcp_ports=(view.tcp_port,) if view.tcp_port else (),
        mss=sources.settings.mss,
        wan4=wans.get(4),
        wan6=wans.get(6),
        ipv6=decision.path,
        ports=flows.ports,
        reserved=flows.reserved,
        accept_ra_on=_keeps_ra(facts),
        written_on=tuple(name for name in _keeps_ra(facts) if _is_written(facts, name)),
        steering=steered,
        pushed=_in_order({r.value for r in view.dns}) if steered else (),
        local=_local_networks(facts, subnets) if steered else (),
        strict_on=tuple(dict.fromkeys(strict)),
        session_flows=_session_flows(sources, facts),
        networks=networks,
    )


# More than a household behind a router with file sharing comes to (2,000 to 3,000).
_USUAL_FLOWS = 4096
_CONNTRACK_MAX = "net.netfilter.nf_conntrack_max"


def _session_flows(sources: Sources, facts: Facts) -> int:
    """OCGATE_SESSION_FLOWS, or a default that leaves others room in a small machine's table."""
    asked = sources.settings.session_flows
    if asked is not None:
        return asked
    most = facts.sysctls.get(_CONNTRACK_MAX, "")
    return max(1, min(_USUAL_FLOWS, int(most) // 4)) if most.isdigit() else _USUAL_FLOWS


def problems(prepared: Prepared) -> tuple[Problem, ...]:
    """What can't work on this machine: refused before anything is touched."""
    return (
        *_wan_problems(prepared),
        *_collisions(prepared),
        *_sink_problems(prepared),
        *steering.problems(prepared.sources, prepared.facts, prepared.exits),
        *permitted.problems(prepared.sources, prepared.exits),
    )


def standing(
    former: Prepared, new: Prepared, egress: Ipv6Egress, exits: Exits
) -> tuple[Problem, ...]:
    """Those of the new problems that what is in force has, too, on the machine as it is now: the
    gateway that a reload leaves as it is, on an interface that is down. They are no fault of the
    reload; what they concern stays as it is, closed where planning closes it.

    egress, exits: in force now.
    """
    before = problems(prepare(former.sources, new.facts, egress, exits))
    known = {(problem.key, problem.got, problem.expected) for problem in before}
    return tuple(p for p in problems(new) if (p.key, p.got, p.expected) in known)


def _wan_problems(prepared: Prepared) -> list[Problem]:
    name, facts = prepared.sources.settings.wan_if, prepared.facts
    if name is None or facts.interface(name):
        return []
    others = ", ".join(i.name for i in facts.interfaces if not i.loopback) or "none"
    remedy = "name one of them, or leave WAN_IF unset to follow the default route"
    return [_problem(prepared, "WAN_IF", name, f"an interface of this machine ({others})", remedy)]


def _collisions(prepared: Prepared) -> list[Problem]:
    """A client subnet that holds this host's own network would cut the host off: what claims a
    client's source from outside a tunnel is dropped, and that would be its router."""
    found: list[Problem] = []
    for net in prepared.subnets:
        for link in prepared.facts.connected:
            if (
                link.device.startswith(prepared.intent.device)
                or link.network.version != net.version
            ):
                continue
            if net.overlaps(link.network):
                expected = f"a subnet that no interface has ({link.network} is on {link.device})"
                found += _collision(prepared, net, link.network, expected)
    return found


def _collision(
    prepared: Prepared, net: Network, other: Network, expected: str
) -> Iterable[Problem]:
    """At each place of ocserv.conf that has brought it in; else at the variable's."""
    view = prepared.sources.view
    remedy = "choose another client subnet, in ocserv.conf and VPN_SUBNET alike"
    placed = [
        Problem(p.source, p.line, p.key, str(p.value), expected, remedy)
        for p in (view.networks4 if other.version == 4 else view.networks6)
        if p.value.overlaps(other)
    ]
    variable = "VPN_SUBNET" if net.version == 4 else "IPV6_SUBNET"
    return placed or [_problem(prepared, variable, str(net), expected, remedy)]


def _sink_problems(prepared: Prepared) -> list[Problem]:
    obstacle = ipv6_obstacle(prepared.facts)
    settings = prepared.sources.settings
    if not (settings.ipv6_sink and prepared.wish.full_tunnel and obstacle):
        return []
    remedy = (
        "add --sysctl net.ipv6.conf.all.disable_ipv6=0 to docker run, or set IPV6_SINK=0 and "
        "accept that dual-stack clients use their own IPv6 outside of the tunnel"
    )
    return [_problem(prepared, "IPV6_SINK", "1", f"a kernel with IPv6 ({obstacle})", remedy)]


def _problem(prepared: Prepared, key: str, got: str, expected: str, remedy: str) -> Problem:
    origin = prepared.sources.origin(key)
    return Problem(origin.source, origin.line, key, got, expected, remedy)


def ipv6_obstacle(facts: Facts) -> str | None:
    """Why a tunnel of this namespace can't carry IPv6, or None. New devices take `default`."""
    for which in ("all", "default"):
        value = facts.sysctls.get(f"net.ipv6.conf.{which}.disable_ipv6")
        if value is None:
            return "this kernel has no IPv6"
        if value != "0":
            return f"net.ipv6.conf.{which}.disable_ipv6 is {value}"
    return None


def _wan(sources: Sources, facts: Facts, family: Family) -> Wan | None:
    """WAN_IF, else the default route's interface, else eth0 as in the reference, else none."""
    route = facts.default_route(family)
    name = sources.settings.wan_if or (route.device if route else None)
    if name is None and facts.interface("eth0"):
        name = "eth0"
    if name is None:
        return None
    link = facts.interface(name)
    return Wan(name, link.mtu if link else None)


def _local_networks(facts: Facts, subnets: Iterable[Network]) -> tuple[Network, ...]:
    """Without routes into a client subnet, which are taken out and no network of this host's."""
    known = tuple(subnets)
    nets = {link.network for link in facts.connected if not link.network.is_link_local}
    own = (net for net in nets if not lies_within(net, known))
    return tuple(sorted(own, key=lambda net: (net.version, net)))


def _keeps_ra(facts: Facts) -> tuple[str, ...]:
    """Interfaces whose IPv6 default route comes from router advertisements that forwarding would
    make the kernel ignore. Not where it was written: then nobody's advertisement is heeded."""
    route = facts.default_route(6)
    if route is None or not route.advertised:
        return ()
    if facts.sysctls.get(_accept_ra(route.device)) in (None, "0"):
        return ()
    return (route.device,)


def _is_written(facts: Facts, device: str) -> bool:
    """Whether this host's IPv6 addresses on a device were written and do not end by themselves. Of
    one that is lent (autoconfiguration, DHCPv6) network or lifetime come with advertised prefixes,
    and without them it would be gone when its lifetime ends."""
    link = facts.interface(device)
    lent = link.lent if link else ()
    return not any(a.version == 6 and not a.ip.is_link_local for a in lent)


def _accept_ra(device: str) -> str:
    return f"net.ipv6.conf.{device.replace('.', '/')}.accept_ra"


def _gateways(sources: Sources) -> set[Address]:
    """The server's addresses in the tunnel: network | 1 of every client network (ocserv)."""
    view, agreed = sources.view, sources.synced
    found: set[Address] = {*view.gateways4, *view.gateways6}
    if not view.main.networks4:  # then rendering gives it one
        found.add(agreed.ipv4_network.network_address + 1)
    if sources.wants_ipv6:
        found.add(agreed.ipv6_network.network_address + 1)
    return found


def _in_order(addresses: Iterable[Address]) -> tuple[Address, ...]:
    return tuple(sorted(addresses, key=lambda a: (a.version, int(a))))
