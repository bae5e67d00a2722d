"""Watches the gateways while the server runs, and tells the keeper what clients may use.

    probe through the gateway ─┐                       ┌─ keeper.look(exits=…)
                               ├─ health, address book ┤
    look-up of its name ───────┘                       └─ exits.json, log, status

Two loops that don't wait for each other: a slow nameserver must not hold up the probes. Before the
first verdict of a start an exit counts as usable, since the guard stands anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

from ocgate.control.complaints import Complaints
from ocgate.control.exit_record import (
    EXITS,
    FAMILIES,
    Known,
    exits_of,
    gateways,
    read_known,
    write_known,
)
from ocgate.control.exit_start import resolved
from ocgate.control.exit_status import statuses
from ocgate.control.exit_track import Track
from ocgate.control.log import stage
from ocgate.control.prepared import Prepared
from ocgate.control.records import Records
from ocgate.control.sources import Sources
from ocgate.control.status_schema import ExitStatus
from ocgate.control.steering import learning, pinned
from ocgate.control.wants import LACKS, lasting
from ocgate.errors import OcgateError
from ocgate.exits.health import AT_ONCE, Thresholds, Verdict
from ocgate.exits.next_hop import refusal
from ocgate.exits.resolver import Answer, Lookup, NotResolved, resolve
from ocgate.kernel.link_question import holders
from ocgate.kernel.neighbours import Neighbour, mac_of, neighbour, solicit, suspect
from ocgate.kernel.probe import ProbeResult, probe
from ocgate.kernel.way import Target
from ocgate.names import MARK_GATEWAY
from ocgate.plan.exits import Exits
from ocgate.plan.facts import Address, Facts, Family

# A probe's time to live: the interval, but never so short that a satellite's round trip is a
# failure, nor so long that a dead exit is noticed only at the next one.
SHORTEST_TIMEOUT, LONGEST_TIMEOUT = 1.0, 4.0  # seconds
LOOKUP_TIMEOUT = 5.0  # seconds; a second nameserver gets its turn after two
# Who has an address on a link says so within a millisecond; a busy machine takes some more.
LINK_TIMEOUT = 0.3  # seconds
# Events come in bursts (a container that goes takes link, address and routes with it).
SETTLE = 0.1  # seconds
# A reload waits for new names at most so long: its answer is waited for 30 s (control.ask).
RELOAD_WAIT = 15.0  # seconds
# Without gateways there is nothing to do until a reload, which nudges.
IDLE = 60.0  # seconds

log = stage("init-vpngw")


class InForce(Protocol):
    """The keeper, as far as it is needed here."""

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
        keeper: InForce,
        run_dir: Path,
        *,
        probe: Callable[..., Awaitable[ProbeResult]] = probe,
        resolve: Callable[..., Awaitable[Answer]] = resolve,
        neighbour: Callable[[Address, str], Neighbour] = neighbour,
        solicit: Callable[[Address, str], object] = solicit,
        suspect: Callable[[Address, str], object] = suspect,
        mac_of: Callable[[Address, str], str] = mac_of,
        holders: Callable[..., Awaitable[frozenset[str] | None]] = holders,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        records: Records | None = None,
    ) -> None:
        """clock: seconds for what is due; now: seconds since the epoch for people."""
        self._keeper = keeper
        self._run_dir = run_dir
        self._records = records or Records()
        self._probe = probe
        self._resolve = resolve
        self._neighbour = neighbour
        self._solicit = solicit
        self._suspect = suspect
        self._mac_of = mac_of
        self._holders = holders
        self._clock = clock
        self._now = now
        self._tracks: dict[Family, Track] = {}
        self._before = read_known(run_dir)  # of a former control plane
        self._kept = self._before
        self._owed = False  # what was told last could not be applied
        self.complaints = Complaints(log, "the exits can't be watched")
        self._changing = asyncio.Lock()
        self._nudged = asyncio.Event()
        self._asking = asyncio.Event()

    def nudge(self) -> None:
        """Something about links, addresses, routes, neighbours or settings changed: probe soon."""
        for track in self._tracks.values():
            track.news(self._clock())
        self._asking.set()
        self._nudged.set()

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """While new settings are put in force: what is known of the old gateways stays unsaid, and
        what is known of the new ones is kept when they are."""
        async with self._changing:
            yield
            self._follow()
            self._keep({family: track.known for family, track in self._tracks.items()})
        self.nudge()

    async def resolved(self, sources: Sources, facts: Facts) -> Exits:
        """The gateways of a reload's `sources`: those it leaves as they are stay as they are in
        force, new names are looked up; raises ConfigurationError as a start does."""
        former = gateways(self._keeper.prepared.sources.settings)
        wanted = gateways(sources.settings)
        four, six = (
            self._keeper.exits.of(family) if former.get(family) == wanted.get(family) else None
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
        with contextlib.suppress(*LACKS):  # then the next round tells it
            await self._tell()
        self.nudge()

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(lasting(self._probing, self.complaints))
            tasks.create_task(lasting(self._resolving, self.complaints))

    def statuses(self) -> list[ExitStatus]:
        """How each family's exit is, for `ocgate status`."""
        self._follow()
        prepared = self._keeper.prepared
        return statuses(prepared.sources.settings, self._tracks, self._device)

    async def _probing(self) -> None:
        while True:
            began = self._clock()
            await self.round()
            await self._rest(began)

    async def _rest(self, began: float) -> None:
        settings = self._keeper.prepared.sources.settings
        until = began + settings.exit_probe_interval if self._tracks else began + IDLE
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(until - self._clock(), 0.001)):
                await self._nudged.wait()
            await asyncio.sleep(SETTLE)
        self._nudged.clear()

    async def round(self) -> None:
        """Probe every gateway once, and tell what that changed."""
        self._follow()
        if self._tracks:
            await asyncio.gather(*(self._examine(track) for track in self._tracks.values()))
            await self._tell()

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
        moved = await asyncio.gather(*(self._ask(track) for track in due))
        if due:
            await self._tell()
        if any(moved):
            self._nudged.set()

    def _follow(self) -> None:
        """Begin and end tracks as the settings in force say."""
        wanted = gateways(self._keeper.prepared.sources.settings)
        for family in [f for f, t in self._tracks.items() if t.upstream != wanted.get(f)]:
            del self._tracks[family]
        for family, upstream in wanted.items():
            if family in self._tracks:
                continue
            state = self._keeper.exits.of(family)
            address = upstream.address or (state.address if state else None)
            former = self._before.pop(family, None)
            same = former and (former.written, former.address) == (str(upstream), address)
            health = former.health if former and same else None  # another's says nothing
            mac = former.mac if former and same else ""
            self._tracks[family] = Track(family, upstream, address, health, mac)
            self._asking.set()
        for family, track in self._tracks.items():
            if not self._learns(family):
                track.mac = ""

    async def _examine(self, track: Track) -> None:
        address = track.address
        if address is None or not self._in_force(track, address):
            return
        verdict = await self._verdict(track, address)
        if verdict is None or not self._in_force(track, address):
            return
        settings = self._keeper.prepared.sources.settings
        thresholds = Thresholds(settings.exit_probe_failures, settings.exit_probe_successes)
        if track.examined(verdict, thresholds if self._targets(track) else AT_ONCE, self._clock()):
            self._asking.set()
        if verdict.ok and not track.mac and self._learns(track.family):
            self._learn(track, address)

    def _learn(self, track: Track, address: Address) -> None:
        """Of who leads out, and not of who answers first."""
        if mac := self._mac_of(address, self._device(address) or ""):
            track.learned(mac)

    def _learns(self, family: Family) -> bool:
        return family in learning(self._keeper.prepared.sources.settings)

    def _in_force(self, track: Track, address: Address) -> bool:
        """Whether what a probe finds is of this address: probes go where the kernel's route says,
        and that follows a gateway that moves a moment later."""
        state = self._keeper.exits.of(track.family)
        return state is not None and state.address == address == track.address

    async def _verdict(self, track: Track, address: Address) -> Verdict | None:
        """None: nothing can be said now."""
        prepared = self._keeper.prepared
        unfit, device = refusal(address, prepared.facts, prepared.subnets), self._device(address)
        if unfit or device is None:  # planning closes it for the same reason
            return Verdict(ok=False, why=unfit, at=self._now())
        targets = self._targets(track)
        pin = pinned(prepared.sources.settings, track.family, track.mac)
        if not targets:
            if pin:
                return await self._by_link(address, device, pin)
            return self._by_neighbour(address, device)
        interval = prepared.sources.settings.exit_probe_interval
        timeout = min(max(interval, SHORTEST_TIMEOUT), LONGEST_TIMEOUT)
        ports = prepared.intent.ports
        result = await self._probe(targets, timeout=timeout, mark=MARK_GATEWAY, ports=ports)
        if result.ok:
            return Verdict(ok=True, why=result.reason, at=self._now(), rtt=result.seconds)
        if pin:  # the kernel asks nobody, and must not be told to doubt it
            found = await self._by_link(address, device, pin)
            at_hand = found is None or found.ok
            return Verdict(ok=False, why=result.reason, at=self._now()) if at_hand else found
        return self._failed(address, device, result.reason)

    def _failed(self, address: Address, device: str, reason: str) -> Verdict:
        found = self._neighbour(address, device)
        if found is Neighbour.ANSWERED:
            self._suspect(address, device)
        silent = found in (Neighbour.FAILED, Neighbour.ASKED)
        why = _silent(address, device) if silent else reason
        return Verdict(ok=False, why=why, at=self._now())

    async def _by_link(self, address: Address, device: str, pin: str) -> Verdict | None:
        """Whether a pinned gateway answers at its own MAC; None where nobody can be asked."""
        found = await self._holders(address, device, wait=LINK_TIMEOUT)
        if found is None:
            return None
        if pin in found:
            return Verdict(ok=True, why=f"{address} answers on {device}", at=self._now())
        why = _silent(address, device)
        if found:
            why = (
                f"{address} answers with another MAC address on {device}, "
                f"{', '.join(sorted(found))}, than the {pin} that it is held to: a neighbour has "
                "taken its address, or it was made anew (then: ocgate reload --learn-mac, or set "
                "VPN_GATEWAY_MAC)"
            )
        return Verdict(ok=False, why=why, at=self._now())

    def _by_neighbour(self, address: Address, device: str) -> Verdict | None:
        found = self._neighbour(address, device)
        # Nothing may be sent there while it is down, and a fresh entry ages only when it is used.
        self._solicit(address, device)
        if found is Neighbour.ANSWERED:
            return Verdict(ok=True, why=f"{address} answers on {device}", at=self._now())
        if found is Neighbour.FAILED:
            return Verdict(ok=False, why=_silent(address, device), at=self._now())
        return None

    def _targets(self, track: Track) -> Sequence[Target]:
        targets = self._keeper.prepared.sources.settings.exit_probe
        return [target for target in targets if target.address.version == track.family]

    def _device(self, address: Address) -> str | None:
        link = self._keeper.prepared.facts.connected_network_of(address)
        return link.device if link else None

    async def _ask(self, track: Track) -> bool:
        """Look its name up; whether the gateway is at another address now."""
        prepared = self._keeper.prepared
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

    async def _tell(self) -> None:
        """Put in force what differs from what is, and keep it for a restart."""
        async with self._changing:
            self._follow()  # a reload may have been first
            known = {family: track.known for family, track in self._tracks.items()}
            exits = exits_of(known)
            try:
                if self._owed or _essence(exits) != _essence(self._keeper.exits):
                    self._owed = True
                    await self._keeper.look(exits=exits)
            except OcgateError as error:
                log.error("the exits changed, but that can't be applied", why=str(error))
                return
            self._owed = False
            self._keep(known)

    def _keep(self, known: dict[Family, Known]) -> None:
        if _lasting(known) != _lasting(self._kept):
            self._records.keep(EXITS, functools.partial(write_known, self._run_dir, known))
            self._kept = known


def _silent(address: Address, device: str) -> str:
    protocol = "ARP" if address.version == 4 else "NDP"
    return f"no answer to {protocol} from {address} on {device}"


def _essence(exits: Exits) -> list[tuple[Address | None, bool, str] | None]:
    """What the kernel's state depends on: reasons change with every probe, and are status only."""
    states = (exits.exit4, exits.exit6)
    return [None if s is None else (s.address, bool(s.down), s.mac) for s in states]


def _lasting(known: dict[Family, Known]) -> list[object]:
    """What is worth writing: not the words of each probe."""
    return [
        (family, held.written, held.address, held.health.state, held.health.since, held.mac)
        for family, held in sorted(known.items())
    ]
