"""The exit's state machine: its whole table, its pauses, and what holds in every history."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocgate.exit_node.state_machine import (
    CONNECT_LIMIT,
    HEALTHY,
    LONGEST_PAUSE,
    PATIENCE,
    Answered,
    Carry,
    Close,
    Configured,
    Ended,
    Event,
    List,
    Listed,
    Machine,
    Next,
    NotResolved,
    Phase,
    Resolve,
    Resolved,
    Silent,
    Start,
    Tick,
    begin,
    patience,
    pause,
    step,
)
from ocgate.tunnel.model import Carried, Endpoint, Remote

A, B, C = (Remote(f"{name}.example", 1194, ("udp",), name) for name in "abc")
ENDPOINT = Endpoint(IPv4Address("192.0.2.1"), 1194, ("udp",))
CARRIED = Carried((IPv4Interface("10.8.0.2/24"),), 1500)
OTHER = Carried((IPv4Interface("10.8.0.9/24"),), 1400)
NOW = 1000.0

RESOLVING = Machine((A, B), since=NOW, attempts=1)
CONNECTING = replace(
    RESOLVING, phase=Phase.CONNECTING, until=NOW + CONNECT_LIMIT, endpoint=ENDPOINT
)
UP = replace(CONNECTING, phase=Phase.UP, until=None, carried=CARRIED)
DEGRADED = replace(UP, phase=Phase.DEGRADED, until=NOW + PATIENCE, why="no answer")
WAITING = replace(RESOLVING, phase=Phase.WAITING, index=1, until=NOW + 1, failures=1, why="no")
PHASES = {m.phase: m for m in (RESOLVING, CONNECTING, UP, DEGRADED, WAITING)}

EVENTS: dict[str, Event] = {
    "listed": Listed((B, C)),
    "resolved": Resolved(ENDPOINT),
    "not resolved": NotResolved("NXDOMAIN"),
    "configured": Configured(OTHER),
    "ended": Ended("it ended"),
    "answered": Answered(),
    "silent": Silent("no answer"),
    "next": Next(),
    "due": Tick(),
}

# Phase, event -> next phase and the kinds of its effects; what is not here changes nothing.
TABLE = {
    **{(phase, "listed"): (phase, []) for phase in Phase},
    (Phase.RESOLVING, "resolved"): (Phase.CONNECTING, [Start]),
    (Phase.RESOLVING, "not resolved"): (Phase.WAITING, [Close]),
    (Phase.RESOLVING, "next"): (Phase.RESOLVING, [Close, Resolve]),
    (Phase.CONNECTING, "configured"): (Phase.UP, [Carry]),
    (Phase.CONNECTING, "ended"): (Phase.WAITING, [Close]),
    (Phase.CONNECTING, "due"): (Phase.WAITING, [Close]),
    (Phase.CONNECTING, "next"): (Phase.RESOLVING, [Close, Resolve]),
    (Phase.UP, "configured"): (Phase.UP, [Carry]),
    (Phase.UP, "ended"): (Phase.WAITING, [Close]),
    (Phase.UP, "answered"): (Phase.UP, []),
    (Phase.UP, "silent"): (Phase.DEGRADED, []),
    (Phase.UP, "next"): (Phase.RESOLVING, [Close, Resolve]),
    (Phase.DEGRADED, "configured"): (Phase.DEGRADED, [Carry]),
    (Phase.DEGRADED, "ended"): (Phase.WAITING, [Close]),
    (Phase.DEGRADED, "answered"): (Phase.UP, []),
    (Phase.DEGRADED, "due"): (Phase.WAITING, [Close]),
    (Phase.DEGRADED, "next"): (Phase.RESOLVING, [Close, Resolve]),
    (Phase.WAITING, "due"): (Phase.RESOLVING, [Resolve]),
    (Phase.WAITING, "next"): (Phase.RESOLVING, [Close, Resolve]),
}


@pytest.mark.parametrize("phase", Phase, ids=lambda phase: phase.value)
@pytest.mark.parametrize("name", EVENTS)
def test_every_event_in_every_phase_does_what_the_table_says(phase: Phase, name: str) -> None:
    machine = PHASES[phase]
    now = NOW + 1 if machine.until is None else machine.until
    after, effects = step(machine, EVENTS[name], now)
    expected = TABLE.get((phase, name))
    if expected is None:
        assert (after, effects) == (machine, ())
    else:
        assert (after.phase, [type(effect) for effect in effects]) == expected


def test_nothing_is_due_before_its_moment() -> None:
    for machine in (CONNECTING, DEGRADED, WAITING):
        assert machine.until is not None
        assert step(machine, Tick(), machine.until - 0.001) == (machine, ())


def test_it_begins_with_the_first_server() -> None:
    machine, effects = begin((A, B), rotate=0, now=NOW)
    assert effects == (Resolve(A, 0),)
    assert (machine.phase, machine.attempts, machine.since) == (Phase.RESOLVING, 1, NOW)


def test_where_the_servers_are_not_known_they_are_listed_first() -> None:
    machine, effects = begin((), rotate=0, now=NOW)
    assert effects == (List(),)
    listed, effects = step(machine, Listed((B, C)), NOW)
    assert effects == (Resolve(B, 0),)
    assert listed.remote == B
    failed, effects = step(machine, NotResolved("no list"), NOW)
    assert effects == (Close(),)
    assert step(failed, Tick(), NOW + 1)[1] == (List(),)


def test_a_newer_list_is_for_the_next_attempt() -> None:
    listed, _ = step(UP, Listed((C, B)), NOW)
    assert (listed.remote, listed.remotes) == (A, (A, C, B))
    listed, _ = step(listed, Listed((B, A)), NOW)
    assert listed.remotes == (A, B)
    assert step(listed, Ended("it ended"), NOW)[0].remote == B
    nobody = replace(WAITING, remotes=(), index=0)
    assert step(nobody, Listed((C,)), NOW)[0].remote == C


def test_what_is_started_and_carried_is_what_the_event_said() -> None:
    assert step(RESOLVING, Resolved(ENDPOINT), NOW)[1] == (Start(ENDPOINT),)
    up, effects = step(CONNECTING, Configured(CARRIED), NOW)
    assert effects == (Carry(CARRIED),)
    assert (up.carried, up.endpoint) == (CARRIED, ENDPOINT)


def test_a_failure_tries_the_next_server_and_says_why() -> None:
    failed, _ = step(CONNECTING, Ended("connection refused"), NOW)
    assert (failed.remote, failed.why, failed.until) == (B, "connection refused", NOW + 1)
    assert (failed.endpoint, failed.carried) == (None, None)
    assert step(failed, Tick(), NOW + 1)[1] == (Resolve(B, 0),)


def test_of_several_addresses_of_a_name_the_next_is_taken_in_the_next_round() -> None:
    machine = replace(WAITING, index=0, attempts=2)
    assert step(machine, Tick(), NOW + 1)[1] == (Resolve(A, 1),)


def test_pauses_double_per_round_to_a_minute() -> None:
    assert [pause(n, 1) for n in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert [pause(n, 3) for n in range(1, 8)] == [1, 1, 1, 2, 2, 2, 4]
    assert pause(10**6, 1) == LONGEST_PAUSE


def test_what_every_server_would_say_counts_as_a_whole_round() -> None:
    """A wrong password is not asked of twenty servers within twenty seconds."""
    machine = replace(CONNECTING, remotes=(A, B, C))
    waits = []
    for _ in range(4):
        failed, _ = step(machine, Ended("wrong password", everywhere=True), NOW)
        assert failed.until is not None
        waits.append(failed.until - NOW)
        machine = replace(CONNECTING, remotes=(A, B, C), failures=failed.failures)
    assert waits == [1, 2, 4, 8]


def test_a_tunnel_that_was_well_for_a_minute_is_replaced_at_once() -> None:
    machine = replace(UP, failures=5)
    again, effects = step(machine, Ended("killed"), NOW + HEALTHY)
    assert effects == (Close(), Resolve(B, 0))
    assert (again.failures, again.phase) == (0, Phase.RESOLVING)
    soon, effects = step(machine, Ended("killed"), NOW + HEALTHY - 1)
    assert effects == (Close(),)
    assert soon.failures == 6


def test_a_silent_tunnel_is_borne_longer_each_time_that_a_new_one_did_not_help() -> None:
    assert [patience(n) for n in range(8)] == [10, 20, 40, 80, 160, 320, 600, 600]
    machine, borne = UP, []
    for _ in range(3):
        silent, _ = step(machine, Silent("no answer"), NOW)
        assert silent.until is not None
        borne.append(silent.until - NOW)
        failed, _ = step(silent, Tick(), silent.until)
        assert failed.why.startswith("no answer")
        machine = replace(UP, unanswered=failed.unanswered)
    assert borne == [10, 20, 40]
    assert failed.why == "no answer; 3 fresh tunnels did not help: look at EXIT_PROBE"
    answered, _ = step(machine, Answered(), NOW)
    assert (answered.unanswered, answered.answered) == (0, True)


def test_an_only_server_is_kept_when_fresh_tunnels_do_not_help() -> None:
    """A target that is blocked behind it never answers: a new tunnel would only interrupt users."""
    only = replace(UP, remotes=(A,), index=0)
    silent, effects = step(replace(only, unanswered=2), Silent("no answer"), NOW)
    assert (silent.phase, silent.until, effects) == (Phase.DEGRADED, None, ())
    assert "look at EXIT_PROBE" in silent.why
    up, _ = step(silent, Answered(), NOW + 1)
    assert (up.phase, up.unanswered) == (Phase.UP, 0)
    again, _ = step(replace(only, answered=True, unanswered=0), Silent("no answer"), NOW)
    assert again.until == NOW + PATIENCE


def test_a_tunnel_that_answered_once_does_not_count_as_one_that_never_did() -> None:
    machine = replace(UP, answered=True)
    silent, _ = step(machine, Silent("no answer"), NOW)
    failed, _ = step(silent, Tick(), NOW + PATIENCE)
    assert failed.unanswered == 0


def test_rotation_leaves_a_good_tunnel_for_the_next_server_without_a_pause() -> None:
    up, _ = step(replace(CONNECTING, rotate=600.0), Configured(CARRIED), NOW)
    assert up.until == NOW + 600
    turned, effects = step(up, Tick(), NOW + 600)
    assert effects == (Close(), Resolve(B, 0))
    assert (turned.failures, turned.why) == (0, "")


def test_a_server_without_another_is_not_left() -> None:
    alone = replace(CONNECTING, remotes=(A,), rotate=600.0)
    assert step(alone, Configured(CARRIED), NOW)[0].until is None


def test_a_recovered_tunnel_rotates_as_a_new_one() -> None:
    machine = replace(DEGRADED, rotate=600.0)
    up, _ = step(machine, Answered(), NOW + 5)
    assert (up.phase, up.since, up.until) == (Phase.UP, NOW + 5, NOW + 605)


def test_new_servers_replace_the_known_ones_and_the_one_in_use_is_left() -> None:
    assert step(UP, Next((A, C)), NOW)[1] == (Close(), Resolve(C, 0))
    assert step(UP, Next((C, A)), NOW)[1] == (Close(), Resolve(C, 0))
    assert step(WAITING, Next((C,)), NOW)[0].remotes == (C,)
    assert step(UP, Next((A,)), NOW)[1] == (Close(), Resolve(A, 1))


@given(st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), st.floats(0, 120)), max_size=40))
def test_in_every_history_the_switch_is_open_only_for_a_client_that_runs(
    history: list[tuple[str, float]],
) -> None:
    """Opened by Start, closed by Close, and never opened twice without a Close between; clients are
    let in only while it is open. Something is always due or awaited."""
    now = NOW
    machine, effects = begin((A, B, C), rotate=300, now=now)
    opened = False
    for name, seconds in history:
        now += seconds
        machine, effects = step(machine, EVENTS[name], now)
        for effect in effects:
            if isinstance(effect, Start):
                assert not opened
                opened = True
            elif isinstance(effect, Close):
                opened = False
            elif isinstance(effect, Carry):
                assert opened
        assert opened == (machine.phase not in (Phase.RESOLVING, Phase.WAITING))
        assert (machine.endpoint is not None) == opened
        assert machine.stands == (machine.carried is not None)
        assert machine.until is not None or machine.phase is Phase.RESOLVING
