"""The state machine of one exit: every transition stands in one table."""

from __future__ import annotations

import pytest

from ocgate.exits.health import AT_ONCE, UNKNOWN, Health, State, Thresholds, Verdict, step

THRESHOLDS = Thresholds(failures=3, successes=2)

# Verdicts from UNKNOWN on (+ answered, - not), and the states that they lead through.
TABLE = [
    ("+", "U"),
    ("-", "D"),
    ("+-", "UU"),
    ("+--", "UUU"),
    ("+---", "UUUD"),
    ("+----", "UUUDD"),
    ("+--+--", "UUUUUU"),
    ("+--+---", "UUUUUUD"),
    ("-+", "DD"),
    ("-++", "DDU"),
    ("-+++", "DDUU"),
    ("-+-+", "DDDD"),
    ("-+-++", "DDDDU"),
    ("+---++---", "UUUDDUUUD"),
    ("++++++++++", "UUUUUUUUUU"),
]
LETTER = {State.UNKNOWN: "?", State.UP: "U", State.DOWN: "D"}


def walk(signs: str, thresholds: Thresholds = THRESHOLDS) -> list[Health]:
    """The states after each sign; the moment and the words are the sign's number."""
    health, states = UNKNOWN, []
    for number, sign in enumerate(signs, 1):
        verdict = Verdict(sign == "+", f"{sign}{number}", float(number), number / 1000)
        health = step(health, verdict, thresholds)
        states.append(health)
    return states


@pytest.mark.parametrize(("signs", "states"), TABLE)
def test_every_transition(signs: str, states: str) -> None:
    assert "".join(LETTER[health.state] for health in walk(signs)) == states


@pytest.mark.parametrize("failures", [1, 2, 5])
@pytest.mark.parametrize("successes", [1, 3])
def test_the_thresholds_are_counts_in_a_row(failures: int, successes: int) -> None:
    states = walk("+" + "-" * failures + "+" * successes, Thresholds(failures, successes))
    letters = "".join(LETTER[health.state] for health in states)
    assert letters == "U" * failures + "D" * successes + "U"


def test_it_says_since_when_and_why() -> None:
    states = walk("++---+-")
    assert [health.since for health in states] == [1, 1, 1, 1, 5, 5, 5]
    # What speaks against a state is not its reason before it wins.
    assert [health.why for health in states] == ["+1", "+2", "+2", "+2", "-5", "-5", "-7"]


def test_the_round_trip_is_the_last_answered_one() -> None:
    assert [health.rtt for health in walk("+--+")] == [0.001, 0.001, 0.001, 0.004]
    assert walk("-")[0].rtt is None


def test_before_the_first_verdict_it_may_be_used() -> None:
    assert UNKNOWN.usable
    assert [health.usable for health in walk("+---++")] == [True, True, True, False, False, True]


def test_a_witness_that_is_sure_counts_at_once() -> None:
    assert "".join(LETTER[health.state] for health in walk("+-+-", AT_ONCE)) == "UDUD"
