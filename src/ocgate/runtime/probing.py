"""Probes one exit: asks its targets, looks at its counters, and keeps what `liveness` makes of it.

    asks ─> a task for each target ─> answered, refused, unasked, silence ─┐
    in doubt: does the next hop answer? ───────────────────────────────────┤
    counters ─> looked ────────────────────────────────────────────────────┼─> Line ─> told
    time ─> passed ────────────────────────────────────────────────────────┘

Probes overlap: none is waited for. What has come in is taken before time is judged, so that a
process that got no CPU for a while does not take its own sleep for the exit's silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass

from ocgate.kernel.way import Found
from ocgate.upstream import liveness
from ocgate.upstream.evidence import late
from ocgate.upstream.line import FULL_LIMIT, LONGEST_LIMIT, NEVER, Counters, Line, State

# A late answer is one as well, but a socket that waits for it for ever is a leak: so many limits,
# within these bounds, in seconds. Not less than a line takes that clients begin to fill: waited for
# 2 s, every answer of one with 2 s of buffer came to nobody.
_LIMITS, _SHORTEST_WAIT = 2.0, FULL_LIMIT + 1.0
_LONGEST_WAIT = LONGEST_LIMIT + 2.0

# Turns of the event loop from a readable socket to what its reader makes of it (two, and one more).
_TURNS = 3

# Probes are sent at a tenth to either side of the interval, so that many don't go in step.
_JITTER = 0.1


Ask = Callable[[str, float], Awaitable[Found]]


@dataclass(frozen=True)
class Hop:
    """What was found of an exit's next hop.

    answers: it is there. gone: that it isn't needs no further question; of neither it has not
    answered so far. why: one clause.
    """

    answers: bool
    why: str
    gone: bool = False


async def no_hop() -> Hop | None:
    """Of an exit that has none, a tunnel."""
    return None


@dataclass(frozen=True)
class Seen:
    """What `ocgate status` tells of an exit. state: `up`, `down` or `unknown`. since: seconds since
    the epoch, None while unknown. rtt: the measured round trip in seconds, None before the first.
    heard: seconds since anything came back, None before it did. late: probes that wait for an
    answer longer than it should take.
    """

    state: str = "unknown"
    since: float | None = None
    why: str = "not probed yet"
    rtt: float | None = None
    heard: float | None = None
    late: int = 0

    @property
    def usable(self) -> bool:
        """Whether clients may be sent there; before the first verdict they may."""
        return self.state != "down"


UNSEEN = Seen()


def seen(state: str, since: float | None, line: Line, clock: float) -> Seen:
    """How an exit is, and what that rests on. clock: this moment, as the line's are given."""
    heard = None if line.heard == NEVER else round(clock - line.heard, 3)
    return Seen(state, since, line.why, line.trip, heard, late(line, clock))


def word(state: State) -> str:
    """Of a state for people, who are not told of a suspicion."""
    match state:
        case State.UNKNOWN:
            return "unknown"
        case State.DOWN:
            return "down"
        case _:
            return "up"


class Probing:
    """One exit, from `line` on. All is done in one event loop."""

    def __init__(
        self,
        line: Line,
        ask: Ask,
        look: Callable[[], Counters | None],
        hop: Callable[[], Awaitable[Hop | None]] = no_hop,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = lambda: random.uniform(1 - _JITTER, 1 + _JITTER),
    ) -> None:
        """ask: a target, by name, with seconds to wait at the most. look: None for no counters.
        hop: None where nothing can be said."""
        self.line = line
        self._ask = ask
        self._look = look
        self._hop = hop
        self._hop_asked = NEVER
        self._clock = clock
        self._jitter = jitter
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()

    async def run(
        self, told: Callable[[], Coroutine[None, None, None]], goes_on: Callable[[], bool]
    ) -> None:
        """As long as it goes on; `told` is awaited whenever the line has come into another state.
        Questions that are under way end with it."""
        state = self.line.state
        try:
            while goes_on():
                await self._take()
                if self.line.state is not state:
                    state = self.line.state
                    await told()
                wait = liveness.wakes(self.line, self._clock()) - self._clock()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(wait, 0.0)):
                        await self._news.wait()
                self._news.clear()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def doubt(self, why: str) -> None:
        """Something happened that may be its end, or its beginning: ask now."""
        self.line = liveness.doubted(self.line, why, self._clock())
        self._news.set()

    async def _take(self) -> None:
        now = self._clock()
        for _ in range(_TURNS):  # whatever had come by then is taken
            await asyncio.sleep(0)
        counters = None
        with contextlib.suppress(OSError):  # those that can't be read now say nothing
            counters = self._look()
        if counters is not None:
            self.line = liveness.looked(self.line, counters, now)
        self.line = liveness.passed(self.line, now)
        now = self._clock()
        names = liveness.asks(self.line, now)
        if names:
            self.line = liveness.asked(self.line, names, now, jitter=self._jitter())
        wait = min(max(_LIMITS * self.line.limit, _SHORTEST_WAIT), _LONGEST_WAIT)
        for name in names:
            self._begin(self._answer(name, self.line.number, wait))
        # After the probes: by them the kernel asks for a neighbour that failed when nobody minded.
        if self._hop_is_due(now):
            self._hop_asked = now
            self._begin(self._ask_hop())

    def _begin(self, job: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _hop_is_due(self, now: float) -> bool:
        line = self.line
        if line.targets and line.state is State.ALIVE:
            return False
        hurried = line.state is State.SUSPECT
        return now - self._hop_asked >= (line.pace.hurried if hurried else line.pace.interval / 2)

    async def _ask_hop(self) -> None:
        found = await self._hop()
        now = self._clock()
        if found is None:
            return
        if found.answers:
            self.line = liveness.next_hop_answers(self.line, found.why, now)
        elif found.gone:
            self.line = liveness.cut_off(self.line, found.why, now)
        else:
            self.line = liveness.next_hop_silent(self.line, found.why)
        self._news.set()

    async def _answer(self, name: str, number: int, wait: float) -> None:
        found = await self._ask(name, wait)
        now = self._clock()
        if found.ok:
            self.line = liveness.answered(self.line, number, name, found.trip, now)
        elif found.refused:
            self.line = liveness.refused(self.line, number, name, found.why, now)
        elif found.unable:
            self.line = liveness.unasked(self.line, number, name, found.why, now)
        else:
            return
        self._news.set()
