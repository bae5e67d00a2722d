"""How much of what all sessions share is in use: connection tracking, and the translated ports
towards one destination. For status, metrics and doctor; the wiring imports this.
"""

from __future__ import annotations

import asyncio
import time

from ocgate.kernel import conntrack
from ocgate.plan.facts import Network
from ocgate.plan.limits import shared_ports
from ocgate.server.desired.prepare import Prepared
from ocgate.server.status.findings import NEARLY_ALL
from ocgate.server.status.schema import FlowsStatus

# To read a full table (262,144 entries) takes 1 s where the flows are others', 4 s where they are
# clients', on an idle machine; 0.3 s at 20,000. Whoever asks for a status waits 5 s.
PATIENCE = 1.0  # seconds
REST = 9  # times as long as it took: a tenth of a processor at most

_Busiest = tuple[str, int | None]


class FlowUsage:
    """Counts of one control plane."""

    def __init__(self) -> None:
        self._found: _Busiest = ("", None)
        self._reading: asyncio.Task[tuple[_Busiest, float]] | None = None
        self._next = 0.0

    async def collect(self, prepared: Prepared) -> FlowsStatus:
        """Read now, but for the busiest destination: that is counted only where there are so many
        flows that it can matter, for that reads every entry, and is then what the last count that
        came to its end has found."""
        entries, most = conntrack.usage()
        ports = shared_ports(prepared.intent)
        matters = entries >= NEARLY_ALL * ports
        busiest, used = await self._busiest(prepared.subnets) if matters else ("", None)
        return FlowsStatus(
            entries=entries,
            most=most,
            per_session=prepared.intent.session_flows,
            ports=ports,
            ports_used=used,
            busiest=busiest,
        )

    async def _busiest(self, networks: tuple[Network, ...]) -> _Busiest:
        if self._reading is None and time.monotonic() >= self._next:
            self._reading = asyncio.create_task(asyncio.to_thread(_count, networks))
        if (reading := self._reading) is not None:
            await asyncio.wait((reading,), timeout=PATIENCE)
            if reading.done() and reading is self._reading:
                self._reading = None
                self._found, took = reading.result()
                self._next = time.monotonic() + REST * took
        return self._found


def _count(networks: tuple[Network, ...]) -> tuple[_Busiest, float]:
    """With the seconds that it took."""
    started = time.monotonic()
    found = conntrack.busiest(networks)
    return found, time.monotonic() - started
