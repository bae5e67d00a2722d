"""Who was connected: live and completed sessions, sums of each user, and who reconnects in a loop.

Pure: what `ocgate sessions` prints, made of the status document's sessions and the history.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ocgate.sessions.record import Record

# A router that loses its session at once and dials again: the reference's measure.
SHORT = timedelta(minutes=2)
WINDOW = timedelta(hours=1)
LOOP = 3  # short sessions within the window


@dataclass(frozen=True)
class Live:
    """A session that is connected; fields as in `Record`."""

    user: str
    vhost: str
    device: str
    peer: str
    address4: str | None
    address6: str | None
    since: str
    seconds: int
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True)
class Total:
    """Of one user's sessions in the report, live ones included. unknown: sessions whose bytes
    nobody told, which are missing in the sums."""

    user: str
    sessions: int
    seconds: int
    bytes_in: int
    bytes_out: int
    unknown: int


@dataclass(frozen=True)
class Report:
    """completed: the latest first. reconnecting: user -> short sessions within the last hour, of
    those with suspiciously many."""

    live: tuple[Live, ...]
    completed: tuple[Record, ...]
    totals: tuple[Total, ...]
    reconnecting: Mapping[str, int]


@dataclass(frozen=True)
class Asked:
    """What the report is of. user: None for all. begin, end: sessions that lived in between."""

    user: str | None = None
    begin: datetime | None = None
    end: datetime | None = None

    def holds(self, user: str, since: str, until: str | None) -> bool:
        """Whether a session is meant; until: None while it lives."""
        if self.user not in (None, user):
            return False
        over = until is not None and self.begin is not None and _moment(until) < self.begin
        early = self.end is not None and _moment(since) >= self.end
        return not (over or early)


def report(live: Iterable[Live], records: Iterable[Record], asked: Asked, now: datetime) -> Report:
    """The report at `now`; records in any order."""
    connected = tuple(s for s in live if asked.holds(s.user, s.since, None))
    kept = [r for r in records if asked.holds(r.user, r.since, r.until)]
    completed = tuple(sorted(kept, key=lambda r: (r.until, r.since), reverse=True))
    return Report(
        connected, completed, _totals([*connected, *completed]), _reconnecting(completed, now)
    )


def _totals(sessions: Sequence[Live | Record]) -> tuple[Total, ...]:
    by_user: dict[str, list[Live | Record]] = {}
    for session in sessions:
        by_user.setdefault(session.user, []).append(session)
    return tuple(
        Total(
            user=user,
            sessions=len(mine),
            seconds=sum(s.seconds for s in mine),
            bytes_in=sum(s.bytes_in or 0 for s in mine),
            bytes_out=sum(s.bytes_out or 0 for s in mine),
            unknown=sum(s.bytes_in is None for s in mine),
        )
        for user, mine in sorted(by_user.items())
    )


def _reconnecting(completed: Iterable[Record], now: datetime) -> dict[str, int]:
    short = Counter(
        r.user
        for r in completed
        if r.seconds < SHORT.total_seconds() and _moment(r.until) >= now - WINDOW
    )
    return {user: count for user, count in sorted(short.items()) if count >= LOOP}


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
