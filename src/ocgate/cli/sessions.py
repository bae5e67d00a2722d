"""`ocgate sessions`: live ones from the control plane, completed ones from the history's file.

Where a client's address is on the map is not asked: it would tell a third party who our users are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocgate.cli import terminal
from ocgate.cli.places import run_dir
from ocgate.cli.shown import duration, printable, size
from ocgate.errors import OcgateError
from ocgate.sessions.report import Asked, Live, Report, report

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA = 1


def sessions(*, user: str | None, day: datetime | None, last: int | None, as_json: bool) -> int:
    """Print the report. day: midnight at this machine, of sessions that lived on that day; last:
    so many of the completed ones."""
    from ocgate.server.history import file as history_file

    live, path, unanswered = _from_control()
    begin = day.astimezone() if day else None
    asked = Asked(user, begin, (day + timedelta(days=1)).astimezone() if day else None)
    now = datetime.now(UTC)
    try:
        found = report(live, history_file.records(path), asked, now)
    except OSError as error:
        raise OcgateError(
            f"reading {path}: {error.strerror or error}", hint="Are you root?"
        ) from None
    if as_json:
        print(json.dumps(_document(found, path, now, last), indent=2))
    else:
        _show(found, path, last)
    if unanswered:
        terminal.err().print(f"Live sessions are not known: {unanswered}", style="yellow")
    return 0


def _from_control() -> tuple[list[Live], Path, str]:
    """Live sessions, the history's file, and why control was not heard, ''. Raises OcgateError
    where nobody can tell the file."""
    from ocgate.runtime.control_client import ask

    try:
        status = json.loads(ask(run_dir(os.environ), "status"))
        now = datetime.fromisoformat(status["at"])
        return [_live(s, now) for s in status["sessions"]], Path(status["history"]["file"]), ""
    except OcgateError as error:
        return [], _file_by_settings(), error.message
    except (ValueError, KeyError, TypeError):
        return [], _file_by_settings(), "the control plane answered something else"


def _live(session: dict[str, Any], now: datetime) -> Live:
    known = {name: session[name] for name in Live.__dataclass_fields__ if name != "seconds"}
    age = (now - datetime.fromisoformat(session["since"])).total_seconds()
    return Live(**known, seconds=max(0, round(age)))


def _file_by_settings() -> Path:
    from ocgate.config import load
    from ocgate.names import HISTORY

    settings = load(os.environ).settings
    return settings.session_history_file or settings.run_dir / HISTORY


def _document(found: Report, path: Path, now: datetime, last: int | None) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "at": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "history_file": str(path),
        "live": [asdict(each) for each in found.live],
        "completed": [asdict(each) for each in found.completed[:last]],
        "totals": [asdict(each) for each in found.totals],
        "reconnecting": dict(found.reconnecting),
    }


def _show(found: Report, path: Path, last: int | None) -> None:
    console = terminal.out()
    console.print(_live_table(found))
    console.print(_completed_table(found, last))
    console.print(_totals_table(found))
    for user, count in found.reconnecting.items():
        console.print(
            f"{printable(user)}: {count} sessions of less than two minutes within the last hour; "
            "its client may be reconnecting in a loop",
            style="yellow",
            soft_wrap=True,
        )
    console.print(f"Completed sessions are kept in {path}", soft_wrap=True)


def _live_table(found: Report) -> Table:
    columns = ("User", "From", "Address", "Device", "Since", "For", "In", "Out")
    shown = _table(f"Live sessions: {len(found.live)}", columns)
    for each in sorted(found.live, key=lambda live: live.since):
        shown.add_row(
            printable(each.user),
            each.peer,
            _addresses(each.address4, each.address6),
            each.device,
            _local(each.since),
            duration(each.seconds),
            size(each.bytes_in),
            size(each.bytes_out),
        )
    return shown


def _completed_table(found: Report, last: int | None) -> Table:
    columns = ("User", "From", "Address", "Exit", "Since", "Until", "For", "In", "Out", "Ended")
    shown = _table(f"Completed sessions: {len(found.completed)}", columns)
    for each in found.completed[:last]:
        shown.add_row(
            printable(each.user),
            printable(each.peer),
            _addresses(each.address4, each.address6),
            each.exit,
            _local(each.since),
            _local(each.until),
            duration(each.seconds),
            _size(each.bytes_in),
            _size(each.bytes_out),
            each.reason,
        )
    return shown


def _totals_table(found: Report) -> Table:
    shown = _table("Totals", ("User", "Sessions", "For", "In", "Out"))
    for each in found.totals:
        shown.add_row(
            printable(each.user),
            f"{each.sessions}" + (f" ({each.unknown} uncounted)" if each.unknown else ""),
            duration(each.seconds),
            size(each.bytes_in),
            size(each.bytes_out),
        )
    return shown


def _table(title: str, columns: Sequence[str]) -> Table:
    return terminal.table(title, *columns, numbers=frozenset({"For", "In", "Out", "Sessions"}))


def _addresses(*addresses: str | None) -> str:
    return "\n".join(address for address in addresses if address)


def _size(count: int | None) -> str:
    return "?" if count is None else size(count)


def _local(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")
