"""ocgate.toml: the same settings as a file in the config dir. Pure: bytes in, values out.

Values end as text, so that the same words mean the same here and in the environment.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

from ocgate.config.environment import rename
from ocgate.config.origin import Found, Origin, Written, printable
from ocgate.config.table import BY_NAME, KNOWN, is_set
from ocgate.config.toml_lines import key_lines
from ocgate.errors import Problem

_AT_LINE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")

# TOML integers have 64 bits (TOML 1.0, Integer); tomllib takes longer ones.
_LARGEST = 1 << 63

_WORDS = {
    bool: "true or false",
    int: "an integer",
    float: "a decimal number",
    list: "a list of texts",
    str: "text in quotes",
}


def from_toml(data: bytes, source: str) -> Found:
    """The settings in ocgate.toml's content; all of its problems, or the one that ended parsing."""
    try:
        text = _decode(data, source)
        document = _parse(text, source)
    except _Unreadable as unreadable:
        return {}, [unreadable.problem]
    lines = key_lines(text)
    found: dict[str, Written] = {}
    problems: list[Problem] = []
    for key, value in document.items():
        origin = Origin(source, lines.get(key, 0))
        name = key.upper() if key.islower() else key
        problem = _name_problem(key, value, origin, found.get(name))
        text_or_problem = problem or _as_text(name, value, origin)
        if isinstance(text_or_problem, Problem):
            problems.append(text_or_problem)
        elif is_set(name, text_or_problem):
            found[name] = Written(text_or_problem, origin)
    return found, problems


def _name_problem(key: str, value: Any, origin: Origin, other: Written | None) -> Problem | None:
    """What is wrong with a key of ocgate.toml, whatever its value."""
    name = key.upper()
    shown = printable(key)
    if key not in (name, name.lower()) or name not in KNOWN:
        if isinstance(value, dict):
            expected = "a known name (ocgate.toml has no sections)"
            return origin.problem(shown, None, expected, "write NAME = VALUE lines only")
        return origin.problem(shown, None, "a known name", rename(key))
    line = BY_NAME.get(name)
    if line and line.setting.environment_only:
        remedy = "remove it here: this file lies in that directory"
        return origin.problem(name, None, "this in the environment only", remedy)
    if other:
        remedy = f"keep one of the lines {other.origin.line} and {origin.line}"
        return origin.problem(name, None, "each key once, in upper or in lower case", remedy)
    return None


def _as_text(name: str, value: Any, origin: Origin) -> str | Problem:
    """A TOML value as it would stand in the environment."""
    line = BY_NAME.get(name)
    if line:
        accepts, natives = line.setting.form.accepts, line.setting.form.natives
    else:
        accepts = "text in quotes"
        natives = () if name.endswith("_FILE") else (bool, int, list)
    if isinstance(value, str):
        return value
    if type(value) not in natives:
        got = None if line and line.setting.secret else _shown(value)
        kinds = " or ".join(_WORDS[kind] for kind in (*natives, str))
        return origin.problem(name, got, accepts, f"write it as {kinds}")
    if isinstance(value, list):
        return _list_as_text(name, value, origin, accepts)
    if isinstance(value, bool):
        return "true" if value else "false"
    if abs(value) >= _LARGEST:
        return origin.problem(name, None, accepts, "write a smaller number")
    return str(value)


def _list_as_text(name: str, value: list[Any], origin: Origin, accepts: str) -> str | Problem:
    wrong = [item for item in value if not isinstance(item, str)]
    if wrong:
        return origin.problem(name, _shown(wrong[0]), accepts, f"write {_WORDS[list]}")
    if not value:
        return origin.problem(name, "[]", accepts, "remove the key to get its default")
    return ", ".join(value)


def _shown(value: Any) -> str:
    """A TOML value that is refused; containers by their kind only."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= _LARGEST:
        return "a number of more than 64 bits"
    return str(value).lower() if isinstance(value, bool) else str(value)


class _Unreadable(Exception):
    """The document as a whole can't be used; carries the problem to report."""

    def __init__(self, source: str, line: int, key: str, expected: str, remedy: str) -> None:
        super().__init__(expected)
        self.problem = Problem(source, line, key, None, expected, remedy)


def _decode(data: bytes, source: str) -> str:
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        remedy = "save the file again without a mark"
        raise _Unreadable(source, 1, "encoding", "UTF-8 without byte order mark", remedy)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        remedy = "save the file again as UTF-8"
        raise _Unreadable(source, line, "encoding", "UTF-8", remedy) from None


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise _Unreadable(source, 0, "syntax", "TOML", "nest less deeply") from None
    except ValueError as error:  # TOMLDecodeError, or int() refusing thousands of digits
        raise _syntax(str(error), text, source) from None


def _syntax(words: str, text: str, source: str) -> _Unreadable:
    """tomllib's complaint with the line taken out of it."""
    rows = text.replace("\r\n", "\n").split("\n")
    at = _AT_LINE.search(words)
    line = int(at[1]) if at and at[1] else len(rows) if at else 0
    words = printable(_AT_LINE.sub("", words))
    key = rows[line - 1].partition("=")[0].strip() if 1 <= line <= len(rows) else ""
    if words.startswith("Cannot overwrite") and key:
        return _Unreadable(source, line, printable(key), "each key once", "remove one of its lines")
    return _Unreadable(source, line, "syntax", f"TOML ({words})", "correct the line")
