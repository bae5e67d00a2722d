"""What the report makes of live sessions and the history: filters, sums, loops."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ocgate.sessions.record import Record
from ocgate.sessions.report import Asked, Live, report

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def record(user: str, ago: timedelta, seconds: int, count: int | None = 10) -> Record:
    until = NOW - ago
    return Record(
        "1-1", user, "default", "vpns0", "192.0.2.1", "", "10.10.10.2", None,
        iso(until - timedelta(seconds=seconds)), iso(until), seconds, count, count, "direct", "x",
    )  # fmt: skip


def live(user: str, since: datetime) -> Live:
    seconds = round((NOW - since).total_seconds())
    return Live(
        user, "default", "vpns1", "192.0.2.2", "10.10.10.3", None, iso(since), seconds, 5, 6
    )


def test_sums_are_of_live_and_completed_and_name_what_is_missing() -> None:
    found = report(
        [live("alice", NOW - timedelta(seconds=100))],
        [record("alice", timedelta(hours=2), 60), record("alice", timedelta(hours=3), 30, None)],
        Asked(),
        NOW,
    )
    (total,) = found.totals
    assert (total.sessions, total.seconds, total.unknown) == (3, 190, 1)
    assert (total.bytes_in, total.bytes_out) == (15, 16)
    assert [r.seconds for r in found.completed] == [60, 30]


@pytest.mark.parametrize(
    ("asked", "users"),
    [
        (Asked(), ["alice", "bob", "carol", "dave"]),
        (Asked("bob"), ["bob"]),
        (Asked("nobody"), []),
        # 1 March: bob's ended on it, carol's spans it into the second, dave's live one began on it
        (
            Asked(None, NOW - timedelta(hours=36), NOW - timedelta(hours=12)),
            ["bob", "carol", "dave"],
        ),
        (
            Asked(None, NOW - timedelta(hours=12), NOW + timedelta(hours=12)),
            ["alice", "carol", "dave"],
        ),
    ],
)
def test_a_report_is_of_one_user_or_day(asked: Asked, users: list[str]) -> None:
    found = report(
        [live("dave", NOW - timedelta(hours=20))],
        [
            record("alice", timedelta(hours=1), 60),
            record("bob", timedelta(hours=30), 60),
            record("carol", timedelta(hours=2), 40 * 3600),
        ],
        asked,
        NOW,
    )
    assert sorted(total.user for total in found.totals) == users


def test_who_reconnects_in_a_loop_is_told() -> None:
    """Three sessions of less than two minutes within the hour; older or longer ones don't count."""
    minutes = [timedelta(minutes=m) for m in (1, 5, 50)]
    found = report(
        [],
        [
            *(record("loop", ago, 119) for ago in minutes),
            *(record("long", ago, 120) for ago in minutes),
            *(record("old", ago + timedelta(minutes=30), 5) for ago in minutes),
        ],
        Asked(),
        NOW,
    )
    assert found.reconnecting == {"loop": 3}
