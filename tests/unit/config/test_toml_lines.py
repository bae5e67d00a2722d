"""The line of each key in a TOML document."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocgate.config.toml_lines import key_lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", {}),
        ("# a = 1\n\n a = 1 # b = 2\nb=2", {"a": 3, "b": 4}),
        ('"VPN_SUBNET" = 1\n\'k=v\' = 2\n"\\u0061" = 3', {"VPN_SUBNET": 1, "k=v": 2, "a": 3}),
        ("a = [\n  1, # ]\n  2,\n]\nb = 1", {"a": 1, "b": 5}),
        ('a = """\nb = 1\n""\\""""""\nc = 1', {"a": 1, "c": 4}),
        ("a = '''\nb = 1\n'''''\nc = '#'\nd = 1", {"a": 1, "c": 4, "d": 5}),
        ('a = """"quoted""""\nb = ""\nc = """"""\nd = 1', {"a": 1, "b": 2, "c": 3, "d": 4}),
        ("a = 1\r\nb = 2\r\n", {"a": 1, "b": 2}),
        ("a.b = 1\n\na . c = 2\n", {"a": 1}),
        ("a = {b = 1, c = {d = 2}}\ne = 1", {"a": 1, "e": 2}),
        ("a = 1\n[b]\nc = 1\n[[d.e]] # x\nf = [\n1]\n[b.g]", {"a": 1, "b": 2, "d": 4}),
    ],
)
def test_lines(text: str, lines: dict[str, int]) -> None:
    """Strings, comments, arrays and tables don't mislead it, and it knows what tomllib knows."""
    assert key_lines(text) == lines
    assert set(lines) == set(tomllib.loads(text))


_PIECES = [
    "a", "b", " = ", "=", "\n", "\r\n", '"', '"""', "'", "'''", "[", "]", "{", "}", "#", "1",
    ",", ".", "\\", " ", '"x" = "y"\n', "c = [\n1,\n]\n", "[t]\n",
]  # fmt: skip


@given(st.lists(st.sampled_from(_PIECES), max_size=14).map("".join))
def test_finds_the_keys_that_tomllib_finds(text: str) -> None:
    """Law: for whatever tomllib accepts, the same top-level keys."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert set(key_lines(text)) == set(document)
