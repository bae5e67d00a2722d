"""Probes through the tunnel while it stands, and tells the runner what the answers amount to."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol

from ocgate.exit_role.machine import Answered, Event, Machine, Silent
from ocgate.exits.health import UNKNOWN, Health, State, Thresholds, Verdict, step
from ocgate.kernel.probe import ProbeResult, Target, probe

# A probe's time to live: the interval, but never so short that a satellite's round trip is a
# failure, nor so long that a dead tunnel is noticed only at the next one.
SHORTEST_TIMEOUT, LONGEST_TIMEOUT = 1.0, 4.0  # seconds


class Asks(Protocol):
    """The runner, as far as it is needed here."""

    machine: Machine
    serial: int

    async def say(self, event: Event, *, serial: int | None = None) -> str: ...


class Prober:
    """health: of the tunnel that stands now, UNKNOWN while there is none."""

    def __init__(
        self,
        runner: Asks,
        device: str,
        targets: Sequence[Target],
        interval: float,
        thresholds: Thresholds,
        *,
        probe: Callable[..., Awaitable[ProbeResult]] = probe,
        now: Callable[[], float] = time.time,
    ) -> None:
        """targets: empty for none, then the tunnel is taken at its client's word."""
        self._runner = runner
        self._device = device
        self.targets = tuple(targets)
        self._interval = interval
        self._thresholds = thresholds
        self._probe = probe
        self._now = now
        self._nudged = asyncio.Event()
        self._serial = -1
        self.health: Health = UNKNOWN

    def nudge(self) -> None:
        """A tunnel has come, or networks changed: probe now."""
        self._nudged.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            await self.round()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._nudged.wait()
            self._nudged.clear()

    async def round(self) -> None:
        """Probe once, and tell what that changed."""
        machine, serial = self._runner.machine, self._runner.serial
        if serial != self._serial or not machine.stands:
            self._serial, self.health = serial, UNKNOWN
        targets = self._usable(machine)
        if not targets:
            return
        timeout = min(max(self._interval, SHORTEST_TIMEOUT), LONGEST_TIMEOUT)
        result = await self._probe(targets, timeout=timeout, device=self._device)
        if serial == self._runner.serial:
            await self._judge(result, serial)

    def expects(self, machine: Machine) -> bool:
        """Whether this tunnel is probed at all."""
        return bool(self._usable(machine))

    def _usable(self, machine: Machine) -> list[Target]:
        """Those of a family that the tunnel carries."""
        carried = machine.carried
        if carried is None:
            return []
        return [target for target in self.targets if carried.has(target[0].version)]

    async def _judge(self, result: ProbeResult, serial: int) -> None:
        rtt = result.seconds if result.ok else None
        verdict = Verdict(ok=result.ok, why=result.reason, at=self._now(), rtt=rtt)
        before, self.health = self.health, self._after(verdict)
        if self.health.state is not before.state:
            up = self.health.state is State.UP
            await self._runner.say(Answered() if up else Silent(verdict.why), serial=serial)

    def _after(self, verdict: Verdict) -> Health:
        """A new tunnel, too, has to fail as often as any: its first packet may come before the
        client is ready for it. Until then it has not answered yet."""
        row = self.health.row + 1
        early = self.health.state is State.UNKNOWN and row < self._thresholds.failures
        if early and not verdict.ok:
            return replace(self.health, why=verdict.why, row=row)
        return step(self.health, verdict, self._thresholds)
