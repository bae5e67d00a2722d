"""False alarms of an exit whose users fill its line: how often is it called anything but alive?

Half an hour of six downloads, each begun anew when it is complete, on an ordinary slow line: 2
Mbit/s both ways with 2 s of buffer, of which 2% is lost. Both roles with both settings, all at the
same time: a line that slow takes little of a machine.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.pool import Pool

from bench.far_line import MADE, ROLES, Side
from bench.measure import Series
from bench.report import Found, Headline, Table
from bench.size import Size
from lab.slow_line import Line
from lab.streams import TcpDownload

TWO_MBIT = 250_000.0  # bytes a second
DOWNLOADS, ONE = 6, 4_000_000  # bytes of each: 16 s of the whole line
_LOOK = 0.5  # seconds between two readings of the status
DEFAULT, FAST = {"EXIT_PROBE_INTERVAL": "1"}, {"EXIT_PROBE_INTERVAL": "0.1"}
SETTINGS = {"default": DEFAULT, "fast": FAST}


@dataclass
class Watched:
    """states: that were seen, in order, with the moment in seconds. received: bytes of downloads,
    of which so many were complete."""

    states: list[tuple[float, str]] = field(default_factory=list)
    received: int = 0
    complete: int = 0

    @property
    def changes(self) -> int:
        return len(self.states) - 1


def measure(size: Size) -> Found:
    """Each role with each setting."""
    seconds = size.of(10, 20, 1800)
    roles = size.of(1, 2, 2)
    cases = [(role, name, seconds) for role in ROLES[:roles] for name in SETTINGS]
    with processes(len(cases)) as pool:
        watches = pool.starmap(_watch, cases)
    return _found(
        {f"{role}, {name}": seen for (role, name, _), seen in zip(cases, watches, strict=True)},
        seconds,
    )


def processes(count: int) -> Pool:
    """So many at a time, each with a lab of its own. Begun anew: threads don't survive a fork."""
    return get_context("spawn").Pool(count, maxtasksperchild=1)


def _watch(role: str, name: str, seconds: float) -> Watched:
    with MADE[role](Line(TWO_MBIT, buffer=2.0, loss=0.02), SETTINGS[name]) as side:
        side.wait_alive()
        return watched(side, seconds)


def watched(side: Side, seconds: float, count: int = DOWNLOADS) -> Watched:
    """What is seen in that time."""
    seen, began = Watched(), time.monotonic()
    running: list[TcpDownload] = []
    while time.monotonic() < began + seconds:
        for ended in [each for each in running if not each.running()]:
            running.remove(ended)
            seen.received += ended.bytes_received
            seen.complete += 1
            ended.close()
        with contextlib.suppress(OSError):  # a SYN that was lost: again
            while len(running) < count:
                running += side.downloads(1, ONE)
        state = side.state()
        if state and (not seen.states or seen.states[-1][1] != state):
            seen.states.append((time.monotonic() - began, state))
            print(f"{time.monotonic() - began:8.1f} s  {state}", flush=True)
        time.sleep(_LOOK)
    for each in running:
        seen.received += each.bytes_received
        each.close()
    return seen


def _found(found: dict[str, Watched], seconds: float) -> Found:
    rows = tuple(
        (
            name,
            f"{seen.changes}",
            f"{seen.received / 1e6:.0f}",
            f"{seen.received / seconds / TWO_MBIT:.0%}",
            f"{seen.complete}",
        )
        for name, seen in found.items()
    )
    return Found(
        "patience",
        "False alarms on a full line",
        (
            Table(
                f"{DOWNLOADS} downloads in {seconds:.0f} s of 2 Mbit/s, 2 s of buffer, 2% lost",
                (
                    "Exit, probes",
                    "changes of state",
                    "MB came",
                    "of the line",
                    "downloads complete",
                ),
                rows,
                ("By the exit node's log, and by the server's status, read twice a second.",),
            ),
        ),
        tuple(
            Headline(
                f"false alarms in {seconds / 60:.0f} minutes of a full line, {name} probes",
                f"{seen.changes}",
                "0",
                seen.changes == 0,
            )
            for name, seen in found.items()
        ),
        {f"{name}, changes": Series((float(seen.changes),)) for name, seen in found.items()},
    )
