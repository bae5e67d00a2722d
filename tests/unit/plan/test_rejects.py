"""Whoever is told that a packet was refused sent it: every reject, in every plan, is for what bears
a session's mark.

With the chain gone that drops forged sources, the answer would go to whoever was named as the
sender, by this host's own way. Chaos found 31 such packets from one chain, and 4 from another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.txt"))
UNMARKED = re.compile(r"^meta mark & 0x3f000000 == 0x00000000 .*\bdrop\b")
MARKED = re.compile(r"\bmeta mark (0x0[1-9]|& 0x3f000000 != 0x00000000|set iifname \. )")
CHAIN = re.compile(r"\tchain (\w+) \{\n(.*?)\t\}", re.DOTALL)


def chains(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each table's chains, and their rules."""
    for name, rules in CHAIN.findall(text):
        yield name, [rule.strip() for rule in rules.splitlines()]


def bare(rules: list[str]) -> list[str]:
    """Rejects that an unmarked packet could meet."""
    found = []
    for rule in rules:
        if UNMARKED.match(rule):
            break
        if "reject with" in rule and not MARKED.search(rule):
            found.append(rule)
    return found


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_nothing_is_rejected_that_bears_no_session_s_mark(file: Path) -> None:
    text = file.read_text()
    of_marked = {"new_flow", "too_fast", "too_many", "crowding"}  # the next test's
    wrong = {
        name: found
        for name, rules in chains(text)
        if name not in of_marked and (found := bare(rules))
    }
    assert not wrong
    assert "reject with" in text


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_limits_are_asked_of_what_bears_a_mark(file: Path) -> None:
    leading = [
        rule
        for _, rules in chains(file.read_text())
        for rule in rules
        if re.search(r"\bgoto new_flow\b", rule)
    ]
    assert all(MARKED.search(rule) for rule in leading), leading
