"""What is known of one exit while it is watched: a value; `upstream.liveness` makes new of old.

Moments are seconds of any clock that goes on. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

# A probe's limit, in seconds: before anything was measured (RFC 6298 says 1; a satellite's first
# answer takes longer), at the most, and while clients fill a line that nothing comes back from: of
# buffers in the field few hold more than 2 s, and those that do were measured before they are full.
FIRST_LIMIT, LONGEST_LIMIT, FULL_LIMIT = 4.0, 10.0, 4.0

# Seconds without any evidence, because this host could not ask, after which it does not know any
# more: a shortage of a busy moment passes in less, and nobody is told "alive" for long.
BLIND = 30.0

# RFC 6298, section 2: so many variations above the round trip is a packet's limit. A steady line
# has none to speak of; half of its round trip is always allowed for.
_VARIATIONS, _SPARE = 4, 1.5

# The same: weights of a new sample in the round trip and in its variation.
_ALPHA, _BETA = 1 / 8, 1 / 4

NEVER = float("-inf")


class State(Enum):
    """What is known of an exit; the value is the word in `ocgate status`."""

    UNKNOWN = "unknown"  # nothing has come back yet, and not for long; or this host can't ask
    ALIVE = "alive"
    SUSPECT = "suspect"  # something is late: all targets are asked
    DOWN = "down"


@dataclass(frozen=True)
class Pace:
    """How an exit is probed.

    interval:  seconds between two probes while all is well, above 0.
    failures:  rounds of probes in a row without an answer that make it down, at least 1.
    successes: answers in a row that make it alive again, at least 1.
    """

    interval: float = 1.0
    failures: int = 3
    successes: int = 2

    @property
    def floor(self) -> float:
        """Seconds that every probe is given at the least."""
        return min(max(self.interval / 2, 0.1), 1.0)

    @property
    def glance(self) -> float:
        """Seconds between two looks at what clients send and get."""
        return min(max(self.interval / 4, 0.03), 0.5)

    @property
    def hurried(self) -> float:
        """Seconds between two rounds while it is suspect: where more of them are wanted, they are
        nearer to each other, so that the verdict takes as long."""
        return min(max(self.interval / 2 / max(self.failures - 1, 2), 0.02), 0.5)


@dataclass(frozen=True)
class Counters:
    """Bytes of clients through one exit since some moment: towards it, and back from beyond it."""

    sent: int
    back: int


@dataclass(frozen=True)
class Round:
    """Targets that were asked at one moment.

    whole:   these were all that there are.
    open:    who has not answered yet. refused: what was said instead, by target.
    asked:   who was asked indeed; this host may lack what it takes.
    """

    number: int
    sent: float
    whole: bool
    open: frozenset[str]
    refused: tuple[str, ...] = ()
    asked: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Target:
    """row: how often in a row it was asked in vain. unable: how often in a row it could not be.
    asked: when it was, last. settled: when it last answered or was refused."""

    name: str
    row: int = 0
    unable: int = 0
    asked: float = NEVER
    settled: float = NEVER


@dataclass(frozen=True)
class Line:
    """All that is known of one exit. Moments are seconds of any clock that goes on.

    since:   when it came into this state; a suspicion that passes is no change. why: one clause
             that speaks for the state.
    heard:   when something came back last. answered: when a probe was.
    rounds:  asked since then, oldest first. number: of the last round.
    due:     when the next round is.
    trip, variation: of the round trip, in seconds; None before the first measurement.
    good:    answers in a row while it is down. counted: the round of the last one.
    late:    moments of probes that were sent since one was answered.
    looks:   what the counters said lately, oldest first.
    steady:  looks in a row that saw something come back. back: when it did last.
    filling: when clients last sent as much as fills a line, and nothing came back.
    hop:     why the next hop is thought to be silent, '' while it is not.
    waiting: since when clients wait for an answer that has not come; None while they don't.
    doubted: when their traffic made it suspect, last.
    blind:   since when this host can't ask and nothing came back; None while it can. lacks: what
             for, one clause.
    """

    pace: Pace
    targets: tuple[Target, ...]
    state: State = State.UNKNOWN
    since: float = 0.0
    why: str = "not asked yet"
    heard: float = NEVER
    answered: float = NEVER
    rounds: tuple[Round, ...] = ()
    number: int = 0
    due: float = 0.0
    trip: float | None = None
    variation: float = 0.0
    good: int = 0
    counted: int = 0
    late: tuple[float, ...] = ()
    looks: tuple[tuple[float, Counters], ...] = field(default=(), repr=False)
    steady: int = 0
    back: float = NEVER
    filling: float = NEVER
    hop: str = ""
    waiting: float | None = None
    doubted: float = NEVER
    blind: float | None = None
    lacks: str = ""

    @property
    def usable(self) -> bool:
        """Whether clients may be sent there; before the first verdict they may."""
        return self.state is not State.DOWN

    @property
    def limit(self) -> float:
        """Seconds after which a probe that was not answered is lost."""
        if self.trip is None:
            return FIRST_LIMIT
        expected = max(self.trip + _VARIATIONS * self.variation, _SPARE * self.trip)
        return min(max(expected, self.pace.floor), LONGEST_LIMIT)

    def measured(self, trip: float | None) -> Line:
        """With one more sample, in seconds; None where there was none."""
        if trip is None:
            return self
        if self.trip is None:
            return replace(self, trip=trip, variation=trip / 2)
        variation = (1 - _BETA) * self.variation + _BETA * abs(self.trip - trip)
        return replace(self, trip=(1 - _ALPHA) * self.trip + _ALPHA * trip, variation=variation)
