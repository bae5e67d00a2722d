"""`ocgate status`: the control plane's status document, as tables or as it is."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from ocgate.cli import terminal
from ocgate.cli.places import run_dir
from ocgate.cli.shown import blocked, duration, facts, local, printable, size, verdict
from ocgate.errors import OcgateError

if TYPE_CHECKING:
    from rich.table import Table

    from ocgate.exit_node.status_schema import ExitRoleStatus
    from ocgate.server.status.schema import (
        CertificateStatus,
        ExitStatus,
        ReachedStatus,
        SessionStatus,
        Status,
    )

# A state that clients suffer from must not look like the others.
_STATES = {"down": "DOWN", "block": "blocked"}


def status(*, as_json: bool) -> int:
    """Print it; 1 if the server is not healthy."""
    from ocgate.runtime.control_client import ask

    answer = ask(run_dir(os.environ), "status")
    found = _document(answer)
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    elif found.get("role") == "exit":
        from ocgate.cli import exit_status

        exit_status.show(cast("ExitRoleStatus", found))
    else:
        show(cast("Status", found))
    return 0 if found["healthy"] else 1


def show(found: Status) -> None:
    """Server, network, sessions and what was blocked, on stdout."""
    console = terminal.out()
    verdict(console, found["reasons"], healthy=found["healthy"])
    now = datetime.fromisoformat(found["at"])
    for shown in (
        facts("Server", _server_rows(found)),
        facts("Network", _network_rows(found)),
        *([_exits(found["exits"], now)] if found["exits"] else []),
        *([_networks(found["networks"])] if found.get("networks") else []),
        _sessions(found["sessions"], now),
        blocked(found["blocked"]),
    ):
        console.print(shown)


def _document(answer: bytes) -> dict[str, Any]:
    """Of whichever role answers; both have `schema` and `healthy`."""
    from ocgate.server.status.schema import SCHEMA

    try:
        found: dict[str, Any] = json.loads(answer)
    except ValueError:
        words = answer[:200].decode(errors="replace").strip() or "nothing"
        raise OcgateError(f"the control plane answered {words!r}") from None
    if found.get("schema") != SCHEMA:
        raise OcgateError(
            f"the control plane speaks schema {found.get('schema')!r}, this ocgate {SCHEMA}",
            hint="Restart `ocgate run`: it is of another version than this command",
        )
    return found


def _server_rows(found: Status) -> list[tuple[str, str]]:
    server = found["server"]
    return [
        ("ocgate", f"{server['version']}, since {local(server['since'])}"),
        (
            "ocserv",
            f"{server['ocserv_version']}, since {local(server['ocserv_since'])}".lstrip(", "),
        ),
        ("Listening", ", ".join(server["listening"]) or "no"),
        ("URL", server["url"] or "not set (OCGATE_URL)"),
        ("Config dir", server["config_dir"]),
        ("Run dir", server["run_dir"]),
        *((f"Certificate {each['vhost']}", _certificate(each)) for each in found["certificates"]),
        *_troubles(found),
    ]


def _certificate(found: CertificateStatus) -> str:
    names = ", ".join(found["names"]) or found["file"]
    return f"{names}, until {local(found['not_after'])}"


def _troubles(found: Status) -> list[tuple[str, str]]:
    told = [
        ("NEW CERTIFICATE NOT USED", found["certificate_trouble"]),
        ("HISTORY NOT WRITTEN", found["history"]["trouble"]),
    ]
    return [(name, why) for name, why in told if why]


def _network_rows(found: Status) -> list[tuple[str, str]]:
    network = found["network"]
    families = [("IPv4", network["forwarding4"]), ("IPv6", network["forwarding6"])]
    repairs = f", repaired {network['repairs']} times" if network["repairs"] else ""
    return [
        ("WAN interface", network["wan_if"] or "none (no default route)"),
        ("Tunnels", network["vpn_if"]),
        ("Client subnets", ", ".join([*network["subnets4"], *network["subnets6"]])),
        ("IPv6", f"{network['ipv6_mode']}: {network['ipv6_reason']}"),
        ("Forwarding", ", ".join(f"{name} {'on' if on else 'off'}" for name, on in families)),
        ("Flows", _flows(found)),
        ("Guard", ("in place" if network["guard"] else "NOT IN PLACE") + repairs),
    ]


def _flows(found: Status) -> str:
    flows, limited = found["flows"], [s["user"] for s in found["sessions"] if s["limited"]]
    most = f" of {flows['most']}" if flows["most"] else ""
    limit = f", at most {flows['per_session']} a session" if flows["per_session"] else ""
    refused = f"; REFUSED lately: {', '.join(map(printable, limited))}" if limited else ""
    return f"{flows['entries']}{most}{limit}{refused}"


def _exits(exits: Sequence[ExitStatus], now: datetime) -> Table:
    columns = ("Exit", "Gateway", "Address", "State", "For", "RTT", "Why")
    shown = terminal.table("Exits", *columns, numbers=frozenset({"For", "RTT"}))
    for found in exits:
        place = found["address"] if found["address"] != found["gateway"] else None
        device = f"on {found['device']}" if found["device"] else ""
        since, rtt = found["since"], found["rtt"]
        shown.add_row(
            f"{found['exit']} IPv{found['family']}",
            found["gateway"],
            " ".join(part for part in (place, device) if part),
            _STATES.get(found["state"], found["state"]),
            duration((now - datetime.fromisoformat(since)).total_seconds()) if since else "",
            "" if rtt is None else f"{rtt * 1000:.1f} ms",
            found["why"],
        )
    return shown


def _networks(networks: Sequence[ReachedStatus]) -> Table:
    columns = ("Network", "By", "State", "Packets", "Bytes", "Why")
    numbers = frozenset({"Packets", "Bytes"})
    shown = terminal.table("Networks", *columns, numbers=numbers)
    for found in networks:
        shown.add_row(
            found["network"],
            found["device"] + (f" via {found['via']}" if found["via"] else ""),
            _STATES.get(found["state"], found["state"]),
            str(found["packets"]),
            size(found["bytes"]),
            found["why"],
        )
    return shown


def _sessions(sessions: Sequence[SessionStatus], now: datetime) -> Table:
    columns = ("User", "Address", "Device", "From", "For", "In", "Out")
    numbers = frozenset({"For", "In", "Out"})
    shown = terminal.table(f"Sessions: {len(sessions)}", *columns, numbers=numbers)
    for session in sorted(sessions, key=lambda found: found["since"]):
        addresses = [found for found in (session["address4"], session["address6"]) if found]
        age = (now - datetime.fromisoformat(session["since"])).total_seconds()
        shown.add_row(
            printable(session["user"]),
            "\n".join(addresses),
            session["device"],
            session["peer"],
            duration(age),
            size(session["bytes_in"]),
            size(session["bytes_out"]),
        )
    return shown
