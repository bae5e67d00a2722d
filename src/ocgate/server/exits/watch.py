"""Watches the gateways while the server runs, and tells the reconciler what clients may use.

    probes, counters, next hop ─> Probing ─┐                ┌─ reconciler.look(exits=…)
                                           ├─ Track ─ told ─┤
    look-up of its name ───────────────────┘                └─ exits.json, log, status

Each has a loop of its own, and none waits for another: neither a slow nameserver nor a long
transaction holds up a verdict. Before the first one an exit counts as usable, since the guard
stands anyway. What the verdicts rest on is in `upstream.liveness`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol

from ocgate.errors import OcgateError
from ocgate.kernel import probe
from ocgate.kernel.neighbours import mac_of
from ocgate.kernel.way import Found, Target, Way
from ocgate.names import MARK_GATEWAY, NFT_TABLE
from ocgate.plan.carried import CAME_BACK, SENT
from ocgate.plan.exits import Exits
from ocgate.plan.facts import Address, Facts, Family
from ocgate.runtime.carried import Carried
from ocgate.runtime.log import stage
from ocgate.runtime.probing import UNSEEN, Hop, Probing
from ocgate.runtime.rate_limited_log import RateLimitedLog
from ocgate.runtime.records import Records
from ocgate.runtime.shortages import AGAIN, LACKS, lasting
from ocgate.server.desired.prepare import Prepared
from ocgate.server.desired.sources import Sources
from ocgate.server.desired.steering import learning
from ocgate.server.exits.next_hop import NextHop
from ocgate.server.exits.questions import Asked, asked_by
from ocgate.server.exits.record import (
    EXITS,
    FAMILIES,
    Known,
    exits_of,
    gateways,
    read_known,
    write_known,
)
from ocgate.server.exits.resolve_at_start import resolved
from ocgate.server.exits.status import statuses
from ocgate.server.exits.track import Track
from ocgate.server.status.schema import ExitStatus
from ocgate.upstream import liveness
from ocgate.upstream.gateway_address import refusal
from ocgate.upstream.line import Counters, Line, State
from ocgate.upstream.resolver import Answer, Lookup, NotResolved, resolve

LOOKUP_TIMEOUT = 5.0  # seconds; a second nameserver gets its turn after two
# Events come in bursts (a container that goes takes link, address and routes with it).
SETTLE = 0.1  # seconds
# A reload waits for new names at most so long: its answer is waited for 30 s
# (runtime.control_client).
RELOAD_WAIT = 15.0  # seconds
# Without gateways there is nothing to do until a reload, which nudges.
IDLE = 60.0  # seconds

log = stage("init-vpngw")


def carried(family: Family) -> Callable[[], Counters | None]:
    """Clients' bytes through that family's exit."""
    return Carried(NFT_TABLE, sent=SENT[family], came_back={family: CAME_BACK[family]}).look


class InForce(Protocol):
    """The reconciler, as far as it is needed here."""

    @property
    def prepared(self) -> Prepared:
        """What is in force."""

    @property
    def exits(self) -> Exits:
        """The gateways as they are in force."""

    async def look(self, *, exits: Exits) -> None:
        """Put them in force."""


class ExitWatch:
    """One for both families. All is done in one event loop."""

    def __init__(
        self,
        reconciler: InForce,
        run_dir: Path,
        *,
        ask: Callable[[Target, float, Way], Awaitable[Found]] = probe.ask,
        carried: Callable[[Family], Callable[[], Counters | None]] = carried,
        next_hop: Callable[..., NextHop] = NextHop,
        resolve: Callable[..., Awaitable[Answer]] = resolve,
        mac_of: Callable[[Address, str], str] = mac_of,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        records: Records | None = None,
    ) -> None:
        """clock: seconds for what is due; now: seconds since the epoch for people."""
        self._reconciler = reconciler
        self._run_dir = run_dir
        self._records = records or Records()
        self._ask = ask
        self._looks = {family: carried(family) for family in FAMILIES}
        self._next_hop = next_hop
        self._resolve = resolve
        self._mac_of = mac_of
        self._clock = clock
        self._now = now
        self._tracks: dict[Family, Track] = {}
        self._probing: dict[Family, Probing] = {}
        self._before = read_known(run_dir)  # of a former control plane
        self._kept = self._before
        self._owed = False  # what was told last could not be applied
        self.complaints = RateLimitedLog(log, "the exits can't be watched")
        self._changing = asyncio.Lock()
        self._news = {family: asyncio.Event() for family in FAMILIES}
        self._changed = asyncio.Event()
        self._asking = asyncio.Event()
        self._settling: asyncio.TimerHandle | None = None

    def nudge(self) -> None:
        """Something about links, addresses, routes, neighbours or settings changed: probe soon."""
        for track in self._tracks.values():
            track.news(self._clock())
        self._asking.set()
        if self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(SETTLE, self._doubt)

    def _doubt(self) -> None:
        self._settling = None
        for probing in self._probing.values():
            probing.doubt("networks changed; all are asked")
        self._wake()

    def _wake(self) -> None:
        for news in self._news.values():
            news.set()

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """While new settings are put in force: what is known of the old gateways stays unsaid, and
        what is known of the new ones is kept when they are."""
        async with self._changing:
            yield
            self._follow()
            self._keep({family: track.known for family, track in self._tracks.items()})
        self._changed.set()
        self.nudge()

    async def resolved(self, sources: Sources, facts: Facts) -> Exits:
        """The gateways of a reload's `sources`: those it leaves as they are stay as they are in
        force, new names are looked up; raises ConfigurationError as a start does."""
        former = gateways(self._reconciler.prepared.sources.settings)
        wanted = gateways(sources.settings)
        four, six = (
            self._reconciler.exits.of(family) if former.get(family) == wanted.get(family) else None
            for family in FAMILIES
        )
        return await resolved(
            sources, facts, known=Exits(four, six), longest=RELOAD_WAIT, resolve=self._resolve
        )

    async def learn_anew(self) -> None:
        """The operator says that gateways were made anew: forget the MAC addresses that were
        learned, and hold nobody to them any more."""
        for track in self._tracks.values():
            track.mac = ""
        with contextlib.suppress(*LACKS):  # then it is told again
            await self._tell()
        self._changed.set()
        self.nudge()

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as tasks:
            for family in FAMILIES:
                watching = functools.partial(self._watching, family)
                tasks.create_task(lasting(watching, self.complaints))
            tasks.create_task(lasting(self._resolving, self.complaints))
            tasks.create_task(lasting(self._telling, self.complaints))

    def statuses(self) -> list[ExitStatus]:
        """How each family's exit is, for `ocgate status`."""
        self._follow()
        prepared = self._reconciler.prepared
        settings = prepared.sources.settings
        return statuses(settings, self._tracks, self._device, self._clock())

    # --- what is told ---

    async def _telling(self) -> None:
        while True:
            await self._tell()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN if self._owed else None):
                    await self._changed.wait()
            self._changed.clear()

    async def _tell(self) -> None:
        """Put in force what differs from what is, and keep it for a restart."""
        async with self._changing:
            self._follow()  # a reload may have been first
            known = {family: track.known for family, track in self._tracks.items()}
            exits = exits_of(known)
            try:
                if self._owed or _essence(exits) != _essence(self._reconciler.exits):
                    self._owed = True
                    await self._reconciler.look(exits=exits)
            except OcgateError as error:
                log.error("the exits changed, but that can't be applied", why=str(error))
                return
            self._owed = False
            self._keep(known)
        self._wake()

    def _keep(self, known: dict[Family, Known]) -> None:
        if _lasting(known) != _lasting(self._kept):
            self._records.keep(EXITS, functools.partial(write_known, self._run_dir, known))
            self._kept = known

    # --- names ---

    async def _resolving(self) -> None:
        while True:
            await self.look_up()
            dues = [track.due for track in self._tracks.values() if track.due is not None]
            wait = max(min(dues) - self._clock(), 0.001) if dues else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._asking.wait()
            self._asking.clear()

    async def look_up(self) -> None:
        """Look up every name whose time has come, and tell what that changed."""
        now = self._clock()
        due = [t for t in self._tracks.values() if t.due is not None and t.due <= now]
        moved = await asyncio.gather(*(self._look_up(track) for track in due))
        if any(moved):
            self._changed.set()

    async def _look_up(self, track: Track) -> bool:
        """Whether the gateway is at another address now."""
        prepared = self._reconciler.prepared
        lookup, name = Lookup(prepared.subnets), track.upstream.name
        try:
            answer = await self._resolve(name, track.family, LOOKUP_TIMEOUT, lookup)
        except NotResolved as error:
            track.not_resolved(error.said, self._clock())
            return False
        return track.resolved(
            answer,
            refuse=lambda address: refusal(address, prepared.facts, prepared.subnets),
            clock=self._clock(),
            interval=prepared.sources.settings.vpn_gateways_resolve_interval,
        )

    # --- how they are ---

    def _follow(self) -> None:
        """Begin and end tracks as the settings in force say."""
        wanted = gateways(self._reconciler.prepared.sources.settings)
        for family in [f for f, t in self._tracks.items() if t.upstream != wanted.get(f)]:
            del self._tracks[family]
        for family, upstream in wanted.items():
            if family in self._tracks:
                continue
            state = self._reconciler.exits.of(family)
            address = upstream.address or (state.address if state else None)
            former = self._before.pop(family, None)
            same = former and (former.written, former.address) == (str(upstream), address)
            seen = former.seen if former and same else UNSEEN  # another's says nothing
            mac = former.mac if former and same else ""
            self._tracks[family] = Track(family, upstream, address, seen, mac, clock=self._clock())
            self._asking.set()
        for family, track in self._tracks.items():
            if not self._learns(family):
                track.mac = ""

    async def _watching(self, family: Family) -> None:
        news = self._news[family]
        while True:
            news.clear()
            self._follow()
            track = self._tracks.get(family)
            asked = self._asked(track) if track is not None else None
            if track is not None and asked is not None and not asked.unfit:
                await self._watch(track, asked)
                continue
            if track is not None and asked is not None:  # planning closes it for the same reason
                self._take(track, liveness.cut_off(track.line, asked.unfit, self._clock()))
            settings = self._reconciler.prepared.sources.settings
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(settings.exit_probe_interval if track else IDLE):
                    await news.wait()

    async def _watch(self, track: Track, asked: Asked) -> None:
        """As long as that is how it is asked."""
        by_name = {str(target): target for target in asked.targets}
        way = Way(mark=MARK_GATEWAY, ports=asked.ports)
        probed = bool(by_name)
        next_hop = self._next_hop(
            asked.address, asked.device, asked.pin, probed=probed, wait=asked.pace.interval
        )

        async def ask(name: str, wait: float) -> Found:
            found = await self._ask(by_name[name], wait, way)
            self._found(track, asked, ok=found.ok)
            return found

        async def hop() -> Hop | None:
            found = await next_hop.ask()
            if found is not None and not probed:
                self._found(track, asked, ok=found.answers)
            return found

        async def told() -> None:
            self._take(track, probing.line)
            self._doubted(track, probing.line)

        def goes_on() -> bool:
            return self._tracks.get(track.family) is track and self._asked(track) == asked

        line = liveness.taken_over(track.line, asked.pace, by_name, self._clock())
        probing = Probing(line, ask, self._looks[track.family], hop, clock=self._clock)
        track.probing = self._probing[track.family] = probing
        try:
            await probing.run(told, goes_on)
        finally:
            track.probing = None
            del self._probing[track.family]
            if asked.address == track.address:
                self._take(track, probing.line)

    def _take(self, track: Track, line: Line) -> None:
        if track.take(line, self._now()):
            self._changed.set()

    def _doubted(self, track: Track, line: Line) -> None:
        """It may be at another address now."""
        if line.state is not State.ALIVE and track.failed(self._clock()):
            self._asking.set()

    def _found(self, track: Track, asked: Asked, *, ok: bool) -> None:
        """What an answer, or none, means beside how the exit is."""
        if not ok:
            if track.probing is not None:
                self._doubted(track, track.probing.line)
            return
        track.answered()
        if track.mac or not self._learns(track.family) or asked.address != track.address:
            return
        if mac := self._mac_of(asked.address, asked.device):  # not of who answers first
            track.learned(mac)
            self._changed.set()

    def _learns(self, family: Family) -> bool:
        return family in learning(self._reconciler.prepared.sources.settings)

    def _asked(self, track: Track) -> Asked | None:
        """None while what a probe finds is not of this address: probes go where the kernel's route
        says, and that follows a gateway that moves a moment later."""
        address, state = track.address, self._reconciler.exits.of(track.family)
        if address is None or state is None or state.address != address:
            return None
        return asked_by(self._reconciler.prepared, address, track.mac)

    def _device(self, address: Address) -> str | None:
        link = self._reconciler.prepared.facts.connected_network_of(address)
        return link.device if link else None


def _essence(exits: Exits) -> list[tuple[Address | None, bool, str] | None]:
    """What the kernel's state depends on: reasons change with every probe, and are status only."""
    states = (exits.exit4, exits.exit6)
    return [None if s is None else (s.address, bool(s.down), s.mac) for s in states]


def _lasting(known: dict[Family, Known]) -> list[object]:
    """What is worth writing: not the words of each probe."""
    return [
        (family, held.written, held.address, held.seen.state, held.seen.since, held.mac)
        for family, held in sorted(known.items())
    ]
