"""One complaint again and again is told at a pace: each kernel event makes a look, and each look of
the same trouble the same complaint. The daemons of both roles have one of these for each kind."""

from __future__ import annotations

import time

from ocgate.runtime.log import Log

EVERY = 10.0  # seconds between two equal ones
FRESH = 60.0  # seconds that a complaint stands, unless it is over or told again


class RateLimitedLog:
    """Of one kind."""

    def __init__(self, log: Log, what: str) -> None:
        self._log = log
        self._what = what
        self._said, self._at = "", 0.0
        self._standing, self._latest = "", 0.0

    @property
    def standing(self) -> str:
        """What is wrong now, in one sentence; '' once it is over."""
        fresh = self._standing and time.monotonic() - self._latest < FRESH
        return f"{self._what}: {self._standing}" if fresh else ""

    def tell(self, why: str) -> None:
        """Log it, unless this very one was logged within EVERY."""
        self._standing, self._latest = why, time.monotonic()
        if why != self._said or time.monotonic() - self._at > EVERY:
            self._log.error(self._what, why=why)
            self._said, self._at = why, time.monotonic()

    def over(self) -> None:
        """It works again: logged, if it did not."""
        if self._standing:
            self._log.info("over", what=self._what)
            self._standing = self._said = ""
