"""The parser's own promises; that ocserv reads the same is shown against the real one (kernel/)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocgate.ocserv.ini_parser import Document, FlawKind, parse


def values(document: Document) -> list[tuple[str, str, str, int]]:
    return [(entry.section, entry.key, entry.value, entry.line) for entry in document.entries]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'dns = "1.1.1.1" # cloud\n', "1.1.1.1"),
        (b"dns: 1.1.1.1", "1.1.1.1"),
        (b"\xef\xbb\xbfdns=1.1.1.1\r\n", "1.1.1.1"),
        (b"dns = a#b", "a#b"),
        (b"dns = 'a'", "'a'"),
        (b"dns = a ; b", "a ; b"),
        (b'dns = " a " ', "a"),
        (b"dns =", ""),
        (b"dns = \xff", "\udcff"),
    ],
)
def test_value(text: bytes, expected: str) -> None:
    """Quotes, comments and white space go where ocserv lets them go."""
    assert values(parse(text, "f")) == [("", "dns", expected, 1)]


def test_sections_end_at_the_next_one() -> None:
    """What stands behind a virtual host belongs to it, an appended line too."""
    document = parse(b"a = 1\n[vhost:x]\nb = 2\n\n# c\nc = 3\n[]\nd = 4\n", "f")
    assert values(document) == [
        ("", "a", "1", 1),
        ("vhost:x", "b", "2", 3),
        ("vhost:x", "c", "3", 6),
        ("", "d", "4", 8),
    ]
    assert document.vhosts == ("x",)
    assert [entry.key for entry in document.of("")] == ["a", "d"]
    assert [entry.key for entry in document.of("x", "c")] == ["c"]


def test_indented_line_is_another_value_of_the_key_above() -> None:
    """The commonest slip: `  mtu = 1400` replaces the pool's value, with rc 0 from ocserv."""
    document = parse(b"ipv4-network = 10.0.0.0/24\n  mtu = 1400\n", "f")
    assert values(document)[1] == ("", "ipv4-network", "mtu = 1400", 2)
    assert [(flaw.kind, flaw.line, flaw.key) for flaw in document.flaws] == [
        (FlawKind.CONTINUATION, 2, "ipv4-network")
    ]


@pytest.mark.parametrize(
    ("text", "kind", "fatal"),
    [
        (b"garbage\n", FlawKind.SYNTAX, True),
        (b"[vhost:a\n", FlawKind.UNCLOSED_SECTION, True),
        (b"[vhost:]\na = 1\n", FlawKind.EMPTY_VHOST, True),
        (b"[x]\n", FlawKind.UNKNOWN_SECTION, False),
        (b"[vhost:" + b"a" * 50 + b"]\n", FlawKind.LONG_SECTION, False),
        (b"a = " + b"x" * 2043, FlawKind.TOO_LONG, False),
        (b"a = 1\0\n", FlawKind.NUL, False),
        (b'a = ""\n', FlawKind.IGNORED_VALUE, False),
    ],
)
def test_flaw(text: bytes, kind: FlawKind, *, fatal: bool) -> None:
    """Each oddity is named once; `broken` tells those that ocserv refuses."""
    document = parse(text, "f")
    assert [flaw.kind for flaw in document.flaws] == [kind]
    assert (document.broken is not None) == fatal


@given(st.binary(max_size=300))
def test_never_raises_and_keeps_every_line(data: bytes) -> None:
    """Any bytes parse, and the lines are the file's."""
    document = parse(data, "f")
    joined = b"\n".join(document.lines)
    assert joined.replace(b"\r", b"").strip() == (
        data.removeprefix(b"\xef\xbb\xbf").replace(b"\r", b"").strip()
    )
    assert all(1 <= entry.line <= len(document.lines) for entry in document.entries)
