"""The control socket when there are too many connections, or too few descriptors."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ocgate.errors import OcgateError
from ocgate.names import CONTROL_SOCKET
from ocgate.netlab.wait import wait_until
from ocgate.runtime import control_socket as module
from ocgate.runtime import log as logs
from ocgate.runtime.control_client import ask
from ocgate.runtime.control_socket import ControlSocket, Guest


async def status(_fields: Mapping[str, bytes]) -> bytes:
    return b"well\n"


async def broken(_fields: Mapping[str, bytes]) -> bytes:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


HANDLERS = {"status": status, "broken": broken}


@pytest.fixture(autouse=True)
def quiet(capsys: object) -> None:
    logs.configure("human", "critical")


@contextmanager
def silent(run_dir: Path, count: int) -> Iterator[list[socket.socket]]:
    """So many that connect and say nothing; a full queue is waited for in the kernel."""
    with ExitStack() as held:
        made = []
        for _ in range(count):
            one = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            one.connect(str(run_dir / CONTROL_SOCKET))
            made.append(one)
        yield made


def closed(one: socket.socket) -> bool:
    one.settimeout(0.001)
    try:
        return one.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


def serving(run_dir: Path, work: Any, **options: Any) -> ControlSocket:
    """Run `work` in a thread beside an open control_socket; returns that."""

    async def whole() -> ControlSocket:
        made = ControlSocket(run_dir / CONTROL_SOCKET, HANDLERS, **options)
        await made.open()
        try:
            await asyncio.to_thread(work, made)
        finally:
            await made.close()
        return made

    return run(whole())


def run(job: Coroutine[Any, Any, ControlSocket]) -> ControlSocket:
    async def limited() -> ControlSocket:
        async with asyncio.timeout(30):
            return await job

    return asyncio.run(limited())


def test_who_asks_gets_in_while_many_say_nothing(tmp_path: Path) -> None:
    """50 silent connections fill a bound of 8: they are closed, oldest first, and a question is
    answered within seconds; that is told, and forgotten when it is over."""

    def work(made: ControlSocket) -> None:
        with silent(tmp_path, 50) as peers:
            began = time.monotonic()
            assert ask(tmp_path, "status") == b"well\n"
            assert time.monotonic() - began < 10
            assert closed(peers[0])
            assert "that ask nothing kept others waiting" in made.trouble

    made = serving(tmp_path, work, most=8)
    made._pressed = (made._pressed[0], time.monotonic() - module.REPORTED - 1)
    assert made.trouble == ""


def test_silence_below_the_bound_is_borne_for_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_TIMEOUT", 1.0)
    monkeypatch.setattr(module, "SILENCE", 0.0)

    def work(made: ControlSocket) -> None:
        with silent(tmp_path, 3) as peers:
            assert ask(tmp_path, "status") == b"well\n"
            assert not any(closed(peer) for peer in peers)
            wait_until(lambda: all(closed(peer) for peer in peers), 5.0, "their end")
            assert made.trouble == ""

    serving(tmp_path, work, most=8)


def test_a_guest_has_few_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tunnel's client in strange hands can't take the places of those who ask for the state."""
    uid = 23143
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    monkeypatch.setattr(os, "chown", lambda *_: None)
    monkeypatch.setattr(module.process, "peer", lambda _: module.process.Peer(1, uid, uid))

    def work(_made: ControlSocket) -> None:
        with silent(tmp_path, 10) as peers:
            wait_until(lambda: sum(map(closed, peers)) == 10 - module.GUESTS, 3.0, "the rest's end")

    serving(tmp_path, work, guest=Guest(uid, frozenset({"status"})))


def test_what_the_machine_refuses_a_request_is_its_answer(tmp_path: Path) -> None:
    def work(_made: ControlSocket) -> None:
        assert ask(tmp_path, "broken") == b"error No space left on device\n"
        assert ask(tmp_path, "status") == b"well\n"

    serving(tmp_path, work)


def test_a_socket_that_somebody_removed_is_missed(tmp_path: Path) -> None:
    async def scenario() -> ControlSocket:
        made = ControlSocket(tmp_path / CONTROL_SOCKET, HANDLERS)
        assert not made.is_there
        await made.open()
        assert made.is_there
        (tmp_path / CONTROL_SOCKET).unlink()
        assert not made.is_there
        (tmp_path / CONTROL_SOCKET).write_text("")
        assert not made.is_there
        await made.open()
        assert made.is_there
        assert await asyncio.to_thread(ask, tmp_path, "status") == b"well\n"
        await made.close()
        return made

    run(scenario())


def test_a_reply_that_nobody_takes_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPLY_TIMEOUT", 0.2)

    async def endless(_fields: Mapping[str, bytes]) -> bytes:
        return bytes(8 << 20)

    monkeypatch.setitem(HANDLERS, "endless", endless)

    def work(made: ControlSocket) -> None:
        with silent(tmp_path, 1) as (peer,):
            peer.sendall(b"ocgate/1 endless\0\0")
            wait_until(lambda: not made._open, 5.0, "the connection's end")

    serving(tmp_path, work)


# What control is, as far as its socket is concerned, with 256 descriptors and no more.
CHILD = """
import asyncio, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from ocgate.runtime import log
from ocgate.runtime.control_socket import ControlSocket
async def status(_): return b"well\\n"
async def main():
    log.configure("human", "info")
    door = ControlSocket(Path(sys.argv[1]), {"status": status}, most=int(sys.argv[2]) or None)
    await door.open()
    print("open", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.parametrize("most", [0, 10_000])
def test_500_silent_connections_and_256_descriptors(tmp_path: Path, most: int) -> None:
    """Questions are answered meanwhile, the log gets a line and not megabytes, and no CPU is burnt.
    (10,000: as if there were no bound, so that accept itself fails: EMFILE.)"""
    command = [sys.executable, "-c", CHILD, str(tmp_path / CONTROL_SOCKET), str(most)]
    with (
        (tmp_path / "log").open("wb") as written,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=written) as child,
    ):
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"open\n"
            with silent(tmp_path, 500):
                for _ in range(3):
                    began = time.monotonic()
                    assert ask(tmp_path, "status") == b"well\n"
                    assert time.monotonic() - began < 10
                assert cpu(child.pid) < 2.0
            assert ask(tmp_path, "status") == b"well\n"
        finally:
            child.kill()
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 1, lines
    assert "the control socket is at its limit" in lines[0]


def cpu(pid: int) -> float:
    """Seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_nobody_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(OcgateError, match="does not answer"):
        ask(tmp_path, "status")
