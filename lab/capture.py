"""Captures: what passed an interface, with a positive control before every "nothing did".

One AF_PACKET socket per capture, ready when the constructor returns. The kernel queues up to
QUEUE_BYTES for it, a thread empties the queue, and every question first drains it in the asking
thread, so an answer covers all that had passed when it was asked. What the kernel had to drop is
counted, and `assert_none` refuses to answer then. tcpdump was rejected: it takes 20 ms to start
and has no way to say "that was all until now".
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from ocgate.netlab.namespace import Namespace
from ocgate.netlab.packet import Packet, Predicate, parse
from ocgate.netlab.wait import POLL_SECONDS, wait_until

# 64 MiB hold about 50,000 packets of 60 bytes (the kernel charges some 1,280 each): more than two
# seconds at 20,000 packets/s if the thread doesn't run at all.
QUEUE_BYTES = 64 << 20

# Headers of any depth, an ICMP error with the packet inside, and a marker in the payload.
SNAP_BYTES = 512

# <linux/if_ether.h>, <linux/if_packet.h>, <asm-generic/socket.h>: not all are in `socket`.
_ETH_P_ALL = 0x0003
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35

# How long the draining thread waits for packets before it looks whether it shall end.
_TICK_SECONDS = 0.1

LINKTYPE_LINUX_SLL = 113  # https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL.html


class NoPositiveControl(AssertionError):
    """ "Nothing was seen" means nothing before the capture has shown that it can see."""


class Leaked(AssertionError):
    """Packets were seen that must not exist."""


class Capture:
    """Everything that passes one interface of a namespace, or all of them.

    interface: None means all, also those that appear later (a VPN's tun); a packet that crosses
               several is then seen once on each.
    queue_bytes: what the kernel may hold for it.
    """

    def __init__(
        self,
        netns: Namespace,
        interface: str | None = None,
        *,
        name: str = "",
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self.name = name or f"{netns.name}-{interface or 'all'}"
        self.proofs: list[str] = []
        self._packets: list[Packet] = []
        self._parsed: list[Packet] = []  # the same, as far as somebody has asked
        self._dropped = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._socket = _open(netns, interface, queue_bytes)
        self._thread = threading.Thread(target=self._read_on, daemon=True, name=self.name)
        self._thread.start()

    # --- questions ----------------------------------------------------------------------------

    def packets(self, predicate: Predicate | None = None, *, since: float = 0.0) -> list[Packet]:
        """All packets (that match), in order; `since` is a time as `now()` gives it."""
        self._drain()
        with self._lock:
            self._parsed += [parse(packet) for packet in self._packets[len(self._parsed) :]]
            seen = self._parsed[:]
        return [p for p in seen if p.at >= since and (predicate is None or predicate(p))]

    def count(self, predicate: Predicate | None = None, *, since: float = 0.0) -> int:
        return len(self.packets(predicate, since=since))

    def dropped(self) -> int:
        """Packets that the kernel could not queue for this capture, since its start."""
        with self._lock:
            self._count_drops()
            return self._dropped

    def wait_for(
        self, predicate: Predicate, what: str, *, timeout: float = 5.0, since: float = 0.0
    ) -> Packet:
        """The first packet that matches; raises TimedOut after `timeout` seconds."""

        def found() -> list[Packet]:
            return self.packets(predicate, since=since)

        return wait_until(found, timeout, f"{what} on {self.name}")[0]

    def prove_sees(
        self, predicate: Predicate, what: str, *, timeout: float = 5.0, since: float = 0.0
    ) -> Packet:
        """Positive control: wait until this capture has seen such a packet, and remember that.

        Make the predicate as near as possible to the leak that is looked for later: the same
        traffic with the lock removed, or the same flow before it is closed.
        """
        packet = self.wait_for(predicate, what, timeout=timeout, since=since)
        self.proofs.append(what)
        return packet

    def assert_none(self, predicate: Predicate, what: str, *, since: float = 0.0) -> None:
        """Raise Leaked if such a packet passed (since then).

        Raises NoPositiveControl without an earlier `prove_sees` on this capture, and when the
        kernel dropped packets, because then silence proves nothing.
        """
        if not self.proofs:
            raise NoPositiveControl(f"{self.name}: nothing has shown that it would see {what}")
        leaked = self.packets(predicate, since=since)
        if leaked:
            shown = "\n  ".join(str(packet) for packet in leaked[:10])
            raise Leaked(f"{self.name}: {len(leaked)} packets of {what}; the first:\n  {shown}")
        if dropped := self.dropped():
            raise NoPositiveControl(f"{self.name}: the kernel dropped {dropped} packets unseen")

    def save(self, path: Path) -> None:
        """Write a pcap (link type LINUX_SLL, cut at SNAP_BYTES) that tcpdump and wireshark read."""
        self._drain()
        with self._lock:
            path.write_bytes(to_pcap(self._packets))

    def close(self) -> None:
        """Stop capturing; what was seen stays available. Twice is fine."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._thread.join()
        self._drain()
        with self._lock:
            self._count_drops()
            self._socket.close()

    # --- reading ------------------------------------------------------------------------------

    def _read_on(self) -> None:
        poll = select.poll()  # not select(): descriptors may be above 1023
        poll.register(self._socket, select.POLLIN)
        while not self._closing.is_set():
            if poll.poll(_TICK_SECONDS * 1000):
                self._drain()
                # Take the packets in bunches: waking per packet would cost the senders their CPU.
                time.sleep(POLL_SECONDS)

    def _drain(self) -> None:
        with self._lock, contextlib.suppress(BlockingIOError, OSError):
            while True:
                raw, control, _flags, address = self._socket.recvmsg(SNAP_BYTES, 64)
                interface, ethertype, packet_type = address[:3]
                self._packets.append(
                    Packet(
                        at=_timestamp(control),
                        interface=interface,
                        outgoing=packet_type == socket.PACKET_OUTGOING,
                        ethertype=ethertype,
                        raw=raw,
                    )
                )

    def _count_drops(self) -> None:
        with contextlib.suppress(OSError):  # closed
            counted = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
            self._dropped += int(struct.unpack("=II", counted)[1])  # reading resets it


def now() -> float:
    """The time to give as `since`: the clock the kernel stamps packets with."""
    return time.time()


def _open(netns: Namespace, interface: str | None, queue_bytes: int) -> socket.socket:
    with netns.entered():
        # Protocol 0 receives nothing until bind, so no packet of another interface slips in; but
        # "all interfaces" can't be bound to by name.
        protocol = 0 if interface else socket.htons(_ETH_P_ALL)
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, protocol)
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, queue_bytes)
        opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        opened.settimeout(0)
        if interface:
            opened.bind((interface, _ETH_P_ALL))
    return opened


def _timestamp(control: Sequence[tuple[int, int, bytes]]) -> float:
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack("=qq", data[:16])
            return float(seconds + nanoseconds / 1e9)
    return time.time()


def to_pcap(packets: Sequence[Packet]) -> bytes:
    """The classic pcap format with nanoseconds, one SLL header per packet."""
    parts = [struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, LINKTYPE_LINUX_SLL)]
    for packet in packets:
        packet_type = socket.PACKET_OUTGOING if packet.outgoing else socket.PACKET_HOST
        frame = struct.pack("!HHH8sH", packet_type, 1, 0, b"", packet.ethertype) + packet.raw
        seconds, rest = divmod(packet.at, 1)
        parts.append(struct.pack("=IIII", int(seconds), int(rest * 1e9), len(frame), len(frame)))
        parts.append(frame)
    return b"".join(parts)
