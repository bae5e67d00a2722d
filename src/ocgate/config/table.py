"""The settings table, read from the model: what `--help`, the reference page and loading share.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ocgate.config.model import Settings
from ocgate.config.setting import Setting
from ocgate.config.unserved import UNSERVED
from ocgate.config.values import written


@dataclass(frozen=True)
class Line:
    """One setting: the model's attribute, what is known of it, and its default as text."""

    field: str
    setting: Setting
    default: str


class Row(NamedTuple):
    """One setting as words, for a table with these columns."""

    name: str
    type: str
    default: str
    accepts: str
    doc: str
    example: str


def _lines() -> tuple[Line, ...]:
    lines = []
    for field, info in Settings.model_fields.items():
        (setting,) = (extra for extra in info.metadata if isinstance(extra, Setting))
        lines.append(Line(field, setting, written(info.default)))
    return tuple(lines)


LINES = _lines()
BY_NAME = {line.setting.name: line for line in LINES}
BY_FIELD = {line.field: line for line in LINES}
SECRETS = tuple(line for line in LINES if line.setting.secret)

# All names that may be written, `_FILE` variants of secrets and unserved ones included.
KNOWN = frozenset(BY_NAME) | {f"{line.setting.name}_FILE" for line in SECRETS} | frozenset(UNSERVED)


def table_rows() -> tuple[Row, ...]:
    """The table in the order of the model, for people."""
    return tuple(
        Row(
            line.setting.name,
            line.setting.form.kind,
            line.default or f"unset: {line.setting.unset}",
            line.setting.form.accepts,
            line.setting.doc,
            line.setting.example,
        )
        for line in LINES
    )


def is_set(name: str, text: str) -> bool:
    """Whether this text is a value at all: blank ones are unset, but for secrets."""
    line = BY_NAME.get(name)
    return bool(text if line and line.setting.form.verbatim else text.strip())
