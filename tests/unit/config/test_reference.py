"""The settings table as people see it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ocgate.config import Settings, table_rows
from ocgate.config.page import reference_markdown

PAGE = Path(__file__).parents[3] / "docs" / "reference.md"


def test_committed_page_is_the_generated_one() -> None:
    """docs/reference.md follows the table; `python -m ocgate.config.reference` writes it anew."""
    assert PAGE.read_text() == reference_markdown()


def test_module_prints_the_page() -> None:
    """The command that the page names prints exactly the page, and no warning."""
    done = subprocess.run(
        [sys.executable, "-m", "ocgate.config.reference"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.stdout, done.stderr) == (reference_markdown(), "")


def test_every_setting_is_told_whole() -> None:
    """Each attribute of the model has one row, and no cell of it is empty."""
    rows = table_rows()
    assert len(rows) == len(Settings.model_fields) == len({row.name for row in rows})
    assert all(all(row) for row in rows)
    assert all(row.doc.endswith(".") for row in rows)


def test_attributes_are_the_names() -> None:
    """An attribute is its variable in lower case, less our own prefix."""
    names = {row.name.removeprefix("OCGATE_").lower() for row in table_rows()}
    assert names == set(Settings.model_fields)
