"""How long ocserv waits for our connect hook, and where the time goes.

    fork+exec ─ perl ─ control.sock ─> Gatekeeper ─> nft transaction ─> reply ─ exit
    |_______________________________________________________________________|
      `hook`: what ocserv waits for; started here by posix_spawn in place of ocserv's fork

Parts, each measured from outside: /bin/true (fork, exec, exit of anything), the hook with an
answerer that admits at once (adds perl), the same request straight over the socket (control
alone), and the admission's nft transaction alone in a namespace with the same table.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import ruleset
from bench.measure import Measurement, Series, in_turn, program
from bench.report import Found, Headline, Table
from bench.size import Size
from bench.station import Station, hook_fields, stations
from ocgate import names
from ocgate.kernel.nft import Nft
from ocgate.netlab import namespace
from ocgate.netlab.program import BASE_ENVIRON
from ocgate.ocserv import hooks
from ocgate.sessions.session import Session

# The aim: 5 ms in the median, 15 ms at the 99th percentile, at 10,000.
AIM_MEDIAN, AIM_P99 = 0.005, 0.015

TRUE, INSTANT = "/bin/true", "hook, admitted at once"


def measure(size: Size) -> Found:
    """Run it: every part in turn, once a round."""
    with ExitStack() as stack:
        made = stack.enter_context(stations(size.sessions))
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        sides: dict[str, Measurement] = {
            TRUE: lambda: program([TRUE], BASE_ENVIRON),
            INSTANT: stack.enter_context(_answered_at_once(work)),
        }
        for station in made:
            nft = stack.enter_context(_alone(station.count, work))
            sides[_name("hook", station)] = functools.partial(_admitted, station)
            sides[_name("control", station)] = functools.partial(_asked, station)
            sides[_name("nft", station)] = functools.partial(_written, nft, station.count)
        in_turn(size.of(1, 5, 20), sides)  # warm up: caches, the interpreter's first calls
        found = in_turn(size.of(5, 100, 400), sides)
        return _found(found, [station.count for station in made])


def _name(part: str, station: Station) -> str:
    return f"{part} @ {station.count}"


def _admitted(station: Station) -> float:
    """One session by the hook; it is ended again outside of the measurement."""
    seconds = program([str(station.hook)], {**BASE_ENVIRON, **station.fields()})
    station.ask("disconnect")
    return seconds


def _asked(station: Station) -> float:
    seconds = station.ask("connect")
    station.ask("disconnect")
    return seconds


def _written(nft: Nft, count: int) -> float:
    new = ruleset.on_device(count, f"vpns{count}")
    started = time.perf_counter()
    ruleset.admit(nft, new)
    seconds = time.perf_counter() - started
    ruleset.end(nft, new)
    return seconds


@contextmanager
def _answered_at_once(work: Path) -> Iterator[Measurement]:
    """The installed hook in front of `answerer`."""
    run_dir = work / "answered"
    run_dir.mkdir()
    hooks.install(run_dir, chain=(), auth_timeout=240)
    argv = [sys.executable, "-I", "-S", str(Path(__file__).with_name("answerer.py"))]
    argv.append(str(run_dir / names.CONTROL_SOCKET))
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as answerer:
        try:
            assert answerer.stdout is not None
            assert answerer.stdout.readline() == b"listening\n"
            environ = {**BASE_ENVIRON, **hook_fields(0, answerer.pid)}
            yield lambda: program([str(run_dir / names.HOOK_CONNECT)], environ)
        finally:
            answerer.terminate()


@contextmanager
def _alone(count: int, work: Path) -> Iterator[Nft]:
    """libnftables in a namespace that holds our table with `count` sessions, and nobody else."""
    netns = namespace.create(f"{namespace.next_prefix()}nft")
    sessions: list[Session] = [ruleset.on_device(n, f"vpns{n}") for n in range(count)]
    nft = ruleset.install(netns, "lo", sessions, work / f"run-{count}")
    try:
        yield nft
    finally:
        nft.close()
        netns.close()


def _found(found: dict[str, Series], counts: list[int]) -> Found:
    top = counts[-1]
    hook = found[f"hook @ {top}"]
    return Found(
        "connect-hook",
        "Connect hook: how long ocserv waits",
        (_whole(found, counts), _split(found, counts)),
        (
            Headline(
                f"connect hook at {top:,} sessions, median",
                f"{hook.median * 1000:.1f} ms",
                f"{AIM_MEDIAN * 1000:.0f} ms",
                hook.median <= AIM_MEDIAN,
            ),
            Headline(
                f"connect hook at {top:,} sessions, p99",
                f"{hook.percentile(99) * 1000:.1f} ms",
                f"{AIM_P99 * 1000:.0f} ms",
                hook.percentile(99) <= AIM_P99,
            ),
            Headline(
                f"connect hook at {top:,} sessions : at {counts[0]:,}",
                f"{hook.over(found[f'hook @ {counts[0]}']).median:.2f}",
            ),
        ),
        {f"{name}, ms": series.scaled(1000) for name, series in found.items()},
    )


def _whole(found: dict[str, Series], counts: list[int]) -> Table:
    base = found[f"hook @ {counts[0]}"]
    whole = [f"hook @ {count}" for count in counts]
    rows = []
    for name in (TRUE, INSTANT, *whole):
        series = found[name]
        low, high = series.spread
        shown = (series.median, series.percentile(99), low, high)
        ms = [f"{seconds * 1000:.2f}" for seconds in shown]
        ratio = f"{series.over(base).median:.2f}"
        rows.append((_words(name), ms[0], ms[1], f"{ms[2]} to {ms[3]}", ratio))
    return Table(
        "From fork to exit status (ms)",
        ("Program", "p50", "p99", "half lie in", f": at {counts[0]:,}"),
        tuple(rows),
        (f"{len(base.values)} rounds; in each every program once, in turn.",),
    )


def _split(found: dict[str, Series], counts: list[int]) -> Table:
    true, instant = found[TRUE], found[INSTANT]
    rows = []
    for count in counts:
        hook, control, nft = (found[f"{part} @ {count}"] for part in ("hook", "control", "nft"))
        parts = (true, instant.above(true), hook.above(instant), control, nft, hook)
        rows.append((f"{count:,}", *(f"{part.median * 1000:.2f}" for part in parts)))
    return Table(
        "Where the median goes (ms)",
        (
            "Live sessions",
            "fork, exec, exit",
            "perl, socket",
            "the verdict",
            "(control, asked directly)",
            "(its nft transaction)",
            "all",
        ),
        tuple(rows),
        ("The columns in brackets are parts of the verdict, measured by themselves.",),
    )


def _words(name: str) -> str:
    part, _, count = name.partition(" @ ")
    return f"{part}, {int(count):,} live sessions" if count else part
