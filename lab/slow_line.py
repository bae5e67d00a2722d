"""A slow line between a tunnel's client and its server: a relay of UDP with a rate, a deep buffer
and loss, in userspace, since not every kernel has netem.

    client ──> listen  [ queue | rate | loss | delay ]  to ──> server
           <──         [ queue | rate | loss | delay ]     <──

Each direction is a queue of its own, that drops what does not fit, as a modem's does.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from ocgate.netlab.namespace import Namespace

_LONGEST = 65535
_JITTER = 0.02  # seconds of its buffer
_TICK = 0.05  # seconds; the thread looks so often whether it shall end


@dataclass
class Line:
    """rate: bytes a second. buffer: seconds that fit into its queue. loss: of each packet.
    delay: seconds that a packet takes in an empty line. dead: carries nothing."""

    rate: float
    buffer: float = 2.0
    loss: float = 0.0
    delay: float = 0.02
    dead: bool = False


@dataclass
class _Way:
    """One direction. free: when the line has sent all that is queued."""

    line: Line
    chance: random.Random
    free: float = 0.0
    queue: deque[tuple[float, bytes]] = field(default_factory=deque)
    carried: int = 0
    dropped: int = 0

    def put(self, packet: bytes, now: float) -> None:
        line = self.line
        # No real line is so regular that a stream which fills it always comes just before others.
        full = self.free - now > line.buffer - self.chance.random() * _JITTER
        if line.dead or full or self.chance.random() < line.loss:
            self.dropped += 1
            return
        self.free = max(self.free, now) + len(packet) / line.rate
        self.queue.append((self.free + line.delay, packet))

    def due(self, now: float) -> bytes | None:
        """The next packet that has arrived at the other end."""
        if not self.queue or self.queue[0][0] > now:
            return None
        packet = self.queue.popleft()[1]
        if self.line.dead:
            return None
        self.carried += len(packet)
        return packet


class SlowLine:
    """Relays until closed. One client at a time: who sent last."""

    def __init__(
        self,
        netns: Namespace,
        listen: tuple[IPv4Address, int],
        to: tuple[IPv4Address, int],
        line: Line,
        *,
        seed: int = 1,
    ) -> None:
        with netns.entered():
            self._near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._near.bind((str(listen[0]), listen[1]))
        self._far.connect((str(to[0]), to[1]))
        for sock in (self._near, self._far):
            sock.settimeout(0)
        self.line = line
        self.up, self.down = (_Way(line, random.Random(seed + n)) for n in range(2))
        self._client: tuple[str, int] | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="slow line")
        self._thread.start()

    def close(self) -> None:
        """Twice is fine."""
        self._closing.set()
        self._thread.join()
        self._near.close()
        self._far.close()

    def _work(self) -> None:
        while not self._closing.is_set():
            now = time.monotonic()
            moments = [way.queue[0][0] for way in (self.up, self.down) if way.queue]
            wait = min([_TICK, *(max(moment - now, 0.0) for moment in moments)])
            readable, _, _ = select.select([self._near, self._far], [], [], wait)
            for sock in readable:
                self._take(sock)
            self._deliver()

    def _take(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):  # nothing more; or an ICMP error of a closed port
            while True:
                packet, sender = sock.recvfrom(_LONGEST)
                if sock is self._near:
                    self._client = sender
                    self.up.put(packet, time.monotonic())
                else:
                    self.down.put(packet, time.monotonic())

    def _deliver(self) -> None:
        now = time.monotonic()
        while (packet := self.up.due(now)) is not None:
            with contextlib.suppress(OSError):
                self._far.send(packet)
        while (packet := self.down.due(now)) is not None:
            if self._client is not None:
                with contextlib.suppress(OSError):
                    self._near.sendto(packet, self._client)
