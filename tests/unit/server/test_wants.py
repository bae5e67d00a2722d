"""What the machine refuses ends nothing: jobs begin anew, requests are answered, status tells."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import subprocess
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace

import pytest

from ocgate import own_files
from ocgate.errors import (
    ConfigurationError,
    ConfigurationRefused,
    KernelRefused,
    OcgateError,
    ServerRefused,
)
from ocgate.kernel import process, surroundings
from ocgate.names import CONTROL_PID, EFFECTIVE_CONF, KEYS
from ocgate.ocserv import dryrun, key_copies
from ocgate.ocserv.render import Effective
from ocgate.plan.requirements import Tun
from ocgate.runtime import log as logs
from ocgate.runtime import shortages
from ocgate.runtime.pid_file import keep_pid
from ocgate.runtime.rate_limited_log import RateLimitedLog
from ocgate.runtime.records import Records
from ocgate.runtime.repairs import Repairs
from ocgate.server import daemon
from ocgate.server.admission import flows, tunnel_groups
from ocgate.server.reconcile.ipv6_egress import keep_egress
from ocgate.server.status import collect
from ocgate.sessions.session import Session
from ocgate.sessions.table import Ending, SessionTable, ended_by
from ocgate.supervision import orders

NO_PROCESSES = BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
SESSION = Session(
    812, 0, "vpns0", "alice", "default", IPv4Address("10.10.10.2"), None, "192.0.2.9", 0.0
)


@pytest.fixture(autouse=True)
def quiet(capsys: object) -> None:
    logs.configure("human", "critical")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (NO_PROCESSES, "Resource temporarily unavailable"),
        (MemoryError(), "no memory"),
        (subprocess.TimeoutExpired("ocserv -t", 5), "timed out"),
        (OcgateError("no", hint="do"), "no"),
    ],
)
def test_a_job_that_lacks_something_begins_anew(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortages, "AGAIN", 0.0)
    complaints = RateLimitedLog(logs.stage("svc-control"), "it stands still")
    begun = 0

    async def job() -> None:
        nonlocal begun
        begun += 1
        if begun < 3:
            raise error
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(shortages.lasting(job, complaints))
    assert begun == 3
    assert complaints.standing.startswith("it stands still: ")
    assert said in complaints.standing


def test_a_mistake_of_ours_is_none_of_these() -> None:
    async def job() -> None:
        raise KeyError("mistake")

    with pytest.raises(KeyError):
        asyncio.run(shortages.lasting(job, RateLimitedLog(logs.stage("svc-control"), "x")))


def test_a_complaint_stands_until_it_is_over_or_old(monkeypatch: pytest.MonkeyPatch) -> None:
    made = RateLimitedLog(logs.stage("svc-control"), "it can't")
    assert made.standing == ""
    made.tell("no memory")
    assert made.standing == "it can't: no memory"
    made.over()
    assert made.standing == ""
    made.tell("no memory")
    made._latest -= 61
    assert made.standing == ""


def test_threads_are_there_before_processes_are_scarce(monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards no thread is started, however much is asked of them at once."""

    async def scenario() -> None:
        await shortages.start_threads()

        def none(_self: object) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr("threading.Thread.start", none)
        await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.001) for _ in range(50)))
        monkeypatch.undo()

    asyncio.run(scenario())


def test_threads_that_cannot_be_had_are_taken_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for two all jobs are done by two; without any it is said, and nothing is lost."""
    start, room = threading.Thread.start, 2

    def scarce(self: threading.Thread) -> None:
        if len(pool_threads()) >= room:
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr("threading.Thread.start", scarce)

    async def scenario() -> None:
        nonlocal room
        await shortages.start_threads()
        done = await asyncio.gather(*(asyncio.to_thread(abs, -n) for n in range(50)))
        assert done == [*range(50)]
        assert len(pool_threads()) == 2
        room = 100
        await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.01) for _ in range(20)))
        assert len(pool_threads()) == shortages.THREADS

    asyncio.run(scenario())
    room = 0
    with pytest.raises(RuntimeError):  # asyncio.run's own, at its end
        asyncio.run(shortages.start_threads())


def pool_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("control_")]


@pytest.mark.parametrize(
    ("error", "said", "status"),
    [
        (OcgateError("the kernel refuses", hint="do"), "the kernel refuses\n  do", 1),
        (ConfigurationError([]), "", 2),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files", 1),
        (MemoryError(), "no memory", 1),
        (RuntimeError("can't start new thread"), "can't start new thread", 1),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_what_ends_a_start_is_one_line(
    error: Exception, said: str, status: int, capsys: pytest.CaptureFixture[str], *, wrapped: bool
) -> None:
    """asyncio's TaskGroup wraps what is raised in it."""
    assert shortages.ended_by(ExceptionGroup("unhandled", [error]) if wrapped else error) == status
    assert capsys.readouterr().err == f"svc-control: error: {said}\n"


def test_a_mistake_of_ours_at_a_start_is_shown_whole() -> None:
    for error in (KeyError("x"), RuntimeError("x"), ExceptionGroup("x", [OSError(), KeyError()])):
        with pytest.raises(type(error)):
            shortages.ended_by(error)


def test_a_program_that_was_killed_has_said_nothing(tmp_path: Path) -> None:
    """Neither is a configuration refused then, nor is a service down."""
    killed = ["sh", "-c", "kill -SEGV $$"]
    shown = Effective("ocserv.conf", b"", (), {})
    with pytest.raises(ServerRefused, match="to no verdict, it was ended by SIGSEGV") as caught:
        dryrun.dry_run(tmp_path, shown, base=tmp_path, command=killed)
    assert not isinstance(caught.value, ConfigurationRefused)


@pytest.mark.parametrize("code", [-11, 111, 127])
def test_a_status_that_cannot_be_read_is_no_service_that_is_down(
    code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = subprocess.CompletedProcess([], code, "", "no memory")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    written = tmp_path / "services/ocserv/supervise/status"
    written.parent.mkdir(parents=True)
    written.touch()
    with pytest.raises(ServerRefused, match=r"s6-svstat .*: no memory"):
        orders.status(tmp_path, "ocserv")


def test_a_supervisor_that_has_only_begun_is_one_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It listens before it has written how its service is."""
    said = "s6-svstat: fatal: unable to read status: No such file or directory"
    done = subprocess.CompletedProcess([], 111, "", said)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert orders.status(tmp_path, "ocserv") == orders.ServiceStatus(False, None, False)


def test_no_processes_is_said_of_a_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def none(*_: object, **__: object) -> None:
        raise NO_PROCESSES

    monkeypatch.setattr(subprocess, "run", none)
    for order in (
        lambda: orders.status(tmp_path, "ocserv"),
        lambda: orders.stop(tmp_path, "ocserv", 1.0),
        lambda: orders.start(tmp_path, "ocserv"),
    ):
        with pytest.raises(ServerRefused, match="Resource temporarily unavailable"):
            order()


def test_what_new_sessions_need_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert collect.lacking(tmp_path) == []
    monkeypatch.setattr(surroundings, "tun", lambda: Tun.ABSENT)
    monkeypatch.setattr(own_files, "room", lambda _: "No space left on device")
    said = collect.lacking(tmp_path)
    assert said == [
        f"nothing can be written in {tmp_path} (No space left on device): new sessions are refused "
        "until that is mended",
        "/dev/net/tun is not there: new sessions get no tunnel",
    ]


def test_room_leaves_nothing_and_says_what_is_wrong(tmp_path: Path) -> None:
    assert own_files.room(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []
    assert own_files.room(tmp_path / "gone") == "No such file or directory"


def test_what_is_kept_for_a_restart_ends_nothing_where_it_cannot_be(tmp_path: Path) -> None:
    keep_egress(tmp_path / "gone", "no answer", Records())
    keep_pid(tmp_path / "gone", Records())
    (tmp_path / ".control.pid.new").mkdir()  # stands for a full disk
    (tmp_path / CONTROL_PID).write_text("of a predecessor")
    keep_pid(tmp_path, Records())
    assert not (tmp_path / CONTROL_PID).exists()


def test_the_limit_of_descriptors_is_raised_to_the_hard_one() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))
        assert process.raise_files_limit() == min(before[1], process.MOST_FILES)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# --- a clock that steps --------------------------------------------------------------------------


@pytest.mark.parametrize("step", [-(10**8), 10**8])
def test_a_disconnect_is_understood_after_the_clock_was_set(step: float) -> None:
    """By the kernel's clock the session is as old as it is, whenever the wall's says it began."""
    began = int((flows.since_boot() - 100) * os.sysconf("SC_CLK_TCK"))
    session = replace(SESSION, started=began, connected_at=time.time() + step)
    ending = Ending(user="alice", device="vpns0", started=None, duration=90)
    assert ended_by((session,), ending, age=flows.age) == session
    assert ended_by((session,), replace(ending, duration=500), age=flows.age) is None


def test_renewed_keys_are_newer_for_ocserv_also_after_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ocserv compares a file's time with that of its own last look."""
    key_copies.stage(tmp_path, key_copies.KeyFiles({"key.pem": b"old"}))
    key_copies.put(tmp_path)
    (tmp_path / EFFECTIVE_CONF).write_text("read now")
    looked = time.time()
    monkeypatch.setattr(key_copies.time, "time", lambda: looked - 7200)
    key_copies.stage(tmp_path, key_copies.KeyFiles({"key.pem": b"new"}))
    key_copies.put(tmp_path)
    copy = tmp_path / KEYS / "key.pem"
    assert copy.read_bytes() == b"new"
    assert int(copy.stat().st_mtime) > int(looked)


# --- the daemon's own jobs -----------------------------------------------------------------------


def test_tunnels_are_grouped_as_soon_as_they_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a descriptor neither control ends, nor are adopted sessions cut off for good."""
    refusals, joined = [OSError(errno.EMFILE, os.strerror(errno.EMFILE))], list[str]()

    def join(_self: object, devices: list[str]) -> None:
        if refusals:
            raise refusals.pop()
        joined.extend(devices)

    monkeypatch.setattr(tunnel_groups.TunnelGroup, "join", join)
    monkeypatch.setattr(tunnel_groups, "AGAIN", 0.001)
    table = SessionTable()
    table.add(SESSION)
    kept = tunnel_groups.Tunnels(table, Repairs(logs.stage("svc-control")))

    async def run() -> None:
        job = asyncio.create_task(kept.run())
        async with asyncio.timeout(5):
            while not joined or kept.complaints.standing:
                await asyncio.sleep(0.001)
        job.cancel()

    asyncio.run(run())
    assert joined == ["vpns0"]


def test_a_tunnel_that_is_taken_out_of_its_group_is_put_back_and_that_is_a_repair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the kernel refuses at first; a tunnel of no session is left alone."""
    refusals, joined = [KernelRefused("no", request="", reply="busy")], list[str]()

    def join(_self: object, devices: list[str]) -> None:
        if devices and refusals:
            raise refusals.pop()
        joined.extend(devices)

    monkeypatch.setattr(tunnel_groups.TunnelGroup, "join", join)
    monkeypatch.setattr(tunnel_groups, "AGAIN", 0.001)
    table, repairs = SessionTable(), Repairs(logs.stage("svc-control"))
    kept = tunnel_groups.Tunnels(table, repairs)

    async def run() -> None:
        job = asyncio.create_task(kept.run())
        await asyncio.sleep(0)
        table.add(SESSION)
        kept.left(["vpns0", "vpns9"])
        async with asyncio.timeout(5):
            while not repairs.count:
                await asyncio.sleep(0.001)
        job.cancel()

    asyncio.run(run())
    assert joined == ["vpns0"]
    assert repairs.last == "tunnel vpns0 was taken out of its interface group"


def test_what_the_kernel_took_of_a_refused_reload_is_put_back_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The plan in force is looked at again within a second, and not at the next event."""
    done: list[str] = []

    @contextlib.asynccontextmanager
    async def held() -> AsyncIterator[None]:
        yield

    async def replace_conf(_prepared: object, *, renew: bool = True) -> None:
        done.append("new" if renew else "former")

    async def refused(**_: object) -> None:
        raise OcgateError("the kernel refuses a route")

    async def anything(*_: object) -> None:
        return None

    for name in ("prepare", "problems", "standing", "needs_restart", "left_out"):
        monkeypatch.setattr(daemon, name, lambda *_, **__: ())
    snapshot = SimpleNamespace(drop=lambda: done.append("dropped"))
    monkeypatch.setattr(daemon, "stage_snapshot", lambda *_: snapshot)
    monkeypatch.setattr(daemon, "_facts", anything)
    former = SimpleNamespace(sources=None)
    control = SimpleNamespace(
        run_dir=None,
        table=(),
        reconciler=SimpleNamespace(
            prepared=former, strays=(), egress=None, exits=None, look=refused, unsettled=False
        ),
        conf=SimpleNamespace(replace=replace_conf),
        exits=SimpleNamespace(resolved=anything, held=held),
        _egress_for=anything,
    )
    with pytest.raises(OcgateError, match="refuses a route"):
        asyncio.run(daemon.Control._accept(control, None))  # type: ignore[arg-type]
    assert control.reconciler.unsettled
    assert done == ["new", "former", "dropped"]
