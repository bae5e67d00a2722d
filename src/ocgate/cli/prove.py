"""`ocgate prove`: the leak matrix against a replica of this configuration, with its progress."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocgate.cli import terminal

if TYPE_CHECKING:
    from rich.console import Console

    from ocgate.prove.fault import Fault
    from ocgate.prove.outcome import Outcome
    from ocgate.prove.proving import Audience
    from ocgate.prove.report import Line

LEAKED = 1
USAGE = 2

_BAR_COLUMNS = 20


def prove(
    *, only: Sequence[str], full: bool, pcap: Path | None, as_json: bool, details: bool
) -> int:
    """Print the summary, or JSON; 1 if anything leaked or did not come back."""
    from ocgate.prove import report
    from ocgate.prove.document import document
    from ocgate.prove.proving import prove as run

    with _progress(terminal.err()) as audience, _ended_by_sigterm():
        try:
            proof = run(os.environ, only=only, full=full, pcap=pcap, audience=audience)
        except ValueError as error:
            print(f"ocgate: --only: {error}; `ocgate prove --list` names them", file=sys.stderr)
            return USAGE
    if as_json:
        print(json.dumps(document(proof), indent=2, ensure_ascii=False))
    else:
        if details:
            _print(report.detailed(proof))
            print()
        _print(report.lines(proof))
    return 0 if proof.holds else LEAKED


def _print(lines: Iterable[Line]) -> None:
    """The report has folded them itself, alike for a terminal and a pipe."""
    from rich.text import Text

    console = terminal.out()
    for line, style in lines:
        console.print(Text(line, style=style), soft_wrap=True)


def list_faults(*, full: bool) -> int:
    """Print the faults' groups and names."""
    from ocgate.prove.faults import matrix

    for fault in matrix(full=full):
        print(f"{fault.group:11} {fault.name}")
    return 0


@contextmanager
def _progress(console: Console) -> Iterator[Audience]:
    """A bar on a terminal; elsewhere a line for each group of faults, so that a log shows life."""
    if console.is_interactive:
        with _bar(console) as audience:
            yield audience
    else:
        yield _log()


@contextmanager
def _bar(console: Console) -> Iterator[Audience]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    from ocgate.prove.proving import Audience

    whole = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    columns: tuple[Any, ...] = (
        BarColumn(_BAR_COLUMNS), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.description}", table_column=whole),
    )  # fmt: skip
    leaked = 0
    with Progress(*columns, console=console, transient=True, expand=True) as bar:
        task = bar.add_task("building the replica", total=None)

        def planned(faults: Sequence[Fault]) -> None:
            bar.update(task, total=len(faults), description="starting ocgate in the replica")

        def told(outcome: Outcome) -> None:
            nonlocal leaked
            leaked += outcome.leaked
            bar.advance(task)

        def begun(fault: Fault) -> None:
            so_far = f"{leaked:,} leaked; " if leaked else ""
            bar.update(task, description=f"{so_far}{fault.name}")

        yield Audience(planned, begun, told)


def _log() -> Audience:
    """For a log: what has been done, a line each."""
    from ocgate.prove.proving import Audience
    from ocgate.prove.report import counted

    groups: dict[str, list[Outcome]] = {}
    left: dict[str, int] = {}

    def planned(faults: Sequence[Fault]) -> None:
        for fault in faults:
            left[fault.group] = left.get(fault.group, 0) + 1
        print(f"ocgate: replica built, {counted(len(faults), 'fault')} to run", file=sys.stderr)

    def told(outcome: Outcome) -> None:
        group = outcome.fault.group
        done = groups.setdefault(group, [])
        done.append(outcome)
        if len(done) == left.get(group):
            leaked = sum(each.leaked for each in done)
            words = f"ocgate: {group}: {counted(len(done), 'fault')}, {leaked:,} leaked"
            print(words, file=sys.stderr, flush=True)

    return Audience(planned=planned, told=told)


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
