"""What a proof says to people: a summary first, every fault and leak on request. Pure.

No line is longer than WIDTH: it is read on a terminal of 80x24, in the log of a build, in an issue.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ocgate.prove import summary as grouping
from ocgate.prove.fault import Fault, Lock
from ocgate.prove.outcome import Outcome, Proof
from ocgate.prove.summary import ADVICE, LIMIT_WORDS, WORDS, Group
from ocgate.prove.verdict import Leak

WIDTH = 80
_NUMBER = 9  # columns of a count: "1,000,000"
_NAMES = 3  # faults that a group names

# (text, style of rich), one line each.
Line = tuple[str, str]


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 fault`, `2 faults`, `1,300 packets`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


# --- the summary ----------------------------------------------------------------------------------


def lines(proof: Proof) -> Iterator[Line]:
    """The whole summary, with the verdict first."""
    yield from _folded(_verdict(proof), style="bold green" if proof.holds else "bold red")
    yield ("", "")
    yield from _table(proof)
    for group in grouping.leaking(proof):
        yield from _group(_without(group.layers), group)
    for group in grouping.not_promised(proof):
        if group.limit is not None:
            yield from _group(f"Not promised: {LIMIT_WORDS[group.limit]}", group)
    yield from _failures(proof)
    yield from _advice(proof)
    yield from _footer(proof)


def _verdict(proof: Proof) -> str:
    faults, packets = counted(len(proof.run), "fault"), counted(proof.packets, "client packet")
    if proof.leaked:
        bad = sum(1 for outcome in proof.run if outcome.leaked)
        return f"LEAKED: {proof.leaked:,} of {packets}, in {bad} of {faults}."
    if proof.failed:
        return f"DID NOT RECOVER from {len(proof.failed)} of {faults}. 0 of {packets} leaked."
    return f"HOLDS: 0 of {packets} leaked, in {faults}."


def _table(proof: Proof) -> Iterator[Line]:
    """One line a group of faults."""
    yield (f"{'Faults of':<14}{'run':>5}{'packets':>10}{'leaked':>9}"
           f"{'rejected within':>18}{'back within':>14}", "bold")  # fmt: skip
    for group in dict.fromkeys(outcome.fault.group for outcome in proof.run):
        held = [outcome for outcome in proof.run if outcome.fault.group == group]
        leaked = sum(outcome.leaked for outcome in held)
        failed = any(outcome.failed for outcome in held)
        back = "never" if failed else _ms(_most(o.recovery for o in held))
        yield (
            f"{group:<14}{len(held):>5}{sum(o.sent for o in held):>10,}{leaked:>9,}"
            f"{_ms(_most(o.noticed for o in held)):>18}{back:>14}",
            "red" if leaked or failed else "",
        )


def _group(title: str, group: Group) -> Iterator[Line]:
    yield ("", "")
    faults = counted(len(group.faults), "fault")
    yield from _folded(f"{title} ({faults}, {counted(group.packets, 'packet')}):", style="bold")
    for what, count in sorted(group.what.items(), key=lambda item: -item[1]):
        yield (f"{count:>{_NUMBER},}  {WORDS[what]}", "")
    yield from _folded(f"in: {_names(group.faults)}", indent=2)


def _without(layers: tuple[Lock, ...]) -> str:
    names = " and ".join(layer.value for layer in layers)
    if not names:
        return "With all layers standing"
    return f"With the {names} {'layer' if len(layers) == 1 else 'layers'} taken away"


def _names(faults: list[Fault]) -> str:
    rest = len(faults) - _NAMES
    shown = "; ".join(fault.name for fault in faults[:_NAMES])
    return shown + (f"; and {rest} more" if rest > 0 else "")


def _failures(proof: Proof) -> Iterator[Line]:
    if proof.failed:
        yield ("", "")
        yield ("Did not come back:", "bold")
        for outcome in proof.failed:
            why = outcome.failed.splitlines()[0]
            yield from _folded(f"{outcome.fault.name}: {why}", indent=2, style="red")
    for outcome in proof.outcomes:
        if outcome.skipped:
            yield from _folded(f"Not possible here: {outcome.fault.name}: {outcome.skipped}")


def _advice(proof: Proof) -> Iterator[Line]:
    groups = [*grouping.leaking(proof), *grouping.not_promised(proof)]
    for remedy in grouping.remedies(groups):
        yield ("", "")
        yield from _folded(f"Why: {ADVICE[remedy].why}", hang=5)
        yield from _folded(f"What closes it: {ADVICE[remedy].remedy}", hang=16)


def _footer(proof: Proof) -> Iterator[Line]:
    yield ("", "")
    yield from _folded(_layers(proof))
    yield from _folded(control_line(proof))
    yield from _folded("Every fault and leak: --details. For programs: --json.")
    yield (summary(proof), "bold green" if proof.holds else "bold red")


def _layers(proof: Proof) -> str:
    if proof.guarded.policy_routing:
        return (
            "Layers: nftables and policy-routing, each enough alone for what clients send, and "
            "blackhole for what is sent to them; faults take away one or two."
        )
    return (
        "Layers: nftables and blackhole; the policy-routing layer is not part of this "
        "configuration."
    )


def control_line(proof: Proof) -> str:
    """What the positive control has shown."""
    leaks = counted(sum(proof.controls.values()), "leak")
    kinds = counted(len(proof.controls), "kind")
    return f"Positive control: with every layer taken away {leaks} of {kinds} were seen."


def summary(proof: Proof) -> str:
    """The last line."""
    limited = sum(sum(outcome.limited.values()) for outcome in proof.outcomes)
    apart = f" ({limited:,} not promised)" if limited else ""
    failed = f", {len(proof.failed)} did not come back" if proof.failed else ""
    return (
        f"{counted(len(proof.run), 'fault')}, {counted(proof.packets, 'client packet')}, "
        f"{proof.leaked:,} leaked{apart}{failed}, {proof.seconds:.0f} s"
    )


# --- details --------------------------------------------------------------------------------------


def detailed(proof: Proof) -> Iterator[Line]:
    """Two lines a fault, and one for each leak."""
    for outcome in proof.outcomes:
        bad = bool(outcome.leaked or outcome.failed)
        away = f" [{_away(outcome.fault)}]" if outcome.fault.locks else ""
        yield from _folded(f"{outcome.fault.name}{away}", style="bold red" if bad else "bold")
        yield from _folded(_figures(outcome), indent=2)
        for line in details(outcome):
            yield from _folded(line, indent=4, style="red" if bad else "")


def _away(fault: Fault) -> str:
    return f"without {', '.join(layer.value for layer in fault.layers)}"


def _figures(outcome: Outcome) -> str:
    if outcome.skipped:
        return f"not possible here: {outcome.skipped}"
    said = [
        f"{outcome.sent:,} sent", f"{outcome.right:,} by the right exit",
        f"{outcome.rejected:,} rejected", f"{outcome.leaked:,} leaked",
    ]  # fmt: skip
    said += [f"rejected after {_ms(outcome.noticed)}"] if outcome.noticed is not None else []
    said += [f"back after {_ms(outcome.recovery)}"] if outcome.recovery is not None else []
    return ", ".join(said)


def details(outcome: Outcome) -> Iterator[str]:
    """What leaked where, a line each, and why it did not come back."""
    for leak, count in sorted(outcome.leaks.items(), key=lambda item: -item[1]):
        seen = examples(outcome, leak)
        example = f": {seen[0]}" if seen else ""
        apart = f" (not promised: {leak.limit.value})" if leak.limit else ""
        yield f"{count} x {leak.kind.word} IPv{leak.family}{apart}, seen by {leak.where}{example}"
    if outcome.failed:
        yield f"did not come back: {outcome.failed.splitlines()[0]}"


def examples(outcome: Outcome, leak: Leak) -> list[str]:
    """Some of these packets in words; they were noted before a limit was seen in them."""
    return outcome.examples.get(leak) or outcome.examples.get(replace(leak, limit=None), [])


# --- words ----------------------------------------------------------------------------------------


def _folded(text: str, *, indent: int = 0, hang: int = 2, style: str = "") -> Iterator[Line]:
    lead = " " * indent
    for line in textwrap.wrap(
        text, WIDTH, initial_indent=lead, subsequent_indent=lead + " " * hang
    ):
        yield (line, style)


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:,.0f} ms"
