"""The fault matrix against the plain configuration and against ocgate, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from bench.reference.subject import Reference
from bench.report import Found, Headline, Table
from bench.size import Size
from lab.addresses import UPSTREAM, UPSTREAM6
from lab.topology import Lab, Options
from ocgate.kernel import facts as machine
from ocgate.netlab.wait import wait_until
from ocgate.plan.exits import ExitKind
from ocgate.plan.facts import Facts
from ocgate.prove import configuration
from ocgate.prove.configuration import engine_of, has
from ocgate.prove.engine import PACKETS, Engine
from ocgate.prove.fault import Fault
from ocgate.prove.faults import chosen, matrix, possible
from ocgate.prove.internet import PUSH_SECONDS
from ocgate.prove.lock_faults import POSITIVE_CONTROL
from ocgate.prove.marker import USUAL, Kind
from ocgate.prove.outcome import Outcome, Proof
from ocgate.prove.subject import ClientNets, Ways
from ocgate.prove.twin import Wanted, twin
from ocgate.prove.verdict import Leak
from ocgate.prove.world import World

SUBNETS = (IPv4Network("10.10.10.0/24"), IPv6Network("fda9:4efe:7e3b:3ea::/64"))
GATEWAYS = (IPv4Address("10.10.10.1"), IPv6Address("fda9:4efe:7e3b:3ea::1"))
DEVICE = "vpns"
WAYS = Ways(ExitKind.GATEWAY, ExitKind.GATEWAY)
ENVIRON = {"VPN_GATEWAY": str(UPSTREAM), "VPN_GATEWAY6": str(UPSTREAM6), "IPV6_NAT": "1"}

# Faults that take away what only ocgate has.
_OURS = (
    "our routes flushed",
    "nftables layer alone",
    "policy-routing layer alone",
    "blackhole layer alone",
)
_FEW = ("nothing is broken", "session ended", "all rules flushed*")

_OUTSIDE = ("isp", "neighbour", "all", "unknown")
_SESSION = "another session"
_DOWN = (Kind.DOWNLOAD, Kind.TCP_DOWNLOAD)


def measure(size: Size) -> Found:
    """Both, over the same faults; a few of these but for the full size."""
    faults = _faults() if size is Size.FULL else chosen(_faults(), _FEW)
    packets = size.of(200, PACKETS, PACKETS)
    with _reference(packets) as engine:
        reference = _prove(engine, faults)
    with _ocgate(packets) as engine:
        ours = _prove(engine, faults)
    return _found(reference, ours)


def _prove(engine: Engine, faults: Iterable[Fault]) -> Proof:
    """After what has ended sessions wait until their downloads have ended, too: what still comes of
    these is not the next fault's."""
    met, former = has(engine.stage), [POSITIVE_CONTROL]

    def wait_for_downloads(fault: Fault) -> None:
        if former.pop().group in _ENDS_SESSIONS:
            ended = time.monotonic() + PUSH_SECONDS
            wait_until(lambda: time.monotonic() > ended, PUSH_SECONDS + 1, "downloads to end")
            engine.captures.drain()
        former.append(fault)

    engine.begun = wait_for_downloads
    return engine.prove(possible(tuple(faults), lambda need: need in met))


_ENDS_SESSIONS = (POSITIVE_CONTROL.group, "sessions", "processes", "kernel")


def _faults() -> list[Fault]:
    return [f for f in matrix(full=False) if not any(name in f.name for name in _OURS)]


@contextmanager
def _reference(packets: int) -> Iterator[Engine]:
    wanted = (Wanted(4, UPSTREAM, None), Wanted(6, UPSTREAM6, None))
    drawing = twin(_container(), wanted, SUBNETS, DEVICE)
    with World(drawing) as world:
        nets = ClientNets(SUBNETS, GATEWAYS, DEVICE)
        subject = Reference(world.gw, drawing, WAYS, nets)
        yield engine_of(world, subject, packets=packets)


@contextmanager
def _ocgate(packets: int) -> Iterator[Engine]:
    with configuration.config_dir({**ENVIRON, "OCGATE_CONFIG_DIR": "/nonexistent"}) as environ:
        asked = configuration.asks(environ)
        with configuration.staged(asked, _container(), packets=packets) as engine:
            yield engine


def _container() -> Facts:
    """What a container on a docker network sees of itself."""
    with Lab(Options(clients=0)) as lab, lab.gw.netns.entered():
        return machine.observe(session_prefix=DEVICE)


# --- what came of it ------------------------------------------------------------------------------


Sort = Callable[[Leak], bool]

# Heading -> which leaks are counted under it; the first that fits.
_SORTS: dict[str, Sort] = {
    "to another session": lambda leak: leak.where == _SESSION,
    "for clients, by the ISP": lambda leak: leak.where in _OUTSIDE and leak.kind in _DOWN,
    "of clients, by the ISP": lambda leak: leak.where in _OUTSIDE and leak.kind in USUAL,
    "forged, by the ISP or neighbours": lambda leak: (
        leak.where in _OUTSIDE and leak.kind is Kind.SPOOF
    ),
    "other, by the ISP or neighbours": lambda leak: leak.where in _OUTSIDE,
    "to the upstream, wrong": lambda _leak: True,
}


def sorted_leaks(outcome: Outcome) -> dict[str, int]:
    """Packets that leaked, by heading."""
    found = dict.fromkeys(_SORTS, 0)
    for leak, count in outcome.leaks.items():
        found[next(heading for heading, fits in _SORTS.items() if fits(leak))] += count
    return found


def _found(reference: Proof, ours: Proof) -> Found:
    theirs = {o.fault.name: o for o in reference.outcomes if not o.skipped}
    own = {o.fault.name: o for o in ours.outcomes if not o.skipped}
    rows = tuple(_row(outcome, own.get(name)) for name, outcome in theirs.items())
    columns = ("Fault", "sent", *_SORTS, "back after", "ocgate: sent", "ocgate: leaked", "back")
    table = Table("Packets that leaked, by fault", columns, rows, _NOTES)
    return Found(
        "reference",
        "A plain gateway configuration under the fault matrix",
        (table,),
        (*_headlines(tuple(theirs.values()), tuple(own.values())),),
    )


_NOTES = (
    "The plain configuration: `from SUBNET lookup 100`, a default route there, masquerade, a "
    "forward chain (policy accept) that drops a client's source by another next hop; nothing per "
    "session, nothing that repairs. See bench/reference/subject.py.",
    "Sent: packets of clients while the fault lasts and until all are answered again, at most "
    "15 s; where it never is, that is 15 s of the leak.",
    "To the upstream, wrong: with the client's own address, a forged source, or for a destination "
    "that is no client's business.",
)


def _row(theirs: Outcome, own: Outcome | None) -> tuple[str, ...]:
    counts = tuple(str(count) for count in sorted_leaks(theirs).values())
    ours = ("", "", "") if own is None else (str(own.sent), str(own.leaked), _back(own))
    return (theirs.fault.name, str(theirs.sent), *counts, _back(theirs), *ours)


def _back(outcome: Outcome) -> str:
    if outcome.failed:
        return "never"
    return "" if outcome.recovery is None else f"{outcome.recovery * 1000:.0f} ms"


def _headlines(theirs: Sequence[Outcome], own: Sequence[Outcome]) -> Iterator[Headline]:
    for what, headings in _HEADLINES.items():
        counts = [sum(sorted_leaks(outcome)[h] for h in headings) for outcome in theirs]
        figure = f"{sum(map(bool, counts))} of {len(theirs)}, {sum(counts)} packets"
        yield Headline(f"plain gateway configuration: faults with {what}", figure)
    leaked, sent = sum(o.leaked for o in own), sum(o.sent for o in own)
    what = "ocgate under the same faults: packets leaked"
    yield Headline(what, f"{leaked} of {sent} sent", "0", met=leaked == 0)


_HEADLINES = {
    "packets of or for clients by the ISP": ("of clients, by the ISP", "for clients, by the ISP"),
    "forged packets by the ISP or to neighbours": ("forged, by the ISP or neighbours",),
}
