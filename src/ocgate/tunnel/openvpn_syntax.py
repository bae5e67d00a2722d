"""The syntax of OpenVPN's configuration files: text <-> directives with their lines. Pure.

As parse_line and check_inline_file of OpenVPN 2.6 (options.c) have it: words separated by blanks,
quotes of either kind, backslash, comments by `#` and `;` at the start of a word, `<tag>` blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ocgate.errors import Problem

# OPTION_LINE_SIZE and MAX_PARMS of options.h, less newline, NUL and the name. OpenVPN reads what is
# longer as several lines, which would then mean something else than they do here.
LONGEST_LINE = 254
MOST_WORDS = 15

# A file with certificates, keys and 64 servers has some 20 KB.
LARGEST_FILE = 1 << 18

_BLANKS = " \t"
_COMMENTS = "#;"


@dataclass(frozen=True)
class Directive:
    """One line, or one block with its tag as name.

    line:  1-based, of the block's first line.
    name:  without leading dashes.
    words: what follows the name.
    body:  a block's lines as they stand, None for a line. May be a key: never shown.
    """

    line: int
    name: str
    words: tuple[str, ...] = field(repr=False)
    body: str | None = field(default=None, repr=False)


@dataclass
class _Reader:
    source: str
    problems: list[Problem]

    def problem(self, line: int, key: str, expected: str, remedy: str) -> None:
        self.problems.append(Problem(self.source, line, key, None, expected, remedy))


def directives(text: str, source: str) -> tuple[list[Directive], list[Problem]]:
    """The file's directives in their order, and what is wrong in its syntax."""
    reader = _Reader(source, [])
    if len(text) > LARGEST_FILE:
        reader.problem(0, "size", f"at most {LARGEST_FILE} characters", "name a client's file")
        return [], reader.problems
    lines = enumerate(text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n"), 1)
    found = []
    for number, line in lines:
        tag = _opening(line)
        if tag is not None:
            body = _body(tag, number, lines, reader)
            found += [] if body is None else [Directive(number, tag, (), body)]
            continue
        words = _words(line, number, reader)
        if words:
            name = words[0][2:] if words[0].startswith("--") else words[0]
            found.append(Directive(number, name, tuple(words[1:])))
    return found, reader.problems


def connection_lines(block: Directive, source: str) -> tuple[list[Directive], list[Problem]]:
    """The directives within a `<connection>` block, with the file's line numbers."""
    inner, problems = directives(block.body or "", source)
    moved = [Directive(each.line + block.line, each.name, each.words, each.body) for each in inner]
    return moved, [
        Problem(p.source, p.line + block.line, p.key, p.got, p.expected, p.remedy) for p in problems
    ]


def rendered(name: str, words: tuple[str, ...]) -> str:
    """One line that `directives` reads back as these words."""
    return " ".join([name, *(_quoted(word) for word in words)])


def block(name: str, body: str) -> str:
    """An inline block, ending in a newline."""
    return f"<{name}>\n{body.rstrip()}\n</{name}>\n"


def _opening(line: str) -> str | None:
    """The tag of a line that is nothing but `<tag>`; one with control characters is no tag, and
    refused as any such line."""
    stripped = line.strip(_BLANKS)
    if not stripped.isprintable():
        return None
    if stripped.startswith("<") and stripped.endswith(">") and not stripped.startswith("</"):
        return stripped[1:-1]
    return None


def _body(tag: str, start: int, lines: Iterator[tuple[int, str]], reader: _Reader) -> str | None:
    """Up to the closing tag; None where there is none."""
    body: list[str] = []
    for _, line in lines:
        if line.strip(_BLANKS).startswith(f"</{tag}>"):
            return "\n".join(body) + "\n"
        body.append(line)
    reader.problem(start, f"<{tag}>", f"</{tag}> on a line of its own", "close the block")
    return None


def _words(line: str, number: int, reader: _Reader) -> list[str]:
    """The words of one line; none of a comment."""
    if len(line.encode()) > LONGEST_LINE:
        expected = f"at most {LONGEST_LINE} bytes (OpenVPN's limit)"
        reader.problem(number, "line", expected, "shorten the line, or write it as a block")
        return []
    if not line.replace("\t", " ").isprintable():
        reader.problem(number, "line", "text without control characters", "write the line anew")
        return []
    words, broken = _split(line)
    if broken:
        reader.problem(number, "syntax", broken, "close it, or leave it out")
        return []
    if len(words) > MOST_WORDS + 1:
        reader.problem(number, words[0], f"at most {MOST_WORDS} words", "write fewer")
        return []
    return words


def _split(line: str) -> tuple[list[str], str]:
    """The words, or what is missing at the end of the line."""
    words: list[str] = []
    word: str | None = None
    quote, escaped = "", False
    for char in line:
        if escaped:
            word, escaped = (word or "") + char, False
        elif char == "\\" and quote != "'":
            word, escaped = word or "", True
        elif quote:
            quote = "" if char == quote else quote
            word = (word or "") + ("" if not quote else char)
        elif char in _BLANKS:
            words += [] if word is None else [word]
            word = None
        elif word is None and char in _COMMENTS:
            break
        elif word is None and char in "\"'":
            word, quote = "", char
        else:
            word = (word or "") + char
    words += [] if word is None else [word]
    return words, "a closing quote" if quote else "something after the backslash" if escaped else ""


def _quoted(word: str) -> str:
    if word and not set(word) & set(" \t\"'\\") and word[0] not in _COMMENTS:
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
