"""Records what questions and counters find on a real line: `python -m bench.record_line --help`.

An exit node behind a slow line (bench.far_line) that does not probe by itself; in its place each
target is asked five times a second, whatever a model would ask, so that any model of liveness can
be shown the line later: a question of it has the fate of the one that was asked next to it.

A trace is JSON: what it is; seconds that it lasts; `ends`, when the line ended, null if it did not;
by target what was asked, [milliseconds since the beginning, milliseconds until the answer or null
for silence, and 0 where that is no round trip (a SYN was repeated)]; and the counters of users'
bytes, [milliseconds, sent, came back].
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.far_line import EXIT_NODE, MADE, Side
from bench.patience import DOWNLOADS, TWO_MBIT
from lab.slow_line import Line
from lab.streams import UdpStream
from lab.topology import SERVICE
from ocgate.kernel.probe import ask
from ocgate.kernel.way import TcpTarget, Way
from ocgate.names import NFT_TABLE_EXIT, PROBE_ICMP
from ocgate.netlab.inject import routed
from ocgate.netlab.packet import SYN, build_tcp
from ocgate.plan.carried import CAME_BACK
from ocgate.runtime.carried import Carried
from ocgate.tunnel.reasons import SENT

TRACES = Path(__file__).resolve().parents[1] / "tests/unit/upstream/traces"

TARGETS = {
    "tcp 443": TcpTarget(SERVICE, 443),
    "tcp 53": TcpTarget(SERVICE, 53),
    "icmp": TcpTarget(SERVICE, 0, PROBE_ICMP),
}
DEVICE = "tun0"
_BETWEEN, _LOOKS = 0.2, 0.1  # seconds between two questions to a target, and between two looks
_WAIT = 9.0  # seconds for an answer; beyond it a trace says silence


@contextmanager
def _idle(_: Side) -> Iterator[None]:
    yield


@contextmanager
def _downloads(side: Side) -> Iterator[None]:
    running = side.downloads(DOWNLOADS)
    yield
    for each in running:
        each.close()


@contextmanager
def _upload(side: Side) -> Iterator[None]:
    """Twice what the line carries; nobody answers."""
    with UdpStream(side.user, SERVICE, rate=420, size=1200, port=9):
        yield


@contextmanager
def _flood(side: Side) -> Iterator[None]:
    """SYNs, each of a flow of its own."""
    closing = threading.Event()
    source = str(side.lab.neighbours[0].address)

    def work() -> None:
        number = 0
        while not closing.wait(0.01):
            ports = range(1024 + number % 60_000, 1064 + number % 60_000)
            syns = [build_tcp(source, SERVICE, port, 9, flags=SYN) for port in ports]
            number += len(syns)
            with contextlib.suppress(OSError):
                routed(side.user, *syns)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    closing.set()
    thread.join()


@dataclass(frozen=True)
class Case:
    """what: for people. load: by users, from the fifth second on. ends: when the line does."""

    what: str
    line: Line
    seconds: float
    load: Callable[[Side], contextlib.AbstractContextManager[None]] = _idle
    ends: float | None = None


SLOW = "2 Mbit/s, 2 s of buffer"
CASES = {
    "idle-dies": Case(f"{SLOW}, idle; ends", Line(TWO_MBIT), 22, ends=12),
    "full": Case(f"{SLOW}, 2% lost, six downloads", Line(TWO_MBIT, loss=0.02), 35, _downloads),
    "full-dies": Case(f"{SLOW}, six downloads; ends", Line(TWO_MBIT), 35, _downloads, 20),
    "upload": Case(f"{SLOW}, twice too much UDP up", Line(TWO_MBIT), 30, _upload),
    "lossy": Case("10% lost each way, idle", Line(TWO_MBIT, loss=0.1), 30),
    "far": Case("1.5 s of round trip, 2% lost", Line(TWO_MBIT, delay=0.75, loss=0.02), 30),
    "farther-dies": Case("3 s of round trip; ends", Line(TWO_MBIT, delay=1.5), 45, ends=25),
    "syn-flood": Case(f"{SLOW}, 4,000 SYNs a second", Line(TWO_MBIT), 25, _flood),
}
_LOAD_FROM = 5.0  # seconds


async def _recorded(side: Side, case: Case) -> dict[str, object]:
    began = time.monotonic()
    asked: dict[str, list[tuple[int | None, ...]]] = {name: [] for name in TARGETS}
    counters: list[tuple[int, int, int]] = []
    look, tasks = (
        Carried(NFT_TABLE_EXIT, sent=SENT, came_back=CAME_BACK).look,
        set[asyncio.Task[None]](),
    )

    def now() -> int:
        return round((time.monotonic() - began) * 1000)

    async def question(name: str) -> None:
        sent = now()
        found = await ask(TARGETS[name], _WAIT, Way(device=DEVICE))
        taken = now() - sent if found.ok else None
        asked[name].append((sent, taken) if found.trip or taken is None else (sent, taken, 0))

    async def looks() -> None:
        while True:
            if (seen := look()) is not None:
                counters.append((now(), seen.sent, seen.back))
            await asyncio.sleep(_LOOKS)

    looking = asyncio.create_task(looks())
    while now() < case.seconds * 1000:
        for name in TARGETS:
            tasks.add(asyncio.create_task(question(name)))
        if case.ends is not None and now() >= case.ends * 1000:
            side.line.dead = True
        await asyncio.sleep(_BETWEEN)
    looking.cancel()
    await asyncio.gather(*tasks)
    return {
        "what": case.what,
        "seconds": case.seconds,
        "ends": case.ends,
        "asked": {
            name: sorted(found, key=lambda one: one[0] or 0) for name, found in asked.items()
        },
        "counters": counters,
    }


def record(case: Case) -> dict[str, object]:
    """Some seconds longer than the case."""
    with MADE[EXIT_NODE](case.line, {"EXIT_PROBE": "off"}) as side:
        done: dict[str, object] = {}

        def work() -> None:
            with side.lab.upstream.netns.entered():
                done.update(asyncio.run(_recorded(side, case)))

        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(_LOAD_FROM)
        with case.load(side):
            thread.join()
        return done


def main() -> None:
    """Record what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.record_line", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(CASES)}; all")
    parser.add_argument("--out", type=Path, default=TRACES, help="directory; default: the tests'")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name in chosen.names or CASES:
        text = json.dumps(record(CASES[name]), separators=(",", ":"))
        (chosen.out / f"{name}.json").write_text(text + "\n")
        print(f"{name}: {len(text)} bytes", flush=True)


if __name__ == "__main__":
    main()
