"""Repairs of what somebody has changed in the kernel, at a pace, told and counted.

A repair is done at once; somebody who undoes it again and again gets PER_WINDOW of them in WINDOW
seconds, then one every WINDOW / PER_WINDOW: the other locks hold meanwhile. Each role's reconciler
has one of these.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from ocgate.errors import OcgateError
from ocgate.runtime.log import Log

PER_WINDOW = 20
WINDOW = 10.0  # seconds


class Repairs:
    """count: how many succeeded so far. last: what the latest of them found, '' before one."""

    def __init__(self, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self.count = 0
        self.last = ""
        self._log = log
        self._clock = clock
        self._at: deque[float] = deque(maxlen=PER_WINDOW)

    async def make(
        self, found: Sequence[str], repair: Callable[[], Awaitable[None]], *, by: str = ""
    ) -> bool:
        """Run `repair` for what was found to differ; False where it was refused, which is logged.

        by: names of programs that have just changed nftables.
        """
        await self._patience()
        said = "; ".join(found)
        try:
            await repair()
        except OcgateError as error:
            self._log.error("drift found, but it can't be repaired", found=said, why=str(error))
            return False
        self._done(said, by)
        return True

    def made(self, found: Sequence[str]) -> None:
        """What a new plan has put right on its way."""
        if found:
            self._done("; ".join(found))

    def _done(self, said: str, by: str = "") -> None:
        self.count += 1
        self.last = said
        self._log.warning("drift repaired", found=said, **({"by": by} if by else {}))

    async def _patience(self) -> None:
        """Wait if the last PER_WINDOW repairs fell within WINDOW."""
        now = self._clock()
        if len(self._at) == PER_WINDOW and now - self._at[0] < WINDOW:
            self._log.warning(
                "somebody keeps changing our kernel state; repairing at a slower pace"
            )
            await asyncio.sleep(WINDOW / PER_WINDOW)
        self._at.append(self._clock())
