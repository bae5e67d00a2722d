"""ocserv.conf as ocserv reads it: which line gives which value to which key, and what is swallowed.

Pure. ocserv parses with inih (`ini_parse_stream`) and hands each value to `sanitize_config_value`;
this module repeats both, quirks included, because a planner that reads another value than the
server is a leak. tests/kernel/test_ocserv_conf_agreement.py holds it against the real program.

What surprises people, all of it kept:
  - a line is at most 2047 bytes with its end; the rest of a longer one is read as another line, or
    the file is refused (releases);
  - a line that starts with white space, after any key of its section, is *another value of that
    key*: lists grow, scalars are replaced;
  - ` #` (white space first) cuts a value even inside quotes; `;` is a comment at line start only;
  - quotes and white space are stripped from both ends, in any mixture; `'` is an ordinary letter;
  - a value of nothing but quotes is dropped, so the key keeps what it had;
  - a section name ends at 49 bytes, a NUL byte ends its line;
  - the first line that is neither comment, section nor `key = value` ends everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

# INI_MAX_LINE is 2048 in ocserv 1.1.6, 1.3.0 and 1.5.0; fgets keeps one byte for the NUL. From
# releases.LONG_LINES_REFUSED on ocserv refuses what is longer, and so do our checks in any case.
MAX_LINE_BYTES = 2047

# MAX_SECTION and MAX_NAME are 50 with their NUL; a longer key is cut only when it is *continued*.
MAX_NAME_BYTES = 49

# isspace() in the C locale, which ocserv does not leave.
WHITE = b" \t\n\v\f\r"

BOM = b"\xef\xbb\xbf"
VHOST_PREFIX = "vhost:"


class FlawKind(Enum):
    """What is odd about a line; `fatal` ones make `ocserv -t` refuse the file."""

    SYNTAX = "no `=` or `:`"
    UNCLOSED_SECTION = "a section without `]`"
    EMPTY_VHOST = "a virtual host without a name"
    CONTINUATION = "an indented line, read as another value of the key above"
    TOO_LONG = "a line of more than 2046 bytes, read in pieces"
    NUL = "a NUL byte, which ends the line"
    UNKNOWN_SECTION = "a section that is not [vhost:NAME]; its lines are ignored"
    LONG_SECTION = "a section name longer than 49 bytes, cut"
    IGNORED_VALUE = "a value of nothing but quotes or a comment; the line is ignored"

    @property
    def fatal(self) -> bool:
        """True where ocserv itself refuses (and stops reading) at this line."""
        return self in (FlawKind.SYNTAX, FlawKind.UNCLOSED_SECTION, FlawKind.EMPTY_VHOST)


@dataclass(frozen=True)
class Flaw:
    """`text` is the line as written; `section` and `key` what it belongs to, '' where to none."""

    line: int
    kind: FlawKind
    section: str
    key: str
    text: str


@dataclass(frozen=True)
class Entry:
    """One value handed to one key.

    section: '' for main, else the section's name (`vhost:NAME`).
    value:   as ocserv keeps it: comment cut, quotes and white space stripped.
    line:    1-based physical line.
    Bytes that are not UTF-8 appear as surrogate escapes and survive a round trip.
    """

    section: str
    key: str
    value: str
    line: int
    continued: bool = False

    @property
    def vhost(self) -> str | None:
        """The virtual host's name, '' for main, None for a section that ocserv ignores."""
        return vhost_of(self.section)


@dataclass(frozen=True)
class Section:
    """A `[…]` line."""

    name: str
    line: int


@dataclass(frozen=True)
class Document:
    """A parsed file. `lines` are the physical lines without BOM and line ends, byte for byte."""

    source: str
    lines: tuple[bytes, ...]
    entries: tuple[Entry, ...]
    sections: tuple[Section, ...]
    flaws: tuple[Flaw, ...]

    @property
    def broken(self) -> Flaw | None:
        """The first flaw at which ocserv stops; it refuses the file (of a per-user file
        it heeds what stands before)."""
        return next((flaw for flaw in self.flaws if flaw.kind.fatal), None)

    @property
    def vhosts(self) -> tuple[str, ...]:
        """Names of virtual hosts with at least one line (ocserv does not create empty ones)."""
        return tuple(dict.fromkeys(name for _, name in self._rows() if name))

    def first_line(self, vhost: str) -> int:
        """The first line of main ('') or of a virtual host that has a key; raises ValueError where
        there is none."""
        return min(line for line, name in self._rows() if name == vhost)

    def _rows(self) -> list[tuple[int, str | None]]:
        """Line and virtual host of all that ocserv hands to a section, dropped values included."""
        ignored = [flaw for flaw in self.flaws if flaw.kind is FlawKind.IGNORED_VALUE]
        rows = [(entry.line, entry.section) for entry in self.entries]
        rows += [(flaw.line, flaw.section) for flaw in ignored]
        return [(line, vhost_of(section)) for line, section in sorted(rows)]

    def of(self, vhost: str, *keys: str) -> tuple[Entry, ...]:
        """Entries of main ('') or of a virtual host, in file order; of `keys` only, if any."""
        return tuple(
            entry
            for entry in self.entries
            if entry.vhost == vhost and (not keys or entry.key in keys)
        )


def vhost_of(section: str) -> str | None:
    """The virtual host of a section name: '' for main, None where ocserv ignores the section."""
    if not section:
        return ""
    if not section.startswith(VHOST_PREFIX):
        return None
    return section[len(VHOST_PREFIX) :].strip(WHITE.decode())


def parse(data: bytes, source: str) -> Document:
    """Reads the bytes of an ocserv.conf or of a per-user/per-group file; `source` is its path.

    Never raises: what ocserv would refuse or misread is in `flaws`. After a fatal flaw we read on,
    so that one run can report every problem, although ocserv stops there.
    """
    lines = _physical_lines(data)
    reader = _Reader()
    for number, line in enumerate(lines, start=1):
        reader.read(number, line)
    return Document(
        source,
        lines,
        tuple(reader.entries),
        tuple(reader.sections),
        tuple(reader.flaws),
    )


def sanitize(value: bytes, before: bytes) -> bytes | None:
    """ocserv's `sanitize_config_value`: strips quotes and white space; None: the line is dropped.

    `before` is the byte in front of the value in inih's buffer. ocserv strips backwards past the
    start of an empty value, so ` # comment` drops the line while an empty value stays empty.
    """
    stripped = value.strip(WHITE + b'"')
    if stripped:
        return stripped
    return None if value or before in (b" ", b"\t", b"\v", b"\f", b"\r", b'"') else b""


def _physical_lines(data: bytes) -> tuple[bytes, ...]:
    lines = data.removeprefix(BOM).split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return tuple(line.removesuffix(b"\r") for line in lines)


def _pieces(line: bytes) -> Iterator[bytes]:
    """What successive fgets calls return for one physical line (its line end is white space)."""
    yield line[:MAX_LINE_BYTES]
    for start in range(MAX_LINE_BYTES, len(line), MAX_LINE_BYTES):
        yield line[start : start + MAX_LINE_BYTES]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _find(line: bytes, stops: bytes) -> int:
    """inih's `find_chars_or_comment`: index of a stop byte, of ` #`, or the length."""
    was_white = False
    for index, byte in enumerate(line):
        if byte in stops or (was_white and byte == ord("#")):
            return index
        was_white = byte in WHITE
    return len(line)


class _Reader:
    """inih's state between lines: the section, and the key that an indented line would continue."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.sections: list[Section] = []
        self.flaws: list[Flaw] = []
        self._section = b""
        self._previous = b""
        self._line = 0
        self._written = b""

    def read(self, number: int, line: bytes) -> None:
        self._line, self._written = number, line
        if len(line) >= MAX_LINE_BYTES:
            self._flaw(FlawKind.TOO_LONG)
        if b"\0" in line:
            self._flaw(FlawKind.NUL)
        for piece in _pieces(line):
            self._piece(piece.partition(b"\0")[0])

    def _piece(self, piece: bytes) -> None:
        start = piece.strip(WHITE)
        if not start or start[:1] in (b"#", b";"):
            return
        if self._previous and piece[:1] in WHITE:
            self._flaw(FlawKind.CONTINUATION, self._previous)
            self._hand(self._previous, start, b" ", continued=True)
        elif start.startswith(b"["):
            self._open(start)
        else:
            self._assign(start)

    def _open(self, start: bytes) -> None:
        end = _find(start[1:], b"]") + 1
        if start[end : end + 1] != b"]":
            self._flaw(FlawKind.UNCLOSED_SECTION)
            return
        if end - 1 > MAX_NAME_BYTES:
            self._flaw(FlawKind.LONG_SECTION)
        self._section, self._previous = start[1:end][:MAX_NAME_BYTES], b""
        name = _text(self._section)
        self.sections.append(Section(name, self._line))
        if vhost_of(name) is None:
            self._flaw(FlawKind.UNKNOWN_SECTION)

    def _assign(self, start: bytes) -> None:
        end = _find(start, b"=:")
        if start[end : end + 1] not in (b"=", b":"):
            self._flaw(FlawKind.SYNTAX)
            return
        key = start[:end].rstrip(WHITE)
        value = start[end + 1 :]
        value = value[: _find(value, b"")]
        skipped = value.lstrip(WHITE)
        # The '=' in front of an unindented value has become a NUL in inih's buffer.
        before = value[len(value) - len(skipped) - 1 : len(value) - len(skipped)] or b"\0"
        self._previous = key[:MAX_NAME_BYTES]
        self._hand(key, skipped.rstrip(WHITE), before)

    def _hand(self, key: bytes, value: bytes, before: bytes, *, continued: bool = False) -> None:
        section = _text(self._section)
        if vhost_of(section) == "" and self._section:
            self._flaw(FlawKind.EMPTY_VHOST, key)
            return
        kept = sanitize(value, before)
        if kept is None:
            self._flaw(FlawKind.IGNORED_VALUE, key)
            return
        self.entries.append(Entry(section, _text(key), _text(kept), self._line, continued))

    def _flaw(self, kind: FlawKind, key: bytes = b"") -> None:
        section, written = _text(self._section), _text(self._written)
        self.flaws.append(Flaw(self._line, kind, section, _text(key), written))
