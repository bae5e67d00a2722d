"""Probes through the tunnel: when they are sent, and what their answers amount to."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_address, ip_interface

from ocgate.exit_role.machine import Answered, Event, Machine, Phase, Silent
from ocgate.exit_role.prober import Prober
from ocgate.exits.health import State, Thresholds
from ocgate.kernel.probe import ProbeResult, Target
from ocgate.tunnel.model import Carried

FOUR: Target = (ip_address("192.0.2.1"), 443)
SIX: Target = (ip_address("2001:db8::1"), 443)
UP = Machine((), phase=Phase.UP, carried=Carried((ip_interface("10.8.0.2/32"),), 1500))


class World:
    """The runner, and a network that answers or not."""

    def __init__(self, *, failures: int = 3) -> None:
        self.machine, self.serial = UP, 1
        self.said: list[Event] = []
        self.asked: list[list[Target]] = []
        self.ok = True
        self.during = lambda: None
        self.prober = Prober(
            *(self, "tun0", (FOUR, SIX), 1.0, Thresholds(failures, 1)),
            probe=self.probe,
            now=lambda: 7.0,
        )

    async def say(self, event: Event, *, serial: int | None = None) -> str:
        assert serial == self.serial
        self.said.append(event)
        return ""

    async def probe(self, targets: list[Target], *, timeout: float, device: str) -> ProbeResult:
        assert (timeout, device) == (1.0, "tun0")
        self.asked.append(targets)
        self.during()
        return ProbeResult(self.ok, FOUR, "answered" if self.ok else "no answer", 0.01)

    def rounds(self, *answers: bool) -> list[Event]:
        """What is said after these."""
        self.said.clear()
        for self.ok in answers:
            asyncio.run(self.prober.round())
        return self.said


def test_the_first_answer_is_told_at_once_and_then_only_changes() -> None:
    world = World()
    assert world.rounds(True, True, True) == [Answered()]
    assert world.prober.health.rtt == 0.01
    assert world.rounds(False, False) == []
    assert world.rounds(False) == [Silent("no answer")]
    assert world.rounds(True) == [Answered()]


def test_a_new_tunnel_has_to_fail_as_often_as_any() -> None:
    world = World()
    assert world.rounds(False, False) == []
    assert (world.prober.health.state, world.prober.health.why) == (State.UNKNOWN, "no answer")
    assert world.rounds(False) == [Silent("no answer")]
    assert World().rounds(False, True) == [Answered()]
    assert World(failures=1).rounds(False) == [Silent("no answer")]


def test_only_what_the_tunnel_carries_is_asked() -> None:
    world = World()
    world.rounds(True)
    both = (ip_interface("10.8.0.2/32"), ip_interface("fd00::2/128"))
    world.machine = replace(UP, carried=Carried(both, 1500))
    world.rounds(True)
    assert world.asked == [[FOUR], [FOUR, SIX]]
    assert world.prober.expects(world.machine)


def test_without_a_tunnel_nothing_is_asked_and_nothing_is_known() -> None:
    world = World()
    world.rounds(True)
    world.machine = Machine((), phase=Phase.WAITING)
    assert world.rounds(True) == []
    assert world.prober.health.state is State.UNKNOWN
    assert len(world.asked) == 1
    assert not world.prober.expects(world.machine)


def test_what_was_asked_by_a_former_tunnel_says_nothing_of_this_one() -> None:
    world = World()

    def replaced() -> None:
        world.serial = 2

    world.during = replaced
    assert world.rounds(True) == []
