"""Keeps the tunnels of admitted sessions in their interface group.

Policy routing delivers to that group alone (`kernel.tunnel_group`), so a tunnel that somebody takes
out of it gets nothing any more: fail-closed, but its client is cut off. `kernel.watch` names such
tunnels from the event itself; here they are put back, which counts as a repair in `status`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from ocgate.errors import OcgateError
from ocgate.kernel.tunnel_group import TunnelGroup
from ocgate.runtime.log import stage
from ocgate.runtime.rate_limited_log import RateLimitedLog
from ocgate.runtime.repairs import Repairs
from ocgate.runtime.shortages import AGAIN, LACKS, words
from ocgate.sessions.table import SessionTable

# 50 us each: thousands in one go would keep a login waiting.
SLICE = 100  # tunnels between two turns of the loop
NAMED = 3  # of many tunnels, in a message

log = stage("svc-control")


class Tunnels:
    """Owned by the daemon, on its loop."""

    def __init__(self, table: SessionTable, repairs: Repairs) -> None:
        self._table = table
        self._repairs = repairs
        self._group = TunnelGroup()
        self._out: set[str] = set()
        self._news = asyncio.Event()
        self.complaints = RateLimitedLog(log, "tunnels can't be put into their group")

    def left(self, devices: Iterable[str]) -> None:
        """These are not in the group (any more); those that no session has are nobody's concern."""
        self._out.update(devices)
        self._news.set()

    async def run(self) -> None:
        """For ever. First all of the sessions that a former control plane admitted: it may have
        been of a version that knew no group, or have missed something."""
        await self._lasting({session.device for session in self._table}, self._join)
        while True:
            await self._news.wait()
            self._news.clear()
            devices, self._out = self._out, set()
            await self._lasting(devices, self._repair)

    async def _lasting(self, devices: set[str], job: Callable[[set[str]], Awaitable[None]]) -> None:
        """Until it is done: what is kept back from a client meanwhile is told."""
        while True:
            try:
                await job(devices)
            except (OcgateError, *LACKS) as error:
                self.complaints.tell(words(error))
                await asyncio.sleep(AGAIN)
            else:
                self.complaints.over()
                return

    async def _repair(self, devices: set[str]) -> None:
        owned = sorted(device for device in devices if self._table.on_device(device))
        if owned and not await self._repairs.make([_found(owned)], lambda: self._join(owned)):
            raise OcgateError(_found(owned))

    async def _join(self, devices: Iterable[str]) -> None:
        names = list(devices)
        for start in range(0, len(names), SLICE):
            part = names[start : start + SLICE]
            self._group.join([name for name in part if self._table.on_device(name)])
            await asyncio.sleep(0)


def _found(devices: list[str]) -> str:
    if len(devices) == 1:
        return f"tunnel {devices[0]} was taken out of its interface group"
    more = ", …" if len(devices) > NAMED else ""
    names = ", ".join(devices[:NAMED])
    return f"{len(devices)} tunnels were taken out of their interface group ({names}{more})"
