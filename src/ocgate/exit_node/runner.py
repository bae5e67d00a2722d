"""Runs the state machine: takes events in turn, does what each asks for, and keeps the record.

    hook `tunnel` ─┐                      ┌─ reconciler.hold    the switch, the device
    hook `ended`  ─┤                      ├─ lookups        the server's address
    prober        ─┼─> queue ─> step ─────┼─ client         start, stop
    reload        ─┤            machine   └─ record, log
    Tick          ─┘

One event at a time: what is done for one is done before the next is looked at. Events of a client
that was ended meanwhile are dropped by its serial number.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ocgate import names
from ocgate.errors import OcgateError
from ocgate.exit_node import state_machine as machines
from ocgate.exit_node import wireguard
from ocgate.exit_node.client import Running, index_of
from ocgate.exit_node.exit_reasons import explained
from ocgate.exit_node.interfaces import KillSwitch, ServerLookup, TunnelProcess
from ocgate.exit_node.kind import Kind
from ocgate.exit_node.reconciler import CLOSED, Open
from ocgate.exit_node.record import Record, write_record
from ocgate.exit_node.state_machine import (
    Carry,
    Close,
    Configured,
    Effect,
    Ended,
    Event,
    List,
    Listed,
    Machine,
    Next,
    NotResolved,
    Phase,
    Resolve,
    Resolved,
    Start,
    Tick,
)
from ocgate.exit_node.transition_log import tell
from ocgate.kernel import process
from ocgate.runtime.log import stage
from ocgate.runtime.records import Records
from ocgate.runtime.shortages import LACKS, words
from ocgate.tunnel.gate import Unusable
from ocgate.tunnel.model import Endpoint, Launch, Remote

# From a client to its hook: OpenVPN runs it itself, openconnect by a shell.
_GENERATIONS = 3

log = stage("svc-control")


@dataclass(frozen=True)
class _ClientEnded:
    """The finish script reported; why is read from the client's last words when its turn comes."""


@dataclass(frozen=True)
class _Heard:
    """One event in the queue. serial: of the client that it is about, None for none; done: told
    '' when it was taken in, else why not. by: the hook's process, which must be the client's own.
    kind: from now on in the place of the former."""

    event: Event | _ClientEnded
    serial: int | None
    done: asyncio.Future[str]
    by: int | None = None
    kind: Kind | None = None


class Runner:
    """One exit. All is done in one event loop."""

    def __init__(
        self,
        run_dir: Path,
        kind: Kind,
        reconciler: KillSwitch,
        client: TunnelProcess,
        lookups: ServerLookup,
        *,
        rotate: float,
        clock: Callable[[], float] = time.monotonic,
        index_of: Callable[[str], int | None] = index_of,
        records: Records | None = None,
    ) -> None:
        """rotate: EXIT_ROTATE, seconds. clock: one that goes on over a restart of control."""
        self._run_dir = run_dir
        self._records = records or Records()
        self.kind = kind
        self._reconciler = reconciler
        self._client = client
        self._lookups = lookups
        self._rotate = rotate
        self._clock = clock
        self._queue: asyncio.Queue[_Heard] = asyncio.Queue()
        self._index_of = index_of
        self._running: Running | None = None
        self._device: int | None = None  # index of the one that it was started on
        self._first: tuple[Effect, ...] = ()
        self.machine = Machine(kind.remotes(), rotate)
        self.serial = 0  # of the client that is started or stands now

    # --- the beginning ------------------------------------------------------------------------

    async def start(self, before: Record | None) -> None:
        """Adopt the tunnel of a former control, or begin anew. What the kernel or the machine
        refuses ends no control, which would come back into the same: what stood before it stands,
        and the reconciler tries again."""
        if before is not None and await self._adopted(before):
            return
        await self._holding(CLOSED)
        await self._end_client()  # one that nobody knows
        if before is not None and before.machine.phase is Phase.WAITING:
            self.machine = before.machine  # its pause goes on
            return
        first, effects = machines.begin(self.kind.remotes(), rotate=self._rotate, now=self._clock())
        self.machine, self._first = _after_restart(first, before), effects

    async def _adopted(self, before: Record) -> bool:
        machine = before.machine
        open_for = machine.phase in (Phase.CONNECTING, Phase.UP, Phase.DEGRADED)
        running = await asyncio.to_thread(self._client.running) if open_for else None
        without = self.kind.uid is None and machine.stands  # the kernel is the client
        known = running is not None and running == before.running
        same = self._index_of(self.kind.device) == before.device
        if not open_for or not (known or without) or not same:
            return False
        try:
            await self._reconciler.hold(Open(machine.endpoint, machine.carried), insist=True)
        except Unusable as error:  # a network came while nobody looked: closed, and begun anew
            log.error("the tunnel is not adopted", why=error.message)
            return False
        except (OcgateError, *LACKS) as error:  # it stands in the kernel as it was left
            log.error("the kill switch can't be verified yet", why=words(error))
        self.machine, self._running, self._device = machine, running, before.device
        self.serial += 1
        log.info("tunnel adopted", state=machine.phase.value, server=_label(machine))
        return True

    # --- what is heard ------------------------------------------------------------------------

    async def say(self, event: Event, *, serial: int | None = None) -> str:
        """Take an event in, in its turn; '' when what it asks for was done, else why not.

        serial: of the client that it is about; one that is no more has nothing to say.
        """
        return await self._hear(event, serial)

    async def turn(self, kind: Kind) -> str:
        """Take the next server, by a profile that was read anew; '' or why not yet."""
        return await self._hear(Next(kind.remotes()), None, kind=kind)

    def client_ended(self) -> None:
        """The client's finish script reports; does not wait, because the script is waited for."""
        self._note(_ClientEnded())

    def _note(self, event: Event | _ClientEnded) -> None:
        """Of the client that is there now; nobody waits for what comes of it."""
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Heard(event, self.serial, done))

    async def _hear(
        self,
        event: Event,
        serial: int | None,
        *,
        by: int | None = None,
        kind: Kind | None = None,
    ) -> str:
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Heard(event, serial, done, by, kind))
        return await done

    def check(self) -> None:
        """Whether the client still runs, whose end may have been reported to nobody, and on which
        device: one that was deleted under it is made anew, but not for who has the old one."""
        running = self._running
        if running is not None and not process.alive(running.pid, running.started):
            self._note(_ClientEnded())
        elif self._device is not None and self._index_of(self.kind.device) != self._device:
            self._note(Ended("the tunnel's device was deleted"))

    async def run(self) -> None:
        """For ever, after `start`."""
        await self._do(self._first)
        self._keep()
        while True:
            heard = await self._next()
            why = await self._take(heard)
            if not heard.done.done():
                heard.done.set_result(why)

    async def _next(self) -> _Heard:
        until = self.machine.until
        wait = None if until is None else max(until - self._clock(), 0.0)
        try:
            async with asyncio.timeout(wait):
                return await self._queue.get()
        except TimeoutError:
            return _Heard(Tick(), None, asyncio.get_running_loop().create_future())

    async def _take(self, heard: _Heard) -> str:
        if heard.serial is not None and heard.serial != self.serial:
            return "it is about a client that was ended"
        if not self._is_of_the_client(heard.by):
            return "it is the hook of a client that was ended"
        self.kind = heard.kind or self.kind
        event = heard.event
        if isinstance(event, _ClientEnded):
            event = explained(await asyncio.to_thread(self._client.last_words))
        return await self._step(event)

    def _is_of_the_client(self, hook: int | None) -> bool:
        """A client that was killed may leave its hook behind, which then speaks of its tunnel."""
        if hook is None or self._running is None:
            return True
        return process.descends(hook, self._running.pid, generations=_GENERATIONS)

    # --- what is done -------------------------------------------------------------------------

    async def _step(self, event: Event) -> str:
        """'' or why it could not be done; what failed is the machine's next event."""
        before = self.machine
        self.machine, effects = machines.step(before, event, self._clock())
        if self.machine == before and not effects:
            return ""
        tell(before, self.machine, event, self._clock())
        why = await self._do(effects, before)
        self._keep()
        return why

    async def _do(self, effects: tuple[Effect, ...], before: Machine | None = None) -> str:
        why = ""
        for effect in effects:
            follows = await self._done(effect, before)
            if follows is not None:
                why = await self._step(follows) or _words(follows)
        return why

    async def _done(self, effect: Effect, before: Machine | None) -> Event | None:
        """Do it; what follows from it at once. What the machine lacks (processes, space) ends this
        attempt and not control."""
        try:
            return await self._tried(effect, before)
        except LACKS as error:
            said = words(error)
            log.error("the tunnel's client can't be served", why=said)
            return NotResolved(said) if isinstance(effect, List | Resolve) else Ended(said)

    async def _tried(self, effect: Effect, before: Machine | None) -> Event | None:
        match effect:
            case Close():
                await self._close(before)
            case List():
                return await self._listed()
            case Resolve(remote=remote, nth=nth):
                return await self._resolved(remote, nth)
            case Start(endpoint=endpoint):
                return await self._started(endpoint)
            case Carry(carried=carried):
                return await self._carrying(Open(self.machine.endpoint, carried))
        return None

    async def _close(self, before: Machine | None) -> None:
        """No client's packet any more; then the tunnel's end, which may say goodbye to its server;
        then nothing."""
        self.serial += 1
        self._refuse_waiting()
        if before is not None and before.carried is not None:
            await self._holding(Open(before.endpoint))
        if before is None or before.endpoint is not None:
            await self._end_client()
        self._running = self._device = None
        await self._holding(CLOSED)

    async def _holding(self, wanted: Open) -> None:
        try:
            await self._reconciler.hold(wanted)
        except (OcgateError, *LACKS) as error:
            log.error("the kill switch can't be closed", why=words(error))

    async def _end_client(self) -> None:
        try:
            await asyncio.to_thread(self._client.stop)
            if self.kind.device == names.WIREGUARD_DEVICE:
                await asyncio.to_thread(wireguard.forget, self.kind.device)
        except (OcgateError, *LACKS) as error:
            log.error("the tunnel's client can't be ended", why=words(error))

    def _refuse_waiting(self) -> None:
        """Hooks that wait for a verdict hold up the end of their client."""
        waiting = [self._queue.get_nowait() for _ in range(self._queue.qsize())]
        for heard in waiting:
            if heard.serial is None:
                self._queue.put_nowait(heard)
            elif not heard.done.done():
                heard.done.set_result("the tunnel is being closed")

    async def _listed(self) -> Event:
        try:
            return Listed(await self._lookups.remotes())
        except OcgateError as error:
            return NotResolved(error.message)

    async def _resolved(self, remote: Remote, nth: int) -> Event:
        try:
            return Resolved(await self._lookups.endpoint(remote, nth))
        except OcgateError as error:
            return NotResolved(error.message)

    async def _started(self, endpoint: Endpoint) -> Event | None:
        remote = self.machine.remote
        assert remote is not None
        hook = self._run_dir.absolute() / names.HOOK_TUNNEL
        try:
            launch = self.kind.launch(remote, endpoint, self._client.directory, hook)
            await self._reconciler.hold(Open(endpoint))
            self.serial += 1
            self._device = self._index_of(self.kind.device)
            if launch is not None:
                await self._launched(launch)
            return await self._established(remote, endpoint)
        except OcgateError as error:
            return Ended(error.message)

    async def _launched(self, launch: Launch) -> None:
        uid = self.kind.uid
        assert uid is not None
        if launch.is_wireguard_go:
            wireguard.make_socket_directory(uid)
        await asyncio.to_thread(self._client.start, launch, uid=uid)
        self._running = await asyncio.to_thread(self._client.running)

    async def _established(self, remote: Remote, endpoint: Endpoint) -> Event | None:
        """Of a device without a hook: what it carries is known, and it stands after a handshake."""
        interface = self.kind.interface(remote, endpoint)
        if interface is None:
            return None
        carried = self._reconciler.taken(interface.carried)
        await asyncio.to_thread(wireguard.establish, self.kind.device, interface.text)
        return Configured(carried)

    async def _carrying(self, wanted: Open) -> Event | None:
        try:
            await self._reconciler.hold(wanted)
        except OcgateError as error:
            return Ended(f"the tunnel can't be configured: {error.message}")
        return None

    def _keep(self) -> None:
        record = Record(self.machine, self._running, self._device)
        self._records.keep(
            names.EXIT_RECORD, functools.partial(write_record, self._run_dir, record)
        )

    async def configured(self, environment: dict[str, str], *, hook: int | None = None) -> str:
        """The client's hook (this process) reports; '' when clients are let in, else why not."""
        serial = self.serial
        try:
            carried = self._reconciler.taken(self.kind.reported(environment))
        except OcgateError as error:
            if self._is_of_the_client(hook):  # asked while it waits for the answer
                self._refused(error.message, serial)
            return error.message
        return await self._hear(Configured(carried), serial, by=hook)

    def _refused(self, why: str, serial: int) -> None:
        """OpenVPN ends when its hook fails, openconnect goes on. Not waited for: the client's end
        waits for the hook, and that for our answer."""
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Heard(Ended(why), serial, done))


def _after_restart(first: Machine, before: Record | None) -> Machine:
    """A control that dies again and again does not ask its servers the more often."""
    if before is None:
        return first
    past = before.machine
    return replace(first, attempts=past.attempts + 1, failures=past.failures, why=past.why)


def _label(machine: Machine) -> str:
    return machine.remote.label if machine.remote else "none"


def _words(event: Event) -> str:
    return event.why if isinstance(event, Ended | NotResolved) else ""
