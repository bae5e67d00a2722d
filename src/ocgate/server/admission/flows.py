"""The flows of sessions that ended: they wait a little for their owner, and meet nobody else.

Who roams or reconnects is back within a second, and ocserv may end the old session first. So the
conntrack entries of an ended session stay for FLOW_GRACE: the next session of the same user with
the same address goes on with them; before anybody else gets the address, they are cut. Meanwhile
they lead nowhere: the address has no tunnel (locks 1 and 3), and a tunnel that ocserv has already
given it gets nothing before its session is admitted (`forward_to_client`).
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ocgate.errors import OcgateError
from ocgate.kernel import conntrack
from ocgate.plan.facts import Network
from ocgate.runtime.log import stage
from ocgate.runtime.rate_limited_log import RateLimitedLog
from ocgate.runtime.shortages import AGAIN, LACKS, words
from ocgate.server.admission.journal import Journal
from ocgate.sessions.session import Session
from ocgate.sessions.table import SessionTable

FLOW_GRACE = 3.0  # seconds; openconnect's reconnect takes 0.1 s, a phone's change of network 1 to 2

log = stage("svc-control")


@dataclass(frozen=True)
class _Waiting:
    """Flows of one address. since: when its element was removed, in seconds since boot; infinity
    while it still stands, because it is just being removed or because the kernel refuses that."""

    session: Session
    since: float = math.inf


class Flows:
    """Owned by the gatekeeper, on its loop."""

    def __init__(
        self, table: SessionTable, journal: Journal, stands: Callable[[Session, Network], bool]
    ) -> None:
        """stands: whether the kernel may still have the session's element for this address."""
        self._table = table
        self._journal = journal
        self._stands = stands
        self._waiting: dict[Network, _Waiting] = {}
        self._forgetting = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def leave(self, session: Session) -> None:
        """An ending session's flows wait, then are forgotten. The journal remembers until then, so
        that a control plane that is killed meanwhile leaves no flow to a later owner. Call it in
        one go with the session's leaving the table, and `closed` when its elements are gone."""
        for net in session.networks:
            if self._table.owner_of(net) is None:
                self._waiting[net] = _Waiting(session)
        task = asyncio.create_task(self._forget_later(session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def closed(self, session: Session) -> None:
        """Its elements were taken out of the kernel. One that the kernel has refused to take out
        still lets flows begin: it counts as open until `settle` finds it gone."""
        self._settle(
            net for net in session.networks if self._is_of(self._waiting.get(net), session)
        )

    def settle(self) -> None:
        """The kernel has just taken the whole session table."""
        self._settle(tuple(self._waiting))

    def _settle(self, networks: Iterable[Network]) -> None:
        for net in networks:
            waiting = self._waiting[net]
            if math.isinf(waiting.since) and not self._stands(waiting.session, net):
                self._waiting[net] = _Waiting(waiting.session, since_boot())

    def strangers_until(self, session: Session) -> float:
        """When another user's session last held one of these addresses, in seconds since boot;
        0 if none did within FLOW_GRACE."""
        found = (self._waiting.get(net) for net in session.networks)
        return max((w.since for w in found if w and w.session.owner != session.owner), default=0)

    async def pass_to(self, session: Session) -> None:
        """Before it may send: flows of the same user live on, flows of anybody else are cut."""
        async with self._forgetting:  # also waits for what is just being forgotten
            held = {net: self._waiting.get(net) for net in session.networks}
            others = [n for n, w in held.items() if w and w.session.owner != session.owner]
            await self.cut(others)  # where it can't be, the next attempt finds them again
            for net in session.networks:
                self._waiting.pop(net, None)

    async def cut(self, networks: Iterable[Network]) -> None:
        """Delete all flows of these addresses now."""
        given = tuple(networks)
        if given:
            await asyncio.to_thread(forget, given)

    async def _forget_later(self, session: Session) -> None:
        await asyncio.sleep(FLOW_GRACE)
        complaints = RateLimitedLog(log, "flows of an ended session can't be forgotten")
        while True:
            try:
                async with self._forgetting:
                    if await self._forget(session):
                        return
            except (OcgateError, *LACKS) as error:  # its address stays known as a stranger's
                complaints.tell(words(error))
            await asyncio.sleep(AGAIN)

    async def _forget(self, session: Session) -> bool:
        """Cut its flows; False where more of them may begin, as its element still stands."""
        mine = [n for n in session.networks if self._is_of(self._waiting.get(n), session)]
        closed = [net for net in mine if not math.isinf(self._waiting[net].since)]  # before the cut
        await self.cut(mine)
        for net in closed:
            del self._waiting[net]
        if closed != mine:
            return False
        self._journal.remove(session)
        return True

    @staticmethod
    def _is_of(waiting: _Waiting | None, session: Session) -> bool:
        return waiting is not None and waiting.session is session


def since_boot() -> float:
    """Seconds since boot, on the clock that process start times are told in (proc(5))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def age(session: Session) -> float:
    """Seconds since the session's worker began, by the kernel's clock: the wall's may be set."""
    return since_boot() - session.started / os.sysconf("SC_CLK_TCK")


def forget(networks: tuple[Network, ...]) -> None:
    """Whole addresses the kernel can filter by itself; for prefixes every entry is read."""
    single = [net for net in networks if net.num_addresses == 1]
    if single:
        conntrack.delete_of_clients(net.network_address for net in single)
    if len(single) < len(networks):
        conntrack.delete_of_networks(net for net in networks if net.num_addresses > 1)
