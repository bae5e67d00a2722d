"""What somebody may do to the kernel state of a gateway: deletions, flushes, wrong routes.

Singly with the subject alive, which is to repair it; in pairs with the subject frozen, where what
is left of the locks must hold by itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from ocgate.prove.fault import Act, Expect, Fault, Lock, Need, nothing
from ocgate.prove.stage import FAMILIES, Stage
from ocgate.prove.world import default_route

BOTH = (Lock.TABLES, Lock.RULES)


def delete_route(stage: Stage) -> None:
    """The gateway's route in its table, both families."""
    for family in FAMILIES:
        words = ("route", "del", "default", "table", str(stage.subject.table))
        stage.try_ip(*words, family=family)


def route_to_isp(stage: Stage) -> None:
    """The gateway's table leads to the default gateway of the host instead."""
    for route in stage.wan.defaults:
        words = default_route(route).split()
        metric = words.index("metric") if "metric" in words else len(words)
        words = words[:metric] + [word for word in words[metric + 2 :] if word == "onlink"]
        stage.try_ip(
            "route", "replace", *words, "table", str(stage.subject.table), family=route.family
        )


def delete_rule(stage: Stage) -> None:
    """`from SUBNET lookup TABLE`."""
    for net in stage.subject.nets.subnets:
        words = ("rule", "del", "from", str(net), "lookup", str(stage.subject.table))
        while stage.try_ip(*words, family=net.version):
            pass


def flush_rules(stage: Stage) -> None:
    """Every policy rule, not only ours."""
    stage.flush_rules()


def flush_tables(stage: Stage) -> None:
    """All rules of our nft tables; chains and maps stay."""
    for table in stage.subject.tables:
        stage.try_nft("flush", "table", *table.split())


def delete_tables(stage: Stage) -> None:
    """Our nft tables."""
    for table in stage.subject.tables:
        stage.try_nft("delete", "table", *table.split())


def delete_one_table(stage: Stage) -> None:
    """One of our nft tables, the one that others can do without: gateway mode's guard."""
    stage.try_nft("delete", "table", *stage.subject.tables[0].split())


def delete_other_table(stage: Stage) -> None:
    """The other one: marks, translation, forwarding."""
    for table in stage.subject.tables[1:]:
        stage.try_nft("delete", "table", *table.split())


def flush_ruleset(stage: Stage) -> None:
    """Everything in nftables."""
    stage.try_nft("flush", "ruleset")


def delete_blackholes(stage: Stage) -> None:
    """Main's blackholes of the client subnets: lock 3."""
    for net in stage.subject.nets.subnets:
        words = ("route", "del", "blackhole", str(net))
        while stage.try_ip(*words, family=net.version):
            pass


def flush_routes(stage: Stage) -> None:
    """Everything that carries our protocol number, in all tables."""
    stage.flush_own_routes()


def _damage(name: str, act: Act, lock: Lock | None, *needs: Need) -> Fault:
    locks = frozenset({lock} if lock else ())
    expect = Expect.GOES_ON if lock is Lock.ROUTES else Expect.COMES_BACK
    return Fault(
        name,
        "kernel",
        act,
        locks=locks,
        needs=frozenset(needs),
        expect=expect,
    )


# Of lock 2 a deleted rule or route takes a part; what is left of it closes.
SINGLE = (
    _damage("gateway route deleted", delete_route, None, Need.GATEWAY),
    _damage("gateway route to the ISP", route_to_isp, None, Need.GATEWAY),
    _damage("rule deleted", delete_rule, None, Need.GATEWAY),
    _damage("all rules flushed", flush_rules, Lock.RULES),
    _damage("our tables flushed", flush_tables, Lock.TABLES),
    _damage("our tables deleted", delete_tables, Lock.TABLES),
    _damage("guard table deleted", delete_one_table, Lock.TABLES, Need.GATEWAY),
    _damage("forwarding table deleted", delete_other_table, Lock.TABLES, Need.GATEWAY),
    _damage("whole ruleset flushed", flush_ruleset, Lock.TABLES),
    _damage("our routes flushed", flush_routes, Lock.ROUTES),
)


def frozen(fault: Fault) -> Fault:
    """The same while nothing repairs."""
    return Fault(
        f"{fault.name}, frozen",
        "frozen",
        fault.inject,
        frozen=True,
        locks=fault.locks,
        needs=fault.needs,
        expect=Expect.OUTAGE,
    )


def pairs(*, alive: bool = False) -> Iterator[Fault]:
    """Each two together, but those that leave no lock at all: these are the positive control."""
    for one, other in itertools.combinations(SINGLE, 2):
        locks = one.locks | other.locks
        if locks.issuperset(BOTH):
            continue
        if one.locks == other.locks == {Lock.TABLES}:
            continue  # the greater of the two is all there is to it
        yield Fault(
            f"{one.name} + {other.name}" + ("" if alive else ", frozen"),
            "pairs",
            _both(one, other),
            nothing,
            frozen=not alive,
            locks=locks,
            needs=one.needs | other.needs,
            expect=Expect.COMES_BACK if alive else Expect.OUTAGE,
        )


def _both(one: Fault, other: Fault) -> Act:
    def act(stage: Stage) -> None:
        one.inject(stage)
        other.inject(stage)

    return act
