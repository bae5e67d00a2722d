"""Admits and ends sessions: every change of who may send what goes through here.

A session is admitted only when its kernel state is in place; ocserv's worker waits for the verdict
before it gets the tun's descriptor. On the way out the order is: element gone, then conntrack, so
that nothing new can be born in between. Conntrack waits a little, for a client that comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from ocgate.errors import OcgateError, Problem
from ocgate.kernel import process, sysctl
from ocgate.kernel.tunnel_group import TunnelGroup
from ocgate.plan.facts import Network
from ocgate.plan.sysctls import rp_filter_strict
from ocgate.runtime.control_socket import HOOK_PID
from ocgate.runtime.log import stage
from ocgate.runtime.shortages import LACKS, words
from ocgate.server.admission.element_writer import ElementWriter
from ocgate.server.admission.flows import Flows, age
from ocgate.server.admission.journal import Journal
from ocgate.server.desired.prepare import Prepared
from ocgate.server.history.writer import History
from ocgate.sessions import elements
from ocgate.sessions.record import Moved
from ocgate.sessions.session import BadHook, Session, from_hook, worker_of
from ocgate.sessions.table import Admit, Contested, Ending, Refuse, SessionTable, ended_by

# On roaming ocserv has sent SIGTERM to the old worker before it runs the new session's hook; the
# worker is gone within tens of milliseconds. A rival that lives longer is a second lease of the
# same address. Below the hook's own limit of 5 s.
RIVAL_GRACE = 3.0  # seconds
RIVAL_POLL = 0.01  # seconds
# ... unless it hangs in sending to where the client no longer is (TLS only, a download in flight):
# then SIGTERM does not end it for minutes. ocserv's leases never name an address twice, so a rival
# of the same user is one whose lease was taken over, and is ended for good.
SUPERSEDED_AFTER = 1.0  # seconds
# A look at a worker takes 0.02 ms: 10,000 of them in one go would keep a login waiting for 0.2 s.
SWEEP_SLICE = 100  # sessions between two turns of the loop

# ocserv makes the tunnel, then starts the hook: whatever held the address until less than this
# before the hook began may have left packets in the tunnel's queue. A clock tick is 0.01 s.
QUEUE_MARGIN = 0.1  # seconds

_GIVEN_AWAY = "its tunnel was given away"

log = stage("svc-control")


@dataclass(frozen=True)
class Domain:
    """What a session may be: on `device`*, within `subnets`, owning /prefix6_bits of IPv6.

    strict: tunnels get a strict reverse path filter, which holds forged IPv4 sources also without
    our ruleset.
    explicit: addresses that per-user files hand out by name, beside ocserv's leases; asked when it
    matters, because ocserv reads those files at each login.
    """

    device: str
    subnets: tuple[Network, ...]
    prefix6_bits: int
    strict: bool = False
    explicit: Callable[[], frozenset[Network]] = frozenset


class Gatekeeper:
    """Owns the session table. `domain` is asked at each connect, because a reload changes it."""

    def __init__(
        self,
        table: SessionTable,
        writer: ElementWriter,
        journal: Journal,
        domain: Callable[[], Domain],
        history: History,
    ) -> None:
        self._table = table
        self._writer = writer
        self._journal = journal
        self._domain = domain
        self._history = history
        self._turns: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._flows = Flows(table, journal, self._stands)
        writer.settled = self._flows.settle
        self._group = TunnelGroup()

    async def connect(self, fields: Mapping[str, bytes]) -> str | None:
        """None: admitted, the kernel holds it. Otherwise why not, in one line."""
        try:
            worker = worker_of(fields)
        except BadHook as bad:
            return self._refused(fields, str(bad))
        async with self._turn(worker):
            return await self._connect(fields)

    async def _connect(self, fields: Mapping[str, bytes]) -> str | None:
        try:
            session = self._described(fields)
        except BadHook as bad:
            return self._refused(fields, str(bad))
        verdict = await self._decided(session)
        if isinstance(verdict, Refuse):
            return self._refused(fields, verdict.why)
        if self._may_hold_a_strangers(session, verdict.displaced, fields):
            for old in verdict.displaced:
                await self.end(old, _GIVEN_AWAY)
            why = "its tunnel may hold packets of the address' last owner; connect again"
            return self._refused(fields, why)
        try:
            await self._let_in(session, verdict.displaced)
        except (OcgateError, *LACKS) as error:
            await self._take_back(session, verdict.displaced)
            return self._refused(fields, _why_not(error))
        if session.outside(self._domain().subnets):  # a reload overtook it
            await self.end(session, "its subnet was taken away by a reload")
            return self._refused(fields, "its subnet was taken away by a reload")
        if not process.alive(session.worker, session.started):
            # ocserv gave up meanwhile, and what it said of it may have come before the session.
            await self.end(session, "its worker is gone")
            return self._refused(fields, "its worker is gone")
        log.info("session admitted", **_words(session))
        return None

    async def disconnect(self, fields: Mapping[str, bytes]) -> None:
        """A session ended, or was given back by its hook. Idempotent; unknown ones are no error,
        because ocserv runs the hook also for sessions that never came in."""
        try:
            worker = worker_of(fields)
        except BadHook as bad:
            log.warning("disconnect hook not understood", why=str(bad))
            return
        async with self._turn(worker):  # a connect may still be under way: it comes first
            ending, moved = _ending(fields), _moved(fields)
            session = ended_by(self._table.of_worker(worker), ending, age=age)
            if session is not None:
                await self.end(session, "disconnected", moved)
            else:
                self._history.reported(worker, ending, moved)

    def _turn(self, worker: int) -> asyncio.Lock:
        """What one worker's hooks wait for: a hook that lost patience with its connect reports a
        refusal beside it, and must not be heard first."""
        return self._turns.setdefault(worker, asyncio.Lock())

    async def device_gone(self, device: str) -> None:
        """The kernel says a tunnel is gone; with it went its session, hook or no hook. One of that
        name that is there again is a later session's; its connect displaces the old one."""
        session = self._table.on_device(device)
        if session is not None and not _exists(device):
            await self.end(session, "disconnected")

    async def sweep(self) -> None:
        """End every session whose worker does not live any more."""
        for number, session in enumerate(self._table, 1):
            if not process.alive(session.worker, session.started):
                await self.end(session, "its worker is gone")
            if number % SWEEP_SLICE == 0:
                await asyncio.sleep(0)

    def dead(self) -> tuple[Session, ...]:
        """Sessions of the table whose worker does not live any more."""
        return tuple(s for s in self._table if not process.alive(s.worker, s.started))

    async def end(self, session: Session, why: str, moved: Moved | None = None) -> None:
        """Close it: elements first, then, after FLOW_GRACE, its flows."""
        if not self._table.end(session):
            return
        self._history.ended(session, why, moved)
        self._flows.leave(session)
        await self._drop([session])
        self._flows.closed(session)
        seconds = max(0, round(time.time() - session.connected_at))  # the clock may be set back
        words = {"sent": moved.sent, "received": moved.received} if moved else {}
        log.info(
            "session ended",
            user=session.user,
            device=session.device,
            why=why,
            seconds=seconds,
            **words,
        )

    def adopt(self, session: Session) -> None:
        """Take over what a former control plane admitted: a live session's elements are written
        with the whole table; of one that has ended since, the flows are left to forget."""
        if process.alive(session.worker, session.started):
            self._table.add(session)
        else:
            self._history.missed(session)
            self._flows.leave(session)
            self._flows.closed(session)

    def _may_hold_a_strangers(
        self, session: Session, displaced: tuple[Session, ...], fields: Mapping[str, bytes]
    ) -> bool:
        """Whether packets for another user may wait in this session's tunnel: where control lags
        behind ocserv, he still held tunnel name and address when the tunnel was made. They would be
        read with its descriptor; only ocserv's closing the tunnel throws them away."""
        mine = set(session.networks)
        if any(old.owner != session.owner and mine & set(old.networks) for old in displaced):
            return True
        hook = _number(fields.get(HOOK_PID, b""))
        began = None if hook is None else process.started_since_boot(hook)
        return began is not None and self._flows.strangers_until(session) > began - QUEUE_MARGIN

    def _described(self, fields: Mapping[str, bytes]) -> Session:
        started = process.start_time(worker_of(fields))
        if started is None:
            raise BadHook("its worker is gone already")
        bits = self._domain().prefix6_bits
        return from_hook(fields, started=started, now=time.time(), prefix6_bits=bits)

    async def _decided(self, session: Session) -> Admit | Refuse:
        began = time.monotonic()
        while True:
            domain = self._domain()
            verdict = self._table.judge(session, device=domain.device, subnets=domain.subnets)
            if not isinstance(verdict, Contested):
                return verdict
            dead = [r for r in verdict.rivals if not process.alive(r.worker, r.started)]
            for rival in dead:  # its flows wait: the same person's go on, another's are cut
                await self.end(rival, f"its address went on to {session.device}")
            if dead:
                continue
            waited = time.monotonic() - began
            if waited > RIVAL_GRACE:
                return Refuse(_taken(verdict.rivals))
            if waited > SUPERSEDED_AFTER:
                self._end_superseded(verdict.rivals, session, domain)
            await asyncio.sleep(RIVAL_POLL)

    def _end_superseded(
        self, rivals: tuple[Session, ...], session: Session, domain: Domain
    ) -> None:
        """Kill workers of the same user whose lease ocserv has given to the newcomer. An address
        that a per-user file names is no lease: there both may be meant."""
        if domain.explicit() & set(session.networks):
            return
        for rival in rivals:
            if rival.owner == session.owner and process.kill(rival.worker, rival.started):
                log.warning("a worker that hung was ended", user=rival.user, device=rival.device)

    async def _let_in(self, session: Session, displaced: tuple[Session, ...]) -> None:
        self._journal.write(session)  # first: where there is no space, nothing has to be undone
        for old in displaced:
            if self._table.end(old):
                self._history.ended(old, _GIVEN_AWAY)
            log.info("session ended", user=old.user, device=old.device, why=_GIVEN_AWAY)
        self._table.add(session)
        for old in displaced:
            self._flows.leave(old)
        await self._flows.pass_to(session)
        if self._domain().strict:
            sysctl.require(rp_filter_strict(session.device))
        self._group.join((session.device,))  # what comes for it may be delivered
        drop = [key for old in displaced for key in elements.keys(old)]
        await self._writer.change(put=elements.keys(session), drop=drop)
        for old in displaced:
            self._flows.closed(old)

    async def _take_back(self, session: Session, displaced: tuple[Session, ...]) -> None:
        """Nothing of what `_let_in` did half stays: neither table, kernel nor journal know it."""
        self._table.end(session)
        gone = [old for old in displaced if old not in self._table]
        await self._drop([session, *gone])
        for old in gone:
            self._flows.closed(old)
        with contextlib.suppress(OSError):
            self._journal.remove(session)

    async def _drop(self, sessions: Sequence[Session]) -> None:
        """Their elements out of the kernel. Where it refuses, the writer goes on trying, and lets
        nobody in before it has succeeded; their flows are cut again and again until then."""
        try:
            await self._writer.change(drop=[key for one in sessions for key in elements.keys(one)])
        except (OcgateError, *LACKS) as error:
            log.error("elements of an ended session stay in the kernel for now", why=words(error))

    def _stands(self, session: Session, net: Network) -> bool:
        return self._writer.may_hold(elements.key_of(session, net))

    def _refused(self, fields: Mapping[str, bytes], why: str) -> str:
        user = fields.get("USERNAME", b"").decode("utf-8", "surrogateescape")
        log.warning("session refused", user=user, why=why)
        return why


def _why_not(error: BaseException) -> str:
    if isinstance(error, OSError):  # the journal's, first of all
        return f"it can't be noted in the run dir: {words(error)}"
    said = error.message if isinstance(error, OcgateError) else words(error)
    return f"its kernel state can't be set: {said}"


def left_out(table: SessionTable, new: Prepared) -> list[Problem]:
    """Live sessions that the new subnets no longer cover, one problem each: the rules would neither
    guard nor translate what they send. ocserv can't move them, so the reload must wait for them."""
    return [
        Problem(
            source=new.sources.document.source,
            line=0,
            key="ipv4-network" if session.address4 else "ipv6-network",
            got=", ".join(str(net) for net in new.subnets),
            expected=f"networks that hold {session.networks[0]}, which a live session has: "
            f"{session.user!r} on {session.device}",
            remedy="Keep that network until its sessions have ended, or restart ocgate",
        )
        for session in table
        if session.outside(new.subnets)
    ]


def _exists(device: str) -> bool:
    try:
        socket.if_nametoindex(device)
    except OSError:
        return False
    return True


def _taken(rivals: tuple[Session, ...]) -> str:
    rival = rivals[0]
    address = rival.address4 or rival.prefix6
    return f"its address {address} belongs to another live session ({rival.user} on {rival.device})"


def _words(session: Session) -> dict[str, str]:
    found = {"user": session.user, "device": session.device, "peer": session.peer}
    if session.address4 is not None:
        found["address"] = str(session.address4)
    if session.prefix6 is not None:
        found["address6"] = str(session.prefix6)
    return found


def _ending(fields: Mapping[str, bytes]) -> Ending:
    return Ending(
        user=fields.get("USERNAME", b"").decode("utf-8", "surrogateescape"),
        device=fields.get("DEVICE", b"").decode("utf-8", "surrogateescape"),
        started=_number(fields.get("WORKER_STARTED", b"")),
        duration=_number(fields.get("STATS_DURATION", b"")),
    )


def _moved(fields: Mapping[str, bytes]) -> Moved | None:
    """None on a refusal, of which ocserv tells no counts."""
    received, sent = (_number(fields.get(f"STATS_BYTES_{way}", b"")) for way in ("IN", "OUT"))
    return None if received is None or sent is None else Moved(received, sent)


def _number(raw: bytes) -> int | None:
    return int(raw) if raw.isdigit() else None
