"""Where gateway mode's policy rules stand among those of other programs. Pure.

The kernel asks policy rules by priority, and the first that answers decides. Ours take the block
from VPN_GATEWAY_RULE_PRIO - 4 to + 101 (`plan.steering` draws it): a rule of another program before
or inside it would steer clients' packets, and what this host itself says about their flows, before
ours are asked. At a start that is refused. While the server runs the block moves in front of such a
rule; where there is no room left, clients of that family are rejected.
"""

from __future__ import annotations

from collections.abc import Iterator

from ocgate.config.gateways import LOWEST_PRIO
from ocgate.errors import Problem
from ocgate.plan.facts import Facts, Family, ForeignRule, rules_until
from ocgate.plan.steering import FIRST, LAST
from ocgate.server.desired.sources import Sources

KEY = "VPN_GATEWAY_RULE_PRIO"

# Rules that a message names; more would hide what is to be done.
_NAMED = 3


def rules_before(sources: Sources, facts: Facts) -> tuple[ForeignRule, ...]:
    """Policy rules of other programs before or inside the configured block, in their order."""
    settings = sources.settings
    if not settings.gateway_mode:
        return ()
    base = settings.vpn_gateway_rule_prio
    return rules_until(facts.rules, base + FIRST, base + LAST)


def priority_now(sources: Sources, facts: Facts) -> int:
    """VPN_GATEWAY_RULE_PRIO, or less where only that lies before other programs' rules."""
    before = rules_before(sources, facts)
    room = _room_before(before)
    return sources.settings.vpn_gateway_rule_prio if room is None else room


def without_room(sources: Sources, facts: Facts, family: Family) -> str:
    """Why that family's clients are rejected because of another program's rule, '' if they aren't:
    its rule stands so early that ours can't stand before it."""
    before = rules_before(sources, facts)
    first = next((rule for rule in before if rule.family == family), None)
    if first is None or _room_before(before) is not None:
        return ""
    return f"the policy rule `{first}` of another program leaves no room for ours before it"


def said_of(sources: Sources, facts: Facts) -> str:
    """What `status` and the log tell of other programs' rules, '' where none is in the way."""
    before = rules_before(sources, facts)
    if not before:
        return ""
    base = priority_now(sources, facts)
    meanwhile = f"ours were moved and begin at {base + FIRST}: set {KEY} to {base} or less"
    if _room_before(before) is None:
        meanwhile = "there is no room before it, so clients of its family are rejected: move it"
    return f"{named(before)} of another program stands before or among ours; {meanwhile}"


def main_lost(facts: Facts) -> str:
    """That this host's own routes are not asked any more, '' where they are: only the operator can
    know what stood there."""
    for family in facts.without_main:
        ip = "ip" if family == 4 else "ip -6"
        return (
            f"no policy rule looks up table main for IPv{family} (`{ip} rule flush` deletes the "
            "kernel's own, too): this host reaches nothing and nobody can connect: "
            f"{ip} rule add pref 32766 lookup main"
        )
    return ""


def problems(sources: Sources, facts: Facts) -> Iterator[Problem]:
    """Of a start or a reload."""
    base, before = sources.settings.vpn_gateway_rule_prio, rules_before(sources, facts)
    if not before:
        return
    room = _room_before(before)
    elsewhere = f"give it a priority above {base + LAST}"
    if room is not None:
        remedy = f"set it to {room} or less ({LOWEST_PRIO} is the least), or move that rule: "
        remedy += elsewhere
    else:
        remedy = f"move the {named(before)}, before which there is no room: {elsewhere}"
    yield sources.origin(KEY).problem(
        KEY,
        str(base),
        f"priorities {base + FIRST} to {base + LAST} without rules of other programs among or "
        f"before them; there stands the {named(before)}",
        remedy,
    )


def named(rules: tuple[ForeignRule, ...]) -> str:
    """The first few, each as `ip rule` shows it."""
    shown = ", ".join(f"`{_ip(rule)}{rule}`" for rule in rules[:_NAMED])
    more = f" and {len(rules) - _NAMED} more" if len(rules) > _NAMED else ""
    return f"policy rule {shown}{more}"


def _ip(rule: ForeignRule) -> str:
    """As it is looked for: IPv4's by `ip rule`."""
    return "" if rule.family == 4 else "ip -6 rule, "


def _room_before(before: tuple[ForeignRule, ...]) -> int | None:
    """The largest base whose whole block lies before all of them; None where there is none."""
    if not before:
        return None
    base = before[0].priority - LAST - 1
    return base if base >= LOWEST_PRIO else None
