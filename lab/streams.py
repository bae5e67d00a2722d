"""Long flows with counters: UDP there and back, UDP and TCP downloads, iperf3. Threads.

Every packet of a stream carries a marker of its own, by which captures find it in clear, and a
sequence number, by which the receiver tells what was lost and for how long nothing came.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType
from typing import Self

from lab.topology import Host, Lab
from lab.traffic import read_error, udp_socket
from ocgate.netlab.namespace import CommandFailed, Namespace
from ocgate.netlab.services import DOWNLOAD_PORT, ECHO_PORT, HTTP_PORT
from ocgate.netlab.wait import wait_until

Address = IPv4Address | IPv6Address


# How long a stream still listens after its last packet was sent.
LINGER_SECONDS = 0.5


def new_marker() -> bytes:
    """16 bytes of hex that appear nowhere else."""
    return os.urandom(8).hex().encode()


@dataclass
class Tally:
    """What became of a stream's packets.

    received: by sequence number, when (monotonic seconds).
    rejected: (type, code) of ICMP errors, in order.   failed: errno of sends that failed.
    """

    sent: int = 0
    received: dict[int, float] = field(default_factory=dict)
    rejected: list[tuple[int, int]] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return self.sent - len(self.received)

    def longest_gap(self) -> float:
        """The longest time in seconds between two packets that arrived; 0 with fewer than two."""
        times = sorted(self.received.values())
        return max((b - a for a, b in itertools.pairwise(times)), default=0.0)


class _Flow:
    """A thread that runs `_work` until it is done or `close` is called. Context manager."""

    def __init__(self, name: str) -> None:
        self.tally = Tally()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name=name)
        self._thread.start()

    def _work(self) -> None:
        raise NotImplementedError

    def running(self) -> bool:
        return self._thread.is_alive()

    def wait(self, timeout: float) -> Tally:
        """Wait for its own end; returns the tally."""
        wait_until(lambda: not self.running(), timeout, f"the end of {self._thread.name}")
        return self.tally

    def wait_for(self, received: int, timeout: float = 5.0) -> None:
        """Wait until it has received that many packets."""
        wait_until(
            lambda: len(self.tally.received) >= received or not self.running(),
            timeout,
            f"{received} packets of {self._thread.name}",
        )

    def close(self) -> None:
        """Stop it; the tally stays. Twice is fine."""
        self._closing.set()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class UdpStream(_Flow):
    """Numbered datagrams to the echo service at `rate` a second, until `count` or `close`.

    size: bytes of UDP payload, at least marker and number (20).
    """

    def __init__(
        self,
        netns: Namespace,
        to: Address,
        *,
        rate: float = 200.0,
        count: int | None = None,
        size: int = 64,
        port: int = ECHO_PORT,
        source: Address | None = None,
    ) -> None:
        self.marker = new_marker()
        self._rate, self._count, self._size = rate, count, size
        self._socket = udp_socket(netns, to, port, source)
        super().__init__(f"UDP stream to {to}")

    def _work(self) -> None:
        started = time.monotonic()
        while not self._closing.is_set() and self.tally.sent != self._count:
            due = started + self.tally.sent / self._rate
            self._listen_until(due)
            self._send()
        self._listen_until(time.monotonic() + LINGER_SECONDS)
        self._socket.close()

    def _send(self) -> None:
        payload = self.marker + struct.pack("!I", self.tally.sent)
        self.tally.sent += 1
        try:
            self._socket.send(payload.ljust(self._size, b"\0"))
        except OSError as error:  # also the pending ICMP error of an earlier one
            self.tally.failed.append(error.errno or 0)

    def _listen_until(self, deadline: float) -> None:
        while True:
            left = deadline - time.monotonic()
            if not select_in(self._socket, max(left, 0.0)):
                return
            self._receive()

    def _receive(self) -> None:
        if error := read_error(self._socket):
            self.tally.rejected.append(error[0])
            return
        with contextlib.suppress(OSError):
            data = self._socket.recv(65535)
            _note(self.tally, data.partition(b"\n")[2], self.marker)


class UdpDownload(_Flow):
    """The service sends `count` datagrams at `rate` a second to us: a download in flight.

    The service goes on whether we are still there or not, which is the point: what it sends to a
    session that has ended must not leave in clear. `tally.sent` is `count` from the start.
    """

    def __init__(
        self, netns: Namespace, to: Address, *, rate: int = 1000, count: int = 1000, size: int = 200
    ) -> None:
        self.marker = new_marker()
        self._seconds = count / rate
        self._socket = udp_socket(netns, to, DOWNLOAD_PORT, None)
        self._socket.send(b"%d %d %d %s" % (rate, count, size, self.marker))
        super().__init__(f"UDP download from {to}")
        self.tally.sent = count

    def _work(self) -> None:
        deadline = time.monotonic() + self._seconds + LINGER_SECONDS
        while not self._closing.is_set() and time.monotonic() < deadline:
            if select_in(self._socket, 0.05):
                read_error(self._socket)
                with contextlib.suppress(OSError):
                    _note(self.tally, self._socket.recv(65535), self.marker)
        self._socket.close()


class TcpDownload(_Flow):
    """GET of `size` bytes whose body repeats `marker`, at most `rate` bytes a second (0: no limit).

    `tally.received` has one entry per read; `bytes_received` counts. Ends with the connection.
    """

    def __init__(self, netns: Namespace, to: Address, *, size: int, rate: int = 0) -> None:
        self.marker = new_marker()
        self.bytes_received = 0
        with netns.entered():
            self._socket = socket.create_connection((str(to), HTTP_PORT), 5.0)
        query = f"marker={self.marker.decode()}&rate={rate}"
        self._socket.sendall(f"GET /bytes/{size}?{query} HTTP/1.0\r\n\r\n".encode())
        super().__init__(f"TCP download from {to}")

    def _work(self) -> None:
        with self._socket, contextlib.suppress(OSError):
            while not self._closing.is_set():
                if not select_in(self._socket, 0.05):
                    continue
                if not (data := self._socket.recv(1 << 18)):
                    return
                self.tally.received[len(self.tally.received)] = time.monotonic()
                self.bytes_received += len(data)


def select_in(sock: socket.socket, timeout: float) -> bool:
    """Is there something (or an error) to read within `timeout` seconds?"""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def _note(tally: Tally, payload: bytes, marker: bytes) -> None:
    if payload.startswith(marker):
        number = struct.unpack_from("!I", payload, len(marker))[0]
        tally.received.setdefault(number, time.monotonic())


def iperf(
    lab: Lab, client: Host, to: Address, *, seconds: int = 2, options: tuple[str, ...] = ()
) -> float:
    """Bits per second that iperf3 measures from `client` to a server in `inet`.

    seconds: whole ones, at least 1.
    options: iperf3's own, such as "--reverse" or "--udp", "--bitrate=0".
    """
    server = lab.spawn(lab.inet, ["iperf3", "-s", "-1", "--forceflush", "-B", str(to)])
    server.wait_for_output("Server listening", 5.0)
    argv = ["iperf3", "-J", "-c", str(to), "-t", str(seconds), *options]
    try:
        done = client.netns.run(argv, timeout=seconds + 15, check=False)
    finally:
        server.stop()
    report = json.loads(done.stdout)
    if "error" in report:
        raise CommandFailed(f"{' '.join(argv)}: {report['error']}")
    end = report["end"]
    return float((end.get("sum_received") or end["sum"])["bits_per_second"])
