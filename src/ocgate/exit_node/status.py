"""What `ocgate status`, `metrics` and `healthcheck` are told of an exit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ocgate import __version__, own_files
from ocgate.exit_node.kind import Kind
from ocgate.exit_node.prober import Prober
from ocgate.exit_node.reconciler import Reconciler
from ocgate.exit_node.runner import Runner
from ocgate.exit_node.state_machine import Phase
from ocgate.exit_node.status_schema import (
    ROLE,
    SCHEMA,
    ExitRoleStatus,
    ProbeStatus,
    SwitchStatus,
    TunnelStatus,
)
from ocgate.exit_node.transition_log import written
from ocgate.kernel import device_conf
from ocgate.kernel.nft import Nft
from ocgate.runtime.counters import blocked, counted, iso
from ocgate.tunnel.model import Refusal
from ocgate.tunnel.reasons import REASONS


def _no_wants() -> list[str]:
    return []


@dataclass(frozen=True)
class Observed:
    """What control looks at to tell how the exit is. started_at: seconds since the epoch; wants:
    what control can't do just now."""

    run_dir: Path
    started_at: float
    nft: Nft
    kind: Kind
    reconciler: Reconciler
    runner: Runner
    prober: Prober
    wants: Callable[[], list[str]] = _no_wants


async def collect(seen: Observed) -> ExitRoleStatus:
    """The whole status, read now."""
    drift = await seen.reconciler.drift()
    reasons = _reasons(seen, drift)
    return ExitRoleStatus(
        schema=SCHEMA,
        role=ROLE,
        at=iso(time.time()),
        healthy=not reasons,
        reasons=reasons,
        version=__version__,
        since=iso(seen.started_at),
        run_dir=str(seen.run_dir),
        tunnel=_tunnel(seen),
        probe=_probe(seen.prober),
        switch=_switch(seen, intact=not drift),
        blocked=await asyncio.to_thread(blocked, seen.nft, REASONS),
    )


async def health(seen: Observed) -> list[str]:
    """Why the exit is unhealthy, a sentence each; empty when its tunnel is up and leads out."""
    return _reasons(seen, await seen.reconciler.drift())


def _reasons(seen: Observed, drift: Sequence[str]) -> list[str]:
    found = [f"the kernel differs from the plan: {what}" for what in drift]
    found += [seen.reconciler.foreign_rules] if seen.reconciler.foreign_rules else []
    found += seen.wants()
    if why := own_files.room(seen.run_dir):
        found.append(f"nothing can be written in {seen.run_dir} ({why}): no tunnel is made anew")
    machine = seen.runner.machine
    if not machine.stands:
        why = f": {machine.why}" if machine.why else ""
        return [*found, f"the tunnel is not up ({machine.phase.value}){why}"]
    if seen.reconciler.unusable:
        found.append(f"clients are rejected: {seen.reconciler.unusable}")
    lost = (refusal for refusal in _refused(seen) if refusal.loses)
    found += [f"not taken of what the tunnel's server gave: {refusal}" for refusal in lost]
    if machine.phase is Phase.DEGRADED:
        return [*found, f"the tunnel does not answer: {machine.why}"]
    if seen.prober.expects(machine) and not machine.answered:
        found.append(f"the tunnel has not answered yet: {seen.prober.seen.why}")
    elif seen.prober.blind:
        found.append(f"whether the tunnel answers is not known: {seen.prober.blind}")
    return found


def _refused(seen: Observed) -> tuple[Refusal, ...]:
    carried = seen.reconciler.intent.carried
    return () if carried is None else carried.refused


def _tunnel(seen: Observed) -> TunnelStatus:
    machine, device = seen.runner.machine, seen.kind.device
    carried = seen.reconciler.intent.carried
    waiting = machine.phase is Phase.WAITING and machine.until is not None
    return TunnelStatus(
        kind=seen.kind.name,
        state=machine.phase.value,
        since=_moment(machine.since),
        device=device,
        server=machine.remote.label if machine.remote else None,
        servers=len(machine.remotes),
        endpoint=written(machine.endpoint) if machine.endpoint else None,
        addresses=[str(address) for address in carried.addresses] if carried else [],
        mtu=carried.mtu if carried else None,
        resolvers=[str(address) for address in carried.resolvers] if carried else [],
        refused=[str(refusal) for refusal in _refused(seen)],
        ipv6=seen.reconciler.intent.carries(6),
        attempts=machine.attempts,
        failures=machine.failures,
        last_failure=machine.why or None,
        next_attempt=_moment(machine.until) if waiting and machine.until else None,
        bytes_in=counted(device, "rx_bytes"),
        bytes_out=counted(device, "tx_bytes"),
    )


def _probe(prober: Prober) -> ProbeStatus:
    seen = prober.seen
    return ProbeStatus(
        targets=[str(target) for target in prober.targets],
        state=seen.state,
        since=None if seen.since is None else iso(seen.since),
        why=seen.why if prober.targets else "EXIT_PROBE is off",
        rtt=seen.rtt,
        heard=seen.heard,
        late=seen.late,
    )


def _switch(seen: Observed, *, intact: bool) -> SwitchStatus:
    intent = seen.reconciler.intent
    return SwitchStatus(
        intact=intact,
        repairs=seen.reconciler.repairs.count,
        uplinks=list(intent.uplinks),
        forward_from=[str(net) for net in intent.forward_from],
        networks=[str(net) for net in intent.networks],
        dns=intent.dns.value,
        forwarding4=device_conf.forwards(),
    )


def _moment(monotonic: float) -> str:
    """A moment of the machine's clock, as one of the wall's."""
    return iso(time.time() - (time.monotonic() - monotonic))
