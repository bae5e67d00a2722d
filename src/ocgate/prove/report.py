"""What a proof says: a table for people, a document for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from rich import box
from rich.table import Table
from rich.text import Text

from ocgate.prove.outcome import Cell, Outcome, Proof

SCHEMA: Literal[1] = 1

_COLUMNS = ("fault", "sent", "right exit", "rejected", "leaked", "told after", "back after")


def table(proof: Proof) -> Table:
    """One line a fault; where something leaked, what, below it."""
    made = Table(title="Leak matrix", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for column in _COLUMNS:
        made.add_column(column, justify="left" if column == "fault" else "right", overflow="fold")
    for outcome in proof.outcomes:
        made.add_row(*_row(outcome))
        for line in details(outcome):
            made.add_row(Text(f"  {line}", style="red"))
    return made


def _row(outcome: Outcome) -> list[Text]:
    name = Text(outcome.fault.name)
    if outcome.skipped:
        return [name + Text(f"  not possible here: {outcome.skipped}", style="yellow")]
    leaked = Text(str(outcome.leaked), style="bold red" if outcome.leaked else "green")
    counts = (outcome.sent, outcome.right, outcome.rejected)
    return [
        name,
        *(Text(str(count)) for count in counts),
        leaked,
        Text(_ms(outcome.noticed)),
        Text(_back(outcome)),
    ]


def _back(outcome: Outcome) -> str:
    if outcome.failed:
        return "never"
    return _ms(outcome.recovery)


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.0f} ms"


def details(outcome: Outcome) -> Iterator[str]:
    """What leaked where, a line each, and why it did not come back."""
    for leak, count in sorted(outcome.leaks.items(), key=lambda item: -item[1]):
        seen = outcome.examples.get(leak, [])
        example = f": {seen[0]}" if seen else ""
        yield f"{count} x {leak.kind.word} IPv{leak.family}, seen by {leak.where}{example}"
    if outcome.failed:
        yield f"did not come back: {outcome.failed.splitlines()[0]}"


def summary(proof: Proof) -> str:
    """The last line."""
    failed = f", {len(proof.failed)} did not come back" if proof.failed else ""
    return (
        f"{len(proof.run)} faults, {proof.packets} client packets, {proof.leaked} leaked"
        f"{failed}, {proof.seconds:.0f} s"
    )


def control_line(proof: Proof) -> str:
    """What the positive control has shown."""
    total = sum(proof.controls.values())
    return (
        f"Positive control: with every lock taken away {total} leaks of {len(proof.controls)} "
        "kinds were seen."
    )


def document(proof: Proof) -> dict[str, Any]:
    """The whole of it, for --json. Times in seconds; a field may be added within one `schema`."""
    return {
        "schema": SCHEMA,
        "subject": proof.subject,
        "holds": proof.holds,
        "faults_run": len(proof.run),
        "packets": proof.packets,
        "leaked": proof.leaked,
        "seconds": round(proof.seconds, 1),
        "positive_control": dict(proof.controls),
        "faults": [_fault(outcome) for outcome in proof.outcomes],
    }


def _fault(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.fault.name,
        "group": outcome.fault.group,
        "frozen": outcome.fault.frozen,
        "locks_taken_away": sorted(lock.value for lock in outcome.fault.locks),
        "expected": outcome.fault.expect.value,
        "skipped": outcome.skipped,
        "failed": outcome.failed,
        "sent": outcome.sent,
        "right_exit": outcome.right,
        "rejected": outcome.rejected,
        "leaked": outcome.leaked,
        "rejected_after_seconds": _rounded(outcome.noticed),
        "recovery_seconds": _rounded(outcome.recovery),
        "seconds": round(outcome.seconds, 2),
        "kinds": [_cell(cell) for cell in outcome.cells],
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
