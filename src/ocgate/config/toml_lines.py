"""On which line each top-level key of a TOML document stands; tomllib does not tell. Pure.

The document has been parsed by tomllib before, so this scanner takes it for valid and only has to
know where strings, comments, arrays and inline tables end.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

# A multi-line string may end in up to two quotes of its own before the three that close it.
_TOKEN = re.compile(
    r'''
      """(?:\\.|[^\\])*?"{3,5}
    | \'\'\'.*?\'{3,5}
    | "(?:\\.|[^"\\\n])*"
    | '[^'\n]*'
    | \#[^\n]*
    | [ \t]+
    | .
    ''',
    re.DOTALL | re.VERBOSE,
)


def key_lines(text: str) -> dict[str, int]:
    """Top-level key -> 1-based line of its first appearance; the keys of `tomllib.loads(text)`."""
    lines: dict[str, int] = {}
    in_table = False
    for line, head in _heads(text.replace("\r\n", "\n")):
        if head.startswith("["):
            in_table = True
            document = tomllib.loads(head)
        elif in_table:
            continue
        else:
            document = tomllib.loads(f"{head}=0")
        lines.setdefault(next(iter(document)), line)
    return lines


def _heads(text: str) -> Iterator[tuple[int, str]]:
    """Line and text of each statement up to its `=`: keys as written, or a whole table header."""
    line, depth = 1, 0
    start = end = start_line = -1
    in_head = True
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token == "\n" and depth == 0:
            if start >= 0:
                yield start_line, text[start:end]
            start, in_head = -1, True
        elif not token.isspace() and not token.startswith("#"):
            if start < 0:
                start, start_line = match.start(), line
            in_head = in_head and token != "="
            end = match.end() if in_head else end
            depth += (token in ("[", "{")) - (token in ("]", "}"))
        line += token.count("\n")
    if start >= 0:
        yield start_line, text[start:end]
