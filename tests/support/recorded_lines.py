"""Shows a recorded line (`bench/record_line.py`) to the model of liveness.

A question has the fate of the one to the same target that was asked next to it; counters are those
that were read last.
"""

from __future__ import annotations

import heapq
import json
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path

from ocgate.upstream import liveness
from ocgate.upstream.line import Counters, Line, Pace, State

TRACES = Path(__file__).parents[1] / "unit/upstream/traces"

_FAR = 1.0  # seconds; beyond it the line may be another

Fate = tuple[float, float | None, bool]
"""When it was asked, seconds until the answer (None: silence), and whether that is a round trip."""


@dataclass
class Recorded:
    """ends: when the line did, None if it did not."""

    seconds: float
    ends: float | None
    asked: dict[str, list[Fate]]
    counters: list[tuple[float, Counters]]
    states: list[tuple[float, State, str]] = field(default_factory=list)
    line: Line = field(init=False)
    _taken: dict[str, int] = field(default_factory=dict)

    def run(self, pace: Pace) -> Recorded:
        """Let the model watch it from its beginning to its end."""
        self.line, now = liveness.begin(pace, self.asked, 0.0), 0.0
        coming: list[tuple[float, int, str, float]] = []
        while now < self.seconds:
            moment = liveness.wakes(self.line, now)
            now = max(min([moment, *(one[0] for one in coming[:1])]), now + 1e-3)
            while coming and coming[0][0] <= now:
                at, number, name, trip = heapq.heappop(coming)
                self.line = liveness.answered(self.line, number, name, trip or None, at)
            self.line = liveness.looked(self.line, self._counted(now), now)
            self.line = liveness.passed(self.line, now)
            self._note(now)
            if names := liveness.asks(self.line, now):
                self.line = liveness.asked(self.line, names, now)
                for name in names:
                    if (fate := self._fate(name, now))[1] is not None:
                        trip = fate[1] if fate[2] else 0.0
                        heapq.heappush(coming, (now + fate[1], self.line.number, name, trip))
                self._note(now)
        return self

    def _fate(self, name: str, now: float) -> Fate:
        """Of the next one, so that nothing that was asked before the line's end stands for one that
        was asked after it; one that was not taken yet, so that of a lost packet there are not
        several."""
        asked = self.asked[name]
        following = bisect_right(asked, now, key=lambda one: one[0])
        fresh = max(following, self._taken.get(name, -1) + 1)
        if fresh >= len(asked) or asked[fresh][0] > now + _FAR:
            fresh = min(following, len(asked) - 1)
        self._taken[name] = fresh
        return asked[fresh]

    def _counted(self, now: float) -> Counters:
        place = bisect_right(self.counters, now, key=lambda one: one[0])
        return self.counters[max(place - 1, 0)][1]

    def _note(self, now: float) -> None:
        if not self.states or self.states[-1][1] is not self.line.state:
            self.states.append((now, self.line.state, self.line.why))

    @property
    def seen(self) -> list[State]:
        """What people see, without repetition: a suspicion is nothing."""
        shown = [state for _, state, _ in self.states if state is not State.SUSPECT]
        return [state for before, state in zip([None, *shown], shown, strict=False)
                if state is not before]  # fmt: skip

    @property
    def down_after(self) -> float:
        """Seconds from the line's end to the verdict."""
        down = [at for at, state, _ in self.states if state is State.DOWN]
        return min(down) - (self.ends or 0.0)


def read(name: str) -> Recorded:
    """One of the traces."""
    held = json.loads((TRACES / f"{name}.json").read_text())
    asked = {
        target: [
            (one[0] / 1000, None if one[1] is None else one[1] / 1000, len(one) == 2)
            for one in found
        ]
        for target, found in held["asked"].items()
    }
    counters = [(at / 1000, Counters(sent, back)) for at, sent, back in held["counters"]]
    return Recorded(held["seconds"], held["ends"], asked, counters)
