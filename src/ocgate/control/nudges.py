"""Makes clients' TCP speak after an outage, in the background: `kernel.tcp_nudge` says how and why.

Who waits for the rest of a download learns that it is cut, or gets its far end to say so; who has
nothing to fear sends one acknowledgement. The keeper's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_network

from ocgate.control.complaints import Complaints
from ocgate.control.log import stage
from ocgate.control.wants import LACKS, words
from ocgate.errors import OcgateError
from ocgate.kernel import conntrack
from ocgate.kernel.conntrack import TcpFlow
from ocgate.kernel.tcp_nudge import nudge
from ocgate.plan.facts import Network
from ocgate.sessions.table import SessionTable

log = stage("svc-control")


class Nudges:
    """Of the sessions in `table`."""

    def __init__(self, table: SessionTable) -> None:
        self._table = table
        self._tasks: set[asyncio.Task[None]] = set()
        self._complaints = Complaints(log, "waiting clients can't be told of an outage")

    def of_networks(self, networks: Iterable[Network], *, prefix6: int) -> None:
        """Nudge the connections of these client networks that connection tracking knows."""
        given = tuple(networks)
        self._begin(lambda: conntrack.tcp_of_networks(given), prefix6)

    def of_flows(self, flows: Iterable[TcpFlow], *, prefix6: int) -> None:
        """Nudge these, which it may have forgotten."""
        given = tuple(flows)
        self._begin(lambda: given, prefix6)

    def _begin(self, found: Callable[[], Iterable[TcpFlow]], prefix6: int) -> None:
        task = asyncio.create_task(self._nudge(found, prefix6))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _nudge(self, found: Callable[[], Iterable[TcpFlow]], prefix6: int) -> None:
        try:
            flows = await asyncio.to_thread(found)
            sent = await asyncio.to_thread(nudge, tuple(self._placed(flows, prefix6)))
        except (OcgateError, *LACKS) as error:
            self._complaints.tell(words(error))
        else:
            self._complaints.over()
            log.debug("clients' connections were asked to speak", connections=sent)

    def _placed(self, flows: Iterable[TcpFlow], prefix6: int) -> Iterator[tuple[str, TcpFlow]]:
        """With the device of the session whose they are; those of nobody any more are left out."""
        for flow in flows:
            bits = 32 if flow.client.version == 4 else prefix6
            owner = self._table.owner_of(ip_network((flow.client, bits), strict=False))
            if owner is not None:
                yield owner.device, flow
