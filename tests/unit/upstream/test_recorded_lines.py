"""The model of liveness over lines that were recorded in the lab: OpenVPN, OpenSSL, the kernel's
TCP and queues as they are, and not as a simulation takes them to be."""

from __future__ import annotations

import pytest

from ocgate.upstream.line import Pace, State
from support.recorded_lines import TRACES, read

PACES = {"default": Pace(), "fast": Pace(interval=0.1)}
UP, DOWN = [State.UNKNOWN, State.ALIVE], [State.UNKNOWN, State.ALIVE, State.DOWN]

# Of lines that end: by the pace, seconds until the verdict at the most.
ENDS = {
    "idle-dies": {"default": 1.8, "fast": 0.3},
    "full-dies": {"default": 4.0, "fast": 2.0},
    "farther-dies": {"default": 9.0, "fast": 6.0},
}
GOES_ON = ("full", "upload", "lossy", "far", "syn-flood")


@pytest.mark.parametrize("pace", PACES)
@pytest.mark.parametrize("name", GOES_ON)
def test_a_line_that_goes_on_is_never_called_down(name: str, pace: str) -> None:
    seen = read(name).run(PACES[pace])
    assert seen.seen == UP, seen.states


@pytest.mark.parametrize("pace", PACES)
@pytest.mark.parametrize("name", ENDS)
def test_a_line_that_ends_is_called_down_in_time(name: str, pace: str) -> None:
    seen = read(name).run(PACES[pace])
    assert seen.seen == DOWN, seen.states
    assert seen.down_after <= ENDS[name][pace], seen.states


def test_each_trace_is_told_of_here_and_all_are_small() -> None:
    found = {path.stem: path.stat().st_size for path in TRACES.glob("*.json")}
    assert set(found) == {*ENDS, *GOES_ON}
    assert sum(found.values()) < 200_000
