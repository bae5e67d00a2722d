"""A line that is simulated, for the model of liveness: rate, buffer, loss, load, and its end.

Fluid: a queue in each direction grows by what is offered above the rate, and drops what it can't
hold. A probe waits in both queues, and may be lost in each. Clients' TCP keeps a queue full, and
what it receives is acknowledged back; UDP is sent whatever comes of it.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from ocgate.upstream import liveness
from ocgate.upstream.line import Counters, Line, Pace, State

STEP = 0.01  # seconds of the fluid
ACKNOWLEDGED = 0.03  # bytes of acknowledgements for each byte of TCP


@dataclass
class Load:
    """Bytes a second that clients offer: UDP and TCP, towards the exit and back from it. TCP takes
    what the line gives, up to that."""

    udp_up: float = 0.0
    udp_down: float = 0.0
    tcp_up: float = 0.0
    tcp_down: float = 0.0


IDLE = Load()


@dataclass
class Way:
    """One direction."""

    rate: float
    buffer: float  # seconds
    backlog: float = 0.0
    loss: float = 0.0  # of what is offered now, because the queue is full

    def carry(self, offered: float, seconds: float) -> float:
        """Bytes that came out at the other end in this time."""
        waiting = self.backlog + offered * seconds
        out = min(waiting, self.rate * seconds)
        left, most = waiting - out, self.rate * self.buffer
        self.backlog = min(left, most)
        self.loss = (left - most) / (offered * seconds) if left > most else 0.0
        return out

    @property
    def delay(self) -> float:
        return self.backlog / self.rate


@dataclass
class Simulated:
    """rate: bytes a second each way; trip, buffer: seconds; loss: of each packet, each way.
    dead: when it ends, and from when on it lives again. mute: targets that never answer.
    refuses: what is answered at once, while it is dead, by ICMP; '' for silence.
    load: what clients offer at a moment."""

    rate: float = 1e9
    trip: float = 0.02
    buffer: float = 0.0
    loss: float = 0.0
    dead: tuple[float, float] = (float("inf"), float("inf"))
    mute: frozenset[str] = frozenset()
    refuses: str = ""
    load: Callable[[float], Load] = lambda _: IDLE
    seed: int = 1
    frozen: Callable[[float], float] = lambda moment: moment  # when a wake-up really happens
    sent: float = 0.0
    back: float = 0.0
    now: float = 0.0
    states: list[tuple[float, State, str]] = field(default_factory=list)
    line: Line = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.up, self.down = Way(self.rate, self.buffer), Way(self.rate, self.buffer)
        self._tcp = 0.0  # its share of what waits on the way up
        self._coming: list[tuple[float, int, str, float]] = []

    def alive(self, at: float) -> bool:
        return not self.dead[0] <= at < self.dead[1]

    def run(
        self,
        seconds: float,
        *,
        pace: Pace | None = None,
        targets: tuple[str, ...] = ("a", "b", "c", "d"),
    ) -> Simulated:
        """Let the model watch it for so long."""
        self.line = liveness.begin(pace or Pace(), targets, 0.0)
        while self.now < seconds:
            moment = liveness.wakes(self.line, self.now)
            if self._coming:
                moment = min(moment, self._coming[0][0])
            self._flow(max(self.frozen(moment), self.now + 1e-4))
            self._receive()
            counters = Counters(int(self.sent), int(self.back))
            self.line = liveness.looked(self.line, counters, self.now)
            self.line = liveness.passed(self.line, self.now)
            self._note()
            if names := liveness.asks(self.line, self.now):
                jitter = self.random.uniform(0.9, 1.1)
                self.line = liveness.asked(self.line, names, self.now, jitter=jitter)
                for name in names:
                    self._ask(self.line.number, name)
                self._note()
        return self

    def seconds_until(self, state: State, after: float) -> float:
        """From `after` on until it is in this state; infinite if never."""
        moments = [at for at, found, _ in self.states if found is state and at >= after]
        return min(moments, default=float("inf")) - after

    @property
    def changes(self) -> list[tuple[float, State, str]]:
        """Of what people see: suspicion is none."""
        found: list[tuple[float, State, str]] = []
        for entry in self.states:
            if entry[1] is not State.SUSPECT and (not found or found[-1][1] is not entry[1]):
                found.append(entry)
        return found

    def _note(self) -> None:
        if not self.states or self.states[-1][1] is not self.line.state:
            self.states.append((self.now, self.line.state, self.line.why))

    def _ask(self, number: int, name: str) -> None:
        if not self.alive(self.now):
            if self.refuses:
                self.line = liveness.refused(self.line, number, name, self.refuses, self.now)
            return
        dropped = any(
            self.random.random() < chance
            for chance in (self.loss, self.loss, self.up.loss, self.down.loss)
        )
        if dropped or name in self.mute:
            return
        arrives = self.now + self.trip + self.up.delay + self.down.delay
        if self.alive(arrives):
            heapq.heappush(self._coming, (arrives, number, name, self.now))

    def _receive(self) -> None:
        while self._coming and self._coming[0][0] <= self.now:
            at, number, name, sent = heapq.heappop(self._coming)
            self.line = liveness.answered(self.line, number, name, at - sent, self.now)

    def _flow(self, until: float) -> None:
        while self.now < until:
            seconds = min(STEP, until - self.now)
            self.now += seconds
            load, alive = self.load(self.now), self.alive(self.now)
            if not alive:  # TCP stops for want of acknowledgements, UDP does not
                self.sent += load.udp_up * seconds
                continue
            # TCP fills what there is, and keeps the buffer full without losing more than it must.
            tcp_up = min(load.tcp_up, self.rate * 1.05) if load.tcp_up else 0.0
            tcp_down = min(load.tcp_down, self.rate * 1.05) if load.tcp_down else 0.0
            offered_up = load.udp_up + tcp_up + tcp_down * ACKNOWLEDGED
            if offered_up:
                self._tcp = tcp_up / offered_up
            # Acknowledged is what has come through the queue, also when nobody sends any more.
            acknowledged = self.up.carry(offered_up, seconds) * self._tcp * ACKNOWLEDGED
            offered_down = load.udp_down + tcp_down + acknowledged / seconds
            self.sent += offered_up * seconds
            self.back += self.down.carry(offered_down, seconds) * (1 - self.loss)
