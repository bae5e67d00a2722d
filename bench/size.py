"""How much is measured."""

from __future__ import annotations

from enum import Enum


class Size(Enum):
    """smoke: does it work at all (a test, seconds); quick: a look (all below 90 s); full: figures
    to keep."""

    SMOKE = "smoke"
    QUICK = "quick"
    FULL = "full"

    def of(self, smoke: int, quick: int, full: int) -> int:
        """The number that belongs to this size."""
        return {Size.SMOKE: smoke, Size.QUICK: quick, Size.FULL: full}[self]

    @property
    def sessions(self) -> tuple[int, ...]:
        """Numbers of sessions to compare, ascending, the first is the baseline."""
        return {
            Size.SMOKE: (20,),
            Size.QUICK: (0, 1000),
            Size.FULL: (0, 1000, 10_000),
        }[self]
