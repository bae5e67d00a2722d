"""What `ocgate status` and `ocgate healthcheck` are told. The shape is in `status_schema`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ocgate import __version__, own_files
from ocgate.errors import OcgateError
from ocgate.kernel import apply, process, surroundings, sysctl
from ocgate.kernel.nft import Nft
from ocgate.ocserv import services
from ocgate.ocserv.releases import shown
from ocgate.plan.reasons import ALL_COUNTERS
from ocgate.plan.requirements import Tun
from ocgate.runtime.counters import blocked, counted, iso
from ocgate.server.certificates import status as certificate_status
from ocgate.server.certificates.watch import CertWatch
from ocgate.server.desired import rule_placement
from ocgate.server.history.writer import History
from ocgate.server.reconcile.reconciler import Reconciler
from ocgate.server.status.egress_check import EgressCheck
from ocgate.server.status.flow_usage import FlowUsage
from ocgate.server.status.metrics import render
from ocgate.server.status.networks import reached
from ocgate.server.status.schema import (
    SCHEMA,
    ExitStatus,
    NetworkStatus,
    ServerStatus,
    SessionStatus,
    Status,
)
from ocgate.sessions.record import plain
from ocgate.sessions.session import Session
from ocgate.sessions.table import SessionTable


def _no_exits() -> list[ExitStatus]:
    return []


def _no_wants() -> list[str]:
    return []


@dataclass(frozen=True)
class Observed:
    """What a control plane looks at to tell how it is. started_at: seconds since the epoch;
    exits: how the exits are now (ExitWatch.statuses); wants: what control can't do just now."""

    run_dir: Path
    started_at: float
    nft: Nft
    reconciler: Reconciler
    table: SessionTable
    history: History
    certificates: CertWatch
    exits: Callable[[], list[ExitStatus]] = _no_exits
    wants: Callable[[], list[str]] = _no_wants
    flows: FlowUsage = field(default_factory=FlowUsage)


async def collect(seen: Observed, *, listing: bool = True) -> Status:
    """The whole status, read now; listing: with every session, whose byte counts are two reads
    each, which is a second of work at some 10,000."""
    drift = await seen.reconciler.drift()
    reasons = await _reasons(seen, drift)
    limited = await asyncio.to_thread(apply.limited, seen.nft)
    return Status(
        schema=SCHEMA,
        at=iso(time.time()),
        healthy=not reasons,
        reasons=reasons,
        server=await asyncio.to_thread(_server, seen),
        network=_network(seen, guard=not drift),
        exits=seen.exits(),
        networks=await asyncio.to_thread(
            reached, seen.nft, seen.reconciler.prepared.intent.networks
        ),
        flows=await seen.flows.collect(seen.reconciler.prepared),
        session_count=len(seen.table),
        sessions=[_session(session, limited) for session in seen.table] if listing else [],
        blocked=await asyncio.to_thread(blocked, seen.nft, ALL_COUNTERS),
        certificates=await asyncio.to_thread(
            certificate_status.statuses, seen.reconciler.prepared.sources, seen.run_dir
        ),
        certificate_trouble=seen.certificates.trouble or seen.certificates.blind,
        history=seen.history.status(),
    )


async def metrics(seen: Observed) -> bytes:
    """The figures of the status, in Prometheus' text format."""
    found = await collect(seen, listing=False)
    return await asyncio.to_thread(render, found)  # the library's import takes 80 ms, once


async def health(seen: Observed) -> list[str]:
    """Why the container is unhealthy, a sentence each; empty if it is not.

    Liveness and the integrity of routing: an upstream or an internet that is down is no reason to
    restart a server, unless HEALTH_CHECK_EGRESS says so. With HEALTH_CHECK_ENABLED=0 that it was
    asked, and answers, is all.
    """
    settings = seen.reconciler.prepared.sources.settings
    if settings.health_check_enabled is False:
        return []
    reasons = await _reasons(seen, await seen.reconciler.drift())
    if settings.health_check_enabled and not reasons:
        reasons += await EgressCheck(seen.reconciler.prepared, seen.exits()).failures()
    return reasons


async def _reasons(seen: Observed, drift: Sequence[str]) -> list[str]:
    found = [f"the kernel differs from the plan: {what}" for what in drift]
    prepared = seen.reconciler.prepared
    if said := rule_placement.said_of(prepared.sources, prepared.facts):
        found.append(said)
    if lost := rule_placement.main_lost(prepared.facts):
        found.append(lost)
    try:
        if await asyncio.to_thread(services.ocserv_pid, seen.run_dir) is None:
            found.append("ocserv does not run")
    except OcgateError as error:
        found.append(f"whether ocserv runs can't be asked: {error.message}")
    return [*found, *seen.wants(), *await asyncio.to_thread(lacking, seen.run_dir)]


def lacking(run_dir: Path) -> list[str]:
    """What new sessions need and is not there now, a sentence each."""
    found = []
    if why := own_files.room(run_dir):
        found.append(
            f"nothing can be written in {run_dir} ({why}): new sessions are refused until that is "
            "mended"
        )
    if (tun := surroundings.tun()) is not Tun.USABLE:
        found.append(f"{surroundings.TUN} {tun.value}: new sessions get no tunnel")
    return found


def _server(seen: Observed) -> ServerStatus:
    settings = seen.reconciler.prepared.sources.settings
    view = seen.reconciler.prepared.sources.view
    pid = _ocserv_pid(seen.run_dir)
    ports = (("tcp", view.tcp_port), ("udp", view.udp_port))
    return ServerStatus(
        version=__version__,
        since=iso(seen.started_at),
        ocserv_version=shown(seen.reconciler.prepared.sources.release),
        ocserv_since=None if pid is None else iso(process.started_at(pid) or seen.started_at),
        listening=[f"{kind} {port}" for kind, port in ports if port] if pid else [],
        config_dir=str(settings.config_dir),
        run_dir=str(seen.run_dir),
        url=settings.url,
    )


def _ocserv_pid(run_dir: Path) -> int | None:
    try:
        return services.ocserv_pid(run_dir)
    except OcgateError:  # among the reasons
        return None


def _network(seen: Observed, *, guard: bool) -> NetworkStatus:
    prepared = seen.reconciler.prepared
    intent, decision = prepared.intent, prepared.decision
    way = intent.wan4 or intent.wan6
    return NetworkStatus(
        wan_if=way.name if way else None,
        vpn_if=f"{intent.device}+",
        subnets4=[str(net) for net in intent.subnets4],
        subnets6=[str(net) for net in intent.subnets6],
        ipv6_mode=decision.word,
        ipv6_reason=decision.why,
        forwarding4=sysctl.read("net.ipv4.ip_forward") == "1",
        forwarding6=sysctl.read("net.ipv6.conf.all.forwarding") == "1",
        guard=guard,
        repairs=seen.reconciler.repairs.count,
        last_repair=seen.reconciler.repairs.last,
    )


def _session(session: Session, limited: Container[str]) -> SessionStatus:
    return SessionStatus(
        worker=session.worker,
        user=plain(session.user),
        vhost=plain(session.vhost),
        device=session.device,
        address4=None if session.address4 is None else str(session.address4),
        address6=None if session.prefix6 is None else str(session.prefix6.network_address),
        peer=session.peer,
        since=iso(session.connected_at),
        bytes_in=counted(session.device, "rx_bytes"),
        bytes_out=counted(session.device, "tx_bytes"),
        limited=session.device in limited,
    )
