"""The settings tables, read from the models: what `--help`, the reference page and loading share.

Pure. Each role has one: `SERVER` here, `EXIT` in `exit_names`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel

from ocgate.config.model import Settings
from ocgate.config.setting import Setting
from ocgate.config.unserved import UNSERVED
from ocgate.config.values import written

Model = TypeVar("Model", bound=BaseModel)


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


@dataclass(frozen=True)
class Table(Generic[Model]):
    """The settings of one role.

    model:     what validates them.
    lines:     in the model's order.
    unserved:  names that are known beside them, with a notice or a refusal.
    """

    model: type[Model]
    lines: tuple[Line, ...]
    unserved: frozenset[str]

    @cached_property
    def by_name(self) -> dict[str, Line]:
        """The lines by the variable's name."""
        return {line.setting.name: line for line in self.lines}

    @cached_property
    def by_field(self) -> dict[str, Line]:
        """The lines by the model's attribute."""
        return {line.field: line for line in self.lines}

    @cached_property
    def secrets(self) -> tuple[Line, ...]:
        """The lines that also have a `_FILE` variant."""
        return tuple(line for line in self.lines if line.setting.secret)

    @cached_property
    def known(self) -> frozenset[str]:
        """All names that may be written, `_FILE` variants and unserved ones included."""
        files = {f"{line.setting.name}_FILE" for line in self.secrets}
        return frozenset(self.by_name) | files | self.unserved

    def is_set(self, name: str, text: str) -> bool:
        """Whether this text is a value at all: blank ones are unset, but for secrets."""
        line = self.by_name.get(name)
        return bool(text if line and line.setting.form.verbatim else text.strip())


def table_of(model: type[Model], unserved: Iterable[str]) -> Table[Model]:
    """The table that the model's annotations make."""
    lines = []
    for field, info in model.model_fields.items():
        (setting,) = (extra for extra in info.metadata if isinstance(extra, Setting))
        lines.append(Line(field, setting, written(info.default)))
    return Table(model, tuple(lines), frozenset(unserved))


SERVER = table_of(Settings, UNSERVED)
LINES = SERVER.lines
BY_NAME = SERVER.by_name
SECRETS = SERVER.secrets
KNOWN = SERVER.known


def table_rows(table: Table[Any] = SERVER) -> tuple[Row, ...]:
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
        for line in table.lines
    )


def is_set(name: str, text: str) -> bool:
    """As `SERVER.is_set`."""
    return SERVER.is_set(name, text)
