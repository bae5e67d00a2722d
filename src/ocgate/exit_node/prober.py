"""Probes through the tunnel while it stands, and tells the runner what that amounts to."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from ocgate.exit_node.state_machine import Answered, Event, Machine, Silent
from ocgate.kernel import probe
from ocgate.kernel.way import Found, Target, Way
from ocgate.runtime.log import stage
from ocgate.runtime.probing import UNSEEN, Probing, Seen, seen, word
from ocgate.upstream import liveness
from ocgate.upstream.line import Counters, Line, Pace, State

# A tunnel that comes is told (`nudge`); that it may be probed is looked at again so often, anyway.
IDLE = 1.0  # seconds

UNASKED = (
    "EXIT_PROBE names no target of a family that the tunnel carries: its client's word is taken"
)

log = stage("svc-control")


class Asks(Protocol):
    """The runner, as far as it is needed here."""

    machine: Machine
    serial: int

    async def say(self, event: Event, *, serial: int | None = None) -> str: ...


class Prober:
    """line: what is known of the tunnel that stands now; None while nothing is probed."""

    def __init__(
        self,
        runner: Asks,
        device: str,
        targets: Sequence[Target],
        pace: Pace,
        *,
        look: Callable[[], Counters | None],
        ask: Callable[[Target, float, Way], Awaitable[Found]] = probe.ask,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """targets: empty for none, then the tunnel is taken at its client's word. look: bytes of
        users through the tunnel."""
        self._runner = runner
        self._way = Way(device=device)
        self._pace = pace
        self._look = look
        self._ask = ask
        self._clock = clock
        self._now = now
        self._nudged = asyncio.Event()
        self._probing: Probing | None = None
        self._warned = -1  # the tunnel whose want of targets is logged
        self.targets = tuple(targets)

    @property
    def line(self) -> Line | None:
        return None if self._probing is None else self._probing.line

    @property
    def blind(self) -> str:
        """Why it is not known any more whether the tunnel answers; '' while it is, or before."""
        line = self.line
        unknown = line is not None and line.state is State.UNKNOWN and line.blind is not None
        return line.why if unknown and line is not None else ""

    @property
    def seen(self) -> Seen:
        """How the tunnel is."""
        line = self.line
        if line is None:
            return Seen(why=UNASKED) if self._is_unasked(self._runner.machine) else UNSEEN
        if line.state is State.UNKNOWN:
            return Seen(why=line.why)
        clock = self._clock()
        return seen(word(line.state), self._now() - (clock - line.since), line, clock)

    def nudge(self) -> None:
        """A tunnel has come, or networks changed: ask now."""
        self._nudged.set()
        if self._probing is not None:
            self._probing.doubt("networks changed")

    async def run(self) -> None:
        """For ever."""
        while True:
            await self.probe()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE):
                    await self._nudged.wait()
            self._nudged.clear()

    async def probe(self) -> None:
        """Probe the tunnel that stands now, as long as it does."""
        serial, asked = self._runner.serial, self._usable(self._runner.machine)
        if not asked:
            if self._is_unasked(self._runner.machine) and serial != self._warned:
                self._warned = serial
                log.warning("the tunnel is not probed", why=UNASKED)
            return
        by_name = {str(target): target for target in asked}

        async def ask(name: str, wait: float) -> Found:
            return await self._ask(by_name[name], wait, self._way)

        def stands() -> bool:
            return self._runner.serial == serial and self._usable(self._runner.machine) == asked

        line = liveness.begin(self._pace, by_name, self._clock())
        self._probing = Probing(line, ask, self._look, clock=self._clock)
        try:
            await self._probing.run(lambda: self._tell(serial), stands)
        finally:
            self._probing = None

    def expects(self, machine: Machine) -> bool:
        """Whether this tunnel is probed at all."""
        return bool(self._usable(machine))

    def _is_unasked(self, machine: Machine) -> bool:
        """A tunnel stands, and there are targets, but none that it could be asked for."""
        return machine.stands and bool(self.targets) and not self._usable(machine)

    def _usable(self, machine: Machine) -> list[Target]:
        """Those of a family that the tunnel carries."""
        carried = machine.carried
        if carried is None or not machine.stands:
            return []
        return [target for target in self.targets if carried.has(target.address.version)]

    async def _tell(self, serial: int) -> None:
        line = self.line
        if line is not None and line.state is State.ALIVE:
            await self._runner.say(Answered(), serial=serial)
        elif line is not None and line.state is State.DOWN:
            await self._runner.say(Silent(line.why), serial=serial)
        elif self.blind:
            log.warning("whether the tunnel answers is not known", why=self.blind)
