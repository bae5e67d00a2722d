"""What the reconciler owes after a way has moved: flows of the former are cut, or tried again."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ocgate.errors import KernelRefused
from ocgate.kernel.apply import Drift
from ocgate.plan.exits import Exit, ExitKind, Exits, ExitState
from ocgate.server.desired.prepare import Ipv6Egress, prepare
from ocgate.server.reconcile import reconciler as keepers
from ocgate.server.reconcile.reconciler import Reconciler
from support.sources import facts, interface, sources

NETS = (ip_network("10.10.10.0/24"),)


def reconciler(tmp_path: Path) -> Reconciler:
    unused: Any = SimpleNamespace()
    made = Reconciler(unused, tmp_path, unused, unused, Ipv6Egress("not asked"))
    made._prepared = prepared("eth0")
    return made


@pytest.fixture(autouse=True)
def cut_unasked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Intents of which flows were cut that nobody may have asked or translated."""
    cut: list[object] = []
    monkeypatch.setattr(Reconciler, "_cut_unasked", lambda _, intent: cut.append(intent))
    return cut


def prepared(device: str) -> Any:
    """As much of Prepared as a move is told by."""
    return by(Exit(4, ExitKind.DIRECT, device))


def by(exit4: Exit) -> Any:
    exits = (exit4, Exit(6, ExitKind.BLOCK, closed="block"))
    intent = SimpleNamespace(
        exits=exits, steering=None, local=(), pushed=(), networks=(), device="vpns"
    )
    return SimpleNamespace(intent=intent, subnets=NETS, decision=None)


@pytest.mark.parametrize(
    "refusal",
    [
        KernelRefused("refused", request="conntrack -D", reply="busy"),
        OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    ],
)
def test_flows_that_could_not_be_cut_are_cut_at_the_next_look(
    refusal: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that refuses once leaves no flow on the former way, and asks for another look. What
    is new is in force: a reload must not say that nothing changed."""
    cut: list[object] = []
    said: list[object] = []
    quiet = SimpleNamespace(
        warning=lambda *_, **__: None, error=lambda *_, **more: said.append(more)
    )
    monkeypatch.setattr(keepers, "log", quiet)
    refusals = [refusal]

    def delete(nets: tuple[Any, ...]) -> None:
        if refusals:
            raise refusals.pop()
        cut.extend(nets)

    monkeypatch.setattr(keepers.conntrack, "delete_of_networks", delete)
    monkeypatch.setattr(keepers.conntrack, "tcp_of_networks", lambda _: [])
    made = reconciler(tmp_path)

    async def run() -> None:
        await made._after_change(prepared("eth0"), prepared("eth1"))
        assert made.unsettled
        assert said
        assert cut == []
        await made._cut()
        assert cut == list(NETS)
        await made._cut()
        assert cut == list(NETS)

    asyncio.run(run())


OPEN = Exit(4, ExitKind.GATEWAY, "eth0", ip_address("172.28.0.3"))
WAITS = replace(OPEN, closed="timed out", waits=True)
GIVEN_UP = replace(OPEN, closed="timed out")
GONE = replace(OPEN, gateway=None, closed="eth0 is down")
OTHER = replace(OPEN, gateway=ip_address("172.28.0.4"))
BLOCKED = Exit(4, ExitKind.BLOCK, closed="block")
DIRECT = Exit(4, ExitKind.DIRECT, "eth0")


@pytest.mark.parametrize(
    ("before", "after", "done"),
    [
        (OPEN, WAITS, ["unassured"]),
        (WAITS, GIVEN_UP, []),
        (WAITS, OPEN, ["nudged"]),
        (GIVEN_UP, OPEN, ["nudged"]),
        (GONE, OPEN, ["nudged"]),
        (OPEN, GONE, []),
        (OPEN, BLOCKED, ["cut", "told"]),
        (DIRECT, replace(DIRECT, device=None), []),
        (OPEN, OTHER, ["cut", "told"]),
        (WAITS, OTHER, ["cut", "told"]),
        (GIVEN_UP, OTHER, ["cut", "told"]),
        (OPEN, replace(OPEN, own=(ip_address("172.28.0.9"),)), ["cut", "told"]),
        (DIRECT, replace(DIRECT, device="eth1"), ["cut", "told"]),
    ],
)
def test_flows_are_cut_when_their_way_is_another_and_wait_while_it_is_down(
    before: Exit,
    after: Exit,
    done: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is cut is read before, so that its clients are told; who waited is asked to speak when
    the same way is back. What began as a way came back is not cut with its coming."""
    seen = doings(monkeypatch)
    made = reconciler(tmp_path)
    changes(made, seen, before, after)
    assert seen == done


@pytest.mark.parametrize(
    ("back", "done"), [(OPEN, ["nudged"]), (OTHER, ["cut", "told"]), (BLOCKED, ["cut", "told"])]
)
def test_a_way_that_was_away_is_compared_with_the_one_before(
    back: Exit, done: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link or a default route that bounces is no move, and what comes in its place is one."""
    seen = doings(monkeypatch)
    made = reconciler(tmp_path)
    changes(made, seen, OPEN, GONE)
    assert seen == []
    changes(made, seen, GONE, back)
    assert seen == done


def doings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What becomes of flows, as it is done."""
    seen: list[str] = []
    monkeypatch.setattr(keepers, "log", SimpleNamespace(warning=lambda *_, **__: None))
    door = keepers.conntrack
    monkeypatch.setattr(door, "delete_of_networks", lambda _: seen.append("cut"))
    monkeypatch.setattr(door, "delete_unassured", lambda _: seen.append("unassured"))
    monkeypatch.setattr(door, "tcp_of_networks", lambda _: ["a flow"])
    return seen


def changes(made: Reconciler, seen: list[str], before: Exit, after: Exit) -> None:
    nudges: Any = SimpleNamespace(
        of_flows=lambda flows, **_: seen.append("told" if flows == ["a flow"] else "nobody"),
        of_networks=lambda networks, **_: seen.append("nudged" if networks else "nobody"),
    )
    made._nudges, made._prepared = nudges, by(after)
    asyncio.run(made._after_change(by(before), by(after)))


def test_flows_that_began_unasked_are_cut_with_each_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_unasked: list[object]
) -> None:
    """The guard asks a flow's first packet where it goes: what decides of that may have changed, or
    a table may have been gone meanwhile."""
    monkeypatch.setattr(keepers, "log", SimpleNamespace(warning=lambda *_, **__: None))
    made = reconciler(tmp_path)
    made._prepared = by(OPEN)
    asyncio.run(made._after_change(by(OPEN), made.prepared))
    assert cut_unasked == [made.prepared.intent]


OLD, NEW = 1, 2


def looking(made: Reconciler, monkeypatch: pytest.MonkeyPatch, plans: Iterator[int]) -> list[int]:
    """`made` holds plan OLD and plans these; the plans that the kernel took, as they come."""
    former: Any = SimpleNamespace(sources=None, intent=SimpleNamespace(device="vpns"), plan=OLD)
    writer: Any = SimpleNamespace(
        lock=asyncio.Lock(), now_holds=lambda *_: None, unsettled=False, held=dict
    )
    follows: Any = SimpleNamespace(follow=nothing)
    made._prepared, made.writer, made._effective = former, writer, follows
    intent = SimpleNamespace(marks=None, steering=None, device="vpns")
    taken: list[int] = []

    def planned(
        _sources: object, _facts: object, egress: Ipv6Egress, exits: Exits, **_: object
    ) -> Any:
        values = {"plan": next(plans), "intent": intent, "egress": egress, "exits": exits}
        return SimpleNamespace(sources=None, **values)

    def applied(_nft: object, plan: int, *_: object, **__: object) -> Any:
        taken.append(plan)
        return SimpleNamespace(removed=())

    monkeypatch.setattr(keepers, "observe", lambda **_: None)
    monkeypatch.setattr(keepers, "prepare", planned)
    monkeypatch.setattr(keepers, "_tell_rules_before", lambda *_: None)
    monkeypatch.setattr(keepers, "apply", applied)
    monkeypatch.setattr(keepers, "compare", lambda *_: Drift((), {}, {}, 0))
    monkeypatch.setattr(keepers.elements, "wanted", lambda *_: {})
    monkeypatch.setattr(made, "_after_change", nothing)
    return taken


async def nothing(*_: object) -> None:
    """Takes as long as nothing."""


def test_a_look_that_fails_behind_the_kernel_does_not_go_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was applied is what the next look plans for, also if the conf can't be written then: a
    gateway that went down would be opened again."""
    down = Exits(ExitState(ip_address("172.28.0.3"), down="timed out"))
    made = reconciler(tmp_path)
    taken = looking(made, monkeypatch, iter([NEW]))

    async def refused(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(made, "_after_change", refused)
    with pytest.raises(OSError, match="No space"):
        asyncio.run(made.look(exits=down))
    assert taken == [NEW]
    assert made.exits == down


def test_a_plan_that_was_refused_half_way_is_applied_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The former plan is put in place anew, although no drift from it is seen: rules and routes
    that a refused reload added beside it are none."""
    made = reconciler(tmp_path)
    taken = looking(made, monkeypatch, iter([NEW, OLD, OLD]))
    apply = keepers.apply

    def refused(*given: Any, **more: Any) -> Any:
        apply(*given, **more)
        raise KernelRefused("refused", request="ip route replace", reply="busy")

    async def run() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(keepers, "apply", refused)
            with pytest.raises(KernelRefused):
                await made.look()
        await made.look()
        assert taken == [NEW, OLD]
        await made.look()
        assert taken == [NEW, OLD]

    asyncio.run(run())


def test_a_gateway_of_one_family_cuts_flows_of_the_other_to_this_hosts_networks() -> None:
    """IPv6 goes on as `direct`, and its flows to a neighbour began while that was allowed."""
    seen = facts(
        interface(2, "eth0", "172.28.0.10/24", "fd00:28::10/64"),
        default4="eth0",
        default6="eth0",
        connected={"172.28.0.0/24": "eth0", "fd00:28::/64": "eth0"},
    )
    exits = Exits(ExitState(ip_address("172.28.0.3")))
    before, after = (
        prepare(
            sources(VPN_GATEWAY=way, VPN_GATEWAY6="direct", IPV6_NAT="1"),
            seen,
            Ipv6Egress(None),
            exits,
        )
        for way in ("direct", "172.28.0.3")
    )
    six = [keepers._way(found.intent.exits[1]) for found in (before, after)]
    assert six[0] == six[1]
    assert ip_network("fd00:28::/64") not in keepers.not_for_clients(before.intent)
    assert ip_network("fd00:28::/64") in keepers.not_for_clients(after.intent)
