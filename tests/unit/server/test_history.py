"""The session history: lines that are appended, bounded, waited for and never in anybody's way."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Coroutine, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ocgate.names import HISTORY
from ocgate.server.history import file
from ocgate.server.history import writer as history_module
from ocgate.server.history.writer import History
from ocgate.sessions.record import Moved, record_of, written
from ocgate.sessions.session import Session
from ocgate.sessions.table import Ending


def session(worker: int = 7, user: str = "alice") -> Session:
    address = IPv4Address("10.10.10.2")
    return Session(worker, 1, "vpns0", user, "default", address, None, "192.0.2.1", 1_700_000_000.0)


def ending(user: str = "alice", started: int | None = 1) -> Ending:
    return Ending(user=user, device="vpns0", started=started, duration=5)


def history(run_dir: Path, place: Path | None = None, **options: Any) -> History:
    return History(
        run_dir, lambda: place, lambda: "direct", clock=lambda: 1_700_000_005.0, **options
    )


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await scenario

    asyncio.run(limited())


def lines(path: Path) -> list[tuple[str, str, int | None]]:
    return [(r.user, r.reason, r.bytes_in) for r in file.records(path)]


# --- the file ------------------------------------------------------------------------------------


def test_a_new_file_is_private_and_another_s_mode_is_kept(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    old.write_bytes(b"1 2 3\n")
    old.chmod(0o640)
    for path in (new, old):
        file.append(path, [b"{}\n"], largest=1000)
    assert stat.S_IMODE(new.stat().st_mode) == 0o600
    assert stat.S_IMODE(old.stat().st_mode) == 0o640


def test_a_torn_line_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "h"
    path.write_bytes(b'{"user": "al')
    file.append(path, [b"{1}\n", b"{2}\n"], largest=1000)
    assert path.read_bytes() == b'{"user": "al\n{1}\n{2}\n'


def test_a_full_file_goes_aside_and_only_one_does(tmp_path: Path) -> None:
    path = tmp_path / "h"
    for number in range(4):
        file.append(path, [b"{%d}\n" % number], largest=8)
    assert path.read_bytes() == b"{2}\n{3}\n"
    assert file.predecessor(path).read_bytes() == b"{0}\n{1}\n"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["h", "h.1"]


@pytest.mark.parametrize("content", [b"auth = plain\n", b"\x7fELF"])
def test_a_file_of_something_else_is_never_appended_to(tmp_path: Path, content: bytes) -> None:
    """SESSION_HISTORY_FILE=/etc/ocserv/ocserv.conf is a mistake, and not the end of ocserv.conf."""
    path = tmp_path / "ocserv.conf"
    path.write_bytes(content)
    with pytest.raises(OSError, match="holds something else"):
        file.append(path, [b"{}\n"], largest=1000)
    assert path.read_bytes() == content


def test_a_directory_or_fifo_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(OSError, match=r"irectory|regular"):
            file.append(path, [b"{}\n"], largest=1000)


# --- what is written -----------------------------------------------------------------------------


def test_counts_of_the_hook_are_written_whichever_comes_first(tmp_path: Path) -> None:
    """The tunnel's end without counts, then the hook's report; and the hook alone. A report of
    another's session says nothing of this one."""

    async def scenario() -> None:
        made = history(tmp_path)
        made.ended(session(), "disconnected")
        made.reported(7, ending("mallory", None), Moved(99, 99))
        made.reported(8, ending(), Moved(99, 99))
        made.reported(7, ending(started=None), Moved(5, 6))
        made.ended(session(8, "bob"), "disconnected", Moved(7, 8))
        await made.close(())
        assert lines(tmp_path / HISTORY) == [
            ("alice", "disconnected", 5),
            ("bob", "disconnected", 7),
        ]

    run(scenario())


def test_a_session_that_nobody_reports_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "HOOK_PATIENCE", 0.02)

    async def scenario() -> None:
        made = history(tmp_path)
        writing = asyncio.create_task(made.run())
        made.ended(session(), "its worker is gone")
        while not made.status()["written"]:
            await asyncio.sleep(0.01)
        writing.cancel()
        assert lines(tmp_path / HISTORY) == [("alice", "its worker is gone", None)]

    run(scenario())


def test_a_stop_writes_what_is_left(tmp_path: Path) -> None:
    """Sessions whose hooks did not report any more, each once."""

    async def scenario() -> None:
        made = history(tmp_path)
        made.ended(session(), "disconnected")
        await made.close([session(), session(8, "bob")])
        assert lines(tmp_path / HISTORY) == [
            ("alice", "disconnected", None),
            ("bob", "the server was stopped", None),
        ]

    run(scenario())


def test_what_a_killed_control_plane_missed_is_written_once(tmp_path: Path) -> None:
    """Of two sessions in the journal one had been written down before."""

    async def scenario() -> None:
        before = history(tmp_path)
        before.ended(session(), "disconnected", Moved(1, 2))
        await before.close(())
        after = history(tmp_path)
        after.missed(session())
        after.missed(session(8, "bob"))
        await after.close(())
        assert lines(tmp_path / HISTORY) == [
            ("alice", "disconnected", 1),
            ("bob", "ended while the control plane was away", None),
        ]

    run(scenario())


def test_a_file_that_cannot_be_written_loses_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No space: lines wait in their order, status tells why; space again: all are there. More than
    the memory is meant for: the oldest are lost, and counted."""
    monkeypatch.setattr(history_module, "RETRY", 0.01)
    monkeypatch.setattr(history_module, "MOST_WAITING", 2)
    full = True

    def append(path: Path, batch: Sequence[bytes], *, largest: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        file.append(path, batch, largest=largest)

    async def scenario() -> None:
        nonlocal full
        place = tmp_path / "elsewhere"
        made = history(tmp_path, place, append=append)
        writing = asyncio.create_task(made.run())
        for worker in (1, 2, 3):
            made.ended(session(worker, f"user{worker}"), "disconnected", Moved(worker, 0))
        while not made.status()["trouble"]:
            await asyncio.sleep(0.01)
        assert made.status() == {
            "file": str(place),
            "written": 0,
            "waiting": 2,
            "lost": 1,
            "trouble": f"{place}: No space left on device",
        }
        full = False
        while made.status()["waiting"]:
            await asyncio.sleep(0.01)
        while made.status()["written"] < 2:
            await asyncio.sleep(0.01)
        writing.cancel()
        assert made.status()["trouble"] == ""
        assert [user for user, _, _ in lines(place)] == ["user2", "user3"]

    with capture_logs() as logs:
        run(scenario())
    errors = [entry["event"] for entry in logs if entry["log_level"] == "error"]
    assert len(errors) == 1
    assert "can't be written down" in errors[0]


def test_the_end_of_a_file_tells_what_was_written_last(tmp_path: Path) -> None:
    path = tmp_path / "h"
    made = record_of(session(), until=1_700_000_005.0, moved=None, exit="direct", reason="x")
    path.write_bytes(b"torn\n" + written(made))
    assert [found.id for found in file.latest(path)] == ["7-1"]
    assert list(file.latest(tmp_path / "absent")) == []


@pytest.mark.timeout(20)
def test_a_fifo_by_that_name_does_not_hold_up_the_start(tmp_path: Path) -> None:
    """`open` would wait for somebody who writes into it, with all of the control plane."""
    os.mkfifo(tmp_path / "fifo")
    assert list(file.latest(tmp_path / "fifo")) == []
