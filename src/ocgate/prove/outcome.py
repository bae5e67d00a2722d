"""What came of a fault, of the positive control, and of a whole run: values for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ocgate.prove.fault import Fault
from ocgate.prove.marker import Kind
from ocgate.prove.verdict import Leak, Limit


@dataclass(frozen=True)
class Guarded:
    """By what the clients of a configuration are held, as its report explains leaks.

    policy_routing: whether that layer is there at all; the standalone server has none.
    shared:         whether others forward on this host, too (OCGATE_FORWARDING).
    """

    policy_routing: bool = True
    shared: bool = False


@dataclass(frozen=True)
class Cell:
    """Packets of one kind and family during one fault."""

    kind: Kind
    family: int
    sent: int
    right: int
    rejected: int
    leaked: int


@dataclass(frozen=True)
class Outcome:
    """One fault. recovery: seconds until every client was answered again, None if none was to be.

    skipped: why it can't be done here; failed: why the subject did not come back; '' otherwise.
    noticed: seconds until clients were rejected, None where they need not be.
    leaks: packets by where they were seen; examples: some of them in words.
    """

    fault: Fault
    number: int
    cells: tuple[Cell, ...] = ()
    leaks: Mapping[Leak, int] = field(default_factory=dict)
    examples: Mapping[Leak, list[str]] = field(default_factory=dict)
    recovery: float | None = None
    seconds: float = 0.0
    skipped: str = ""
    failed: str = ""
    noticed: float | None = None

    @property
    def sent(self) -> int:
        """Client packets, of all kinds."""
        return sum(cell.sent for cell in self.cells)

    @property
    def right(self) -> int:
        """Packets that left by the right exit."""
        return sum(cell.right for cell in self.cells)

    @property
    def rejected(self) -> int:
        """ICMP errors and RSTs that clients got."""
        return sum(cell.rejected for cell in self.cells)

    @property
    def leaked(self) -> int:
        """Packets that left by a wrong way, or that another session got; less `limited`."""
        return sum(count for leak, count in self.leaks.items() if leak.limit is None)

    @property
    def limited(self) -> dict[Limit, int]:
        """Such packets of which it is not promised that there are none."""
        found: dict[Limit, int] = {}
        for leak, count in self.leaks.items():
            if leak.limit is not None:
                found[leak.limit] = found.get(leak.limit, 0) + count
        return found


@dataclass(frozen=True)
class Proof:
    """A whole run. controls: kinds whose leak the captures have shown to see, by family.

    packets: client packets in all; sights: captured frames that were judged.
    """

    subject: str
    outcomes: tuple[Outcome, ...]
    controls: Mapping[str, int]
    packets: int
    sights: int
    seconds: float
    guarded: Guarded = field(default_factory=Guarded)

    @property
    def run(self) -> tuple[Outcome, ...]:
        """What was not passed over."""
        return tuple(outcome for outcome in self.outcomes if not outcome.skipped)

    @property
    def leaked(self) -> int:
        """Leaked packets of all faults."""
        return sum(outcome.leaked for outcome in self.outcomes)

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Faults from which the subject did not come back."""
        return tuple(outcome for outcome in self.outcomes if outcome.failed)

    @property
    def holds(self) -> bool:
        """Nothing leaked and everything came back."""
        return not self.leaked and not self.failed
