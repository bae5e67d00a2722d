"""Waiting for a condition instead of sleeping; only the lab and tests import this."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

# Fine enough that a test's latency figure is right to 10 ms, coarse enough (100 wake-ups a
# second) that seven tests in parallel don't starve the two cores they measure on.
POLL_SECONDS = 0.01

# A condition that is costly to ask (control reads the kernel's tables for each status) is asked
# less often, so that what is waited for gets at least three quarters of the time.
_REST = 3
_REST_SECONDS = 0.2  # at most


# What a limit is multiplied by. A limit says what the caller expects of a machine that is its own;
# tests share theirs with other tests, and CI with other machines, and set more.
_patience = 1.0


class TimedOut(AssertionError):
    """A condition did not come true; the message carries the last value that was seen."""


def be_patient(factor: float) -> None:
    """Every later wait of this process lasts up to `factor` (1.0 or more) times its limit."""
    global _patience
    _patience = factor


def wait_until(
    condition: Callable[[], Value],
    timeout: float,
    what: str,
    *,
    interval: float | None = None,
) -> Value:
    """Call `condition` until it returns something true, and return that.

    timeout:  seconds, times the patience (`be_patient`); the condition is tried at least once and
              once more at the end.
    interval: seconds between two tries; default 10 ms, and more where a try takes long itself.
    what:     completes "waited 3.0 s for …".
    Raises TimedOut with the last value. An exception in `condition` is not swallowed: a condition
    that may fail while things come up must say so by returning False.
    """
    limit = timeout * _patience
    deadline = time.monotonic() + limit
    while True:
        asked = time.monotonic()
        expired = asked >= deadline
        value = condition()
        if value:
            return value
        if expired:
            raise TimedOut(f"waited {limit:.1f} s for {what}; last value: {value!r}")
        time.sleep(_rest(time.monotonic() - asked) if interval is None else interval)


def _rest(took: float) -> float:
    return min(max(POLL_SECONDS, _REST * took), _REST_SECONDS)
