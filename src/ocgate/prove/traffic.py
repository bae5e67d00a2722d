"""Continuous traffic of all clients, and what comes back to them: one thread, paced.

It holds the tuns of the live sessions. Each tick sends what is due of every client's cycle and
reads what the gateway has put into the tuns; nothing is allocated per packet that is sent.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator

from ocgate.netlab.packet import ICMP, ICMPV6, RST, TCP
from ocgate.plan.facts import Family
from ocgate.prove import marker
from ocgate.prove.internet import TCP_DOWNLOAD_PORT
from ocgate.prove.marker import Kind
from ocgate.prove.packets import (
    ECHO_PORT,
    FIRST_PORT,
    LAST_PORT,
    METADATA,
    NEW_PORT,
    Identity,
    Targets,
    Template,
    cycle,
)
from ocgate.prove.tcp_flow import TcpFlow

RATE = 700  # packets a second and client: three clients leave half of two cores to what is proven
TICK = 0.005  # seconds
TCP_TICK = 0.02  # seconds between two segments of a flow
_MOST_AT_ONCE = 64  # after a stall the pace goes on; it doesn't catch up in one burst


class Station:
    """One live session as the traffic sees it: tun, cycle, flows."""

    def __init__(self, me: Identity, descriptor: int, targets: Targets, traffic: Traffic) -> None:
        self.me = me
        self.descriptor = descriptor
        self.cycle: list[Template] = cycle(me, targets)
        self.at = 0
        self.due = time.monotonic()
        # Whom a SYN was for tells of which kind it was, where an answer carries no marker.
        self.kinds = {a.packed: Kind.TCP_NEW for a in targets.services}
        self.kinds |= {a.packed: Kind.DOCKER for a in targets.docker}
        self.kinds |= {a.packed: Kind.EXIT for a in targets.exits}
        self.kinds[METADATA.packed] = Kind.METADATA
        self.flows = [
            TcpFlow(
                kind, me.session, me.address(family), service, port,
                send=self.write, fault=lambda: traffic.fault,
            )
            for family in me.families
            for service in targets.services if service.version == family
            for kind, port in ((Kind.TCP, ECHO_PORT), (Kind.TCP_DOWNLOAD, TCP_DOWNLOAD_PORT))
        ]  # fmt: skip

    def write(self, packet: bytes | bytearray) -> None:
        """Into the tun; while the device is down the packet is lost, as it would be."""
        with contextlib.suppress(OSError):
            os.write(self.descriptor, packet)


class Traffic:
    """Sends and listens until closed. Counts are by (fault, kind, family).

    fault: the number in every marker from now on.
    sent, replies, rejected: client packets, answers to them, ICMP errors and RSTs for them.
    resets: the RSTs among these.
    crossed: packets of one session that another one got.
    focus: the kinds that are sent beside UDP; empty: all.
    """

    def __init__(self) -> None:
        self.fault = 0
        self.focus: frozenset[Kind] = frozenset()
        self.sent: Counter[tuple[int, int, int]] = Counter()
        self.replies: Counter[tuple[int, int, int]] = Counter()
        self.rejected: Counter[tuple[int, int, int]] = Counter()
        self.resets: Counter[tuple[int, int, int]] = Counter()
        self.crossed: Counter[tuple[int, int, int]] = Counter()
        self.sequence = 0
        self._answered: dict[tuple[int, int], float] = {}  # by session and family, since `ask`
        self._asked = 0
        self._port = FIRST_PORT
        self._stations: dict[int, Station] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True, name="traffic")
        self._thread.start()

    # --- who sends ----------------------------------------------------------------------------

    def add(self, me: Identity, descriptor: int, targets: Targets) -> Station:
        """A session begins to send and to listen."""
        station = Station(me, descriptor, targets, self)
        with self._lock:
            self._stations[descriptor] = station
        return station

    def move(self, station: Station, descriptor: int) -> int:
        """The same client on another tun, its flows with it; returns the old descriptor."""
        with self._lock:
            old = station.descriptor
            del self._stations[old]
            station.descriptor = descriptor
            self._stations[descriptor] = station
        return old

    def remove(self, station: Station) -> None:
        """It falls silent; its descriptor may be closed then."""
        with self._lock:
            self._stations.pop(station.descriptor, None)

    def close(self) -> None:
        """Stop; twice is fine."""
        self._closing.set()
        self._thread.join()

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Nobody sends inside of the block."""
        with self._lock:
            held, self._stations = self._stations, {}
        try:
            yield
        finally:
            with self._lock:
                self._stations = {**held, **self._stations}

    # --- questions ----------------------------------------------------------------------------

    def total(self, fault: int) -> int:
        """Client packets sent during that fault."""
        return sum(count for (number, _, _), count in tuple(self.sent.items()) if number == fault)

    def ask(self) -> float:
        """From now on `answered` is about packets sent after this moment, which it returns."""
        with self._lock:
            self._answered = {}
            self._asked = self.sequence
        return time.monotonic()

    def answered(self) -> dict[tuple[int, Family], float]:
        """When each session's UDP was answered first since `ask`, by session and family."""
        self.check()
        return dict(self._answered)  # type: ignore[arg-type]

    def check(self) -> None:
        """Raise what has ended the thread, if anything did."""
        if self._error is not None:
            raise self._error

    # --- the thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            next_tcp = 0.0
            while not self._closing.is_set():
                with self._lock:
                    stations = tuple(self._stations.values())
                    now = time.monotonic()
                    for station in stations:
                        self._send_due(station, now)
                    if now >= next_tcp:
                        next_tcp = now + TCP_TICK
                        self._tick_flows(stations)
                    self._listen(stations)
                self._wait(stations, TICK)
        except BaseException as error:
            self._error = error

    def _wait(self, stations: tuple[Station, ...], seconds: float) -> None:
        poll = select.poll()
        for station in stations:
            poll.register(station.descriptor, select.POLLIN)
        deadline = time.monotonic() + seconds
        poll.poll(seconds * 1000)
        # What comes is read in bunches: at the next tick, or at once where much is waiting.
        self._closing.wait(max(0.0, deadline - time.monotonic()))

    def _send_due(self, station: Station, now: float) -> None:
        count = int((now - station.due) * RATE)
        if count <= 0:
            return
        station.due += count / RATE
        templates, at = station.cycle, station.at
        focus = self.focus and self.focus | {Kind.UDP}
        left = min(count, _MOST_AT_ONCE)
        for _ in range(len(templates)):
            if not focus or templates[at].kind in focus:
                self._emit(station, templates[at])
                left -= 1
            at = (at + 1) % len(templates)
            if not left:
                break
        station.at = at

    def _emit(self, station: Station, template: Template) -> None:
        self.sequence += 1
        packet, fault, sequence, port = template.packet, self.fault, self.sequence, 0
        if template.port:
            port = self._port = self._port + 1 if self._port < LAST_PORT else FIRST_PORT
            struct.pack_into("!H", packet, template.port, port)
        filler = marker.filler(fault, sequence, port)
        for at in template.marks:
            marker.pack_changing(packet, at, fault, sequence, filler)
        try:
            os.write(station.descriptor, packet)
        except OSError:
            return
        self.sent[fault, template.kind, template.family] += 1

    def _tick_flows(self, stations: tuple[Station, ...]) -> None:
        for station in stations:
            for flow in station.flows:
                flow.tick()
                self.sent[self.fault, flow.kind, flow.family] += 1

    def _listen(self, stations: tuple[Station, ...]) -> None:
        for station in stations:
            with contextlib.suppress(BlockingIOError, OSError):
                for _ in range(512):
                    self._hear(station, os.read(station.descriptor, 2048))

    def _hear(self, station: Station, packet: bytes) -> None:
        is_v4 = packet[0] >> 4 == 4
        head, protocol, family = (20, packet[9], 4) if is_v4 else (40, packet[6], 6)
        found = marker.find(packet)
        if protocol == TCP and self._hear_tcp(station, packet, head, family):
            return
        if found is None:
            return
        key = (found.fault, found.kind, family)
        if protocol in (ICMP, ICMPV6) and packet[head] in (3, 1):
            self.rejected[key] += 1
            return
        if found.session != station.me.session:
            self.crossed[key] += 1
            return
        self.replies[key] += 1
        if found.kind == Kind.UDP and found.sequence > self._asked:
            self._answered.setdefault((found.session, family), time.monotonic())

    def _hear_tcp(self, station: Station, packet: bytes, head: int, family: int) -> bool:
        """Segments without a marker of ours: they say by their ports whom they are for."""
        sport, dport = struct.unpack_from("!HH", packet, head)
        reset = bool(packet[head + 13] & RST)
        peer = packet[12:16] if family == 4 else packet[8:24]
        kind = station.kinds.get(peer, Kind.SPOOF)
        if sport != NEW_PORT:
            flow = next((f for f in station.flows if (f.sport, f.family) == (dport, family)), None)
            if flow is None:
                return False
            kind = flow.kind
            flow.heard(packet, head)
            if not reset and marker.MAGIC in packet:
                return False  # counted as any reply
        counts = self.rejected if reset else self.replies
        counts[self.fault, kind, family] += 1
        self.resets[self.fault, kind, family] += reset
        return True
