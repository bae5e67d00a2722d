"""One complaint again and again is told at a pace: each kernel event makes a look, and each look of
the same trouble the same complaint. The daemons of both roles have one of these."""

from __future__ import annotations

import time

from ocgate.control.log import Log

EVERY = 10.0  # seconds between two equal ones


class Complaints:
    """Of one kind."""

    def __init__(self, log: Log, what: str) -> None:
        self._log = log
        self._what = what
        self._said, self._at = "", 0.0

    def tell(self, why: str) -> None:
        """Log it, unless this very one was logged within EVERY."""
        if why != self._said or time.monotonic() - self._at > EVERY:
            self._log.error(self._what, why=why)
            self._said, self._at = why, time.monotonic()
