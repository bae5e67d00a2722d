"""`ocgate doctor`: everything that can be checked, each with a verdict, its reason and a remedy.

It composes what is there: `check`, the machine's requirements, the status of the control plane and
its exits, certificates and history; and it asks two things that nobody asks all the time, the
resolvers that clients are given and which counters grow. It changes nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from ocgate.config.endpoints import EXIT_TARGETS
from ocgate.config.gateways import UpstreamKind
from ocgate.errors import OcgateError
from ocgate.kernel import surroundings
from ocgate.kernel.facts import observe
from ocgate.kernel.probe import ProbeResult, probe
from ocgate.kernel.way import TcpTarget
from ocgate.names import MARK_GATEWAY
from ocgate.plan import requirements
from ocgate.plan.exits import Exit, ExitKind
from ocgate.plan.facts import Address
from ocgate.runtime.control_client import ask
from ocgate.server import check_and_plan
from ocgate.server.desired.prepare import Ipv6Egress, Prepared, prepare
from ocgate.server.desired.sources import read_egress, read_snapshot
from ocgate.server.exits.record import read_exits
from ocgate.server.status.findings import FREE_SPACE, Finding, Verdict, is_full, of_status
from ocgate.server.status.schema import Status

# Between two looks at the counters. What happens all the time shows within a second.
WATCHED = 1.0  # seconds
PROBE = 4.0  # seconds: SYNs go out at 0, 1 and 3
DNS = 53

# Counters that stand still while all is well: a client's packets that ought to have passed, or a
# network that sends what it should not. All others are what a busy client does.
_ALARMING = frozenset(
    {"exit_closed", "no_exit", "wrong_exit", "not_translated", "claimed", "network_closed"}
)


@dataclass(frozen=True)
class _Server:
    """The running server, as it told and as it is recorded in the run dir."""

    status: Status
    prepared: Prepared


def examine(environ: Mapping[str, str], run_dir: Path) -> tuple[Finding, ...]:
    """All findings, in the order in which one would look; an exit is asked for its own."""
    status, why = _status(run_dir)
    if status is not None and status.get("role") == "exit":
        return tuple(_exit_role(status))
    found = [*_configuration(environ), *_machine(run_dir)]
    if status is None:
        return (*found, *why)
    server = _Server(cast(Status, status), _in_force(run_dir))
    grown = _growing(run_dir, server.status)
    found += of_status(server.status, now=datetime.now(UTC))
    found += asyncio.run(_ways(server.prepared))
    return (*found, *grown)


def _configuration(environ: Mapping[str, str]) -> Iterator[Finding]:
    try:
        report = check_and_plan.check(environ)
    except OcgateError as error:
        yield Finding("configuration", Verdict.ERROR, error.message, error.hint)
        return
    for problem in report.problems:
        yield Finding("configuration", Verdict.ERROR, str(problem), problem.remedy)
    for warning in report.warnings:
        yield Finding("configuration", Verdict.WARNING, warning.text, warning.remedy)
    for notice in report.notices:
        yield Finding("configuration", Verdict.NOTE, notice)
    for meaning in report.meanings:
        verdict = Verdict.WARNING if meaning.gravity.to_do else Verdict.NOTE
        yield Finding(f"ocserv {report.ocserv}", verdict, meaning.text, meaning.remedy)
    if not report.problems:
        yield Finding("configuration", Verdict.OK, "settings and ocserv.conf can be used")


def _machine(run_dir: Path) -> Iterator[Finding]:
    if os.geteuid() != 0:
        words = "not asked by root: what the kernel holds can't be seen whole"
        yield Finding("machine", Verdict.WARNING, words, "sudo ocgate doctor")
        return
    found = surroundings.observe(run_dir, None, [requirements.FORWARDING.key])
    lacks = requirements.lacking(found)
    for lack in lacks:
        remedy = f"docker run {lack.flag}; compose: {lack.compose}"
        yield Finding("machine", Verdict.ERROR, f"missing: {lack.what}", remedy)
    if not lacks:
        yield Finding("machine", Verdict.OK, "capabilities, tunnels, sysctls and limits suffice")


def _status(run_dir: Path) -> tuple[dict[str, Any] | None, list[Finding]]:
    """What control tells, whichever role's; or why it told nothing."""
    try:
        status: dict[str, Any] = json.loads(ask(run_dir, "status"))
    except OcgateError as error:
        return None, [Finding("server", Verdict.ERROR, error.message, error.hint)]
    except ValueError:
        return None, [Finding("server", Verdict.ERROR, "control gave no answer", "Restart ocgate")]
    return status, []


def _exit_role(status: Mapping[str, Any]) -> list[Finding]:
    """The exit role tells all it knows as reasons."""
    reasons = [str(reason) for reason in status.get("reasons", ())]
    tunnel = "`ocgate status` shows the tunnel; its client's last words are in the log"
    bad = [
        Finding("exit", Verdict.ERROR, reason, FREE_SPACE if is_full(reason) else tunnel)
        for reason in reasons
    ]
    return bad or [Finding("exit", Verdict.OK, "the tunnel is up and leads out")]


def _in_force(run_dir: Path) -> Prepared:
    sources = read_snapshot(run_dir)
    facts = observe(session_prefix=sources.synced.device)
    exits = read_exits(run_dir, sources.settings)
    return prepare(sources, facts, Ipv6Egress(read_egress(run_dir)), exits)


def _growing(run_dir: Path, before: Status) -> list[Finding]:
    """Which counters grow within a second."""
    time.sleep(WATCHED)
    try:
        after: Status = json.loads(ask(run_dir, "status"))
    except (OcgateError, ValueError):
        return []
    former = {counter["reason"]: counter["packets"] for counter in before["blocked"]}
    found = []
    for counter in after["blocked"]:
        grown = counter["packets"] - former.get(counter["reason"], 0)
        if grown > 0:
            alarming = counter["reason"] in _ALARMING
            words = f"{counter['reason']}: {grown} packets within {WATCHED:g} s, which are "
            found.append(
                Finding(
                    "blocked",
                    Verdict.WARNING if alarming else Verdict.NOTE,
                    words + counter["explanation"],
                    "`ocgate explain USER DEST` says which way a destination takes"
                    if alarming
                    else "",
                )
            )
    return found or [Finding("blocked", Verdict.OK, "nothing is being blocked just now")]


async def _ways(prepared: Prepared) -> list[Finding]:
    """This host's own way out, and the resolvers that clients are given."""
    settings = prepared.sources.settings
    jobs = [_resolver(prepared, found.value) for found in prepared.sources.view.dns]
    if settings.exit_probe or settings.exit4.kind is UpstreamKind.DIRECT:
        jobs.append(_direct(prepared))
    return await asyncio.gather(*jobs)


async def _direct(prepared: Prepared) -> Finding:
    targets = prepared.sources.settings.exit_probe or EXIT_TARGETS
    result = await probe(targets, timeout=PROBE)
    if result.ok:
        return Finding("direct egress", Verdict.OK, result.reason)
    by_host = prepared.sources.settings.exit4.kind is UpstreamKind.DIRECT
    return Finding(
        "direct egress",
        Verdict.WARNING if by_host else Verdict.NOTE,
        result.reason,
        "Look at this host's own network and its upstream firewall" if by_host else "",
    )


async def _resolver(prepared: Prepared, resolver: Address) -> Finding:
    """Asked as clients' questions go, by TCP: all that a probe knows of a resolver is its port."""
    name, intent = f"resolver {resolver}", prepared.intent
    if resolver in intent.resolvers or prepared.facts.is_local(resolver):
        result = await probe([TcpTarget(resolver, DNS)], timeout=PROBE)
        return _answered(name, result, "Start a resolver on this host that listens there")
    way = intent.exits[0 if resolver.version == 4 else 1]
    if not way.usable:
        return Finding(name, Verdict.NOTE, f"not asked: {_closed(way)}")
    if way.kind is ExitKind.GATEWAY:
        ports = intent.ports
        result = await probe(
            [TcpTarget(resolver, DNS)], timeout=PROBE, mark=MARK_GATEWAY, ports=ports
        )
    else:
        result = await probe([TcpTarget(resolver, DNS)], timeout=PROBE)
    return _answered(
        name, result, "Push another resolver (`dns =` in ocserv.conf), or open the way"
    )


def _closed(way: Exit) -> str:
    return f"the exit is closed: {way.closed}" if way.closed else "there is no default route"


def _answered(name: str, result: ProbeResult, remedy: str) -> Finding:
    if result.ok:
        return Finding(name, Verdict.OK, result.reason)
    return Finding(
        name, Verdict.WARNING, f"clients' look-ups get no answer: {result.reason}", remedy
    )
