"""Fetches an http(s) address by a given way, as far as the status line: a page that is served
proves more than an open port, which a captive portal or a filter has, too. The wiring imports this.

Not through urllib: the socket must carry a mark and a port of ours before it connects.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import time
from urllib.parse import urlsplit

from ocgate.kernel.probe import ProbeResult
from ocgate.kernel.tcp_question import socket_by
from ocgate.kernel.way import TcpTarget, Way
from ocgate.plan.facts import Address

_PORTS = {"http": 80, "https": 443}
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])\b")

# From 400 on the server (or somebody before it) refuses; redirects are answers.
_REFUSED = 400

# A status line is some 20 bytes; what is longer is no HTTP.
_LONGEST_LINE = 4096


async def fetch(url: str, address: Address, *, timeout: float, way: Way) -> ProbeResult:
    """GET `url` from the server at `address`; ok is an answer below 400, by https with a
    certificate for its name that this host trusts. timeout: seconds for all of it.

    Never raises for what the network says: that is the result's reason.
    """
    began = time.monotonic()
    port = _port(url)
    try:
        async with asyncio.timeout(timeout):
            status = await _status(url, address, port, way)
        ok, reason = status < _REFUSED, f"{url}: HTTP status {status}"
    except TimeoutError:
        ok, reason = False, f"{url}: no answer from {address} within {timeout:g} s"
    except asyncio.LimitOverrunError:
        ok, reason = False, f"{url}: the answer is no HTTP"
    except (OSError, ValueError, EOFError) as error:  # an ssl.SSLError is an OSError
        ok, reason = False, f"{url}: {_words(error)}"
    seconds = time.monotonic() - began
    return ProbeResult(ok=ok, target=TcpTarget(address, port), reason=reason, seconds=seconds)


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or _PORTS[parts.scheme]


async def _status(url: str, address: Address, port: int, way: Way) -> int:
    parts = urlsplit(url)
    host = parts.hostname or ""
    sock = socket_by(address.version, way)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        reader, writer = await asyncio.open_connection(
            sock=sock, ssl=tls, server_hostname=host if tls else None, limit=_LONGEST_LINE
        )
    except BaseException:
        sock.close()
        raise
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: ocgate\r\n"
            "Accept: */*\r\nConnection: close\r\n\r\n".encode("ascii")
        )
        await writer.drain()
        found = _STATUS.match(await reader.readuntil(b"\n"))
    finally:
        writer.transport.abort()
    if found is None:
        raise ValueError("the answer is no HTTP")
    return int(found[1])


def _words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, EOFError):
        return "the connection ended before an answer"
    number = error.errno if isinstance(error, OSError) else None  # asyncio has words of its own
    return os.strerror(number) if number and not isinstance(error, ssl.SSLError) else str(error)
