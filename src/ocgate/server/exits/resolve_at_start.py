"""Where the gateways are at a start or a reload: literals as they are, names looked up.

Of the commands `run`, `check`, `plan`, `prove` and `reload`: they wait for a name, because a
container that was started together with its gateway knows it only when that one runs, and then
refuse, because a server whose clients have nowhere to go is a mistake that somebody must see.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

from ocgate.config.gateways import VARIABLES, Upstream
from ocgate.errors import ConfigurationError, Problem
from ocgate.plan.exits import NO_GATEWAYS, Exits, ExitState
from ocgate.plan.facts import Address, Facts, Family, Network
from ocgate.server.desired.sources import Sources
from ocgate.server.exits.record import gateways
from ocgate.upstream.gateway_address import refusal
from ocgate.upstream.resolver import Answer, Lookup, NotResolved, resolve

Resolve = Callable[..., Awaitable[Answer]]


def resolved_now(sources: Sources, facts: Facts, *, resolve: Resolve = resolve) -> Exits:
    """`resolved`, for a command without an event loop."""
    if not gateways(sources.settings):
        return NO_GATEWAYS
    return asyncio.run(resolved(sources, facts, resolve=resolve))


async def resolved(
    sources: Sources,
    facts: Facts,
    *,
    known: Exits = NO_GATEWAYS,
    longest: float = math.inf,
    resolve: Resolve = resolve,
) -> Exits:
    """Every gateway's address; a name is waited for VPN_GATEWAYS_RESOLVE_TIMEOUT seconds, but no
    more than `longest`.

    known: what is in force of gateways that `sources` leaves as they are; those are not asked.
    Raises ConfigurationError with a problem for each name that gave no usable address.
    """
    wanted = gateways(sources.settings)
    found = await asyncio.gather(
        *(
            _located(sources, facts, family, upstream, known.of(family), longest, resolve)
            for family, upstream in wanted.items()
        )
    )
    problems = [one for one in found if isinstance(one, Problem)]
    if problems:
        raise ConfigurationError(problems)
    states = {
        family: one for family, one in zip(wanted, found, strict=True) if isinstance(one, ExitState)
    }
    return Exits(states.get(4), states.get(6))


async def _located(
    sources: Sources,
    facts: Facts,
    family: Family,
    upstream: Upstream,
    known: ExitState | None,
    longest: float,
    resolve: Resolve,
) -> ExitState | Problem:
    if known is not None:  # also one that has no address yet: the watch goes on asking
        return known
    if upstream.address is not None:
        return ExitState(upstream.address)
    name = upstream.name or ""
    subnets: tuple[Network, ...] = (*sources.synced.subnets4, *sources.synced.subnets6)
    seconds = min(sources.settings.vpn_gateways_resolve_timeout, longest)
    try:
        answer = await resolve(name, family, seconds, Lookup(subnets), patient=True)
    except NotResolved as error:
        return _unresolved(sources, family, name, error)
    reasons = {address: refusal(address, facts, subnets) for address in answer.addresses}
    for address, reason in reasons.items():
        if not reason:
            return ExitState(address)
    return _unusable(sources, family, name, answer, reasons)


def _unresolved(sources: Sources, family: Family, name: str, error: NotResolved) -> Problem:
    key = VARIABLES[family]
    return sources.origin(key).problem(
        key,
        name,
        f"a name that resolves to an IPv{family} address; waited {error.waited:.1f} s: "
        f"{error.said}",
        "start the upstream first and on a network of this container, correct the name, or raise "
        "VPN_GATEWAYS_RESOLVE_TIMEOUT",
    )


def _unusable(
    sources: Sources, family: Family, name: str, answer: Answer, reasons: dict[Address, str]
) -> Problem:
    key = VARIABLES[family]
    return sources.origin(key).problem(
        key,
        name,
        f"the name of an upstream on an attached network ({answer.source} says "
        f"{', '.join(map(str, reasons))}: {'; '.join(reasons.values())})",
        "attach this host or container to the upstream's network, or correct the name",
    )
