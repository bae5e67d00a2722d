"""`ocgate prove`: the leak matrix against a twin of this configuration, with its progress."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocgate.cli import terminal

if TYPE_CHECKING:
    from ocgate.prove.fault import Fault
    from ocgate.prove.outcome import Outcome
    from ocgate.prove.proving import Audience

LEAKED = 1
USAGE = 2


def prove(*, only: Sequence[str], full: bool, pcap: Path | None, as_json: bool) -> int:
    """Print the table, or JSON; 1 if anything leaked or did not come back."""
    from ocgate.prove import report
    from ocgate.prove.proving import prove as run

    with _progress() as audience, _ended_by_sigterm():
        try:
            proof = run(os.environ, only=only, full=full, pcap=pcap, audience=audience)
        except ValueError as error:
            print(f"ocgate: --only: {error}; `ocgate prove --list` names them", file=sys.stderr)
            return USAGE
    if as_json:
        print(json.dumps(report.document(proof), indent=2, ensure_ascii=False))
    else:
        console = terminal.out()
        console.print(report.table(proof))
        console.print(report.control_line(proof))
        console.print(report.summary(proof), style="bold green" if proof.holds else "bold red")
    return 0 if proof.holds else LEAKED


def list_faults(*, full: bool) -> int:
    """Print the faults' groups and names."""
    from ocgate.prove.faults import matrix

    for fault in matrix(full=full):
        print(f"{fault.group:11} {fault.name}")
    return 0


@contextmanager
def _progress() -> Iterator[Audience]:
    """A bar on a terminal; leaks at once, anywhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ocgate.prove import report
    from ocgate.prove.proving import Audience

    columns: tuple[Any, ...] = (
        BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"),
    )  # fmt: skip
    console = terminal.err()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("building the twin", total=None)

        def planned(faults: Sequence[Fault]) -> None:
            bar.update(task, total=len(faults), description="starting ocgate in the twin")

        def told(outcome: Outcome) -> None:
            bar.advance(task)
            for line in report.details(outcome):
                bar.console.print(f"{outcome.fault.name}: {line}", style="red", soft_wrap=True)

        def begun(fault: Fault) -> None:
            bar.update(task, description=fault.name)

        yield Audience(planned, begun, told)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends it as Ctrl-C does: with nothing left behind."""

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
