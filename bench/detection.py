"""How soon a line that has ended is noticed, in both roles: from a user's first lost packet until
the verdict (exit node), or until the first packet that is rejected (server).

A user sends 200 small packets a second from the line's end on. Each end comes at another moment of
the interval between two probes. Idle, then under six downloads, by a good line and by one that they
fill.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.far_line import MADE, ROLES, Side
from bench.measure import Series
from bench.patience import DOWNLOADS, SETTINGS, TWO_MBIT, processes
from bench.report import Found, Headline, Table
from bench.size import Size
from lab.slow_line import Line
from lab.streams import TcpDownload
from ocgate.netlab.wait import wait_until


@dataclass(frozen=True)
class Ends:
    """seconds: until each was noticed. early: how often the exit had been called down before its
    line ended, by its load alone."""

    seconds: tuple[float, ...]
    early: int

    def told(self, figure: Callable[[Series], float]) -> str:
        return f"{figure(Series(self.seconds)):.2f}" if self.seconds else "never alive"


AIMS = {"default": 2.0, "fast": 0.3}  # seconds (issue 11)

# A line, and the bytes of downloads after which it is under load; 0: idle.
GOOD, FULL = "20 Mbit/s, 0.1 s of buffer", "2 Mbit/s, 2 s of buffer"
LOADED = f"{DOWNLOADS} downloads, {GOOD}"
CASES = {
    "idle": (Line(2.5e6, buffer=0.1), 0),
    LOADED: (Line(2.5e6, buffer=0.1), 2_000_000),
    f"{DOWNLOADS} downloads, {FULL}": (Line(TWO_MBIT, buffer=2.0), 1_500_000),
}
_LOAD_SECONDS = 60.0
_SETTLED = 1.0  # seconds, before the moment is chosen at random


def measure(size: Size) -> Found:
    """All cases with all settings. Exits that are idle or slow all side by side; of those that
    carry 20 Mbit/s, which takes half a core, two at a time."""
    found: dict[tuple[str, str, str], Ends] = {}
    for case in CASES:
        cases = [(role, name, case, size) for role in ROLES for name in SETTINGS]
        with processes(2 if case == LOADED else len(cases)) as pool:
            for key, ends in zip(cases, pool.starmap(_ends, cases, chunksize=1), strict=True):
                found[key[:3]] = ends
    return _found(
        {f"{role}, {name} probes, {c}": found[role, name, c] for role, name, c in sorted(found)}
    )


def _ends(role: str, name: str, case: str, size: Size) -> Ends:
    line, load = CASES[case]
    few = bool(load) and line.rate == TWO_MBIT  # each takes a quarter of a minute
    settings = SETTINGS[name]
    with MADE[role](line, settings) as side:
        found = _series(
            side, size.of(1, 3, 30 if few else 100), load, float(settings["EXIT_PROBE_INTERVAL"])
        )
    print(f"{role}, {name} probes, {case}", found, flush=True)
    return found


def _series(side: Side, count: int, load: int, interval: float) -> Ends:
    taken, early = [], 0
    for _ in range(count):
        side.wait_alive()
        with _loaded(side, load):
            time.sleep(_SETTLED + side.chance.random() * interval)
            if side.alive():
                taken.append(side.noticed_after())
            else:
                early += 1
    return Ends(tuple(taken), early)


@contextlib.contextmanager
def _loaded(side: Side, load: int) -> Iterator[None]:
    running: list[TcpDownload] = []
    began = time.monotonic()
    while load and len(running) < DOWNLOADS:  # one whose SYN was lost is begun again
        with contextlib.suppress(OSError):
            running += side.downloads(1)
        assert time.monotonic() < began + _LOAD_SECONDS
    try:
        wait_until(
            lambda: sum(each.bytes_received for each in running) >= load, _LOAD_SECONDS, "the load"
        )
        yield
    finally:
        for each in running:
            each.close()


def _found(found: dict[str, Ends]) -> Found:
    rows = tuple(
        (
            name,
            f"{len(ends.seconds)}",
            ends.told(lambda series: series.median),
            ends.told(lambda series: series.percentile(99)),
            ends.told(lambda series: max(series.values)),
            f"{ends.early}",
        )
        for name, ends in found.items()
    )
    return Found(
        "detection",
        "From the end of a line to its verdict",
        (
            Table(
                "Seconds from a user's first lost packet",
                ("Exit", "ends", "p50", "p99", "most", "down before its end"),
                rows,
                (
                    "At an exit node until it is called down, by its log; at a server until a "
                    "client's packet is rejected.",
                    "Of a line whose buffer is kept full every answer takes its 2 s; sooner than "
                    "that a dead one can't be told from it.",
                ),
            ),
        ),
        tuple(_headline(name, ends) for name, ends in found.items() if ends.seconds),
        {f"{name}, s": Series(ends.seconds) for name, ends in found.items() if ends.seconds},
    )


def _headline(name: str, ends: Ends) -> Headline:
    most = Series(ends.seconds).percentile(99)
    aim = next(seconds for word, seconds in AIMS.items() if f"{word} probes" in name)
    return Headline(f"dead line noticed, {name}, p99", f"{most:.2f} s", f"{aim:g} s", most <= aim)
