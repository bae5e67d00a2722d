"""The model of liveness, over simulated lines: what it says in named situations, and its laws."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ocgate.upstream import liveness
from ocgate.upstream.line import Counters, Line, Pace, State
from support.simulated_line import IDLE, Load, Simulated

FAST = Pace(interval=0.1)
# An ordinary slow line: 2 Mbit/s with 2 s of buffer, of which 2% is lost.
SLOW: dict[str, Any] = {"rate": 250e3, "buffer": 2.0, "trip": 0.05, "loss": 0.02}
DEAD = {"dead": (30.3, math.inf)}
# What clients do, for 3 s each: all of it in every order that matters.
COMING_AND_GOING = [
    Load(tcp_down=1e6 * down, tcp_up=1e6 * up, udp_up=udp)
    for down, up, udp in (
        *((1, 0, 0), (0, 0, 300e3), (0, 1, 20e3), (0, 0, 0), (1, 1, 300e3), (0, 0, 20e3)),
        *((0, 0, 0), (0, 1, 0), (0, 0, 300e3), (0, 0, 0), (1, 0, 300e3), (0, 1, 300e3)),
    )
]
NO_ROUTE = "no route to host, says 172.28.0.3 by ICMP"


def from_5_s(**load: float) -> dict[str, Any]:
    """Clients do this once the line has been idle for a while."""
    return {"load": lambda at: Load(**load) if at > 5 else IDLE}


@dataclass(frozen=True)
class Situation:
    """A line; how long it is watched, in seconds; when, at the latest, it has to be down, in
    seconds from its end (None: never), and how often people see its state change after it is alive.
    says: what the reason at the end holds."""

    line: dict[str, Any]
    seconds: float
    down: float | None = None
    changes: int = 0
    says: str = ""
    pace: Pace = field(default_factory=Pace)
    targets: tuple[str, ...] = ("a", "b", "c", "d")


HALF_AN_HOUR = 1800.0

SITUATIONS = {
    # --- nothing is broken
    "idle": Situation({}, 600, says="answered in 20 ms"),
    "idle, fast": Situation({}, 60, pace=FAST),
    "one target": Situation({}, 60, targets=("a",)),
    "2% lost": Situation({"loss": 0.02}, HALF_AN_HOUR),
    "10% lost": Situation({"loss": 0.1}, HALF_AN_HOUR),
    "0.3 s of round trip": Situation({"trip": 0.3}, 300),
    "1.5 s of round trip": Situation({"trip": 1.5, "loss": 0.02}, HALF_AN_HOUR),
    "3 s of round trip": Situation({"trip": 3.0, "loss": 0.02}, HALF_AN_HOUR),
    "3 s of round trip, fast": Situation({"trip": 3.0}, 60, pace=FAST),
    "two of four targets are blocked": Situation({"mute": frozenset("ab")}, 300),
    "three of four targets are blocked": Situation({"mute": frozenset("abc")}, 300),
    # --- clients fill it
    "a download": Situation({**SLOW, **from_5_s(tcp_down=1e6)}, HALF_AN_HOUR, says="came back"),
    "an upload": Situation({**SLOW, **from_5_s(tcp_up=1e6)}, HALF_AN_HOUR, says="came back"),
    "both": Situation({**SLOW, **from_5_s(tcp_up=1e6, tcp_down=1e6)}, HALF_AN_HOUR),
    "UDP down, four times too much": Situation({**SLOW, **from_5_s(udp_down=1e6)}, HALF_AN_HOUR),
    "UDP up, 10% too much": Situation({**SLOW, **from_5_s(udp_up=275e3)}, HALF_AN_HOUR),
    "UDP up, twice too much": Situation({**SLOW, **from_5_s(udp_up=500e3)}, HALF_AN_HOUR),
    "UDP up, four times too much": Situation({**SLOW, **from_5_s(udp_up=1e6)}, HALF_AN_HOUR),
    "UDP up, fast probes": Situation({**SLOW, **from_5_s(udp_up=500e3)}, 300, pace=FAST),
    "a download, fast probes": Situation({**SLOW, **from_5_s(tcp_down=1e6)}, 300, pace=FAST),
    "10 Mbit/s, 1.5 s, a download": Situation(
        {"rate": 1.25e6, "buffer": 1.5, **from_5_s(tcp_down=1e8)}, HALF_AN_HOUR
    ),
    "a download while all targets are blocked": Situation(
        {**SLOW, **from_5_s(tcp_down=1e6), "mute": frozenset("abcd")}, 120, says="probes late"
    ),
    # --- it ends
    "dies": Situation(DEAD, 40, down=2.3, changes=1, says="no answer from a, b, c, d for"),
    "dies, fast": Situation(DEAD, 40, down=0.35, changes=1, pace=FAST),
    "dies, one target": Situation(DEAD, 40, down=2.3, changes=1, targets=("a",)),
    "dies, 0.3 s of round trip": Situation({**DEAD, "trip": 0.3}, 40, down=2.3, changes=1),
    "dies, 1.5 s of round trip": Situation({**DEAD, "trip": 1.5}, 50, down=8, changes=1),
    "dies, 3 s of round trip": Situation({**DEAD, "trip": 3.0}, 50, down=12, changes=1),
    "dies with 2 of 4 blocked": Situation(
        {**DEAD, "mute": frozenset("ab")}, 40, down=2.5, changes=1
    ),
    "refused": Situation({**DEAD, "refuses": NO_ROUTE}, 40, down=1.2, changes=1, says=NO_ROUTE),
    "refused, fast": Situation({**DEAD, "refuses": NO_ROUTE}, 40, down=0.2, changes=1, pace=FAST),
    "dies in a download on a fast line": Situation(
        {**DEAD, "rate": 1e8, **from_5_s(tcp_down=1e9)}, 40, down=1.8, changes=1
    ),
    "dies in a download on a slow line": Situation(
        {**DEAD, **SLOW, **from_5_s(tcp_down=1e6)}, 50, down=5, changes=1
    ),
    "dies in an upload on a slow line": Situation(
        {**DEAD, **SLOW, **from_5_s(tcp_up=1e6)}, 50, down=9, changes=1
    ),
    "dies while somebody sends a little": Situation(
        {**DEAD, "load": lambda at: Load(udp_up=10e3) if at > 30.3 else IDLE},
        40,
        down=1.8,
        changes=1,
    ),
    "somebody sends a little and is never answered": Situation(
        {"load": lambda _: Load(udp_up=10e3), "loss": 0.02}, HALF_AN_HOUR
    ),
    "they come and go on a slow line": Situation(
        {
            **SLOW,
            "load": lambda at: COMING_AND_GOING[int(at / 3) % len(COMING_AND_GOING)],
            "seed": 6,
        },
        HALF_AN_HOUR,
    ),
    "dies in an upload by UDP": Situation(
        {**DEAD, **SLOW, **from_5_s(udp_up=500e3)}, 60, down=18, changes=1
    ),
    "refused in an upload by UDP": Situation(
        {**DEAD, **SLOW, **from_5_s(udp_up=500e3), "refuses": NO_ROUTE}, 50, down=5, changes=1
    ),
    # --- and comes back
    "away for 10 s": Situation({"dead": (30.3, 40.0)}, 60, down=2.3, changes=2, says="answered"),
    "away for 10 s, fast": Situation({"dead": (30.3, 40.0)}, 60, down=0.45, changes=2, pace=FAST),
    "away for half a second": Situation({"dead": (30.3, 30.8)}, 60),
    "away for 10 s, 3 s of round trip": Situation(
        {"dead": (30.3, 60.0), "trip": 3.0}, 90, down=12, changes=2
    ),
    # --- nobody looked for a while
    "control stands still for 5 s now and then": Situation(
        {"frozen": lambda at: max(at, (at // 20) * 20 + 5) if at >= 20 else at}, 200
    ),
    "control wakes late each time": Situation({"frozen": lambda at: at + 0.4}, 200),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_named_situations(name: str) -> None:
    given = SITUATIONS[name]
    seen = Simulated(**given.line).run(given.seconds, pace=given.pace, targets=given.targets)
    changes = [change for change in seen.changes if change[1] is not State.UNKNOWN]
    assert changes[0][1] is State.ALIVE
    assert len(changes) - 1 == given.changes, changes
    if given.down is not None:
        assert seen.seconds_until(State.DOWN, seen.dead[0]) <= given.down
    assert given.says in seen.line.why


def test_there_are_forty_of_them() -> None:
    assert len(SITUATIONS) >= 40


# --- laws -----------------------------------------------------------------------------------------

loads = st.builds(
    Load,
    udp_up=st.sampled_from([0.0, 100e3, 500e3]),
    udp_down=st.sampled_from([0.0, 100e3, 1e6]),
    tcp_up=st.sampled_from([0.0, 1e6]),
    tcp_down=st.sampled_from([0.0, 1e6]),
)
paces = st.builds(
    Pace,
    interval=st.floats(0.05, 5),
    failures=st.integers(1, 6),
    successes=st.integers(1, 4),
)


@settings(max_examples=60)
@given(
    load=loads.filter(lambda load: load.udp_down or load.tcp_down or load.tcp_up),
    pace=paces,
    loss=st.floats(0, 0.3),
    trip=st.floats(0.001, 3),
    mute=st.sampled_from([frozenset[str](), frozenset("abcd")]),
    seed=st.integers(0, 99),
)
def test_never_down_while_traffic_comes_back(
    load: Load, pace: Pace, loss: float, trip: float, mute: frozenset[str], seed: int
) -> None:
    """From the first byte on, whatever becomes of the probes."""
    seen = Simulated(rate=250e3, buffer=2, trip=trip, loss=loss, mute=mute, seed=seed,
                     load=lambda _: load).run(60, pace=pace)  # fmt: skip
    assert [state for _, state, _ in seen.changes[1:]] == [State.ALIVE]


def longest(line: Simulated, pace: Pace) -> float:
    """Seconds from the end of a line that nobody fills until it is down, at the most: the next
    probe, its limit, and what is asked in doubt meanwhile, which is spaced by an eighth of it."""
    limit = max(line.line.limit, pace.floor)
    probes = 1.1 * max(pace.interval, limit / 32)
    return probes + 2 * limit + pace.failures * max(pace.hurried, limit / 8) + 0.01


# Fast probes on a slow line: more of them are under way than are remembered.
@example(pace=Pace(0.05, 2, 3), trip=3.0, refuses="", seed=43)
@settings(max_examples=60)
@given(
    pace=paces,
    trip=st.floats(0.001, 3),
    refuses=st.sampled_from(["", NO_ROUTE]),
    seed=st.integers(0, 99),
)
def test_always_down_in_time_when_all_ends(
    pace: Pace, trip: float, refuses: str, seed: int
) -> None:
    dead = 20 + 4 * trip
    seen = Simulated(trip=trip, dead=(dead, math.inf), refuses=refuses, seed=seed)
    seen.run(dead + 60, pace=pace)
    assert seen.seconds_until(State.DOWN, dead) <= longest(seen, pace)


@settings(max_examples=40)
@given(pace=paces, trip=st.floats(0.001, 2), away=st.floats(0.1, 30), seed=st.integers(0, 99))
def test_one_outage_is_one_change_to_and_fro_at_the_most(
    pace: Pace, trip: float, away: float, seed: int
) -> None:
    dead = 20 + 4 * trip
    seen = Simulated(trip=trip, dead=(dead, dead + away), seed=seed)
    seen.run(dead + away + 40, pace=pace)
    states = [state for _, state, _ in seen.changes[1:]]
    assert states in ([State.ALIVE], [State.ALIVE, State.DOWN, State.ALIVE])


@settings(max_examples=60)
@given(pace=paces, loss=st.floats(0, 1), seed=st.integers(0, 99), trip=st.floats(0.001, 12))
def test_what_is_remembered_and_asked_is_bounded(
    pace: Pace, loss: float, seed: int, trip: float
) -> None:
    seen = Simulated(loss=loss, seed=seed, trip=trip)
    seen.run(60, pace=pace)
    line = seen.line
    assert len(line.rounds) <= 64 and len(line.late) <= 64 and len(line.looks) <= 100
    assert line.number <= 60 / min(pace.hurried, pace.interval * 0.9) + 64


# --- single steps ---------------------------------------------------------------------------------


def alive(targets: tuple[str, ...] = ("a", "b")) -> Line:
    line = liveness.begin(Pace(), targets, 0.0)
    line = liveness.asked(line, liveness.asks(line, 0.0), 0.0)
    return liveness.answered(line, 1, targets[0], 0.02, 0.02)


def test_before_the_first_answer_clients_may_be_sent_there() -> None:
    assert liveness.begin(Pace(), ("a",), 0.0).usable


def test_a_next_hop_that_is_gone_is_down_at_once() -> None:
    line = liveness.cut_off(alive(), "no answer to ARP from 172.28.0.3 on eth1", 1.0)
    assert (line.state, line.since) == (State.DOWN, 1.0)
    assert line.why == "no answer to ARP from 172.28.0.3 on eth1"
    assert not line.usable


def test_without_targets_the_next_hop_speaks_for_the_exit() -> None:
    line = liveness.begin(Pace(successes=1), (), 0.0)
    assert liveness.asks(line, 0.0) == ()
    line = liveness.next_hop_answers(line, "172.28.0.3 answers on eth1", 1.0)
    assert line.state is State.ALIVE
    line = liveness.cut_off(line, "no answer to ARP", 2.0)
    assert line.state is State.DOWN
    assert liveness.next_hop_answers(line, "it answers", 3.0).state is State.ALIVE


def test_with_targets_the_next_hop_alone_proves_nothing() -> None:
    line = liveness.begin(Pace(), ("a",), 0.0)
    assert liveness.next_hop_answers(line, "it answers", 1.0).state is State.UNKNOWN


def test_one_refused_target_is_no_verdict() -> None:
    line = alive()
    line = liveness.asked(line, ("b",), 1.0)
    line = liveness.refused(line, line.number, "b", NO_ROUTE, 1.01)
    assert line.state is State.SUSPECT
    assert set(liveness.asks(line, 1.01)) == {"a", "b"}
    line = liveness.asked(line, ("a", "b"), 1.01)
    line = liveness.refused(line, line.number, "b", NO_ROUTE, 1.02)
    assert line.state is State.SUSPECT
    line = liveness.answered(line, line.number, "a", 0.02, 1.03)
    assert (line.state, line.since) == (State.ALIVE, 0.02)  # nothing that people would see


def test_a_refusal_of_all_targets_is_their_own_while_traffic_comes_back() -> None:
    """`EXIT_PROBE` names what nobody reaches; when the traffic ends, it is the exit's."""
    line = alive()
    for tenth in range(1, 4):
        line = liveness.looked(line, Counters(tenth * 100, tenth * 5000), 0.6 + tenth / 10)
    line = liveness.asked(liveness.doubted(line, "", 1.0), ("a", "b"), 1.0)
    for name in ("a", "b"):
        line = liveness.refused(line, line.number, name, NO_ROUTE, 1.01)
    assert line.state is State.SUSPECT
    assert liveness.passed(line, 1.9).state is State.DOWN
    line = liveness.looked(line, Counters(400, 20000), 1.2)
    assert line.state is State.ALIVE


def test_a_late_answer_counts_and_teaches_the_limit() -> None:
    line = alive()
    before = line.limit
    line = liveness.asked(line, ("a",), 1.0)
    line = liveness.passed(line, 2.0)
    assert line.state is State.SUSPECT
    line = liveness.answered(line, line.number, "a", 1.8, 2.8)
    assert line.state is State.ALIVE
    assert line.limit > before


def test_a_doubt_asks_everybody_now() -> None:
    line = liveness.doubted(alive(), "OpenVPN restarts", 0.5)
    assert (line.state, line.why) == (State.SUSPECT, "OpenVPN restarts")
    assert liveness.asks(line, 0.5) == ("a", "b")


def test_counters_that_begin_anew_say_nothing() -> None:
    line = liveness.looked(alive(), Counters(5000, 5000), 0.1)
    line = liveness.looked(line, Counters(0, 0), 0.2)
    assert line.steady == 0
    assert liveness.looked(line, Counters(0, 100), 0.3).why.startswith("100 B came back")


def test_traffic_that_stops_is_asked_after_before_the_next_probe_is_due() -> None:
    line = alive()
    for tenth in range(1, 5):
        line = liveness.looked(line, Counters(tenth * 100, tenth * 5000), 0.1 + tenth / 10)
    line = liveness.looked(line, Counters(600, 20000), 0.6)
    assert line.state is State.ALIVE
    assert liveness.wakes(line, 0.6) < 1.02
    line = liveness.looked(line, Counters(700, 20000), 1.01)
    assert line.state is State.SUSPECT


def test_two_answers_of_one_round_are_one() -> None:
    line = liveness.cut_off(alive(), "gone", 1.0)
    line = liveness.asked(line, ("a", "b"), 2.0)
    line = liveness.answered(line, line.number, "a", 0.02, 2.02)
    line = liveness.answered(line, line.number, "b", 0.02, 2.02)
    assert line.state is State.DOWN
    assert liveness.wakes(line, 2.02) <= 2.02 + Pace().hurried


def test_a_target_that_only_refuses_is_left_alone_for_a_while() -> None:
    """Nobody answers DNS there, say: asked in vain three times, it costs no doubt any more."""
    line, doubts = alive(), 0
    for second in range(1, 20):
        names = liveness.asks(line, float(second))
        line = liveness.asked(line, names, float(second))
        if "b" in names:
            doubts += 1
            line = liveness.refused(line, line.number, "b", NO_ROUTE, second + 0.001)
            line = liveness.asked(line, ("a", "b"), second + 0.002)
            line = liveness.refused(line, line.number, "b", NO_ROUTE, second + 0.003)
        line = liveness.answered(line, line.number, "a", 0.02, second + 0.02)
        assert line.state is State.ALIVE
    assert doubts == 1  # the first question, to both, was in vain as well


# --- what this host lacks -------------------------------------------------------------------------

LACKS = "this host could not ask: too many open files"


def unable(line: Line, seconds: float, now: float) -> Line:
    """Nothing can be asked for so long."""
    end = now + seconds
    while (now := liveness.wakes(line, now)) < end:
        line = liveness.passed(line, now)
        if names := liveness.asks(line, now):
            line = liveness.asked(line, names, now)
            for name in names:
                line = liveness.unasked(line, line.number, name, LACKS, now)
        now += 0.001
    return liveness.passed(line, end)


def test_what_could_not_be_asked_is_no_evidence() -> None:
    line = unable(alive(), 20, 1.0)
    assert (line.state, line.since) == (State.ALIVE, 0.02)
    assert not line.rounds


def test_an_exit_of_which_nothing_is_known_for_long_is_not_called_alive() -> None:
    """Nor down: clients may be sent there, and what comes back for them is evidence."""
    line = unable(alive(), 40, 1.0)
    assert line.state is State.UNKNOWN
    assert line.usable
    assert line.why == "this host could not ask for 40.0 s: " + LACKS
    assert liveness.answered(line, line.number, "a", 0.02, 42.0).state is State.ALIVE


def test_traffic_speaks_for_an_exit_that_nobody_can_ask() -> None:
    line = alive()
    for second in range(1, 100):
        line = liveness.looked(line, Counters(second * 100, second * 5000), second)
        line = unable(line, 1.0, second)
        assert line.state in (State.ALIVE, State.SUSPECT)
    assert liveness.looked(line, Counters(10**5, 10**6), 100.0).state is State.ALIVE


def test_an_exit_that_is_down_stays_down_while_nobody_can_ask() -> None:
    line = unable(liveness.cut_off(alive(), "no answer to ARP", 1.0), 40, 1.0)
    assert line.state is State.DOWN
    assert line.why == "this host could not ask for 40.0 s: " + LACKS


def test_what_can_be_asked_decides_where_some_can_not() -> None:
    """A ping that this process may not send, beside targets that are silent, or answer."""
    silent = answers = alive(("a", "b", "c"))
    for tenth in range(10, 1000):
        now = tenth / 10
        silent, answers = (liveness.passed(line, now) for line in (silent, answers))
        for line in (silent, answers):
            if not (names := liveness.asks(line, now)):
                continue
            line_ = liveness.asked(line, names, now)
            if "a" in names:
                line_ = liveness.unasked(line_, line_.number, "a", LACKS, now)
            if line is silent:
                silent = line_
                continue
            answers = line_
            for name in set(names) - {"a"}:
                answers = liveness.answered(answers, answers.number, name, 0.02, now)
        assert answers.state is State.ALIVE
    assert silent.state is State.DOWN
    assert silent.why.startswith("no answer from b, c for")


def test_of_those_who_are_left_a_mute_one_is_no_witness() -> None:
    """Its silence is usual; the others could not be asked."""
    line = alive(("a", "b"))
    for second in range(1, 200):
        now = float(second)
        line = liveness.passed(line, now)
        names = liveness.asks(line, now)
        line = liveness.asked(line, names, now)
        if "b" in names and second < 100:  # a answers meanwhile
            line = liveness.answered(line, line.number, "b", 0.02, now + 0.02)
        elif "b" in names:
            line = liveness.unasked(line, line.number, "b", LACKS, now)
    assert line.state is State.UNKNOWN, line


def test_all_who_could_be_asked_refuse() -> None:
    line = liveness.doubted(alive(("a", "b", "c")), "networks changed", 1.0)
    line = liveness.asked(line, ("a", "b", "c"), 1.0)
    line = liveness.unasked(line, line.number, "a", LACKS, 1.0)
    line = liveness.refused(line, line.number, "b", NO_ROUTE, 1.01)
    assert line.state is State.SUSPECT
    assert liveness.refused(line, line.number, "c", NO_ROUTE, 1.02).state is State.DOWN
