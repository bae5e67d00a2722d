"""Counters of what clients send by a gateway, and of what comes back from it for them. Pure.

That an exit carries is seen from these, also while a full line delays every probe
(`exits.liveness`). Only replies of flows that clients began count, and no ICMP errors: a gateway
that says "unreachable" leads nowhere.
"""

from __future__ import annotations

from ocgate.plan.exits import Exit, ExitKind
from ocgate.plan.facts import Family
from ocgate.plan.reasons import count

SENT: dict[Family, str] = {4: "sent4", 6: "sent6"}
CAME_BACK: dict[Family, str] = {4: "came_back4", 6: "came_back6"}


def counters(ways: tuple[Exit, ...]) -> tuple[str, ...]:
    """Of these exits."""
    counted = [way.family for way in ways if _is_counted(way)]
    return (*(SENT[family] for family in counted), *(CAME_BACK[family] for family in counted))


def sent(way: Exit) -> str:
    """The statement in the rule that lets a session's packets of this family in; '' for none. There
    a counter costs 40 ns a packet of 1,650; where the next hop is asked, by a chain of its own, 70.
    """
    return f"{count(SENT[way.family])} " if _is_counted(way) else ""


def came_back(way: Exit) -> str:
    """The same in the rule of what belongs to a client's flow."""
    return f"{count(CAME_BACK[way.family])} " if _is_counted(way) else ""


def _is_counted(way: Exit) -> bool:
    """A gateway by which flows go."""
    return way.kind is ExitKind.GATEWAY and way.carries
