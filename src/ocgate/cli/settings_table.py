"""The settings tables below `ocgate run --help` and `ocgate exit --help`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocgate.cli import terminal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocgate.config.table import Row


def show() -> None:
    """Print every setting with default and meaning, as the settings model declares it."""
    from ocgate.config import table_rows

    _show(
        table_rows(),
        "As environment variables, or in lower case in ocgate.toml (the environment wins). "
        "Secrets also as <NAME>_FILE.",
    )


def show_exit() -> None:
    """The same of the exit role."""
    from ocgate.config.exit_names import EXIT
    from ocgate.config.table import table_rows

    _show(table_rows(EXIT), "As environment variables. Secrets also as <NAME>_FILE.")


def _show(rows: Iterable[Row], where: str) -> None:
    shown = terminal.table("Settings", "Variable", "Default", "Meaning")
    shown.show_lines = False
    for row in rows:
        shown.add_row(row.name, row.default, f"{row.doc}\n{row.accepts}; such as {row.example}")
        shown.add_section()
    console = terminal.out()
    console.print(shown)
    console.print(where)
