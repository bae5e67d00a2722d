"""A start waits for a gateway's name, and refuses with what was said when there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest

from ocgate.errors import ConfigurationError
from ocgate.plan.exits import Exits, ExitState
from ocgate.plan.facts import Address, DefaultRoute, Family
from ocgate.server.exits.resolve_at_start import resolved, resolved_now
from ocgate.upstream.resolver import Answer, Lookup, NotResolved
from support.sources import facts, interface, sources

A4, A6, ROUTER = map(ip_address, ("172.28.0.3", "fd00:28::3", "172.28.0.1"))


ETH0 = interface(2, "eth0", "172.28.0.2/24", "fd00:28::2/64")
FACTS = replace(
    facts(ETH0, connected={"172.28.0.0/24": "eth0", "fd00:28::/64": "eth0"}),
    routes4=(DefaultRoute(4, 0, 2, "eth0", ROUTER),),
)


def says(*addresses: Address) -> Callable[..., Awaitable[Answer]]:
    """A resolver that gives those of the family that is asked for, or NXDOMAIN after 3.14 s."""

    async def resolve(
        name: str, family: Family, timeout: float, lookup: Lookup, *, patient: bool
    ) -> Answer:
        assert patient
        assert timeout == 7
        assert next(str(net) for net in lookup.subnets) == "10.10.10.0/24"
        found = tuple(a for a in addresses if a.version == family)
        if not found:
            raise NotResolved(name, family, "192.0.2.53 said NXDOMAIN", 3.14)
        return Answer(found, 60, "192.0.2.53")

    return resolve


async def never(*_: object, **__: object) -> Answer:
    raise AssertionError("a literal was looked up")


def test_without_a_gateway_nothing_is_known() -> None:
    assert resolved_now(sources(), FACTS, resolve=never) == Exits()
    assert resolved_now(sources(VPN_GATEWAY="direct"), FACTS, resolve=never) == Exits()


def test_literals_need_no_look_up() -> None:
    wanted = sources(VPN_GATEWAY="172.28.0.3", VPN_GATEWAY6="fd00:28::3")
    found = resolved_now(wanted, FACTS, resolve=never)
    assert found == Exits(ExitState(A4), ExitState(A6))


def test_names_are_looked_up_each_in_its_family() -> None:
    wanted = sources(VPN_GATEWAY="nl", VPN_GATEWAY6="nl", VPN_GATEWAYS_RESOLVE_TIMEOUT="7")
    found = resolved_now(wanted, FACTS, resolve=says(ROUTER, A6, A4))
    assert found == Exits(ExitState(A4), ExitState(A6))


def test_a_gateway_that_a_reload_leaves_alone_is_not_asked_again() -> None:
    for known in (Exits(ExitState(A4, "no answer")), Exits(ExitState(None, "has not resolved"))):
        found = resolved(sources(VPN_GATEWAY="nl"), FACTS, known=known, resolve=never)
        assert asyncio.run(found) == known


def test_every_name_that_gives_nothing_is_told_with_place_wait_and_nameserver() -> None:
    wanted = sources(VPN_GATEWAY="nl", VPN_GATEWAY6="us", VPN_GATEWAYS_RESOLVE_TIMEOUT="7")
    with pytest.raises(ConfigurationError) as caught:
        resolved_now(wanted, FACTS, resolve=says())
    four, six = caught.value.problems
    assert (four.source, four.key, four.got) == ("environment", "VPN_GATEWAY", "nl")
    assert (six.key, six.got) == ("VPN_GATEWAY6", "us")
    assert "waited 3.1 s: 192.0.2.53 said NXDOMAIN" in four.expected


def test_an_answer_that_is_no_gateway_is_refused_with_its_reason() -> None:
    wanted = sources(VPN_GATEWAY="nl", VPN_GATEWAYS_RESOLVE_TIMEOUT="7")
    with pytest.raises(ConfigurationError) as caught:
        resolved_now(wanted, FACTS, resolve=says(ROUTER))
    assert "192.0.2.53 says 172.28.0.1: 172.28.0.1 is the router" in str(caught.value)
