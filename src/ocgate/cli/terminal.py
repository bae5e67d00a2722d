"""Where commands print: colours and wrapping for a terminal, plain whole lines for a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# A pipe has no width; rich would take 80 columns and fold what a script reads line by line.
_PIPE_WIDTH = 10_000


def out() -> Console:
    """The console for results, on stdout. Markup is off: names and addresses are data."""
    return _console(stderr=False)


def err() -> Console:
    """The console for warnings, on stderr."""
    return _console(stderr=True)


def table(title: str, *columns: str, numbers: frozenset[str] = frozenset()) -> Table:
    """An empty table with these columns; those in `numbers` stand to the right."""
    from rich import box
    from rich.table import Table

    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for column in columns:
        justify = "right" if column in numbers else "left"
        made.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    return made


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(stderr=stderr, width=width, markup=False, highlight=False, emoji=False)
