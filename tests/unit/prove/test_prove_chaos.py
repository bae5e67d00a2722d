"""What a seed makes of a round: always the same, and never more than is promised to hold."""

from __future__ import annotations

import pytest

from ocgate.prove.chaos import ALONE, ASKING, FOLLOWED, TRANSLATING, Round, drawn, vocabulary
from ocgate.prove.fault import Lock, nothing

WORDS = vocabulary()
NONE: frozenset[Lock] = frozenset()
ROUNDS = [drawn(seed, number, WORDS, spared=NONE) for seed in (1, 2, 3) for number in range(200)]


def test_a_seed_replays_its_rounds() -> None:
    """Each for itself: the fiftieth does not need the others."""
    assert drawn(7, 50, WORDS, spared=NONE) == drawn(7, 50, WORDS, spared=NONE)
    assert drawn(7, 50, WORDS, spared=NONE) != drawn(8, 50, WORDS, spared=NONE)


def test_every_fault_has_its_turn() -> None:
    assert {s.fault.name for made in ROUNDS for s in made.steps} == {f.name for f in WORDS}


def test_no_round_takes_both_layers_that_hold_clients() -> None:
    assert not [made.name for made in ROUNDS if made.locks >= {Lock.TABLES, Lock.RULES}]
    assert any(Lock.TABLES in made.locks for made in ROUNDS)
    assert any(Lock.RULES in made.locks for made in ROUNDS)


def test_a_frozen_round_with_a_new_address_keeps_the_tables() -> None:
    """The other layer names addresses, and can't learn of this one."""
    for made in ROUNDS:
        words = {step.fault.name for step in made.steps}
        if words & FOLLOWED and (
            made.frozen or any(s.fault.group == "freezes" for s in made.steps)
        ):
            assert Lock.TABLES not in made.locks, made.name


def test_no_round_takes_translation_and_what_asks_for_it() -> None:
    for made in ROUNDS:
        assert not {step.fault.name for step in made.steps} >= TRANSLATING, made.name


def test_a_spared_layer_is_not_touched() -> None:
    spared = frozenset({Lock.TABLES})
    made = [drawn(1, number, WORDS, spared=spared) for number in range(200)]
    assert not [one.name for one in made if one.locks & spared]


def standing(made: Round, number: int) -> set[str]:
    """Groups whose causes stand when step `number` begins."""
    return {s.fault.group for s in made.steps[:number] if s.until >= number}


@pytest.mark.parametrize("group", sorted(ALONE))
def test_at_most_one_of_such_a_group_stands(group: str) -> None:
    for made in ROUNDS:
        for number, step in enumerate(made.steps):
            if step.fault.group == group:
                assert group not in standing(made, number), made.name


def test_nobody_asks_a_frozen_control() -> None:
    for made in ROUNDS:
        for number, step in enumerate(made.steps):
            if step.fault.group in ASKING:
                assert not made.frozen
                assert "freezes" not in standing(made, number), made.name


def test_faults_overlap() -> None:
    """Else a round would be but a piece of the matrix."""
    assert sum(bool(standing(made, len(made.steps) - 1)) for made in ROUNDS) > len(ROUNDS) / 4
    assert all(
        s.until == n for m in ROUNDS for n, s in enumerate(m.steps) if s.fault.undo is nothing
    )
