"""Ask the running control plane: what `ocgate status`, `reload` and `healthcheck` use."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from ocgate.errors import OcgateError
from ocgate.names import CONTROL_SOCKET
from ocgate.sessions.protocol import Request, encode_request

if TYPE_CHECKING:  # the library of logs takes 50 ms, and most who ask log nothing
    from ocgate.runtime.log import Log

# A reload may wait for `ocserv -t`, the probe and a transaction; all others answer in milliseconds.
TIMEOUT = 30.0  # seconds
QUEUE_POLL = 0.05  # seconds between two attempts to get into the socket's queue


def ask(
    run_dir: Path,
    verb: str,
    fields: Mapping[str, str] = MappingProxyType({}),
    *,
    timeout: float = TIMEOUT,
) -> bytes:
    """The whole answer to `verb`; raises OcgateError where nobody answers in `timeout` seconds."""
    path = run_dir / CONTROL_SOCKET
    said = {name: text.encode("utf-8", "surrogateescape") for name, text in fields.items()}
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            _connect(connection, path, timeout)
            connection.sendall(encode_request(Request(verb, said)))
            return _all(connection)
    except TimeoutError:
        raise OcgateError(
            f"The control plane does not answer at {path} in {timeout:.0f} s",
            hint="Was its process stopped, is the machine short of CPU, or a disk away?",
        ) from None
    except ConnectionRefusedError:  # the socket is there, and nobody listens
        raise OcgateError(
            f"The control plane does not answer at {path}: its process has ended",
            hint="The log of `ocgate run` says how; while that runs, it is started again",
        ) from None
    except OSError as error:
        raise OcgateError(
            f"The control plane does not answer at {path}: {error.strerror or error}",
            hint="Is `ocgate run` running, and are you root?",
        ) from None


def _connect(connection: socket.socket, path: Path, timeout: float) -> None:
    """With a time limit a full queue is an error at once (EAGAIN), and not waited for."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return connection.connect(str(path))
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(QUEUE_POLL)


def _all(connection: socket.socket) -> bytes:
    parts = []
    while data := connection.recv(65536):
        parts.append(data)
    return b"".join(parts)


def order(verb: str, configure_log: Callable[[Path], None], log: Log) -> int:
    """For a program of its own, `python -m … RUN_DIR`, that the supervisor runs at a signal: exit 0
    when control did it. Control logs by itself what became of it; logged here is only that nobody
    was there. configure_log: as the role's settings in the run dir say."""
    run_dir = Path(sys.argv[1])
    configure_log(run_dir)
    try:
        reply = ask(run_dir, verb)
    except OcgateError as error:
        log.error(f"{verb} not done", why=error.message)
        return 1
    return 0 if reply.startswith(b"ok") else 1
