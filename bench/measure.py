"""Series of measurements, taken in turn, and what is said of them: median, percentiles, ratios."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Measurement = Callable[[], float]


@dataclass(frozen=True)
class Series:
    """Measurements of one thing, in the order they were taken; at least one."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def percentile(self, percent: float) -> float:
        """The smallest value that `percent` of all don't exceed (nearest rank)."""
        ordered = sorted(self.values)
        return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]

    @property
    def spread(self) -> tuple[float, float]:
        """First and third quartile: half of all measurements lie between them."""
        return self.percentile(25), self.percentile(75)

    def scaled(self, factor: float) -> Series:
        """The same in another unit."""
        return Series(tuple(value * factor for value in self.values))

    def over(self, other: Series) -> Series:
        """Ratio to `other`, round by round: what slowed a whole round cancels out."""
        pairs = zip(self.values, other.values, strict=True)
        return Series(tuple(own / base for own, base in pairs))

    def inverse(self) -> Series:
        """One over each."""
        return Series(tuple(1 / value for value in self.values))

    def above(self, other: Series) -> Series:
        """Difference to `other`, round by round."""
        pairs = zip(self.values, other.values, strict=True)
        return Series(tuple(own - base for own, base in pairs))


def in_turn(rounds: int, sides: Mapping[str, Measurement]) -> dict[str, Series]:
    """Measure every side once a round; each round begins with another side, so that none always
    runs after the same neighbour. Warm up before: the first round counts."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for number in range(rounds):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            taken[name].append(sides[name]())
    return {name: Series(tuple(values)) for name, values in taken.items()}


def program(argv: list[str], environ: Mapping[str, str], *, stdout: int = 1) -> float:
    """Seconds from before fork to after the exit of a program; it must exit with 0.

    argv[0] is an absolute path. By posix_spawn, which does not copy this process's memory map.
    """
    actions = [(os.POSIX_SPAWN_DUP2, stdout, 1)]
    started = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, environ, file_actions=actions)
    _, status = os.waitpid(pid, 0)
    seconds = time.perf_counter() - started
    if status != 0:
        raise AssertionError(f"{' '.join(argv)}: exit status {os.waitstatus_to_exitcode(status)}")
    return seconds
