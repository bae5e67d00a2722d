"""Records in the run dir: after a write that was refused they become true by themselves."""

from __future__ import annotations

import asyncio
import errno
import os
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ocgate.exit_node import daemon as exit_daemon
from ocgate.names import CONTROL_PID, SESSIONS
from ocgate.plan.exits import FormerAddress
from ocgate.runtime.pid_file import keep_pid
from ocgate.runtime.records import Records
from ocgate.server import daemon
from ocgate.server.admission.journal import Journal
from ocgate.server.desired.prepare import Ipv6Egress
from ocgate.server.desired.sources import read_egress
from ocgate.server.reconcile.former_addresses import read_strays
from ocgate.server.reconcile.ipv6_egress import keep_egress
from ocgate.server.reconcile.reconciler import Reconciler
from ocgate.sessions.session import Session

STRAYS = (FormerAddress("eth0", ip_address("172.28.0.10")),)


def test_what_is_refused_is_owed_until_it_stands_and_said_meanwhile() -> None:
    refusals = [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "exits.json") for _ in range(2)]
    written: list[str] = []

    def write(content: str) -> None:
        if refusals:
            raise refusals.pop()
        written.append(content)

    records = Records()
    records.keep("exits.json", lambda: write("down"))
    assert "exits.json: No space left on device" in records.complaints.standing
    records.keep("exits.json", lambda: write("up"))
    assert written == []
    records.retry()
    records.retry()
    assert written == ["up"]  # once, and the latest alone
    assert records.complaints.standing == ""


def _keep_strays(run_dir: Path, records: Records) -> None:
    nobody: Any = SimpleNamespace()
    kept = Reconciler(nobody, run_dir, nobody, nobody, Ipv6Egress("not asked"), records=records)
    steered: Any = SimpleNamespace(intent=SimpleNamespace(steering=SimpleNamespace(strays=STRAYS)))
    kept._keep_strays(steered)
    kept._keep_strays(steered)  # as the next look does, which finds nothing new


@pytest.mark.parametrize(
    ("keep", "stands"),
    [
        (_keep_strays, lambda here: read_strays(here) == STRAYS),
        (
            lambda here, records: keep_egress(here, "no answer", records),
            lambda here: read_egress(here) == "no answer",
        ),
        (keep_pid, lambda here: (here / CONTROL_PID).read_text() == f"{os.getpid()}\n"),
    ],
    ids=["former addresses", "egress", "pid"],
)
def test_each_record_stands_once_there_is_room(tmp_path: Path, keep: Any, stands: Any) -> None:
    records, here = Records(), tmp_path / "run"  # not there: stands for a full disk
    keep(here, records)
    here.mkdir()
    records.retry()
    assert stands(here)


@pytest.mark.parametrize("control", [daemon.Control, exit_daemon.Control])
def test_the_daemons_of_both_roles_try_again(control: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """... once a second, whatever else there is to do."""
    for module in (daemon, exit_daemon):
        monkeypatch.setattr(module, "UNSETTLED_LOOK", 0.001)
    tried = asyncio.Event()
    made = SimpleNamespace(
        records=SimpleNamespace(retry=tried.set),
        runner=SimpleNamespace(check=lambda: None),
        reconciler=SimpleNamespace(unsettled=False, writer=SimpleNamespace(unsettled=False)),
        conf=SimpleNamespace(is_missing=False),
        _next_look=float("inf"),
    )

    async def run() -> None:
        job = asyncio.create_task(control._unprompted(made))
        await asyncio.wait_for(tried.wait(), 5.0)
        job.cancel()

    asyncio.run(run())


def test_a_journal_without_its_directory_makes_it(tmp_path: Path) -> None:
    """It could not be made at the start, or somebody removed it: nobody would come in any more."""
    here = tmp_path / "run"
    journal = Journal(here)  # no space for a directory
    session = Session(1, 1, "vpns0", "alice", "", ip_address("10.10.10.2"), None, "", 0.0)
    with pytest.raises(OSError, match="No such file"):
        journal.write(session)
    here.mkdir()
    journal.write(session)
    assert (here / SESSIONS).stat().st_mode & 0o777 == 0o700
    assert list(Journal(here).read()) == [session]
