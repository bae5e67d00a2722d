"""Attacks of clients that are more than a packet to the wrong place, and what clients are owed.

port shadow        flows from each low port to one that would send to the listener: does what
                   it sends there reach a client?
one client's flood flows without end to one service: are another client's answered meanwhile?
refusals are heard what may go nowhere is refused by RST and ICMP, and the client gets these
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from functools import partial

from ocgate.netlab.packet import build_udp
from ocgate.netlab.wait import TimedOut, wait_until
from ocgate.plan.facts import Address, Family
from ocgate.prove import marker
from ocgate.prove.clients import Client
from ocgate.prove.fault import Fault, Need, nothing
from ocgate.prove.marker import Kind
from ocgate.prove.stage import FAMILIES, Stage
from ocgate.prove.subject import Unsupported
from ocgate.prove.twin import address_of

HEARD_SECONDS = 10.0
MEETING = 4433  # where the accomplice listens and sends from; any port
LOW_PORTS = range(1, 512)  # what a masquerade without a range keeps together (nf_nat_core.c)
FLOODED = 4434  # where the flood goes; any port
FLOODER = "oscar"  # whom no other fault knows
FLOOD_PORTS = range(1024, 65536)  # more than there are ports to translate to, whatever the machine
BATCH = 256  # packets of a flood before it is looked for what came back
QUIET = 0.5  # seconds without anything: no more flows get through
BESIDE_PORTS = range(30800, 30808)  # eight new flows of another client
ASKED_AGAIN = 0.02  # seconds
NOBODY = 0  # the session in a marker that no client may ever get
_LISTENS = "07"  # /proc/net/udp: a socket without a peer (TCP_CLOSE)


# --- port shadow ----------------------------------------------------------------------------------


def port_shadow(stage: Stage) -> None:
    """The attack, and then what the accomplice sends to the listener: what a client gets of that
    counts as a packet of another session. That the flows stand is seen by their answers."""
    listener, client = _listener(stage), stage.clients.live[0]
    families = [family for family in client.me.families if family in stage.subject.ways.answered]
    for family in families:
        _open_flows(stage, client, family)
    keys = [(stage.traffic.fault, Kind.SHADOW, family) for family in families]
    heard = stage.traffic.replies
    wait_until(lambda: all(heard[key] for key in keys), HEARD_SECONDS, "answers to the flows")
    for family in families:
        _send_to_listener(stage, family, listener)


def _open_flows(stage: Stage, client: Client, family: Family) -> None:
    traffic, src, dst = stage.traffic, client.me.address(family), stage.twin.service(family)
    for port in LOW_PORTS:
        mark = marker.build(Kind.SHADOW, client.me.session, traffic.fault)
        client.station.write(build_udp(src, dst, port, MEETING, mark))
        traffic.sent[traffic.fault, Kind.SHADOW, family] += 1


def _send_to_listener(stage: Stage, family: Family, listener: int) -> None:
    mark = marker.build(Kind.SHADOW, NOBODY, stage.traffic.fault)
    isp = next(descriptor for role, descriptor in stage.world.internets if role == "isp")
    for own in _own(stage, family):
        os.write(isp, build_udp(stage.twin.service(family), own, MEETING, listener, mark))


def _own(stage: Stage, family: Family) -> Iterator[Address]:
    """gw's addresses: whoever is translated to any of them shares its ports."""
    for text in (text for segment in stage.twin.segments for text in segment.own):
        if address_of(text).version == family:
            yield address_of(text)


def _listener(stage: Stage) -> int:
    """A UDP port below 512 that this host listens on, asked of the kernel; raises Unsupported."""
    shown = stage.gw.run(["cat", "/proc/net/udp", "/proc/net/udp6"]).stdout
    rows = [words for line in shown.splitlines() if len(words := line.split()) > 3]
    ports = {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == _LISTENS}
    found = sorted(port for port in ports if port in LOW_PORTS)
    if not found:
        raise Unsupported("this host listens on no UDP port below 512")
    return found[-1]


# --- flood ----------------------------------------------------------------------------------------


def flood(stage: Stage) -> None:
    """A session sends from one port after the other to one service, until it hears that it is
    refused or nothing comes through any more, and goes on; raises TimedOut unless each of a few new
    flows of another client to that service is answered meanwhile. For each family a session of its
    own, with limits of its own."""
    for family in stage.families() & stage.subject.ways.answered:
        flooder = stage.clients.connect(FLOODER, stage.clients.next_host())
        ports = itertools.cycle(FLOOD_PORTS)
        _exhaust(stage, flooder, family, ports)
        for port in BESIDE_PORTS:
            _be_answered(stage, flooder, family, port, ports)


def _exhaust(stage: Stage, flooder: Client, family: Family, ports: Iterator[int]) -> None:
    traffic, key = stage.traffic, (stage.traffic.fault, Kind.FLOOD, family)

    def heard() -> tuple[int, int]:
        return traffic.replies[key], traffic.rejected[key]

    for _ in range(len(FLOOD_PORTS) // BATCH):
        before = heard()
        _send_some(stage, flooder, family, ports)
        with contextlib.suppress(TimedOut):
            wait_until(partial(_differs, heard, before), QUIET, "anything to come back")
        if traffic.rejected[key] or heard() == before:
            return


def _differs(heard: Callable[[], tuple[int, int]], before: tuple[int, int]) -> bool:
    return heard() != before


def _be_answered(
    stage: Stage, flooder: Client, family: Family, port: int, ports: Iterator[int]
) -> None:
    """A new flow of another client, asked for again and again beside more of the flood."""
    traffic, other = stage.traffic, stage.clients.live[0]
    key = (traffic.fault, Kind.BESIDE, family)
    before = traffic.replies[key]

    def answered() -> bool:
        if traffic.replies[key] > before:
            return True
        _send_some(stage, flooder, family, ports)
        _begin(stage, other, Kind.BESIDE, family, port)
        return False

    what = (
        f"an answer to another client's new flow, IPv{family} (OCGATE_SESSION_FLOWS is the limit)"
    )
    wait_until(answered, HEARD_SECONDS, what, interval=ASKED_AGAIN)


def _send_some(stage: Stage, flooder: Client, family: Family, ports: Iterator[int]) -> None:
    for port in itertools.islice(ports, BATCH):
        _begin(stage, flooder, Kind.FLOOD, family, port)


def _begin(stage: Stage, client: Client, kind: Kind, family: Family, port: int) -> None:
    traffic, src, dst = stage.traffic, client.me.address(family), stage.twin.service(family)
    mark = marker.build(kind, client.me.session, traffic.fault)
    client.station.write(build_udp(src, dst, port, FLOODED, mark))
    traffic.sent[traffic.fault, kind, family] += 1


def end_flood(stage: Stage) -> None:
    """Its sessions end."""
    for client in tuple(stage.clients.live):
        if client.lease.user == FLOODER:
            stage.clients.disconnect(client)


# --- refusals -------------------------------------------------------------------------------------


def hear_refusals(stage: Stage) -> None:
    """Wait until clients have heard of each kind that may go nowhere, by ICMP, and of those that
    are sent by TCP by RST as well; raises TimedOut with what was not heard."""
    traffic, number = stage.traffic, stage.traffic.fault
    wanted = [
        (number, kind, family)
        for kind in (Kind.METADATA, Kind.PEER, Kind.DOCKER, Kind.EXIT)
        for family in FAMILIES
        if traffic.sent[number, kind, family] and _refused(stage, kind, family)
    ]

    def unheard() -> list[str]:
        lacking = []
        for key in wanted:
            _, kind, family = key
            if traffic.rejected[key] <= traffic.resets[key]:
                lacking.append(f"{kind.word} IPv{family}: ICMP")
            if kind is not Kind.PEER and not traffic.resets[key]:
                lacking.append(f"{kind.word} IPv{family}: RST")
        return lacking

    try:
        wait_until(lambda: not unheard(), HEARD_SECONDS, "refusals")
    except TimedOut as error:
        raise TimedOut(f"{error}; not heard: {', '.join(unheard())}") from None


def _refused(stage: Stage, kind: Kind, family: Family) -> bool:
    return kind in (Kind.METADATA, Kind.PEER) or stage.subject.ways.closes_local(family)


FAULTS = (
    Fault("port shadow", "clients", port_shadow, focus=frozenset({Kind.SHADOW})),
    Fault(
        "one client's flood",
        "clients",
        flood,
        end_flood,
        needs=frozenset({Need.REPAIRS}),  # what others don't promise
        focus=frozenset({Kind.FLOOD, Kind.BESIDE}),
    ),
    Fault(
        "refusals are heard",
        "clients",
        nothing,
        hear_refusals,
        needs=frozenset({Need.REPAIRS}),  # what others don't promise
        focus=frozenset({Kind.METADATA, Kind.PEER, Kind.DOCKER, Kind.EXIT}),
    ),
)
