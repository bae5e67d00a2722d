"""How long ocgate takes to start, and what it weighs."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bench.measure import Measurement, Series, in_turn, program
from bench.report import Found, Headline, Table
from bench.size import Size
from bench.station import SETTINGS, Station, stations
from lab import gateway
from lab.ocserv import run_ocserv, write_config_dir
from lab.topology import PORT, Lab, Options
from ocgate.kernel import process
from ocgate.netlab.listening import listens
from ocgate.netlab.program import BASE_ENVIRON
from ocgate.netlab.wait import wait_until

ROOT = Path(__file__).resolve().parents[1]
AIM_RESTART = 2.0  # seconds until control is back with every session (issue 2)
AIM_LAUNCHER = 0.050  # seconds that ./ocgate adds

_FINE_POLL = 0.002
# After the first death within 10 s s6 starts control at once, after others later.
_BETWEEN_DEATHS = 10.5

BARE, SET_UP, FIRST = "bare ocserv", "ocgate run", "ocgate run, first start"


def measure(size: Size) -> Found:
    """Starts, the launcher, restarts of control and memory, one after the other."""
    taken: dict[str, list[float]] = {}
    starts = in_turn(size.of(1, 1, 7), _starts(taken))
    stages = {stage: Series(tuple(values)) for stage, values in taken.items()}
    launchers = _launchers()
    in_turn(1, launchers)
    launched = in_turn(size.of(2, 10, 60), launchers)
    with stations(size.sessions) as made:
        restarts = _restarts(made, size.of(0, 0, 4))
        weights = [_weigh(station) for station in made]
    counts = [station.count for station in made]
    return _found(starts, stages, launched, restarts, dict(zip(counts, weights, strict=True)))


# --- starts -----------------------------------------------------------------------------------


def _starts(stages: dict[str, list[float]]) -> dict[str, Measurement]:
    """stages: what the stages of the middle one took is appended here."""
    return {
        BARE: _start_bare,
        SET_UP: functools.partial(_start_set_up, stages),
        FIRST: _start_first,
    }


def _start_bare() -> float:
    """The set-up of the bare server makes a certificate; only from exec to listening counts."""
    with Lab(Options(clients=0)) as lab:
        server = run_ocserv(lab, {"bench": "bench"}, settings=SETTINGS)
        argv = server.program.argv
        server.close()
        wait_until(lambda: not lab.gw.netns.pids(), 5.0, "ocserv's end")
        started = time.perf_counter()
        lab.spawn(lab.gw, argv)
        return _until_listening(lab, started)


# What `ocgate run` says when a stage is done, in order; read from its JSON log.
_MARKS = {
    "load, check, render, ocserv -t": "configuration checked",
    "plan, apply, read back": "table inet ocserv stands",
    "s6, control: apply, verify": "control plane ready",
}


def _start_set_up(stages: dict[str, list[float]]) -> float:
    with Lab(Options(clients=0)) as lab:
        directory = lab.path("etc")
        write_config_dir(lab, directory, {"bench": "bench"}, settings=SETTINGS)
        began, started = time.time(), time.perf_counter()
        running = gateway.start(lab, {"OCGATE_LOG_FORMAT": "json"}, directory)
        whole = _until_listening(lab, started)
        running.wait_ready()
        _note_stages(running.output, began, whole, stages)
        return whole


def _start_first() -> float:
    with Lab(Options(clients=0)) as lab:
        started = time.perf_counter()
        gateway.start(lab)
        return _until_listening(lab, started)


def _until_listening(lab: Lab, started: float) -> float:
    wait_until(lambda: listens(lab.gw.netns, PORT), 30.0, "a listener on 443", interval=_FINE_POLL)
    return time.perf_counter() - started


def _note_stages(output: str, began: float, whole: float, stages: dict[str, list[float]]) -> None:
    """Seconds of each stage of one start; began: seconds since the epoch."""
    moments = _moments(output)
    last = began
    for stage, words in _MARKS.items():
        stages.setdefault(stage, []).append(moments[words] - last)
        last = moments[words]
    stages.setdefault("ocserv: start to listening", []).append(began + whole - last)


def _moments(output: str) -> dict[str, float]:
    """When each event was logged, by event; seconds since the epoch."""
    found: dict[str, float] = {}
    for line in output.splitlines():
        if line.startswith("{"):
            event = json.loads(line)
            found[event["event"]] = datetime.fromisoformat(event["timestamp"]).timestamp()
    return found


# --- launcher ---------------------------------------------------------------------------------

_NOTHING = "python -I -c pass"
_ENTRY, _DIRECT, _LAUNCHER = "python -I .venv/bin/ocgate", ".venv/bin/ocgate", "./ocgate"


def _launchers() -> dict[str, Measurement]:
    """Each asked for its version."""
    python = str(ROOT / ".venv/bin/python")
    entry, launcher = str(ROOT / ".venv/bin/ocgate"), str(ROOT / "ocgate")
    silent = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)  # for as long as this process lives
    run = functools.partial(_quietly, silent)
    return {
        _NOTHING: functools.partial(run, [python, "-I", "-c", "pass"]),
        _ENTRY: functools.partial(run, [python, "-I", entry, "--version"]),
        _DIRECT: functools.partial(run, [entry, "--version"]),
        _LAUNCHER: functools.partial(run, [launcher, "--version"]),
    }


def _quietly(silent: int, argv: list[str]) -> float:
    return program(argv, BASE_ENVIRON, stdout=silent)


# --- restarts and memory ----------------------------------------------------------------------


def _restarts(made: list[Station], more: int) -> dict[int, Series]:
    """kill -9 control to ready, by number of sessions. The first was taken while setting up."""
    for _ in range(more):
        time.sleep(_BETWEEN_DEATHS)
        for station in made:
            station.restarts.append(station.restart())
    return {station.count: Series(tuple(station.restarts)) for station in made}


@dataclass(frozen=True)
class Weight:
    """MiB: resident, and proportional (what is shared counted in parts); processes."""

    rss: float
    pss: float
    processes: int = 1

    def __add__(self, other: Weight) -> Weight:
        count = self.processes + other.processes
        return Weight(self.rss + other.rss, self.pss + other.pss, count)


def _weigh(station: Station) -> dict[str, Weight]:
    """Weight of each part of a running gateway."""
    found: dict[str, Weight] = {}
    for pid in station.gateway.netns.pids():
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        rss, pss = (mib(rollup, key) for key in ("Rss", "Pss"))
        part = _part(process.name(pid) or "", Path(f"/proc/{pid}/cmdline").read_bytes())
        weight = Weight(rss, pss)
        found[part] = found[part] + weight if part in found else weight
    return found


def mib(rollup: str, key: str) -> float:
    """Rss or Pss of a process's smaps_rollup (proc(5)), in MiB."""
    found = re.search(rf"^{key}:\s+(\d+) kB", rollup, re.M)
    return int(found[1]) / 1024 if found else 0.0


def _part(name: str, command: bytes) -> str:
    if b"ocgate.server.daemon" in command:
        return "control"
    if b"relay" in command:
        return "log relays"
    return "s6" if name.startswith("s6-") else "ocserv"


# --- what was found ---------------------------------------------------------------------------


def _found(
    starts: dict[str, Series],
    stages: dict[str, Series],
    launched: dict[str, Series],
    restarts: dict[int, Series],
    weights: dict[int, dict[str, Weight]],
) -> Found:
    top = max(restarts)
    added = launched[_LAUNCHER].above(launched[_ENTRY]).median
    back = max(restarts[top].values)
    control = {count: weight["control"] for count, weight in weights.items()}
    return Found(
        "start",
        "Start, restart, memory",
        (
            _times("Start to listening on 443 (ms)", starts, BARE),
            _times("A start's stages (ms)", stages, None),
            _times("--version: the launcher (ms)", launched, _ENTRY),
            _times(
                "kill -9 of control to its successor listening, all sessions re-adopted (ms)",
                {f"{count:,} sessions": series for count, series in restarts.items()},
                f"{min(restarts):,} sessions",
            ),
            _memory(weights),
        ),
        (
            Headline("start to listening", f"{starts[SET_UP].median * 1000:.0f} ms"),
            Headline("first start to listening", f"{starts[FIRST].median * 1000:.0f} ms"),
            Headline(
                f"control killed to back with {top:,} sessions, slowest",
                f"{back * 1000:.0f} ms",
                f"{AIM_RESTART:.0f} s",
                back <= AIM_RESTART,
            ),
            Headline(
                "launcher adds",
                f"{added * 1000:.1f} ms",
                f"{AIM_LAUNCHER * 1000:.0f} ms",
                added <= AIM_LAUNCHER,
            ),
            Headline("memory of control at rest (PSS)", f"{control[min(control)].pss:.0f} MiB"),
            Headline(
                f"memory of control with {top:,} sessions (PSS)", f"{control[top].pss:.0f} MiB"
            ),
        ),
        {f"{name}, ms": s.scaled(1000) for name, s in (starts | launched).items()}
        | {f"restart with {count}, ms": s.scaled(1000) for count, s in restarts.items()},
    )


def _times(title: str, found: dict[str, Series], base: str | None) -> Table:
    columns = ("What", "median", "least", "most", *([f": {base}"] if base else []))
    rows = []
    for name, series in found.items():
        shown = (series.median, min(series.values), max(series.values))
        ratio = [f"{series.over(found[base]).median:.2f}"] if base else []
        rows.append((name, *(f"{seconds * 1000:.1f}" for seconds in shown), *ratio))
    count = len(next(iter(found.values())).values)
    return Table(title, columns, tuple(rows), (f"{count} of each, in turn.",))


def _memory(weights: dict[int, dict[str, Weight]]) -> Table:
    rows = []
    for count, parts in weights.items():
        for part, weight in sorted(parts.items()):
            figures = (f"{weight.processes}", f"{weight.rss:.1f}", f"{weight.pss:.1f}")
            rows.append((f"{part}, {count:,} sessions", *figures))
    note = f"Python {sys.version_info.major}.{sys.version_info.minor}; after the restarts above."
    return Table("Memory (MiB)", ("Part", "processes", "RSS", "PSS"), tuple(rows), (note,))
