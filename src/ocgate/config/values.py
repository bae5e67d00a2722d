"""How one value may be written: the `Form` of a setting, and the forms of plain values.

Pure; rooms outside of config have no need of it. A form turns the operator's text into a value or
raises `Rejected`, which says for every fault what was found, what is accepted and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any

TRUE_WORDS = ("1", "true", "yes", "on")
FALSE_WORDS = ("0", "false", "no", "off")
NOTHING = "off"  # a list that is meant to be empty: "" would be unset, and that has a default

_SEPARATORS = re.compile(r"[\s,]+")
_DECIMAL = re.compile(r"[0-9]+")

_FRACTION = re.compile(r"[0-9]+(?:\.[0-9]+)?")

# Ten digits hold every 32-bit number; int() refuses over 4,300 in its own words.
_MOST_DIGITS = 10

# A float has at most 17 significant digits, behind "0." and the zeros of small ones.
_LONGEST_FRACTION = 24


@dataclass(frozen=True)
class Fault:
    """One thing wrong in a value: the fields of `errors.Problem` without the place."""

    got: str | None
    expected: str
    remedy: str


class Rejected(ValueError):
    """A value can't be used; `faults` holds every reason, at least one."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("; ".join(f"expected {fault.expected}" for fault in faults))
        self.faults = faults


def reject(got: str | None, expected: str, remedy: str) -> Rejected:
    """One fault as an exception, ready to be raised."""
    return Rejected(Fault(got, expected, remedy))


@dataclass(frozen=True)
class Form:
    """What a value looks like.

    kind:     the word for it in `--help` and the reference page.
    accepts:  the range, as errors name it after "expected".
    parse:    text without surrounding space -> value; raises `Rejected`.
    natives:  TOML types that ocgate.toml may use beside a string.
    verbatim: surrounding space belongs to the value (passwords).
    """

    kind: str
    accepts: str
    parse: Callable[[str], Any]
    natives: tuple[type, ...] = ()
    verbatim: bool = False

    def read(self, value: object) -> object:
        """Text is parsed; a value that is typed already (code, tests) is left to pydantic."""
        if not isinstance(value, str):
            return value
        return self.parse(value if self.verbatim else value.strip())


def written(value: object) -> str:
    """A value as the operator would write it; "" for None. `form.parse(written(v)) == v`."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if type(value) is tuple:  # a NamedTuple knows its own text
        return ", ".join(written(item) for item in value) or NOTHING
    return str(value)


def items(text: str) -> list[str]:
    """The parts of a list separated by commas, spaces or both, in their order."""
    return [part for part in _SEPARATORS.split(text) if part]


def boolean() -> Form:
    """Yes or no, in the words that compose files use, in any case."""
    accepts = "0 or 1 (also false/true, no/yes, off/on)"

    def parse(text: str) -> bool:
        word = text.lower()
        if word in TRUE_WORDS:
            return True
        if word in FALSE_WORDS:
            return False
        raise reject(text, accepts, "write 0 or 1")

    return Form("boolean", accepts, parse, natives=(bool, int))


def integer(low: int, high: int, unit: str, *, outside: str) -> Form:
    """A decimal whole number from `low` to `high`; `outside` is the remedy for all else."""
    accepts = f"a whole number from {low} to {high} ({unit})"

    def parse(text: str) -> int:
        plain = _DECIMAL.fullmatch(text) is not None and len(text) <= _MOST_DIGITS
        if not plain or not low <= int(text) <= high:
            raise reject(text, accepts, outside)
        return int(text)

    return Form("integer", accepts, parse, natives=(int,))


def decimal(low: float, high: float, unit: str, *, outside: str) -> Form:
    """A number from `low` to `high` with or without decimal places; `outside` is the remedy."""
    accepts = f"a number from {low:g} to {high:g} ({unit})"

    def parse(text: str) -> float:
        plain = _FRACTION.fullmatch(text) is not None and len(text) <= _LONGEST_FRACTION
        if not plain or not low <= float(text) <= high:
            raise reject(text, accepts, outside)
        return float(text)

    return Form("number", accepts, parse, natives=(int, float))


def choice(members: type[StrEnum], *, also: dict[str, str] | None = None) -> Form:
    """One of an enum's values, in any case; `also` maps other accepted words to values."""
    words = [member.value for member in members]
    accepts = f"{', '.join(words[:-1])} or {words[-1]}"
    synonyms = also or {}

    def parse(text: str) -> StrEnum:
        word = text.lower()
        try:
            return members(synonyms.get(word, word))
        except ValueError:
            raise reject(text, accepts, f"write {accepts}") from None

    return Form("choice", accepts, parse, natives=(bool, int) if also else ())
