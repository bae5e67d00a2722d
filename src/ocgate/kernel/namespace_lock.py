"""One ocgate a network namespace: a lock that goes with the processes that hold it.

Two servers, or a server and an exit, would sweep each other's tables and rules for ever. The lock
is the name of an abstract Unix socket, which belongs to a network namespace, needs no file, and is
free again when the last process that has it is gone, however that ended. A second name says to
everybody in the namespace who holds it, also from another container that shares it. Both are handed
on over exec to the supervisor and to control; services give them up (`names.LOCK_FILES`).
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ocgate.errors import OcgateError
from ocgate.kernel import process
from ocgate.names import LOCK_FILES, LOCK_NAME

SOCKETS = Path("/proc/self/net/unix")

# sockaddr_un holds 108 bytes, the first of an abstract name is NUL (unix(7)).
_LONGEST = 107
# Each start that was refused stays in the queue of a socket that nobody accepts from.
_ASKERS = 4096
_MARK = f"@{LOCK_NAME}-held-by "


@dataclass(frozen=True)
class Holder:
    """Who has the lock. words: as it calls itself, '' if it doesn't say. peer: the process that
    took it, by the kernel's word; None where the kernel did not say."""

    words: str
    peer: process.Peer | None

    def __str__(self) -> str:
        said = self.words or "one that does not say where"
        if self.peer is None:
            return said
        if self.peer.uid != 0:
            return f"uid {self.peer.uid}, pid {self.peer.pid}, which only has our lock's name"
        # 0: of a pid namespace that we can't see (pid_namespaces(7)).
        where = f"pid {self.peer.pid}" if self.peer.pid else "in a container that shares it"
        return f"{said}, {where}"


@dataclass(frozen=True)
class Lock:
    """Held while these sockets are open, here or in a process that inherited them."""

    sockets: tuple[socket.socket, socket.socket]

    def hand_on(self) -> None:
        """Make them survive the coming exec, under the numbers by which services give them up."""
        for held, number in zip(self.sockets, LOCK_FILES, strict=True):
            os.dup2(held.fileno(), number, inheritable=True)


def take(role: str, config: str, run_dir: Path) -> Lock | Holder:
    """The lock of this process's network namespace, or who has it."""
    main = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        main.bind(b"\0" + LOCK_NAME.encode())
    except OSError as error:
        main.close()
        if error.errno != errno.EADDRINUSE:
            raise OcgateError(f"taking the lock of this network: {error.strerror}") from error
        return holder()
    main.listen(_ASKERS)  # only so that others can ask the kernel whose it is
    return Lock((main, _said(f"{role}, {config}, {run_dir}")))


def held(
    role: str, config: str, run_dir: Path, *, leftover: Callable[[], bool] = lambda: False
) -> Lock | None:
    """The lock; None where what is left of a killed run in this very run dir still has it, which
    `leftover` says. Raises OcgateError that names who has it."""
    found = take(role, config, run_dir)
    if isinstance(found, Lock):
        return found
    if leftover():
        return None
    raise refused(found)


def required(role: str, config: str, run_dir: Path) -> Lock:
    """The lock; raises OcgateError that names who has it."""
    found = take(role, config, run_dir)
    if isinstance(found, Holder):
        raise refused(found)
    return found


def refused(by: Holder) -> OcgateError:
    """For the operator."""
    return OcgateError(
        f"another ocgate is running in this network: {by}",
        hint="Stop it first. Two can't share a network namespace, in whatever run dirs: give the "
        "second one a network (a container) of its own",
    )


def holder() -> Holder:
    """Who has the lock now."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asking:
        try:
            asking.connect(b"\0" + LOCK_NAME.encode())
        except OSError:  # it is just being taken, or its queue is full
            return Holder(_words(), None)
        return Holder(_words(), process.peer(asking))


def _said(words: str) -> socket.socket:
    """A name that can be read in /proc/net/unix. One that is cut is as good."""
    name = f"{_MARK}{''.join(c if c.isprintable() else '?' for c in words)}".encode()
    said = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    said.bind(b"\0" + name[1 : _LONGEST + 1])
    return said


def _words() -> str:
    try:
        lines = SOCKETS.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.split(_MARK, 1)[1] for line in lines if _MARK in line), "")
