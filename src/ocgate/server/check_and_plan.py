"""`ocgate check` and `ocgate plan`: what `run` would say and do, without doing it."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocgate import own_files
from ocgate.errors import ConfigurationError, OcgateError, Problem
from ocgate.kernel import intruders, neighbours, null_device, routes, sysctl
from ocgate.kernel.apply import unwanted
from ocgate.kernel.nft import Nft
from ocgate.names import NFT_FAMILY
from ocgate.ocserv import initialise
from ocgate.ocserv.dryrun import dry_run
from ocgate.ocserv.release_report import Meaning
from ocgate.ocserv.releases import shown
from ocgate.ocserv.warnings import ServerWarning
from ocgate.plan import nft as nft_text
from ocgate.plan.model import Plan
from ocgate.plan.planner import FLAG_TCP_SYN
from ocgate.plan.routing import render
from ocgate.runtime import run_dir
from ocgate.server.desired.prepare import Prepared
from ocgate.server.desired.sources import OCSERV_CONF, Sources, loaded, read
from ocgate.server.prepare_now import prepared_now, warned
from ocgate.server.reconcile.effective_conf import rendered


@dataclass(frozen=True)
class CheckReport:
    """problems: `run` would refuse. warnings: it works but is unlikely to be meant. notices:
    settings without effect, what becomes of IPv6 and why. ocserv: its release, '' where it was not
    asked. meanings: what that means for this configuration, the gravest first."""

    problems: tuple[Problem, ...] = ()
    warnings: tuple[ServerWarning, ...] = ()
    notices: tuple[str, ...] = ()
    ocserv: str = ""
    meanings: tuple[Meaning, ...] = ()


@dataclass(frozen=True)
class PlanReport:
    """text: nft, ip and sysctl commands' text. diff: how the kernel differs, '' if it doesn't.
    data: the same for scripts."""

    text: str
    diff: str
    data: dict[str, Any]


def check(environ: Mapping[str, str]) -> CheckReport:
    """Everything that `run` would check, and its warnings; changes nothing."""
    try:
        settled = loaded(environ)
        verdict = initialise.needed(settled.settings.config_dir)
        if verdict.to_be_initialised:
            said = f"{verdict.reasons[0]}: `ocgate run` will initialise it"
            full = _no_room(settled.settings.config_dir, "a first start makes nothing")
            return CheckReport(warnings=full, notices=(*settled.notices, said))
        if verdict.problems:
            return CheckReport(problems=verdict.problems)
        run_dir.require(settled.settings.run_dir, settled.origin(run_dir.KEY))
        sources = read(settled)
        prepared = prepared_now(sources)
        _ask_ocserv(prepared)
    except ConfigurationError as error:
        return CheckReport(problems=error.problems)
    ipv6 = f"IPv6: {prepared.decision.word}: {prepared.decision.why}"
    full = _no_room(settled.settings.run_dir, "a start is refused, and so are new sessions")
    return CheckReport(
        warnings=(*full, *warned(prepared)),
        notices=(*settled.notices, ipv6),
        ocserv=shown(sources.release),
        meanings=sources.meanings,
    )


def _no_room(directory: Path, what: str) -> tuple[ServerWarning, ...]:
    """Whether something can be written there, as root would; leaves nothing."""
    why = own_files.room(directory) if os.geteuid() == 0 and directory.is_dir() else ""
    text = f"nothing can be written in {directory} ({why}): {what}"
    return (ServerWarning("no-space", text, "Free some space there"),) if why else ()


def plan_text(environ: Mapping[str, str]) -> PlanReport:
    """The plan for this configuration and machine, and the kernel's difference from it."""
    prepared = prepared_now(_sources(environ))
    plan = prepared.plan
    text = _shown(plan)
    data = {
        "schema": 1,
        "ipv6": {"mode": prepared.decision.word, "reason": prepared.decision.why},
        "tables": [nft_text.listing(table) for table in plan.tables],
        "routes": [str(route) for route in plan.routes],
        "rules": [str(rule) for rule in plan.rules],
        "neighbours": [str(one) for one in plan.neighbours],
        "sysctls": [str(sysctl) for sysctl in plan.sysctls],
        "ocserv_conf": rendered(prepared, prepared.sources.settings.run_dir).data.decode(
            "utf-8", "replace"
        ),
    }
    return PlanReport(text, difference(plan), data)


def _sources(environ: Mapping[str, str]) -> Sources:
    settled = loaded(environ)
    if initialise.needed(settled.settings.config_dir).to_be_initialised:
        raise OcgateError(
            f"{settled.settings.config_dir / OCSERV_CONF} is not there yet",
            hint="`ocgate init` makes it",
        )
    return read(settled)


def _ask_ocserv(prepared: Prepared) -> None:
    """`ocserv -t` on what it would be given."""
    with tempfile.TemporaryDirectory(prefix="ocgate-check-") as directory:
        effective = rendered(prepared, prepared.sources.settings.run_dir, keys=None)
        path = Path(directory) / OCSERV_CONF
        path.write_bytes(effective.data)
        dry_run(path, effective, base=prepared.sources.settings.config_dir)


def _shown(plan: Plan) -> str:
    parts = [nft_text.listing(table) for table in plan.tables]
    for name in plan.devices:
        parts.append(f"ip tuntap add {name} mode tun\nip link set {name} up\n")
    parts.append(render((*plan.routes, *plan.rules)))
    parts += ["".join(f"{item}\n" for item in group) for group in (plan.neighbours, plan.sysctls)]
    return "\n".join(part for part in parts if part)


def difference(plan: Plan) -> str:
    """What applying would change, as lines of a diff."""
    nft, lines = Nft(), list[str]()
    for table in plan.tables:
        at = f"{NFT_FAMILY} {table.name}"
        held = _rules(_listed(nft, at)) if nft.exists("table", at) else []
        wanted = _rules(nft_text.listing(table))
        marks = difflib.unified_diff(held, wanted, "kernel", "plan", lineterm="", n=0)
        lines += [line for line in marks if not line.startswith(("---", "+++", "@@"))]
    lines += [f"-table {name}" for name in unwanted(nft, plan)]
    differing = routes.differing(plan.routes, plan.rules, tables=plan.routing_tables)
    differing += neighbours.differing(plan.neighbours)
    differing += intruders.differing(plan.clients) if plan.clients is not None else []
    lines += [f"+{what}" for what in (*null_device.missing(plan.devices), *differing)]
    lines += [f"+{what}" for what in sysctl.differing(plan.sysctls)]
    return "\n".join(lines)


def _listed(nft: Nft, at: str) -> str:
    """Without elements: those of the sets that the kernel fills have no end."""
    return nft.list_text(f"list table {at}", terse=True)


def _rules(listing: str) -> list[str]:
    """`chain: rule` of every rule in a listing, in a spelling that nft and we share: it lists
    masked keys without the parentheses that it demands when it reads them, and from 1.1 on TCP
    flags as the comparison that they are."""
    found, chain = [], ""
    for line in listing.splitlines():
        words = line.strip()
        if words.startswith("chain "):
            chain = words.split()[1]
        elif " comment " in words:
            plain = words.replace("(", "").replace(")", "")
            found.append(f"{chain}: {plain.replace('tcp flags & syn | rst == syn', FLAG_TCP_SYN)}")
    return found
