"""A TCP connection of a synthetic client: just enough to stand in conntrack, and never to let go.

Data is sent again until it is acknowledged, as TCP does, so that an established flow presses on
whatever becomes of its way. One segment is under way at a time: always inside of any window.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable

from ocgate.netlab.packet import ACK, RST, SYN, build_tcp
from ocgate.plan.facts import Address
from ocgate.prove import marker
from ocgate.prove.marker import Kind

# At one every 20 ms a quarter of a second; then a new connection takes its place. Where none comes
# about (a busy machine takes longer to answer than that) each is given twice as many, up to 2 s.
_RESENDS, _MOST_RESENDS = 12, 96
_PORTS = itertools.cycle(range(10000, 19999))  # of all flows of this process

_TCP = struct.Struct("!HHIIBBH")


class TcpFlow:
    """One connection after the other from `src` to `dst`:`port`.

    send: what takes a packet; fault: asked for the number in the marker.
    """

    def __init__(
        self,
        kind: Kind,
        session: int,
        src: Address,
        dst: Address,
        port: int,
        *,
        send: Callable[[bytes], None],
        fault: Callable[[], int],
    ) -> None:
        self.kind = kind
        self.family = src.version
        self.sport = 0
        self.sent = 0
        self._session, self._src, self._dst, self._port = session, src, dst, port
        self._send, self._fault = send, fault
        self._open = False
        self._seq = self._ack = self._tries = 0
        self._resends = _RESENDS

    def tick(self) -> None:
        """Send what is due: a SYN, or the segment that nobody has acknowledged."""
        if self._tries > self._resends:
            self.sport, self._resends = 0, min(2 * self._resends, _MOST_RESENDS)
        if not self.sport:
            self.sport, self._open, self._tries, self._seq = next(_PORTS), False, 0, 1
        self._tries += 1
        self._emit(ACK if self._open else SYN, with_data=True)

    def _emit(self, flags: int, *, with_data: bool) -> None:
        data = b""
        if with_data:
            self.sent += 1
            data = marker.build(self.kind, self._session, self._fault(), self.sent)
        self._send(
            build_tcp(
                self._src, self._dst, self.sport, self._port,
                flags=flags, seq=self._seq, ack=self._ack if flags & ACK else 0, data=data,
            )
        )  # fmt: skip

    def heard(self, packet: bytes, head: int) -> bool:
        """A segment came for us; returns whether it was a reset."""
        _, _, seq, ack, offset, flags, _ = _TCP.unpack_from(packet, head)
        length = len(packet) - head - (offset >> 4) * 4
        if flags & RST:
            self.sport = 0
            return True
        if flags & SYN:
            if not self._open:
                self._open, self._seq, self._ack, self._tries = True, ack, seq + 1, 0
            return False
        if not self._open:
            return False
        if ack == (self._seq + marker.SIZE) & 0xFFFF_FFFF:
            self._seq, self._tries, self._resends = ack, 0, _RESENDS
        if length and seq == self._ack & 0xFFFF_FFFF:
            self._ack = (self._ack + length) & 0xFFFF_FFFF
            if self.kind is Kind.TCP_DOWNLOAD:
                self._tries, self._resends = 0, _RESENDS
                self._emit(ACK, with_data=False)
        return False
