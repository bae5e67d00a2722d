"""Who answers: every address of the internet, as each way out sees it. One thread on tuns.

    UDP         the same datagram back; to port DOWNLOAD_PORT: the service pushes datagrams for
                PUSH_SECONDS, whether anybody is still there or not
    TCP         stateless: a SYN is acknowledged, data is acknowledged and echoed; on port
                TCP_DOWNLOAD_PORT data starts a push, one segment in flight, sent again until it is
                acknowledged
    ICMP echo   the reply

Answers are the question with addresses swapped, so whatever reached the internet is told to the
client in the words it used. Fragments and extension headers are not answered.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ocgate.netlab.packet import ACK, FIN, ICMP, ICMPV6, RST, SYN, TCP, UDP, checksum
from ocgate.prove import marker
from ocgate.prove.marker import Kind

DOWNLOAD_PORT = 19  # RFC 864, character generator: the nearest to it
TCP_DOWNLOAD_PORT = 80
PUSH_SECONDS = 2.0  # longer than a fault lasts, so that a download outlives its session
PUSH_INTERVAL = 0.01
_TICK_MS = 5
_ISN = 1000  # of the stateless server; a random one would be state

_TCP = struct.Struct("!HHIIBBH")


@dataclass
class _Push:
    """A download in flight. packet: what is sent, patched in place."""

    descriptor: int
    packet: bytearray
    at: int  # offset of the marker
    session: int
    until: float
    due: float
    tcp: bool = False
    acked: bool = True
    sequence: int = 0
    sent: int = field(default=0)


class Internet:
    """Answers on all of `tuns` (role, descriptor) until closed.

    fault: goes into what it pushes.  answered, pushed: packets so far.
    """

    def __init__(self, tuns: Sequence[tuple[str, int]]) -> None:
        self.fault = 0
        self.answered = 0
        self.pushed = 0
        self._tuns = [descriptor for _, descriptor in tuns]
        self._pushes: dict[bytes, _Push] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="internet")
        self._thread.start()

    @property
    def pushing(self) -> bool:
        """Whether a download is in flight."""
        return bool(self._pushes)

    def forget(self) -> None:
        """Push no download any more that was asked for until now."""
        self._pushes.clear()

    def close(self) -> None:
        """Stop answering; twice is fine."""
        self._closing.set()
        self._thread.join()

    def _work(self) -> None:
        poll = select.poll()
        for descriptor in self._tuns:
            poll.register(descriptor, select.POLLIN)
        while not self._closing.is_set():
            for descriptor, _ in poll.poll(_TICK_MS if self._pushes else 50):
                self._read(descriptor)
            self._push()

    def _read(self, descriptor: int) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(64):  # then the pushes have their turn
                packet = os.read(descriptor, 2048)
                reply = self._reply(descriptor, packet)
                if reply is not None:
                    self.answered += 1
                    _write(descriptor, reply)

    def _reply(self, descriptor: int, packet: bytes) -> bytes | None:
        if packet[0] == 0x45 and not (packet[6] & 0x3F or packet[7]):
            protocol, head = packet[9], 20
            swapped = packet[:12] + packet[16:20] + packet[12:16]
        elif packet[0] >> 4 == 6:
            protocol, head = packet[6], 40
            swapped = packet[:8] + packet[24:40] + packet[8:24]
        else:
            return None
        if protocol == UDP:
            return self._udp(descriptor, packet, swapped, head)
        if protocol == TCP:
            return self._tcp(descriptor, packet, swapped, head)
        if protocol in (ICMP, ICMPV6) and packet[head] in (8, 128):
            return swapped + _echo_reply(packet[head:])
        return None

    def _udp(self, descriptor: int, packet: bytes, swapped: bytes, head: int) -> bytes | None:
        ports = packet[head + 2 : head + 4] + packet[head : head + 2]
        reply = swapped + ports + packet[head + 4 :]
        if int.from_bytes(packet[head + 2 : head + 4], "big") != DOWNLOAD_PORT:
            return reply
        at = reply.find(marker.MAGIC)
        if at > 0:
            flow, now = _addresses(swapped) + ports, time.monotonic()
            held = self._pushes.get(flow)
            if held is None:
                self._pushes[flow] = _Push(
                    descriptor, bytearray(reply), at, reply[at + 7], now + PUSH_SECONDS, now
                )
            else:
                held.until, held.session = now + PUSH_SECONDS, reply[at + 7]
        return None

    def _tcp(self, descriptor: int, packet: bytes, swapped: bytes, head: int) -> bytes | None:
        sport, dport, seq, ack, offset, flags, _ = _TCP.unpack_from(packet, head)
        data = packet[head + (offset >> 4) * 4 :]
        if flags & RST:
            self._pushes.pop(_flow(swapped, dport, sport), None)
            return None
        if flags & SYN:  # data on a SYN carries the mark; it is not acknowledged (RFC 9293, 3.4)
            # A port that was somebody else's: TCP would have found that out, and ended the flow
            # that was (RFC 5961, 4.2).
            self._pushes.pop(_flow(swapped, dport, sport), None)
            return _segment(swapped, dport, sport, _ISN, seq + 1, SYN | ACK)
        if dport == TCP_DOWNLOAD_PORT:
            self._tcp_push(descriptor, swapped, sport, seq, ack, data)
            return None
        if flags & FIN:
            return _segment(swapped, dport, sport, ack, seq + len(data) + 1, FIN | ACK)
        return _segment(swapped, dport, sport, ack, seq + len(data), ACK, data) if data else None

    def _tcp_push(
        self, descriptor: int, swapped: bytes, port: int, seq: int, ack: int, data: bytes
    ) -> None:
        flow, now = _flow(swapped, TCP_DOWNLOAD_PORT, port), time.monotonic()
        held = self._pushes.get(flow)
        whose = data[7] if len(data) >= marker.SIZE else None
        if held is not None and whose not in (None, held.session):
            held = None  # a port that was somebody else's, as with a SYN
        if held is None:
            if whose is None:
                return
            piece = marker.build(Kind.TCP_DOWNLOAD, whose)
            made = _segment(swapped, TCP_DOWNLOAD_PORT, port, ack, seq + len(data), ACK, piece)
            at = len(made) - marker.SIZE
            held = _Push(descriptor, bytearray(made), at, whose, now + PUSH_SECONDS, now, tcp=True)
            held.sequence = ack
            self._pushes[flow] = held
            return
        held.until = now + PUSH_SECONDS if data else held.until
        if ack == (held.sequence + marker.SIZE) & 0xFFFF_FFFF:
            held.acked = True

    def _push(self) -> None:
        now = time.monotonic()
        for flow, push in tuple(self._pushes.items()):
            if now > push.until:
                self._pushes.pop(flow, None)  # `forget` runs in another thread
            elif now >= push.due:
                push.due = max(push.due + PUSH_INTERVAL, now - PUSH_INTERVAL)
                self._send(push)

    def _send(self, push: _Push) -> None:
        push.sent += 1
        if push.tcp:
            if push.acked and push.sent > 1:
                push.sequence = (push.sequence + marker.SIZE) & 0xFFFF_FFFF
            push.acked = False
        else:
            push.sequence += 1
        number = push.sent if push.tcp else push.sequence
        kind = Kind.TCP_DOWNLOAD if push.tcp else Kind.DOWNLOAD
        whole = marker.build(kind, push.session, self.fault, number)
        push.packet[push.at : push.at + marker.SIZE] = whole
        packet = _renewed(push.packet, push.sequence) if push.tcp else bytes(push.packet)
        self.pushed += 1
        _write(push.descriptor, packet)


def _write(descriptor: int, packet: bytes) -> None:
    with contextlib.suppress(OSError):  # the device is down for now, or the packet is odd
        os.write(descriptor, packet)


def _flow(swapped: bytes, sport: int, dport: int) -> bytes:
    return _addresses(swapped) + struct.pack("!HH", sport, dport)


def _addresses(head: bytes) -> bytes:
    return head[12:20] if head[0] >> 4 == 4 else head[8:40]


def _echo_reply(body: bytes) -> bytes:
    """Type 8 becomes 0, or 128 becomes 129; the checksum changes by the same (RFC 1624)."""
    old = int.from_bytes(body[2:4], "big")
    change = 0x0800 if body[0] == 8 else 0x10000 - 0x0100 - 1
    total = old + change
    total = (total & 0xFFFF) + (total >> 16)
    kind = b"\0" if body[0] == 8 else b"\x81"
    return kind + body[1:2] + struct.pack("!H", total) + body[4:]


def _segment(
    head: bytes, sport: int, dport: int, seq: int, ack: int, flags: int, data: bytes = b""
) -> bytes:
    """A segment behind an IP header whose lengths and checksums are made anew."""
    body = _TCP.pack(sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 5 << 4, flags, 0xFFFF)
    body += bytes(4) + data
    return _finished(_sized(head, len(body)), body)


def _sized(head: bytes, length: int) -> bytes:
    if head[0] >> 4 == 6:
        return head[:4] + struct.pack("!H", length) + head[6:]
    sized = head[:2] + struct.pack("!H", 20 + length) + head[4:10] + bytes(2) + head[12:]
    return sized[:10] + struct.pack("!H", checksum(sized)) + sized[12:]


def _finished(head: bytes, body: bytes) -> bytes:
    pseudo = _addresses(head) + struct.pack("!II", len(body), TCP)
    total = checksum(pseudo + body)
    return head + body[:16] + struct.pack("!H", total) + body[18:]


def _renewed(packet: bytearray, sequence: int) -> bytes:
    """The segment with another sequence number."""
    head = 20 if packet[0] >> 4 == 4 else 40
    struct.pack_into("!I", packet, head + 4, sequence & 0xFFFFFFFF)
    body = bytes(packet[head : head + 16]) + bytes(2) + bytes(packet[head + 18 :])
    return _finished(bytes(packet[:head]), body)
