"""Values as the operator wrote them, with their places. Pure.

Later checks name the place of a setting by its `Origin`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ocgate.errors import Problem

ENVIRONMENT = "environment"


@dataclass(frozen=True)
class Origin:
    """Where a value was written: a file and its 1-based line, or the environment and 0."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source

    def problem(self, key: str, got: str | None, expected: str, remedy: str) -> Problem:
        """A problem at this place."""
        return Problem(self.source, self.line, key, got, expected, remedy)


@dataclass(frozen=True)
class Written:
    """A value as text, and its place. Never shown as a whole: it may be a secret."""

    text: str
    origin: Origin

    def __repr__(self) -> str:
        return f"Written(at {self.origin})"


# What one source holds by name, and what is wrong in it.
Found = tuple[dict[str, Written], list[Problem]]


def printable(text: str) -> str:
    """Text that any terminal and log takes: control characters and lone surrogates escaped."""
    return text if text.isprintable() else repr(text)[1:-1]
