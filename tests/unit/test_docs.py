"""The security promises name the tests that show them; a renamed test takes its line along."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_named_in_the_promises_exists() -> None:
    named = set(re.findall(r"\btest_[a-z0-9_]+", (ROOT / "docs" / "security.md").read_text()))
    files = [
        f
        for room in ("kernel", "lab", "prove", "image")
        for f in (ROOT / "tests" / room).glob("test_*.py")
    ]
    defined = {path.stem for path in files}
    for path in files:
        defined |= set(re.findall(r"^def (test_[a-z0-9_]+)", path.read_text(), re.M))
    assert named, "positive control"
    assert sorted(named - defined) == []
