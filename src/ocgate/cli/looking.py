"""`ocgate check` and `ocgate plan`: what would be, without changing anything."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ocgate.cli import terminal

if TYPE_CHECKING:
    from ocgate.server.check_and_plan import CheckReport

CONFIGURATION = 2

_DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def check() -> int:
    """Print problems, warnings and notices; 2 if there is a problem, warnings alone are 0."""
    from ocgate.server.check_and_plan import check as examine

    report = examine(os.environ)
    _list("error", report.problems, style="bold red")
    _list("warning", report.warnings, style="yellow")
    _list("notice", report.notices, style="cyan")
    if report.problems:
        return CONFIGURATION
    _release(report)
    warned = len(report.warnings) + sum(found.gravity.to_do for found in report.meanings)
    counted = f" ({warned} warning{'s' if warned > 1 else ''})" if warned else ""
    terminal.out().print(f"The configuration can be used{counted}.", style="green")
    return 0


def plan(*, as_json: bool, diff: bool) -> int:
    """Print the network state that `run` would apply, or how the kernel differs from it."""
    from ocgate.server.check_and_plan import plan_text

    report = plan_text(os.environ)
    if as_json:
        print(json.dumps(report.data, indent=2, ensure_ascii=False))
    elif diff:
        _print_diff(report.diff)
    else:
        print(report.text.rstrip("\n"))
    return 0


def _release(report: CheckReport) -> None:
    """One block about the ocserv at hand, the gravest first."""
    if report.meanings:
        terminal.err().print(f"ocserv {report.ocserv}, with this configuration:", style="bold")
    for found in report.meanings:
        kind, style = ("warning", "yellow") if found.gravity.to_do else ("notice", "cyan")
        _list(f"  {kind}", (found,), style=style)


def _list(kind: str, entries: Iterable[object], *, style: str) -> None:
    from rich.text import Text

    console = terminal.err()
    for entry in entries:
        console.print(Text(f"{kind}: ", style=style) + Text(str(entry)), soft_wrap=True)


def _print_diff(diff: str) -> None:
    console = terminal.out()
    if not diff.strip():
        console.print("The kernel holds exactly this plan.", style="green")
    for line in diff.splitlines():
        console.print(line, style=_DIFF_STYLES.get(line[:1], ""), soft_wrap=True)
