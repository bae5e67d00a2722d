"""What `ocgate status` and `ocgate healthcheck` are told. The shape is in `status_schema`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ocgate import __version__
from ocgate.control.status_schema import (
    SCHEMA,
    BlockedStatus,
    NetworkStatus,
    ServerStatus,
    SessionStatus,
    Status,
)
from ocgate.errors import OcgateError
from ocgate.kernel import apply, process, sysctl
from ocgate.plan.planner import COUNTERS
from ocgate.server import dryrun, services
from ocgate.sessions.session import Session

if TYPE_CHECKING:
    from ocgate.control.daemon import Control

_STATISTICS = Path("/sys/class/net")


async def collect(control: Control) -> Status:
    """The whole status, read now."""
    drift = await control.keeper.drift()
    reasons = await _reasons(control, drift)
    return Status(
        schema=SCHEMA,
        at=_iso(time.time()),
        healthy=not reasons,
        reasons=reasons,
        server=await asyncio.to_thread(_server, control),
        network=_network(control, guard=not drift),
        sessions=[_session(session) for session in control.table],
        blocked=await asyncio.to_thread(_blocked, control),
    )


async def health(control: Control) -> list[str]:
    """Why the server is unhealthy, a sentence each; empty if it is not.

    Liveness and the integrity of routing only: an upstream or an internet that is down is no
    reason to restart a server.
    """
    return await _reasons(control, await control.keeper.drift())


async def _reasons(control: Control, drift: Sequence[str]) -> list[str]:
    found = [f"the kernel differs from the plan: {what}" for what in drift]
    if await asyncio.to_thread(services.ocserv_pid, control.run_dir) is None:
        found.append("ocserv does not run")
    return found


def _server(control: Control) -> ServerStatus:
    settings = control.keeper.prepared.sources.settings
    view = control.keeper.prepared.sources.view
    pid = services.ocserv_pid(control.run_dir)
    ports = (("tcp", view.tcp_port), ("udp", view.udp_port))
    return ServerStatus(
        version=__version__,
        since=_iso(control.started_at),
        ocserv_version=_ocserv_version(),
        ocserv_since=None if pid is None else _iso(process.started_at(pid) or control.started_at),
        listening=[f"{kind} {port}" for kind, port in ports if port] if pid else [],
        config_dir=str(settings.config_dir),
        run_dir=str(control.run_dir),
        url=settings.url,
    )


@lru_cache(maxsize=1)
def _ocserv_version() -> str:
    try:
        return ".".join(str(part) for part in dryrun.version())
    except OcgateError:
        return ""


def _network(control: Control, *, guard: bool) -> NetworkStatus:
    prepared = control.keeper.prepared
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
        repairs=control.keeper.repaired,
    )


def _session(session: Session) -> SessionStatus:
    return SessionStatus(
        worker=session.worker,
        user=_plain(session.user),
        vhost=_plain(session.vhost),
        device=session.device,
        address4=None if session.address4 is None else str(session.address4),
        address6=None if session.prefix6 is None else str(session.prefix6.network_address),
        peer=session.peer,
        since=_iso(session.connected_at),
        bytes_in=_counted(session.device, "rx_bytes"),
        bytes_out=_counted(session.device, "tx_bytes"),
    )


def _counted(device: str, which: str) -> int:
    """The tun's own count. What the host receives from it came from the client."""
    try:
        return int((_STATISTICS / device / "statistics" / which).read_text())
    except (OSError, ValueError):
        return 0


def _blocked(control: Control) -> list[BlockedStatus]:
    counted = apply.counters(control.nft)
    return [
        BlockedStatus(
            reason=name, packets=counted[name][0], bytes=counted[name][1], explanation=why
        )
        for name, why in COUNTERS.items()
        if name in counted
    ]


def _plain(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
