"""What the exit watch decides, with probes, neighbours, DNS and clocks that the test holds.

How fast it is on a real network is tests/kernel/test_exits.py's, the lab's and bench's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from ocgate.config import Endpoint
from ocgate.errors import OcgateError
from ocgate.kernel.way import Found, Target, Way
from ocgate.plan.exits import Exits, ExitState
from ocgate.plan.facts import Address, DefaultRoute, Family
from ocgate.runtime.probing import Hop, Seen
from ocgate.runtime.records import Records
from ocgate.server.exits.record import Known, read_known, write_known
from ocgate.server.exits.watch import ExitWatch
from ocgate.upstream.line import Counters
from ocgate.upstream.resolver import Answer, Lookup, NotResolved
from support.sources import facts, interface, sources
from support.virtual_time import VirtualLoop

A, B, SIX = map(ip_address, ("172.28.0.3", "172.28.0.4", "fd00:28::3"))
ETH0 = interface(2, "eth0", "172.28.0.2/24", "fd00:28::2/64")
FACTS = facts(ETH0, connected={"172.28.0.0/24": "eth0", "fd00:28::/64": "eth0"})
ANSWERS = Hop(answers=True, why="172.28.0.3 answers on eth0")
SILENT = Hop(answers=False, why="no answer to ARP from 172.28.0.3 on eth0")
GONE = replace(SILENT, gone=True)


@dataclass
class World:
    """A reconciler, and all that the watch asks. looks: what the reconciler was told, in order."""

    run_dir: Path
    loop: VirtualLoop = field(default_factory=VirtualLoop)
    prepared: Any = None
    exits: Exits = field(default_factory=Exits)
    looks: list[Exits] = field(default_factory=list)
    refuses: bool = False
    answers: bool = True
    refused: str = ""  # why, at once
    hop: Hop | None = None
    hops: list[tuple[Address, str, str, bool]] = field(default_factory=list)
    dns: Answer | str = "NXDOMAIN"
    asked: list[tuple[float, str, Family]] = field(default_factory=list)
    probed: list[tuple[Target, Way]] = field(default_factory=list)
    mac: str = ""
    counters: Counters | None = None
    running: dict[ExitWatch, asyncio.Task[None]] = field(default_factory=dict)

    def settle(self, exits: Exits = Exits(), **environ: str) -> None:  # noqa: B008
        """These settings and exits are in force."""
        subnets = (ip_network("10.10.10.0/24"),)
        intent = SimpleNamespace(ports=(10240, 32767))
        self.prepared = SimpleNamespace(
            sources=sources(**environ), facts=FACTS, subnets=subnets, intent=intent
        )
        self.exits = exits

    def watch(self, run_dir: Path | None = None, records: Records | None = None) -> ExitWatch:
        """One that runs, once time passes."""
        made = ExitWatch(
            self,
            run_dir or self.run_dir,
            ask=self.ask,
            carried=lambda _family: lambda: self.counters,
            next_hop=self.next_hop,
            resolve=self.resolve,
            mac_of=lambda _address, _device: self.mac,
            clock=self.loop.time,
            now=lambda: self.loop.time() + 1e9,
            records=records,
        )
        self.running[made] = self.loop.create_task(made.run())
        return made

    def passes(self, seconds: float) -> None:
        self.loop.passes(seconds)

    def does(self, what: Coroutine[Any, Any, object]) -> None:
        self.loop.run_until_complete(what)

    def ends(self, watch: ExitWatch) -> None:
        """As a control plane that is killed."""
        self.running[watch].cancel()
        self.does(asyncio.wait([self.running[watch]]))

    def reloads(self, watch: ExitWatch, exits: Exits, **environ: str) -> None:
        async def reload() -> None:
            async with watch.held():
                self.settle(exits, **environ)

        self.does(reload())

    async def look(self, *, exits: Exits) -> None:
        self.exits = exits  # known to the reconciler, but not in the kernel
        if self.refuses:
            raise OcgateError("the kernel says no")
        self.looks.append(exits)

    async def ask(self, target: Target, timeout: float, way: Way) -> Found:
        self.probed.append((target, way))
        if self.refused:
            return Found(ok=False, refused=True, why=self.refused)
        if not self.answers:
            await asyncio.sleep(timeout)
            return Found(ok=False, refused=False, why="timed out")
        await asyncio.sleep(0.012)
        return Found(ok=True, refused=False, why="answered", trip=0.012)

    def next_hop(
        self, address: Address, device: str, pin: str, *, probed: bool, wait: float
    ) -> Any:
        self.hops.append((address, device, pin, probed))

        async def ask() -> Hop | None:
            await asyncio.sleep(0.001)
            return self.hop

        return SimpleNamespace(ask=ask)

    async def resolve(self, name: str, family: Family, timeout: float, lookup: Lookup) -> Answer:
        self.asked.append((self.loop.time(), name, family))
        assert lookup.subnets == self.prepared.subnets
        if isinstance(self.dns, str):
            raise NotResolved(name, family, self.dns, timeout)
        return self.dns


@pytest.fixture(autouse=True)
def plain_logs() -> None:
    """Another test's levels and closed stderr are not this one's."""
    structlog.reset_defaults()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.settle(Exits(ExitState(A)), VPN_GATEWAY="172.28.0.3", EXIT_PROBE="1.1.1.1, [2620:fe::fe]")
    yield made
    made.loop.end()


def state(watch: ExitWatch) -> str:
    return watch.statuses()[0]["state"]


def why(watch: ExitWatch) -> str:
    return watch.statuses()[0]["why"]


MINE, OTHER = "02:42:ac:1c:00:03", "02:42:ac:1c:00:14"


# --- pinned MAC addresses -------------------------------------------------------------------------

LEARNS = {"VPN_GATEWAY": "172.28.0.3", "EXIT_PROBE": "1.1.1.1", "VPN_GATEWAY_MAC": "learn"}


def test_a_mac_is_learned_of_a_gateway_that_leads_out_and_kept(world: World) -> None:
    """Not of one that merely answers; a control plane that is restarted knows it, a start not."""
    world.settle(Exits(ExitState(A)), **LEARNS)
    world.mac, world.hop, world.answers = MINE, ANSWERS, False
    watch = world.watch()
    world.passes(10)
    assert world.exits.exit4 is not None
    assert world.exits.exit4.mac == ""
    world.answers = True
    world.passes(3)
    assert world.exits.exit4 == ExitState(A, "", MINE)
    assert world.hops[-1] == (A, "eth0", MINE, True)  # it is held to it
    world.mac = OTHER
    world.passes(3)
    assert world.exits.exit4 == ExitState(A, "", MINE)
    assert read_known(world.run_dir)[4].mac == MINE
    world.ends(watch)
    again = world.watch()
    world.passes(3)
    assert world.exits.exit4 == ExitState(A, "", MINE)
    world.reloads(again, world.exits, **LEARNS | {"VPN_GATEWAY_MAC": "off"})
    world.passes(3)
    assert world.exits.exit4 == ExitState(A, "", "")


def test_a_gateway_that_was_made_anew_is_learned_when_the_operator_says_so(world: World) -> None:
    """... in one order, and by nothing less: another reload (a renewal's) leaves it held."""
    world.settle(Exits(ExitState(A)), **LEARNS)
    world.mac = MINE
    watch = world.watch()
    world.passes(3)
    world.mac, world.answers = OTHER, False
    world.passes(5)
    assert state(watch) == "down"
    world.reloads(watch, world.exits, **LEARNS)
    world.passes(5)
    assert state(watch) == "down"
    assert world.exits.exit4 is not None
    assert world.exits.exit4.mac == MINE
    world.does(watch.learn_anew())
    assert world.exits.exit4.mac == ""
    world.passes(3)  # who answers, but does not lead out, is not learned
    assert world.exits.exit4.mac == ""
    world.answers = True
    world.passes(3)
    assert state(watch) == "up"
    assert world.exits.exit4.mac == OTHER


# --- up and down ----------------------------------------------------------------------------------


def test_an_exit_that_answers_changes_nothing(world: World) -> None:
    watch = world.watch()
    world.passes(30)
    assert world.looks == []
    status = watch.statuses()[0]
    assert (status["state"], status["rtt"]) == ("up", 0.012)
    assert (status["address"], status["device"]) == ("172.28.0.3", "eth0")
    assert 25 <= len(world.probed) <= 35  # one a second, jittered


def test_the_probe_goes_by_the_gateway_and_to_targets_of_its_family(world: World) -> None:
    world.watch()
    world.passes(0.1)
    way = Way(mark=0x2000000, ports=(10240, 32767))
    assert world.probed == [(Endpoint(ip_address("1.1.1.1"), 443), way)]


def test_silence_closes_it_and_two_answers_open_it(world: World) -> None:
    watch = world.watch()
    with capture_logs() as logs:
        world.passes(5)
        world.answers = False
        world.passes(2.5)
        assert state(watch) == "down"
        world.answers = True
        world.passes(2)
        assert state(watch) == "up"
    down, up = world.looks
    assert down.exit4 is not None
    assert down.exit4.down.startswith("no answer from 1.1.1.1:443 for ")
    assert up.exit4 == ExitState(A)
    assert [entry["event"] for entry in logs] == ["exit is up", "exit is down", "exit is up again"]
    assert logs[1]["log_level"] == "error"
    assert logs[1]["clients"] == "IPv4 is rejected until it answers again"
    assert 0 < logs[2]["after_seconds"] < 4
    assert watch.statuses()[0]["transitions"] == 2


def test_a_refusal_needs_no_waiting(world: World) -> None:
    watch = world.watch()
    world.passes(5)
    world.refused = "1.1.1.1:443: Host is unreachable"
    world.passes(1.2)
    assert (state(watch), why(watch)) == ("down", "1.1.1.1:443: Host is unreachable")


def test_what_came_back_for_clients_is_an_answer(world: World) -> None:
    """Of a line that delays every probe beyond its limit."""
    watch = world.watch()
    world.passes(5)
    world.answers = False
    for second in range(1, 60):
        world.counters = Counters(second * 100_000, second * 1_000_000)
        world.passes(0.5)
    assert state(watch) == "up"
    assert "came back in the last" in why(watch)
    assert world.looks == []
    world.passes(10)
    assert state(watch) == "down"


def test_before_the_first_verdict_of_a_start_it_counts_as_usable(world: World) -> None:
    world.answers = False
    watch = world.watch()
    world.passes(1)
    assert (state(watch), world.looks) == ("unknown", [])
    world.passes(9)
    assert (state(watch), len(world.looks)) == ("down", 1)


def test_news_of_the_networks_are_a_reason_to_ask(world: World) -> None:
    watch = world.watch()
    world.passes(5.5)
    world.refused = "1.1.1.1:443: Network is unreachable"
    asked = len(world.probed)

    async def nudged() -> None:
        watch.nudge()

    world.does(nudged())
    world.passes(0.15)
    assert len(world.probed) > asked
    assert state(watch) == "down"


# --- the next hop ---------------------------------------------------------------------------------


def test_a_gateway_that_does_not_answer_as_a_neighbour_is_named_as_that(world: World) -> None:
    watch = world.watch()
    world.passes(5)
    world.answers, world.hop = False, SILENT
    world.passes(2.5)
    assert (state(watch), why(watch)) == ("down", SILENT.why)
    assert world.exits.exit4 == ExitState(A, SILENT.why)


def test_a_next_hop_that_is_gone_is_down_before_its_probes_are(world: World) -> None:
    world.settle(
        Exits(ExitState(A)),
        VPN_GATEWAY="172.28.0.3",
        EXIT_PROBE="1.1.1.1",
        EXIT_PROBE_FAILURES="50",
    )
    watch = world.watch()
    world.passes(5)
    world.answers, world.hop = False, GONE
    world.passes(2.5)
    assert (state(watch), why(watch)) == ("down", SILENT.why)


def test_a_gateway_on_no_network_is_not_probed(world: World) -> None:
    watch = world.watch()
    world.prepared.facts = facts()
    world.passes(3)
    assert world.probed == []
    assert why(watch) == "172.28.0.3 is on none of the attached networks"
    assert watch.statuses()[0]["device"] is None


@pytest.mark.parametrize("targets", ["off", "[2620:fe::fe]:443"])
def test_without_a_target_health_follows_the_neighbour(world: World, targets: str) -> None:
    world.settle(Exits(ExitState(A)), VPN_GATEWAY="172.28.0.3", EXIT_PROBE=targets)
    watch, states = world.watch(), []
    for found in (None, ANSWERS, GONE, SILENT, None, ANSWERS):
        world.hop = found
        world.passes(2.2)
        states.append(state(watch))
    assert states == ["unknown", "up", "down", "down", "down", "up"]
    assert world.probed == []
    assert set(world.hops) == {(A, "eth0", "", False)}


# --- names ----------------------------------------------------------------------------------------


def test_a_name_whose_time_is_over_is_asked_again_and_followed(world: World) -> None:
    world.settle(Exits(ExitState(A)), VPN_GATEWAY="nl.example")
    world.dns = Answer((A,), 30, "192.0.2.53")
    watch = world.watch()
    world.passes(29)
    assert [asked[1:] for asked in world.asked] == [("nl.example", 4)]
    assert state(watch) == "up"
    world.dns = Answer((B,), 30, "192.0.2.53")
    world.answers = False
    with capture_logs() as logs:
        world.passes(1.5)
    assert world.looks == [Exits(ExitState(B))]
    assert logs[0] == {
        "event": "gateway moved",
        "log_level": "warning",
        "stage": "init-vpngw",
        "gateway": "VPN_GATEWAY=nl.example",
        "before": "172.28.0.3",
        "after": "172.28.0.4",
    }
    # What was known of the old address says nothing about the new one.
    assert state(watch) == "unknown"


def test_a_failed_look_up_keeps_the_address_and_is_told_once(world: World) -> None:
    world.settle(Exits(ExitState(A)), VPN_GATEWAY="nl.example")
    world.watch()
    with capture_logs() as logs:
        world.passes(20)
    began = world.asked[0][0]
    assert [round(asked[0] - began) for asked in world.asked] == [0, 1, 3, 7, 15]
    assert world.looks == []
    assert [(e["why"], e["meanwhile"]) for e in logs if e["event"] == "gateway not resolved"] == [
        ("NXDOMAIN", "172.28.0.3 is kept")
    ]


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("172.28.0.2", "172.28.0.2 is this host itself"),
        ("10.10.10.7", "10.10.10.7 lies in the client subnet 10.10.10.0/24"),
        ("203.0.113.9", "203.0.113.9 is on none of the attached networks"),
    ],
)
def test_an_answer_that_is_no_gateway_is_refused_and_the_last_one_kept(
    world: World, address: str, reason: str
) -> None:
    world.settle(Exits(ExitState(A)), VPN_GATEWAY="nl.example")
    world.dns = Answer((ip_address(address),), 30, "192.0.2.53")
    world.watch()
    with capture_logs() as logs:
        world.passes(3)
    assert f"192.0.2.53: {reason}" in [entry.get("why") for entry in logs]
    assert world.looks == []


def test_a_gateway_that_fails_is_looked_up_out_of_turn(world: World) -> None:
    world.settle(Exits(ExitState(A)), VPN_GATEWAY="nl.example")
    world.dns = Answer((A,), 600, "192.0.2.53")
    world.watch()
    world.passes(5)
    world.dns, world.answers = Answer((B,), 600, "192.0.2.53"), False
    world.passes(10)
    assert Exits(ExitState(B)) in world.looks


def test_of_a_target_that_is_mute_no_nameserver_hears(world: World) -> None:
    """Others answer: the gateway is well, and its name is asked for when its time is over."""
    targets = "1.1.1.1, 9.9.9.9"
    world.settle(Exits(ExitState(A)), VPN_GATEWAY="nl.example", EXIT_PROBE=targets)
    world.dns = Answer((A,), 600, "192.0.2.53")
    ask = world.ask

    async def half(target: Target, timeout: float, way: Way) -> Found:
        if str(target.address) == "9.9.9.9":
            await asyncio.sleep(timeout)
            return Found(ok=False, refused=False, why="timed out")
        return await ask(target, timeout, way)

    world.ask = half  # type: ignore[method-assign]
    watch = world.watch()
    world.passes(120)
    assert state(watch) == "up"
    assert len(world.asked) < 5


def test_a_probe_says_nothing_before_its_gateway_is_in_force(world: World) -> None:
    """The kernel's route follows a gateway that moves a moment later: until then a probe would
    ask the old one. And what was asked of the old one says nothing of the new."""
    world.settle(Exits(ExitState(A)), VPN_GATEWAY="nl.example")
    world.dns = Answer((A,), 600, "192.0.2.53")
    watch = world.watch()
    world.passes(5)
    world.dns, world.answers = Answer((B,), 600, "192.0.2.53"), False
    world.passes(1.6)  # suspected, and so looked up again
    assert world.exits == Exits(ExitState(B))
    assert state(watch) == "unknown"
    world.answers = True
    world.passes(6)
    assert state(watch) == "up"
    assert Exits(ExitState(B)) in world.looks
    assert not any(told.exit4 and told.exit4.down for told in world.looks)


def test_a_name_that_never_resolved_is_down_with_its_reason(world: World) -> None:
    world.settle(Exits(ExitState(None)), VPN_GATEWAY="nl.example")
    watch = world.watch()
    world.passes(0.1)
    assert world.exits.exit4 == ExitState(None, "nl.example has not resolved")
    status = watch.statuses()[0]
    assert (status["state"], status["address"]) == ("down", None)
    assert status["why"] == "its name has not resolved: NXDOMAIN"
    world.dns = Answer((A,), 30, "192.0.2.53")
    world.passes(2)
    assert world.exits.exit4 == ExitState(A)
    assert state(watch) == "up"


# --- what is in force, and kept -------------------------------------------------------------------


def test_the_kernel_that_refuses_is_told_and_asked_again(world: World) -> None:
    watch = world.watch()
    world.passes(3)
    world.refuses, world.answers = True, False
    with capture_logs() as logs:
        world.passes(5)
    assert state(watch) == "down"
    assert "the kernel says no" in [entry["why"] for entry in logs]
    world.refuses = False
    world.passes(1.5)
    assert [bool(told.exit4.down) for told in world.looks if told.exit4] == [True]


def test_a_restarted_control_plane_knows_what_was(world: World) -> None:
    watch = world.watch()
    world.passes(3)
    world.answers = False
    world.passes(3)
    world.ends(watch)
    before = read_known(world.run_dir)[4].seen
    assert (before.state, before.usable) == ("down", False)
    again = world.watch()
    assert (state(again), why(again)) == ("down", before.why)
    world.answers = True
    world.passes(2)
    assert state(again) == "up"
    assert read_known(world.run_dir)[4].seen.state == "up"


def test_the_record_of_another_address_says_nothing(world: World) -> None:
    write_known(world.run_dir, {4: Known("172.28.0.3", B, Seen("down", 1.0, "dead"))})
    assert state(world.watch()) == "unknown"


def test_a_reload_changes_what_is_watched(world: World) -> None:
    watch = world.watch()
    world.passes(3)
    world.answers = False
    world.passes(3)
    world.answers = True
    new = {"VPN_GATEWAY": "172.28.0.4", "VPN_GATEWAY6": "fd00:28::3"}
    world.reloads(watch, Exits(ExitState(B), ExitState(SIX)), **new)
    assert [s["state"] for s in watch.statuses()] == ["unknown", "unknown"]
    world.passes(2)
    assert [s["state"] for s in watch.statuses()] == ["up", "up"]
    world.reloads(watch, Exits())
    assert watch.statuses() == []
    looks = len(world.looks)
    world.passes(3)
    probed = len(world.probed)
    world.passes(10)
    assert (len(world.looks), len(world.probed)) == (looks, probed)


def test_a_reload_that_changes_how_it_is_asked_keeps_what_is_known(world: World) -> None:
    watch = world.watch()
    world.passes(3)
    before = watch.statuses()[0]
    environ = {"VPN_GATEWAY": "172.28.0.3", "EXIT_PROBE": "9.9.9.9", "EXIT_PROBE_INTERVAL": "0.2"}
    world.reloads(watch, world.exits, **environ)
    after = watch.statuses()[0]
    assert [after[key] for key in ("state", "since", "rtt", "why")] == [
        before[key] for key in ("state", "since", "rtt", "why")
    ]
    world.answers = False
    world.passes(1)
    assert state(watch) == "down"
    assert "9.9.9.9" in why(watch)


def test_a_verdict_that_a_reload_overtakes_is_not_put_in_force(world: World) -> None:
    """The old gateway goes down while the new one is being put in force."""
    watch = world.watch()
    world.passes(3)
    new = Exits(ExitState(B))

    async def overtaken() -> None:
        async with watch.held():
            world.answers = False
            await asyncio.sleep(5)
            assert state(watch) == "down"
            world.settle(new, VPN_GATEWAY="172.28.0.4")

    world.does(overtaken())
    world.passes(0.01)
    assert world.looks == []
    assert world.exits == new


def test_a_reload_asks_only_for_what_it_changes(world: World) -> None:
    world.settle(Exits(ExitState(A, "dead")), VPN_GATEWAY="nl.example")
    watch = world.watch()

    def resolved(**environ: str) -> Exits:
        return world.loop.run_until_complete(watch.resolved(sources(**environ), FACTS))

    assert resolved(VPN_GATEWAY="nl.example").exit4 == ExitState(A, "dead")
    assert resolved(VPN_GATEWAY="172.28.0.4").exit4 == ExitState(B)
    assert resolved() == Exits()


def test_a_reload_keeps_what_is_known_for_a_restart(world: World) -> None:
    """A gateway that it leaves alone keeps its health on disk, too."""
    watch = world.watch()
    world.passes(3)
    world.answers = False
    world.passes(3)
    exits = Exits(world.exits.exit4, ExitState(SIX))
    world.reloads(watch, exits, VPN_GATEWAY="172.28.0.3", VPN_GATEWAY6="fd00:28::3")
    known = read_known(world.run_dir)
    assert known[4].seen.state == "down"
    assert known[6] == Known("fd00:28::3", SIX)


def test_direct_and_block_are_told_and_not_watched(world: World) -> None:
    world.settle(VPN_GATEWAY="direct", VPN_GATEWAY6="block")
    watch = world.watch()
    world.passes(5)
    assert [(s["family"], s["gateway"], s["state"]) for s in watch.statuses()] == [
        (4, "direct", "direct"),
        (6, "block", "block"),
    ]
    assert (world.probed, world.looks) == ([], [])


def test_it_runs_without_a_gateway_and_begins_when_a_reload_brings_one(world: World) -> None:
    world.settle()
    watch = world.watch()
    world.passes(5)
    assert world.probed == []
    world.reloads(watch, Exits(ExitState(A)), VPN_GATEWAY="172.28.0.3")
    world.passes(0.5)
    assert world.probed != []


@pytest.mark.parametrize("turns", range(8))
def test_it_ends_when_it_is_cancelled_just_as_news_come(world: World, turns: int) -> None:
    """A stop takes routes and links away, so that news and the end come together."""
    watch = world.watch()
    world.passes(2)

    async def run() -> None:
        watch.nudge()
        for _ in range(turns):
            await asyncio.sleep(0)
        world.running[watch].cancel()
        done, _ = await asyncio.wait([world.running[watch]], timeout=0.5)
        assert done

    world.does(run())


def test_a_full_disk_does_not_end_the_watch(world: World) -> None:
    """... and what is kept becomes true when there is room, without another change."""
    gone, records = world.run_dir / "gone", Records()
    with capture_logs() as logs:
        watch = world.watch(gone, records)
        world.passes(3)
    assert "can't be kept" in " ".join(entry["event"] for entry in logs)
    assert not world.running[watch].done()
    gone.mkdir()
    records.retry()
    assert read_known(gone)[4].written == "172.28.0.3"


def test_a_gateway_that_became_the_isps_router_is_down(world: World) -> None:
    """Planning has closed it already."""
    watch = world.watch()
    world.passes(3)
    router = DefaultRoute(4, 0, 2, "eth0", A)
    world.prepared.facts = replace(FACTS, routes4=(router,))
    world.passes(2)
    assert state(watch) == "down"
    assert "the router of this host's default route" in why(watch)


def test_facts_that_change_are_followed(world: World) -> None:
    """The interface of the gateway's network, as the reconciler sees it after each event."""
    watch = world.watch()
    world.passes(3)
    eth1 = replace(ETH0, name="eth1")
    world.prepared.facts = facts(eth1, connected={"172.28.0.0/24": "eth1"})
    world.passes(2)
    assert watch.statuses()[0]["device"] == "eth1"
    assert world.hops[-1][1] == "eth1"
    assert state(watch) == "up"
