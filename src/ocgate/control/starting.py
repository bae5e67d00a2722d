"""From the environment to `Prepared`, with everything checked: the common beginning of `run`,
`check` and `plan`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from ocgate.control.egress import probed
from ocgate.control.prepared import Egress, Prepared, ipv6_wish, prepare, problems
from ocgate.control.sources import Sources
from ocgate.errors import ConfigurationError
from ocgate.kernel.facts import observe
from ocgate.kernel.foreign import dropping_forward_chains
from ocgate.kernel.nft import Nft
from ocgate.plan.facts import Facts
from ocgate.server.warnings import ServerWarning, Surroundings, warnings

NOT_NEEDED = Egress("not asked: IPv6 does not depend on it")


def prepared_now(sources: Sources) -> Prepared:
    """Prepared for this machine as it is now, egress probed where it decides; raises
    ConfigurationError where it can't work here."""
    facts = observe(session_prefix=sources.synced.device)
    made = prepare(sources, facts, measured_egress(sources))
    found = problems(made)
    if found:
        raise ConfigurationError(found)
    return made


def measured_egress(sources: Sources) -> Egress:
    """One probe, if anything depends on it."""
    if not ipv6_wish(sources).needs_egress:
        return NOT_NEEDED
    return asyncio.run(probed(sources.settings.ipv6_probe))


def warned(prepared: Prepared) -> tuple[ServerWarning, ...]:
    """What works but is unlikely to be meant."""
    sources = prepared.sources
    found = warnings(
        sources.view,
        sources.document,
        surroundings(prepared.facts),
        client_networks=prepared.subnets,
        ipv6_advertised=prepared.decision.advertised,
    )
    return (*found, *_foreign(prepared))


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


def surroundings(facts: Facts) -> Surroundings:
    """The machine as the warnings see it."""
    return Surroundings(
        addresses=frozenset(a.ip for link in facts.interfaces for a in link.addresses),
        connected=tuple((link.network, link.device) for link in facts.connected),
    )
