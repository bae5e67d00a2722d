"""Makes clients' TCP speak after an outage, in the background: `kernel.tcp_nudge` says how and why.

Who waits for the rest of a download learns that it is cut, or gets its far end to say so; who has
nothing to fear sends one acknowledgement. The reconciler's.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable

from ocgate.errors import OcgateError
from ocgate.kernel import conntrack
from ocgate.kernel.conntrack import TcpFlow
from ocgate.kernel.tcp_nudge import nudge
from ocgate.plan.facts import Network
from ocgate.runtime.log import stage
from ocgate.runtime.rate_limited_log import RateLimitedLog
from ocgate.runtime.shortages import LACKS, words

log = stage("svc-control")


class Nudges:
    """tunnels, of each: what names of clients' devices begin with."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._complaints = RateLimitedLog(log, "waiting clients can't be told of an outage")

    def of_networks(self, networks: Iterable[Network], *, tunnels: str) -> None:
        """Nudge the connections of these client networks that connection tracking knows."""
        given = tuple(networks)
        self._begin(lambda: conntrack.tcp_of_networks(given), tunnels)

    def of_flows(self, flows: Iterable[TcpFlow], *, tunnels: str) -> None:
        """Nudge these, which it may have forgotten."""
        given = tuple(flows)
        self._begin(lambda: given, tunnels)

    def _begin(self, found: Callable[[], Iterable[TcpFlow]], tunnels: str) -> None:
        task = asyncio.create_task(self._nudge(found, tunnels))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _nudge(self, found: Callable[[], Iterable[TcpFlow]], tunnels: str) -> None:
        try:
            flows = await asyncio.to_thread(found)
            sent = await asyncio.to_thread(functools.partial(nudge, flows, tunnels=tunnels))
        except (OcgateError, *LACKS) as error:
            self._complaints.tell(words(error))
        else:
            self._complaints.over()
            log.debug("clients' connections were asked to speak", connections=sent)
