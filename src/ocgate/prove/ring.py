"""Captures for a hundred thousand packets: the kernel writes into shared memory, we copy blocks.

A `Ring` is a PACKET_RX_RING of version 3 (Documentation/networking/packet_mmap.rst) in a namespace.
`lab.capture` makes a Python object of each packet, 5 us apiece, in the middle of the traffic; here
a block of packets is one copy of memory, looked into only when a fault is over. What the kernel had
to drop is counted, and whoever asks must refuse to conclude anything then.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from ocgate.netlab.namespace import Namespace
from ocgate.netlab.wait import wait_until

# <linux/if_packet.h>, <linux/if_ether.h>, <linux/filter.h>
_SOL_PACKET = 263
_PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION = 5, 6, 10
_TPACKET_V3 = 2
_ETH_P_ALL = 0x0003
_SO_ATTACH_FILTER = 26
_STATUS_AT, _COUNT_AT = 8, 12
_KERNEL, _USER = 0, 1

BLOCK_BYTES = 1 << 16  # some 250 packets of ours
BLOCKS = 256  # 16 MiB a ring
# A block that isn't full is handed over after this; 256 of them are 2.5 s for a starved reader.
RETIRE_MS = 10

# Headers of any depth, an ICMP error with the packet inside, and the marker.
SNAP_BYTES = 256

_HEADER = struct.Struct("=IIIIIIHH")  # tpacket3_hdr up to tp_net


class Way(Enum):
    """Which packets a ring takes: those that came in for this host, or those that leave it."""

    IN = 0
    OUT = 1


# Classic BPF (Documentation/networking/filter.rst): Ethernet devices only (no tun, no lo), then one
# direction. Of the packet types 4 is PACKET_OUTGOING, 0 to 2 are for this host, broadcast and
# multicast; 3, for another host, would only show that a bridge has flooded.
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_HATYPE, _PKTTYPE = 0xFFFF_F01C, 0xFFFF_F004  # SKF_AD_OFF + SKF_AD_HATYPE, + SKF_AD_PKTTYPE
_ARPHRD_ETHER = 1


def _program(way: Way) -> list[tuple[int, int, int, int]]:
    """(code, jump if true, jump if false, operand) of each instruction."""
    direction = (_AT_LEAST, 1, 0, 3) if way is Way.IN else (_EQUAL, 0, 1, 4)
    return [
        (_LOAD, 0, 0, _HATYPE),
        (_EQUAL, 0, 3, _ARPHRD_ETHER),
        (_LOAD, 0, 0, _PKTTYPE),
        direction,
        (_RETURN, 0, 0, SNAP_BYTES),
        (_RETURN, 0, 0, 0),
    ]


@dataclass(frozen=True)
class Sight:
    """One captured frame. at: seconds since the epoch; mac: its destination; packet: from the
    network header on, cut at SNAP_BYTES."""

    at: float
    ethertype: int
    mac: bytes
    packet: bytes


class Ring:
    """A capture of all Ethernet interfaces of a namespace, also those that appear later."""

    def __init__(self, netns: Namespace, role: str, way: Way) -> None:
        self.role = role
        self.way = way
        self.dropped = 0
        self.seen = 0  # packets copied
        self._counted = 0  # packets that the kernel says it has put into the ring
        self._next = 0
        self._copied: list[bytes] = []
        with netns.entered():
            # Protocol 0 takes nothing until filter and ring stand.
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            self._map = self._set_up()
        except OSError:
            self._socket.close()
            raise

    def _set_up(self) -> mmap.mmap:
        sock = self._socket
        sock.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
        _attach(sock, _program(self.way))
        size = BLOCK_BYTES * BLOCKS
        ring = (BLOCK_BYTES, BLOCKS, 2048, size // 2048, RETIRE_MS, 0, 0)
        sock.setsockopt(_SOL_PACKET, _PACKET_RX_RING, struct.pack("=7I", *ring))
        made = mmap.mmap(sock.fileno(), size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        _bind_to_all(sock)
        return made

    def fileno(self) -> int:
        """To poll for a block."""
        return self._socket.fileno()

    def copy(self) -> None:
        """Copy all blocks that the kernel has handed over. By one thread only."""
        while True:
            base = self._next * BLOCK_BYTES
            status, count, _first, length = struct.unpack_from("=4I", self._map, base + _STATUS_AT)
            if not status & _USER:
                return
            self._copied.append(self._map[base : base + length])
            self.seen += count
            struct.pack_into("=I", self._map, base + _STATUS_AT, _KERNEL)
            self._next = (self._next + 1) % BLOCKS

    def passed(self) -> int:
        """How many packets have passed since the start, copied or not yet."""
        packets, drops, _ = struct.unpack(
            "=III", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 12)
        )
        self._counted += packets - drops  # reading resets both; packets includes drops
        self.dropped += drops
        return self._counted

    def has_copied(self, packets: int) -> bool:
        """Whether the first that many are copied."""
        return self.seen >= packets

    def take(self) -> list[bytes]:
        """The blocks copied since the last time."""
        taken, self._copied = self._copied, []
        return taken

    def close(self) -> None:
        """Give the memory back."""
        self._map.close()
        self._socket.close()


def _attach(sock: socket.socket, program: Sequence[tuple[int, int, int, int]]) -> None:
    code = b"".join(struct.pack("=HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    pointer = struct.pack("@HP", len(program), ctypes.addressof(buffer))  # struct sock_fprog
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, pointer)


def _bind_to_all(sock: socket.socket) -> None:
    """`socket.bind` wants an interface's name; sll_ifindex 0, all of them, has none (packet(7))."""
    address = struct.pack("=HHiHBB8s", socket.AF_PACKET, socket.htons(_ETH_P_ALL), 0, 0, 0, 0, b"")
    if ctypes.CDLL(None, use_errno=True).bind(sock.fileno(), address, len(address)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"binding a capture: {os.strerror(number)}")


def sights(block: bytes) -> Iterator[Sight]:
    """The frames of a copied block, in order."""
    count, at, _length = struct.unpack_from("=3I", block, _COUNT_AT)
    for _ in range(count):
        following, seconds, nanoseconds, kept, _, _, mac_at, _ = _HEADER.unpack_from(block, at)
        start = at + mac_at
        ethertype = int.from_bytes(block[start + 12 : start + 14], "big")
        packet = block[start + 14 : start + kept]
        yield Sight(seconds + nanoseconds / 1e9, ethertype, block[start : start + 6], packet)
        at += following


class Captures:
    """Rings of all ways out, emptied by one thread. Context manager."""

    def __init__(self, rings: Sequence[Ring]) -> None:
        self.rings = tuple(rings)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._read_on, daemon=True, name="captures")
        self._thread.start()

    def _read_on(self) -> None:
        poll = select.poll()
        for ring in self.rings:
            poll.register(ring, select.POLLIN)
        while not self._closing.wait(RETIRE_MS / 1000):  # in bunches, for the senders' sake
            if poll.poll(100):
                self._copy()

    def _copy(self) -> None:
        with self._lock:
            for ring in self.rings:
                ring.copy()

    def drain(self) -> dict[Ring, list[bytes]]:
        """All that passed until now and was not taken before; waits for the kernel to hand it over.

        Raises TimedOut if it doesn't."""
        with self._lock:
            goals = {ring: ring.passed() for ring in self.rings}

        def handed_over() -> bool:
            self._copy()
            return all(ring.has_copied(goal) for ring, goal in goals.items())

        wait_until(handed_over, 5.0, "the captures to hand over what they saw", interval=0.002)
        with self._lock:
            return {ring: ring.take() for ring in self.rings}

    @property
    def dropped(self) -> int:
        """Packets that the kernel could not put into a ring: then silence proves nothing."""
        return sum(ring.dropped for ring in self.rings)

    def close(self) -> None:
        """Stop; twice is fine."""
        if not self._closing.is_set():
            self._closing.set()
            self._thread.join()
            for ring in self.rings:
                ring.close()
