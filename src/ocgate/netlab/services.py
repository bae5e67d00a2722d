"""Who answers on the lab's internet: echo that reports its peer, downloads, HTTP. Threads.

Sockets belong to the namespace they were made in, so plain threads of this process can serve any
namespace; starting them takes no time and they end with the process. iperf3 is for throughput.

    UDP  7   reply: b"ADDRESS PORT\\n" of the peer as seen here, then the datagram
    UDP 19   request b"RATE COUNT SIZE MARKER" -> COUNT datagrams of SIZE bytes, RATE a second
    TCP  7, 53, 443   the same line, then an echo until the peer ends
    TCP 80   GET /whoami, GET /bytes/N?marker=TEXT&rate=BYTES_PER_SECOND
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import parse_qs, urlsplit

from ocgate.netlab.namespace import Namespace

Address = IPv4Address | IPv6Address

ECHO_PORT = 7  # RFC 862
DOWNLOAD_PORT = 19  # RFC 864, character generator: the nearest to it
HTTP_PORT = 80
# 53 and 443 are where IPV6_PROBE's default targets listen.
ECHO_TCP_PORTS = (ECHO_PORT, 53, 443)

# How often a server thread looks whether it shall end: seldom, for there are a dozen of them.
POLL_SECONDS = 0.1

# One write of an HTTP body; at a low rate also the unit it is paced in.
_CHUNK_BYTES = 16_384


def seen_peer(address: tuple[str | int, ...]) -> bytes:
    """How a peer is reported: ``b"192.0.2.10 4711\\n"``, IPv4-mapped IPv6 as IPv4."""
    shown = ip_address(str(address[0]))
    mapped = shown.ipv4_mapped if isinstance(shown, IPv6Address) else None
    return f"{mapped or shown} {address[1]}\n".encode()


class _UdpEcho(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        with contextlib.suppress(OSError):  # the way back may be gone
            sock.sendto(seen_peer(self.client_address) + data, self.client_address)


class _UdpDownload(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        rate, count, size, marker = data.split(b" ", 3)
        stream = download_payloads(int(count), int(size), marker)
        # A thread per request: the server's own must stay free for the next one.
        args = (sock, self.client_address, stream, int(rate))
        threading.Thread(target=_send_paced, args=args, daemon=True).start()


def download_payloads(count: int, size: int, marker: bytes) -> Iterator[bytes]:
    """Marker, 4-byte sequence number from 0, zeros up to `size` bytes."""
    for number in range(count):
        yield (marker + struct.pack("!I", number)).ljust(size, b"\0")


def _send_paced(
    sock: socket.socket, peer: tuple[str | int, ...], payloads: Iterator[bytes], rate: int
) -> None:
    started = time.monotonic()
    for number, payload in enumerate(payloads):
        time.sleep(max(0.0, started + number / rate - time.monotonic()))
        try:
            sock.sendto(payload, peer)
        except ValueError:
            return  # closed
        except OSError:
            if sock.fileno() < 0:
                return
            # An ICMP error of an earlier one: a real server doesn't stop for that either.


class _TcpEcho(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self.request.sendall(seen_peer(self.client_address))
            while data := self.request.recv(65536):
                self.request.sendall(data)


class _Http(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        with contextlib.suppress(OSError):
            if url.path == "/whoami":
                body = seen_peer(self.client_address)
                self._head(len(body))
                self.wfile.write(body)
            elif url.path.startswith("/bytes/"):
                marker = query.get("marker", ["\0"])[0].encode()
                self._body(int(url.path[7:]), marker, float(query.get("rate", ["0"])[0]))
            else:
                self.send_error(404)

    def _head(self, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _body(self, length: int, marker: bytes, rate: float) -> None:
        self._head(length)
        chunk = marker * (_CHUNK_BYTES // len(marker) + 1)
        started, sent = time.monotonic(), 0
        while sent < length:
            piece = chunk[: min(_CHUNK_BYTES, length - sent)]
            self.wfile.write(piece)
            sent += len(piece)
            if rate:
                time.sleep(max(0.0, started + sent / rate - time.monotonic()))

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the test asserts on what was seen, not on a log."""


class Tcp(socketserver.ThreadingTCPServer):
    """A thread per connection; quiet about peers that go away."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A peer that goes away is what many tests are about."""


class Tcp6(Tcp):
    """The same for IPv6."""

    address_family = socket.AF_INET6


class Udp(socketserver.UDPServer):
    """Takes datagrams of any size."""

    max_packet_size = 65535


class Udp6(Udp):
    """The same for IPv6."""

    address_family = socket.AF_INET6


def serve(servers: Iterable[socketserver.BaseServer]) -> None:
    """Serve each in a thread of its own until `close_servers`."""
    for server in servers:
        args = (POLL_SECONDS,)
        threading.Thread(target=server.serve_forever, args=args, daemon=True).start()


def close_servers(servers: list[socketserver.BaseServer]) -> None:
    """Stop all at once (each takes up to POLL_SECONDS to notice), and empty the list."""
    stopping = [threading.Thread(target=server.shutdown) for server in servers]
    for thread in stopping:
        thread.start()
    for thread, server in zip(stopping, servers, strict=True):
        thread.join()
        server.server_close()
    servers.clear()


class Services:
    """All services of the table above, on each of `addresses` in `netns`."""

    def __init__(self, netns: Namespace, addresses: Iterable[Address]) -> None:
        self._servers: list[socketserver.BaseServer] = []
        with netns.entered():
            for address in addresses:
                self._serve_on(address)
        serve(self._servers)

    def _serve_on(self, address: Address) -> None:
        udp, tcp = (Udp, Tcp) if address.version == 4 else (Udp6, Tcp6)
        host = str(address)
        self._servers += [
            udp((host, ECHO_PORT), _UdpEcho),
            udp((host, DOWNLOAD_PORT), _UdpDownload),
            tcp((host, HTTP_PORT), _Http),
            *(tcp((host, port), _TcpEcho) for port in ECHO_TCP_PORTS),
        ]

    def close(self) -> None:
        """Stop serving; streams in flight end at their next packet."""
        close_servers(self._servers)
