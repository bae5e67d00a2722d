"""`ocgate doctor`: all findings, those with something to do loudest."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from ocgate.cli import terminal
from ocgate.cli.places import run_dir

if TYPE_CHECKING:
    from ocgate.server.status.findings import Finding

_STYLES = {"ok": "green", "note": "cyan", "warning": "bold yellow", "error": "bold red"}


def doctor(*, as_json: bool) -> int:
    """Print them; 1 if anything is to be done."""
    from ocgate.server.doctor import examine

    found = examine(os.environ, run_dir(os.environ))
    to_do = sum(finding.to_do for finding in found)
    if as_json:
        document = {"schema": 1, "to_do": to_do, "findings": [asdict(each) for each in found]}
        print(json.dumps(document, indent=2, ensure_ascii=True))
    else:
        for finding in found:
            _show(finding)
        words = f"{to_do} things to do" if to_do > 1 else "one thing to do"
        terminal.out().print(words if to_do else "All is well.", style="bold")
    return 1 if to_do else 0


def _show(finding: Finding) -> None:
    from rich.text import Text

    console = terminal.out()
    style = _STYLES[finding.verdict.value]
    line = Text(f"{finding.verdict.value:8}", style=style) + Text(
        f"{finding.check}: {finding.says}"
    )
    console.print(line, soft_wrap=True)
    if finding.remedy:
        console.print(f"        {finding.remedy}", style="italic", soft_wrap=True)
