"""control.sock: where ocserv's hooks and `ocgate status` knock.

A Unix stream socket, 0600, and every peer's credentials are checked by the kernel's word
(SO_PEERCRED): only root, or the user that the control plane runs as, is listened to, and a guest
(the exit role's tunnel client) for the one thing that it may say. One request a connection
(sessions/protocol.py says how it is written).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ocgate.control.log import stage
from ocgate.errors import OcgateError
from ocgate.kernel import process
from ocgate.sessions.protocol import ProtocolError, Request, RequestParser, error_reply

Handler = Callable[[Mapping[str, bytes]], Awaitable[bytes]]

REQUEST_TIMEOUT = 5.0  # seconds for a whole request to arrive: the hook's own limit
BACKLOG = 4096  # a reconnect storm of thousands must queue, not fail (net.core.somaxconn caps it)

# Added to a request's fields: who asks, by the kernel's word. Not a name that a request can carry.
HOOK_PID = "hook pid"

log = stage("svc-control")


@dataclass(frozen=True)
class Guest:
    """Another user that may connect, and all that it may ask. uid: its group has the same number,
    and gets to write to the socket."""

    uid: int
    verbs: frozenset[str]


class Doorway:
    """Serves `handlers` by verb."""

    def __init__(
        self, path: Path, handlers: Mapping[str, Handler], *, guest: Guest | None = None
    ) -> None:
        self._path = path
        self._handlers = handlers
        self._guest = guest
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Start to listen; a stale socket of a dead predecessor is replaced."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        finally:
            os.umask(before)
        if self._guest is not None:
            os.chown(self._path, -1, self._guest.uid)  # its group has the same number
            self._path.chmod(0o660)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, backlog=BACKLOG)

    async def close(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            peer = process.peer(writer.get_extra_info("socket"))
            verbs = self._verbs(peer)
            if verbs:
                writer.write(await self._answer(reader, peer, verbs))
                await writer.drain()
        except (ConnectionError, TimeoutError):
            pass  # the peer gave up; for a hook that is a refusal, and its worker's end frees all
        finally:
            writer.close()

    def _verbs(self, peer: process.Peer) -> Collection[str]:
        """What this peer may ask."""
        if peer.uid in (0, os.geteuid()):
            return self._handlers.keys()
        if self._guest is not None and peer.uid == self._guest.uid:
            return self._guest.verbs
        log.warning("control socket: peer turned away", uid=peer.uid, pid=peer.pid)
        return ()

    async def _answer(
        self, reader: asyncio.StreamReader, peer: process.Peer, verbs: Collection[str]
    ) -> bytes:
        try:
            request = await asyncio.wait_for(_read(reader), REQUEST_TIMEOUT)
        except ProtocolError as bad:
            return error_reply(str(bad))
        handler = self._handlers.get(request.verb)
        if handler is None:
            return error_reply(f"unknown verb {request.verb}")
        if request.verb not in verbs:
            return error_reply(f"uid {peer.uid} may not ask {request.verb}")
        try:
            return await handler({**request.fields, HOOK_PID: str(peer.pid).encode()})
        except OcgateError as error:
            log.error(f"{request.verb} not answered", why=str(error))
            return error_reply(str(error))


async def _read(reader: asyncio.StreamReader) -> Request:
    parser = RequestParser()
    while True:
        data = await reader.read(65536)
        if not data:
            parser.finish()
        request = parser.feed(data)
        if request is not None:
            return request
