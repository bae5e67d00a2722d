"""What a proof says to programs: `ocgate prove --json`. Pure.

Times in seconds. Within one `schema` fields are added and none is renamed; `id` of a fault, names
of layers, `what`, `limit` and `closed_by` are stable, printed names and sentences are not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from ocgate.prove import summary as grouping
from ocgate.prove.fault import Lock
from ocgate.prove.outcome import Cell, Outcome, Proof
from ocgate.prove.report import examples
from ocgate.prove.summary import ADVICE, LIMIT_WORDS, WORDS, Group, Remedy
from ocgate.prove.verdict import Leak

# 2: layers by name instead of locks by number, `id` of faults, `summary`, `guard`, limits.
SCHEMA: Literal[2] = 2


def document(proof: Proof) -> dict[str, Any]:
    """The whole of it."""
    return {
        "schema": SCHEMA,
        "subject": proof.subject,
        "holds": proof.holds,
        "faults_run": len(proof.run),
        "packets": proof.packets,
        "leaked": proof.leaked,
        "seconds": round(proof.seconds, 1),
        "guard": {
            "layers": [lock.value for lock in Lock if _has(proof, lock)],
            "forwarding_shared": proof.guarded.shared,
        },
        "summary": _summary(proof),
        "positive_control": dict(proof.controls),
        "faults": [_fault(outcome) for outcome in proof.outcomes],
    }


def _has(proof: Proof, lock: Lock) -> bool:
    return lock is not Lock.RULES or proof.guarded.policy_routing


def _summary(proof: Proof) -> dict[str, Any]:
    leaks, limits = grouping.leaking(proof), grouping.not_promised(proof)
    return {
        "leaking_faults": [outcome.fault.id for outcome in proof.run if outcome.leaked],
        "failed_faults": [outcome.fault.id for outcome in proof.failed],
        "leaks": [_group(group) for group in leaks],
        "not_promised": [_group(group) | _limit(group) for group in limits],
        "remedies": _remedies(grouping.remedies([*leaks, *limits])),
    }


def _group(group: Group) -> dict[str, Any]:
    return {
        "layers_taken_away": [layer.value for layer in group.layers],
        "packets": group.packets,
        "faults": [fault.id for fault in group.faults],
        "what": [
            {"what": what.value, "packets": count, "text": WORDS[what]}
            for what, count in group.what.items()
        ],
        "closed_by": group.remedy.value,
    }


def _limit(group: Group) -> dict[str, Any]:
    if group.limit is None:
        return {}
    return {"limit": group.limit.value, "text": LIMIT_WORDS[group.limit]}


def _remedies(found: Iterable[Remedy]) -> list[dict[str, Any]]:
    return [
        {
            "name": remedy.value,
            "why": ADVICE[remedy].why,
            "text": ADVICE[remedy].remedy,
            "setting": ADVICE[remedy].setting or None,
            "value": ADVICE[remedy].value or None,
        }
        for remedy in found
    ]


def _fault(outcome: Outcome) -> dict[str, Any]:
    return {
        "id": outcome.fault.id,
        "name": outcome.fault.name,
        "group": outcome.fault.group,
        "frozen": outcome.fault.frozen,
        "layers_taken_away": [layer.value for layer in outcome.fault.layers],
        "expected": outcome.fault.expect.value,
        "skipped": outcome.skipped,
        "failed": outcome.failed,
        "sent": outcome.sent,
        "right_exit": outcome.right,
        "rejected": outcome.rejected,
        "leaked": outcome.leaked,
        "not_promised": {limit.value: count for limit, count in outcome.limited.items()},
        "rejected_after_seconds": _rounded(outcome.noticed),
        "recovery_seconds": _rounded(outcome.recovery),
        "seconds": round(outcome.seconds, 2),
        "kinds": [_cell(cell) for cell in outcome.cells],
        "leaks": [_leak(outcome, leak, count) for leak, count in outcome.leaks.items()],
    }


def _leak(outcome: Outcome, leak: Leak, count: int) -> dict[str, Any]:
    return {
        "seen_by": leak.where,
        "kind": leak.kind.word,
        "what": grouping.kind_of(leak).value,
        "family": leak.family,
        "packets": count,
        "limit": leak.limit.value if leak.limit else None,
        "examples": examples(outcome, leak),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "kind": cell.kind.word,
        "family": cell.family,
        "sent": cell.sent,
        "right_exit": cell.right,
        "rejected": cell.rejected,
        "leaked": cell.leaked,
    }
