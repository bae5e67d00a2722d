"""How long clients of the compose examples are without internet, fault by fault, as containers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bench.measure import Series
from bench.report import Found, Headline, Table
from bench.size import Size
from lab.chained import Chained
from lab.chained_examples import by_name, cascade, one_upstream
from lab.docker_host import DockerHosts, Machines

ONE, NAME, CASCADE = "examples/one-upstream", "examples/by-name", "examples/cascade, node A"

# What a client notices: the probe's three failures before it is rejected, two successes after.
AIM_REJECTED = 5.0  # seconds, docs/gateway-mode.md has 3.9 for a gateway that is gone


@dataclass
class Taken:
    """Seconds by example and by what was done, round after round."""

    seconds: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, example: str, chain: Chained) -> None:
        for what, seconds in chain.recoveries.items():
            self.seconds.setdefault((example, what), []).append(seconds)

    def series(self) -> dict[tuple[str, str], Series]:
        return {what: Series(tuple(values)) for what, values in self.seconds.items()}


def measure(size: Size) -> Found:
    """All faults of each example, one after the other, nothing else on the machine."""
    taken = Taken()
    for _ in range(size.of(1, 1, 5)):
        for example, run in RUNS[: size.of(1, 3, 3)]:
            taken.add(example, run())
    return _found(taken.series())


def _one_upstream() -> Chained:
    with DockerHosts() as site:
        c = one_upstream(site)
        c.rejected_after("exit stopped", lambda: c.project.compose("stop", "exit"))
        c.measured("exit started again", lambda: c.project.compose("start", "exit"))
        c.measured("exit recreated", lambda: c.project.up("exit", recreate=True))
        c.measured("exit killed (-9)", lambda: c.kill("exit"))
        c.renew_server("server recreated, client logged in anew")
        return c


def _by_name() -> Chained:
    with DockerHosts() as site:
        c = by_name(site)
        c.measured(
            "exit recreated under another address", lambda: c.project.up(c.exit, recreate=True)
        )
        return c


def _cascade() -> Chained:
    with DockerHosts(Machines(hosts=2)) as site:
        there, c = cascade(site)
        c.rejected_after("node B stopped", lambda: there.compose("stop", "ocgate"))
        c.measured("node B started again", lambda: there.compose("start", "ocgate"))
        c.measured("exit recreated", lambda: c.project.up("exit", recreate=True))
        c.measured("exit killed (-9)", lambda: c.kill("exit"))
        return c


RUNS: tuple[tuple[str, Callable[[], Chained]], ...] = (
    (ONE, _one_upstream),
    (NAME, _by_name),
    (CASCADE, _cascade),
)


def _found(series: dict[tuple[str, str], Series]) -> Found:
    rejected = series[ONE, "exit stopped: clients are rejected"]
    back = series[ONE, "exit started again"]
    return Found(
        "examples",
        "The compose examples: until clients' packets pass again",
        tuple(_tables(series)),
        (
            Headline(
                "exit container stopped: clients are rejected, median",
                f"{rejected.median:.1f} s",
                f"{AIM_REJECTED:.0f} s",
                rejected.median <= AIM_REJECTED,
            ),
            Headline(
                "exit container started again: clients get out, median", f"{back.median:.1f} s"
            ),
        ),
        {f"{example}: {what}, s": values for (example, what), values in series.items()},
    )


def _tables(series: dict[tuple[str, str], Series]) -> Iterator[Table]:
    notes = (
        "From before the command (podman-compose, or the kill) to the client's first answer; the "
        "command is part of it, and so is the container's start. podman restarts a killed "
        "container by its policy, as docker does.",
    )
    for example in dict.fromkeys(example for example, _ in series):
        rows = tuple(
            (what, f"{values.median:.1f}", f"{max(values.values):.1f}", str(len(values.values)))
            for (where, what), values in series.items()
            if where == example
        )
        yield Table(f"{example} (s)", ("What", "median", "longest", "times"), rows, notes)
