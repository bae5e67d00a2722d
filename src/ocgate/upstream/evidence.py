"""What `upstream.liveness` knows of an exit, as a person reads it: clauses of `why`. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ocgate.upstream.line import NEVER, Line, Round


def late(line: Line, now: float) -> int:
    """Probes without an answer for longer than one should take, since the last that had one."""
    return sum(now - sent > line.limit for sent in line.late)


def traffic(line: Line, now: float) -> str:
    """What came back for clients lately, and which probes are late."""
    (first, before), (_, last) = line.looks[0], line.looks[-1]
    words = f"{_bytes(last.back - before.back)} came back in the last {seconds(now - first)}"
    count = late(line, now)
    return f"{words}; {count} probe{'s' * (count != 1)} late" if count else words


def silence(line: Line, lost: Iterable[Round], now: float) -> str:
    """What came of these rounds instead of answers."""
    lost = list(lost)
    said = dict.fromkeys(why for one in lost for why in one.refused)
    silent = dict.fromkeys(t.name for t in line.targets if any(t.name in one.open for one in lost))
    words = list(said)
    if silent:
        first = min(one.sent for one in lost)
        words.append(f"no answer from {', '.join(silent)} for {seconds(now - first)}")
    if line.answered == NEVER and not said:
        words.append("none of EXIT_PROBE has ever answered through it")
    return "; ".join(words)


def seconds(moments: float) -> str:
    """A time with its unit."""
    return f"{moments * 1000:.0f} ms" if moments < 1 else f"{moments:.1f} s"


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
