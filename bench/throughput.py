"""TCP through the tunnel: real openconnect, real ocserv, iperf3, against bare ocserv with NAT."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from bench.measure import Measurement, Series, in_turn
from bench.pair import BARE, OCGATE, Side, pair
from bench.report import Found, Headline, Table
from bench.size import Size
from ocgate.lab import client
from ocgate.lab.streams import iperf
from ocgate.lab.topology import SERVICE

AIM = 0.98  # of bare ocserv with hand-made NAT (issue 2)

DIRECTIONS: Mapping[str, tuple[str, ...]] = {"download": ("--reverse",), "upload": ()}


def measure(size: Size) -> Found:
    """Both servers, both transports, both directions, in turn."""
    found: dict[str, Series] = {}
    transports = ("DTLS",) if size is Size.SMOKE else ("TLS", "DTLS")
    with pair() as sides:
        for transport in transports:
            found |= _measured(sides, transport, size)
    return _found(found, [f"{t} {d}" for t in transports for d in DIRECTIONS])


def _measured(sides: Mapping[str, Side], transport: str, size: Size) -> dict[str, Series]:
    """bit/s by "TRANSPORT DIRECTION, SERVER"."""
    dtls = transport == "DTLS"
    clients = [client.connect(s.lab, s.lab.clients[0], s.login, dtls=dtls) for s in sides.values()]
    flows: dict[str, Measurement] = {
        f"{transport} {direction}, {name}": functools.partial(
            iperf, side.lab, side.lab.clients[0], SERVICE,
            seconds=size.of(1, 1, 2), options=options,
        )
        for direction, options in DIRECTIONS.items()
        for name, side in sides.items()
    }  # fmt: skip
    found = in_turn(size.of(1, 1, 10), flows)
    for each in clients:
        each.disconnect()
    return found


def _found(found: dict[str, Series], kinds: list[str]) -> Found:
    rows, ratios = [], []
    for kind in kinds:
        bare, ours = found[f"{kind}, {BARE}"], found[f"{kind}, {OCGATE}"]
        ratio = ours.over(bare)
        ratios.append(ratio)
        low, high = ratio.spread
        mbits = [f"{series.median / 1e6:.0f}" for series in (bare, ours)]
        rows.append((kind, *mbits, f"{ratio.median:.3f}", f"{low:.3f} to {high:.3f}"))
    pooled = Series(tuple(value for ratio in ratios for value in ratio.values))
    low, high = pooled.spread
    rows.append(("all", "", "", f"{pooled.median:.3f}", f"{low:.3f} to {high:.3f}"))
    rounds = len(ratios[0].values)
    table = Table(
        "One TCP flow through the tunnel (Mbit/s)",
        ("Flow", BARE, OCGATE, "ocgate : bare", "half of the rounds"),
        tuple(rows),
        (
            f"{rounds} rounds; in each, every flow once on either server, in turn. Client, server, "
            "router and service share the same cores, which ocserv's and openconnect's "
            "encryption fills.",
        ),
    )
    return Found(
        "throughput",
        "Throughput through the tunnel",
        (table,),
        (
            Headline(
                "throughput through ocserv, TLS and DTLS, both directions",
                f"{pooled.median:.3f} of bare",
                f"{AIM}",
                pooled.median >= AIM,
            ),
        ),
        {f"{name}, Mbit/s": series.scaled(1e-6) for name, series in found.items()},
    )
