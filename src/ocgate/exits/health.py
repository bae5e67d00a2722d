"""Whether one exit answers: a state machine of verdicts, with hysteresis.

    UNKNOWN ── first verdict ──> UP  ── `failures` refused in a row ──> DOWN
                        └──────> DOWN ── `successes` answered in a row ─> UP

The first verdict decides alone, because a start must know at once; after that single lost packets
take nobody's way, and a gateway that flaps has to hold before clients are sent to it again. Pure;
the wiring turns probes into verdicts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class State(Enum):
    """What is known of an exit; the value is the word in `ocgate status`."""

    UNKNOWN = "unknown"
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True)
class Thresholds:
    """Verdicts in a row that turn UP to DOWN and DOWN to UP; both at least 1."""

    failures: int
    successes: int


# For a witness that has made its attempts already: the kernel calls a neighbour FAILED after three.
AT_ONCE = Thresholds(1, 1)


@dataclass(frozen=True)
class Verdict:
    """What one probe found.

    ok:  the exit answered. why: one clause for the operator, which target said what.
    at:  seconds since the epoch. rtt: seconds until the answer, None where nothing was measured.
    """

    ok: bool
    why: str
    at: float
    rtt: float | None = None


@dataclass(frozen=True)
class Health:
    """The state of one exit.

    since: seconds since the epoch, when it entered this state; 0 while UNKNOWN.
    why:   the last verdict's clause that speaks for this state.
    rtt:   seconds of the last answered probe, None before the first.
    row:   verdicts in a row that speak against this state.
    """

    state: State = State.UNKNOWN
    since: float = 0.0
    why: str = "not probed yet"
    rtt: float | None = None
    row: int = 0

    @property
    def usable(self) -> bool:
        """Whether clients may be sent there; before the first verdict they may."""
        return self.state is not State.DOWN


UNKNOWN = Health()


def step(health: Health, verdict: Verdict, thresholds: Thresholds) -> Health:
    """The state after this verdict."""
    rtt = verdict.rtt if verdict.ok and verdict.rtt is not None else health.rtt
    confirmed = State.UP if verdict.ok else State.DOWN
    if health.state is confirmed:
        return replace(health, why=verdict.why, rtt=rtt, row=0)
    row = health.row + 1
    if health.state is State.UNKNOWN or row >= _needed(confirmed, thresholds):
        return Health(confirmed, verdict.at, verdict.why, rtt)
    return replace(health, rtt=rtt, row=row)


def _needed(towards: State, thresholds: Thresholds) -> int:
    return thresholds.successes if towards is State.UP else thresholds.failures
