"""When flows of before are told and given up: in one outage, and not in several together."""

from __future__ import annotations

from ipaddress import ip_address

from ocgate.plan.exits import Exits, ExitState
from ocgate.plan.first_packets import LASTS, WAIT
from ocgate.server.exits.outages import Outages

UP = ExitState(ip_address("172.28.0.3"))
DOWN = ExitState(ip_address("172.28.0.3"), "timed out")
MOVED = ExitState(ip_address("172.28.0.4"), "timed out")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def given_up(outages: Outages, state: ExitState) -> bool:
    """Of IPv4's exit, seen so."""
    found = outages.seen(Exits(state, UP))
    assert found.exit6 == UP
    assert found.exit4 is not None
    return found.exit4.given_up


def test_an_outage_that_lasts_is_told_and_then_given_up() -> None:
    clock = Clock()
    outages = Outages(clock)
    turns = ((LASTS, True, False), (WAIT - LASTS, True, True))
    assert not given_up(outages, DOWN)
    for after, lasts, over in turns:
        clock.now += after - 1
        given_up(outages, DOWN)
        assert not outages.is_due
        clock.now += 1
        assert outages.is_due
        found = outages.seen(Exits(DOWN, UP)).exit4
        assert found is not None
        assert (found.lasts, found.given_up) == (lasts, over)
        assert not outages.is_due  # done, until it is farther
    clock.now += WAIT
    assert not outages.is_due
    assert given_up(outages, DOWN)


def test_each_outage_has_a_time_of_its_own() -> None:
    clock = Clock()
    outages = Outages(clock)
    given_up(outages, DOWN)
    clock.now += WAIT - 1
    assert not given_up(outages, UP)
    assert not outages.is_due
    assert not given_up(outages, DOWN)
    clock.now += WAIT - 1
    assert not given_up(outages, DOWN)
    assert not given_up(outages, MOVED)  # another gateway, whose flows began later
    clock.now += WAIT - 1
    assert not given_up(outages, MOVED)
    clock.now += 1
    assert given_up(outages, MOVED)


def test_one_that_was_given_up_and_answers_is_taken_up_again() -> None:
    clock = Clock()
    outages = Outages(clock)
    given_up(outages, DOWN)
    clock.now += WAIT
    kept = outages.seen(Exits(DOWN, None)).exit4
    assert kept is not None
    assert kept.given_up
    again = outages.seen(Exits(ExitState(kept.address, given_up=True), None)).exit4
    assert again == UP
