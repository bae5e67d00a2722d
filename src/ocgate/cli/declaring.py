"""What the declarations of commands share."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

SERVE, LOOK, USERS = "Serve", "Look", "Users"

Json = Annotated[bool, typer.Option("--json", "-j", help="Print JSON, for scripts.")]


def examples(*lines: str) -> str:
    """An epilog: one example a line, `command` or `command  # what it does`."""
    return "\n\n".join(["[bold]Examples[/bold]", *(f"  {line}" for line in lines)])


def end(code: int) -> NoReturn:
    """End the command with this exit status."""
    sys.stdout.flush()
    raise typer.Exit(code)
