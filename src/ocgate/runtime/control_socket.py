"""control.sock: where ocserv's hooks and `ocgate status` knock.

A Unix stream socket, 0600, with a guest 0660 of his group, and every peer's credentials are checked
by the kernel's word (SO_PEERCRED): only root, or the user that the control plane runs as, is
listened to, and a guest (the exit role's tunnel client) for the one thing that it may say. At most
a few of his connections are served at once. One request a connection
(sessions/protocol.py says how it is written).

Connections are bounded well below the limit of descriptors, so that the rest of the control plane
always has some; more wait in the kernel. When the bound is met, those that ask nothing are closed
first, oldest first, and whoever does ask gets in.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ocgate.errors import OcgateError
from ocgate.kernel import process
from ocgate.runtime.log import stage
from ocgate.runtime.shortages import LACKS, words
from ocgate.sessions.protocol import ProtocolError, Request, RequestParser, error_reply

Handler = Callable[[Mapping[str, bytes]], Awaitable[bytes]]

REQUEST_TIMEOUT = 5.0  # seconds for a whole request to arrive: the hook's own limit
REPLY_TIMEOUT = 10.0  # seconds for the peer to take the reply; some MiB at 10,000 sessions

# What waits in the kernel: hooks of a reconnect storm, whose connect(2) waits for a place in the
# queue, too. Small, so that silent peers in it are met, and passed over, within seconds.
BACKLOG = 512

# Connections at once: half of the descriptors at most. 512 verdicts at a time are as many as one
# transaction should hold, and control needs some 40 descriptors for all else.
MOST, FEWEST = 512, 16
# A tunnel's client has one hook at a time, and may be in the hands of a stranger.
GUESTS = 4

# A hook sends its request right after connect(2); this is for a machine without CPU. Only counted
# while the bound is met.
SILENCE = 0.5  # seconds

# After accept(2) was refused (descriptors, memory), and how long that is reported afterwards.
ACCEPT_PAUSE = 0.2  # seconds
REPORTED = 60.0  # seconds

# Added to a request's fields: who asks, by the kernel's word. Not a name that a request can carry.
HOOK_PID = "hook pid"

log = stage("svc-control")


@dataclass(frozen=True)
class Guest:
    """Another user that may connect, and all that it may ask. uid: its group has the same number,
    and gets to write to the socket."""

    uid: int
    verbs: frozenset[str]


class ControlSocket:
    """Serves `handlers` by verb."""

    def __init__(
        self,
        path: Path,
        handlers: Mapping[str, Handler],
        *,
        guest: Guest | None = None,
        most: int | None = None,
    ) -> None:
        """most: connections at once; by default what the limit of descriptors allows."""
        self._path = path
        self._handlers = handlers
        self._guest = guest
        self._most = most or max(FEWEST, min(MOST, process.files_limit() // 2))
        self._listener: socket.socket | None = None
        self._inode = 0
        self._accepting: asyncio.Task[None] | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._silent: dict[asyncio.Task[None], float] = {}  # since when, oldest first
        self._guests = 0
        self._left = asyncio.Event()
        self._pressed: tuple[str, float] = ("", 0.0)
        self._turned_out = 0

    async def open(self) -> None:
        """Start to listen; a stale socket of a dead predecessor is replaced. Raises OSError."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._bind(listener)
        except OSError:
            listener.close()
            raise
        self._stop_accepting()
        self._listener = listener
        self._accepting = asyncio.create_task(self._accept(listener))

    def _bind(self, listener: socket.socket) -> None:
        before = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        finally:
            os.umask(before)
        if self._guest is not None:
            os.chown(self._path, -1, self._guest.uid)  # its group has the same number
            self._path.chmod(0o660)
        self._inode = self._path.stat().st_ino
        listener.listen(BACKLOG)

    @property
    def is_there(self) -> bool:
        """Whether others find the socket: somebody may have removed it, or put his own there."""
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False

    @property
    def trouble(self) -> str:
        """What kept peers waiting within the last minute, or ''."""
        why, at = self._pressed
        return why if why and time.monotonic() - at < REPORTED else ""

    async def close(self) -> None:
        """Stop listening and remove the socket."""
        self._stop_accepting()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _stop_accepting(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
        if self._listener is not None:
            self._listener.close()
        self._accepting = self._listener = None

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room()
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                self._press(f"connections to {self._path} wait: {words(error)}")
                self._turn_out(older_than=0.0)
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            task = asyncio.create_task(self._serve(connection))
            self._open.add(task)
            self._silent[task] = time.monotonic()
            task.add_done_callback(self._ended)

    async def _room(self) -> None:
        """Until another connection may be taken."""
        while len(self._open) >= self._most:
            self._left.clear()
            self._turn_out(older_than=SILENCE)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SILENCE / 5):
                    await self._left.wait()

    def _turn_out(self, *, older_than: float) -> None:
        """Close those that have asked nothing for so long, in seconds."""
        now = time.monotonic()
        silent = [task for task, since in self._silent.items() if now - since >= older_than]
        for task in silent:
            del self._silent[task]
            task.cancel()
        if silent:
            self._turned_out += len(silent)
            self._press(
                f"connections to {self._path} that ask nothing kept others waiting: "
                f"{self._turned_out} were closed"
            )

    def _press(self, why: str) -> None:
        """Log it, unless the same trouble has gone on; `trouble` tells the latest words."""
        if not self.trouble:
            log.error("the control socket is at its limit", why=why, at_once=self._most)
        self._pressed = (why, time.monotonic())

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._open.discard(task)
        self._silent.pop(task, None)
        self._left.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a request to the control socket failed", "exception": error}
            )

    async def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                peer = process.peer(connection)
                verbs = self._verbs(peer)
                if not verbs:
                    return
                with self._counted(peer):
                    reply = await self._answer(connection, peer, verbs)
                async with asyncio.timeout(REPLY_TIMEOUT):
                    await asyncio.get_running_loop().sock_sendall(connection, reply)
            except (OSError, TimeoutError):
                pass  # the peer gave up: for a hook a refusal, and its worker's end frees all

    def _verbs(self, peer: process.Peer) -> Collection[str]:
        """What this peer may ask."""
        if peer.uid in (0, os.geteuid()):
            return self._handlers.keys()
        if self._guest is not None and peer.uid == self._guest.uid:
            return self._guest.verbs if self._guests < GUESTS else ()
        log.warning("control socket: peer turned away", uid=peer.uid, pid=peer.pid)
        return ()

    @contextlib.contextmanager
    def _counted(self, peer: process.Peer) -> Iterator[None]:
        guest = int(self._guest is not None and peer.uid == self._guest.uid)
        self._guests += guest
        try:
            yield
        finally:
            self._guests -= guest

    async def _answer(
        self, connection: socket.socket, peer: process.Peer, verbs: Collection[str]
    ) -> bytes:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                request = await _read(connection)
        except ProtocolError as bad:
            return error_reply(str(bad))
        task = asyncio.current_task()
        if task is not None:
            self._silent.pop(task, None)
        handler = self._handlers.get(request.verb)
        if handler is None:
            return error_reply(f"unknown verb {request.verb}")
        if request.verb not in verbs:
            return error_reply(f"uid {peer.uid} may not ask {request.verb}")
        try:
            return await handler({**request.fields, HOOK_PID: str(peer.pid).encode()})
        except (OcgateError, *LACKS) as error:
            why = words(error)
            log.error(f"{request.verb} not answered", why=why)
            return error_reply(why)


async def _read(connection: socket.socket) -> Request:
    loop, parser = asyncio.get_running_loop(), RequestParser()
    while True:
        data = await loop.sock_recv(connection, 65536)
        if not data:
            parser.finish()
        request = parser.feed(data)
        if request is not None:
            return request
