"""Asks a provider's API over HTTPS, at an address that was resolved before: an edge.

The name is what the certificate is verified against; no resolver is asked and no redirect followed,
because the kill switch is open for this one address.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from ocgate import __version__
from ocgate.tunnel.provider import NotListed

# A list of 500 servers, more than which is never asked for, takes 2 MB.
LARGEST_ANSWER = 4 << 20

# For one answer, from the first SYN to the last byte; a start waits for it. The list of a country
# takes two seconds over a slow line.
DEADLINE = 20.0  # seconds

# Without a byte for this long, another attempt is the better chance.
_SILENCE = 8.0  # seconds
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Api:
    """One API at one address. context: for tests with an authority of their own."""

    host: str
    address: IPv4Address | IPv6Address
    port: int = 443
    context: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    deadline: float = DEADLINE
    silence: float = _SILENCE
    largest: int = LARGEST_ANSWER

    def ask(self, path: str) -> bytes:
        """The body of the answer to one GET; raises NotListed for whatever is not 200 and whole."""
        connection = _Connection(self)
        with _cut_off(connection, self.deadline) as too_late:
            try:
                connection.request("GET", path, headers=_HEADERS)
                answer = connection.getresponse()
                if answer.status != 200:
                    raise self._failed(path, f"it answered {answer.status}")
                return self._body(answer, path)
            except (OSError, http.client.HTTPException) as error:
                late = f"the answer was not there in {self.deadline:g} s"
                why = late if too_late.is_set() else _words(error)
                raise self._failed(path, why) from None
            finally:
                connection.close()
                if connection.line is not None:
                    connection.line.close()

    def _body(self, answer: http.client.HTTPResponse, path: str) -> bytes:
        body = bytearray()
        while chunk := answer.read1(_CHUNK):
            body += chunk
            if len(body) > self.largest:
                raise self._failed(path, f"the answer is larger than {self.largest} bytes")
        if answer.length:  # read1 ends quietly where the connection does
            raise http.client.IncompleteRead(bytes(body), answer.length)
        return bytes(body)

    def _failed(self, path: str, why: str) -> NotListed:
        return NotListed(f"https://{self.host}{path.partition('?')[0]}: {why}")


_HEADERS = {
    "User-Agent": f"ocgate/{__version__}",
    "Accept": "application/json",
    "Accept-Encoding": "identity",
}


class _Connection(http.client.HTTPSConnection):
    """To the address that is known; the name goes into SNI, Host and the verification."""

    def __init__(self, api: Api) -> None:
        super().__init__(api.host, api.port, timeout=api.silence, context=api.context)
        self._api = api
        # http.client forgets `sock` once an answer says that the connection will close.
        self.line: socket.socket | None = None

    def connect(self) -> None:
        """TCP to the address, TLS with the name."""
        address = str(self._api.address)
        self.line = socket.create_connection((address, self._api.port), self._api.silence)
        self.line = self._api.context.wrap_socket(self.line, server_hostname=self._api.host)
        self.sock = self.line


@contextlib.contextmanager
def _cut_off(connection: _Connection, deadline: float) -> Iterator[threading.Event]:
    """Ends the connection after `deadline` seconds, and says so: an answer that comes drop by drop
    is never silent."""
    too_late = threading.Event()

    def cut() -> None:
        too_late.set()
        with contextlib.suppress(OSError):
            if connection.line is not None:
                connection.line.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(deadline, cut)
    timer.daemon = True
    timer.start()
    try:
        yield too_late
    finally:
        timer.cancel()


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, http.client.IncompleteRead):
        return "the answer broke off"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text if text.isprintable() else repr(text)
