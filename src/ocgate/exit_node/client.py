"""The tunnel's client: its files and its command, starting and ending it, and its last words.

The client has a user of its own (TUNNEL_UID), and an environment of nothing but PATH. It holds no
capability, and neither it nor what it executes can get one: the set that bounds them is empty,
no_new_privs is set, and it makes no namespace (`confined`). Its device is made and configured by
control. Its secrets are in files of that user, 0600, and on its standard input; never in arguments.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ocgate import names, own_files, supervision
from ocgate.errors import OcgateError
from ocgate.kernel import process
from ocgate.own_files import write
from ocgate.tunnel.model import Launch

# s6 kills it after 2 s; its finish script takes milliseconds.
_STOP_LIMIT = 5.0  # seconds

# From the finish script's report to its line in the file of last words, which goes by the relay.
_WORDS_LIMIT, _WORDS_POLL = 0.5, 0.01  # seconds

# What the finish script says last (tunnel-finish.sh).
_LAST_LINE = re.compile(r"tunnel (?:exited with \d+|was ended by signal \d+)")

_PRIVATE_DIRECTORY = 0o700
_ENVIRONMENT = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
_CONFINED = (sys.executable, "-I", "-m", "ocgate.exit_node.confined")


@dataclass(frozen=True)
class Running:
    """A client that runs; the start time (ticks) tells it from another with its pid."""

    pid: int
    started: int


class Client:
    """The one client of a run dir."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir.absolute()

    @property
    def directory(self) -> Path:
        """Where its files are: RUN_DIR/tunnel, of its own user."""
        return self._run_dir / names.TUNNEL

    def start(self, launch: Launch, *, uid: int) -> None:
        """Write its files and start it as the user `uid`; raises OcgateError."""
        try:
            self._write_files(launch.files, uid)
            self._write_command(launch, uid)
            write(self._run_dir / names.TUNNEL_SAID, b"")
        except OSError as error:
            raise OcgateError(f"writing the tunnel client's files: {error}") from error
        supervision.start(self._run_dir, names.TUNNEL, once=True)

    def stop(self) -> None:
        """End it, if it runs, and wait for its end; raises OcgateError if it does not end. Its
        secrets go with it."""
        supervision.stop(self._run_dir, names.TUNNEL, _STOP_LIMIT)
        shutil.rmtree(self.directory, ignore_errors=True)
        (self._run_dir / names.TUNNEL_STDIN).unlink(missing_ok=True)

    def running(self) -> Running | None:
        """The client that runs now, or None."""
        pid = supervision.status(self._run_dir, names.TUNNEL).pid
        started = process.start_time(pid) if pid else None
        return Running(pid, started) if pid and started is not None else None

    def last_words(self) -> list[str]:
        """The lines it said, oldest first, the finish script's last: waits for that a moment."""
        deadline = time.monotonic() + _WORDS_LIMIT
        while True:
            said = self._said()
            if time.monotonic() > deadline or (said and _LAST_LINE.fullmatch(said[-1])):
                return said
            time.sleep(_WORDS_POLL)

    def _said(self) -> list[str]:
        try:
            text = (self._run_dir / names.TUNNEL_SAID).read_text("utf-8", "backslashreplace")
        except OSError:
            return []
        return text.splitlines()

    def _write_files(self, contents: Mapping[str, bytes], uid: int) -> None:
        """Nothing belongs to the client's user before all is written: what it left running could
        put a link in the way of root's hand."""
        shutil.rmtree(self.directory, ignore_errors=True)
        paths = {self.directory / name: content for name, content in contents.items()}
        parents = {self.directory, *(p for path in paths for p in path.parents)}
        parents = {p for p in parents if p.is_relative_to(self.directory)}
        if any(".." in path.parts or self.directory not in path.parents for path in paths):
            raise OcgateError(f"a file of the tunnel's client lies outside of {self.directory}")
        for parent in sorted(parents):
            own_files.make_directory(parent, _PRIVATE_DIRECTORY)  # sorted: the outer one first
        for path, content in paths.items():
            write(path, content)
        for owned in (*paths, *sorted(parents, reverse=True)):
            os.chown(owned, uid, uid)

    def _write_command(self, launch: Launch, uid: int) -> None:
        """A shell script of nothing but quoted words, and of a function of privileges.sh."""
        keeping = ("--keep-mtu",) if launch.is_wireguard_go else ()
        before = ("env", "-i", _ENVIRONMENT, *_CONFINED, *keeping)
        words = (*_as_user(uid), *launch.argv)
        stdin = self._run_dir / names.TUNNEL_STDIN
        write(stdin, (launch.stdin or "").encode())
        lines = [
            f"exec <{shlex.quote(str(stdin))}",
            f"cd {shlex.quote(str(self.directory))} || exit 1",
            f"exec {shlex.join(before)} setpriv $(nothing_ever) {shlex.join(words)}",
        ]
        write(self._run_dir / names.TUNNEL_COMMAND, "".join(f"{x}\n" for x in lines).encode())


def index_of(device: str) -> int | None:
    """The device's ifindex, which no other one of its name will have; None while there is none."""
    try:
        return socket.if_nametoindex(device)
    except OSError:
        return None


def _as_user(uid: int) -> tuple[str, ...]:
    """User and group by number, there is no passwd entry, and no other group."""
    return (
        *("--no-new-privs", "--inh-caps=-all"),
        *("--reuid", str(uid), "--regid", str(uid), "--clear-groups"),
    )
