"""`ocgate prove --chaos MINUTES`: a line for each round as it ends, then what came of all."""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ocgate.prove.outcome import Outcome, Proof

LEAKED = 1
HIGHEST_SEED = 999_999  # short enough to be typed from a log


def chaos(*, minutes: float, seed: int | None, pcap: Path | None, as_json: bool) -> int:
    """1 if anything leaked, did not come back or was left; stderr names the seed at once."""
    from ocgate.prove.unrest import Unrest, prove

    chosen = random.randint(1, HIGHEST_SEED) if seed is None else seed
    print(f"seed {chosen}: --seed {chosen} replays these rounds", file=sys.stderr, flush=True)
    proof = prove(os.environ, Unrest(chosen, minutes * 60, pcap), tell=_told)
    if as_json:
        print(json.dumps(document(proof, chosen), indent=2, ensure_ascii=False))
    else:
        print("\n".join(closing(proof, chosen)))
    return 0 if proof.holds else LEAKED


def _told(outcome: Outcome) -> None:
    print(line(outcome), file=sys.stderr, flush=True)


def line(outcome: Outcome) -> str:
    """One round in words, what leaked of it below."""
    from ocgate.prove.report import details

    back = "" if outcome.recovery is None else f", back after {outcome.recovery:.1f} s"
    counts = f"{outcome.sent} packets, {outcome.leaked} leaked{back}"
    return "\n".join([f"{outcome.fault.name}: {counts}", *(f"    {d}" for d in details(outcome))])


def closing(proof: Proof, seed: int) -> list[str]:
    """The last lines."""
    from ocgate.prove.report import control_line

    failed = f", {len(proof.failed)} failed" if proof.failed else ""
    return [
        control_line(proof),
        f"seed {seed}: {len(proof.run) - 1} rounds and the end, {proof.packets} client packets, "
        f"{proof.leaked} leaked{failed}, {proof.seconds:.0f} s",
    ]


def document(proof: Proof, seed: int) -> dict[str, Any]:
    """For --json. A field may be added within one `schema`."""
    return {
        "schema": 1,
        "seed": seed,
        "holds": proof.holds,
        "packets": proof.packets,
        "leaked": proof.leaked,
        "seconds": round(proof.seconds, 1),
        "positive_control": dict(proof.controls),
        "rounds": [_round(outcome) for outcome in proof.outcomes],
    }


def _round(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.fault.name,
        "frozen": outcome.fault.frozen,
        "layers_taken_away": sorted(lock.name.lower() for lock in outcome.fault.locks),
        "sent": outcome.sent,
        "leaked": outcome.leaked,
        "failed": outcome.failed,
        "recovery_seconds": outcome.recovery,
        "leaks": [
            {
                "seen_by": leak.where,
                "kind": leak.kind.word,
                "family": leak.family,
                "packets": count,
                "examples": outcome.examples.get(leak, []),
            }
            for leak, count in outcome.leaks.items()
        ],
    }
