"""Lines of the session history: what is written reads back, and so does the reference's format."""

from __future__ import annotations

import dataclasses
import json
from ipaddress import IPv4Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocgate.sessions.record import Moved, Record, parsed, record_of, written
from ocgate.sessions.session import Session

SESSION = Session(
    worker=7,
    started=123,
    device="vpns0",
    user="älice\udcff\n",
    vhost="default",
    address4=IPv4Address("10.10.10.2"),
    prefix6=IPv6Network("fd00::2/128"),
    peer="192.0.2.10",
    connected_at=1_700_000_000.4,
    agent="x" * 5000,
)


def record(**changed: object) -> Record:
    made = record_of(
        SESSION, until=1_700_003_600.4, moved=Moved(1, 2), exit="nl", reason="disconnected"
    )
    return dataclasses.replace(made, **changed)  # type: ignore[arg-type]


def test_a_line_holds_the_whole_session_in_ascii_and_below_a_page() -> None:
    line = written(record())
    assert line.isascii()
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert len(line) < 4096
    assert json.loads(line) == {
        "id": "7-123",
        "user": "älice\\xff\n",
        "vhost": "default",
        "device": "vpns0",
        "peer": "192.0.2.10",
        "agent": "x" * 200,
        "address4": "10.10.10.2",
        "address6": "fd00::2",
        "since": "2023-11-14T22:13:20Z",
        "until": "2023-11-14T23:13:20Z",
        "seconds": 3600,
        "bytes_in": 1,
        "bytes_out": 2,
        "exit": "nl",
        "reason": "disconnected",
    }


@given(user=st.text(max_size=80), peer=st.text(max_size=40), count=st.none() | st.integers(0))
def test_what_is_written_reads_back(user: str, peer: str, count: int | None) -> None:
    """Law: any record of any client is the same after writing and reading."""
    made = record(user=user, peer=peer, bytes_in=count)
    assert parsed(written(made)) == made


@pytest.mark.parametrize(
    ("line", "user", "exit", "bytes_in", "bytes_out"),
    [
        (
            "1700000000 1700000060 alice 10.20.0.37 - 198.51.100.7 nl vpns3 10 20 11 22 ru=1:2",
            "alice",
            "nl",
            11,
            22,
        ),
        (
            "1700000000 1700000060 bob 10.20.0.9 fd00::9 - - vpns1 10 20 - - -",
            "bob",
            "direct",
            10,
            20,
        ),
        (
            "1700000000 1700000060 eve 10.20.0.9 - - direct vpns1 - - - - -",
            "eve",
            "direct",
            None,
            None,
        ),
    ],
)
def test_lines_of_the_reference_image_are_read(
    line: str, user: str, exit: str, bytes_in: int | None, bytes_out: int | None
) -> None:
    """Columns as azinchen/ocserv-server documents them; ocserv's own counts come first."""
    found = parsed(line.encode())
    assert found is not None
    assert (found.user, found.exit, found.seconds) == (user, exit, 60)
    assert (found.bytes_in, found.bytes_out) == (bytes_in, bytes_out)
    assert (found.since, found.until) == ("2023-11-14T22:13:20Z", "2023-11-14T22:14:20Z")


@pytest.mark.parametrize(
    "line",
    ["", "{", "{}", "[]", "- - alice - - - - - - - - - -", "a b c", '{"since": 1, "until": 2}',
     "9" * 30 + " 1 a b c d e f g h i j k"],
)  # fmt: skip
def test_what_is_no_line_is_passed_over(line: str) -> None:
    assert parsed(line.encode()) is None


@given(st.binary(max_size=200))
def test_no_bytes_are_an_error(line: bytes) -> None:
    """Law: a damaged file never ends a report."""
    parsed(line)


def test_a_moment_without_a_time_zone_makes_no_record() -> None:
    """It could not be compared with the others, and one line by hand would end every report."""
    line = json.loads(written(record()))
    assert parsed(json.dumps({**line, "until": "2026-03-01T00:00:00"}).encode()) is None
    assert parsed(json.dumps(line).encode()) == record()
