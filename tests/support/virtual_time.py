"""An event loop whose clock jumps to the next thing that is due: what takes a minute takes none."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class _Jumping(selectors.SelectSelector):
    """Never waits."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if found or timeout == 0:
            return found
        assert timeout is not None, "nothing will ever happen"
        self.now += timeout
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """Of one test, which closes it by `end`."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def passes(self, seconds: float) -> None:
        """So much time, in which all that is due happens."""
        self.run_until_complete(asyncio.sleep(seconds))

    def end(self) -> None:
        """Cancel what still runs."""
        tasks = asyncio.all_tasks(self)
        for task in tasks:
            task.cancel()
        if tasks:
            self.run_until_complete(asyncio.wait(tasks))
        self.close()
