"""What several faces print alike: the verdict, tables of facts and counters, sizes and times."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from ocgate.cli import terminal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ocgate.runtime.counters import BlockedStatus

# 1024 apart, as `ip -h` and docker print bytes.
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP = 1024
_DAY, _HOUR, _MINUTE = 86400, 3600, 60


def verdict(console: Console, reasons: Sequence[str], *, healthy: bool) -> None:
    """The first line of a status, and why it is no better."""
    said, style = ("healthy", "bold green") if healthy else ("NOT HEALTHY", "bold red")
    console.print(said, style=style)
    for reason in reasons:
        console.print(f"  {reason}", style="red", soft_wrap=True)


def facts(title: str, rows: Sequence[tuple[str, str]]) -> Table:
    """Names and values, a line each."""
    shown = terminal.table(title, "", "")
    shown.show_header = False
    for name, value in rows:
        shown.add_row(name, value)
    return shown


def blocked(counters: Sequence[BlockedStatus]) -> Table:
    """What was blocked, the most frequent first."""
    hit = [counter for counter in counters if counter["packets"]]
    columns = ("Reason", "Packets", "Bytes", "Which are")
    title = "Blocked" if hit else "Blocked: nothing yet"
    shown = terminal.table(title, *columns, numbers=frozenset({"Packets", "Bytes"}))
    for counter in sorted(hit, key=lambda found: -found["packets"]):
        packets, explanation = f"{counter['packets']:,}", counter["explanation"]
        shown.add_row(counter["reason"], packets, size(counter["bytes"]), explanation)
    return shown


def duration(seconds: float) -> str:
    """Two units at most: `3 d 4 h`, `12 min`, `5 s`."""
    whole = max(0, int(seconds))
    if whole >= _DAY:
        return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"
    if whole >= _HOUR:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _MINUTE} min" if whole >= _MINUTE else f"{whole} s"


def size(count: float) -> str:
    """Bytes for people: `512 B`, `1.5 MiB`."""
    for unit in _UNITS[:-1]:
        if count < _STEP:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _STEP
    return f"{count:.1f} {_UNITS[-1]}"


def local(moment: str | None) -> str:
    """An instant in this machine's time zone; `-` for none."""
    if moment is None:
        return "-"
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def printable(text: str) -> str:
    """A client's bytes without what would move a terminal's cursor."""
    return "".join(char if char.isprintable() else "�" for char in text)
