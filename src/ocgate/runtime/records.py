"""What the run dir keeps for a control plane that is restarted: written at once, and where that is
refused (no space, no descriptors), again and again until it stands.

A record is no reason to stop: what it says is in force all the same. But one that a full disk left
behind the times would be believed by the next control plane. The daemons of both roles have one
of these, and ask it to `retry` once a second.
"""

from __future__ import annotations

from collections.abc import Callable

from ocgate.runtime.log import stage
from ocgate.runtime.rate_limited_log import RateLimitedLog
from ocgate.runtime.shortages import LACKS, words

log = stage("svc-control")


class Records:
    """Owned by a daemon, on its loop."""

    def __init__(self) -> None:
        self._owed: dict[str, Callable[[], object]] = {}
        self.complaints = RateLimitedLog(
            log, "what a restarted control plane must know can't be kept"
        )

    def keep(self, name: str, write: Callable[[], object]) -> None:
        """Write the record of this name, now or as soon as that can be done; a later call takes
        the place of one that is still owed."""
        self._owed[name] = write
        self.retry()

    def retry(self) -> None:
        """Write what is owed; nothing is looked at where nothing is."""
        if not self._owed:
            return
        for name, write in tuple(self._owed.items()):
            try:
                write()
            except LACKS as error:
                self.complaints.tell(words(error))
            else:
                del self._owed[name]
        if not self._owed:
            self.complaints.over()
