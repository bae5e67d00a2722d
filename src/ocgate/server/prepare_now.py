"""From the environment to `Prepared`, with everything checked: the common beginning of `run`,
`check` and `plan`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from ocgate.config.gateways import UpstreamKind
from ocgate.errors import ConfigurationError
from ocgate.kernel.facts import observe
from ocgate.kernel.foreign import dropping_forward_chains
from ocgate.kernel.nft import Nft
from ocgate.kernel.route_lookup import look_up
from ocgate.ocserv import files
from ocgate.ocserv.file_modes import readable
from ocgate.ocserv.warnings import ServerWarning, Surroundings, warnings
from ocgate.plan.exits import Steering
from ocgate.plan.ipv6 import Ipv6Path
from ocgate.server.desired import permitted
from ocgate.server.desired.prepare import (
    Ipv6Egress,
    Prepared,
    depends_on_egress,
    prepare,
    problems,
)
from ocgate.server.desired.sources import Sources
from ocgate.server.desired.steering import exposes_ipv6
from ocgate.server.exits import questions as asked
from ocgate.server.exits.resolve_at_start import resolved_now
from ocgate.server.reconcile.former_addresses import read_strays
from ocgate.server.reconcile.ipv6_egress import probed

NOT_NEEDED = Ipv6Egress("not asked: IPv6 does not depend on it")


def prepared_now(sources: Sources) -> Prepared:
    """Prepared for this machine as it is now, egress probed where it decides; raises
    ConfigurationError where it can't work here."""
    facts = observe(session_prefix=sources.synced.device)
    exits, strays = resolved_now(sources, facts), read_strays(sources.settings.run_dir)
    made = prepare(sources, facts, measured_egress(sources), exits, strays=strays)
    found = problems(made)
    if found:
        raise ConfigurationError(found)
    return made


def measured_egress(sources: Sources) -> Ipv6Egress:
    """One probe, if anything depends on it."""
    if not depends_on_egress(sources):
        return NOT_NEEDED
    return asyncio.run(probed(sources.settings.ipv6_probe))


def warned(prepared: Prepared) -> tuple[ServerWarning, ...]:
    """What works but is unlikely to be meant."""
    sources = prepared.sources
    found = warnings(
        sources.view,
        sources.document,
        surroundings(prepared),
        client_networks=prepared.subnets,
        ipv6_advertised=prepared.decision.advertised,
        release=sources.release,
    )
    return (
        *found,
        *readable(sources.view, files.observe(sources.view, sources.settings.config_dir)),
        *_public_subnets(prepared),
        *permitted.warnings(sources, prepared.intent, prepared.facts, _elsewhere(prepared)),
        *_foreign(prepared),
        *_gateway_mode(prepared),
    )


def _public_subnets(prepared: Prepared) -> Iterator[ServerWarning]:
    """Somebody else's addresses, given to clients. IPv6 that is routed is meant to be public."""
    sources = prepared.sources
    routed = prepared.decision.path is Ipv6Path.ROUTED
    for net in prepared.subnets:
        public = net.network_address.is_global or net.broadcast_address.is_global
        if not public or (net.version == 6 and routed):
            continue
        named = [*sources.view.networks4, *sources.view.networks6]
        places = [str(found.place) for found in named if found.value == net]
        variable = "VPN_SUBNET" if net.version == 4 else "IPV6_SUBNET"
        private = "10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"
        yield ServerWarning(
            "client-subnet-public",
            f"{', '.join(places) or variable}: clients get addresses of {net}, which belong to "
            "others on the internet: neither clients nor this host reach those any more, and what "
            "leaks with such a source is answered by strangers",
            f"Choose a subnet of {private if net.version == 4 else 'fd00::/8'}",
        )


def _elsewhere(prepared: Prepared) -> list[permitted.Elsewhere]:
    """Where this host has the networks that are pushed, by routes other than its default ones."""
    names = {link.index: link.name for link in prepared.facts.interfaces}
    found = look_up(permitted.asked_about(prepared.sources)).values()
    return [
        permitted.Elsewhere(route.network, names[route.index], route.gateway)
        for route in dict.fromkeys(found)
        if route.index in names and not permitted.wide(route.network)
    ]


def _gateway_mode(prepared: Prepared) -> Iterator[ServerWarning]:
    """What clients send or show past the gateway because the configuration says so."""
    sources, intent = prepared.sources, prepared.intent
    if intent.steering is None:
        return
    yield from _local_resolvers(prepared, intent.steering)
    yield from asked.warnings(prepared)
    if sources.settings.exit4.kind is not UpstreamKind.GATEWAY:
        return
    if exposes_ipv6(sources):
        yield ServerWarning(
            "ipv6-direct",
            "VPN_GATEWAY6=direct: clients' IPv6 leaves by this host, and every IPv6 site sees this "
            "server's own IPv6 address and network",
            "Unset VPN_GATEWAY6 to reject IPv6 at once, or name an upstream that carries it",
        )
    for resolver in intent.resolvers:
        yield ServerWarning(
            "resolver-on-this-host",
            f"clients are told to ask the resolver {resolver}, which is this host: what it asks "
            "further leaves by this host and not by the gateway",
            "Push a resolver that is reached through the gateway (`dns =` in ocserv.conf)",
        )


def _local_resolvers(prepared: Prepared, steering: Steering) -> Iterator[ServerWarning]:
    """Of a family that leaves by this host, too, where the other one's exit is a gateway."""
    intent = prepared.intent
    for resolver in intent.pushed:
        link = prepared.facts.connected_network_of(resolver)
        way = steering.of(resolver.version)
        reached = (
            resolver in intent.resolvers
            or resolver == way.gateway
            or any(resolver in net.network for net in intent.networks)
        )
        if link is not None and not reached and steering.closes_local(way.family):
            yield ServerWarning(
                "resolver-on-local-network",
                f"clients are told to ask the resolver {resolver} on {link.device}: networks of "
                "this host are closed to them, so their look-ups are rejected",
                "Push a resolver that is reached through the gateway (`dns =` in ocserv.conf)",
            )


def _foreign(prepared: Prepared) -> Iterator[ServerWarning]:
    """Chains of others that may drop what we accept."""
    nft = Nft()
    try:
        chains = dropping_forward_chains(nft)
    finally:
        nft.close()
    device = prepared.intent.device
    if chains:
        yield ServerWarning(
            "foreign-forward-drop",
            f"forwarding is dropped by default in another program's chain ({', '.join(chains)}), "
            "and an accept of ours does not lift that: clients may be connected without internet",
            f"Accept them there; where it is docker's: iptables -I DOCKER-USER -i {device}+ -j "
            f"ACCEPT; iptables -I DOCKER-USER -o {device}+ -j ACCEPT",
        )


def surroundings(prepared: Prepared) -> Surroundings:
    """The machine as the warnings see it. A network that clients may reach is no surprise there: an
    office has its own resolver."""
    facts = prepared.facts
    return Surroundings(
        addresses=frozenset(a.ip for link in facts.interfaces for a in link.addresses),
        connected=tuple(
            (link.network, link.device)
            for link in facts.connected
            if not permitted.overlap(link.network, prepared.intent.networks)
        ),
    )
