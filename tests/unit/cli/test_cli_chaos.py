"""`ocgate prove --chaos`: its seed, its words, its exit status. What it does is tests/prove's."""

from __future__ import annotations

import json
import re

import pytest

from ocgate.cli import chaos
from ocgate.prove import gateway, unrest
from ocgate.prove.chaos import Acting, drawn, vocabulary
from ocgate.prove.marker import Kind
from ocgate.prove.outcome import Cell, Outcome, Proof
from ocgate.prove.verdict import Leak

ROUND = Acting(drawn(1, 1, vocabulary(), spared=frozenset())).fault()
CELLS = (Cell(Kind.UDP, 4, sent=10, right=9, rejected=1, leaked=0),)
WELL = Outcome(ROUND, 1, CELLS, recovery=0.1)


def proof(*outcomes: Outcome) -> Proof:
    return Proof("ocgate", outcomes, {"udp IPv4": 5}, 1000, 2000, 61.0)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[unrest.Unrest]:
    """What was asked for; the answer is one round and the end, both well."""
    found: list[unrest.Unrest] = []

    def prove(_environ: object, wanted: unrest.Unrest, *, tell: object) -> Proof:
        found.append(wanted)
        assert callable(tell)
        tell(WELL)
        return proof(WELL, WELL)

    monkeypatch.setattr(unrest, "prove", prove)
    return found


def test_a_seed_is_kept_and_a_drawn_one_is_told_at_once(
    asked: list[unrest.Unrest], capsys: pytest.CaptureFixture[str]
) -> None:
    assert chaos.chaos(minutes=0.5, seed=7, pcap=None, as_json=False) == 0
    assert asked[0] == unrest.Unrest(7, 30.0)
    printed = capsys.readouterr()
    assert printed.err.splitlines()[0] == "seed 7: --seed 7 replays these rounds"
    assert printed.err.splitlines()[1].startswith(f"{ROUND.name}: 10 packets, 0 leaked")
    assert "seed 7: 1 rounds and the end, 1000 client packets, 0 leaked" in printed.out
    chaos.chaos(minutes=1, seed=None, pcap=None, as_json=False)
    assert re.match(rf"seed {asked[1].seed}: ", capsys.readouterr().err)


def test_json_says_what_was_taken_away_and_what_leaked() -> None:
    leak = Leak("isp", Kind.UDP, 4, 1)
    bad = Outcome(ROUND, 1, CELLS, {leak: 3}, {leak: ["a -> b"]}, failed="it did not come back")
    made = json.loads(json.dumps(chaos.document(proof(bad, WELL), 7)))
    assert (made["seed"], made["holds"], made["leaked"]) == (7, False, 3)
    first = made["rounds"][0]
    assert first["layers_taken_away"] == sorted(lock.name.lower() for lock in ROUND.locks)
    assert first["leaks"][0]["packets"] == 3
    assert first["failed"] == "it did not come back"


def test_the_end_knows_how_plan_says_that_nothing_differs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from ocgate.cli import looking

    looking._print_diff("")
    assert gateway.SAME in capsys.readouterr().out
