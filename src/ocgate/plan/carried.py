"""Counters of what clients send by a gateway, and of what comes back from it for them. Pure.

That an exit carries is seen from these, also while a full line delays every probe
(`exits.liveness`). Only replies of flows that clients began count, and no ICMP errors: a gateway
that says "unreachable" leads nowhere.
"""

from __future__ import annotations

from ocgate.plan.exits import Exit, ExitKind
from ocgate.plan.facts import Family
from ocgate.plan.model import Chain, NftRule
from ocgate.plan.reasons import count

SENT: dict[Family, str] = {4: "sent4", 6: "sent6"}
CAME_BACK: dict[Family, str] = {4: "came_back4", 6: "came_back6"}


def counters(ways: tuple[Exit, ...]) -> tuple[str, ...]:
    """Of these exits."""
    counted = [way.family for way in ways if is_counted(way)]
    return (*(SENT[family] for family in counted), *(CAME_BACK[family] for family in counted))


def is_counted(way: Exit) -> bool:
    """A gateway's, that has somewhere to send to."""
    return way.kind is ExitKind.GATEWAY and way.usable


def verdict(way: Exit) -> str:
    """Of what may go by this gateway."""
    return f"goto {_chain(way)}"


def chains(ways: tuple[Exit, ...]) -> tuple[Chain, ...]:
    """Where `verdict` leads to."""
    return tuple(
        Chain(_chain(way), (NftRule(f"{count(SENT[way.family])} accept", "exit gateway"),))
        for way in ways
        if is_counted(way)
    )


def _chain(way: Exit) -> str:
    return f"by_gateway{way.family}"
