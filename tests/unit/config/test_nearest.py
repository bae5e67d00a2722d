"""Which known name a misspelt one meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocgate.config.nearest import distance, nearest, one_slip
from ocgate.config.table import KNOWN


@pytest.mark.parametrize(
    ("left", "right", "steps"),
    [("", "", 0), ("", "abc", 3), ("abc", "abc", 0), ("abc", "acb", 1), ("kitten", "sitting", 3)],
)
def test_distance(left: str, right: str, steps: int) -> None:
    """A swap of neighbours counts one."""
    assert distance(left, right) == distance(right, left) == steps


@given(st.sampled_from(sorted(KNOWN)), st.data())
def test_one_slip_is_found(name: str, data: st.DataObject) -> None:
    """Law: the cheap look-up finds every single slip in a name that is long enough."""
    at = data.draw(st.integers(0, len(name) - 1))
    letter = data.draw(st.sampled_from("AXZ_6"))
    slip = data.draw(
        st.sampled_from(
            [
                name[:at] + name[at + 1 :],
                name[:at] + letter + name[at:],
                name[:at] + letter + name[at + 1 :],
                name[:at] + name[at : at + 2][::-1] + name[at + 2 :],
            ]
        )
    )
    if len(name) >= 8:
        found = one_slip(slip, KNOWN)
        assert found is not None
        assert distance(slip, found) <= 1
    assert nearest(slip, KNOWN)[1] <= 1
