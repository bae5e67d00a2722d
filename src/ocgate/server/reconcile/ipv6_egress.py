"""Watches IPv6 egress while the server runs, and tells the reconciler when it changes.

A probe that passes counts at once: clients get what works. A failure counts when the next probe,
a second later, fails too, so that one lost packet does not take IPv6 from everybody; a default
route that is gone needs no second look.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from pathlib import Path

from ocgate.errors import OcgateError
from ocgate.kernel.probe import ProbeResult, probe
from ocgate.kernel.way import Target
from ocgate.runtime.log import stage
from ocgate.runtime.records import Records
from ocgate.server.desired.prepare import Ipv6Egress, depends_on_egress
from ocgate.server.desired.sources import EGRESS, write_egress
from ocgate.server.reconcile.reconciler import Reconciler

# Covers a lost SYN's first retransmission (1 s, RFC 6298) and a satellite's round trip.
PROBE_TIMEOUT = 2.0  # seconds
SECOND_LOOK = 1.0  # seconds between a first failure and the probe that confirms it
# Events come in bursts (an interface that bounces makes dozens): one probe serves them all.
SETTLE = 0.2  # seconds

log = stage("init-nat")


async def probed(targets: Sequence[Target]) -> Ipv6Egress:
    """One probe of all targets; any that answers is enough."""
    return _egress(await probe(targets, timeout=PROBE_TIMEOUT))


def _egress(result: ProbeResult) -> Ipv6Egress:
    return Ipv6Egress(None if result.ok else result.reason)


class EgressWatch:
    """Probes every IPV6_PROBE_INTERVAL seconds, and soon after `nudge`."""

    def __init__(self, reconciler: Reconciler, run_dir: Path, records: Records) -> None:
        self._reconciler = reconciler
        self._run_dir = run_dir
        self._records = records
        self._nudged = asyncio.Event()

    def nudge(self) -> None:
        """Something about links or routes changed: probe soon."""
        self._nudged.set()

    async def run(self) -> None:
        """For ever; does nothing while IPv6 does not depend on egress."""
        while True:
            await self._wait()
            if not depends_on_egress(self._reconciler.prepared.sources):
                continue
            egress = await self._measured()
            if egress != self._reconciler.egress:  # also another reason: status says why
                await self._tell(egress)

    async def _wait(self) -> None:
        interval = self._reconciler.prepared.sources.settings.ipv6_probe_interval
        try:
            async with asyncio.timeout(interval):
                await self._nudged.wait()
            await asyncio.sleep(SETTLE)
        except TimeoutError:
            pass
        self._nudged.clear()

    async def _measured(self) -> Ipv6Egress:
        targets = self._reconciler.prepared.sources.settings.ipv6_probe
        result = await probe(targets, timeout=PROBE_TIMEOUT)
        if result.ok or not self._reconciler.egress.working:
            return _egress(result)
        if self._reconciler.prepared.facts.default_route(6) is not None:
            await asyncio.sleep(SECOND_LOOK)
            result = await probe(targets, timeout=PROBE_TIMEOUT)
        # What this host lacks (descriptors, say) takes IPv6 from nobody.
        return self._reconciler.egress if result.unable else _egress(result)

    async def _tell(self, egress: Ipv6Egress) -> None:
        try:
            await self._reconciler.look(egress=egress)
        except OcgateError as error:
            log.error("IPv6 egress changed, but the new state can't be applied", why=str(error))
            return
        keep_egress(self._run_dir, egress.failure, self._records)


def keep_egress(run_dir: Path, failure: str | None, records: Records) -> None:
    """For a control plane that is restarted."""
    records.keep(EGRESS, functools.partial(write_egress, run_dir, failure))
