"""Chaos: faults of all kinds at random, several at a time, until the time is over.

    round   2 to 6 faults of the matrix (and of `chaos_faults`), each some hundred packets after the
            one before, each taken back at random; in a third of the rounds control is frozen for
            all of it. Then everything is mended, and every client must be answered again.
    end     the plan has no difference to the kernel; after a stop nothing of it is left

A round is a `Fault` of its own, so the engine runs, judges and reports it as any other, and its
positive control comes first. What it takes away of the layers is what its faults take together, and
no round takes both of those that hold a client each by itself: that nothing leaks then is promised
by nobody. A round depends on seed and number alone: a printed seed replays it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ocgate.netlab.wait import wait_until
from ocgate.prove import chaos_faults, damage, faults, interface_faults, upstream_faults
from ocgate.prove.clients import Refused
from ocgate.prove.fault import Expect, Fault, Lock, nothing
from ocgate.prove.stage import Stage
from ocgate.prove.subject import Subject

FEWEST_STEPS, MOST_STEPS = 2, 6
FROZEN = 1 / 3  # of the rounds
LEFT_OPEN = 0.7  # of the faults that somebody has to take back, at each further step

# Client packets between two steps: 0.1 s, in which a repair is under way, to 0.6 s, in which health
# has noticed.
FEWEST_PACKETS, MOST_PACKETS = 200, 1300
PACE_SECONDS = 30.0

# At most one of a group is open at a time: two would take back each other's.
ALONE = frozenset({"upstream", "interfaces", "freezes"})
# These ask control, and are over when they were answered.
ASKING = frozenset({"sessions", "processes"})
# A start waits for a host that is whole; a reload is refused where its gateway is on no network.
WHOLE = frozenset({"container restart", "reload under load", "reload, ocserv.conf changed"})

# Policy rules name this host's addresses: whoever is frozen can't follow a new one.
FOLLOWED = frozenset({"address of the host changed"})

# What leaves is translated by the one, or else dropped by the other.
TRANSLATING = frozenset({"chain nat flushed", "chain last flushed"})

# Each of these holds a client without the other; where there is only the first, none is taken.
_HOLDING = frozenset({Lock.TABLES, Lock.RULES})


def vocabulary() -> list[Fault]:
    """What may happen in a round, in a fixed order."""
    return [
        *damage.SINGLE,
        *chaos_faults.FAULTS,
        *upstream_faults.FAULTS,
        *interface_faults.FAULTS,
        *faults.SESSIONS,
        *(fault for fault in faults.PROCESSES if not fault.frozen),
    ]


@dataclass(frozen=True)
class Step:
    """One fault of a round. packets: of clients, before the next. until: number of the step after
    which its cause is taken away."""

    fault: Fault
    packets: int
    until: int


@dataclass(frozen=True)
class Round:
    """What a seed makes of a number."""

    number: int
    steps: tuple[Step, ...]
    frozen: bool

    @property
    def locks(self) -> frozenset[Lock]:
        """All layers that its faults take away, as if at one time."""
        return frozenset().union(*(step.fault.locks for step in self.steps))

    @property
    def name(self) -> str:
        """Its steps in words."""
        words = " + ".join(step.fault.name for step in self.steps)
        return f"{self.number}: {words}" + (", frozen" if self.frozen else "")


def drawn(seed: int, number: int, words: Sequence[Fault], *, spared: frozenset[Lock]) -> Round:
    """Round `number` of this seed. spared: layers that it must not touch."""
    chance = random.Random(f"{seed} {number}")
    frozen = chance.random() < FROZEN
    count = chance.randint(FEWEST_STEPS, MOST_STEPS)
    steps: list[Step] = []
    while len(steps) < count:
        fitting = [fault for fault in words if _fits(fault, steps, spared, frozen=frozen)]
        fault = chance.choice(fitting)
        until = at = len(steps)
        if fault.undo is not nothing and fault.group not in ASKING:
            while until < count - 1 and chance.random() < LEFT_OPEN:
                until += 1
        steps.append(Step(fault, chance.randint(FEWEST_PACKETS, MOST_PACKETS), until))
        assert until >= at
    return Round(number, tuple(steps), frozen)


def _fits(fault: Fault, before: Sequence[Step], spared: frozenset[Lock], *, frozen: bool) -> bool:
    met = (fault, *(step.fault for step in before))
    stands_still = frozen or any(one.group == "freezes" for one in met)
    taken: frozenset[Lock] = frozenset()
    for one in met:
        taken |= one.locks | ({Lock.RULES} if stands_still and one.name in FOLLOWED else set())
    if taken & spared or taken >= _HOLDING or {one.name for one in met} >= TRANSLATING:
        return False
    standing = {step.fault.group for step in before if step.until >= len(before)}
    if fault.group in ALONE & standing:
        return False
    if fault.group in ASKING:
        broken = "freezes" in standing or (fault.name in WHOLE and "interfaces" in standing)
        return not (frozen or broken)
    return not (frozen and fault.group == "freezes")


# --- doing it -----------------------------------------------------------------------------------


@dataclass
class Acting:
    """A round as it is done. standing: faults whose cause is not yet taken away."""

    planned: Round
    standing: list[Step] = field(default_factory=list)

    def fault(self) -> Fault:
        """What the engine runs."""
        return Fault(
            self.planned.name,
            "chaos",
            self.inject,
            self.undo,
            frozen=self.planned.frozen,
            locks=self.planned.locks,
            expect=Expect.COMES_BACK,
        )

    def inject(self, stage: Stage) -> None:
        """Its steps, each under traffic."""
        for number, step in enumerate(self.planned.steps):
            self._do(stage, step)
            _pace(stage, step.packets)
            for over in [held for held in self.standing if held.until <= number]:
                self._take_back(stage, over)

    def undo(self, stage: Stage) -> None:
        """Whatever still stands, the latest first; then the host's own things as they were."""
        while self.standing:
            self._take_back(stage, self.standing[-1])
        stage.mend()
        stage.mend_upstreams()

    def _do(self, stage: Stage, step: Step) -> None:
        if step.fault.group in ASKING:
            faults.wait_ready(stage)
            faults.reconnect(stage)
        self.standing.append(step)
        _tolerant(stage, step.fault.inject)
        stage.had.update(stage.own_addresses())  # another step may take one back

    def _take_back(self, stage: Stage, step: Step) -> None:
        self.standing.remove(step)
        _tolerant(stage, step.fault.undo)
        step.fault.after(stage)


def _tolerant(stage: Stage, act: Callable[[Stage], None]) -> None:
    """A session that is refused in the middle of all this is no failure: its user tries again."""
    try:
        act(stage)
    except Refused:
        for client in tuple(stage.clients.live):
            if client.worker.poll() is not None:
                stage.clients.vanish(client)


def _pace(stage: Stage, packets: int) -> None:
    """Until clients have sent so many more; at once where there are none."""
    traffic = stage.traffic
    if not stage.clients.live:
        return
    goal = traffic.total(traffic.fault) + packets

    def sent() -> bool:
        traffic.check()
        return traffic.total(traffic.fault) >= goal

    wait_until(sent, PACE_SECONDS, "the traffic of a round")


def spared(subject: Subject) -> frozenset[Lock]:
    """The standalone server has one layer for what clients send, and without it they leak
    (docs/known-issues.md)."""
    return frozenset({Lock.TABLES} if len(subject.tables) == 1 else ())


def rounds(
    stage: Stage,
    words: Sequence[Fault],
    seed: int,
    seconds: float,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Fault]:
    """Rounds until the time is over; the time begins with the first."""
    until = clock() + seconds
    number = 0
    while clock() < until:
        number += 1
        yield Acting(drawn(seed, number, words, spared=spared(stage.subject))).fault()
