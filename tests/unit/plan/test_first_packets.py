"""What may begin: every answer of these chains is for a session's own source, in every plan."""

from __future__ import annotations

from pathlib import Path

import pytest

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.txt"))


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_nothing_is_rejected_that_bears_no_session_s_mark(file: Path) -> None:
    """With the chain gone that drops forged sources the answer would go to a forged one, by this
    host's own way: 31 packets of chaos did."""
    _, found, chain = file.read_text().partition("chain begins {")
    assert found or "chain first_packet" not in file.read_text()
    rules = chain.partition("}\n\n")[0].splitlines()
    rejecting = [rule for rule in rules if "reject with" in rule]
    assert all("meta mark 0x" in rule for rule in rejecting), rejecting
