"""TCP through the tunnel: real openconnect, real ocserv, iperf3, against bare ocserv with NAT.

Two figures of the same flows. Mbit/s is what a user sees, and moves with everything else that runs
on the machine. CPU time a byte, of all that takes part (client, router, server, service), is what
bounds Mbit/s on cores that are full, as here, and hardly moves; the aim is judged by it.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.measure import Series, in_turn
from bench.pair import BARE, OCGATE, Side, pair
from bench.report import Found, Headline, Table
from bench.size import Size
from lab import client
from lab.streams import iperf
from lab.topology import SERVICE, Lab

AIM = 0.98  # of bare ocserv with hand-made NAT (issue 2)

DIRECTIONS: Mapping[str, tuple[str, ...]] = {"download": ("--reverse",), "upload": ()}


def measure(size: Size) -> Found:
    """Both servers, both transports, both directions, in turn."""
    found: dict[str, Measured] = {}
    transports = ("DTLS",) if size is Size.SMOKE else ("TLS", "DTLS")
    with pair() as sides:
        for transport in transports:
            found |= _measured(sides, transport, size)
    return _found(found, [f"{t} {d}" for t in transports for d in DIRECTIONS])


@dataclass(frozen=True)
class Measured:
    """bit/s; CPU seconds a byte of tunnelled data."""

    rate: Series
    cpu: Series


@dataclass
class _Flow:
    """One kind of flow through one server; `cpu` grows with each measurement."""

    side: Side
    options: tuple[str, ...]
    seconds: int
    cpu: list[float] = field(default_factory=list)

    def run(self) -> float:
        """bit/s of one flow."""
        before = _cpu_seconds(self.side.lab)
        rate = iperf(
            self.side.lab, self.side.lab.clients[0], SERVICE,
            seconds=self.seconds, options=self.options,
        )  # fmt: skip
        spent = _cpu_seconds(self.side.lab) - before
        self.cpu.append(spent / (rate * self.seconds / 8))
        return rate


def _cpu_seconds(lab: Lab) -> float:
    """CPU time of all that ran in a lab: what lives there, and what ended (iperf3, our children).

    Run time as the scheduler counts it, in ns (proc(5), schedstat); it holds the softirqs that
    forward packets on behalf of the process that sent them.
    """
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = ended.ru_utime + ended.ru_stime
    for host in lab.hosts():
        for pid in host.netns.pids():
            with contextlib.suppress(OSError):
                total += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    return total


def _measured(sides: Mapping[str, Side], transport: str, size: Size) -> dict[str, Measured]:
    """By "TRANSPORT DIRECTION, SERVER"."""
    dtls = transport == "DTLS"
    clients = [client.connect(s.lab, s.lab.clients[0], s.login, dtls=dtls) for s in sides.values()]
    flows = {
        f"{transport} {direction}, {name}": _Flow(side, options, size.of(1, 1, 2))
        for direction, options in DIRECTIONS.items()
        for name, side in sides.items()
    }
    rates = in_turn(size.of(1, 1, 10), {name: flow.run for name, flow in flows.items()})
    for each in clients:
        each.disconnect()
    return {name: Measured(rates[name], Series(tuple(f.cpu))) for name, f in flows.items()}


def _found(found: dict[str, Measured], kinds: list[str]) -> Found:
    rates = _Comparison([_sides(found, kind, "rate") for kind in kinds], 1e-6, kinds)
    cpu = _Comparison([_sides(found, kind, "cpu") for kind in kinds], 1e9, kinds)
    rounds = len(found[f"{kinds[0]}, {BARE}"].rate.values)
    note = (
        f"{rounds} rounds; in each, every flow once on either server, in turn. Client, router, "
        "server and service share the same cores, which encryption fills."
    )
    all_rates, all_cpu = rates.pooled(), cpu.pooled().inverse()
    return Found(
        "throughput",
        "Throughput through the tunnel",
        (
            rates.table("One TCP flow through the tunnel (Mbit/s)", note),
            cpu.table(
                "CPU time a byte of it, of everything that takes part (ns)",
                "Its inverse is the throughput of full cores.",
            ),
        ),
        (
            Headline(
                "throughput through ocserv by CPU time a byte, TLS and DTLS, both directions",
                f"{all_cpu.median:.3f} of bare",
                f"{AIM}",
                all_cpu.median >= AIM,
            ),
            Headline("the same by Mbit/s", f"{all_rates.median:.3f} of bare"),
        ),
        {f"{name}, Mbit/s": one.rate.scaled(1e-6) for name, one in found.items()}
        | {f"{name}, CPU ns a byte": one.cpu.scaled(1e9) for name, one in found.items()},
    )


def _sides(found: dict[str, Measured], kind: str, what: str) -> tuple[Series, Series]:
    """(bare, ocgate) of one kind of flow."""
    bare, ours = (getattr(found[f"{kind}, {name}"], what) for name in (BARE, OCGATE))
    return bare, ours


@dataclass(frozen=True)
class _Comparison:
    """(bare, ocgate) by kind of flow; scale: to the unit of the table."""

    pairs: list[tuple[Series, Series]]
    scale: float
    kinds: list[str]

    def pooled(self) -> Series:
        """All rounds' ratios of ocgate to bare."""
        ratios = [ours.over(bare) for bare, ours in self.pairs]
        return Series(tuple(value for ratio in ratios for value in ratio.values))

    def table(self, title: str, note: str) -> Table:
        rows = []
        for kind, (bare, ours) in zip(self.kinds, self.pairs, strict=True):
            medians = [f"{series.median * self.scale:.1f}" for series in (bare, ours)]
            rows.append((kind, *medians, *_ratio(ours.over(bare))))
        rows.append(("all", "", "", *_ratio(self.pooled())))
        columns = ("Flow", BARE, OCGATE, "ocgate : bare", "half of the rounds")
        return Table(title, columns, tuple(rows), (note,))


def _ratio(ratio: Series) -> tuple[str, str]:
    low, high = ratio.spread
    return f"{ratio.median:.3f}", f"{low:.3f} to {high:.3f}"
