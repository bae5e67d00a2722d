"""What the exit watch decides, with probes, neighbours, DNS and clocks that the test holds.

How fast it is on a real network is tests/kernel/test_exits.py's and the lab's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs
from t4_sources import facts, interface, sources

from ocgate.config import Endpoint
from ocgate.control.exit_record import Known, read_known, write_known
from ocgate.control.exit_watch import ExitWatch
from ocgate.control.records import Records
from ocgate.errors import OcgateError
from ocgate.exits.health import Health, State
from ocgate.exits.resolver import Answer, Lookup, NotResolved
from ocgate.kernel.neighbours import Neighbour
from ocgate.kernel.probe import ProbeResult
from ocgate.kernel.way import Target
from ocgate.plan.exits import Exits, ExitState
from ocgate.plan.facts import Address, DefaultRoute, Family

A, B, SIX = map(ip_address, ("172.28.0.3", "172.28.0.4", "fd00:28::3"))
ETH0 = interface(2, "eth0", "172.28.0.2/24", "fd00:28::2/64")
FACTS = facts(ETH0, connected={"172.28.0.0/24": "eth0", "fd00:28::/64": "eth0"})


@dataclass
class World:
    """A keeper, and all that the watch asks. looks: what the keeper was told, in order."""

    run_dir: Path
    prepared: Any = None
    exits: Exits = field(default_factory=Exits)
    looks: list[Exits] = field(default_factory=list)
    refuses: bool = False
    answers: bool = True
    neighbours: Neighbour = Neighbour.ANSWERED
    solicited: list[tuple[Address, str]] = field(default_factory=list)
    suspected: list[tuple[Address, str]] = field(default_factory=list)
    dns: Answer | str = "NXDOMAIN"
    asked: list[tuple[str, Family]] = field(default_factory=list)
    probed: list[tuple[list[Target], int, float]] = field(default_factory=list)
    at: float = 1000.0
    hold: asyncio.Event | None = None
    mac: str = ""
    holders: frozenset[str] | None = frozenset()

    def settle(self, exits: Exits = Exits(), **environ: str) -> None:  # noqa: B008
        """These settings and exits are in force."""
        subnets = (ip_network("10.10.10.0/24"),)
        intent = SimpleNamespace(ports=(10240, 32767))
        self.prepared = SimpleNamespace(
            sources=sources(**environ), facts=FACTS, subnets=subnets, intent=intent
        )
        self.exits = exits

    def watch(self) -> ExitWatch:
        return ExitWatch(
            self,
            self.run_dir,
            probe=self.probe,
            resolve=self.resolve,
            neighbour=lambda _address, _device: self.neighbours,
            solicit=lambda address, device: self.solicited.append((address, device)),
            suspect=lambda address, device: self.suspected.append((address, device)),
            mac_of=lambda _address, _device: self.mac,
            holders=self.asked_link,
            clock=lambda: self.at,
            now=lambda: self.at + 1e9,
        )

    async def look(self, *, exits: Exits) -> None:
        self.exits = exits  # known to the keeper, but not in the kernel
        if self.refuses:
            raise OcgateError("the kernel says no")
        self.looks.append(exits)

    async def probe(
        self,
        targets: Sequence[Target],
        *,
        timeout: float,
        mark: int,
        ports: tuple[int, int] | None,
    ) -> ProbeResult:
        self.probed.append((list(targets), mark, timeout))
        if self.hold is not None:
            await self.hold.wait()
        words = "1.1.1.1:443 answered" if self.answers else "1.1.1.1:443: Connection timed out"
        return ProbeResult(self.answers, targets[0], words, 0.012)

    async def asked_link(
        self, address: Address, device: str, *, wait: float
    ) -> frozenset[str] | None:
        return self.holders

    async def resolve(self, name: str, family: Family, timeout: float, lookup: Lookup) -> Answer:
        self.asked.append((name, family))
        assert lookup.subnets == self.prepared.subnets
        if isinstance(self.dns, str):
            raise NotResolved(name, family, self.dns, timeout)
        return self.dns


@pytest.fixture(autouse=True)
def plain_logs() -> None:
    """Another test's levels and closed stderr are not this one's."""
    structlog.reset_defaults()


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.settle(Exits(ExitState(A)), VPN_GATEWAY="172.28.0.3", EXIT_PROBE="1.1.1.1, [2620:fe::fe]")
    return made


def act(*steps: Coroutine[Any, Any, object]) -> None:
    """Run these one after the other."""

    async def run() -> None:
        for step in steps:
            await step

    asyncio.run(run())


def rounds(watch: ExitWatch, world: World, signs: str) -> str:
    """A round for each sign (+ answers, - doesn't); the exit's state after each."""
    letters = {"up": "U", "down": "D", "unknown": "?"}
    states = ""
    for sign in signs:
        world.answers = sign == "+"
        world.at += 1
        act(watch.round())
        states += letters[watch.statuses()[0]["state"]]
    return states


MINE, OTHER = "02:42:ac:1c:00:03", "02:42:ac:1c:00:14"


def test_a_mac_is_learned_of_a_gateway_that_leads_out_and_kept(world: World) -> None:
    """Not of one that merely answers; a control plane that is restarted knows it, a start not."""
    probes = {"VPN_GATEWAY": "172.28.0.3", "EXIT_PROBE": "1.1.1.1"}
    world.settle(Exits(ExitState(A)), VPN_GATEWAY_MAC="learn", **probes)
    world.mac = MINE
    watch = world.watch()
    rounds(watch, world, "-")
    assert world.exits.exit4 is None or world.exits.exit4.mac == ""
    rounds(watch, world, "++")
    assert world.exits.exit4 == ExitState(A, "", MINE)
    world.mac = OTHER
    rounds(watch, world, "+")
    assert world.exits.exit4 == ExitState(A, "", MINE)
    assert read_known(world.run_dir)[4].mac == MINE
    rounds(world.watch(), world, "+")
    assert world.exits.exit4 == ExitState(A, "", MINE)
    world.settle(world.exits, VPN_GATEWAY_MAC="off", **probes)  # a reload, to learn it anew
    rounds(watch, world, "+")
    assert world.exits.exit4 == ExitState(A, "", "")


def test_a_gateway_that_was_made_anew_is_learned_when_the_operator_says_so(world: World) -> None:
    """... in one order, and by nothing less: another reload (a renewal's) leaves it held."""
    probes = {"VPN_GATEWAY": "172.28.0.3", "EXIT_PROBE": "1.1.1.1", "VPN_GATEWAY_MAC": "learn"}
    world.settle(Exits(ExitState(A)), **probes)
    world.mac = MINE
    watch = world.watch()
    rounds(watch, world, "++")
    world.mac, world.holders = OTHER, frozenset({OTHER})
    assert rounds(watch, world, "---")[-1] == "D"
    assert "reload --learn-mac" in watch.statuses()[0]["why"]

    async def reloaded() -> None:
        async with watch.held():
            world.settle(world.exits, **probes)

    act(reloaded())
    assert rounds(watch, world, "-") == "D"
    assert world.exits.exit4 is not None and world.exits.exit4.mac == MINE
    act(watch.learn_anew())
    assert world.exits.exit4.mac == ""
    rounds(watch, world, "-")  # who answers, but does not lead out, is not learned
    assert world.exits.exit4.mac == ""
    assert rounds(watch, world, "++")[-1] == "U"
    assert world.exits.exit4.mac == OTHER


@pytest.mark.parametrize(
    ("holders", "why"),
    [
        (frozenset({OTHER}), f"172.28.0.3 answers with another MAC address on eth0, {OTHER}, than"),
        (frozenset({MINE, OTHER}), "Connection timed out"),
        (frozenset[str](), "no answer to ARP from 172.28.0.3 on eth0"),
        (None, "Connection timed out"),
    ],
)
def test_a_pinned_gateway_that_fails_is_told_by_who_answers_for_it(
    world: World, holders: frozenset[str] | None, why: str
) -> None:
    """... and the kernel's entry, which it must not doubt, is left alone."""
    world.settle(
        Exits(ExitState(A)),
        VPN_GATEWAY="172.28.0.3",
        EXIT_PROBE="1.1.1.1",
        VPN_GATEWAY_MAC=MINE,
    )
    world.holders = holders
    watch = world.watch()
    assert rounds(watch, world, "---")[-1] == "D"
    assert why in watch.statuses()[0]["why"]
    assert world.suspected == []


def test_without_probes_a_pinned_gateway_is_up_while_its_own_mac_answers(world: World) -> None:
    world.settle(
        Exits(ExitState(A)), VPN_GATEWAY="172.28.0.3", EXIT_PROBE="off", VPN_GATEWAY_MAC=MINE
    )
    watch = world.watch()
    world.holders = frozenset({MINE})
    assert rounds(watch, world, "+") == "U"
    world.holders = frozenset({OTHER})
    assert rounds(watch, world, "+") == "D"


def test_an_exit_that_answers_changes_nothing(world: World) -> None:
    watch = world.watch()
    assert rounds(watch, world, "+++") == "UUU"
    assert world.looks == []
    status = watch.statuses()[0]
    assert status["rtt"] == 0.012
    assert (status["address"], status["device"]) == ("172.28.0.3", "eth0")


def test_the_probe_goes_by_the_gateway_and_to_targets_of_its_family(world: World) -> None:
    act(world.watch().round())
    assert world.probed == [([Endpoint(ip_address("1.1.1.1"), 443)], 0x2000000, 1.0)]


def test_three_failures_close_it_and_two_answers_open_it(world: World) -> None:
    watch = world.watch()
    with capture_logs() as logs:
        assert rounds(watch, world, "+--+---+-++") == "UUUUUUDDDDU"
    down, up = world.looks
    assert down.exit4 == ExitState(A, "1.1.1.1:443: Connection timed out")
    assert up.exit4 == ExitState(A)
    assert [entry["event"] for entry in logs] == ["exit is up", "exit is down", "exit is up again"]
    assert logs[1]["log_level"] == "error"
    assert logs[1]["clients"] == "IPv4 is rejected until it answers again"
    assert logs[2]["after_seconds"] == 4
    assert watch.statuses()[0]["transitions"] == 2


def test_the_first_verdict_of_a_start_decides_alone(world: World) -> None:
    watch = world.watch()
    assert watch.statuses()[0]["state"] == "unknown"
    assert rounds(watch, world, "-") == "D"
    assert len(world.looks) == 1


def test_a_gateway_that_does_not_answer_as_a_neighbour_is_named_as_that(world: World) -> None:
    world.neighbours = Neighbour.FAILED
    watch = world.watch()
    rounds(watch, world, "-")
    assert watch.statuses()[0]["why"] == "no answer to ARP from 172.28.0.3 on eth0"
    world.settle(Exits(None, ExitState(SIX)), VPN_GATEWAY="block", VPN_GATEWAY6="fd00:28::3")
    act(watch.round())
    assert watch.statuses()[1]["why"] == "no answer to NDP from fd00:28::3 on eth0"


def test_a_gateway_on_no_network_is_not_probed(world: World) -> None:
    watch = world.watch()
    world.prepared.facts = facts()
    act(watch.round())
    assert world.probed == []
    assert watch.statuses()[0]["why"] == "172.28.0.3 is on none of the attached networks"
    assert watch.statuses()[0]["device"] is None


@pytest.mark.parametrize("targets", ["off", "[2620:fe::fe]:443"])
def test_without_a_target_health_follows_the_neighbour(world: World, targets: str) -> None:
    world.settle(Exits(ExitState(A)), VPN_GATEWAY="172.28.0.3", EXIT_PROBE=targets)
    watch, states = world.watch(), []
    for found in (
        Neighbour.UNKNOWN,
        Neighbour.ANSWERED,
        Neighbour.FAILED,
        Neighbour.ASKED,
        Neighbour.FAILED,
        Neighbour.ANSWERED,
    ):
        world.neighbours = found
        act(watch.round())
        states.append(watch.statuses()[0]["state"])
    assert states == ["unknown", "up", "down", "down", "down", "up"]
    assert world.probed == []
    # While it is down nothing else is sent there, so the kernel must be made to ask.
    assert world.solicited == [(A, "eth0")] * 6


def test_a_name_whose_time_is_over_is_asked_again_and_followed(world: World) -> None:
    world.settle(Exits(ExitState(A)), VPN_GATEWAY="nl.example")
    world.dns = Answer((A,), 30, "192.0.2.53")
    watch = world.watch()
    act(watch.round(), watch.look_up(), watch.look_up())
    assert world.asked == [("nl.example", 4)]
    world.dns = Answer((B,), 30, "192.0.2.53")
    world.at += 29
    act(watch.look_up())
    assert world.looks == []
    world.at += 1
    with capture_logs() as logs:
        act(watch.look_up())
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
    assert watch.statuses()[0]["state"] == "unknown"


def test_a_failed_look_up_keeps_the_address_and_is_told_once(world: World) -> None:
    world.settle(Exits(ExitState(A)), VPN_GATEWAY="nl.example")
    watch = world.watch()
    with capture_logs() as logs:
        act(watch.round())
        for _ in range(20):
            act(watch.look_up())
            world.at += 1
    assert len(world.asked) == 5  # at 0, 1, 3, 7 and 15 seconds
    assert world.looks == []
    assert [(e["why"], e["meanwhile"]) for e in logs if e["event"] == "gateway not resolved"] == [
        ("NXDOMAIN", "172.28.0.3 is kept")
    ]


def test_an_answer_that_is_no_gateway_is_refused_and_the_last_one_kept(world: World) -> None:
    world.settle(Exits(ExitState(A)), VPN_GATEWAY="nl.example")
    watch = world.watch()
    for address, why in (
        ("172.28.0.2", "172.28.0.2 is this host itself"),
        ("10.10.10.7", "10.10.10.7 lies in the client subnet 10.10.10.0/24"),
        ("203.0.113.9", "203.0.113.9 is on none of the attached networks"),
    ):
        world.dns = Answer((ip_address(address),), 30, "192.0.2.53")
        world.at += 100
        with capture_logs() as logs:
            act(watch.round(), watch.look_up())
        assert f"192.0.2.53: {why}" in [entry.get("why") for entry in logs]
    assert world.looks == []


def test_a_gateway_that_fails_is_looked_up_out_of_turn(world: World) -> None:
    world.settle(Exits(ExitState(A)), VPN_GATEWAY="nl.example")
    world.dns = Answer((A,), 600, "192.0.2.53")
    watch = world.watch()
    act(watch.round(), watch.look_up())
    world.dns = Answer((B,), 600, "192.0.2.53")
    assert rounds(watch, world, "-") == "U"
    act(watch.look_up())
    assert world.exits == Exits(ExitState(B))


def test_a_probe_says_nothing_before_its_gateway_is_in_force(world: World) -> None:
    """The kernel's route follows a gateway that moves a moment later: until then a probe would
    ask the old one."""
    world.settle(Exits(ExitState(A)), VPN_GATEWAY="nl.example")
    watch = world.watch()
    world.answers = False

    async def moving() -> None:
        world.hold = asyncio.Event()
        probing = asyncio.create_task(watch.round())
        while len(world.probed) < 2:
            await asyncio.sleep(0)
        world.dns = Answer((B,), 30, "192.0.2.53")
        await watch.look_up()
        world.hold.set()
        await probing

    act(watch.round(), watch.look_up())
    world.at += 10
    act(moving())
    assert world.exits == Exits(ExitState(B))
    assert watch.statuses()[0]["state"] == "unknown"
    assert rounds(watch, world, "+") == "U"


def test_a_name_that_never_resolved_is_down_with_its_reason(world: World) -> None:
    world.settle(Exits(ExitState(None)), VPN_GATEWAY="nl.example")
    watch = world.watch()
    act(watch.round(), watch.look_up())
    assert world.exits.exit4 == ExitState(None, "nl.example has not resolved")
    status = watch.statuses()[0]
    assert (status["state"], status["address"]) == ("down", None)
    assert status["why"] == "its name has not resolved: NXDOMAIN"
    world.dns = Answer((A,), 30, "192.0.2.53")
    world.at += 2
    act(watch.look_up())
    assert world.exits.exit4 == ExitState(A)


def test_the_kernel_that_refuses_is_told_and_asked_again(world: World) -> None:
    watch = world.watch()
    world.refuses = True
    with capture_logs() as logs:
        rounds(watch, world, "-")
    assert logs[-1]["why"] == "the kernel says no"
    world.refuses = False
    rounds(watch, world, "--")
    assert [told.exit4.down for told in world.looks if told.exit4] == [
        "1.1.1.1:443: Connection timed out"
    ]


def test_a_restarted_control_plane_knows_what_was(world: World) -> None:
    watch = world.watch()
    rounds(watch, world, "---")
    before = read_known(world.run_dir)
    assert before[4].health.state is State.DOWN
    again = world.watch()
    assert again.statuses()[0]["state"] == "down"
    assert rounds(again, world, "+++") == "DUU"
    assert read_known(world.run_dir)[4].health.state is State.UP


def test_the_record_of_another_address_says_nothing(world: World) -> None:
    write_known(world.run_dir, {4: Known("172.28.0.3", B, Health(State.DOWN, 1.0, "dead"))})
    assert world.watch().statuses()[0]["state"] == "unknown"


def test_a_reload_changes_what_is_watched(world: World) -> None:
    watch = world.watch()
    rounds(watch, world, "---")
    world.settle(
        Exits(ExitState(B), ExitState(SIX)), VPN_GATEWAY="172.28.0.4", VPN_GATEWAY6="fd00:28::3"
    )
    assert [s["state"] for s in watch.statuses()] == ["unknown", "unknown"]
    rounds(watch, world, "+")
    assert [s["state"] for s in watch.statuses()] == ["up", "up"]
    world.settle()
    assert watch.statuses() == []
    looks = len(world.looks)
    act(watch.round(), watch.look_up())
    assert len(world.looks) == looks


def test_a_verdict_that_a_reload_overtakes_is_not_put_in_force(world: World) -> None:
    """The probe of the old gateway fails while the new one is being put in force."""
    watch = world.watch()
    world.answers = False
    new = Exits(ExitState(B))

    async def overtaken() -> None:
        async with watch.held():
            probing = asyncio.create_task(watch.round())
            while not world.probed:
                await asyncio.sleep(0)
            world.settle(new, VPN_GATEWAY="172.28.0.4")
        await probing

    act(overtaken())
    assert world.looks == []
    assert world.exits == new


def test_a_reload_asks_only_for_what_it_changes(world: World) -> None:
    world.settle(Exits(ExitState(A, "dead")), VPN_GATEWAY="nl.example")
    watch = world.watch()

    def resolved(**environ: str) -> Exits:
        return asyncio.run(watch.resolved(sources(**environ), FACTS))

    assert resolved(VPN_GATEWAY="nl.example").exit4 == ExitState(A, "dead")
    assert resolved(VPN_GATEWAY="172.28.0.4").exit4 == ExitState(B)
    assert resolved() == Exits()
    assert world.asked == []


def test_a_reload_keeps_what_is_known_for_a_restart(world: World) -> None:
    """A gateway that it leaves alone keeps its health on disk, too."""
    watch = world.watch()
    rounds(watch, world, "---")

    async def reloaded() -> None:
        async with watch.held():
            world.settle(
                Exits(world.exits.exit4, ExitState(SIX)),
                VPN_GATEWAY="172.28.0.3",
                VPN_GATEWAY6="fd00:28::3",
            )

    act(reloaded())
    known = read_known(world.run_dir)
    assert known[4].health.state is State.DOWN
    assert known[6] == Known("fd00:28::3", SIX)


def test_direct_and_block_are_told_and_not_watched(world: World) -> None:
    world.settle(VPN_GATEWAY="direct", VPN_GATEWAY6="block")
    watch = world.watch()
    act(watch.round())
    assert [(s["family"], s["gateway"], s["state"]) for s in watch.statuses()] == [
        (4, "direct", "direct"),
        (6, "block", "block"),
    ]
    assert (world.probed, world.looks) == ([], [])


def test_it_runs_without_a_gateway_and_begins_when_a_reload_brings_one(world: World) -> None:
    """And ends when it is cancelled, as the control plane does."""
    world.settle()
    watch = world.watch()

    async def run() -> None:
        running = asyncio.create_task(watch.run())
        async with asyncio.timeout(10):
            async with watch.held():
                world.settle(Exits(ExitState(A)), VPN_GATEWAY="172.28.0.3")
            while not world.probed:
                await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    act(run())


@pytest.mark.parametrize("turns", range(5))
def test_it_ends_when_it_is_cancelled_just_as_news_come(world: World, turns: int) -> None:
    """A stop takes routes and links away, so that news and the end come together."""
    watch = world.watch()

    async def run() -> None:
        running = asyncio.create_task(watch.run())
        while not world.probed:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)  # it rests
        watch.nudge()
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        done, _ = await asyncio.wait([running], timeout=0.5)
        running.cancel()  # once more, where the first was lost: this test shall end
        assert done

    act(run())


def test_a_full_disk_does_not_end_the_watch(world: World) -> None:
    """... and what is kept becomes true when there is room, without another change."""
    gone, records = world.run_dir / "gone", Records()
    watch = ExitWatch(world, gone, probe=world.probe, resolve=world.resolve, records=records)
    with capture_logs() as logs:
        act(watch.round())
    assert "can't be kept" in logs[-1]["event"]
    gone.mkdir()
    act(watch.round())
    records.retry()
    assert read_known(gone)[4].written == "172.28.0.3"


def test_a_gateway_that_became_the_isps_router_is_down(world: World) -> None:
    """Planning has closed it already."""
    watch = world.watch()
    router = DefaultRoute(4, 0, 2, "eth0", A)
    world.prepared.facts = replace(FACTS, routes4=(router,))
    act(watch.round())
    assert "the router of this host's default route" in watch.statuses()[0]["why"]
    assert world.probed == []


def test_facts_that_change_are_followed(world: World) -> None:
    """The interface of the gateway's network, as the keeper sees it after each event."""
    watch = world.watch()
    rounds(watch, world, "+")
    eth1 = replace(ETH0, name="eth1")
    world.prepared.facts = facts(eth1, connected={"172.28.0.0/24": "eth1"})
    assert watch.statuses()[0]["device"] == "eth1"
