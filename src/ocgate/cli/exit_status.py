"""`ocgate status` of an exit, as tables."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from ocgate.cli import terminal
from ocgate.cli.shown import blocked, duration, facts, local, printable, size, verdict

if TYPE_CHECKING:
    from ocgate.exit_node.status_schema import ExitRoleStatus

# What clients suffer from must not look like the others.
_STATES = {"degraded": "DEGRADED: nothing comes back through it", "waiting": "DOWN, waiting"}


def show(found: ExitRoleStatus) -> None:
    """Tunnel, kill switch and what was blocked, on stdout."""
    console = terminal.out()
    verdict(console, found["reasons"], healthy=found["healthy"])
    for shown in (
        facts("Tunnel", _tunnel_rows(found)),
        facts("Kill switch", _switch_rows(found)),
        blocked(found["blocked"]),
    ):
        console.print(shown)


def _tunnel_rows(found: ExitRoleStatus) -> list[tuple[str, str]]:
    tunnel, probe = found["tunnel"], found["probe"]
    now = datetime.fromisoformat(found["at"])
    age = (now - datetime.fromisoformat(tunnel["since"])).total_seconds()
    state = _STATES.get(tunnel["state"], tunnel["state"])
    rtt = "" if probe["rtt"] is None else f" ({probe['rtt'] * 1000:.1f} ms)"
    rows = [
        ("Kind", f"{tunnel['kind']}, by {tunnel['device']}"),
        ("State", f"{state}, for {duration(age)}"),
        ("Server", f"{tunnel['server'] or 'not listed yet'} (one of {tunnel['servers']})"),
        ("Endpoint", tunnel["endpoint"] or "none: closed"),
        ("Addresses", ", ".join(tunnel["addresses"]) or "none"),
        ("MTU", "" if tunnel["mtu"] is None else str(tunnel["mtu"])),
        ("Resolvers", ", ".join(tunnel["resolvers"]) or "none"),
        *(("Not taken", printable(said)) for said in tunnel["refused"]),
        ("IPv6", "carried" if tunnel["ipv6"] else "rejected: the tunnel does not carry it"),
        ("Probe", f"{probe['state']}: {probe['why']}{rtt}"),
        ("Attempts", f"{tunnel['attempts']}, of the last {tunnel['failures']} failed"),
        ("Traffic", f"{size(tunnel['bytes_in'])} in, {size(tunnel['bytes_out'])} out"),
    ]
    if tunnel["last_failure"]:
        rows.append(("Last failure", tunnel["last_failure"]))
    if tunnel["next_attempt"]:
        rows.append(("Next attempt", local(tunnel["next_attempt"])))
    return rows


def _switch_rows(found: ExitRoleStatus) -> list[tuple[str, str]]:
    switch = found["switch"]
    repairs = f", repaired {switch['repairs']} times" if switch["repairs"] else ""
    return [
        ("ocgate", f"{found['version']}, since {local(found['since'])}"),
        ("State", ("in place" if switch["intact"] else "NOT IN PLACE") + repairs),
        ("Uplink", ", ".join(switch["uplinks"]) or "none (no default route)"),
        ("Forward from", ", ".join(switch["forward_from"]) or "nobody (FORWARD_FROM)"),
        ("Direct", ", ".join(switch["networks"]) or "nothing (NETWORK)"),
        ("DNS", switch["dns"]),
        ("Forwarding", "on" if switch["forwarding4"] else "off"),
        ("Run dir", found["run_dir"]),
    ]
