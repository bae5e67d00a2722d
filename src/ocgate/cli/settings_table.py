"""The settings table below `ocgate run --help`."""

from __future__ import annotations

from ocgate.cli import terminal


def show() -> None:
    """Print every setting with default and meaning, as the settings model declares it."""
    from ocgate.config import table_rows

    shown = terminal.table("Settings", "Variable", "Default", "Meaning")
    shown.show_lines = False
    for row in table_rows():
        shown.add_row(row.name, row.default, f"{row.doc}\n{row.accepts}; such as {row.example}")
        shown.add_section()
    console = terminal.out()
    console.print(shown)
    console.print(
        "As environment variables, or in lower case in ocgate.toml (the environment wins). "
        "Secrets also as <NAME>_FILE."
    )
