"""Probes through the tunnel: when they are sent, and what their answers amount to."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_interface

from ocgate.config.endpoints import Endpoint
from ocgate.exit_node.prober import Prober
from ocgate.exit_node.state_machine import Answered, Event, Machine, Phase, Silent
from ocgate.kernel.way import Found, Target, Way
from ocgate.tunnel.model import Carried
from ocgate.upstream.line import BLIND, FULL_LIMIT, Counters, Pace

FOUR = Endpoint(ip_address("192.0.2.1"), 443)
SIX = Endpoint(ip_address("2001:db8::1"), 53, "dns")
UP = Machine((), phase=Phase.UP, carried=Carried((ip_interface("10.8.0.2/32"),), 1500))
PACE = Pace(interval=0.1, failures=3, successes=1)
REFUSED = Found(ok=False, refused=True, why="192.0.2.1:443: no route")


class World:
    """The runner, and a network that answers or not."""

    def __init__(self) -> None:
        self.machine, self.serial = UP, 1
        self.said: list[Event] = []
        self.asked: list[Target] = []
        self.answer = Found(ok=True, refused=False, why="answered", trip=0.01)
        self.during: Callable[[], None] = lambda: None
        self.counters: Counters | None = None
        self.ahead = 0.0
        self.prober = Prober(
            *(self, "tun0", (FOUR, SIX), PACE),
            look=lambda: self.counters,
            ask=self.ask,
            clock=lambda: time.monotonic() + self.ahead,
        )

    async def say(self, event: Event, *, serial: int | None = None) -> str:
        assert serial == 1
        self.said.append(event)
        return ""

    async def ask(self, target: Target, timeout: float, way: Way) -> Found:
        assert (timeout, way) == (max(timeout, FULL_LIMIT + 1), Way(device="tun0"))
        self.asked.append(target)
        self.during()
        return self.answer

    def until(self, wanted: Callable[[], bool]) -> None:
        """Run it until that."""

        async def watched() -> None:
            task = asyncio.create_task(self.prober.run())
            async with asyncio.timeout(20):
                while not wanted():
                    await asyncio.sleep(0.005)
            self.seen, self.line = self.prober.seen, self.prober.line
            self.blind = self.prober.blind
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        asyncio.run(watched())


def test_only_changes_are_told() -> None:
    world = World()

    def refuse_later() -> None:
        if len(world.asked) == 3:
            world.answer = REFUSED

    world.during = refuse_later
    world.until(lambda: len(world.said) == 2)
    assert world.said == [Answered(), Silent("192.0.2.1:443: no route")]
    assert world.seen.state == "down"
    assert world.seen.rtt == 0.01


def test_a_new_tunnel_that_is_silent_has_time() -> None:
    """Its first packet may come before its client is ready for it."""
    world = World()
    world.answer = Found(ok=False, refused=False, why="192.0.2.1:443: timed out")
    world.until(lambda: len(world.asked) > 5)
    assert world.said == []
    assert (world.seen.state, world.seen.since) == ("unknown", None)


def test_traffic_that_came_back_is_an_answer() -> None:
    world = World()
    world.answer = Found(ok=False, refused=False, why="192.0.2.1:443: timed out")

    def more() -> None:
        world.counters = Counters(len(world.asked), len(world.asked) * 1000)

    world.during = more
    world.until(lambda: bool(world.said))
    assert world.said == [Answered()]
    assert world.seen.why.startswith("1.0 kB came back")


def test_only_what_the_tunnel_carries_is_asked() -> None:
    world = World()
    world.until(lambda: len(world.asked) == 3)
    assert set(world.asked) == {FOUR}
    both = (ip_interface("10.8.0.2/32"), ip_interface("fd00::2/128"))
    world.machine = replace(UP, carried=Carried(both, 1500))
    world.until(lambda: len(world.asked) == 6)
    assert set(world.asked) == {FOUR, SIX}
    assert world.prober.expects(world.machine)


def test_a_tunnel_that_carries_more_is_asked_anew() -> None:
    world = World()
    both = (ip_interface("10.8.0.2/32"), ip_interface("fd00::2/128"))

    def grows() -> None:
        world.machine = replace(UP, carried=Carried(both, 1500))

    world.during = grows
    world.until(lambda: SIX in world.asked)


def test_without_a_tunnel_nothing_is_asked_and_nothing_is_known() -> None:
    world = World()

    def ended() -> None:
        world.machine = Machine((), phase=Phase.WAITING)

    world.during = ended
    world.until(lambda: bool(world.asked) and world.prober.line is None)
    assert len(world.asked) == 1
    assert (world.seen.state, world.seen.why) == ("unknown", "not probed yet")
    assert not world.prober.expects(world.machine)


def test_what_this_host_lacks_is_neither_silence_nor_refusal() -> None:
    """Nothing is told of it; but after a while nobody is told that the tunnel answers, either."""
    world = World()

    def lacks_later() -> None:
        if len(world.asked) == 3:
            why = "192.0.2.1:443: too many open files"
            world.answer = Found(ok=False, refused=False, why=why, unable=True)
            world.ahead = BLIND / 2
        if len(world.asked) == 6:
            world.ahead = BLIND * 2

    world.during = lacks_later
    world.until(lambda: bool(world.prober.blind))
    assert world.said == [Answered()]
    assert world.seen.state == "unknown"
    assert world.blind.startswith("this host could not ask for ")
    assert world.blind.endswith(": 192.0.2.1:443: too many open files")


def test_what_was_asked_by_a_former_tunnel_says_nothing_of_this_one() -> None:
    world = World()

    def replaced() -> None:
        world.serial = 2
        world.machine = Machine((), phase=Phase.WAITING)

    world.during = replaced
    world.until(lambda: world.serial == 2 and world.prober.line is None)
    assert world.said == []


def test_a_tunnel_that_no_target_can_be_reached_by_says_so() -> None:
    """It is up at its client's word; "not probed yet" would be waited for, for ever."""
    world = World()
    world.prober.targets = (SIX,)
    asyncio.run(world.prober.probe())
    assert "names no target of a family" in world.prober.seen.why
    assert (world.asked, world.said) == ([], [])
    world.machine = replace(UP, phase=Phase.CONNECTING)
    assert world.prober.seen.why == "not probed yet"
