"""What a proof says: words of 80 columns for people, stable names for programs."""

from __future__ import annotations

import json

import pytest

from ocgate.prove.document import document
from ocgate.prove.fault import Fault, Lock, nothing
from ocgate.prove.faults import matrix
from ocgate.prove.marker import Kind
from ocgate.prove.outcome import Cell, Guarded, Outcome, Proof
from ocgate.prove.report import counted, detailed, lines
from ocgate.prove.summary import Remedy, leaking, not_promised
from ocgate.prove.verdict import Leak, Limit

BARE = Fault("tables deleted", "frozen", nothing, frozen=True, locks=frozenset({Lock.TABLES}))
BOTH = Fault(
    "a rather long name of two faults together + another one, frozen",
    "pairs",
    nothing,
    locks=frozenset({Lock.ROUTES, Lock.TABLES}),
)
QUIET = Fault("nothing is broken", "clients", nothing)
CELL = Cell(Kind.UDP, 4, 1300, 1300, 0, 0)
SPOOFED = Leak("isp", Kind.SPOOF, 6, 2, Limit.FORGED_ON_SHARED_HOST)


def proof(*outcomes: Outcome, guarded: Guarded | None = None) -> Proof:
    return Proof("ocgate", outcomes, {"udp IPv4": 12}, 1300, 99, 61.4, guarded or Guarded())


def leaked(fault: Fault, **leaks: int) -> Outcome:
    found = {Leak("isp", Kind[kind.upper()], 4, 1): count for kind, count in leaks.items()}
    seen = {leak: ["10.10.10.5 -> 198.51.100.10 udp 4000->7"] for leak in found}
    return Outcome(fault, 1, (CELL,), found, seen, recovery=0.1)


def text(given: Proof) -> str:
    return "\n".join(line for line, _ in lines(given))


def test_what_holds_says_so_first_and_last() -> None:
    """The verdict is the first line, the figures are the last."""
    said = text(proof(Outcome(QUIET, 1, (CELL,), recovery=0.02))).splitlines()
    assert said[0] == "HOLDS: 0 of 1,300 client packets leaked, in 1 fault."
    assert said[-1] == "1 fault, 1,300 client packets, 0 leaked, 61 s"
    assert not any(line.startswith(("Why:", "With ")) for line in said)


def test_leaks_are_grouped_by_the_layer_that_was_away() -> None:
    """What leaked most comes first, with what it is, why, and the setting that closes it."""
    standalone = Guarded(policy_routing=False)
    given = proof(leaked(BARE, udp=10, spoof=3), leaked(BOTH, udp=40), guarded=standalone)
    said = text(given)
    assert said.startswith("LEAKED: 53 of 1,300 client packets, in 2 of 2 faults.")
    both = said.index("With the nftables and blackhole layers taken away (1 fault, 40 packets)")
    assert both < said.index("With the nftables layer taken away (1 fault, 13 packets)")
    assert "What closes it: VPN_GATEWAY=direct" in said
    assert said.count("Why: ") == 1


def test_with_all_layers_a_leak_is_a_defect() -> None:
    """No setting is recommended that would not help."""
    (group,) = leaking(proof(leaked(BARE, udp=1)))
    assert group.remedy is Remedy.DEFECT
    assert "defect of ocgate" in text(proof(leaked(BARE, udp=1)))


def test_what_is_not_promised_is_told_apart_and_does_not_fail() -> None:
    """Forged sources on a shared host: counted, explained, no leak."""
    given = proof(Outcome(BARE, 2, (CELL,), {SPOOFED: 30}), guarded=Guarded(shared=True))
    assert given.holds
    assert given.leaked == 0
    assert not leaking(given)
    assert [group.packets for group in not_promised(given)] == [30]
    said = text(given)
    assert said.startswith("HOLDS: 0 of")
    assert "Not promised: IPv6 with a forged source" in said
    assert "OCGATE_FORWARDING=exclusive" in said
    assert "0 leaked (30 not promised)" in said


def test_what_did_not_come_back_is_named() -> None:
    given = proof(Outcome(QUIET, 1, (CELL,), failed="TimedOut: waited 15 s\nand more"))
    assert text(given).startswith("DID NOT RECOVER from 1 of 1 fault.")
    assert "nothing is broken: TimedOut: waited 15 s" in text(given)


@pytest.mark.parametrize("policy_routing", [True, False])
def test_no_line_is_longer_than_a_terminal(policy_routing: bool) -> None:
    """Of the summary and of the details, for every fault of the matrix."""
    outcomes = [leaked(fault, udp=1, spoof=2, host=3, peer=4) for fault in matrix(full=True)]
    outcomes.append(Outcome(QUIET, 1, skipped="only 262143 of 262144 entries could be made " * 3))
    given = proof(*outcomes, guarded=Guarded(policy_routing=policy_routing))
    for line, _ in (*lines(given), *detailed(given)):
        assert len(line) <= 80


def test_the_document_has_the_same_groups_by_stable_names() -> None:
    given = proof(leaked(BARE, udp=10), guarded=Guarded(policy_routing=False))
    shown = json.loads(json.dumps(document(given)))
    assert shown["schema"] == 2
    assert shown["guard"] == {"layers": ["nftables", "blackhole"], "forwarding_shared": False}
    (group,) = shown["summary"]["leaks"]
    assert group == {
        "layers_taken_away": ["nftables"],
        "packets": 10,
        "faults": ["tables-deleted"],
        "what": [{"what": "client", "packets": 10, "text": "what clients send to the internet"}],
        "closed_by": "policy-routing",
    }
    assert shown["faults"][0]["leaks"][0]["examples"]


def test_names_of_faults_for_programs_are_unique() -> None:
    """A page refers to a fault by its id."""
    names = [fault.id for fault in matrix(full=True)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "0 faults"), (1, "1 fault"), (1300, "1,300 faults")]
)
def test_plurals(number: int, expected: str) -> None:
    assert counted(number, "fault") == expected
