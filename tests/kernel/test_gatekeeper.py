"""Who is let in and out, against real maps and conntrack, with a process table of the test's own.

test ── Gatekeeper ── ElementWriter ── libnftables ── table inet ocserv (maps sessions4/6)
           └── Journal (tmp_path)        processes: a dict pid -> start time
"""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from ocgate.errors import KernelRefused
from ocgate.kernel.nft import Nft
from ocgate.plan import nft as text
from ocgate.plan.exits import Marks
from ocgate.plan.model import NftMap, Table
from ocgate.runtime import log as logs
from ocgate.server.admission import flows as flows_module
from ocgate.server.admission import gatekeeper as gatekeeper_module
from ocgate.server.admission.element_writer import ElementWriter
from ocgate.server.admission.gatekeeper import Domain, Gatekeeper
from ocgate.server.admission.journal import Journal
from ocgate.server.history import file
from ocgate.server.history.writer import History
from ocgate.sessions import elements
from ocgate.sessions.session import Session
from ocgate.sessions.table import SessionTable

pytestmark = pytest.mark.kernel

TABLE = Table(
    "ocserv",
    (),
    (
        NftMap("sessions4", "iifname . ip saddr", "meta mark"),
        NftMap("sessions6", "iifname . ip6 saddr", "meta mark"),
    ),
)
DOMAIN = Domain(
    "vpns", (IPv4Network("10.10.0.0/16"), IPv6Network("fda9:4efe:7e3b:3ea::/64")), prefix6_bits=128
)
GRACE = 0.1  # seconds; long enough for ten looks at the rival


class Room:
    """A gatekeeper with its table, maps, journal and a process table that the test writes."""

    def __init__(self, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.processes: dict[int, int] = {}
        self.forgotten: list[str] = []
        self.run_dir = run_dir
        self.nft = Nft()
        self.nft.run(text.replacement(TABLE))
        self.table = SessionTable()
        self.resyncs = 0
        self.transactions = 0
        self.writer = ElementWriter(self.nft, self.resync)
        self.history = History(run_dir, lambda: None, lambda: "direct")
        self.gate = self.another()
        self.writer.now_holds(elements.NO_SESSIONS, Marks())  # what was just made
        module = gatekeeper_module
        monkeypatch.setattr(module, "RIVAL_GRACE", GRACE)
        monkeypatch.setattr(module.process, "start_time", self.processes.get)
        monkeypatch.setattr(module.process, "alive", self.alive)
        forget = flows_module.forget

        def note(networks: Any) -> None:
            self.forgotten += [str(net.network_address) for net in networks]
            forget(networks)

        monkeypatch.setattr(flows_module, "forget", note)
        monkeypatch.setattr(flows_module, "FLOW_GRACE", GRACE)
        really = self.nft.run

        def counted(commands: str) -> None:
            self.transactions += 1
            really(commands)

        monkeypatch.setattr(self.nft, "run", counted)

    def another(self) -> Gatekeeper:
        return self.gatekeeper(lambda: DOMAIN)

    def gatekeeper(self, domain: Callable[[], Domain]) -> Gatekeeper:
        journal = Journal(self.run_dir)
        return Gatekeeper(self.table, self.writer, journal, domain, self.history)

    @property
    def journalled(self) -> Iterator[Session]:
        return Journal(self.run_dir).read()

    def recorded(self) -> list[tuple[str, str, int | None, int | None]]:
        """User, reason and bytes of each completed session in the file."""
        return [
            (found.user, found.reason, found.bytes_in, found.bytes_out)
            for found in file.records(self.history.path)
        ]

    def alive(self, pid: int, started: int) -> bool:
        return self.processes.get(pid) == started

    async def resync(self) -> None:
        """What the reconciler does: all of the table put right from the session table."""
        self.resyncs += 1
        wanted = elements.wanted(self.table, Marks())
        async with self.writer.lock:
            self.nft.run(text.recreation(TABLE) + text.sync_elements("ocserv", {}, wanted))
            self.writer.now_holds(wanted, Marks())

    def held(self) -> set[tuple[str, str]]:
        """(device, address) of both maps, as the kernel has them."""
        found = set()
        for name in ("sessions4", "sessions6"):
            listing = self.nft.list_json(f"list map inet ocserv {name}")["nftables"]
            for item in listing:
                for key, _mark in item.get("map", {}).get("elem", []):
                    found.add(tuple(key["concat"]))
        return found

    def journal(self) -> list[str]:
        return sorted(path.stem for path in (self.run_dir / "sessions").iterdir())

    async def connect(self, worker: int, started: int = 1, **fields: str) -> str | None:
        self.processes[worker] = started
        return await self.gate.connect(hook(worker, **fields))


def hook(worker: int, **changed: str) -> dict[str, bytes]:
    """A connect or disconnect request as ocserv's hook makes it."""
    said = {
        "ID": str(worker),
        "USERNAME": "alice",
        "VHOST": "default",
        "DEVICE": "vpns0",
        "IP_REMOTE": "10.10.10.2",
        "IP_REAL": "192.0.2.10",
        **changed,
    }
    return {key: value.encode("utf-8", "surrogateescape") for key, value in said.items()}


@pytest.fixture
def room(
    netns: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: object
) -> Iterator[Room]:
    logs.configure("human", "critical")
    made = Room(tmp_path, monkeypatch)
    yield made
    made.nft.close()


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """To its end, and to that of what it left to be done (flows are forgotten later)."""

    async def whole() -> None:
        async with asyncio.timeout(30):
            await scenario
            await settled()

    asyncio.run(whole())


async def settled() -> None:
    """Until what is done later (flows are forgotten) has been done."""
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))


Scenario = Callable[[], Coroutine[Any, Any, None]]


# --- the ordinary life ---------------------------------------------------------------------------


def test_admitted_means_the_kernel_holds_it_and_ended_that_it_does_not(room: Room) -> None:
    async def scenario() -> None:
        six = "fda9:4efe:7e3b:3ea::2"
        assert await room.connect(7, IPV6_REMOTE=six) is None
        assert room.held() == {("vpns0", "10.10.10.2"), ("vpns0", six)}
        assert room.journal() == ["7-1"]
        await room.gate.disconnect(hook(7))
        assert (room.held(), len(room.table)) == (set(), 0)
        await settled()
        assert room.journal() == []
        assert room.forgotten == ["10.10.10.2", six]

    run(scenario())


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"IP_REMOTE": "10.11.0.2"}, "outside the client subnets"),
        ({"IPV6_REMOTE": "2001:db8::2"}, "outside the client subnets"),
        ({"DEVICE": "tun0"}, "not one of vpns*"),
        ({"DEVICE": 'vpns0" . 10.10.10.9'}, "expected a device name"),
        ({"IP_REMOTE": ""}, "no address"),
        ({"IP_REMOTE": "10.10.10.2; flush ruleset"}, "expected an IP address"),
        ({"IP_REMOTE": "fda9:4efe:7e3b:3ea::2"}, "wrong family"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(
    room: Room, fields: dict[str, str], why: str
) -> None:
    async def scenario() -> None:
        said = await room.connect(7, **fields)
        assert said is not None
        assert why in said
        assert (room.held(), room.journal(), len(room.table)) == (set(), [], 0)

    run(scenario())


def test_a_worker_that_is_gone_already_is_refused(room: Room) -> None:
    async def scenario() -> None:
        assert await room.gate.connect(hook(7)) == "its worker is gone already"

    run(scenario())


def test_a_disconnect_of_somebody_unknown_is_no_error(room: Room) -> None:
    async def scenario() -> None:
        await room.connect(7)
        await room.gate.disconnect(hook(8))
        await room.gate.disconnect(hook(7, USERNAME="mallory"))
        await room.gate.disconnect(hook(7, DEVICE="vpns1"))
        await room.gate.disconnect({"ID": b"banana"})
        await room.gate.disconnect({})
        assert len(room.table) == 1
        for _ in range(2):
            await room.gate.disconnect(hook(7))
        assert room.held() == set()

    run(scenario())


# --- rivals --------------------------------------------------------------------------------------


def test_roaming_takes_over_and_keeps_the_flows(room: Room) -> None:
    """connect(new, vpns1) before disconnect(old, vpns0), one address: as soon as the old worker is
    dead the new one has it, flows are kept, and the late disconnect changes nothing."""

    async def scenario() -> None:
        await room.connect(7)
        asyncio.get_running_loop().call_later(GRACE / 3, room.processes.pop, 7)
        assert await room.connect(8, DEVICE="vpns1", IP_REAL="192.0.2.11") is None
        assert room.held() == {("vpns1", "10.10.10.2")}
        await settled()
        assert (room.journal(), room.forgotten) == (["8-1"], [])
        await room.gate.disconnect(hook(7))
        await room.gate.device_gone("vpns0")
        assert room.held() == {("vpns1", "10.10.10.2")}
        assert room.forgotten == []

    run(scenario())


@pytest.mark.parametrize("explicit", [False, True])
def test_a_rival_that_hangs_is_ended_if_its_lease_was_taken_over(
    room: Room, monkeypatch: pytest.MonkeyPatch, explicit: bool
) -> None:
    """alice's old worker does not end (it hangs in sending): her new session has the lease, so the
    old one is killed. Where a per-user file names the address, both may be meant: refused."""
    monkeypatch.setattr(gatekeeper_module, "SUPERSEDED_AFTER", GRACE / 3)
    killed: list[int] = []

    def kill(pid: int, _started: int) -> bool:
        killed.append(pid)
        return room.processes.pop(pid, None) is not None

    monkeypatch.setattr(gatekeeper_module.process, "kill", kill)
    named = frozenset({IPv4Network("10.10.10.2")}) if explicit else frozenset[IPv4Network]()
    domain = replace(DOMAIN, explicit=lambda: named)
    room.gate = room.gatekeeper(lambda: domain)

    async def scenario() -> None:
        await room.connect(7)
        verdict = await room.connect(8, DEVICE="vpns1")
        assert (verdict is None, killed) == ((False, []) if explicit else (True, [7]))
        owner = "vpns0" if explicit else "vpns1"
        assert room.held() == {(owner, "10.10.10.2")}

    run(scenario())


def test_a_dead_strangers_flows_are_cut(room: Room) -> None:
    """The address of alice's dead session goes to bob: her flows must not become his."""

    async def scenario() -> None:
        await room.connect(7)
        del room.processes[7]
        assert await room.connect(8, DEVICE="vpns1", USERNAME="bob") is None
        assert room.forgotten == ["10.10.10.2"]
        assert room.held() == {("vpns1", "10.10.10.2")}

    run(scenario())


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_a_living_rival_keeps_its_address(room: Room, user: str) -> None:
    """Two leases of one explicit-ipv4: after the grace the newcomer is refused, whoever it is, and
    the first is as before."""

    async def scenario() -> None:
        await room.connect(7)
        began = time.monotonic()
        said = await room.connect(8, DEVICE="vpns1", USERNAME=user)
        assert said is not None
        assert "belongs to another live session (alice on vpns0)" in said
        assert GRACE <= time.monotonic() - began < GRACE + 10
        assert room.held() == {("vpns0", "10.10.10.2")}
        assert room.journal() == ["7-1"]

    run(scenario())


def test_a_reused_pid_is_another_session(room: Room) -> None:
    """Worker 7 died and another process is 7 now: the old one makes way, and a late disconnect of
    the old one, which lasted longer than the new one has lived, does not end the new one."""

    async def scenario() -> None:
        await room.connect(7, 1)
        assert await room.connect(7, 2) is None
        await settled()
        assert room.journal() == ["7-2"]
        await room.gate.disconnect(hook(7, STATS_DURATION="3600"))
        assert room.journal() == ["7-2"]
        await room.gate.disconnect(hook(7, STATS_DURATION="0"))
        await settled()
        assert (room.journal(), room.held()) == ([], set())

    run(scenario())


def test_a_device_given_away_is_its_new_owners(room: Room) -> None:
    """vpns0 is reused before alice's end was heard of: her session is over, and the news of her
    tunnel's end is about the new one's device only if that has gone."""

    async def scenario() -> None:
        await room.connect(7)
        assert await room.connect(8, USERNAME="bob", IP_REMOTE="10.10.10.3") is None
        assert room.held() == {("vpns0", "10.10.10.3")}
        await settled()
        assert room.forgotten == ["10.10.10.2"]
        await room.gate.disconnect(hook(7))
        assert room.held() == {("vpns0", "10.10.10.3")}
        await room.gate.device_gone("vpns9")
        assert len(room.table) == 1
        await room.gate.device_gone("vpns0")
        assert (room.held(), len(room.table)) == (set(), 0)

    run(scenario())


def test_sweep_ends_whose_worker_died(room: Room) -> None:
    async def scenario() -> None:
        await room.connect(7)
        await room.connect(8, DEVICE="vpns1", IP_REMOTE="10.10.10.3")
        del room.processes[7]
        await room.gate.sweep()
        assert room.held() == {("vpns1", "10.10.10.3")}

    run(scenario())


# --- the kernel says no, others meddle -----------------------------------------------------------


def test_refused_by_the_kernel_is_refused(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """If neither the element nor the whole table can be written, nobody comes in."""

    async def scenario() -> None:
        async def in_vain() -> None:
            raise KernelRefused("no", request="", reply="")

        monkeypatch.setattr(room.writer, "_resync", in_vain)
        room.nft.run("delete table inet ocserv")
        said = await room.connect(7)
        assert said is not None
        assert "its kernel state can't be set" in said
        assert (len(room.table), room.journal()) == (0, [])

    run(scenario())


@pytest.mark.parametrize(
    "meddling",
    ["delete table inet ocserv", "flush map inet ocserv sessions4",
     'add element inet ocserv sessions4 { "vpns1" . 10.10.10.3 : 0x02000000 }'],
)  # fmt: skip
def test_the_writer_recovers_from_meddling(room: Room, meddling: str) -> None:
    """Somebody changed our maps: the next change finds out and puts all of it right."""

    async def scenario() -> None:
        await room.connect(7)
        room.nft.run(meddling)
        assert await room.connect(8, DEVICE="vpns1", IP_REMOTE="10.10.10.3") is None
        await room.gate.disconnect(hook(7))
        assert room.held() == {("vpns1", "10.10.10.3")}
        assert room.resyncs == 1

    run(scenario())


def test_a_thousand_at_once_melt_into_few_transactions(room: Room) -> None:
    """1,000 simultaneous connects, then as many ends: all right in the kernel, in few commits."""

    def fields(number: int) -> dict[str, str]:
        address = f"10.10.{number // 250}.{number % 250 + 1}"
        return {"DEVICE": f"vpns{number}", "IP_REMOTE": address, "USERNAME": f"user{number}"}

    async def scenario() -> None:
        before = room.transactions
        began = time.monotonic()
        verdicts = await asyncio.gather(*(room.connect(n + 1, **fields(n)) for n in range(1000)))
        seconds = time.monotonic() - began
        print(f"{room.transactions - before} transactions in {seconds:.2f} s")
        assert set(verdicts) == {None}
        assert len(room.held()) == len(room.journal()) == 1000
        assert room.transactions - before < 20
        await asyncio.gather(*(room.gate.disconnect(hook(n + 1, **fields(n))) for n in range(1000)))
        assert room.held() == set()
        await settled()
        assert room.journal() == []

    run(scenario())


def test_a_connect_and_its_end_at_the_same_time_leave_nothing(room: Room) -> None:
    """The hook gave up while its connect was waiting: whichever is done first, nothing stays."""

    async def scenario() -> None:
        for started in range(1, 20):
            await asyncio.gather(room.connect(7, started), room.gate.disconnect(hook(7)))
            await room.gate.disconnect(hook(7))
            assert (room.held(), len(room.table)) == (set(), 0)

    run(scenario())


# --- the journal ---------------------------------------------------------------------------------


def test_the_journal_brings_sessions_back_as_they_were(room: Room) -> None:
    """A new control plane adopts whose worker lives, byte for byte; others' files are removed."""

    async def scenario() -> None:
        name = "a\udcff b$(x)\t\u00e9"
        await room.connect(7, USERNAME=name, IPV6_REMOTE="fda9:4efe:7e3b:3ea::2")
        await room.connect(8, DEVICE="vpns1", IP_REMOTE="10.10.10.3")
        await room.connect(9, 5, DEVICE="vpns2", IP_REMOTE="10.10.10.4")

    run(scenario())
    before = {session.worker: session for session in room.table}
    del room.processes[8]
    room.processes[9] = 6  # reused
    directory = room.run_dir / "sessions"
    (directory / "garbage.json").write_text("{")
    (directory / "1-1.new").write_text("half a file")
    found: list[Session] = list(Journal(room.run_dir).read())
    assert {session.worker: session for session in found} == before
    assert [s.worker for s in found if room.alive(s.worker, s.started)] == [7]
    assert "garbage" not in room.journal()
    assert json.loads((directory / "7-1.json").read_text())["device"] == "vpns0"
    assert (directory / "7-1.json").stat().st_mode & 0o077 == 0 or not _readable(directory)


def _readable(directory: Path) -> bool:
    return bool(directory.stat().st_mode & 0o077)


# --- the history ---------------------------------------------------------------------------------


def test_each_session_is_in_the_history_once_with_its_bytes(room: Room) -> None:
    """The tunnel's end is heard before the hook that knows the bytes, or after it; one that roamed,
    one whose worker was killed; and one that ended while there was no control plane."""

    async def scenario() -> None:
        counts = {"STATS_BYTES_IN": "11", "STATS_BYTES_OUT": "22", "STATS_DURATION": "0"}
        await room.connect(7)
        await room.gate.device_gone("vpns0")
        await room.gate.disconnect(hook(7, **counts))
        await room.connect(8)
        await room.gate.disconnect(hook(8, **counts))
        await room.gate.device_gone("vpns0")
        await room.connect(9)
        del room.processes[9]
        await room.connect(10, DEVICE="vpns1")
        del room.processes[10]
        await room.gate.sweep()
        room.another().adopt(replace(next(iter(room.journalled)), worker=11))
        await room.history.close(())
        assert room.recorded() == [
            ("alice", "disconnected", 11, 22),
            ("alice", "disconnected", 11, 22),
            ("alice", "ended while the control plane was away", None, None),
            ("alice", "its address went on to vpns1", None, None),
            ("alice", "its worker is gone", None, None),
        ]

    run(scenario())


def test_flows_of_an_ended_session_are_gone(room: Room, sh: Callable[[str], str]) -> None:
    """End to end with the real conntrack table: hers go, another's stay."""
    for address in ("10.10.10.2", "10.10.10.3"):
        subprocess.run(
            ["conntrack", "-I", "-p", "udp", "-s", address, "-d", "198.51.100.10",
             "--sport", "1", "--dport", "2", "-t", "60"],
            check=True, capture_output=True,
        )  # fmt: skip

    async def scenario() -> None:
        await room.connect(7)
        await room.connect(8, DEVICE="vpns1", IP_REMOTE="10.10.10.3")
        await room.gate.disconnect(hook(7))

    run(scenario())
    left = sh("conntrack -L 2>/dev/null")
    assert "10.10.10.2" not in left
    assert "10.10.10.3" in left


# --- what the machine refuses ---------------------------------------------------------------------


def test_a_full_run_dir_refuses_with_its_reason_and_leaves_nothing(
    room: Room,
) -> None:
    """A login storm on a full tmpfs: each is told why, none gets an element, a table entry or a
    file; with space again they come in."""
    sessions = room.run_dir / "sessions"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", sessions], check=True)

    async def storm(numbers: range) -> set[str | None]:
        logins = (
            room.connect(n, DEVICE=f"vpns{n}", IP_REMOTE=f"10.10.10.{n}", USERNAME=f"user{n}")
            for n in numbers
        )
        return set(await asyncio.gather(*logins))

    async def scenario() -> None:
        (sessions / "filler").write_bytes(bytes(16 << 10))
        refused = await storm(range(7, 57))
        assert refused == {"it can't be noted in the run dir: No space left on device"}
        assert (len(room.table), room.held()) == (0, set())
        assert [entry.name for entry in sessions.iterdir()] == ["filler"]
        (sessions / "filler").unlink()
        assert await storm(range(7, 9)) == {None}
        assert (len(room.table), len(room.held())) == (2, 2)

    try:
        run(scenario())
    finally:
        subprocess.run(["umount", sessions], check=True)


def test_a_refusing_kernel_leaves_no_element_of_a_session_that_made_way(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old session has ended, the new one can't be set: the old one's element must not stand for
    the next that gets this tunnel. Until the kernel takes changes again nobody comes in."""

    async def scenario() -> None:
        assert await room.connect(7) is None
        taken, really = room.held(), room.nft.run
        del room.processes[7]

        def out_of_memory(_text: str) -> None:
            raise KernelRefused("no", request="", reply="Cannot allocate memory")

        monkeypatch.setattr(room.nft, "run", out_of_memory)
        said = await room.connect(8, IP_REMOTE="10.10.10.3")
        assert said is not None and "Cannot allocate memory" in said
        assert room.held() == taken  # as far as anybody could do
        assert len(room.table) == 0
        assert room.writer.unsettled

        monkeypatch.setattr(room.nft, "run", really)
        await room.resync()  # what the reconciler's next look does
        assert not room.writer.unsettled
        assert room.held() == set()

    run(scenario())


def test_flows_are_cut_until_the_element_of_an_ended_session_is_gone(
    room: Room, sh: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel refuses to take it out: what begins by it meanwhile is cut, too, also what began
    after a first cut, and the session counts as open for as long."""
    monkeypatch.setattr(flows_module, "AGAIN", 0.05)

    def flow(port: int) -> None:
        sh(f"conntrack -I -p udp -s 10.10.10.2 -d 198.51.100.10 --sport {port} --dport 2 -t 60")

    def flows() -> int:
        return sh("conntrack -L -s 10.10.10.2 2>/dev/null").count("10.10.10.2")

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.01)

    async def scenario() -> None:
        assert await room.connect(7) is None
        (session,) = room.table
        really = room.nft.run

        def refuses(_text: str) -> None:
            raise KernelRefused("no", request="", reply="Cannot allocate memory")

        monkeypatch.setattr(room.nft, "run", refuses)
        await room.gate.disconnect(hook(7))
        for port in (1, 2):
            flow(port)
            await until(lambda: flows() == 0)
        stranger = replace(session, user="mallory")
        assert room.gate._flows.strangers_until(stranger) == math.inf
        assert room.journal() == ["7-1"]  # a restarted control plane goes on with it

        monkeypatch.setattr(room.nft, "run", really)
        await room.resync()
        assert room.gate._flows.strangers_until(stranger) < math.inf
        flow(3)  # as if born in the last moment of the element
        await until(lambda: room.journal() == [])
        assert flows() == 0

    run(scenario())


def test_a_dead_session_of_a_former_control_counts_as_open_until_the_table_is_written(
    room: Room,
) -> None:
    """Its element is in the kernel until the first plan is applied."""

    async def scenario() -> None:
        assert await room.connect(7) is None
        (session,) = room.table
        del room.processes[7]
        room.table.end(session)
        room.writer = ElementWriter(room.nft, room.resync)
        room.gate = room.another()
        room.gate.adopt(session)
        stranger = replace(session, user="mallory")
        assert room.held()
        assert room.gate._flows.strangers_until(stranger) == math.inf
        await room.resync()  # what the reconciler's start does
        assert not room.held()
        assert 0 < room.gate._flows.strangers_until(stranger) < math.inf

    run(scenario())
