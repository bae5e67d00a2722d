"""How long each exit has been down, by which flows of before are told, and then given up. Pure
bookkeeping; the reconciler's.

After a restart of control the time begins anew: flows that a killed control left alone are not to
be cut because it came back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from ocgate.plan.exits import Exits, ExitState
from ocgate.plan.facts import Address, Family
from ocgate.plan.first_packets import LASTS, WAIT


class Outages:
    """Of the gateways of both families."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """clock: seconds that nobody sets."""
        self._clock = clock
        self._began: dict[Family, tuple[Address | None, float]] = {}
        self._due = math.inf

    def seen(self, exits: Exits) -> Exits:
        """The same, with how far each outage is. Ask again when `is_due`."""
        self._due = math.inf
        return Exits(self._of(4, exits.exit4), self._of(6, exits.exit6))

    @property
    def is_due(self) -> bool:
        """Whether one is farther now."""
        return self._clock() >= self._due

    def _of(self, family: Family, state: ExitState | None) -> ExitState | None:
        if state is None or not state.down:
            self._began.pop(family, None)
            return state if state is None else replace(state, lasts=False, given_up=False)
        address, began = self._began.get(family, (None, 0.0))
        if family not in self._began or address != state.address:
            began = self._clock()
            self._began[family] = state.address, began
        now, turns = self._clock(), (began + LASTS, began + WAIT)
        self._due = min([self._due, *(turn for turn in turns if turn > now)])
        lasts, given_up = (now >= turn for turn in turns)
        return replace(state, lasts=lasts, given_up=given_up)
