"""Asks targets beyond an exit, each by its own kind, all at once. The wiring imports this."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ocgate.kernel.questions import ask_dns, ask_echo
from ocgate.kernel.tcp_question import ask_tcp
from ocgate.kernel.way import LACKS, Found, Target, Way, unable
from ocgate.names import PROBE_DNS, PROBE_ICMP
from ocgate.plan.facts import Address

# Seconds to wait for an answer. SYNs go out at 0, 1 and 3 s: two lost ones are forgiven within 4.
TIMEOUT = 4.0


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found.

    ok:      the target answered.
    target:  address and port that the reason speaks of; None when there was none to ask.
    reason:  one clause for the operator; for several targets theirs, joined by "; ".
    seconds: until the verdict, from the start of the probe.
    unable:  no target could be asked, for want of something that is this host's: that says nothing
             of the network.
    """

    ok: bool
    target: Target | None
    reason: str
    seconds: float
    unable: bool = False


async def ask(target: Target, timeout: float, way: Way) -> Found:
    """One question. Never raises for what the network or the kernel says: that is its reason."""
    try:
        match target.kind:
            case kind if kind == PROBE_DNS:
                return await ask_dns(target.address, target.port, timeout, way)
            case kind if kind == PROBE_ICMP:
                return await ask_echo(target.address, timeout, way)
            case _:
                return await ask_tcp(target, timeout, way)
    except MemoryError:
        return unable(str(target), LACKS[errno.ENOMEM])


async def probe(
    targets: Sequence[Target],
    *,
    timeout: float = TIMEOUT,
    mark: int | None = None,
    device: str | None = None,
    source: Address | None = None,
    ports: tuple[int, int] | None = None,
) -> ProbeResult:
    """Ask all targets at once; the first answer decides, otherwise all reasons are given.

    mark, device, source: send as traffic with this fwmark, by this device, from this address.
    ports: first and last source port. A mark goes with the socket: what the kernel answers to
           segments that come after its end has none, and only its port tells whose it is.
    Never raises for what the network or the kernel says: that is the result's reason.
    """
    began = time.monotonic()
    way = Way(mark, device, source, ports)
    asked = [asyncio.create_task(_asked(t, timeout, way)) for t in targets]
    refused: list[ProbeResult] = []
    try:
        for finished in asyncio.as_completed(asked):
            result = await finished
            if result.ok:
                return result
            refused.append(result)
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    reasons = dict.fromkeys(result.reason for result in refused)  # each once, in order
    first = refused[0].target if refused else None
    said = "; ".join(reasons) or "no probe target is configured"
    nobody = bool(refused) and all(result.unable for result in refused)
    seconds = time.monotonic() - began
    return ProbeResult(ok=False, target=first, reason=said, seconds=seconds, unable=nobody)


async def _asked(target: Target, timeout: float, way: Way) -> ProbeResult:
    began = time.monotonic()
    found = await ask(target, timeout, way)
    return ProbeResult(found.ok, target, found.why, time.monotonic() - began, found.unable)
